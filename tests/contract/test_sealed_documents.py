"""What lies beside a sealed stream, on every store: read as before, and erased with it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest

from eventstore.block import beginning, pack
from eventstore.dictionary import DICTIONARY
from eventstore.documents import BLOCK_BYTES, PACKED_TOGETHER_MAX, pack_documents, unpack_documents
from eventstore.errors import Fenced, LogCorrupted, UnknownFormat
from eventstore.events import PACKED, Document, Head, NewStream, Record
from eventstore.ports import EventStore
from eventstore.sealing import seal
from eventstore.verify import audit
from tests.contract.store_contract import create, erase, more, records, unit

WORDS = [f" word{n}" for n in range(200)]
TEXT = "".join(WORDS).encode()
BESIDE = {"snapshot": b'{"said":"%b"}' % TEXT, "items": b'["%b"]' % TEXT}


async def answered(store: EventStore, name: str, parent: str | None = None) -> Head:
    """A stream of many deltas, and documents that hold their text."""
    new = NewStream("response", "p1", "completed", parent=parent)
    await store.append(unit(create(name, b"{}", new=new)))
    deltas = (orjson.dumps({"d": WORDS[at : at + 20]}) for at in range(0, len(WORDS), 20))
    await store.append(unit(more(name, 0, *deltas)))
    await store.append(unit(documents=tuple(Document(name, kind, data) for kind, data in BESIDE.items())))
    head = await store.head(name)
    assert head is not None
    return head


SEALED_BEFORE = (
    "INSERT INTO salts SELECT stream_id, first_version, salt FROM blocks",
    "INSERT INTO documents SELECT stream_id, '$', documents FROM blocks",
    "ALTER TABLE blocks DROP COLUMN salt",
    "ALTER TABLE blocks DROP COLUMN documents",
    "UPDATE alembic_version SET version_num = '0005'",
)
"""Makes a log of one sealed stream what its version left of it that knew no such columns."""


async def read_and_erase(store: EventStore, name: str, before: Sequence[Record]) -> None:
    """Find in a stream that is sealed what was there `before`, as it was; erased, nothing of it."""
    head = await store.head(name)
    assert head is not None
    assert head.sealed
    assert await records(store, name) == before
    assert await store.beside(name) == BESIDE
    assert await store.document(name, "items") == BESIDE["items"]
    assert await store.documents("p1", [name], "items") == {name: BESIDE["items"]}
    assert [data for _, data in await store.lineage(name, "items")] == [BESIDE["items"]]
    assert (await audit(store)).first is None
    await store.append(unit(erase(name, head.version, epoch=head.epoch)))
    assert await store.beside(name) == {}
    assert [version for version, _ in await store.salts(name)] == [head.version + 1]
    found = await audit(store)
    assert (found.first, found.erased) == (None, head.version + 1)


async def test_a_sealed_stream_has_its_salt_and_loses_it_when_erased(store: EventStore) -> None:
    head = await answered(store, "a")
    before, salts = await records(store, "a"), await store.salts("a")
    await seal(store, [head], "the test", "")
    assert await store.salts("a") == salts
    await read_and_erase(store, "a", before)


async def test_the_documents_of_a_sealed_stream_are_read_as_before(store: EventStore) -> None:
    heads = [await answered(store, "a"), await answered(store, "b", parent="a")]
    await answered(store, "c", parent="b")
    await seal(store, heads, "the test", "")
    for name in ("a", "b", "c"):
        assert await store.beside(name) == BESIDE
        assert {kind: await store.document(name, kind) for kind in BESIDE} == BESIDE
        assert await store.document(name, "none") is None
    found = await store.documents("p1", ["a", "b", "c", "none"], "items")
    assert found == dict.fromkeys("abc", BESIDE["items"])
    assert await store.documents("p2", ["a", "b"], "items") == {}
    assert [data for _, data in await store.lineage("c", "items")] == [BESIDE["items"]] * 3
    assert [data for _, data in await store.lineage("c", "none")] == [None] * 3
    assert await store.beside("none") == {}


async def test_they_take_little_room(store: EventStore) -> None:
    head = await answered(store, "a")
    before, _ = await store.stored("p1")
    await seal(store, [head], "the test", "")
    after, _ = await store.stored("p1")
    assert before > 3 * len(TEXT)
    assert after < len(TEXT)


async def test_an_erasure_takes_them_away(store: EventStore) -> None:
    """All but those of its own unit."""
    await seal(store, [await answered(store, "a")], "the test", "")
    await store.append(unit(erase("a", 10, epoch=2), documents=(Document("a", "stone", b"grave"),)))
    assert await store.beside("a") == {"stone": b"grave"}
    assert await store.document("a", "items") is None


async def test_nothing_else_changes_them(store: EventStore) -> None:
    await seal(store, [await answered(store, "a")], "the test", "")
    for data in (b"", b"another"):
        with pytest.raises(Fenced):
            await store.append(unit(documents=(Document("a", "items", data),)))
    assert await store.beside("a") == BESIDE


async def test_a_stream_without_documents_has_none_when_sealed(store: EventStore) -> None:
    await store.append(unit(create("a")))
    await seal(store, await store.heads(), "the test", "")
    assert await store.beside("a") == {}


async def test_the_kind_of_what_is_packed_belongs_to_the_log(store: EventStore) -> None:
    with pytest.raises(ValueError, match="'\\$' belongs to the log"):
        await store.append(unit(create("a"), documents=(Document("a", PACKED, b"x"),)))


async def test_a_change_of_them_is_noticed(store: EventStore) -> None:
    """Also one of the block that they refer to."""
    await answered(store, "a")
    from_store = await records(store, "a")
    (block,) = pack(from_store)
    data = pack_documents(BESIDE, block)
    assert unpack_documents(data, block) == BESIDE
    other = replace(from_store[0], payload=(b"[]",))
    wrong = [(bytes((*data[:at], data[at] ^ 1, *data[at + 1 :])), block) for at in range(len(data))]
    wrong += [(data[:-1], block), (data, next(iter(pack([other, *from_store[1:]]))))]
    for changed, beside in wrong:
        with pytest.raises(LogCorrupted):
            unpack_documents(changed, beside)
    with pytest.raises(LogCorrupted):
        unpack_documents(data, replace(block, data=b"\x02?"))
    for later in ((b"\x02" + data[1:], block), (data, replace(block, data=b"\x03" + block.data[1:]))):
        with pytest.raises(UnknownFormat):
            unpack_documents(*later)


async def test_nothing_can_be_added_to_them_unseen(store: EventStore) -> None:
    await answered(store, "a")
    (block,) = pack(await records(store, "a"))
    dictionary = DICTIONARY + beginning(block, 28_000)
    data = pack_documents(BESIDE, block)
    body = zlib.decompressobj(zdict=dictionary).decompress(data[1:])
    header = orjson.dumps({kind: len(BESIDE[kind]) for kind in sorted(BESIDE)})
    assert body[4 : 4 + len(header)] == header
    spelled = (len(header) + 1).to_bytes(4, "big") + header + b" " + body[4 + len(header) :]
    for added in (data + b"more", *(_deflated(each, dictionary) for each in (body + b"more", spelled))):
        with pytest.raises(LogCorrupted, match="documents cannot be read"):
            unpack_documents(added, block)


def _deflated(body: bytes, dictionary: bytes) -> bytes:
    packer = zlib.compressobj(9, zdict=dictionary)
    return b"\x01" + packer.compress(body) + packer.flush()


async def test_large_ones_stay_as_they_are(store: EventStore) -> None:
    """To read one would unpack them all, on an event loop."""
    large = {**BESIDE, "input": b"x" * PACKED_TOGETHER_MAX}
    await answered(store, "a")
    await store.append(unit(documents=(Document("a", "input", large["input"]),)))
    head = await store.head("a")
    assert head is not None
    before, _ = await store.stored("p1")
    await seal(store, [head], "the test", "")
    after, _ = await store.stored("p1")
    assert PACKED_TOGETHER_MAX < after < before
    assert await store.beside("a") == large
    assert await store.documents("p1", ["a"], "items") == {"a": BESIDE["items"]}


async def test_the_beginning_of_a_block_is_enough_to_read_them(store: EventStore) -> None:
    """Of a record of megabytes that does not compress no more is fetched."""
    noise = random.Random(1).randbytes(200_000)
    await store.append(unit(create("a", noise, new=NewStream("response", "p1", "completed"))))
    await store.append(unit(documents=(Document("a", "items", noise[:9_000]),)))
    (block,) = pack(await records(store, "a"))
    assert len(block.data) > 2 * BLOCK_BYTES
    await seal(store, await store.heads(), "the test", "")
    assert await store.document("a", "items") == noise[:9_000]
    assert await store.documents("p1", ["a"], "items") == {"a": noise[:9_000]}
    begun = replace(block, data=block.data[:BLOCK_BYTES])
    assert unpack_documents(pack_documents(BESIDE, block), begun) == BESIDE

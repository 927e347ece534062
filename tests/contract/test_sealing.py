"""What sealing means, on every store: less room, and no other difference for whoever reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from eventstore.block import SPAN_MAX, bare, pack, unpack
from eventstore.dictionary import DICTIONARY
from eventstore.errors import Fenced, LogCorrupted, StreamNotFound, UnknownFormat, WrongExpectedVersion
from eventstore.events import (
    NO_STREAM,
    SEALED,
    SEALS,
    Append,
    Block,
    Head,
    NewEvent,
    NewStream,
    Record,
    Seal,
    Unit,
)
from eventstore.ports import EventStore
from eventstore.sealing import seal
from eventstore.verify import audit
from tests.contract.store_contract import (
    NEW,
    Clock,
    StoreAdapter,
    create,
    erase,
    more,
    opened,
    records,
    said_in,
    unit,
    whole_log,
)


async def grown(store: EventStore, name: str, events: int, *beside: str) -> Head:
    """A stream of that many records, whose neighbours grow between them."""
    await store.append(unit(*(create(each) for each in (name, *beside))))
    for version in range(events - 1):
        parts = (more(each, version, f"{each} {version}".encode()) for each in (name, *beside))
        await store.append(unit(*parts))
    return await stands(store, name)


async def stands(store: EventStore, name: str) -> Head:
    head = await store.head(name)
    assert head is not None
    return head


async def seals_of(store: EventStore, head: Head) -> Seal:
    return Seal(head.stream, head.version, head.epoch, list(pack(await records(store, head.stream))))


def named(expected: int = NO_STREAM) -> Append:
    new = NewStream("$log", "", "") if expected == NO_STREAM else None
    return Append(SEALS, expected, 1, [NewEvent(SEALED, b"{}")], new=new)


async def test_a_sealed_stream_reads_as_before(store: EventStore) -> None:
    head = await grown(store, "r1", 40, "r2", "r3")
    before, log = await records(store, "r1"), await whole_log(store)
    sealed = await seal(store, [head], "the test", "it ended")
    assert (sealed.streams, sealed.records, sealed.findings) == (1, 40, [])
    assert await records(store, "r1") == before
    assert await records(store, "r1", after=17) == before[18:]
    assert await records(store, "r1", after=39) == []
    for page in (1, 7, 500):
        assert (await whole_log(store, page))[: len(log)] == log
    assert await stands(store, "r1") == replace(head, epoch=2, sealed=True)
    assert (await audit(store)).first is None


async def test_the_log_says_who_sealed_what_and_why(store: EventStore) -> None:
    heads = [await grown(store, "r1", 3), await grown(store, "r2", 2)]
    await seal(store, heads[:1], "the test", "it ended")
    await seal(store, heads[1:], "the test", "it ended, too")
    assert await said_in(store, SEALS) == [
        b'{"by":"the test","why":"it ended","streams":["r1"]}',
        b'{"by":"the test","why":"it ended, too","streams":["r2"]}',
    ]
    assert (await whole_log(store))[-1].stream == SEALS


async def test_what_is_not_sealed_yet_is_found(store: EventStore) -> None:
    heads = [await grown(store, name, 2) for name in ("r1", "r2", "r3")]
    await seal(store, heads[:2], "the test", "")
    unsealed = await store.heads(category=NEW.category, sealed=False)
    assert [head.stream for head in unsealed] == ["r3"]
    assert [head.stream for head in await store.heads(sealed=True)] == ["r1", "r2"]
    assert [head.sealed for head, _ in await store.lineage("r1", "none")] == [True]


async def test_a_sealed_stream_is_erased(store: EventStore) -> None:
    head = await grown(store, "r1", 20, "r2")
    before = await records(store, "r1")
    await seal(store, [head], "the test", "")
    await store.append(unit(erase("r1", 19, epoch=2)))
    *left, tombstone = await records(store, "r1")
    assert left == [replace(record, payload=None) for record in before]
    assert tombstone.payload == (b'{"why":"asked"}',)
    found = await audit(store)
    assert (found.first, found.erased) == (None, 20)
    assert (await stands(store, "r1")).sealed


async def test_an_erased_stream_is_sealed(store: EventStore) -> None:
    await grown(store, "r1", 20, "r2")
    await store.append(unit(erase("r1", 19)))
    before = await records(store, "r1")
    await seal(store, [await stands(store, "r1")], "the test", "")
    assert await records(store, "r1") == before
    found = await audit(store)
    assert (found.first, found.erased) == (None, 20)


@pytest.mark.parametrize("stale", ["version", "epoch", "unknown"])
async def test_a_seal_of_what_moved_meanwhile_changes_nothing(store: EventStore, stale: str) -> None:
    head = await grown(store, "r1", 3)
    prepared = await seals_of(store, head)
    wanted: type[Exception]
    if stale == "version":
        await store.append(unit(erase("r1", 2)))
        wanted = WrongExpectedVersion
    elif stale == "epoch":
        await store.take("r1", epoch=1, owner=None)
        wanted = Fenced
    else:
        prepared, wanted = replace(prepared, stream="r9"), StreamNotFound
    before = await whole_log(store)
    with pytest.raises(wanted):
        await store.append(Unit([named()], seals=[prepared]))
    assert await whole_log(store) == before
    assert not (await stands(store, "r1")).sealed


async def test_blocks_that_hold_something_else_are_refused(store: EventStore) -> None:
    head = await grown(store, "r1", 3)
    prepared = await seals_of(store, head)
    (block,) = prepared.blocks
    for wrong in ([], [replace(block, last_version=1)], [replace(block, chain=b"\0" * 32)], [block, block]):
        with pytest.raises(LogCorrupted):
            await store.append(Unit([named()], seals=[replace(prepared, blocks=wrong)]))
    with pytest.raises(ValueError, match="goes with seals"):
        await store.append(Unit([more("r1", 2)], seals=[prepared]))
    assert not (await stands(store, "r1")).sealed


async def test_who_read_a_stream_before_its_seal_does_not_write_to_it(store: EventStore) -> None:
    head = await grown(store, "r1", 3)
    await seal(store, [head], "the test", "")
    with pytest.raises(Fenced):
        await store.append(unit(erase("r1", 2)))
    assert None not in await said_in(store, "r1")


async def test_a_sealed_stream_takes_nothing_but_an_erasure(store: EventStore) -> None:
    await seal(store, [await grown(store, "r1", 3)], "the test", "")
    with pytest.raises(Fenced):
        await store.append(unit(more("r1", 2, epoch=2)))
    assert (await stands(store, "r1")).version == 2


async def test_a_seal_that_loses_harms_nobody_beside_it(store: EventStore) -> None:
    first, second = [await grown(store, name, 3) for name in ("r1", "r2")]
    stale = await seals_of(store, first)
    await store.take("r1", epoch=1, owner=None)
    with pytest.raises(Fenced):
        await store.append(Unit([named()], seals=[await seals_of(store, second), stale]))
    assert (await seal(store, [second], "the test", "")).streams == 1
    assert (await seal(store, [await stands(store, "r1")], "the test", "")).streams == 1
    assert (await audit(store)).first is None


async def test_a_sealed_log_goes_on_after_it_was_opened_again(
    adapter: StoreAdapter, tmp_path: Path, clock: Clock
) -> None:
    if not adapter.survives:
        return
    async with opened(adapter, tmp_path, clock) as store:
        await seal(store, [await grown(store, "r1", 5)], "the test", "")
        before = await whole_log(store)
    async with opened(adapter, tmp_path, clock) as store:
        assert await whole_log(store) == before
        await store.append(unit(create("r2"), erase("r1", 4, epoch=2)))
        assert [record.position for record in await whole_log(store)] == list(range(1, len(before) + 3))
        assert (await audit(store)).first is None


async def test_a_stream_that_spans_much_of_the_log_has_many_blocks(store: EventStore) -> None:
    await store.append(unit(create("r1", b"x" * 100_000)))
    await store.append(unit(more("r1", 0, b"y" * 10, b"z" * 70_000)))
    await store.append(unit(more("r1", 2, b"end")))
    head, before = await stands(store, "r1"), await records(store, "r1")
    assert len((await seals_of(store, head)).blocks) == 3
    await seal(store, [head], "the test", "")
    assert await records(store, "r1") == before
    assert await records(store, "r1", after=1) == before[1:]
    assert (await whole_log(store, 2))[:3] == before
    await store.append(unit(erase("r1", 3, epoch=2)))
    assert await said_in(store, "r1") == [None, None, None, None, b'{"why":"asked"}']
    assert (await audit(store)).first is None


async def test_what_is_stored_shrinks(store: EventStore) -> None:
    head = await grown(store, "r1", 100)
    before, _ = await store.stored(NEW.tenant)
    await seal(store, [head], "the test", "")
    after, _ = await store.stored(NEW.tenant)
    assert 0 < after < before


async def test_no_byte_of_a_block_can_be_changed_unseen(store: EventStore) -> None:
    head = await grown(store, "r1", 3)
    (block,) = (await seals_of(store, head)).blocks
    (_, salt), *_ = await store.salts("r1")
    for at in range(len(block.data)):
        changed = bytes((*block.data[:at], block.data[at] ^ 1, *block.data[at + 1 :]))
        with pytest.raises(LogCorrupted if at else UnknownFormat):
            unpack(replace(block, data=changed), salt)
    for unread in (b"", b"\x02?", b"?"):
        assert bare(replace(block, data=unread), salt).data == b""


def _packed(block: Block, body: bytes) -> Block:
    packer = zlib.compressobj(9, wbits=-15, zdict=DICTIONARY)
    return replace(block, data=block.data[:1] + packer.compress(body) + packer.flush())


def _crafted(header: bytes, rest: bytes) -> Iterator[bytes]:
    """Bodies whose headers lie: of erased records, of sizes, and of what they are at all."""
    *fields, erased, size, strings = orjson.loads(header)
    assert (erased, size > 0) == (0, True)
    digests = b"\0" * 64
    for lie, between in (
        ([*fields, [2, 0, 0], size, strings], digests),
        ([*fields, [1, 1, -1], size, strings], digests[:32]),
        ([*fields, False, size, strings], b""),
        ([*fields, erased, -size, strings], b""),
        ([*fields, erased, float(size), strings], b""),
        ([*fields, [0, 0, 0], size, strings], b""),
        ([*fields, erased, size, 1 << 17], bytes(1 << 18)),
        ([*fields[:2], [{}], *fields[3:], erased, size, strings], b""),
        ([*fields[:2], {}, *fields[3:], erased, size, strings], b""),
        ([*fields[:2], {"0": ""}, *fields[3:], erased, size, strings], b""),
    ):
        lying = orjson.dumps(lie)
        yield len(lying).to_bytes(4, "big") + lying + between + rest


async def test_nothing_can_be_added_to_a_block_unseen(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await grown(store, "r1", 3)
    (block,) = (await seals_of(store, head)).blocks
    (_, salt), *_ = await store.salts("r1")
    body = zlib.decompressobj(wbits=-15, zdict=DICTIONARY).decompress(block.data[1:])
    size = int.from_bytes(body[:4], "big")
    header, rest = body[4 : 4 + size], body[4 + size :]
    longer = header.replace(b'["said"]', b'["said","more"]')
    assert longer != header
    assert unpack(_packed(block, body), salt) == await records(store, "r1")
    for added in (
        replace(block, data=block.data + b"more"),
        _packed(block, body + b"more"),
        _packed(block, (size + 1).to_bytes(4, "big") + header + b" " + rest),
        _packed(block, len(longer).to_bytes(4, "big") + longer + rest),
        *(_packed(block, wrong) for wrong in _crafted(header, rest)),
    ):
        with pytest.raises(LogCorrupted, match="its block cannot be read"):
            unpack(added, salt)
    monkeypatch.setattr("eventstore.block._UNPACKED_MAX", len(body) - 1)
    with pytest.raises(LogCorrupted, match="do not end where they should"):
        unpack(block, salt)


async def test_a_block_never_reaches_further_than_readers_look(store: EventStore) -> None:
    (record,) = (await store.append(unit(create("r1"))), await records(store, "r1"))[1]
    far = [replace(record, first_version=n, position=1 + n * SPAN_MAX // 2) for n in range(5)]
    spans = [block.last_position - block.first_position for block in pack(far)]
    assert spans == [SPAN_MAX // 2, SPAN_MAX // 2, 0]


@pytest.mark.parametrize(("bound", "value"), [("STREAM_RECORDS_MAX", 3), ("STREAM_BYTES_MAX", 60)])
async def test_what_is_too_long_stays_as_it_is(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    long, short = await grown(store, "long", 20), await grown(store, "r2", 3)
    monkeypatch.setattr(f"eventstore.sealing.{bound}", value)
    sealed = await seal(store, [long, short], "the test", "")
    assert (sealed.streams, sealed.records, sealed.findings, sealed.too_long) == (1, 3, [], ["long"])
    assert [head.stream for head in await store.heads(category=NEW.category, sealed=True)] == ["r2"]


@pytest.mark.parametrize(("bound", "value", "units"), [("_RECORDS_MAX", 7, 3), ("_BYTES_MAX", 1, 5)])
async def test_a_transaction_has_a_bound(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, units: int
) -> None:
    heads = [await grown(store, f"r{number}", 3) for number in range(5)]
    monkeypatch.setattr(f"eventstore.sealing.{bound}", value)
    assert (await seal(store, heads, "the test", "")).streams == 5
    assert len(await said_in(store, SEALS)) == units
    assert (await audit(store)).first is None


async def test_one_that_moved_or_cannot_be_sealed_keeps_nobody_from_it(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, odd, good = [await grown(store, name, 3) for name in ("r1", "r2", "r3")]
    await store.take("r1", epoch=1, owner=None)

    def packed(records: Sequence[Record], salt: bytes) -> Sequence[Block]:
        blocks = list(pack(records))
        return [replace(block, chain=bytes(32)) if block.stream == "r2" else block for block in blocks]

    monkeypatch.setattr("eventstore.sealing._packed", packed)
    sealed = await seal(store, [moved, odd, good], "the test", "")
    assert (sealed.streams, sealed.records) == (1, 3)
    assert [finding.stream for finding in sealed.findings] == ["r2"]
    assert [head.stream for head in await store.heads(category=NEW.category, sealed=True)] == ["r3"]


async def test_what_is_erased_while_it_is_read_is_no_finding(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sealed the next time."""
    head = await grown(store, "r1", 3)
    salts, asked = store.salts, 0

    async def erased_before(stream: str) -> Sequence[tuple[int, bytes]]:
        nonlocal asked
        asked += 1
        if asked == 2:  # First it is verified.
            await store.append(unit(erase("r1", 2)))
        return await salts(stream)

    monkeypatch.setattr(store, "salts", erased_before)
    sealed = await seal(store, [head], "the test", "")
    assert (sealed.streams, sealed.findings, asked) == (0, [], 2)
    assert (await seal(store, [await stands(store, "r1")], "the test", "")).streams == 1

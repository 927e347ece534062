"""The contract of `EventStore`: what is recorded, read and erased, the same for every adapter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eventstore import chain
from eventstore.errors import (
    ClaimTaken,
    EventStoreError,
    Fenced,
    StoreUnavailable,
    StreamNotFound,
    WrongExpectedVersion,
)
from eventstore.events import ERASED, Append, Claim, Document, HeadChange, NewEvent, NewStream, Unit
from eventstore.ports import EventStore
from eventstore.verify import verify
from tests.contract.store_contract import (
    NEW,
    Clock,
    StoreAdapter,
    create,
    erase,
    more,
    opened,
    records,
    said,
    said_in,
    unit,
    whole_log,
)


async def findings(store: EventStore) -> list[object]:
    return [report for report in [item async for item in verify(store)] if getattr(report, "finding", report)]


async def test_what_was_appended_is_read_back_to_the_byte(store: EventStore, clock: Clock) -> None:
    """Bytes that are no text, empty ones and long ones; with the header they were recorded under."""
    data = (b"", b"\x00\xff\xfe", "é\u2028".encode(), b"x" * 200_000)
    events = [NewEvent(f"type_{index}", item) for index, item in enumerate(data)]
    [recorded] = await store.append(unit(Append("ströng/1", -1, 3, events, schema=2, new=NEW)))
    [record] = await records(store, "ströng/1")
    assert record.payload == data
    assert (record.stream, record.first_version, record.types) == (
        "ströng/1",
        0,
        ("type_0", "type_1", "type_2", "type_3"),
    )
    assert (record.schema, record.epoch, record.recorded_at, record.position) == (2, 3, clock.ms, 1)
    assert (recorded.stream, recorded.position, recorded.recorded_at) == ("ströng/1", 1, clock.ms)
    assert (recorded.first_version, recorded.last_version) == (0, 3)


async def test_versions_and_positions_are_dense(store: EventStore) -> None:
    """Versions count a stream's events, positions the log's records."""
    await store.append(unit(create("a", b"1", b"2")))
    recorded = await store.append(unit(create("b", b"1"), more("a", 1, b"3", b"4", b"5")))
    assert [(item.stream, item.position, item.first_version, item.last_version) for item in recorded] == [
        ("b", 2, 0, 0),
        ("a", 3, 2, 4),
    ]
    assert [(item.first_version, item.last_version) for item in await records(store, "a")] == [(0, 1), (2, 4)]
    assert [item.position for item in await whole_log(store, page=1)] == [1, 2, 3]


async def test_reading_begins_with_the_record_that_holds_the_next_event(store: EventStore) -> None:
    await store.append(unit(create("a", b"0", b"1")))
    await store.append(unit(more("a", 1, b"2", b"3")))
    firsts = [[item.first_version for item in await records(store, "a", after)] for after in range(-1, 4)]
    assert firsts == [[0, 2], [0, 2], [2], [2], []]


async def test_a_long_stream_is_read_whole(store: EventStore) -> None:
    """Longer than the first pages, which grow, and than one of the largest."""
    await store.append(unit(create("a", b"0")))
    for version in range(400):
        await store.append(unit(more("a", version, b"%d" % (version + 1))))
    assert await said_in(store, "a") == [b"%d" % version for version in range(401)]
    assert len(await whole_log(store, page=150)) == 401


async def test_where_many_streams_stand_is_one_question(store: EventStore) -> None:
    for name in ("a", "b"):
        await store.append(unit(create(name, b"0")))
    await store.append(unit(more("b", 0, b"1")))
    assert await store.versions(["a", "b", "none"]) == {"a": 0, "b": 1}
    assert await store.versions([]) == {}
    assert await store.versions([*(f"none_{number}" for number in range(5000)), "b"]) == {"b": 1}


@pytest.mark.parametrize("name", ["none", "no\0ne", "x" * 5000, "'; --"])
async def test_a_stream_that_is_not_there_is_empty(store: EventStore, name: str) -> None:
    assert await records(store, name) == []
    assert await store.head(name) is None
    assert await store.versions([name]) == {}
    assert list(await store.lineage(name, "kind")) == []
    assert await store.document(name, "kind") is None
    assert list(await store.salts(name)) == []
    assert await store.claim("scope", name) is None
    with pytest.raises(StreamNotFound):
        await store.take(name, epoch=1, owner="h")
    assert list(await store.read_all(0)) == []


@pytest.mark.parametrize(
    ("append", "error"),
    [
        (more("a", 0, epoch=2), WrongExpectedVersion("a", 0, 1)),
        (more("a", 7, epoch=2), WrongExpectedVersion("a", 7, 1)),
        (create("a"), WrongExpectedVersion("a", -1, 1)),
        (create("a", epoch=9), WrongExpectedVersion("a", -1, 1)),
        (more("a", 1, epoch=1), Fenced("a", 1, 2)),
        (more("a", 0, epoch=1), Fenced("a", 1, 2)),
        (more("a", 1, epoch=3), Fenced("a", 3, 2)),
        (erase("a", 0, epoch=2), WrongExpectedVersion("a", 0, 1)),
        (more("none", 0), StreamNotFound("none")),
        (Append("none", -1, 1, said(b"x")), StreamNotFound("none")),
    ],
)
async def test_a_late_writer_is_told_why_and_changes_nothing(
    store: EventStore, append: Append, error: EventStoreError
) -> None:
    """One writer (invariant 2): the expected version and the epoch must both be the stream's."""
    await store.append(unit(create("a", b"1", b"2")))
    await store.take("a", epoch=1, owner="h")
    before = (await whole_log(store), await store.head("a"))
    with pytest.raises(type(error)) as raised:
        await store.append(unit(append))
    assert raised.value.args == error.args
    assert (await whole_log(store), await store.head("a")) == before


async def test_a_unit_is_recorded_whole_or_not_at_all(store: EventStore) -> None:
    """One append of it is stale: neither the others nor its claims and documents are there."""
    await store.append(unit(create("a")))
    guilty = unit(
        create("b"),
        more("a", 5),
        claims=(Claim("s", "k", b"f", "b"),),
        documents=(Document("a", "note", b"text"),),
    )
    with pytest.raises(WrongExpectedVersion):
        await store.append(guilty)
    assert await store.head("b") is None
    assert await store.claim("s", "k") is None
    assert await store.document("a", "note") is None
    await store.append(unit(create("b"), claims=(Claim("s", "k", b"f", "b"),)))
    with pytest.raises(ClaimTaken):
        await store.append(unit(create("c"), claims=(Claim("s", "k", b"g", "c"),)))
    assert await store.head("b") is not None
    assert await store.head("c") is None
    assert [item.position for item in await whole_log(store)] == [1, 2]


async def test_of_units_that_share_a_stream_one_is_recorded_and_the_others_leave_nothing(
    store: EventStore,
) -> None:
    """Each begins a stream of its own, too; who lost is told which of its streams was in the way."""
    await store.append(unit(create("shared")))
    for version in range(3):
        units = [unit(create(f"{version}-{n}"), more("shared", version)) for n in range(20)]
        outcomes = await asyncio.gather(*(store.append(one) for one in units), return_exceptions=True)
        lost = [outcome for outcome in outcomes if isinstance(outcome, WrongExpectedVersion)]
        assert [error.stream for error in lost] == ["shared"] * 19
        heads = [await store.head(f"{version}-{n}") for n in range(20)]
        assert sum(head is not None for head in heads) == 1
    log = await whole_log(store)
    assert [record.position for record in log] == list(range(1, 8))
    assert [record.stream for record in log[2::2]] == ["shared"] * 3


async def test_a_guilty_unit_never_harms_its_neighbours(store: EventStore) -> None:
    """Eighty units at once, every other one of them stale, fenced, unclaimed or homeless: each has its own
    outcome, and the log holds exactly the innocent ones, without gaps."""
    await store.append(unit(create("old"), claims=(Claim("s", "taken", b"f", "old"),)))
    guilty: list[Unit] = [
        unit(create("old")),
        unit(more("old", 0, epoch=4)),
        unit(create("x"), claims=(Claim("s", "taken", b"g", "x"),)),
        unit(more("none", 0)),
    ]
    units = [guilty[i // 2 % 4] if i % 2 else unit(create(f"new-{i}", b"%d" % i)) for i in range(80)]
    outcomes = await asyncio.gather(*(store.append(item) for item in units), return_exceptions=True)
    wrong = [WrongExpectedVersion, Fenced, ClaimTaken, StreamNotFound]
    for index, outcome in enumerate(outcomes):
        if index % 2:
            assert type(outcome) is wrong[index // 2 % 4]
        else:
            assert not isinstance(outcome, BaseException)
            [recorded] = outcome
            assert await said_in(store, f"new-{index}") == [b"%d" % index]
            assert recorded.stream == f"new-{index}"
    log = await whole_log(store)
    assert [item.position for item in log] == list(range(1, 42))
    assert await store.head("x") is None
    assert await findings(store) == []


async def test_of_many_who_append_at_once_to_one_stream_one_wins_each_version(store: EventStore) -> None:
    await store.append(unit(create("a")))

    async def writer(name: int) -> int:
        won = 0
        while (head := await store.head("a")) is not None and head.version < 20:
            try:
                await store.append(unit(more("a", head.version, b"%d" % name)))
                won += 1
            except WrongExpectedVersion:
                pass
        return won

    won = await asyncio.gather(*(writer(name) for name in range(6)))
    head = await store.head("a")
    assert head is not None
    assert sum(won) == head.version == len(await said_in(store, "a")) - 1


async def test_who_follows_the_whole_log_misses_nothing_while_it_grows(store: EventStore) -> None:
    """A position once passed over never appears later."""
    done = False

    async def write(name: int) -> None:
        await store.append(unit(create(f"s{name}")))
        for version in range(15):
            await store.append(unit(more(f"s{name}", version)))

    async def watch() -> list[int]:
        seen: list[int] = []
        while not done or await store.read_all(len(seen), 1):
            seen.extend(record.position for record in await store.read_all(len(seen), 7))
            await asyncio.sleep(0)
        return seen

    watcher = asyncio.ensure_future(watch())
    await asyncio.gather(*(write(name) for name in range(12)))
    done = True
    assert await watcher == list(range(1, 12 * 16 + 1))


async def test_a_caller_that_is_cancelled_harms_nobody(store: EventStore) -> None:
    """Its unit may be recorded, whole, or not; the units beside it are."""
    tasks = [asyncio.ensure_future(store.append(unit(create(f"s{i}"), create(f"t{i}")))) for i in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.exception() is None for task in tasks[1::2])
    await store.append(unit(create("after")))
    for index in range(20):
        pair = [await store.head(f"s{index}"), await store.head(f"t{index}")]
        assert (pair[0] is None) == (pair[1] is None)
        assert index % 2 == 0 or None not in pair
    assert await findings(store) == []


async def test_a_unit_larger_than_a_commit_should_be_is_recorded(store: EventStore) -> None:
    """Three MiB in one unit, beside small ones."""
    big = [bytes([index]) * (1 << 20) for index in range(3)]
    await asyncio.gather(
        store.append(unit(create("a", *big))),
        *(store.append(unit(create(f"s{index}"))) for index in range(5)),
    )
    assert await said_in(store, "a") == big


async def test_the_clock_never_orders_anything(store: EventStore, clock: Clock) -> None:
    """The wall clock is set back by an hour: order and chain do not care."""
    await store.append(unit(create("a")))
    clock.ms -= 3_600_000
    await store.append(unit(more("a", 0)))
    first, second = await records(store, "a")
    assert second.recorded_at == first.recorded_at - 3_600_000
    assert (first.position, second.position) == (1, 2)
    assert await findings(store) == []


async def test_digest_and_chain_are_those_of_the_format(store: EventStore) -> None:
    """Computed here from ADR 1's functions, with the salt that the store tells."""
    await store.append(unit(create("a", b"1", b"2")))
    await store.append(unit(more("a", 1, b"3")))
    [(version, salt)] = await store.salts("a")
    assert (version, len(salt)) == (0, chain.SALT_BYTES)
    link = chain.genesis("a")
    for record in await records(store, "a"):
        assert record.payload is not None
        assert record.digest == chain.digest(salt, record.first_version, chain.frame(record.payload))
        link = chain.link(
            link,
            stream="a",
            first_version=record.first_version,
            types=record.types,
            schema=record.schema,
            epoch=record.epoch,
            recorded_at=record.recorded_at,
            digest=record.digest,
        )
        assert record.chain == link
    head = await store.head("a")
    assert head is not None
    assert head.chain == link
    await store.append(unit(create("b")))
    assert [item[1] for item in await store.salts("b")] != [salt], "every stream has a salt of its own"


async def test_an_erased_stream_keeps_its_headers_and_loses_its_words(store: EventStore) -> None:
    """Payloads, salts and documents go; types, digests, chain and the tombstone stay, and it goes on."""
    await store.append(unit(create("a", b"secret"), documents=(Document("a", "note", b"secret"),)))
    await store.append(unit(create("b", b"kept"), documents=(Document("b", "note", b"kept"),)))
    await store.append(unit(more("a", 0, b"more", b"secrets")))
    before = await records(store, "a")
    [(_, old_salt)] = await store.salts("a")
    await store.append(unit(erase("a", 2)))
    await store.append(unit(more("a", 3, b"afterwards")))
    after = await records(store, "a")
    assert [item.payload for item in after] == [None, None, (b'{"why":"asked"}',), (b"afterwards",)]
    assert [item.types for item in after] == [("said",), ("said", "said"), (ERASED,), ("said",)]
    assert [(item.digest, item.chain) for item in after[:2]] == [(item.digest, item.chain) for item in before]
    [(version, salt)] = await store.salts("a")
    assert version == 3
    assert salt != old_salt
    assert await store.document("a", "note") is None
    assert await store.document("b", "note") == b"kept"
    assert await said_in(store, "b") == [b"kept"]
    assert [item.payload is None for item in await whole_log(store)] == [True, False, True, False, False]
    assert await findings(store) == []


async def test_a_stream_is_erased_again_after_it_went_on(store: EventStore) -> None:
    """The second tombstone takes the first one's bytes along; a document in its own unit stays."""
    await store.append(unit(create("a", b"one")))
    await store.append(unit(erase("a", 0)))
    await store.append(unit(more("a", 1, b"two")))
    await store.append(unit(erase("a", 2), documents=(Document("a", "stone", b"grave"),)))
    assert await said_in(store, "a") == [None, None, None, b'{"why":"asked"}']
    assert [version for version, _ in await store.salts("a")] == [3]
    assert await store.document("a", "stone") == b"grave"
    assert await findings(store) == []


MALFORMED = {
    "no events": Append("a", 0, 1, []),
    "a comma in a type": Append("a", 0, 1, [NewEvent("a,b", b"")]),
    "an empty type": Append("a", 0, 1, [NewEvent("", b"")]),
    "the log's own type": Append("a", 0, 1, [NewEvent("$mine", b"")]),
    "a tombstone that erases nothing": Append("a", 0, 1, [NewEvent(ERASED, b"")]),
    "an erasure without a tombstone": Append("a", 0, 1, said(b"x"), erase=True),
    "an erasure with more than one": Append("a", 0, 1, [NewEvent(ERASED, b"")] * 2, erase=True),
    "a beginning in the middle": Append("a", 0, 1, said(b"x"), new=NEW),
    "a stream without a name": create(""),
    "a name with a NUL": create("a\0"),
    "a name with half of a character": create("a\ud800"),
    "a name without end": create("a" * 513),
    "a parent with a NUL": create("c", new=NewStream("c", "p", "s", parent="a\0")),
    "an attribute with half of a character": create(
        "c", new=NewStream("c", "p", "s", attributes={"stream": "\ud800"})
    ),
    "an owner with a NUL": more("a", 0, change=HeadChange(owner="stream\0")),
}


@pytest.mark.parametrize("append", MALFORMED.values(), ids=list(MALFORMED))
async def test_a_malformed_unit_is_a_bug_and_nothing_is_written(store: EventStore, append: Append) -> None:
    await store.append(unit(create("a")))
    with pytest.raises(ValueError, match=r"event type|stream|'a'|attribute"):
        await store.append(unit(create("b"), append))
    with pytest.raises(ValueError, match="once"):
        await store.append(unit(create("b"), more("a", 0), more("a", 1)))
    assert len(await whole_log(store)) == 1


async def test_a_head_starts_as_it_was_named_and_changes_only_as_told(store: EventStore) -> None:
    new = NewStream("response", "p2", "queued", owner="h1", parent="dad", attributes={"é": "1", "b": ""})
    [recorded] = await store.append(unit(create("a", b"x", b"y", new=new, epoch=5)))
    head = await store.head("a")
    assert head is not None
    assert (head.stream, head.version, head.epoch, head.owner, head.created) == (
        "a",
        1,
        5,
        "h1",
        recorded.position,
    )
    assert (head.category, head.tenant, head.state, head.parent) == ("response", "p2", "queued", "dad")
    assert dict(head.attributes) == {"é": "1", "b": ""}
    await store.append(unit(more("a", 1, epoch=5)))
    same = await store.head("a")
    assert same is not None
    assert (same.state, same.owner, dict(same.attributes)) == ("queued", "h1", {"é": "1", "b": ""})
    await store.append(unit(more("a", 2, epoch=5, change=HeadChange("done", "h2", attributes={"c": "2"}))))
    changed = await store.head("a")
    assert changed is not None
    assert (changed.version, changed.state, changed.owner) == (3, "done", "h2")
    assert dict(changed.attributes) == {"c": "2"}
    await store.append(unit(more("a", 3, epoch=5, change=HeadChange(release=True))))
    released = await store.head("a")
    assert released is not None
    assert (released.owner, released.state, dict(released.attributes)) == (None, "done", {"c": "2"})
    assert (released.epoch, released.created, released.category) == (5, recorded.position, "response")


async def test_a_taken_stream_belongs_to_its_new_owner_alone(store: EventStore) -> None:
    """Taking raises the epoch; the owner before is fenced from then on."""
    await store.append(unit(create("a")))
    head = await store.take("a", epoch=1, owner="h2", state="in_progress")
    assert (head.epoch, head.owner, head.state, head.version) == (2, "h2", "in_progress", 0)
    assert await store.head("a") == head
    with pytest.raises(Fenced):
        await store.append(unit(more("a", 0, epoch=1)))
    await store.append(unit(more("a", 0, epoch=2)))
    nobody = await store.take("a", epoch=2, owner=None)
    assert (nobody.epoch, nobody.owner, nobody.state, nobody.version) == (3, None, "in_progress", 1)
    with pytest.raises(StreamNotFound):
        await store.take("none", epoch=1, owner="h")


async def test_of_many_who_take_a_stream_at_once_one_succeeds(store: EventStore) -> None:
    await store.append(unit(create("a")))
    outcomes = await asyncio.gather(
        *(store.take("a", epoch=1, owner=f"h{index}") for index in range(10)), return_exceptions=True
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Fenced)]
    assert (len(won), len(lost)) == (1, 9)
    assert {error.args for error in lost} == {("a", 1, 2)}
    assert await store.head("a") == won[0]


async def test_a_log_keeps_its_id(store: EventStore) -> None:
    assert await store.incarnation() == await store.incarnation() != ""


async def test_a_closed_log_says_so(store: EventStore) -> None:
    await store.append(unit(create("a")))
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await store.append(unit(create("b")))
    with pytest.raises(StoreUnavailable):
        await store.take("a", epoch=1, owner="h")


async def test_everything_is_there_after_reopening(
    adapter: StoreAdapter, tmp_path: Path, clock: Clock
) -> None:
    """For adapters that keep it: records, heads, claims, documents, salts, cursors, and the log's id."""
    async with opened(adapter, tmp_path, clock) as store:
        await store.append(
            unit(
                create("a", b"x"),
                claims=(Claim("s", "k", b"f", "a", clock.ms + 1000),),
                documents=(Document("a", "note", b"text"),),
            )
        )
        await store.take("a", epoch=1, owner="h")
        await store.save_cursor("relay", 1)
        kept = [
            await whole_log(store),
            await store.head("a"),
            await store.salts("a"),
            await store.incarnation(),
        ]
    async with opened(adapter, tmp_path, clock) as store:
        if not adapter.survives:
            assert await whole_log(store) == []
            return
        assert kept == [
            await whole_log(store),
            await store.head("a"),
            await store.salts("a"),
            await store.incarnation(),
        ]
        assert await store.claim("s", "k") == Claim("s", "k", b"f", "a", clock.ms + 1000)
        assert await store.document("a", "note") == b"text"
        assert await store.cursor("relay") == 1
        [recorded] = await store.append(unit(more("a", 0, epoch=2)))
        assert recorded.position == 2
        assert await findings(store) == []

"""`verify` against everything that can be done to a small log behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from eventstore.events import ERASED, NO_STREAM, Append, Claim, NewEvent, NewStream, Record, Unit
from eventstore.memory import MemoryEventStore
from eventstore.sealing import seal
from eventstore.verify import Finding, StreamReport, verify, verify_head, verify_positions


class TamperedLog(MemoryEventStore):
    """A log whose records somebody can reach."""

    def __init__(self) -> None:
        super().__init__(now=lambda: 1_795_353_600_000)
        self.records: list[Record] | None = None

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        for record in self.records or ():
            if record.stream == stream and record.last_version > after:
                yield record

    async def read_all(self, after: int, limit: int = 500) -> Sequence[Record]:
        if self.records is None:
            return await super().read_all(after, limit)
        return [record for record in self.records if record.position > after][:limit]


def events(*data: str) -> list[NewEvent]:
    return [NewEvent("said", item.encode()) for item in data]


async def small_log() -> TamperedLog:
    """Three streams, interleaved: `a` plain, `b` erased twice and written on, `c` of one record."""
    log = TamperedLog()
    new = NewStream("talk", "p", "open")
    tombstone = [NewEvent(ERASED, b"{}")]
    for append in (
        Append("a", NO_STREAM, 1, events("one", "two"), new=new),
        Append("b", NO_STREAM, 1, events("secret"), new=new),
        Append("a", 1, 1, events("three")),
        Append("b", 0, 1, events("more", "secrets")),
        Append("a", 2, 1, events("")),
        Append("c", NO_STREAM, 1, events("alone"), new=new),
        Append("b", 2, 1, tombstone, erase=True),
        Append("a", 3, 1, events("five", "six")),
        Append("b", 3, 1, events("again")),
        Append("b", 4, 1, tombstone, erase=True),
        Append("b", 5, 1, events("at last")),
    ):
        await log.append(
            Unit([append], [Claim("s", append.stream + str(append.expected), b"", append.stream)])
        )
    log.records = list(await log.read_all(0))
    return log


async def first_finding(log: TamperedLog) -> Finding | None:
    found = [
        item if isinstance(item, Finding) else item.finding
        async for item in verify(log)
        if isinstance(item, Finding) or item.finding is not None
    ]
    return min((finding for finding in found if finding), key=lambda finding: finding.position, default=None)


async def test_what_does_not_verify_is_not_sealed() -> None:
    """A seal would hide where it was tampered with."""
    log = await small_log()
    assert log.records is not None
    log.records[0] = replace(log.records[0], payload=(b"won", b"two"))
    heads = await log.heads(category="talk")
    sealed = await seal(log, heads[:1], "the test", "")
    assert (sealed.streams, [finding.stream for finding in sealed.findings]) == (0, ["a"])
    assert await log.heads(sealed=True) == []


async def test_an_honest_log_verifies_and_its_erasures_are_counted() -> None:
    reports = [item async for item in verify(await small_log())]
    assert reports == [
        StreamReport("a", records=4, events=6, erased=0, finding=None),
        StreamReport("b", records=6, events=7, erased=5, finding=None),
        StreamReport("c", records=1, events=1, erased=0, finding=None),
    ]


EDITS: dict[str, Callable[[Record], Record]] = {
    "types": lambda record: replace(record, types=tuple(name + "x" for name in record.types)),
    "schema": lambda record: replace(record, schema=record.schema + 1),
    "epoch": lambda record: replace(record, epoch=record.epoch + 1),
    "negative epoch": lambda record: replace(record, epoch=-1),
    "recorded_at": lambda record: replace(record, recorded_at=record.recorded_at - 1),
    "digest": lambda record: replace(record, digest=bytes(32)),
    "chain": lambda record: replace(record, chain=bytes(32)),
    "payload": lambda record: replace(record, payload=tuple(data + b"x" for data in record.payload or ())),
    "payload's cut": lambda record: replace(record, payload=(b"".join(record.payload or ()),)),
    "payload gone": lambda record: replace(record, payload=None),
    "first_version": lambda record: replace(record, first_version=record.first_version + 1),
    "fewer events": lambda record: replace(record, types=record.types[:-1] or ("",)),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
async def test_every_edit_of_every_record_is_found_where_it_is(edit: Callable[[Record], Record]) -> None:
    records = (await small_log()).records or []
    for index, record in enumerate(records):
        log = await small_log()
        assert log.records is not None
        edited = edit(log.records[index])
        if edited in log.records or (record.payload == (b"",) and edited.payload == record.payload):
            continue  # It changes nothing in this record.
        log.records[index] = edited
        finding = await first_finding(log)
        assert finding is not None, edited
        assert finding.stream == record.stream
        # Without its tombstone an erasure begins to look like tampering, at the first bytes that are missing.
        assert finding.position == record.position or (
            ERASED in record.types and ERASED not in edited.types and finding.position < record.position
        )


@pytest.mark.parametrize("position", range(1, 12))
async def test_a_deleted_record_is_missed_where_it_was(position: int) -> None:
    log = await small_log()
    assert log.records is not None
    gone = log.records.pop(position - 1)
    gap = await verify_positions(log)
    assert (gap.position if gap else 11) == position, "the end of the log is bound by heads alone"
    reports = {item.stream: item async for item in verify(log) if isinstance(item, StreamReport)}
    assert (found := reports[gone.stream].finding) is not None
    # Without the second tombstone the first one's own bytes are missing.
    assert found.version == (3 if position == 10 else gone.first_version)


@pytest.mark.parametrize("position", range(1, 12))
async def test_an_inserted_record_is_found(position: int) -> None:
    """A record that comes twice, everything behind it moved on by one place."""
    log = await small_log()
    assert log.records is not None
    copy = log.records[position - 1]
    later = [replace(record, position=record.position + 1) for record in log.records[position - 1 :]]
    log.records[position - 1 :] = [copy, *later]
    finding = await first_finding(log)
    assert finding is not None
    assert finding.position == position + 1


@pytest.mark.parametrize(("one", "other"), [(1, 3), (3, 5), (5, 8), (2, 4), (4, 7), (9, 11)])
async def test_swapped_records_of_a_stream_are_found_at_the_first_of_them(one: int, other: int) -> None:
    log = await small_log()
    assert log.records is not None
    first, second = log.records[one - 1], log.records[other - 1]
    log.records[one - 1] = replace(second, position=one)
    log.records[other - 1] = replace(first, position=other)
    finding = await first_finding(log)
    assert finding is not None
    assert (finding.position, finding.stream) == (one, first.stream)


async def test_swapped_words_are_found_at_the_first_of_them() -> None:
    log = await small_log()
    assert log.records is not None
    first, second = log.records[2], log.records[4]
    log.records[2] = replace(first, payload=second.payload)
    log.records[4] = replace(second, payload=first.payload)
    assert await first_finding(log) == Finding(
        3, "a", 2, "its bytes are not those that were recorded: the digest differs"
    )


@pytest.mark.parametrize("kept", range(11))
async def test_a_log_cut_off_is_found_while_heads_stand_behind_it(kept: int) -> None:
    log = await small_log()
    assert log.records is not None
    gone = log.records[kept:]
    log.records = log.records[:kept]
    reports = {item.stream: item async for item in verify(log) if isinstance(item, StreamReport)}
    for stream in {record.stream for record in gone}:
        first = next(record for record in gone if record.stream == stream)
        finding = reports[stream].finding
        assert finding is not None
        if stream != "b" or kept >= 10:
            assert finding.version == first.first_version
            assert "cut off" in finding.reason


async def test_bytes_that_outlived_their_tombstone_are_found() -> None:
    """An erasure that erased nothing is as bad as bytes that vanished without one."""
    log = await small_log()
    assert log.records is not None
    log.records[1] = replace(log.records[1], payload=(b"secret",))
    finding = await first_finding(log)
    assert finding is not None
    assert (finding.position, finding.stream) == (2, "b")


async def test_bytes_gone_are_named_even_if_something_later_is_wrong_too() -> None:
    log = await small_log()
    assert log.records is not None
    log.records[0] = replace(log.records[0], payload=None)
    log.records[2] = replace(log.records[2], epoch=9)
    finding = await first_finding(log)
    assert finding is not None
    assert (finding.position, finding.reason) == (
        1,
        "its bytes are missing and no tombstone says who erased them",
    )


async def test_a_stream_without_a_head_is_found() -> None:
    log = await small_log()
    assert log.records is not None
    stranger = replace(log.records[-1], position=12, stream="d", first_version=0)
    log.records.append(stranger)
    assert await first_finding(log) == Finding(12, "d", 0, "the stream has no head")


async def test_a_log_that_is_written_and_erased_meanwhile_is_not_accused() -> None:
    """Between two records that verification reads, the stream goes on and is erased."""
    log = MemoryEventStore()
    new = NewStream("talk", "p", "open")
    await log.append(Unit([Append("a", NO_STREAM, 1, events("one"), new=new)]))
    await log.append(Unit([Append("a", 0, 1, events("two"))]))
    [head] = await log.heads()
    read = log.read

    async def read_while_it_is_erased(stream: str, after: int = -1) -> AsyncIterator[Record]:
        async for record in read(stream, after):
            yield record
            current = await log.head(stream)
            if current == head:
                await log.append(Unit([Append("a", 1, 1, [NewEvent(ERASED, b"{}")], erase=True)]))
                await log.append(Unit([Append("a", 2, 1, events("three"))]))

    log.read = read_while_it_is_erased  # type: ignore[method-assign]  # The moment is what is tested.
    assert await verify_head(log, head) == StreamReport("a", records=4, events=4, erased=2, finding=None)

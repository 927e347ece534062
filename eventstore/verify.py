"""Whether a log still says what was recorded: every position, version, digest, chain link and tombstone.

It reads through `LogReader` alone, page by page, and changes nothing.  It finds whatever was edited, deleted,
inserted, swapped within a stream or cut off.  What it cannot find without a checkpoint that is kept
elsewhere: the log's newest records cut off together with their heads, whole streams written anew, and the
order between records of different streams, which no chain holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from eventstore import chain
from eventstore.errors import LogCorrupted
from eventstore.events import ERASED, NO_STREAM, Head, Record
from eventstore.pages import FIRST, next_page, payload_size
from eventstore.ports import LogReader

_PAGE: Final = 500
_LOOKS_MAX: Final = 3  # A stream is not accused before it was found wrong while it stood still, or so often.
_STREAMS_KNOWN_MAX: Final = 10_000  # Bounds memory; beyond it a stream's head is asked for again.


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong: of a stream, or of the log's positions."""

    position: int
    """Place in the log where it is, or where it should have been."""
    stream: str
    """Empty where no stream can be named."""
    version: int
    """First version of the bad record; -1 where none can be named."""
    reason: str

    def __str__(self) -> str:
        where = f"stream {self.stream!r}, version {self.version}" if self.stream else "the log"
        return f"position {self.position}: {where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What became of the verification of one stream."""

    stream: str
    records: int
    events: int
    erased: int
    """Events whose bytes were erased, with a tombstone that says so."""
    finding: Finding | None


async def verify(reader: LogReader) -> AsyncIterator[StreamReport | Finding]:
    """Verify the whole log: a report for each stream in order of creation, then what is wrong between them.

    Safe while the log is written to: what is recorded meanwhile is verified or left for the next time.
    Raises `StoreUnavailable`.
    """
    created = 0
    while page := await reader.heads(after=created, limit=_PAGE):
        for head in page:
            yield await verify_head(reader, head)
        created = page[-1].created
    if (finding := await verify_positions(reader)) is not None:
        yield finding


async def verify_positions(reader: LogReader) -> Finding | None:
    """The first place where the log's positions are not 1, 2, 3 ..., or whose stream has no head."""
    position = 0
    known: set[str] = set()
    limit = FIRST
    while page := await _page(reader, position, limit):
        if isinstance(page, Finding):
            return page
        limit = next_page(limit, sum(payload_size(record.payload) for record in page), _PAGE)
        for record in page:
            if record.position != position + 1:
                return Finding(position + 1, "", -1, f"nothing is here; the log goes on at {record.position}")
            position = record.position
            if record.stream not in known:
                if await reader.head(record.stream) is None:
                    return _finding(record, "the stream has no head")
                if len(known) >= _STREAMS_KNOWN_MAX:
                    known.clear()
                known.add(record.stream)
    return None


async def _page(reader: LogReader, position: int, limit: int) -> Sequence[Record] | Finding:
    try:
        return await reader.read_all(position, limit)
    except LogCorrupted as error:
        # It is somewhere on this page.
        for _ in range(limit):
            try:
                (record,) = await reader.read_all(position, 1)
            except LogCorrupted:
                break
            position = record.position
        return Finding(position + 1, error.stream, error.version, error.reason)


async def verify_head(reader: LogReader, head: Head) -> StreamReport:
    """Verify one stream, at least up to this head of it.  Raises `StoreUnavailable`, `UnknownFormat`."""
    for _ in range(_LOOKS_MAX - 1):
        report, newest = await _look(reader, head)
        if report.finding is None or newest is None or newest == head:
            return report
        head = newest  # It went on meanwhile, perhaps by an erasure under the reader's hands: look again.
    return (await _look(reader, head))[0]


async def _look(reader: LogReader, head: Head) -> tuple[StreamReport, Head | None]:
    walk = _Walk(head, dict(await reader.salts(head.stream)))
    newest: Head | None = head
    try:
        async for record in reader.read(head.stream):
            walk.step(record)
        newest = await reader.head(head.stream)
        walk.end(newest.version if newest else NO_STREAM)
    except LogCorrupted as error:
        walk.find(walk.position + 1, error.version, error.reason)
    return StreamReport(head.stream, walk.records, walk.events, walk.erased, walk.first()), newest


@dataclass(slots=True)
class _Walk:
    """One stream, read record by record to its end: a tombstone may be its last."""

    head: Head
    salts: dict[int, bytes]
    position: int = 0
    version: int = -1
    chain: bytes = b""
    """Position, last version and chain of the record before."""
    records: int = 0
    events: int = 0
    erased: int = 0
    bare: Finding | None = None
    """The first record without bytes that no tombstone accounts for so far."""
    bare_events: int = 0
    present: Record | None = None
    """The first record whose bytes are here, since the last tombstone."""
    found: Finding | None = None
    """The first thing that is wrong in itself."""

    def __post_init__(self) -> None:
        self.chain = chain.genesis(self.head.stream)

    def salt(self, record: Record) -> bytes | None:
        """The newest salt that was made no later than the record."""
        fitting = [version for version in self.salts if version <= record.first_version]
        return self.salts[max(fitting)] if fitting else None

    def find(self, position: int, version: int, reason: str) -> None:
        """Remember what is wrong, unless something before it is."""
        if self.found is None:
            self.found = Finding(position, self.head.stream, version, reason)

    def first(self) -> Finding | None:
        """Of all that is wrong, what comes first in the log."""
        if self.bare is None or (self.found is not None and self.found.position <= self.bare.position):
            return self.found
        return self.bare

    def step(self, record: Record) -> None:
        """Check one record against all before it."""
        self.records += 1
        self.events += record.count
        if ERASED in record.types:
            self._bury(record)
        if record.payload is not None:
            self.present = self.present or record
        else:
            self.bare_events += record.count
            if self.bare is None:
                self.bare = _finding(record, "its bytes are missing and no tombstone says who erased them")
        if self.found is None and (reason := self._wrong(record)) is not None:
            version = min(record.first_version, self.version + 1)
            self.find(record.position, version, reason)
        self.position, self.version, self.chain = record.position, record.last_version, record.chain

    def end(self, newest: int) -> None:
        """Check where the records end; `newest` is the version of the stream's head by now."""
        if self.version < self.head.version:
            reason = f"cut off after version {self.version}: the head stands at version {self.head.version}"
            self.find(self.position + 1, self.version + 1, reason)
        if self.version > max(newest, self.head.version):
            reason = f"the head stands at version {newest}, but there are records up to {self.version}"
            self.find(self.position, newest + 1, reason)

    def _bury(self, tombstone: Record) -> None:
        self.bare = None
        self.erased += self.bare_events
        self.bare_events = 0
        if self.present is not None and self.present.last_version < tombstone.first_version:
            reason = f"its bytes are here, though version {tombstone.first_version} says they were erased"
            finding = _finding(self.present, reason)
            if self.found is None or finding.position < self.found.position:
                self.found = finding
        self.present = None

    def _wrong(self, record: Record) -> str | None:
        expected = self.version + 1
        if record.first_version > expected:
            return f"versions {expected} to {record.first_version - 1} are missing"
        if record.first_version < expected:
            return f"version {record.first_version} comes twice"
        if record.position <= self.position:
            return "it lies before the version that it follows"
        if record.first_version == 0 and record.position != self.head.created:
            return f"the head says that the stream begins at position {self.head.created}"
        return self._wrong_bytes(record) or self._wrong_chain(record)

    def _wrong_bytes(self, record: Record) -> str | None:
        if record.payload is None:
            return None
        if len(record.payload) != record.count:
            return f"it names {record.count} events and holds {len(record.payload)}"
        salt = self.salt(record)
        if salt is None:
            return "the salt of its digest is missing"
        if chain.digest(salt, record.first_version, chain.frame(record.payload)) != record.digest:
            return "its bytes are not those that were recorded: the digest differs"
        return None

    def _wrong_chain(self, record: Record) -> str | None:
        try:
            link = chain.link(
                self.chain,
                stream=record.stream,
                first_version=record.first_version,
                types=record.types,
                schema=record.schema,
                epoch=record.epoch,
                recorded_at=record.recorded_at,
                digest=record.digest,
            )
        except (ValueError, OverflowError) as error:
            return f"no log writes such a header: {error}"
        if link != record.chain:
            return "its header or digest is not what was recorded: the chain breaks here"
        if record.first_version <= self.head.version <= record.last_version and (
            record.last_version != self.head.version or link != self.head.chain
        ):
            return "the head does not name this record's version and chain"
        return None


def _finding(record: Record, reason: str) -> Finding:
    return Finding(record.position, record.stream, record.first_version, reason)


@dataclass(slots=True)
class Audit:
    """What the verification of a whole log came to."""

    streams: int = 0
    records: int = 0
    events: int = 0
    erased: int = 0
    """Events whose bytes were erased, with a tombstone that says so."""
    wrong: int = 0
    """Streams with a finding, and one where the log's positions have one."""
    first: Finding | None = None
    """Of all that is wrong, what comes first in the log.

    An event that is missing leaves a hole and breaks its chain: the chain is named, for it tells which event.
    """

    def add(self, report: StreamReport | Finding) -> None:
        """Take in what `verify` yields."""
        finding = report if isinstance(report, Finding) else report.finding
        if isinstance(report, StreamReport):
            self.streams += 1
            self.records += report.records
            self.events += report.events
            self.erased += report.erased
        if finding is not None:
            self.wrong += 1
            if self.first is None or _place(finding) < _place(self.first):
                self.first = finding


def _place(finding: Finding) -> tuple[bool, int]:
    return not finding.stream, finding.position


async def audit(reader: LogReader) -> Audit:
    """Verify the whole log, in memory that does not grow with it.

    Raises `StoreUnavailable`, `UnknownFormat`.
    """
    found = Audit()
    async for report in verify(reader):
        found.add(report)
    return found

"""Seals finished streams: their records become compressed blocks, proven first.  Reading shows no difference.

Whatever kills it, a stream is either as it was or sealed: both are one transaction, which also records who
sealed what, and why, in a stream of the log's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from eventstore.block import pack, unpack
from eventstore.documents import PACKED_TOGETHER_MAX, pack_documents, unpack_documents
from eventstore.errors import Fenced, LogCorrupted, StoreUnavailable, WrongExpectedVersion
from eventstore.events import (
    NO_STREAM,
    PACKED,
    SEALED,
    SEALS,
    Append,
    Block,
    Document,
    Head,
    NewEvent,
    NewStream,
    Record,
    Seal,
    Unit,
)
from eventstore.pages import payload_size
from eventstore.ports import EventStore, LogReader
from eventstore.verify import Finding, verify_head

log = logging.getLogger(__name__)

CATEGORY: Final = "$log"
_RECORDS_MAX: Final = 512
_BYTES_MAX: Final = 1 << 20
"""Records that a transaction removes, and bytes of blocks that it adds; a longer stream has one to itself."""
STREAM_RECORDS_MAX: Final = 4096
STREAM_BYTES_MAX: Final = 8 << 20
"""Records of a stream, and bytes of their events: a longer one stays unsealed, for its transaction would keep
all other commits waiting."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What came of sealing some streams."""

    streams: int
    records: int
    findings: Sequence[Finding]
    """What is wrong with those that were left as they are: they do not verify, or cannot be sealed."""
    too_long: Sequence[str]
    """Streams that were left as they are because they are longer than what is sealed."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A seal that waits for its transaction, and what that will cost."""

    head: Head
    seal: Seal
    documents: Sequence[Document]
    """All of them as one, and each one's end; none where they stay as they are."""
    records: int
    size: int
    """Bytes of its blocks and documents."""


async def seal(store: EventStore, heads: Sequence[Head], by: str, why: str) -> Sealed:
    """Seal these streams; each must have ended: only an erasure may be appended to it from now on.

    What moved meanwhile is left as it is, and can be tried again.  Raises `StoreUnavailable`; what was not
    sealed then can be tried again, too.
    """
    work = _Round(store, by, why)
    for head in heads:
        await work.prepare(head)
    await work.commit()
    return Sealed(work.streams, work.records, work.findings, work.too_long)


@dataclass(slots=True)
class _Round:
    """Collects seals into transactions.  A stream that fails harms none beside it."""

    store: EventStore
    by: str
    why: str
    streams: int = 0
    records: int = 0
    findings: list[Finding] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    waiting: list[_Prepared] = field(default_factory=list)

    async def prepare(self, head: Head) -> None:
        """Have the stream sealed by the next commit, or the one after where it does not fit beside others."""
        try:
            prepared = await self._prepared(head)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  # Whatever it is, the streams behind it have their turn.
            # What is erased while it is read does not fit its salts.
            if await self.store.head(head.stream) == head:
                self._left(head, error)
            return
        if prepared is None:
            return
        together = [*self.waiting, prepared]
        if (
            sum(each.records for each in together) > _RECORDS_MAX
            or sum(each.size for each in together) > _BYTES_MAX
        ):
            await self.commit()
        self.waiting.append(prepared)

    async def commit(self) -> None:
        """Seal what waits: all at once, or where that is refused one by one."""
        waiting, self.waiting = self.waiting, []
        if len(waiting) > 1:
            try:
                await self._append(waiting)
                return
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001  # One of them is why; alone it is known which.
                log.debug("sealed one by one: %s", error)
        for each in waiting:
            try:
                await self._append([each])
            except StoreUnavailable:
                raise
            except (Fenced, WrongExpectedVersion) as moved:
                log.debug("not sealed this time: %s", moved)
            except Exception as error:  # noqa: BLE001  # Whatever it is, the streams behind it have their turn.
                self._left(each.head, error)

    def _left(self, head: Head, error: Exception) -> None:
        self.findings.append(Finding(head.created, head.stream, -1, f"it cannot be sealed: {error!r}"))

    async def _prepared(self, head: Head) -> _Prepared | None:
        # First of all, because it has a bound: what is too long would be verified for nothing.
        records = await _read(self.store, head)
        if records is None:
            self.too_long.append(head.stream)
            return None
        report = await verify_head(self.store, head)
        if report.finding is not None:
            self.findings.append(report.finding)
            return None
        salts = await self.store.salts(head.stream)
        # In a thread: a long stream takes its time, and its caller has others to look after.
        blocks = await asyncio.to_thread(_packed, records, salts[-1][1])
        made = Seal(head.stream, head.version, head.epoch, blocks)
        beside = await self.store.beside(head.stream)
        documents = await asyncio.to_thread(_packed_documents, beside, blocks[0])
        size = sum(len(each.data) for each in blocks) + sum(len(each.data) for each in documents)
        return _Prepared(head, made, documents, len(records), size)

    async def _append(self, prepared: Sequence[_Prepared]) -> None:
        seals = [each.seal for each in prepared]
        said = orjson.dumps({"by": self.by, "why": self.why, "streams": [seal.stream for seal in seals]})
        head = await self.store.head(SEALS)
        append = Append(
            SEALS,
            NO_STREAM if head is None else head.version,
            1,
            [NewEvent(SEALED, said)],
            new=NewStream(CATEGORY, "", "") if head is None else None,
        )
        documents = [document for each in prepared for document in each.documents]
        await self.store.append(Unit([append], documents=documents, seals=seals))
        self.streams += len(prepared)
        self.records += sum(each.records for each in prepared)


async def _read(store: LogReader, head: Head) -> Sequence[Record] | None:
    """The records that the head knows of; None where they are more than what is sealed."""
    records: list[Record] = []
    size = 0
    async for record in store.read(head.stream):
        if record.first_version > head.version:
            break
        records.append(record)
        size += payload_size(record.payload)
        if len(records) > STREAM_RECORDS_MAX or size > STREAM_BYTES_MAX:
            return None
    return records


def _packed(records: Sequence[Record], salt: bytes) -> Sequence[Block]:
    blocks = list(pack(records))
    if [record for block in blocks for record in unpack(block, salt)] != records:
        raise LogCorrupted(records[0].stream, 0, "its blocks would not say what its records say")
    return blocks


def _packed_documents(documents: Mapping[str, bytes], block: Block) -> Sequence[Document]:
    if not documents or sum(map(len, documents.values())) > PACKED_TOGETHER_MAX:
        return ()
    data = pack_documents(documents, block)
    if unpack_documents(data, block) != documents:
        raise LogCorrupted(block.stream, -1, "its documents would not say what they say")
    ends = (Document(block.stream, kind, b"") for kind in documents)
    return (Document(block.stream, PACKED, data), *ends)

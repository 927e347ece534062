"""Seals finished streams: their records become compressed blocks, proven first.  Reading shows no difference.

Whatever kills it, a stream is either as it was or sealed: both are one transaction, which also records who
sealed what, and why, in a stream of the log's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from eventstore.block import pack, unpack
from eventstore.errors import LogCorrupted
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
from eventstore.ports import EventStore, LogReader
from eventstore.verify import Finding, verify_head

CATEGORY: Final = "$log"
_RECORDS_MAX: Final = 512
"""Records that one transaction removes, roughly; a longer stream has one to itself."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What came of sealing some streams."""

    streams: int
    records: int
    findings: Sequence[Finding]
    """What is wrong with those that were left as they are: they do not verify."""


async def seal(store: EventStore, heads: Sequence[Head], by: str, why: str) -> Sealed:
    """Seal these streams; each must have ended: only an erasure may be appended to it from now on.

    Raises `Fenced` or `WrongExpectedVersion` where one of them moved meanwhile, and what `append` raises;
    whatever was not sealed then can be tried again.
    """
    waiting: list[Seal] = []
    findings: list[Finding] = []
    streams = records = held = 0
    for head in heads:
        report = await verify_head(store, head)
        if report.finding is not None:
            findings.append(report.finding)
            continue
        waiting.append(await _prepared(store, head))
        records += report.records
        held += report.records
        if held >= _RECORDS_MAX:
            streams += await _commit(store, waiting, by, why)
            waiting, held = [], 0
    return Sealed(streams + await _commit(store, waiting, by, why), records, findings)


async def _prepared(store: LogReader, head: Head) -> Seal:
    records = [record async for record in store.read(head.stream) if record.first_version <= head.version]
    salts = await store.salts(head.stream)
    # In a thread: a long stream takes its time, and its caller has others to look after.
    blocks = await asyncio.to_thread(_packed, records, salts[-1][1])
    return Seal(head.stream, head.version, head.epoch, blocks)


def _packed(records: Sequence[Record], salt: bytes) -> Sequence[Block]:
    blocks = list(pack(records))
    if [record for block in blocks for record in unpack(block, salt)] != records:
        raise LogCorrupted(records[0].stream, 0, "its blocks would not say what its records say")
    return blocks


async def _commit(store: EventStore, seals: Sequence[Seal], by: str, why: str) -> int:
    if not seals:
        return 0
    said = orjson.dumps({"by": by, "why": why, "streams": [seal.stream for seal in seals]})
    head = await store.head(SEALS)
    append = Append(
        SEALS,
        NO_STREAM if head is None else head.version,
        1,
        [NewEvent(SEALED, said)],
        new=NewStream(CATEGORY, "", "") if head is None else None,
    )
    await store.append(Unit([append], seals=seals))
    return len(seals)

"""What a host does for a response: decides, records, and reads its upstream."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.budget.cost import Job, Row, cost_of, cpu_of
from bench.budget.sample import DELTA, ROLE, UPSTREAM, Commit, Sample, moved, read
from eventstore.events import Recorded, Unit
from eventstore.sql.socket_protocol import (
    FrameReader,
    decode_outcome,
    decode_request,
    encode_outcome,
    encode_request,
)
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.staged import bind
from eventstore.unit import check_head, check_unit, next_head
from runtime.models.chat_stream import ChatReader
from runtime.models.sse import EventParser
from runtime.response import codec, history, recorder
from runtime.response.decider import decide

AT_ONCE: Final = 16
ALONE: Final = 64
TOGETHER: Final = 256
"""Responses, or deltas, of a round: one after the other, and so many at once."""

_SALT: Final = b"s" * 32
_CHAIN: Final = b"c" * 32
_WHEN: Final = 1_800_000_000_000
_PLACE: Final = Recorded("resp_" + "5e" * 16, 1, 0, 1, _WHEN)
_OUTCOME: Final = encode_outcome(1, [_PLACE])


async def rows(sample: Sample) -> list[Row]:
    """Its rows, in the order in which a response meets them."""

    def row(mechanism: str, work: Callable[[Commit], object], *, aside: bool = False) -> Row:
        response, delta = (
            sum(cpu_of(partial(work, commit)) for commit in commits)
            for commits in (sample.response, [sample.delta])
        )
        return Row("host", mechanism, response=response, delta=delta, aside=aside)

    end = sample.response[-1].state
    return [
        Row("host", "read the upstream's chunks", response=cpu_of(_read_answer), delta=_read_delta()),
        row("decide", _decide),
        row("evolve and project, with frames", _project),
        row("encode events", _encode),
        Row("host", "documents of the end", response=cpu_of(partial(history.documents, end))),
        row("of a commit: version check, epoch, head", _check, aside=True),
        row("of a commit: hash and chain", _bind, aside=True),
        *await _commit_rows(sample),
        row("order to the log's owner: sender", _order, aside=True),
        row("order to the log's owner: owner", _obey, aside=True),
    ]


# -- The upstream --------------------------------------------------------------------------------------------


def _read_answer() -> object:
    return read(EventParser(), ChatReader(), b"".join(UPSTREAM))


def _read_delta() -> float:
    parser, reader = EventParser(), ChatReader()
    read(parser, reader, ROLE)
    return cpu_of(partial(read, parser, reader, DELTA))


# -- What is decided -----------------------------------------------------------------------------------------


def _decide(commit: Commit) -> None:
    for step in commit.steps:
        decide(step.command, step.state)


def _project(commit: Commit) -> None:
    for step in commit.steps:
        recorder.batch(step.state, step.events, _PLACE)


def _encode(commit: Commit) -> None:
    for step in commit.steps:
        for event in step.events:
            codec.encode(event)


# -- What is recorded ----------------------------------------------------------------------------------------


def _check(commit: Commit) -> None:
    (append,) = commit.unit.appends
    check_unit(commit.unit)
    check_head(append, commit.head)
    next_head(append, commit.head, chain=_CHAIN, position=1)


def _bind(commit: Commit) -> None:
    (append,) = commit.unit.appends
    bind(append, commit.head, _SALT, _WHEN)


def _order(commit: Commit) -> None:
    encode_request(1, commit.unit)
    for header, _ in FrameReader().feed(_OUTCOME):
        decode_outcome(header)


def _obey(commit: Commit) -> None:
    for header, blobs in FrameReader().feed(commit.order):
        decode_request(header, blobs)
    encode_outcome(1, [_PLACE])


class _Log:
    """A log on disk, and units for it in streams of their own."""

    def __init__(self, store: SqliteEventStore, sample: Sample) -> None:
        self._store = store
        self._sample = sample
        self._numbers = itertools.count()

    def responses(self, count: int) -> list[Job]:
        """Whole responses, one a job."""
        return [self._append(list(self._response())) for _ in range(count)]

    async def deltas(self, count: int, width: int) -> Callable[[], list[Job]]:
        """Deltas of `width` responses in turn, one a job; the responses are begun now."""
        begun = [next(self._response()) for _ in range(width)]
        await self._append(begun)
        (first,) = begun[0].appends
        version = itertools.count(first.expected + len(first.events))

        def jobs() -> list[Job]:
            return [
                self._append([moved(self._sample.delta.unit, unit.appends[0].stream, at)])
                for at in itertools.islice(version, count // width)
                for unit in begun
            ]

        return jobs

    async def _append(self, units: Sequence[Unit]) -> None:
        for unit in units:
            await self._store.append(unit)

    def _response(self) -> Iterator[Unit]:
        stream = f"resp_{next(self._numbers):032x}"
        for commit in self._sample.response:
            (append,) = commit.unit.appends
            yield moved(commit.unit, stream, append.expected)


async def _commit_rows(sample: Sample) -> list[Row]:
    made: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        store = await SqliteEventStore.open(Path(folder), may_own=True)
        log = _Log(store, sample)
        for width, count in ((1, ALONE), (AT_ONCE, TOGETHER)):
            response = await cost_of(partial(log.responses, count), width)
            delta = await cost_of(await log.deltas(count, width), width)
            name = "commit, alone" if width == 1 else f"commit, {width} at a time"
            made += [
                Row("host", name, response=response.cpu, delta=delta.cpu, aside=width > 1),
                Row("host", f"{name}: its wait", response=response.wait, delta=delta.wait, waited=True),
            ]
        await store.aclose()
    return made

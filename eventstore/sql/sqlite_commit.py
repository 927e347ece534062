"""One SQLite transaction for many requests, each with an outcome of its own.  Synchronous; one thread's.

The process that holds the data directory's lock is the only writer, so what was written last is known without
asking: winners are found in memory, before the transaction begins, and a guilty unit never reaches the
database.  The conditional update of the heads stays as a guard: should anybody else have written, nothing is
committed.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain as flatten
from pathlib import Path
from typing import Final

import orjson

from eventstore import chain
from eventstore.block import bare
from eventstore.errors import (
    ClaimTaken,
    EventStoreError,
    Fenced,
    LeaseLost,
    OutcomeUnknown,
    StoreUnavailable,
    StreamNotFound,
)
from eventstore.events import Append, Claim, Document, Head, Recorded, Seal, Unit
from eventstore.sql import sqlite_text as sql
from eventstore.sql.claims import ClaimSweep
from eventstore.sql.clock import wall_clock
from eventstore.sql.leases import Leases
from eventstore.sql.requests import Bury, Expired, Outcome, Ping, Renew, Request, SaveCursor, Take
from eventstore.sql.rows import block_of, block_row, dump_attributes, head_of
from eventstore.sql.sqlite_connection import connect_writer, truncate_wal
from eventstore.sql.staged import Stream, bind
from eventstore.unit import check_documents, check_head, check_seal, next_head, sealed_head

_STREAMS_KEPT: Final = 10_000
"""Heads remembered between commits: more than any host runs; about 1 KB each."""

_TRUNCATE_EVERY_S: Final = 1.0
"""Emptying the write-ahead log costs a few milliseconds; many erasures share one."""


@dataclass(slots=True)
class _Batch:
    """What one transaction is going to write."""

    streams: dict[str, Stream] = field(default_factory=dict)
    """As they will stand; those of them that are not in `before` are new."""
    before: dict[str, Head] = field(default_factory=dict)
    """As they stand in the database."""
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)
    records: list[tuple[object, ...]] = field(default_factory=list)
    payloads: list[tuple[object, ...]] = field(default_factory=list)
    salts: list[tuple[object, ...]] = field(default_factory=list)
    then: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    """Statements that follow these inserts, in order."""
    bared: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    """What erasures leave of blocks; follows all those."""
    erases: bool = False

    @property
    def writes(self) -> bool:
        return bool(self.streams or self.then)


class _Moved(Exception):
    """Somebody else wrote to the database."""


class SqliteCommitter:
    """Commits batches of requests.

    `now` gives wall-clock milliseconds, `monotonic` the seconds that leases are measured in.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._path, self._now, self._monotonic, self._entropy = path, now, monotonic, entropy
        self._known: OrderedDict[str, Stream] = OrderedDict()
        self._connection: sqlite3.Connection | None = None
        self._uncertain = False
        self._truncate_due: float | None = None
        self._truncated_at = 0.0
        self._claims = ClaimSweep()
        self._open()

    def commit(self, requests: Sequence[Request]) -> list[Outcome]:
        """Commit what can be; the outcomes stand in the order of the requests.  Raises no database error."""
        try:
            if self._connection is None:
                self._open()
            try:
                return self._transact(requests)
            except _Moved:
                self._reopen()
                return self._transact(requests)
        except _Moved:
            self.let_go()
            return [StoreUnavailable("another process writes to the log's database")] * len(requests)
        except OutcomeUnknown as error:
            return [error] * len(requests)
        except (sqlite3.Error, OSError, StoreUnavailable) as error:
            # Never again on this connection: after a failed fsync it may believe what the disk does not hold.
            self.let_go()
            return [StoreUnavailable(str(error))] * len(requests)

    @property
    def tidy_after(self) -> float | None:
        """Seconds until `tidy` should be called, or None."""
        if self._truncate_due is None:
            return None
        return max(0.0, self._truncate_due - time.monotonic())

    def tidy(self) -> None:
        """Empty the write-ahead log of erased bytes, if that is due; a reader may be in the way."""
        if self._truncate_due is None or self._connection is None or time.monotonic() < self._truncate_due:
            return
        try:
            done = truncate_wal(self._connection)
        except sqlite3.Error:
            self.let_go()
            return
        self._truncated_at = time.monotonic()
        self._truncate_due = None if done else self._truncated_at + _TRUNCATE_EVERY_S

    def close(self) -> None:
        """Let go of the database, having emptied its write-ahead log."""
        self._truncate_due = None
        if self._connection is not None:
            truncate_wal(self._connection)
        self.let_go()

    def let_go(self) -> None:
        """Close the connection without writing anything; the next commit opens another one."""
        connection, self._connection = self._connection, None
        self._known.clear()
        if connection is not None:
            connection.close()

    # -- opening

    def _open(self) -> None:
        connection = connect_writer(self._path)
        try:
            if self._uncertain:
                # A commit failed half way.  If its frames are in the write-ahead log they count; copying them
                # into the database writes them anew, as the failed fsync may have lost them.
                if not truncate_wal(connection):
                    raise StoreUnavailable("a reader is in the way of recovery")
                self._uncertain = False
            connection.execute(sql.NAME_LOG, (self._entropy(8).hex(), self._now()))
            (self._position,) = connection.execute(sql.LAST_POSITION).fetchone()
            (self._stream_id,) = connection.execute(sql.LAST_STREAM).fetchone()
            self._leases = Leases(connection.execute(sql.LEASES), self._monotonic)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _reopen(self) -> None:
        self.let_go()
        self._open()

    # -- one transaction

    def _transact(self, requests: Sequence[Request]) -> list[Outcome]:
        connection = self._connection
        assert connection is not None, "commit opens it"
        self._load(connection, requests)
        batch = _Batch()
        # Before the disk is waited for: whoever renewed meanwhile waits behind this and must not die of it.
        asked_at = self._leases.look()
        position, stream_id = self._position, self._stream_id
        try:
            outcomes = [self._stage(connection, request, batch) for request in requests]
            if batch.writes:
                self._write(connection, batch)
        except BaseException:
            self._position, self._stream_id = position, stream_id
            raise
        self._remember(batch)
        if any(isinstance(request, Expired) for request in requests):
            dead = self._leases.dead((owner for (owner,) in connection.execute(sql.OWNERS)), asked_at)
            outcomes = [
                dead if isinstance(request, Expired) else outcome
                for request, outcome in zip(requests, outcomes, strict=True)
            ]
        if batch.erases:
            self._truncate_due = max(time.monotonic(), self._truncated_at + _TRUNCATE_EVERY_S)
            self.tidy()
        return outcomes

    def _load(self, connection: sqlite3.Connection, requests: Iterable[Request]) -> None:
        """Read the heads that are not remembered, with one query."""
        unknown = {name for request in requests for name in _streams_of(request) if name not in self._known}
        if not unknown:
            return
        for row in connection.execute(sql.HEADS_BY_NAME, (orjson.dumps(list(unknown)).decode(),)):
            head = head_of(row[2:])
            self._known[head.stream] = Stream(row[0], head, row[1])

    def _remember(self, batch: _Batch) -> None:
        for name, stream in batch.streams.items():
            self._known[name] = stream
            self._known.move_to_end(name)
        while len(self._known) > _STREAMS_KEPT:
            self._known.popitem(last=False)

    def _write(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._write_heads(connection, batch)
            sql.insert(connection, sql.INSERT_SALTS, batch.salts)
            sql.insert(connection, sql.INSERT_RECORDS, batch.records)
            sql.insert(connection, sql.INSERT_PAYLOADS, batch.payloads)
            for statement, parameters in flatten(batch.then, batch.bared):
                connection.execute(statement, parameters)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._uncertain = True
            self.let_go()
            raise OutcomeUnknown(str(error)) from error

    def _write_heads(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        new: list[tuple[object, ...]] = []
        moved: list[tuple[object, ...]] = []
        changed: list[tuple[object, ...]] = []
        for name, stream in batch.streams.items():
            head, before = stream.head, batch.before.get(name)
            if before is None:
                new.append(sql.row_of(stream.id, head))
                continue
            guard = (stream.id, before.version, before.epoch, head.version, head.chain)
            if _found_by(head) == _found_by(before):
                moved.append(guard)
            else:
                changed.append((*guard, *_found_by(head)[:3], dump_attributes(head.attributes)))
        sql.insert(connection, sql.INSERT_STREAMS, new)
        updated = sql.update(connection, sql.MOVE_HEADS, moved) + sql.update(
            connection, sql.CHANGE_HEADS, changed
        )
        if updated != len(moved) + len(changed):
            raise _Moved

    # -- requests

    def _stage(self, connection: sqlite3.Connection, request: Request, batch: _Batch) -> Outcome:
        """Find out whether a request wins, and if so what it writes."""
        try:
            match request:
                case Unit():
                    return self._stage_unit(connection, request, batch)
                case Take():
                    return self._stage_take(request, batch)
                case Renew(holder, ttl):
                    if self._leases.is_buried(holder):
                        raise LeaseLost(holder)
                    if (term_ms := self._leases.renew(holder, ttl)) is not None:
                        batch.then.append((sql.SAVE_LEASE, (holder, term_ms)))
                        self._forget_leases(connection, batch)
                case Bury(holder):
                    if self._leases.bury(holder):
                        batch.then.append((sql.BURY_LEASE, (holder,)))
                        self._forget_leases(connection, batch)
                case SaveCursor(name, position):
                    batch.then.append((sql.SAVE_CURSOR, (name, position)))
                case Expired() | Ping():
                    pass  # Answered after the commit, which may release streams.
        except EventStoreError as error:
            return error
        return None

    def _forget_leases(self, connection: sqlite3.Connection, batch: _Batch) -> None:
        if self._leases.has_forgettable:
            owners = {owner for (owner,) in connection.execute(sql.OWNERS)}
            batch.then += [(sql.FORGET_LEASE, (holder,)) for holder in self._leases.forget(owners)]

    def _find(self, name: str, batch: _Batch) -> Stream | None:
        return batch.streams.get(name) or self._known.get(name)

    def _head(self, name: str, batch: _Batch) -> Head | None:
        found = self._find(name, batch)
        return found.head if found else None

    def _stage_unit(self, connection: sqlite3.Connection, unit: Unit, batch: _Batch) -> Sequence[Recorded]:
        for append in unit.appends:
            check_head(append, self._head(append.stream, batch))
        now = self._now()
        for claim in unit.claims:
            self._check_claim(connection, claim, batch, now)
        check_documents(unit, lambda name: self._head(name, batch))
        for seal in unit.seals:
            check_seal(seal, self._head(seal.stream, batch))
        # Nothing can fail from here on, so all of the unit happens.
        for append in unit.appends:
            if append.erase:
                self._stage_bare_blocks(connection, append.stream, batch)
        recorded = [self._stage_append(append, batch, now) for append in unit.appends]
        for claim in unit.claims:
            batch.claims[claim.scope, claim.key] = claim
            batch.then.append(
                (
                    sql.SAVE_CLAIM,
                    (claim.scope, claim.key, claim.fingerprint, claim.stream, claim.expires_at),
                )
            )
        if unit.claims:
            batch.then += self._claims.expired(connection, now)
        for document in unit.documents:
            batch.then.append(self._stage_document(document, batch))
        for seal in unit.seals:
            self._stage_seal(seal, batch)
        return recorded

    def _check_claim(self, connection: sqlite3.Connection, claim: Claim, batch: _Batch, now: int) -> None:
        taken = batch.claims.get((claim.scope, claim.key))
        if taken is None:
            row = connection.execute(sql.CLAIM, (claim.scope, claim.key)).fetchone()
            taken = Claim(*row) if row else None
        if taken is not None and (taken.expires_at is None or taken.expires_at > now):
            raise ClaimTaken(claim.scope, claim.key, taken.fingerprint, taken.stream)

    def _stage_append(self, append: Append, batch: _Batch, now: int) -> Recorded:
        name, first = append.stream, append.expected + 1
        found = self._find(name, batch)
        self._position += 1
        if found is None:
            self._stream_id += 1
            stream_id, salt = self._stream_id, self._entropy(chain.SALT_BYTES)
            batch.salts.append((stream_id, first, salt))
        elif append.erase:
            stream_id, salt = found.id, self._entropy(chain.SALT_BYTES)
            batch.salts.append((stream_id, first, salt))
            batch.then += [(statement, (stream_id, first)) for statement in sql.ERASE]
            batch.erases = True
        else:
            stream_id, salt = found.id, found.salt
        bound = bind(append, found.head if found else None, salt, now)
        header = (bound.types, append.schema, append.epoch, now, bound.digest, bound.chain)
        batch.records.append((self._position, stream_id, first, *header))
        batch.payloads.append((self._position, bound.payload))
        head = next_head(append, found.head if found else None, chain=bound.chain, position=self._position)
        self._put(batch, found, Stream(stream_id, head, salt))
        return Recorded(name, self._position, first, head.version, now)

    def _stage_seal(self, seal: Seal, batch: _Batch) -> None:
        found = self._find(seal.stream, batch)
        assert found is not None, "checked before anything of the unit was staged"
        batch.then += [(sql.SAVE_BLOCK, (found.id, *block_row(block))) for block in seal.blocks]
        batch.then += [(statement, (found.id, seal.version)) for statement in sql.SEAL]
        self._put(batch, found, Stream(found.id, sealed_head(found.head), found.salt))

    def _stage_bare_blocks(self, connection: sqlite3.Connection, name: str, batch: _Batch) -> None:
        found = self._find(name, batch)
        assert found is not None, "checked before anything of the unit was staged"
        for row in connection.execute(sql.BLOCKS_OF, (found.id,)) if found.head.sealed else ():
            left = bare(*block_of(row))
            # Behind the statement that permits it.
            batch.bared.append((sql.BARE_BLOCK, (left.data, found.id, left.first_version)))

    def _stage_document(self, document: Document, batch: _Batch) -> tuple[str, tuple[object, ...]]:
        found = self._find(document.stream, batch)
        assert found is not None, "checked before anything of the unit was staged"
        if document.data:
            return sql.SAVE_DOCUMENT, (found.id, document.kind, document.data)
        return sql.DELETE_DOCUMENT, (found.id, document.kind)

    def _stage_take(self, take: Take, batch: _Batch) -> Head:
        found = self._find(take.stream, batch)
        if found is None:
            raise StreamNotFound(take.stream)
        head = found.head
        if head.epoch != take.epoch:
            raise Fenced(take.stream, take.epoch, head.epoch)
        state = head.state if take.state is None else take.state
        head = replace(head, epoch=take.epoch + 1, owner=take.owner, state=state)
        self._put(batch, found, Stream(found.id, head, found.salt))
        return head

    def _put(self, batch: _Batch, found: Stream | None, stream: Stream) -> None:
        name = stream.head.stream
        if found is not None and name not in batch.streams:
            batch.before[name] = found.head
        batch.streams[name] = stream


def _found_by(head: Head) -> tuple[int, str | None, str, object]:
    """What a head holds beside its version: rarely changed, and indexed."""
    return head.epoch, head.owner, head.state, head.attributes


def _streams_of(request: Request) -> Iterable[str]:
    if isinstance(request, Unit):
        return request.streams
    return (request.stream,) if isinstance(request, Take) else ()

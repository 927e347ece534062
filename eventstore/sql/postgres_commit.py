"""One call of Postgres for many units, each with an outcome of its own.

What a unit writes is computed here, from heads that are remembered; whether it may be written is decided in
the database, by its function `append_units`, a transaction of its own: no lock is held while anything
travels.  A unit that loses there is looked at anew, with heads that are read afresh.  See
docs/adr/0014-postgres-positions.md.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from eventstore import chain
from eventstore.block import bare
from eventstore.errors import ClaimTaken, EventStoreError, StoreUnavailable
from eventstore.events import Append, Claim, Document, Head, Recorded, Unit
from eventstore.sql.clock import wall_clock
from eventstore.sql.rows import BLOCK_COLUMNS, HEAD_COLUMNS, block_of, block_row, dump_attributes, head_of
from eventstore.sql.staged import Stream, bind
from eventstore.unit import check_documents, check_head, check_seal, next_head, sealed_head

_STREAMS_KEPT: Final = 10_000
"""Heads remembered between commits: more than any host runs; about 1 KB each."""
_ROUNDS_MAX: Final = 8
"""Versions and epochs only grow, so that the second look is the last but for a rival in between."""
_IDS: Final = 64
"""Stream ids in a block: the sequence's increment."""

_LOAD: Final = f"""
SELECT id, COALESCE((SELECT salt FROM salts WHERE stream_id = id ORDER BY from_version DESC LIMIT 1), ''),
    {HEAD_COLUMNS}
FROM streams WHERE name = ANY ($1)"""
_CLAIMS: Final = """
SELECT t.scope, t.key, t.fingerprint, t.stream, t.expires_at
FROM claims t JOIN unnest($1::text[], $2::text[]) AS c (scope, key) ON t.scope = c.scope AND t.key = c.key
WHERE t.expires_at IS NULL OR t.expires_at > $3"""
_APPEND_COLUMNS: Final = 20
_CLAIM_COLUMNS: Final = 6
_DOCUMENT_COLUMNS: Final = 4
_PARAMETERS: Final = _APPEND_COLUMNS + _CLAIM_COLUMNS + _DOCUMENT_COLUMNS + 1
_SEAL_COLUMNS: Final = 4
_BLOCK_COLUMNS: Final = 9
_BLOCKS_OF: Final = f"""
SELECT {BLOCK_COLUMNS} FROM blocks b JOIN streams s ON s.id = b.stream_id WHERE b.stream_id = $1"""


def _call(function: str, parameters: int) -> str:
    return f"SELECT lost, a_position FROM {function}({', '.join(f'${n + 1}' for n in range(parameters))})"


_APPEND: Final = _call("append_units", _PARAMETERS)
_APPEND_BLOCKS: Final = _call("append_blocks", _PARAMETERS + _SEAL_COLUMNS + _BLOCK_COLUMNS)

Outcome = Sequence[Recorded] | EventStoreError


class PostgresCommitter:
    """Commits groups of units in which no two touch the same stream or claim.

    `now` gives wall-clock milliseconds, `entropy` random bytes.  Every method raises what the driver raises.
    """

    def __init__(
        self, *, now: Callable[[], int] = wall_clock, entropy: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._now, self._entropy = now, entropy
        self._known: OrderedDict[str, Stream] = OrderedDict()
        self._ids: list[int] = []

    def forget(self, *names: str) -> None:
        """Know nothing any more of these streams, or of any: the database may have gone on without us."""
        if not names:
            self._known.clear()
            self._ids.clear()
        for name in names:
            self._known.pop(name, None)

    async def commit(self, connection: asyncpg.Connection, units: Sequence[Unit]) -> list[Outcome]:
        """Commit what can be; the outcomes stand in the order of the units."""
        outcomes: dict[int, Outcome] = {}
        undecided = dict(enumerate(units))
        looked_at: set[str] = set()
        for round_ in range(_ROUNDS_MAX):
            taken = await self._look(connection, undecided.values(), looked_at, claims=round_ > 0)
            group = _Group(self._now())
            await self._reserve(connection, undecided.values())
            for number, unit in undecided.items():
                try:
                    self._stage(number, unit, group, taken)
                except EventStoreError as error:
                    # Only what was read in this very commit is a reason: what is remembered may be old.
                    if looked_at.issuperset(streams_of(unit)):
                        outcomes[number] = error
            for number, append in group.appends:
                await self._strip(connection, number, append, group)
            if group.numbers:
                outcomes |= await self._write(connection, group)
            undecided = {number: unit for number, unit in undecided.items() if number not in outcomes}
            if not undecided:
                return [outcomes[number] for number in range(len(units))]
            for unit in undecided.values():
                self.forget(*streams_of(unit))
                looked_at.difference_update(streams_of(unit))
        rivals = StoreUnavailable("others wrote to the same streams all the time")
        return [outcomes.get(number, rivals) for number in range(len(units))]

    # -- before

    async def _look(
        self, connection: asyncpg.Connection, units: Iterable[Unit], looked_at: set[str], *, claims: bool
    ) -> dict[tuple[str, str], Claim]:
        """Read the heads that are needed and not remembered, and who holds the claims of those who lost."""
        again = list(units)
        names = {name for unit in again for name in (streams_of(unit) if claims else _needed(unit))}
        if unknown := sorted(name for name in names if name not in self._known):
            for row in await connection.fetch(_LOAD, unknown):
                head = head_of(row[2:])
                self._known[head.stream] = Stream(row[0], head, row[1])
            looked_at.update(unknown)
        wanted = [claim for unit in again for claim in unit.claims] if claims else []
        if not wanted:
            return {}
        found = await connection.fetch(
            _CLAIMS, [claim.scope for claim in wanted], [claim.key for claim in wanted], self._now()
        )
        return {(row[0], row[1]): Claim(*row) for row in found}

    async def _reserve(self, connection: asyncpg.Connection, units: Iterable[Unit]) -> None:
        """Have an id for every stream that may begin."""
        missing = sum(append.new is not None for unit in units for append in unit.appends) - len(self._ids)
        if missing > 0:
            blocks = await connection.fetch(
                "SELECT nextval('stream_ids') FROM generate_series(1, $1)", -(-missing // _IDS)
            )
            self._ids += [first + n for (first,) in blocks for n in range(_IDS)]

    def _head(self, name: str) -> Head | None:
        found = self._known.get(name)
        return found.head if found else None

    def _stage(self, number: int, unit: Unit, group: _Group, taken: dict[tuple[str, str], Claim]) -> None:
        """Write down what the unit would write, or raise why it may not."""
        for append in unit.appends:
            check_head(append, self._head(append.stream))
        for seal in unit.seals:
            check_seal(seal, self._head(seal.stream))
        check_documents(unit, self._head)
        for claim in unit.claims:
            if (other := taken.get((claim.scope, claim.key))) is not None:
                raise ClaimTaken(claim.scope, claim.key, other.fingerprint, other.stream)
        group.numbers.append(number)
        for append in unit.appends:
            self._stage_append(number, append, group)
        for claim in unit.claims:
            group.claims.append(
                (number, claim.scope, claim.key, claim.fingerprint, claim.stream, claim.expires_at)
            )
        latest: dict[tuple[str, str], Document] = {(each.stream, each.kind): each for each in unit.documents}
        for document in latest.values():
            stream = group.streams.get(document.stream) or self._known[document.stream]
            group.documents.append((number, stream.id, document.kind, document.data))
        for seal in unit.seals:
            stream = self._known[seal.stream]
            sealed = Stream(stream.id, sealed_head(stream.head), stream.salt)
            group.seals.append((number, stream.id, seal.version, seal.epoch))
            group.sealed.append((number, sealed))
            group.blocks += [(number, stream.id, *block_row(block), False) for block in seal.blocks]

    async def _strip(
        self, connection: asyncpg.Connection, number: int, append: Append, group: _Group
    ) -> None:
        """Take the bytes that an append erases out of its stream's blocks."""
        stream = group.streams[append.stream]
        if append.erase and stream.head.sealed:
            for row in await connection.fetch(_BLOCKS_OF, stream.id):
                group.blocks.append((number, stream.id, *block_row(bare(*block_of(row))), True))

    def _stage_append(self, number: int, append: Append, group: _Group) -> None:
        found = self._known.get(append.stream)
        salt = found.salt if found and not append.erase else self._entropy(chain.SALT_BYTES)
        before = found.head if found else None
        bound = bind(append, before, salt, group.now)
        head = next_head(append, before, chain=bound.chain, position=0)
        stream = Stream(found.id if found else self._ids.pop(), head, salt)
        unchanged = before is not None and head.attributes == before.attributes
        group.streams[append.stream] = stream
        group.appends.append((number, append))
        group.rows.append(
            (
                number,
                stream.id,
                found is None,
                append.stream,
                append.expected,
                append.epoch,
                head.version,
                bound.chain,
                head.owner,
                head.state,
                None if unchanged else dump_attributes(head.attributes),
                head.category,
                head.tenant,
                head.parent,
                bound.types,
                append.schema,
                bound.digest,
                bound.payload,
                salt if found is None or append.erase else None,
                append.erase,
            )
        )

    # -- the call

    async def _write(self, connection: asyncpg.Connection, group: _Group) -> dict[int, list[Recorded]]:
        """The outcomes of those that won."""
        columns = (
            *_columns(group.rows, _APPEND_COLUMNS),
            *_columns(group.claims, _CLAIM_COLUMNS),
            *_columns(group.documents, _DOCUMENT_COLUMNS),
        )
        if group.blocks:
            beside = (*_columns(group.seals, _SEAL_COLUMNS), *_columns(group.blocks, _BLOCK_COLUMNS))
            answer = await connection.fetch(_APPEND_BLOCKS, *columns, group.now, *beside)
        else:
            answer = await connection.fetch(_APPEND, *columns, group.now)
        ((lost, positions),) = answer
        won: dict[int, list[Recorded]] = {number: [] for number in group.numbers if number not in lost}
        for (number, append), position in zip(group.appends, positions or (), strict=positions is not None):
            if position is None:
                continue
            stream = group.streams[append.stream]
            if append.new is not None:
                stream.head = replace(stream.head, created=position)
            self._remember(stream)
            first, last = append.expected + 1, stream.head.version
            won[number].append(Recorded(append.stream, position, first, last, group.now))
        for number, stream in group.sealed:
            if number in won:
                self._remember(stream)
        return won

    def _remember(self, stream: Stream) -> None:
        name = stream.head.stream
        self._known[name] = stream
        self._known.move_to_end(name)
        while len(self._known) > _STREAMS_KEPT:
            self._known.popitem(last=False)


class _Group:
    """What one call is going to write."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.numbers: list[int] = []
        self.streams: dict[str, Stream] = {}
        """As they will stand."""
        self.appends: list[tuple[int, Append]] = []
        self.rows: list[tuple[Any, ...]] = []
        """One for each append."""
        self.claims: list[tuple[Any, ...]] = []
        self.documents: list[tuple[Any, ...]] = []
        self.seals: list[tuple[Any, ...]] = []
        self.sealed: list[tuple[int, Stream]] = []
        """By the number of their unit, as they will stand."""
        self.blocks: list[tuple[Any, ...]] = []


def streams_of(unit: Unit) -> set[str]:
    """The streams that a unit touches."""
    return set(unit.streams)


def _needed(unit: Unit) -> set[str]:
    """Those whose heads must be known; a stream that is to begin is thought not to be there."""
    return streams_of(unit) - {append.stream for append in unit.appends if append.new is not None}


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> Iterable[Sequence[Any]]:
    return zip(*rows, strict=True) if rows else ((),) * count

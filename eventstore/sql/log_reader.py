"""Reads the log from its tables, whatever the database: short queries, none across a yield."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from eventstore.block import SPAN_MAX, unpack
from eventstore.errors import LogCorrupted, StoreUnavailable, UnknownFormat
from eventstore.events import PACKED, Block, Claim, Head, Record
from eventstore.pages import FIRST, next_page, payload_size
from eventstore.sql.clock import wall_clock
from eventstore.sql.rows import (
    BLOCK_COLUMNS,
    DOCUMENT_COLUMNS,
    HEAD_COLUMNS,
    RECORD_COLUMNS,
    beside,
    block_of,
    documents_of,
    head_of,
    record_of,
)
from eventstore.sql.where import Where

_PAGE: Final = 128
"""Records a query, at most: a few milliseconds' work."""
_KEPT_BYTES_MAX: Final = 1 << 22
_RECORD_BYTES: Final = 512
"""What a record takes in memory beside its events' bytes, roughly."""

_RECORD: Final = f"""
SELECT {RECORD_COLUMNS}
FROM records r JOIN streams s ON s.id = r.stream_id LEFT JOIN payloads p ON p.position = r.position"""
_READ: Final = f"""{_RECORD}
WHERE r.stream_id = (SELECT id FROM streams WHERE name = :stream) AND r.first_version >= COALESCE(
    (SELECT max(first_version) FROM records
     WHERE stream_id = (SELECT id FROM streams WHERE name = :stream) AND first_version <= :next), 0)
ORDER BY r.first_version LIMIT :limit"""
# Said of payloads, too: Postgres merges both by position, and would begin with the log's first payload.
_READ_ALL: Final = f"""{_RECORD} AND p.position > :after
WHERE r.position > :after ORDER BY r.position LIMIT :limit"""
_BLOCK: Final = f"SELECT {BLOCK_COLUMNS} FROM blocks b JOIN streams s ON s.id = b.stream_id"
_READ_BLOCK: Final = f"""{_BLOCK}
WHERE s.name = :stream AND b.last_version > :after ORDER BY b.first_version LIMIT 1"""
_READ_BLOCKS: Final = f"""{_BLOCK}
WHERE b.first_position > :start AND b.first_position <= :last AND b.last_position > :after
ORDER BY b.first_position"""
_INCARNATION: Final = "SELECT incarnation FROM log"
_HEAD: Final = f"SELECT {HEAD_COLUMNS} FROM streams WHERE name = :stream"
_KIND: Final = f"d.kind IN (:kind, '{PACKED}')"
_LINEAGE: Final = f"""
WITH RECURSIVE line (name, parent) AS (
    SELECT name, parent FROM streams WHERE name = :stream
    UNION SELECT s.name, s.parent FROM streams s JOIN line ON s.name = line.parent
)
SELECT {HEAD_COLUMNS}, {DOCUMENT_COLUMNS} FROM streams {beside(_KIND)}
WHERE name IN (SELECT name FROM line)"""
_BESIDE: Final = f"SELECT {DOCUMENT_COLUMNS} FROM streams {beside('true')} WHERE name = :stream"
_DOCUMENT: Final = f"SELECT {DOCUMENT_COLUMNS} FROM streams {beside(_KIND)} WHERE name = :stream"
_CLAIM: Final = (
    "SELECT scope, key, fingerprint, stream, expires_at FROM claims WHERE scope = :scope AND key = :key"
)
_SALTS: Final = """
SELECT t.from_version, t.salt FROM streams s JOIN salts t ON t.stream_id = s.id WHERE s.name = :stream
UNION ALL
SELECT b.first_version, b.salt FROM streams s JOIN blocks b ON b.stream_id = s.id
WHERE s.name = :stream AND b.salt IS NOT NULL ORDER BY 1"""
# The length of a payload is in its row's header: none of the bytes are read.
_STORED: Final = """
WITH page (id, created) AS MATERIALIZED (
    SELECT id, created FROM streams WHERE tenant = :tenant AND created > :after ORDER BY created LIMIT :limit
)
SELECT
    (SELECT CAST(COALESCE(sum(length(p.payload)), 0) AS BIGINT) FROM page
     JOIN records r ON r.stream_id = page.id JOIN payloads p ON p.position = r.position),
    (SELECT CAST(COALESCE(sum(length(b.data) + COALESCE(length(b.documents), 0)), 0) AS BIGINT) FROM page
     JOIN blocks b ON b.stream_id = page.id),
    (SELECT CAST(COALESCE(sum(length(d.data)), 0) AS BIGINT) FROM page
     JOIN documents d ON d.stream_id = page.id),
    (SELECT count(*) FROM page), (SELECT max(created) FROM page)"""
_DOCUMENTS: Final = f"SELECT name, {DOCUMENT_COLUMNS} FROM streams {beside(_KIND)}"
_CURSOR: Final = "SELECT position FROM cursors WHERE name = :name"
_TALLY: Final = "SELECT tenant, count(*) FROM streams"
_HEADS: Final = f"SELECT {HEAD_COLUMNS} FROM streams"


class SqlLogReader(ABC):
    """`LogReader` over SQL; what is left to each database is how a query gets there.

    `now` gives wall-clock milliseconds; claims expire by it.
    """

    def __init__(self, *, now: Callable[[], int] = wall_clock) -> None:
        self._now = now
        self._unpacked: dict[tuple[Block, bytes | None], list[Record]] = {}
        """Of the last page of the whole log: blocks that reach behind it, and so into the next one."""

    @abstractmethod
    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of one query, whose parameters are named `:name`, in a transaction that ends with it.

        Raises `StoreUnavailable`.
        """

    @abstractmethod
    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """See `LogReader`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the database; every later call raises `StoreUnavailable`."""

    async def incarnation(self) -> str:
        """See `LogReader`."""
        rows = await self._all(_INCARNATION, {})
        if not rows:
            raise StoreUnavailable("it is being created; try again in a moment")
        return str(rows[0][0])

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        """See `LogReader`."""
        limit = FIRST
        while True:
            rows = list(await self._all(_READ, {"stream": stream, "next": after + 1, "limit": limit}))
            if not rows or rows[0][2] > after + 1:
                # Behind the blocks of a sealed stream there is at most its erasure.
                async for record in self._read_blocks(stream, after):
                    yield record
                    after = record.last_version
            rows.reverse()
            count, size = len(rows), 0
            while rows:
                # One by one: a reader who stands still in the middle of a page keeps only the rest of it.
                record = record_of(rows.pop())
                size += payload_size(record.payload)
                if record.last_version > after:
                    yield record
                    after = record.last_version
            if count < limit:
                return
            limit = next_page(limit, size, _PAGE)

    async def read_all(self, after: int, limit: int = 500) -> Sequence[Record]:
        """See `LogReader`."""
        rows = await self._all(_READ_ALL, {"after": after, "limit": limit})
        page = {row[0]: record_of(row) for row in rows if row[0] <= after + limit}
        # The newest record is never sealed: where none follows the log ends, and where one is missing a block
        # holds it.
        if rows and len(page) < min(limit, rows[-1][0] - after):
            places = {"start": after - SPAN_MAX, "after": after, "last": after + limit}
            blocks = [block_of(row) for row in await self._all(_READ_BLOCKS, places)]
            self._fill(page, blocks, range(after + 1, min(after + limit, rows[-1][0]) + 1))
        else:
            self._unpacked = {}
        return [page[position] for position in sorted(page)] or [record_of(row) for row in rows]

    def _fill(
        self, page: dict[int, Record], blocks: Sequence[tuple[Block, bytes | None]], places: range
    ) -> None:
        """Add what `blocks` hold of `places`.  One that is bad harms only the pages that its records lack."""
        before, self._unpacked = self._unpacked, {}
        bad: list[tuple[Block, LogCorrupted | UnknownFormat]] = []
        room = _KEPT_BYTES_MAX
        for key in blocks:
            block, salt = key
            try:
                records = before.get(key) or unpack(block, salt)
            except (LogCorrupted, UnknownFormat) as error:
                bad.append((block, error))
                continue
            page.update((record.position, record) for record in records if record.position in places)
            size = sum(payload_size(record.payload) + _RECORD_BYTES for record in records)
            if block.last_position >= places.stop and size <= room:
                self._unpacked[key] = records
                room -= size
        if bad and (missing := next((place for place in places if place not in page), None)):
            covers = (error for block, error in bad if block.first_position <= missing <= block.last_position)
            raise next(covers, bad[0][1])

    async def _read_blocks(self, stream: str, after: int) -> AsyncIterator[Record]:
        while rows := await self._all(_READ_BLOCK, {"stream": stream, "after": after}):
            for record in unpack(*block_of(rows[0])):
                if record.last_version > after:
                    yield record
                    after = record.last_version

    async def head(self, stream: str) -> Head | None:
        """See `LogReader`."""
        rows = await self._all(_HEAD, {"stream": stream})
        return head_of(rows[0]) if rows else None

    async def heads(
        self,
        *,
        category: str | None = None,
        tenant: str | None = None,
        states: Sequence[str] | None = None,
        owner: str | None = None,
        after: int | None = None,
        sealed: bool | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> Sequence[Head]:
        """See `LogReader`."""
        where = Where()
        where.equals(category=category, tenant=tenant, owner=owner)
        if sealed is not None:
            # In words: a plan that Postgres makes for any value of a parameter leaves the index of these out.
            where.that(f"sealed = {int(sealed)}")
        where.among("state", states)
        if after is not None:
            where.that(f"created {'<' if newest_first else '>'} :after", after=after)
        order = "created DESC" if newest_first else "created"
        query = f"{_HEADS}{where} ORDER BY {order} LIMIT :limit"
        return [head_of(row) for row in await self._all(query, {**where.parameters, "limit": limit})]

    async def tally(
        self, *, categories: Sequence[str], states: Sequence[str], tenant: str | None = None
    ) -> Mapping[str, int]:
        """See `LogReader`."""
        where = Where()
        where.equals(tenant=tenant)
        where.among("category", categories)
        where.among("state", states)
        rows = await self._all(f"{_TALLY}{where} GROUP BY tenant", where.parameters)
        return {row[0]: row[1] for row in rows}

    async def stored(self, tenant: str, *, after: int = 0, limit: int = 500) -> tuple[int, int | None]:
        """See `LogReader`."""
        [[payloads, blocks, documents, count, last]] = await self._all(
            _STORED, {"tenant": tenant, "after": after, "limit": limit}
        )
        return payloads + blocks + documents, last if count == limit else None

    async def lineage(self, stream: str, kind: str) -> Sequence[tuple[Head, bytes | None]]:
        """See `LogReader`."""
        rows = await self._all(_LINEAGE, {"stream": stream, "kind": kind})
        found = _by_stream(rows)
        line: list[tuple[Head, bytes | None]] = []
        name: str | None = stream
        while name is not None and (of_it := found.pop(name, None)) is not None:
            head = head_of(of_it[0])
            line.append((head, documents_of(name, [row[12:] for row in of_it]).get(kind)))
            name = head.parent
        line.reverse()
        return line

    async def document(self, stream: str, kind: str) -> bytes | None:
        """See `LogReader`."""
        rows = await self._all(_DOCUMENT, {"stream": stream, "kind": kind})
        return documents_of(stream, rows).get(kind)

    async def documents(self, tenant: str, streams: Sequence[str], kind: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        where = Where()
        where.that("tenant = :tenant", tenant=tenant)
        where.among("name", streams)
        rows = await self._all(f"{_DOCUMENTS}{where}", {**where.parameters, "kind": kind})
        found = _by_stream(rows).items()
        beside = {name: documents_of(name, [row[1:] for row in rows]) for name, rows in found}
        return {name: documents[kind] for name, documents in beside.items() if kind in documents}

    async def beside(self, stream: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        return documents_of(stream, await self._all(_BESIDE, {"stream": stream}))

    async def claim(self, scope: str, key: str) -> Claim | None:
        """See `LogReader`."""
        rows = await self._all(_CLAIM, {"scope": scope, "key": key})
        claim = Claim(*rows[0]) if rows else None
        if claim is None or (claim.expires_at is not None and claim.expires_at <= self._now()):
            return None
        return claim

    async def salts(self, stream: str) -> Sequence[tuple[int, bytes]]:
        """See `LogReader`."""
        return [(row[0], row[1]) for row in await self._all(_SALTS, {"stream": stream})]

    async def cursor(self, name: str) -> int:
        """See `LogReader`."""
        rows = await self._all(_CURSOR, {"name": name})
        return int(rows[0][0]) if rows else 0


def _by_stream(rows: Sequence[Sequence[Any]]) -> dict[str, list[Sequence[Any]]]:
    """Rows that begin with a stream's name, by that."""
    found: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return found

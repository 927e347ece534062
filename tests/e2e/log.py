"""The log of a server under test, read from outside, as an auditor would."""

from __future__ import annotations

from pathlib import Path

from eventstore.events import Record
from eventstore.sql.reader import SqliteLogReader
from eventstore.verify import Finding, verify


async def records(data_dir: Path, after: int = 0) -> list[Record]:
    """Every record behind a position."""
    reader = SqliteLogReader(data_dir)
    try:
        found: list[Record] = []
        while page := await reader.read_all(found[-1].position if found else after):
            found += page
        return found
    finally:
        await reader.aclose()


async def findings(data_dir: Path) -> list[Finding]:
    """All that is wrong with the log; it must hold something."""
    reader = SqliteLogReader(data_dir)
    try:
        reports = [report async for report in verify(reader)]
    finally:
        await reader.aclose()
    assert reports, "the log is empty"
    wrong = [report if isinstance(report, Finding) else report.finding for report in reports]
    return [finding for finding in wrong if finding is not None]

"""The log of a server under test, read from outside, as an auditor would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from actors.config import ClusterConfig
from actors.stores import open_reader
from eventstore.events import Record
from eventstore.sql.log_reader import SqlLogReader
from eventstore.verify import Finding, verify


def log_of(data_dir: Path, environment: Mapping[str, str]) -> str:
    """The URL of the log of a server with these settings."""
    return environment.get("RAYSPOND_LOG_URL", f"sqlite:///{data_dir}")


def _reader(url: str) -> SqlLogReader:
    return open_reader(ClusterConfig(log_url=url, nats_url="unused"))


async def records(url: str, after: int = 0) -> list[Record]:
    """Every record behind a position."""
    reader = _reader(url)
    try:
        found: list[Record] = []
        while page := await reader.read_all(found[-1].position if found else after):
            found += page
        return found
    finally:
        await reader.aclose()


async def findings(url: str) -> list[Finding]:
    """All that is wrong with the log; it must hold something."""
    reader = _reader(url)
    try:
        reports = [report async for report in verify(reader)]
    finally:
        await reader.aclose()
    assert reports, "the log is empty"
    wrong = [report if isinstance(report, Finding) else report.finding for report in reports]
    return [finding for finding in wrong if finding is not None]

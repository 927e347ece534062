"""Write the golden logs of the current release: `python -m tests.golden.write_logs`.

Refuses to touch what exists: recorded bytes hold for ever.  `--overwrite` is for a release that is not out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from eventstore.events import Record
from runtime.response.commands import Command
from runtime.response.snapshot import snapshot_bytes
from tests.golden.scenarios import SCENARIOS
from tests.running import Running

RELEASE = "0.1"
LOGS = Path(__file__).parent / "responses"


def log_lines(records: Sequence[Record]) -> bytes:
    """One record a line; payloads as text, since they are JSON."""
    return b"".join(orjson.dumps(_line(record)) + b"\n" for record in records)


def run(commands: Sequence[Command]) -> Running:
    """The scenario, decided by today's rules."""
    running = Running()
    running.obey(*commands)
    return running


def main(overwrite: bool) -> None:
    """Write all that is missing."""
    folder = LOGS / RELEASE
    folder.mkdir(parents=True, exist_ok=True)
    for name, commands in SCENARIOS.items():
        running = run(commands)
        for suffix, data in {
            ".log.jsonl": log_lines(running.records),
            ".sse": running.sse,
            ".json": snapshot_bytes(running.wire[-1]),
        }.items():
            path = folder / (name + suffix)
            if overwrite or not path.exists():
                path.write_bytes(data)


def _line(record: Record) -> dict[str, Any]:
    assert record.payload is not None
    return {
        "version": record.first_version,
        "schema": record.schema,
        "types": record.types,
        "payload": [data.decode() for data in record.payload],
    }


if __name__ == "__main__":
    main(overwrite="--overwrite" in sys.argv[1:])

"""Write the golden logs of the current release: `python -m tests.golden.write_logs`.

Refuses to touch what exists: recorded bytes hold for ever.  `--overwrite` is for a release that is not out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from eventstore.events import Record
from runtime.response.commands import Command
from runtime.response.snapshot import snapshot_bytes
from tests.golden.conversation_scenarios import CONVERSATIONS, recorded, state_json
from tests.golden.scenarios import SCENARIOS
from tests.running import Running

RELEASE = "0.1"
LOGS = Path(__file__).parent / "responses"
CONVERSATION_LOGS = Path(__file__).parent / "conversations"


def log_lines(records: Sequence[Record]) -> bytes:
    """One record a line; payloads as text, since they are JSON."""
    return b"".join(orjson.dumps(_line(record)) + b"\n" for record in records)


def read_line(line: bytes, stream: str) -> Record:
    """The record that a line holds."""
    stored = orjson.loads(line)
    return Record(
        position=1,
        stream=stream,
        first_version=stored["version"],
        types=tuple(stored["types"]),
        schema=stored["schema"],
        epoch=1,
        recorded_at=0,
        digest=b"",
        chain=b"",
        payload=tuple(text.encode() for text in stored["payload"]),
    )


def run(commands: Sequence[Command]) -> Running:
    """The scenario, decided by today's rules."""
    running = Running()
    running.obey(*commands)
    return running


def main(overwrite: bool) -> None:
    """Write all that is missing."""
    for name, commands in SCENARIOS.items():
        running = run(commands)
        files = {
            ".log.jsonl": log_lines(running.records),
            ".sse": running.sse,
            ".json": snapshot_bytes(running.wire[-1]),
        }
        _write(LOGS / RELEASE / name, files, overwrite)
    for name, asked in CONVERSATIONS.items():
        records = recorded(asked)
        files = {".log.jsonl": log_lines(records), ".json": state_json(records)}
        _write(CONVERSATION_LOGS / RELEASE / name, files, overwrite)


def _write(path: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, data in files.items():
        file = path.with_name(path.name + suffix)
        if overwrite or not file.exists():
            file.write_bytes(data)


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

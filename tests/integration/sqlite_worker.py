"""A process that appends to a shared SQLite log as fast as it can, and writes down what was acknowledged.

Arguments: data directory, its own name, the file of acknowledgements.  It ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from eventstore.events import NO_STREAM, Append, NewEvent, NewStream, Unit
from eventstore.sql.sqlite import SqliteEventStore

_STREAMS = 4


async def main(data_dir: Path, name: str, acknowledged: Path) -> None:
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    store = await SqliteEventStore.open(data_dir, may_own=True)
    with acknowledged.open("w", buffering=1) as acks:
        print("ready", flush=True)
        await asyncio.gather(*(_write(store, f"{name}-{n}", over, acks.fileno()) for n in range(_STREAMS)))
    await store.aclose()


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


async def _write(store: SqliteEventStore, stream: str, over: threading.Event, acks: int) -> None:
    version = NO_STREAM
    while not over.is_set():
        new = NewStream("response", "p1", "running") if version == NO_STREAM else None
        version += 1
        event = NewEvent("said", f"{stream}:{version}".encode())
        await store.append(Unit([Append(stream, version - 1, 1, [event], new=new)]))
        os.write(acks, f"{stream} {version}\n".encode())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))

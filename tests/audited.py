"""A small log for the commands that look at logs, whatever it lies in."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace

from click.testing import CliRunner, Result

from actors.response_actor import ResponseActor
from eventstore.memory import MemoryLiveBus
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.replay import ResponseReplay
from serve_app.cli import COMMANDS
from tests.unit.actors.kit import ScriptedModel, World, always, create, says

FIRST, SECOND, DELETED = (f"resp_{digit * 32}" for digit in "123")


async def make_log(store: SqliteEventStore | PostgresEventStore) -> bytes:
    """Two responses and one that was deleted; the frames of the first.  Closes the store."""
    model = ScriptedModel(always(*says("Hello ", "there.", apart=0.001)))
    ports = replace(World(model).ports(), store=store, bus=MemoryLiveBus(), sleep=asyncio.sleep)
    for id in (FIRST, SECOND, DELETED):
        actor = ResponseActor(ports, id)
        await actor.create(create(id=id), start=True)
        await actor.run()
    await ResponseActor(ports, DELETED).delete("key_1")
    frames = [frame async for batch in ResponseReplay(store, FIRST).read(-1) for frame in batch.frames or ()]
    await store.aclose()
    return b"".join(frames)


def command(name: str, *arguments: str) -> Result:
    """What `rayspond <name> <arguments>` answers."""
    return CliRunner().invoke(importlib.import_module(COMMANDS[name]).command, list(arguments))

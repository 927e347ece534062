"""What a chain of responses costs: its length counts in bytes, never in questions to the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from eventstore.memory import MemoryEventStore
from runtime.response.history import ITEMS
from tests.unit.actors.kit import ScriptedModel, World, always, create, says


@dataclass
class CountingStore:
    """A way to the log that counts what it is asked."""

    log: MemoryEventStore
    asked: Counter[str] = field(default_factory=Counter)

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self.log, name)


async def test_a_chain_of_any_length_takes_the_same_questions() -> None:
    world = World(ScriptedModel(always(*says("Hello", "there"))))
    asked: list[Counter[str]] = []
    parent: str | None = None
    for number in range(20):
        command = create(id=f"resp_{number:032x}", previous_response_id=parent)
        store: Any = CountingStore(world.store)
        actor = world.actor(store=store, id=command.id)
        await actor.create(command, start=True)
        asked.append(store.asked)
        await actor.run()
        parent = command.id
    assert asked[1]["lineage"] == 1
    assert asked[1] == asked[19]
    assert len(world.model.requests[19].items) == 39, "all of it is told"


async def test_any_number_of_references_takes_one_question() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    references: list[dict[str, Any]] = []
    for number in range(10):
        command = create(id=f"resp_{number:032x}")
        actor = world.actor(id=command.id)
        await actor.create(command, start=True)
        await actor.run()
        items = orjson.loads(await world.store.document(command.id, ITEMS) or b"")
        references += [{"type": "item_reference", "id": items[part][0]["id"]} for part in ("input", "output")]
    command = create(id=f"resp_{99:032x}", input=tuple(references))
    store: Any = CountingStore(world.store)
    actor = world.actor(store=store, id=command.id)
    await actor.create(command, start=True)
    assert (store.asked["documents"], store.asked["document"], store.asked["head"]) == (1, 0, 0)
    await actor.run()
    assert len(world.model.requests[-1].items) == 20

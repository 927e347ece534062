"""Creates that carry an idempotency key: whatever is lost or doubled on the way, one response is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.hosts import HostDied
from actors.orders import AggregateOrder, Answer, Order
from eventstore.errors import ClaimTaken
from eventstore.events import Claim
from runtime.catalog import Catalog
from runtime.conversation.aggregate import CATEGORY, OPEN
from runtime.conversation.commands import CreateConversation
from runtime.response.commands import Create, Idempotency
from runtime.response.request import ResponseRequest
from tests import virtual_time
from tests.local_cluster import LocalCluster, LocalHost
from tests.patience import PATIENCE_S
from tests.unit.actors.kit import FlakyStore, ScriptedModel, World, always, check_shown, create, says

OTHER = "resp_" + "1" * 32
KEY = Idempotency("k", b"fingerprint", 1000)
LASTING = Idempotency("k", b"fingerprint", 1 << 60)
CONVERSATION = "conv_" + "c0" * 16


def keyed(id: str | None = None, project: str = "default") -> Create:
    """A create with the key."""
    command = create(project=project)
    return replace(command, id=id or command.id, idempotency=KEY)


def test_the_key_is_claimed_by_the_unit_that_creates_the_response() -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always(*says("Hello"))))
        await world.actor().create(keyed(), start=True)
        claim = await world.store.claim("default:idempotency", "k")
        assert claim == Claim("default:idempotency", "k", b"fingerprint", keyed().id, 1000)
        with pytest.raises(ClaimTaken) as raised:
            await world.actor(id=OTHER).create(keyed(OTHER), start=True)
        assert raised.value.stream == keyed().id
        assert await world.store.head(OTHER) is None
        await world.actor(id=OTHER).create(keyed(OTHER, "theirs"), start=True)

    virtual_time.run(scenario())


@pytest.mark.parametrize("fault", ["away", "lost", "late", "later"])
def test_a_log_that_stumbles_does_not_let_a_create_meet_its_own_claim(fault: str) -> None:
    """Also where it happened although nobody could tell, and was tried again."""

    async def scenario() -> None:
        world = World(ScriptedModel(always(*says("Hello"))))
        flaky = FlakyStore(world.store, [fault])
        actor = world.actor(store=flaky)
        await actor.create(keyed(), start=True)
        await actor.run()
        assert check_shown(await world.shown())["status"] == "completed"

    virtual_time.run(scenario())


def test_a_create_repeated_elsewhere_does_not_meet_its_own_claim() -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always(*says("Hello"))))
        first, second = world.actor("host-1"), world.actor("host-2")
        await first.create(keyed(), start=True)
        await second.create(replace(keyed(), at=7), start=True)
        await second.run()
        assert world.model.requests == []
        await first.run()
        assert check_shown(await world.shown())["status"] == "completed"

    virtual_time.run(scenario())


async def test_a_host_that_dies_before_it_answers_leaves_its_client_no_conflict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The create is recorded, its claim and its conversation with it; another host is asked, and agrees."""
    async with LocalCluster() as cluster:
        begin = CreateConversation(CONVERSATION, "default", None, 0, {})
        await cluster.client.change(AggregateOrder(CATEGORY, CONVERSATION, begin))
        died: list[str] = []

        def let_die(host: LocalHost) -> None:
            obey = host.obey

            async def obey_and_die(orders: Sequence[Order]) -> Answer:
                answer = await obey(orders)
                if not died:
                    died.append(host.name)
                    host.kill()
                    raise HostDied(host.name)
                return answer

            monkeypatch.setattr(host, "obey", obey_and_die)

        for host in cluster.factory.hosts.values():
            let_die(host)
        agent = Catalog().resolve("simulated").public()
        request = ResponseRequest(model="simulated", conversation=CONVERSATION)
        command = replace(keyed(), agent=agent, request=request, idempotency=LASTING)
        await cluster.client.create(command)
        assert died
        async with asyncio.timeout(PATIENCE_S):
            while not await cluster.store.heads(states=["completed"]):  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.01)
        claim = await cluster.store.claim("default:idempotency", "k")
        assert claim is not None
        assert claim.stream == command.id
        conversation = await cluster.store.head(CONVERSATION)
        assert conversation is not None
        assert conversation.state == OPEN

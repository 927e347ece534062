"""Both adapters over loopback: what a well-behaved upstream says arrives word by word."""

import hashlib
from itertools import pairwise

import pytest

from runtime.catalog import Adapter
from runtime.model import CallStarted, ItemOpened, Usage
from runtime.models.http import Connections
from runtime.models.json_text import dumps
from runtime.models.open import ModelPool
from tests.fakes.script import words
from tests.fakes.upstream import FakeUpstream
from tests.unit.models.calls import WEATHER, ask, call, until, upstream_of, user

CITY = '{"city":"Paris","unit":"celsius"}'
both = pytest.mark.parametrize("adapter", ["openai_chat", "openai_responses"])


@both
@pytest.mark.parametrize(
    "query",
    ["", "interval_ms=1", "write_bytes=5", "write_bytes=1000", "json=1", "done=0", "late=1", "usage=0"],
)
async def test_every_word_arrives_once_however_the_network_cuts_it(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str
) -> None:
    said = await call(pool.open(upstream_of(fake, adapter)), ask(f"fake?deltas=20&{query}", user("hi")))
    assert said.error is None
    assert said.items == [("message", "".join(words(20)))]
    assert said.end.finish == "stop"
    if query not in ("usage=0", "json=1"):
        assert tuple(said.pieces) == words(20)
    if query != "usage=0":
        assert said.end.usage == Usage(11, 20, 3, 0)


@both
async def test_the_call_starts_with_the_request_id_and_the_digest_of_what_was_sent(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter
) -> None:
    said = await call(pool.open(upstream_of(fake, adapter, key_env="FAKE_KEY")), ask("fake", user("hi")))
    started = said.events[0]
    assert isinstance(started, CallStarted)
    assert started.upstream_request_id == "req_fake"
    assert started.request_digest == hashlib.sha256(dumps(fake.calls[0]["body"])).hexdigest()
    assert fake.calls[0]["authorization"] == "Bearer sk-very-secret"


@both
async def test_reasoning_comes_as_an_item_of_its_own(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter
) -> None:
    model = pool.open(upstream_of(fake, adapter))
    for field in ("reasoning_content", "reasoning"):
        said = await call(model, ask(f"fake?reasoning=3&deltas=2&reasoning_field={field}", user("hi")))
        assert said.items == [("reasoning", "".join(words(3, "r"))), ("message", "".join(words(2)))]
        assert said.end.usage == Usage(11, 5, 3, 3)


@both
@pytest.mark.parametrize("query", ["tools=3", "tools=3&interleave=1", "tools=3&json=1"])
async def test_parallel_calls_come_one_after_the_other(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str
) -> None:
    model = pool.open(upstream_of(fake, adapter))
    said = await call(model, ask(f"fake?{query}", user("hi"), tools=[WEATHER]))
    assert said.items == [("get_weather", CITY)] * 3
    assert said.end.finish == "tool_calls"
    ids = [event.call_id for event in said.events if isinstance(event, ItemOpened)]
    assert ids == ["call_1_0", "call_1_1", "call_1_2"]


@both
async def test_a_tool_round_trip(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    model = pool.open(upstream_of(fake, adapter))
    made = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": CITY}
    output = {"type": "function_call_output", "call_id": "c1", "output": "12"}
    said = await call(model, ask("fake?tools=1", user("hi"), made, output, tools=[WEATHER]))
    assert said.items == [("message", "".join(words(8)))]


@both
async def test_a_refusal_and_a_length(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    model = pool.open(upstream_of(fake, adapter))
    refused = await call(model, ask("fake?refusal=1&deltas=3", user("hi")))
    assert refused.items == [("message", "refuses: " + "".join(words(3)))]
    short = await call(model, ask("fake?deltas=9", user("hi"), max_output_tokens=4))
    assert short.items == [("message", "".join(words(4)) + "...")], "what was broken off stays open"
    assert short.end.finish == "length"
    filtered = await call(model, ask("fake?finish=content_filter", user("hi")))
    assert filtered.end.finish == "content_filter"


@both
@pytest.mark.parametrize(
    ("odd", "text"),
    [("utf8", "a\ufffdbc end"), ("lone", "a\ufffd!\ufffdb end"), ("pair", "a\U0001f600b end")],
)
async def test_what_is_no_text_is_replaced_and_a_split_pair_joined(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, odd: str, text: str
) -> None:
    said = await call(pool.open(upstream_of(fake, adapter)), ask(f"fake?odd={odd}", user("hi")))
    assert said.items == [("message", text)]


@both
async def test_leaving_early_closes_the_connection(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter
) -> None:
    model = pool.open(upstream_of(fake, adapter))
    async with model.call(ask("fake?deltas=1000&interval_ms=5", user("hi"))) as batches:
        async for batch in batches:
            if not isinstance(batch[0], CallStarted):
                break
    await until(lambda: fake.aborted == 1)
    assert fake.seen()["open"] == 0


@both
async def test_connections_are_used_again(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    model = pool.open(upstream_of(fake, adapter))
    for _ in range(5):
        await call(model, ask("fake", user("hi")))
        await call(model, ask("fake?status=400", user("hi")))
        # What is of no use any more, and the end of the body, come in reads of their own.
        await call(model, ask("fake?late=1&write_bytes=40", user("hi")))
    assert fake.accepted == 1
    assert fake.aborted == 0


@both
async def test_nothing_is_read_while_the_consumer_does_not_ask(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter
) -> None:
    total = 40_000  # about 7 MB, far more than the buffers on the way hold
    model = pool.open(upstream_of(fake, adapter))
    async with model.call(ask(f"fake?deltas={total}", user("hi"))) as batches:
        await anext(batches)
        await anext(batches)
        await until_still(fake)
        assert fake.deltas < total / 2, "the upstream is held back by what is not read"
        seen = 0
        async for batch in batches:
            assert len(batch) < 5000, "one read is one batch, and reads are small"
            seen += len(batch)
    assert seen > total * 0.9


async def until_still(fake: FakeUpstream) -> None:
    """Wait until the fake has written nothing more for a while."""
    history = [-1, 0]

    def still() -> bool:
        history.append(fake.deltas)
        return len(history) > 40 and all(one == other for one, other in pairwise(history[-20:]))

    await until(still)


async def test_models_are_listed(fake: FakeUpstream, pool: ModelPool) -> None:
    for adapter in ("openai_chat", "openai_responses"):
        assert await pool.open(upstream_of(fake, adapter)).models() == ["fake", "fake-large"]


async def test_as_many_calls_as_slots_find_a_connection() -> None:
    connections = Connections()
    connector = connections.session().connector
    assert connector is not None
    assert connector.limit == 0
    await connections.aclose()

"""Parts die, stop and hang while clients listen: on the same connection nobody notices more than a pause."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import httpx
import psutil
import pytest

from eventstore.sql.owner_lock import read_owner
from tests.e2e.parts import HAPROXY, HOST, NATS, REPLICA, memory, named
from tests.e2e.upstream import PACED_DELTAS, Upstream, own
from tests.e2e.wire import check_whole, created, id_of, number_of, opened, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance, until
from tests.patience import PATIENCE_S

STREAMS = 5 if os.environ.get("RAYSPOND_ISOLATION") == "dedicated" else 20
"""At once; a Ray actor for each takes a second of a processor to start."""
TEXT = "".join(words(PACED_DELTAS))
LONG_WORD = "x" * 6000
FIREHOSE_DELTAS = 10_000


class Listener:
    """One client that listens on one connection to the end."""

    def __init__(self, http: httpx.AsyncClient, model: str) -> None:
        self.payloads: list[bytes] = []
        self.task = asyncio.create_task(self._listen(http, model))

    @property
    def deltas(self) -> int:
        """How many words have come."""
        return sum(b'"response.output_text.delta"' in payload for payload in self.payloads)

    async def _listen(self, http: httpx.AsyncClient, model: str) -> None:
        body = {"model": model, "input": "x", "stream": True}
        async with opened(http, "POST", "/v1/responses", json=body) as payloads:
            async for payload in payloads:
                self.payloads.append(payload)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for it while others go on."""
    await asyncio.to_thread(until, condition, what)


async def listening(http: httpx.AsyncClient, model: str, count: int, deltas: int) -> list[Listener]:
    """Clients whose answers are all under way; none is over."""
    listeners = [Listener(http, model) for _ in range(count)]
    await eventually(lambda: all(one.deltas >= deltas for one in listeners), "the middle of every answer")
    return listeners


async def finished(listeners: list[Listener]) -> list[str]:
    """The texts of all, each checked to be whole."""
    await asyncio.wait_for(asyncio.gather(*(one.task for one in listeners)), 2 * PATIENCE_S)
    for one in listeners:
        final = check_whole(one.payloads)
        assert final["status"] == "completed", final["error"]
    return [text_of(one.payloads) for one in listeners]


@pytest.fixture(autouse=True)
async def ready(instance: Instance) -> AsyncIterator[None]:
    """What one test breaks is whole again before the next one."""
    hosts = len(named(instance, HOST))
    replicas = len(named(instance, REPLICA))
    yield

    def whole() -> bool:
        try:
            answers = instance.get("/readyz")[0] == 200
        except OSError:
            return False
        counts = len(named(instance, HOST)), len(named(instance, REPLICA))
        return answers and counts[0] >= min(hosts, 2) and counts[1] >= replicas

    await eventually(whole, "a whole server")


# -- Hosts -------------------------------------------------------------------------------------------------


async def test_open_streams_survive_the_death_of_one_host_after_the_other(
    instance: Instance, http: httpx.AsyncClient
) -> None:
    """`kill -9`, the log's writer among them: no number and no word is missing or comes twice."""
    listeners = await listening(http, "repeats", STREAMS, 10)
    for host in named(instance, HOST):
        heard = [one.deltas for one in listeners]
        with suppress(psutil.NoSuchProcess):  # The host of a single response leaves with it.
            host.kill()
        await eventually(lambda heard=heard: _further(listeners, heard), "more of every answer")  # type: ignore[misc]  # A default binds the loop's value.
    assert await finished(listeners) == [TEXT] * STREAMS
    for one in listeners[:3]:
        assert await replayed(http, id_of(one.payloads[0])) == one.payloads


async def test_open_streams_survive_the_death_of_all_hosts_at_once(
    instance: Instance, http: httpx.AsyncClient
) -> None:
    listeners = await listening(http, "goes-on", STREAMS, 10)
    for host in named(instance, HOST):
        host.kill()
    assert await finished(listeners) == [TEXT] * STREAMS


async def test_open_streams_survive_that_all_hosts_are_halted_at_once(
    instance: Instance, http: httpx.AsyncClient
) -> None:
    """With the log's owner among them nobody could say whose lease ran out; they are ended and replaced."""
    listeners = await listening(http, "repeats", 8, 10)
    halted = named(instance, HOST)
    for host in halted:
        host.suspend()
    assert await finished(listeners) == [TEXT] * 8
    await eventually(lambda: not any(map(_lives, halted)), "the end of those that were halted")


async def test_an_answer_that_is_worded_anew_goes_on_in_the_same_item(
    instance: Instance, http: httpx.AsyncClient
) -> None:
    """Each call words differently: what was shown stays, and the next call's words follow it."""
    listeners = await listening(http, "rewords", 5, 10)
    for host in named(instance, HOST):
        host.kill()
    for text in await finished(listeners):
        calls = text.split(words(1)[0] + "-")
        assert calls[0] == ""
        salts = [f"-{call.split()[0]}" for call in calls[1:]]
        assert len(set(salts)) == len(salts) >= 2, "a second call was made"
        assert text.endswith("".join(words(PACED_DELTAS, salts[-1])))
        first = "".join(words(PACED_DELTAS, salts[0]))
        assert first.startswith(text[: text.index(words(1)[0] + salts[1])])


@pytest.mark.parametrize("writes", [True, False], ids=["writer", "other"])
async def test_a_host_that_hangs_is_replaced(
    instance: Instance, http: httpx.AsyncClient, writes: bool
) -> None:
    """SIGSTOP, unseen by Ray.  It is ended for it, also by whoever wants to write the log in its place."""
    listeners = await listening(http, "repeats", 8, 10)
    writer = read_owner(instance.data_dir)
    assert writer is not None
    stopped = next(host for host in named(instance, HOST) if (host.pid == writer.pid) == writes)
    stopped.suspend()
    try:
        texts = await finished(listeners)
    finally:
        with suppress(psutil.Error):  # It may have been ended for its silence.
            stopped.resume()
    assert texts == [TEXT] * 8
    for one in listeners:
        assert await replayed(http, id_of(one.payloads[0])) == one.payloads


# -- NATS --------------------------------------------------------------------------------------------------


async def test_streams_survive_the_death_of_nats(instance: Instance, http: httpx.AsyncClient) -> None:
    listeners = await listening(http, "repeats", STREAMS, 10)
    [server] = named(instance, NATS)
    server.kill()
    assert await finished(listeners) == [TEXT] * STREAMS
    await eventually(lambda: bool(named(instance, NATS)), "another NATS server")


async def test_streams_survive_a_nats_that_stands_still(instance: Instance, http: httpx.AsyncClient) -> None:
    listeners = await listening(http, "repeats", STREAMS, 10)
    [server] = named(instance, NATS)
    server.suspend()
    try:
        heard = [one.deltas for one in listeners]
        await eventually(lambda: _further(listeners, heard), "more of every answer meanwhile")
        new = await created(http, {"model": own("deltas=5"), "input": "x"})
        assert text_of(new) == "".join(words(5))
    finally:
        with suppress(psutil.NoSuchProcess):  # On a busy machine this took so long that it was ended.
            server.resume()
    assert await finished(listeners) == [TEXT] * STREAMS


# -- Replicas ----------------------------------------------------------------------------------------------


async def test_clients_of_a_dead_replica_resume_elsewhere(
    instance: Instance, http: httpx.AsyncClient, upstream: Upstream
) -> None:
    """Their connections are cut; what comes behind the last number they have completes their answers."""
    asked = upstream.seen()["count"]
    listeners = await listening(http, "repeats", 8, 10)
    max(named(instance, REPLICA), key=served).kill()
    done = await asyncio.gather(*(one.task for one in listeners), return_exceptions=True)
    cut = [one for one, end in zip(listeners, done, strict=True) if end is not None]
    assert cut, "no client was connected to it"
    assert all(isinstance(end, httpx.TransportError) for end in done if end is not None)

    async def resume(one: Listener) -> list[bytes]:
        last = number_of(one.payloads[-1])
        return one.payloads + await replayed(http, id_of(one.payloads[0]), last)

    for heard in await asyncio.gather(*map(resume, cut)):
        assert check_whole(heard)["status"] == "completed"
        assert text_of(heard) == TEXT
    assert upstream.seen()["count"] == asked + 8, "what runs is not asked again"


def served(process: psutil.Process) -> int:
    """Connections that others opened to it.  Few clients may all be with one replica (ADR 8)."""
    open_ = process.net_connections("tcp")
    listening_at = {one.laddr.port for one in open_ if one.status == psutil.CONN_LISTEN}
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port in listening_at for one in open_)


# -- Clients -----------------------------------------------------------------------------------------------


async def test_a_client_that_stops_reading_holds_up_nobody_and_fills_no_memory(
    instance: Instance, http: httpx.AsyncClient, upstream: Upstream
) -> None:
    """The upstream says sixty megabytes as fast as it can, and all of it is saved."""
    upstream.tell("firehose", f"text={(LONG_WORD + ' ') * FIREHOSE_DELTAS}end")
    serving = named(instance, REPLICA, HAPROXY)
    before = memory(serving)
    body = {"model": "firehose", "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        response_id = id_of(await anext(payloads))
        said = upstream.seen()["deltas"]
        await eventually(
            lambda: upstream.seen()["deltas"] - said > FIREHOSE_DELTAS * 0.9, "much that nobody reads"
        )
        assert text_of(await created(http, {"model": own(), "input": "x"})) == "".join(words(8))
        grown = memory(serving) - before
        assert grown < 32 * 1024 * 1024, f"{grown >> 20} MiB"
        # Who reads again gets the next numbers, from the log.
        numbers = [number_of(await anext(payloads)) for _ in range(2000)]
        assert numbers == list(range(1, 2001))
    # Sixty megabytes take a busy host long: a client is told to come again, and may.
    while (ended := await http.post(f"/v1/responses/{response_id}/cancel")).status_code == 503:
        assert int(ended.headers["retry-after"]) >= 1
        await asyncio.sleep(1)
    # Where a response of its own took a second to start, the upstream may have said all by now.
    assert ended.json()["status"] in ("cancelled", "completed")


async def test_a_client_that_leaves_ends_nothing_at_once(http: httpx.AsyncClient) -> None:
    """A lost connection can come back: the answer goes on meanwhile."""
    body = {"model": own("deltas=60&interval_ms=20"), "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        first = await anext(payloads)
    heard = [first, *await replayed(http, id_of(first), 0)]
    assert check_whole(heard)["status"] == "completed"
    assert text_of(heard) == "".join(words(60))
    shown = await http.get(f"/v1/responses/{id_of(first)}")
    assert shown.json() == json.loads(heard[-2])["response"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_wants_no_grace_ends_its_response_by_leaving(
    instance: Instance, http: httpx.AsyncClient, upstream: Upstream, stream: bool
) -> None:
    """Its model call is closed with it; another client's goes on."""
    kept = await listening(http, "repeats", 1, 5)
    model = own("deltas=1000&interval_ms=50")
    body = {"model": model, "input": "x", "stream": stream}
    aborted = upstream.seen()["aborted"]

    asked = http.post("/v1/responses", json=body, headers={"X-Rayspond-Grace": "0"})
    leaving = asyncio.create_task(asked)
    await eventually(lambda: upstream.count(model) == 1, "its model call")
    newest = (await http.get("/v1/responses", params={"limit": 1})).json()["data"][0]
    leaving.cancel()
    await asyncio.wait([leaving])

    def cancelled() -> bool:
        answer = json.loads(instance.get(f"/v1/responses/{newest['id']}")[1])
        return bool(answer["status"] == "cancelled")

    await eventually(cancelled, "its end")
    await eventually(lambda: upstream.seen()["aborted"] == aborted + 1, "the end of its model call")
    assert await finished(kept) == [TEXT]


def _further(listeners: list[Listener], heard: list[int]) -> bool:
    """Whether each has heard more than it had then, or all there is."""
    return all(one.deltas > before or one.task.done() for one, before in zip(listeners, heard, strict=True))


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False

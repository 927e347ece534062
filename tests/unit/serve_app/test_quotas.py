"""What a project may use, and what its clients hear when it is used up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventstore.errors import StoreUnavailable
from serve_app import quotas
from tests.patience import PATIENCE_S
from tests.unit.serve_app.keyed import AS_ADMIN, PROJECTS, Keyed, Tenant, keyed
from tests.unit.serve_app.served import Connection, until

HELLO = {"model": "simulated", "input": "Hello"}
SLOW = {"model": "simulated?stall_after=2", "input": "x"}


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Keyed]:
    monkeypatch.setattr(quotas, "HELD_S", 0)
    async with keyed() as one:
        yield one


async def bound(door: Keyed, **limits: int | None) -> None:
    path = f"{PROJECTS}/{door.ours.project}/quota"
    assert (await door.ask("POST", path, AS_ADMIN, limits))[0] == 200


async def create(door: Keyed, tenant: Tenant, body: dict[str, Any] = HELLO) -> Any:
    return await door.server.client.post("/v1/responses", headers=tenant.headers, json=body)


def check_refused(answer: Any, quota: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert error["param"] == quota
    assert int(answer.headers["retry-after"]) >= 1


async def test_requests_a_minute_are_bounded_for_one_project_only(door: Keyed) -> None:
    await bound(door, requests_per_minute=3)
    answers = [await create(door, door.ours) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["2", "1", "0", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert 40 < int(answers[3].headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    check_refused(answers[3], "requests_per_minute")
    cancelled = await door.ask("POST", f"/v1/responses/{answers[0].json()['id']}/cancel", door.ours.headers)
    assert cancelled[0] == 200, "ending asks for no work either"
    assert (await create(door, door.theirs)).status_code == 200
    assert (await door.ask("GET", "/v1/responses", door.ours.headers))[0] == 200, "reading asks for no work"
    await bound(door, requests_per_minute=None)
    answer = await create(door, door.ours)
    assert answer.status_code == 200
    assert "x-ratelimit-limit-requests" not in answer.headers


async def test_of_many_at_once_no_more_are_admitted_than_may(door: Keyed) -> None:
    await bound(door, requests_per_minute=20)
    answers = await asyncio.gather(*(create(door, door.ours) for _ in range(60)))
    assert sum(answer.status_code == 200 for answer in answers) == 20


async def test_a_flood_asks_the_supervisor_seldom(door: Keyed) -> None:
    asked = 0
    lend = door.server.cluster.supervisor.ledger.lend

    def counted(ask: Any) -> Any:
        nonlocal asked
        asked += 1
        return lend(ask)

    door.server.cluster.supervisor.ledger.lend = counted  # type: ignore[method-assign]  # to count
    await bound(door, requests_per_minute=1)
    answers = [await create(door, door.ours) for _ in range(100)]
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert asked < 20


async def test_refusals_are_held_back_but_not_many_at_once(
    door: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "HELD_S", 3600)
    monkeypatch.setattr(quotas, "HELD_MAX", 2)
    await bound(door, requests_per_minute=1)
    assert (await create(door, door.ours)).status_code == 200
    refused = [asyncio.create_task(create(door, door.ours)) for _ in range(3)]
    (told,), held = await asyncio.wait(refused, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    check_refused(told.result(), "requests_per_minute")
    assert (await create(door, door.theirs)).status_code == 200, "others wait for none of that"
    held.pop().cancel()
    await until(lambda: door.server.api._quotas._held == 1)
    next(iter(held)).cancel()


async def test_tokens_that_were_used_up_are_waited_for(door: Keyed) -> None:
    await bound(door, tokens_per_minute=100)
    first = await create(door, door.ours)
    assert first.headers["x-ratelimit-remaining-tokens"] == "100"
    door.server.cluster.supervisor.ledger.spend(door.ours.project, 200)
    await asyncio.sleep(0)
    share = door.server.api._quotas._shares[door.ours.project]
    share.good_until = 0.0
    refused = await create(door, door.ours)
    check_refused(refused, "tokens_per_minute")
    assert int(refused.headers["retry-after"]) > 50


async def test_no_more_run_at_once_than_may(door: Keyed) -> None:
    await bound(door, running_responses=2)
    background = {**SLOW, "background": True}
    made = await asyncio.gather(*(create(door, door.ours, background) for _ in range(6)))
    running = [answer.json()["id"] for answer in made if answer.status_code == 200]
    assert 1 <= len(running) <= 2
    while len(running) < 2:
        running.append((await create(door, door.ours, background)).json()["id"])
    refused = await create(door, door.ours)
    check_refused(refused, "running_responses")
    await door.ask("POST", f"/v1/responses/{running[0]}/cancel", door.ours.headers)
    assert (await create(door, door.ours)).status_code == 200


async def test_no_more_streams_are_open_than_may(door: Keyed) -> None:
    await bound(door, open_streams=2)

    def stream() -> Connection:
        body = b'{"model":"simulated?stall_after=2","input":"x","stream":true}'
        return Connection(door.server.api, "POST", "/v1/responses", body, door.ours.headers)

    open_ones = [stream(), stream()]
    for one in open_ones:
        await one.until(b"response.created")
    refused = await stream().done()
    assert refused.status == 429
    assert b'"param":"open_streams"' in refused.body
    made = await create(door, door.ours, {**HELLO, "background": True})
    again = Connection(
        door.server.api,
        "GET",
        f"/v1/responses/{made.json()['id']}",
        headers=door.ours.headers,
        query="stream=true",
    )
    assert (await again.done()).status == 429
    open_ones[0].leave()
    await open_ones[0].done()
    third = stream()
    await third.until(b"response.created")
    for one in (third, open_ones[1]):
        one.leave()
        await one.done()


async def test_streams_are_held_as_long_as_they_are_open(
    door: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "RENEW_S", 0.01)
    await bound(door, open_streams=1)
    body = b'{"model":"simulated?stall_after=2","input":"x","stream":true}'
    one = Connection(door.server.api, "POST", "/v1/responses", body, door.ours.headers)
    await one.until(b"response.created")
    account = door.server.cluster.supervisor.ledger._accounts[door.ours.project]
    account.streams.clear()  # The supervisor was restarted.
    await until(lambda: [count for count, _ in account.streams.values()] == [1])
    one.leave()
    await one.done()


async def test_who_stores_too_much_makes_room_first(door: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "STORED_S", 0.0)
    monkeypatch.setattr(quotas, "STORED_SHARE", 0)
    await bound(door, stored_bytes=1500)
    made = await create(door, door.ours, {"model": "simulated", "input": "x" * 2000})
    assert made.status_code == 200
    check_refused(await create(door, door.ours), "stored_bytes")
    await door.ask("DELETE", f"/v1/responses/{made.json()['id']}", door.ours.headers)
    assert (await create(door, door.ours)).status_code == 200


async def test_what_is_stored_is_remembered_while_it_cannot_be_counted(
    door: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "STORED_S", 0.0)
    monkeypatch.setattr(quotas, "STORED_SHARE", 0)
    reader = door.server.cluster.client.reader
    counted, away = reader.stored, True

    async def stored(tenant: str, **page: int) -> tuple[int, int | None]:
        if away:
            raise StoreUnavailable("it is away")
        return await counted(tenant, **page)

    monkeypatch.setattr(reader, "stored", stored)
    await bound(door, stored_bytes=1500)
    never_counted = await create(door, door.ours)
    assert (never_counted.status_code, never_counted.json()["error"]["code"]) == (503, "store_unavailable")
    away = False
    assert (await create(door, door.ours, {"model": "simulated", "input": "x" * 2000})).status_code == 200
    check_refused(await create(door, door.ours), "stored_bytes")
    away = True
    check_refused(await create(door, door.ours), "stored_bytes")
    await bound(door, stored_bytes=1_000_000)
    assert (await create(door, door.ours)).status_code == 200

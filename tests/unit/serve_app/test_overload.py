"""More is asked than can be done: an honest refusal for some, and for all others their whole answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import httpx

from tests.local_cluster import CONFIG
from tests.unit.serve_app.served import Served, served

SMALL = replace(CONFIG, hosts=1, slots=2, queue_limit=3)
PACED = "simulated?deltas=4&interval_ms=50"
CROWD = 40


async def asked(server: Served, number: int, **more: object) -> tuple[httpx.Response, float]:
    """One of the crowd: its answer, and the seconds it took."""
    began = time.monotonic()
    answer = await server.create(model=PACED, input=f"this is {number}", **more)
    return answer, time.monotonic() - began


async def test_who_is_taken_is_served_and_who_is_not_hears_when_to_come_again() -> None:
    async with served(config=SMALL) as server:
        answers = await asyncio.gather(*(asked(server, number) for number in range(CROWD)))
        taken = [(answer, seconds) for answer, seconds in answers if answer.status_code == 200]
        refused = [(answer, seconds) for answer, seconds in answers if answer.status_code != 200]
        assert len(taken) >= SMALL.slots
        assert len(refused) > CROWD / 2, "who asks together waits together, and only so many may"
        for answer, _ in taken:
            assert answer.json()["status"] == "completed"
        for answer, _ in refused:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "server_is_overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert min(seconds for _, seconds in refused) < max(seconds for _, seconds in taken)
        again = await server.create(input="again")
        assert again.json()["status"] == "completed"


async def test_a_stream_that_was_taken_is_whole_and_one_that_was_not_is_no_stream() -> None:
    async with served(config=SMALL) as server:
        answers = await asyncio.gather(*(asked(server, number, stream=True) for number in range(CROWD)))
        for answer, _ in answers:
            if answer.status_code == 200:
                assert b"response.completed" in answer.content
                assert answer.content.endswith(b"data: [DONE]\n\n")
            else:
                assert answer.json()["error"]["code"] == "server_is_overloaded"


async def test_the_background_takes_any_number_and_ends_all_of_them() -> None:
    async with served(config=SMALL) as server:
        answers = await asyncio.gather(*(asked(server, number, background=True) for number in range(12)))
        assert {answer.status_code for answer, _ in answers} == {200}
        for answer, _ in answers:
            assert (await server.ended(answer.json()["id"]))["status"] == "completed"

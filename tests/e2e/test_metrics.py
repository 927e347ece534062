"""What `GET /metrics` of a running server says: the same whoever answers, and every process in it."""

from __future__ import annotations

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.parts import HOST, REPLICA, named
from tests.e2e.upstream import own
from tests.launching import Instance
from tests.patience import PATIENCE_S

Sample = tuple[str, ...]


async def scraped(instance: Instance) -> dict[Sample, float]:
    """A scrape over a connection of its own, so that any replica may answer: name, process, other labels."""
    async with httpx.AsyncClient(base_url=instance.url, timeout=PATIENCE_S) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, sample.labels.pop("process"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: dict[Sample, float], name: str, *labels: str) -> float:
    """The sum over processes."""
    return sum(value for key, value in samples.items() if key[0] == name and key[2:] == labels)


async def test_all_processes_are_counted_whichever_replica_answers(
    instance: Instance, http: httpx.AsyncClient
) -> None:
    """No counter ever goes back, and none is missing, from one scrape to the next."""
    before = await scraped(instance)
    for _ in range(12):
        answer = await http.post("/v1/responses", json={"model": own("deltas=3"), "input": "x"})
        assert answer.json()["status"] == "completed"
    seen = before
    for _ in range(12):
        now = await scraped(instance)
        counters = [key for key in seen if key[0].endswith(("_total", "_count", "_bucket"))]
        assert all(now[key] >= seen[key] for key in counters)
        seen = now
    assert (
        total(seen, "rayspond_responses_total", "completed")
        - total(before, "rayspond_responses_total", "completed")
        == 12
    )
    processes = {key[1] for key in seen}
    assert sum(one.startswith("api-") for one in processes) == len(named(instance, REPLICA))
    assert sum(one.startswith("host-") for one in processes) <= len(named(instance, HOST))
    assert sum(one.startswith("supervisor-") for one in processes) in (1, 2)
    assert total(seen, "rayspond_relay_hindered") == 0
    assert total(seen, "rayspond_log_commit_seconds_count") > 0


async def test_open_streams_are_told_while_they_are_open(instance: Instance, http: httpx.AsyncClient) -> None:
    body = {"model": own("deltas=1000&interval_ms=50"), "input": "x", "stream": True}
    # Streams that other tests left standing are open until they are cut.
    before = total(await scraped(instance), "rayspond_streams_open")
    async with http.stream("POST", "/v1/responses", json=body) as stream:
        chunks = stream.aiter_bytes()
        await anext(chunks)
        await streams_open(instance, before + 1)
    await streams_open(instance, before)


async def streams_open(instance: Instance, count: float) -> None:
    """Wait until so many are; a replica tells of another one's some seconds later."""
    for _ in range(60):
        if total(await scraped(instance), "rayspond_streams_open") == count:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"there never were {count:g} open streams")

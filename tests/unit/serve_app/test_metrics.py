"""`GET /metrics`: a text that Prometheus reads, with the series of every process."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from eventstore.meter import Meter
from serve_app.launch import haproxy
from serve_app.metrics_route import render
from tests.unit.serve_app.served import served


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Every sample by its name, its process and the values of its other labels, by their names' order."""
    return {
        (sample.name, sample.labels.pop("process"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(answer.text)


def test_processes_are_told_apart_and_never_added_up() -> None:
    one, two = Meter(), Meter()
    for meter, count in ((one, 3), (two, 4)):
        meter.counter("errors", 'With "quotes"\nand lines.', "code").add(count, 'a"b\n')
        meter.read("open", "Open.", lambda: 1)
        meter.distribution("seconds", "Seconds.", bounds=(0.5, 1.0)).observe(0.7)
    text = render([("p1", one.figures()), ("p2", two.figures())]).decode()
    found = samples(text)
    assert found["rayspond_errors_total", "p1", 'a"b\n'] == 3
    assert found["rayspond_errors_total", "p2", 'a"b\n'] == 4
    assert found["rayspond_open", "p2"] == 1
    buckets = [found["rayspond_seconds_bucket", "p1", bound] for bound in ("0.5", "1.0", "+Inf")]
    assert buckets == [0, 1, 1]
    assert found["rayspond_seconds_sum", "p1"] == 0.7
    assert text.count("# TYPE rayspond_errors_total counter") == 1


async def test_what_happens_is_counted() -> None:
    async with served() as server:
        before = await scraped(server.client)
        await server.create(input="x")
        await server.create(input="x", model="no such model")
        after = await scraped(server.client)

        def grew(*series: str) -> float:
            return sum(
                value - before.get(key, 0)
                for key, value in after.items()
                if key[0] == series[0] and key[1].startswith("supervisor") and key[2:] == series[1:]
            )

        assert grew("rayspond_responses_total", "completed") == 1
        assert grew("rayspond_append_seconds_count") >= 2
        assert grew("rayspond_upstream_calls_total", "simulated") == 1
        assert grew("rayspond_http_answers_total", "404") == 1
        assert grew("rayspond_clients_cut_total") == 0


async def test_without_the_supervisor_a_replica_tells_its_own() -> None:
    async with served() as server:
        server.cluster.seen.silent = True
        found = await scraped(server.client)
        assert {key[1] for key in found} == {server.cluster.client.process}
        assert ("rayspond_http_answers_total", server.cluster.client.process, "200") in found


async def test_what_needs_seeing_to_is_a_warning_and_keeps_nobody_from_serving() -> None:
    async with served() as server:
        assert (await server.client.get("/readyz")).json() == {
            "status": "ready",
            "problems": [],
            "warnings": [],
        }
        server.cluster.seen.warned.append("the public subjects wait: no reason")
        answer = await server.client.get("/readyz")
        assert answer.status_code == 200
        assert answer.json()["warnings"] == ["the public subjects wait: no reason"]


def test_an_ingress_without_both_switches_is_warned_of() -> None:
    """With one of them alone a client that stops reading is kept in memory without bound."""
    both = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    assert haproxy.warnings(both) == []
    for name in both:
        (warning,) = haproxy.warnings({**both, name: "0"})
        assert f"set {name}=1 where this Ray is started" in warning

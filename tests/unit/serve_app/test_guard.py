"""Without keys, only this machine is served, and no page of others."""

from __future__ import annotations

import pytest

from serve_app.errors import ApiError
from serve_app.guard import Guard
from tests.unit.serve_app.served import Connection, Served


def check(client: str | None = "127.0.0.1", **headers: str) -> int:
    scope = {
        "type": "http",
        "client": (client, 1) if client else None,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    try:
        Guard(["127.0.0.5"]).check(scope)
    except ApiError as refused:
        return refused.problem.status
    return 200


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_served(client: str) -> None:
    assert check(client) == 200


@pytest.mark.parametrize("client", ["10.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "fe80::1", "8.8.8.8", "x"])
def test_other_machines_are_not(client: str) -> None:
    assert check(client, host="localhost") == 403


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8088", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8088", "127.0.0.5:8088"],
)
def test_a_host_that_names_this_machine_is_served(host: str) -> None:
    assert check(host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8088",
        "0.0.0.0",
        "[",
        "",
        "169.254.1.1",
    ],
)
def test_a_host_that_names_another_is_refused(host: str) -> None:
    """DNS rebinding: the browser of somebody here was told that evil.example is 127.0.0.1."""
    assert check(host=host) == 403


@pytest.mark.parametrize("origin", ["http://localhost:8088", "https://localhost:8088"])
def test_a_page_of_our_own_is_served(origin: str) -> None:
    assert check(host="localhost:8088", origin=origin) == 200


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://localhost:3000", "http://localhost", "file://", "http://[", ""],
)
def test_a_page_from_elsewhere_is_refused(origin: str) -> None:
    assert check(host="localhost:8088", origin=origin) == 403


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/models", "/healthz", "/docs", "/openapi.json", "/nope"]
)
async def test_every_path_is_guarded(server: Served, path: str) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        refused = await Connection(server.api, "GET", path, headers=headers).done()
        assert refused.status == 403
        assert b'"code":"forbidden"' in refused.body
    far = await Connection(server.api, "GET", path, client=("10.1.2.3", 5)).done()
    assert far.status == 403


async def test_a_key_is_accepted_and_ignored_while_none_are_configured(server: Served) -> None:
    answer = await server.client.get("/v1/models", headers={"authorization": "Bearer sk-whatever"})
    assert answer.status_code == 200

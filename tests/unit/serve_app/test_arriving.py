"""Bodies on their way: a process holds only so much of them, and whoever is done is served."""

from __future__ import annotations

import orjson
import pytest

from serve_app import json_body
from tests.unit.serve_app.served import Connection, Served, served, until

BODY = orjson.dumps({"model": "simulated", "input": "x" * 500})


def arriving(server: Served) -> Connection:
    """A request of which the first 400 bytes have come."""
    connection = Connection(server.api, "POST", "/v1/responses")
    connection.incoming.get_nowait()
    connection.incoming.put_nowait({"type": "http.request", "body": BODY[:400], "more_body": True})
    return connection


async def test_who_brings_more_than_there_is_room_for_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "ARRIVING_BYTES_MAX", 1000)
    async with served() as server:
        first = [arriving(server) for _ in range(2)]
        await until(lambda: json_body._Arriving.held == 800)
        refused = await arriving(server).done()
        assert refused.status == 503
        assert orjson.loads(refused.body)["error"]["code"] == "server_is_overloaded"
        assert refused.headers["retry-after"] == "1"
        assert json_body._Arriving.held == 800
        whole = await server.create(input="short")
        assert whole.json()["status"] == "completed", "what has come whole needs no room"
        for connection in first:
            connection.incoming.put_nowait({"type": "http.request", "body": BODY[400:], "more_body": False})
            assert orjson.loads((await connection.done()).body)["status"] == "completed"
        assert json_body._Arriving.held == 0


async def test_who_leaves_half_way_gives_back_the_room() -> None:
    async with served() as server:
        connection = arriving(server)
        await until(lambda: json_body._Arriving.held == 400)
        connection.leave()
        await connection.done()
        assert json_body._Arriving.held == 0

"""What a request held is free when it ends, not when Python next looks for garbage.

Until that look, which comes seldom (`actors.collector`), a cycle keeps all that its frames name: whole
requests.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import orjson
import pytest

from runtime.model import ItemClosed, ItemOpened, ModelError, ModelRequest, TextDelta
from tests.unit.actors.kit import ENDED, ScriptedModel, Step, always
from tests.unit.serve_app.served import Connection, Served, served

ROOT = Path(__file__).parents[3]
OURS = tuple(str(ROOT / name) for name in ("actors", "eventstore", "runtime", "serve_app"))


@contextmanager
def watched() -> Iterator[Callable[[], list[str]]]:
    """Nobody looks for garbage but the call that is given: it says where our code was that garbage holds."""

    def places() -> list[str]:
        gc.collect()
        codes = [one.f_code for one in gc.garbage if isinstance(one, FrameType)]
        return [code.co_qualname for code in codes if code.co_filename.startswith(OURS)]

    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield places
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def post(server: Served, *, stream: bool) -> Connection:
    body = {"model": "simulated", "input": "x", "stream": stream}
    return Connection(server.api, "POST", "/v1/responses", orjson.dumps(body))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ends", ["completed", "failed"])
async def test_a_response_leaves_none(ends: str, stream: bool) -> None:
    def said(request: ModelRequest, call: int) -> Iterator[Step]:
        # Not the same error each time: whoever had it would keep its frames from being garbage.
        yield [ItemOpened("message"), TextDelta("Well"), ItemClosed()]
        yield [ENDED] if ends == "completed" else ModelError("server_error", "It broke.", retryable=False)

    model = ScriptedModel(said)
    async with served(models={"simulated": model}) as server:
        with watched() as garbage:
            connection = await post(server, stream=stream).done()
            assert f'"status":"{ends}"' in connection.body.decode()
            del connection
            assert garbage() == []


async def test_who_left_holds_no_request() -> None:
    """Ray Serve's own cycle has the error of a request that was cancelled, and so what that leads to."""
    silent = ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event()))
    async with served(models={"simulated": silent}) as server:
        connection = post(server, stream=True)
        await connection.until(b"Well")
        connection.leave()
        connection.task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await connection.task
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(cancelled.tb)]
    assert names[1:] == ["Api.__call__", "Api._serve"]

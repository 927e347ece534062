"""How long an answer may say nothing: to its first byte, and between two; in virtual time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from runtime.catalog import Timeouts, Upstream
from runtime.model import ModelError
from runtime.models.http import Answer, Connections, Http
from tests.virtual_time import in_virtual_time


class Speech:
    """An answer, and the stream that its upstream speaks into."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._loop = asyncio.get_running_loop()
        connected = BaseProtocol(self._loop)
        connected.connection_made(asyncio.Transport())
        self.content = StreamReader(connected, 2**16, loop=self._loop)
        upstream = Upstream("slow", "openai_chat", "http://127.0.0.1:1/v1", timeouts=timeouts)
        response = cast("Any", SimpleNamespace(content=self.content, headers={}, close=lambda: None))
        self.answer = Answer(Http(upstream, Connections(), {}), response)

    def say(self, after: float) -> None:
        self._loop.call_later(after, self.content.feed_data, b"x")

    async def silent_for(self) -> float:
        """Seconds until a read of silence is given up."""
        began = self._loop.time()
        with pytest.raises(ModelError) as said:
            await self.answer.read()
        assert said.value.code == "upstream_timeout"
        return self._loop.time() - began


@in_virtual_time
async def test_one_that_goes_on_speaking_is_heard_for_as_long_as_it_does() -> None:
    speech = Speech(Timeouts(first_byte=10, idle=10))
    for _ in range(50):
        speech.say(after=9)
        assert await speech.answer.read() == b"x"
    assert await speech.silent_for() == pytest.approx(10)


@pytest.mark.parametrize(("first_byte", "idle"), [(120, 5), (5, 120), (5, 5)])
def test_the_first_byte_and_what_follows_have_times_of_their_own(first_byte: float, idle: float) -> None:
    @in_virtual_time
    async def before_any() -> None:
        assert await Speech(Timeouts(first_byte=first_byte, idle=idle)).silent_for() == pytest.approx(
            first_byte
        )

    @in_virtual_time
    async def after_one() -> None:
        speech = Speech(Timeouts(first_byte=first_byte, idle=idle))
        speech.say(after=1)
        assert await speech.answer.read() == b"x"
        assert await speech.silent_for() == pytest.approx(idle)

    before_any()
    after_one()


@in_virtual_time
async def test_who_reads_late_has_waited_for_nothing() -> None:
    speech = Speech(Timeouts(first_byte=10, idle=10))
    speech.say(after=1)
    await speech.answer.read()
    await asyncio.sleep(1000)
    speech.say(after=9)
    assert await speech.answer.read() == b"x"
    await speech.answer.leave()

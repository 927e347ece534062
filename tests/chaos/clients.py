"""Clients that ask again and again, come back when their connection breaks, and check all they hear."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random

import httpx

from tests.e2e.upstream import PACED_DELTAS
from tests.e2e.wire import DONE, check_whole, id_of, number_of, opened, replayed, text_of
from tests.fakes.script import words

REPEATS, GOES_ON = "repeats", "goes-on"
"""Models whose every word is its own: one answers alike each time, the other is told to go on."""
TEXT = "".join(words(PACED_DELTAS))
COMES_BACK_S = 240.0
"""For how long a client tries to hear the rest of an answer."""
PAUSE_S = 0.3
APART_S = 2.0
"""The longest that a client waits before it asks anew, so that not all answers begin and end together."""
REPLAYED_MAX = 200
"""Answers that are asked for once more at the end."""


@dataclass
class Heard:
    """One answer, over however many connections."""

    model: str
    payloads: list[bytes] = field(default_factory=list)
    """Until they are checked."""
    times: list[float] = field(default_factory=list)
    """When each came, by the monotonic clock."""
    response_id: str = ""
    digest: bytes = b""
    """Of all payloads, once they are checked."""

    def take(self, payload: bytes) -> None:
        """One more event."""
        self.payloads.append(payload)
        self.times.append(time.monotonic())

    @property
    def is_whole(self) -> bool:
        """Whether the end was heard."""
        return bool(self.payloads) and self.payloads[-1] == DONE

    def pause_over(self, moment: float) -> float | None:
        """Seconds from that moment to the next event, if the answer was under way then."""
        before = [at for at in self.times if at <= moment]
        after = [at for at in self.times if at > moment]
        return after[0] - moment if len(before) > 1 and after else None


class Clients:
    """Some clients of one server, whose address may change."""

    def __init__(self, url: str, count: int, models: Sequence[str] = (REPEATS, GOES_ON)) -> None:
        self.url = url
        self._models = models
        self.heard: list[Heard] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._asking = True
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(count)]

    async def stop(self) -> None:
        """Ask for nothing more, and wait until every answer is whole or given up."""
        self._asking = False
        await asyncio.gather(*self._tasks)

    async def compare(self) -> None:
        """Ask for the last whole answers once more: they must be the same bytes."""
        whole = [heard for heard in self.heard if heard.digest][-REPLAYED_MAX:]
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as http:
            for heard in whole:
                if _digest(await replayed(http, heard.response_id)) != heard.digest:
                    self.wrong.append(f"{heard.response_id}: a replay is not what was heard")
                self.counts["replayed"] += 1

    async def _ask(self, number: int) -> None:
        chance = Random(number)
        while self._asking:
            await asyncio.sleep(chance.uniform(0, APART_S))
            heard = Heard(self._models[number % len(self._models)])
            body = {"model": heard.model, "input": "x", "stream": True}
            try:
                await self._listen("POST", "/v1/responses", heard, body)
            except (httpx.HTTPError, AssertionError) as error:
                if not heard.payloads:
                    # Nothing was promised yet: it may be asked again.
                    self.counts["refused"] += 1
                    await asyncio.sleep(PAUSE_S)
                    continue
                self.counts["cut"] += isinstance(error, httpx.HTTPError)
            await self._come_back(heard)
            self._check(heard)

    async def _come_back(self, heard: Heard) -> None:
        deadline = time.monotonic() + COMES_BACK_S
        while not heard.is_whole and time.monotonic() < deadline:
            path = f"/v1/responses/{id_of(heard.payloads[0])}"
            params = {"stream": "true", "starting_after": str(number_of(heard.payloads[-1]))}
            try:
                await self._listen("GET", path, heard, params=params)
            except (httpx.HTTPError, AssertionError):
                await asyncio.sleep(PAUSE_S)

    async def _listen(
        self,
        method: str,
        path: str,
        heard: Heard,
        body: dict[str, object] | None = None,
        params: dict[str, str] | None = None,
    ) -> None:
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=60) as http,
            opened(http, method, path, json=body, params=params) as payloads,
        ):
            async for payload in payloads:
                heard.take(payload)

    def _check(self, heard: Heard) -> None:
        self.heard.append(heard)
        heard.response_id = id_of(heard.payloads[0])
        try:
            assert heard.is_whole, "its end was never heard"
            final = check_whole(heard.payloads, strictly=False)
            assert final["status"] == "completed", f"it is {final['status']}: {final['error']}"
            assert text_of(heard.payloads) == TEXT, "its words are not the upstream's"
        except AssertionError as error:
            self.wrong.append(f"{heard.response_id}: {error}")
        else:
            self.counts["whole"] += 1
            heard.digest = _digest(heard.payloads)
        heard.payloads = []


def _digest(payloads: Sequence[bytes]) -> bytes:
    return sha256(b"\n".join(payloads)).digest()

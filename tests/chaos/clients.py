"""Clients that ask again and again, come back when their connection breaks, and check all they hear."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any
from uuid import uuid4

import httpx

from tests.e2e.upstream import PACED_DELTAS
from tests.e2e.wire import DONE, check_whole, id_of, number_of, opened, output_text, replayed, text_of
from tests.fakes.script import words
from tests.patience import PATIENCE_S

REPEATS, GOES_ON = "repeats", "goes-on"
"""Models whose every word is its own: one answers alike each time, the other is told to go on."""
LISTENS, HOPS, WAITS, POLLS, CANCELS = KINDS = ("listens", "hops", "waits", "polls", "cancels")
"""Who listens to the end, leaves and comes back, wants one JSON, asks in the background, and cancels."""
TEXT = "".join(words(PACED_DELTAS))
COMES_BACK_S = 240.0
"""For how long a client tries to hear the rest of an answer."""
PAUSE_S = 0.3
APART_S = 2.0
"""The longest that a client waits before it asks anew, so that not all answers begin and end together."""
REPLAYED_MAX = 200
"""Answers that are asked for once more at the end."""
LATER = (409, 502, 503, 504, 507)
"""Answers that mean: ask again."""


@dataclass
class Heard:
    """One answer, over however many connections."""

    model: str
    kind: str
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

    def __init__(self, url: str, count: int, models: Sequence[str], kinds: Sequence[str]) -> None:
        self.url = url
        self._models = models
        self.heard: list[Heard] = []
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._asking = True
        self._ways: dict[str, Callable[[Heard, Random], Awaitable[None]]] = {
            LISTENS: self._listens,
            HOPS: self._hops,
            WAITS: self._waits,
            POLLS: self._polls,
            CANCELS: self._cancels,
        }
        each = [(kind, model) for model in models for kind in kinds]
        self._tasks = [
            asyncio.create_task(self._ask(number, *each[number % len(each)])) for number in range(count)
        ]

    async def stop(self) -> None:
        """Ask for nothing more, and wait until every answer is whole or given up."""
        self._asking = False
        await asyncio.gather(*self._tasks)

    async def compare(self) -> None:
        """Ask for the last whole answers once more: they must be the same bytes."""
        whole = [heard for heard in self.heard if heard.digest][-REPLAYED_MAX:]
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as http:
            for heard in whole:
                if _digest(await replayed(http, heard.response_id)) != heard.digest:
                    self.wrong.append(f"{heard.response_id}: a replay is not what was heard")
                self.counts["replayed"] += 1

    async def _ask(self, number: int, kind: str, model: str) -> None:
        chance = Random(number)
        while self._asking:
            await asyncio.sleep(chance.uniform(0, APART_S))
            heard = Heard(model, kind)
            try:
                await self._ways[kind](heard, chance)
                if not heard.payloads:
                    # Nothing was promised yet: it may be asked again.
                    self.counts["refused"] += 1
                    continue
                self._check(heard)
            except AssertionError as error:
                self.wrong.append(f"{kind} {heard.response_id}: {error}")
            heard.payloads = []

    # -- What each kind does -------------------------------------------------------------------------------

    async def _listens(self, heard: Heard, chance: Random) -> None:
        body = {"model": heard.model, "input": "x", "stream": True}
        if not await self._hear("POST", "/v1/responses", heard, json=body) and heard.payloads:
            self.counts["cut"] += 1
        await self._come_back(heard)

    async def _hops(self, heard: Heard, chance: Random) -> None:
        body = {"model": heard.model, "input": "x", "stream": True}
        await self._hear("POST", "/v1/responses", heard, most=chance.randint(1, 40), json=body)
        await self._come_back(heard, lambda: chance.randint(1, 40))

    async def _waits(self, heard: Heard, chance: Random) -> None:
        answer = await self._made({"model": heard.model, "input": "x"})
        assert output_text(answer) == TEXT, "its words are not the upstream's"
        await self._replay(heard, answer["id"])

    async def _polls(self, heard: Heard, chance: Random) -> None:
        answer = await self._made({"model": heard.model, "input": "x", "background": True})
        deadline = time.monotonic() + COMES_BACK_S
        while answer["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline, f"{answer['id']} never ends"
            await asyncio.sleep(PAUSE_S)
            answer = await self._answered("GET", f"/v1/responses/{answer['id']}")
        await self._replay(heard, answer["id"])

    async def _cancels(self, heard: Heard, chance: Random) -> None:
        body = {"model": heard.model, "input": "x", "stream": True, "background": True}
        most = chance.randint(2, PACED_DELTAS + 10)
        await self._hear("POST", "/v1/responses", heard, most=most, json=body)
        if heard.payloads:
            answer = await self._answered("POST", f"/v1/responses/{id_of(heard.payloads[0])}/cancel")
            await self._come_back(heard)
            final = check_whole(heard.payloads, strictly=False)
            assert final["status"] == answer["status"], "the cancel told of another end than was shown"

    # -- How -----------------------------------------------------------------------------------------------

    async def _made(self, body: dict[str, Any]) -> dict[str, Any]:
        """The response, asked for again and again with one key."""
        return await self._answered(
            "POST", "/v1/responses", json=body, headers={"idempotency-key": uuid4().hex}
        )

    async def _answered(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON of the first answer, however often it has to be asked for."""
        deadline = time.monotonic() + COMES_BACK_S
        while True:
            try:
                async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as http:
                    answer = await http.request(method, path, **options)
            except httpx.HTTPError:
                self.counts["cut"] += 1
            else:
                if answer.status_code == 200:
                    content: dict[str, Any] = answer.json()
                    return content
                assert answer.status_code in LATER, f"{method} {path}: {answer.status_code} {answer.text}"
            assert time.monotonic() < deadline, f"{method} {path} is never answered"
            await asyncio.sleep(PAUSE_S)

    async def _replay(self, heard: Heard, response_id: str) -> None:
        """Hear all of it from the log."""
        heard.response_id = response_id
        deadline = time.monotonic() + COMES_BACK_S
        while not heard.is_whole and time.monotonic() < deadline:
            heard.payloads = []
            await self._hear("GET", f"/v1/responses/{response_id}", heard, params={"stream": "true"})

    async def _come_back(self, heard: Heard, most: Callable[[], int | None] = lambda: None) -> None:
        """Hear the rest of what was heard."""
        deadline = time.monotonic() + COMES_BACK_S
        while heard.payloads and not heard.is_whole and time.monotonic() < deadline:
            path = f"/v1/responses/{id_of(heard.payloads[0])}"
            params = {"stream": "true", "starting_after": str(number_of(heard.payloads[-1]))}
            await self._hear("GET", path, heard, most=most(), params=params)

    async def _hear(
        self, method: str, path: str, heard: Heard, *, most: int | None = None, **options: Any
    ) -> bool:
        """Whether the connection held until its end, or until so many events had come."""
        try:
            async with (
                httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as http,
                opened(http, method, path, **options) as payloads,
            ):
                left = most
                async for payload in payloads:
                    heard.take(payload)
                    left = None if left is None else left - 1
                    if left == 0:
                        break
        except (httpx.HTTPError, AssertionError):
            await asyncio.sleep(PAUSE_S)
            return False
        return True

    def _check(self, heard: Heard) -> None:
        self.heard.append(heard)
        heard.response_id = id_of(heard.payloads[0])
        assert heard.is_whole, "its end was never heard"
        final = check_whole(heard.payloads, strictly=False)
        text = text_of(heard.payloads)
        if heard.kind == CANCELS and final["status"] == "cancelled":
            assert TEXT.startswith(text), "its words are not the upstream's"
            self.counts["cancelled"] += 1
        else:
            assert final["status"] == "completed", f"it is {final['status']}: {final['error']}"
            assert text == TEXT, "its words are not the upstream's"
            self.counts["whole"] += 1
        heard.digest = _digest(heard.payloads)


def _digest(payloads: Sequence[bytes]) -> bytes:
    return sha256(b"\n".join(payloads)).digest()

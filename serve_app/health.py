"""Whether it lives, and whether it can serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from eventstore.errors import EventStoreError
from serve_app.call import Call
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime

PATIENCE: Final = 1.0
"""Seconds each part may take to say that it is ready."""


class Health:
    """`/healthz` and `/readyz`."""

    def __init__(self, runtime: Runtime, warnings: Sequence[str] = ()) -> None:
        """`warnings` are what holds for as long as the process lives."""
        self._runtime = runtime
        self._standing = warnings

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        return (
            Endpoint("GET", "/healthz", self.healthz, "Whether this process answers", "anybody"),
            Endpoint("GET", "/readyz", self.readyz, "Whether responses can be created", "anybody"),
        )

    async def healthz(self, call: Call) -> None:
        """It answers, so it lives."""
        await call.answer_json({"status": "ok"})

    async def readyz(self, call: Call) -> None:
        """200, or 503 with what is wrong in words; warnings change nothing about serving."""
        runtime, log, warnings = await asyncio.gather(
            self._asked(self._runtime.ready),
            self._log_problems(tell_all=call.principal.admin),
            self._asked(self._runtime.warnings),
        )
        problems = [*runtime, *log]
        # They are about the whole server, and serving goes on.
        told = [*self._standing, *warnings] if call.principal.admin else []
        body = {
            "status": "unready" if problems else "ready",
            "problems": problems,
            "warnings": [warning for warning in told if warning not in problems],
        }
        await call.answer_json(body, 503 if problems else 200)

    async def _asked(self, what: Callable[[], Awaitable[list[str]]]) -> list[str]:
        try:
            async with asyncio.timeout(PATIENCE):
                return await what()
        except TimeoutError:
            return ["the runtime does not answer"]

    async def _log_problems(self, *, tell_all: bool) -> list[str]:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._runtime.reader.incarnation()
        except TimeoutError:
            return ["the log does not answer"]
        except EventStoreError as error:
            # A database's words may name its server and its user.
            return [str(error) if tell_all else "the log cannot be reached"]
        return []

"""Whether it lives, and whether it can serve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from eventstore.errors import EventStoreError
from serve_app.call import Call
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime

PATIENCE: Final = 1.0
"""Seconds each part may take to say that it is ready."""


class Health:
    """`/healthz` and `/readyz`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

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
        """200, or 503 with what is wrong in words."""
        problems = await self._problems()
        status = "unready" if problems else "ready"
        await call.answer_json({"status": status, "problems": problems}, 503 if problems else 200)

    async def _problems(self) -> list[str]:
        runtime, log = await asyncio.gather(self._runtime_problems(), self._log_problems())
        return [*runtime, *log]

    async def _runtime_problems(self) -> list[str]:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._runtime.ready()
        except TimeoutError:
            return ["the runtime does not answer"]

    async def _log_problems(self) -> list[str]:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._runtime.reader.incarnation()
        except TimeoutError:
            return ["the log does not answer"]
        except EventStoreError as error:
            return [str(error)]
        return []

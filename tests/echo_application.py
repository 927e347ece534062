"""The smallest Serve application that the launcher can start: it answers /readyz and echoes.

Annotations are evaluated here, not kept as text: Serve's class views cannot resolve them later.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ray import serve

from serve_app.settings import Settings

api = FastAPI()


async def _forever() -> AsyncIterator[bytes]:
    while True:
        yield b"."
        await asyncio.sleep(0.1)


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(api)
class Echo:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @api.get("/readyz")
    async def ready(self) -> dict[str, str]:
        return {"status": "ready"}

    @api.post("/v1/responses")
    async def echo(self, request: Request) -> Any:
        return {"echo": await request.json(), "isolation": self._settings.isolation}

    @api.get("/stream")
    async def stream(self) -> StreamingResponse:
        """Never ends by itself."""
        return StreamingResponse(_forever())


def build(settings: Settings) -> serve.Application:
    deployment: Any = Echo
    application: serve.Application = deployment.options(
        num_replicas=settings.replicas, version="1", _internal=True
    ).bind(settings)
    return application


def build_broken(settings: Settings) -> serve.Application:
    raise RuntimeError(f"this application never starts on port {settings.port}")

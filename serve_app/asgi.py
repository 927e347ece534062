"""The ASGI application: guard, routes, and the one place where exceptions become answers.

Plain ASGI on purpose: a request costs a dictionary look-up here, where a framework's routing, validation and
middleware cost more than all the rest that is done for a short answer (docs/api.md, costs).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from starlette.types import Receive, Scope, Send

from runtime.catalog import Catalog
from runtime.models.open import ModelPool
from runtime.sealing import Seal
from serve_app import openapi
from serve_app.auth import Auth
from serve_app.call import Call, ClientLeft
from serve_app.context_routes import ContextRoutes
from serve_app.conversation_routes import ConversationRoutes
from serve_app.errors import UNEXPECTED, ApiError, problem_of
from serve_app.guard import Guard
from serve_app.health import Health
from serve_app.hosts_route import HostRoutes
from serve_app.idempotency import IdempotencyKeys
from serve_app.keys import KeyHashes
from serve_app.limits import Limits
from serve_app.metrics_route import MetricsRoute
from serve_app.models_route import ModelRoutes
from serve_app.open_calls import OpenCalls
from serve_app.presence import Presence
from serve_app.project_routes import ProjectRoutes
from serve_app.projects import Projects
from serve_app.quotas import Quotas
from serve_app.router import Endpoint, Router
from serve_app.routes import ResponseRoutes
from serve_app.runtime_port import Runtime

log = logging.getLogger(__name__)

SERVER_ERRORS: Final = 500
"""Statuses from here on are no client's fault: the log tells more."""


class Api:
    """The Responses API over a runtime."""

    def __init__(
        self,
        runtime: Runtime,
        catalog: Catalog,
        *,
        secret: str,
        admin_key: str | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        names: tuple[str, ...] = (),
        names_requests: bool = True,
        code: str = "",
        env: Mapping[str, str] = MappingProxyType({}),
        warnings: Sequence[str] = (),
        now: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`secret` keys the hashes of API keys, seals what clients keep for us, and must be the same in every
        replica; with an `admin_key` nobody is served without credentials.

        `names` are further host names of this machine; `code` is the version of Rayspond; `env` holds the
        upstreams' keys; `warnings` are told to operators by `/readyz`.

        `names_requests` is off behind servers that put `x-request-id` on requests and answers themselves.
        """
        self.open = OpenCalls(limits.stall)
        """What is answered now."""
        hashes = KeyHashes(secret)
        projects = Projects(runtime.reader)
        self._auth = Auth(projects, hashes, Guard(names), admin_key, now)
        self._names_requests = names_requests
        self._random_bytes = random_bytes
        self._models = ModelRoutes(catalog)
        seal = Seal(secret)
        keys = IdempotencyKeys(runtime.reader, limits.idempotency, secret)
        self._quotas = Quotas(runtime, projects, f"api-{random_bytes(6).hex()}")
        self._presence = Presence(runtime, limits.grace, random_bytes)
        self._responses = ResponseRoutes(
            runtime,
            self._quotas,
            self._presence,
            catalog,
            limits,
            keys,
            seal,
            now,
            random_bytes,
            code=code,
        )
        self._pool = ModelPool(env)
        self._context = ContextRoutes(
            runtime,
            self._quotas,
            self._presence,
            catalog,
            self._pool,
            seal,
            limits,
            now,
            random_bytes,
            code=code,
        )
        conversations = ConversationRoutes(runtime, limits, keys, seal, now, random_bytes)
        endpoints = [
            *self._responses.endpoints(),
            *conversations.endpoints(),
            *self._context.endpoints(),
            *self._models.endpoints(),
            *Health(runtime, warnings).endpoints(),
            *HostRoutes(runtime).endpoints(),
            *MetricsRoute(runtime).endpoints(),
            *ProjectRoutes(runtime, projects, hashes, now, random_bytes).endpoints(),
        ]
        self.router = Router([*endpoints, *openapi.endpoints(endpoints)])

    def use(self, catalog: Catalog) -> None:
        """Take another catalog for requests from now on."""
        self._models.catalog = self._context.catalog = catalog
        self._responses.use(catalog)

    async def aclose(self) -> None:
        """Let go of the clients, of the upstreams, and of what was lent."""
        await self._presence.aclose()
        await self._quotas.aclose()
        await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, as ASGI has it."""
        if scope["type"] == "http":
            call = Call(scope, receive, send)
            with self.open.answering(call):
                await self._serve(call)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await receive()
            reason = "WebSocket mode is not served yet"
            await send({"type": "websocket.close", "code": 1008, "reason": reason})

    async def _serve(self, call: Call) -> None:
        scope = call.scope
        request_id = call.header(b"x-request-id")
        if self._names_requests:
            if request_id is None or not 0 < len(request_id) <= 128 or not request_id.isprintable():
                request_id = f"req_{self._random_bytes(16).hex()}"
            call.headers = ((b"x-request-id", request_id.encode("latin-1")),)
        call.request_id = request_id
        try:
            endpoint, call.params = self._route(scope)
            call.principal = await self._auth.admit(scope, endpoint.access)
            if endpoint.counts:
                await self._quotas.admit(call)
            await endpoint.handler(call)
        except ClientLeft:
            log.debug("request %s: the client left", request_id)
        except asyncio.CancelledError as error:
            # Ray Serve's task holds it in a cycle, and by its frames the whole request would stay with it.
            raise error.with_traceback(None)  # noqa: B904 (it is the same error)
        except Exception as error:  # Whatever it is, the client gets an answer.
            if call.begun:
                # Its events end without a terminal one: that is how a client learns that they were cut.
                log.exception("request %s was cut", request_id)
                return
            problem = problem_of(error)
            if problem is None:
                log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
                problem = UNEXPECTED
            elif problem.status >= SERVER_ERRORS:
                log.warning("request %s was answered %d: %s", request_id, problem.status, error)
            await call.answer_problem(problem)

    def _route(self, scope: Scope) -> tuple[Endpoint, Mapping[str, str]]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        try:
            return self.router.find(scope["method"], path)
        except ApiError:
            self._auth.guard(scope)  # Strangers are not even told what is not there.
            raise


async def _live(receive: Receive, send: Send) -> None:
    """Nothing is started or stopped here: whoever built the parts closes them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

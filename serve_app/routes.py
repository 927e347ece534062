"""The endpoints under `/v1/responses`: parse, command, follow.  No rules here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final, Literal

from actors.orders import PlacementError
from eventstore.errors import ClaimTaken, StoreUnavailable
from eventstore.follow import follow
from runtime.aggregate import Refused
from runtime.catalog import Catalog
from runtime.response.commands import Create, Idempotency
from runtime.response.errors import ResponseError
from runtime.response.items import new_response_id
from runtime.response.replay import ResponseReplay
from runtime.sealing import Seal
from serve_app.call import Call, Departure
from serve_app.errors import UNAVAILABLE, ApiError, Problem, bad_request
from serve_app.idempotency import REPLAYED, IdempotencyKeys, erased
from serve_app.json_body import parse_object, read_body
from serve_app.limits import Limits
from serve_app.paging import item_page, page_of
from serve_app.presence import Presence
from serve_app.quotas import Quotas
from serve_app.request_body import Asked, read_create
from serve_app.response_list import response_page
from serve_app.response_reader import SHOWN, ResponseReader
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime
from serve_app.sse import Batches, last_frame, send_events, snapshot_of, without_obfuscation

log = logging.getLogger(__name__)

DIALECTS: Final[dict[str, Literal["openai", "open_responses"]]] = {
    "openai": "openai",
    "open-responses": "open_responses",
}


class ResponseRoutes:
    """Handlers; each answers its call once or raises."""

    def __init__(
        self,
        runtime: Runtime,
        quotas: Quotas,
        presence: Presence,
        catalog: Catalog,
        limits: Limits,
        keys: IdempotencyKeys,
        seal: Seal,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        *,
        code: str,
    ) -> None:
        self.use(catalog)
        self._runtime = runtime
        self._quotas = quotas
        self._reader = runtime.reader
        self._bus = runtime.bus
        self._limits = limits
        self._follow = partial(follow, silence=limits.silence, patience=limits.patience)
        self._seal = seal
        self._presence = presence
        self._now = now
        self._random_bytes = random_bytes
        self._code = code
        self._keys = keys

    def use(self, catalog: Catalog) -> None:
        """Take the models of another catalog from now on."""
        self._catalog = catalog
        # Writing a configuration out costs as much as all the rest of a short request, and few are asked for.
        self._recorded = lru_cache(maxsize=256)(lambda model: catalog.resolve(model).public())

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        one = "/v1/responses/{response_id}"
        return (
            Endpoint("POST", "/v1/responses", self.create, "Create a response"),
            Endpoint("GET", "/v1/responses", self.index, "List responses, the newest first"),
            Endpoint("GET", one, self.show, "Show a response, or stream its events again"),
            Endpoint("DELETE", one, self.delete, "Erase a response; cancels it first where it runs"),
            Endpoint("POST", one + "/cancel", self.cancel, "End a response", ends_work=True),
            Endpoint("GET", one + "/input_items", self.input_items, "List what a response was asked"),
        )

    # -- Creating ------------------------------------------------------------------------------------------

    async def create(self, call: Call) -> None:
        """Make a response and show it: whole when it is over, as events, or, in the background, at once."""
        body = await read_body(call, self._limits.body, self._limits.body_seconds)
        fields = parse_object(body)
        once = self._keys.asked(call, fields, self._now())
        if once is not None and await self._repeat(call, once, fields):
            return
        unseal = partial(self._seal.open, call.principal.project)
        asked = read_create(fields, self._catalog, self._limits, len(body), unseal)
        command = replace(self._command(call, asked), idempotency=once)
        grace = self._presence.grace_of(call)
        background = command.request.background
        try:
            async with self._presence.creator(call, command.id, grace, background=background) as departure:
                await self._create(call, asked, command, departure)
        except (ClaimTaken, Refused, ResponseError, PlacementError):
            # Whatever it was refused for: somebody with the same key may have been faster.
            if once is None or call.begun or not await self._repeat(call, once, fields):
                raise

    async def _create(self, call: Call, asked: Asked, command: Create, departure: Departure) -> None:
        if asked.request.background and not asked.stream:
            async with self._quotas.starting(command.project):
                await self._runtime.create(command)
            await call.answer(await self._responses(call).first_body(command.id))
            return
        # Subscribed before anything is asked for: the first frames are heard, and the log need not be read.
        hearing = self._bus.subscribe(command.id, ahead=True)
        async with self._streaming(call, asked.stream), hearing as live:
            async with self._quotas.starting(command.project):
                await self._runtime.create(command)
            replay = ResponseReplay(self._reader, command.id)
            call.relieve = replay.relieve
            newest = partial(self._runtime.glances.version, command.id)
            async with aclosing(self._follow(replay, live, fresh=True, newest=newest)) as batches:
                if asked.stream:
                    await send_events(call, batches, departure, self._limits.keep_alive)
                else:
                    await self._send_end(call, batches, departure, command.id)

    async def _repeat(self, call: Call, once: Idempotency, fields: Mapping[str, Any]) -> bool:
        """Answer as the first request with this key was answered; whether there was one."""
        earlier = await self._keys.earlier(call.principal.project, once)
        if earlier is None:
            return False
        response_id, background = earlier
        if fields.get("stream"):
            call.headers = (*call.headers, REPLAYED)
            await self._send_from(call, response_id, -1)
            return True
        responses = self._responses(call)
        read = responses.first_body if background else responses.body
        try:
            body = await read(response_id)
        except ApiError:
            raise erased() from None
        await call.answer(body, 200, REPLAYED)
        return True

    def _command(self, call: Call, asked: Asked) -> Create:
        dialect = call.header(b"x-rayspond-dialect")
        if dialect is not None and dialect.lower() not in DIALECTS:
            message = f"X-Rayspond-Dialect must be {' or '.join(DIALECTS)}."
            raise bad_request(message, "X-Rayspond-Dialect", "invalid_value")
        if asked.left_out:
            call.warn(f"not served here, left out: {', '.join(asked.left_out)}")
        return Create(
            id=new_response_id(self._random_bytes(16)),
            project=call.principal.project,
            key_id=call.principal.key_id,
            at=int(self._now()),
            request=asked.request,
            agent=self._recorded(asked.request.model),
            queued=asked.request.background,
            dialect=DIALECTS[dialect.lower()] if dialect is not None else "openai",
            obfuscation=self._random_bytes(16).hex() if asked.obfuscated else None,
            code=self._code,
        )

    async def _send_end(self, call: Call, batches: Batches, departure: Departure, response_id: str) -> None:
        try:
            frame = await last_frame(batches, departure)
        except StoreUnavailable:
            raise _goes_on(response_id) from None
        await call.answer(snapshot_of(frame) if frame else await self._responses(call).body(response_id))

    # -- Reading -------------------------------------------------------------------------------------------

    async def show(self, call: Call) -> None:
        """A response as it stands, or its events after a number."""
        after = call.number("starting_after", -1, 0)
        stream = call.flag("stream")
        # What was recorded without it has none; the other way round it is taken out.
        plain = not call.flag("include_obfuscation", default=True)
        response_id = (await self._responses(call).find(call.params["response_id"])).stream
        if not stream:
            await call.answer(await self._responses(call).body(response_id))
            return
        await self._send_from(call, response_id, after, plain=plain)

    async def _send_from(self, call: Call, response_id: str, after: int, *, plain: bool = False) -> None:
        async with (
            self._streaming(call),
            self._presence.follower(call, response_id) as departure,
            self._bus.subscribe(response_id) as live,
        ):
            replay = ResponseReplay(self._reader, response_id)
            call.relieve = replay.relieve
            newest = partial(self._runtime.glances.version, response_id)
            async with aclosing(self._follow(replay, live, after, newest=newest)) as batches:
                shown = without_obfuscation(batches) if plain else batches
                await send_events(call, shown, departure, self._limits.keep_alive)

    async def index(self, call: Call) -> None:
        """A page of responses."""
        limit, newest_first = page_of(call)
        status = call.choice("status", "", *SHOWN)
        after = call.query("after")
        responses = self._responses(call)
        behind = await responses.place(after) if after is not None else None
        page = await response_page(
            responses,
            status=status,
            model=call.query("model"),
            after=behind,
            newest_first=newest_first,
            limit=limit,
        )
        await call.answer(page)

    async def input_items(self, call: Call) -> None:
        """A page of a response's input."""
        responses = self._responses(call)
        items = await responses.input_items((await responses.find(call.params["response_id"])).stream)
        await call.answer_json(item_page(call, items))

    def _streaming(self, call: Call, stream: bool = True) -> AbstractAsyncContextManager[None]:
        return self._quotas.streaming(call.principal.project) if stream else nullcontext()

    def _responses(self, call: Call) -> ResponseReader:
        return ResponseReader(self._reader, call.principal.project)

    # -- Ending --------------------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> None:
        """End a response; one that is over stays as it is."""
        response_id = (await self._responses(call).find(call.params["response_id"])).stream
        await self._runtime.cancel(response_id, call.principal.by)
        await call.answer(await self._responses(call).body(response_id))

    async def delete(self, call: Call) -> None:
        """Erase a response."""
        response_id = (await self._responses(call).find(call.params["response_id"])).stream
        await self._runtime.delete(response_id, call.principal.by)
        await call.answer_json({"id": response_id, "object": "response.deleted", "deleted": True})


def _goes_on(response_id: str) -> ApiError:
    """The log went away while a client waited.  Asking anew would make a second response."""
    message = f"The log cannot be reached now. The response {response_id} goes on: get it later by its id."
    return ApiError(
        Problem(503, message, UNAVAILABLE, "store_unavailable", headers={"x-should-retry": "false"})
    )

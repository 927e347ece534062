"""`/v1/responses/input_tokens` and `/v1/responses/compact`: how long a context is, and a shorter one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson

from actors.attachment import Attachment
from actors.context import Context
from eventstore.follow import follow
from runtime.catalog import Catalog
from runtime.client_tools import ClientTools, with_additional
from runtime.compaction import SUMMARIZE, TRIGGER, question, tokens_of
from runtime.model import JSON, ModelRequest
from runtime.models.open import ModelPool
from runtime.response import history
from runtime.response.commands import Create
from runtime.response.items import new_response_id, with_id
from runtime.response.replay import ResponseReplay
from runtime.response.request import ResponseRequest
from runtime.sealing import Seal
from serve_app.call import Call
from serve_app.context_body import COMPACTED, COUNTED
from serve_app.errors import INVALID, SERVER, ApiError, Problem
from serve_app.json_body import parse_object, read_body
from serve_app.limits import Limits
from serve_app.presence import Presence
from serve_app.quotas import Quotas
from serve_app.request_body import read_create
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime
from serve_app.sse import last_frame, snapshot_of

COUNTED_BY_NOBODY: Final = "simulated"
"""The model of a count that names none: nobody's tokenizer, so an estimate."""


class ContextRoutes:
    """Handlers; each answers its call once or raises."""

    def __init__(
        self,
        runtime: Runtime,
        quotas: Quotas,
        presence: Presence,
        catalog: Catalog,
        models: ModelPool,
        seal: Seal,
        limits: Limits,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        *,
        code: str,
    ) -> None:
        self.catalog = catalog
        self._runtime = runtime
        self._quotas = quotas
        self._presence = presence
        self._models = models
        self._seal = seal
        self._limits = limits
        self._follow = partial(follow, silence=limits.silence, patience=limits.patience)
        self._now = now
        self._random_bytes = random_bytes
        self._code = code

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        return (
            Endpoint("POST", "/v1/responses/input_tokens", self.input_tokens, "Count a request's tokens"),
            Endpoint("POST", "/v1/responses/compact", self.compact, "Summarize a conversation"),
        )

    async def input_tokens(self, call: Call) -> None:
        """How many tokens a request's input has: the upstream's count, or an estimate."""
        request = self._request(call, {"model": COUNTED_BY_NOBODY, **await self._read(call, COUNTED)})
        resolved = self.catalog.resolve(request.model)
        told = ModelRequest(
            model=resolved.model,
            instructions="\n\n".join(filter(None, (resolved.instructions, request.instructions))) or None,
            items=await self._context(call, request),
            tools=(*resolved.tools, *request.tools),
            tool_choice=request.tool_choice,
            text=request.text,
            reasoning=request.reasoning,
        )
        told = with_additional(told)
        told = ClientTools(told.tools).told(told)
        count = await self._models.count_tokens(resolved, told)
        if count is None:
            count = tokens_of([told.instructions or "", *told.items, *told.tools])
        await call.answer_json({"object": "response.input_tokens", "input_tokens": count})

    async def compact(self, call: Call) -> None:
        """What the user said, and one item that stands for the whole conversation."""
        request = self._request(call, await self._read(call, COMPACTED))
        said = [item for item in await self._context(call, request) if item.get("role") == "user"]
        made = await self._summary(call, request)
        if made["status"] == "failed":
            raise _failed(made["error"])
        kept = [with_id(item, made["id"], index) for index, item in enumerate(said)]
        summary = "".join(
            part["text"]
            for item in made["output"]
            if item["type"] == "message"
            for part in item["content"]
            if part["type"] == "output_text"
        )
        sealed = self._seal.close(call.principal.project, {"summary": summary})
        item = {
            "id": "cmp_" + made["id"].removeprefix("resp_"),
            "type": "compaction",
            "encrypted_content": sealed,
        }
        await call.answer_json(
            {
                "id": made["id"],
                "object": "response.compaction",
                "created_at": made["created_at"],
                "output": [*kept, item],
                "usage": made["usage"],
            }
        )

    async def _read(self, call: Call, known: Sequence[str]) -> dict[str, JSON]:
        """The `known` fields of the body; every other one is ignored."""
        body = await read_body(call, self._limits.body, self._limits.body_seconds)
        fields = parse_object(body) if body.strip() else {}
        return {key: fields[key] for key in known if fields.get(key) is not None}

    def _request(self, call: Call, fields: Mapping[str, JSON]) -> ResponseRequest:
        unseal = partial(self._seal.open, call.principal.project)
        size = len(orjson.dumps(fields))
        request = read_create(fields, self.catalog, self._limits, size, unseal).request
        return replace(request, input=tuple(item for item in request.input if item["type"] != TRIGGER))

    async def _context(self, call: Call, request: ResponseRequest) -> list[history.Item]:
        """Everything that the model would be told."""
        reader, conversation = self._runtime.reader, request.conversation
        attachment = Attachment(reader, conversation) if conversation is not None else None
        _, context = await Context(reader).prepare(self._command(call, request), attachment)
        return context

    def _command(self, call: Call, request: ResponseRequest) -> Create:
        return Create(
            id=new_response_id(self._random_bytes(16)),
            project=call.principal.project,
            key_id=call.principal.key_id,
            at=int(self._now()),
            request=request,
            agent=self.catalog.resolve(request.model).public(),
            code=self._code,
        )

    async def _summary(self, call: Call, request: ResponseRequest) -> dict[str, Any]:
        """A response that nobody else sees, which answers with the summary."""
        asked = ResponseRequest(
            model=request.model,
            input=(*request.input, question()),
            instructions=SUMMARIZE,
            previous_response_id=request.previous_response_id,
            tool_choice="none",
            store=False,
        )
        command = self._command(call, asked)
        # Nobody could come back for a summary, so it ends at once where its client leaves.
        async with (
            self._presence.creator(call, command.id, 0.0, background=False) as departure,
            self._runtime.bus.subscribe(command.id, ahead=True) as live,
        ):
            async with self._quotas.starting(command.project):
                await self._runtime.create(command)
            replay = ResponseReplay(self._runtime.reader, command.id)
            newest = partial(self._runtime.glances.version, command.id)
            async with aclosing(self._follow(replay, live, fresh=True, newest=newest)) as batches:
                frame = await last_frame(batches, departure)
        assert frame is not None, "whoever waits for it keeps it from being erased"
        made: dict[str, Any] = orjson.loads(snapshot_of(frame))
        return made


def _failed(error: Mapping[str, Any]) -> ApiError:
    """The model gave no summary; its client is told what a response would say."""
    status = {"invalid_prompt": 400, "rate_limit_exceeded": 429}.get(error["code"], 502)
    kind = {400: INVALID, 429: "rate_limit_error"}.get(status, SERVER)
    return ApiError(Problem(status, error["message"], kind, error["code"]))

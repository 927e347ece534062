"""A model whose answers fit the form that the request asks for, where its upstream does not see to that.

The answer is held back until it is whole.  What does not fit is shown to nobody: the model is told what is
wrong and asked once more, and after that the call fails with `invalid_output`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from runtime.catalog import Upstream
from runtime.model import (
    JSON,
    CallEnded,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    RefusalDelta,
    TextDelta,
    Usage,
)
from runtime.models.json_fit import is_tame

Form = Mapping[str, JSON]

ASKED: Final = (
    "Answer with one JSON {what} and nothing else: no words around it, no code fence.{schema}\n"
    "The answer is read by a program, which refuses everything else."
)
AGAIN: Final = "Your answer was refused: {why}. Give the whole answer again, and do it right."
HELD_CHARS: Final = 4 * 1024 * 1024
"""Characters that are held back at most; no upstream's answer comes near."""
PATTERN_CHARS: Final = 1000
"""Texts that are longer are not held against a `pattern`."""
_WHY_CHARS: Final = 300
_FENCED: Final = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)


def form_to_check(text: Form, upstream: Upstream) -> Form | None:
    """The form that answers must be checked for, or None where there is none or the upstream sees to it."""
    form: Form = text.get("format") or {}
    structured = form.get("type") in ("json_object", "json_schema")
    lacks = upstream.adapter == "openai_chat" and not upstream.chat.structured_output
    return form if structured and lacks else None


class CheckedModel:
    """`model`, asked for answers in `form`.  It serves one response."""

    def __init__(self, model: Model, form: Form) -> None:
        self._model = model
        self._form = form
        self._rejected: tuple[str, str] | None = None
        """The answer that did not fit, and why."""
        self._spent = Usage()

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Make one call.

        Raises `ModelError`: `invalid_output`, which may be tried again the first time.
        """
        self._check_schema()
        async with (
            self._model.call(self._told(request)) as batches,
            aclosing(self._checked(batches)) as checked,
        ):
            yield checked

    async def models(self) -> Sequence[str]:
        """The names the upstream lists."""
        return await self._model.models()

    async def aclose(self) -> None:
        """Release connections."""
        await self._model.aclose()

    def _check_schema(self) -> None:
        try:
            Draft202012Validator.check_schema(self._form.get("schema") or {})
        except SchemaError as error:
            message = f"text.format.schema is no JSON Schema: {error.message[:_WHY_CHARS]}"
            raise ModelError("invalid_prompt", message) from None
        if not all(is_tame(pattern) for pattern in _property_patterns(self._form.get("schema"))):
            message = "text.format.schema has patternProperties that could take for ever. Make them simpler."
            raise ModelError("invalid_prompt", message)

    def _told(self, request: ModelRequest) -> ModelRequest:
        schema = ""
        if self._form.get("type") == "json_schema":
            about = self._form.get("description")
            words = f" ({about})" if about else ""
            schema = f" It must fit this JSON Schema{words}:\n{orjson.dumps(self._form['schema']).decode()}"
        what = "object" if self._form.get("type") == "json_object" else "value"
        asked = ASKED.format(what=what, schema=schema)
        items = [*request.items]
        if self._rejected is not None:
            text, why = self._rejected
            items += [_message("assistant", "output_text", text)]
            items += [_message("user", "input_text", AGAIN.format(why=why))]
        text_ = {**request.text, "format": {"type": "text"}}
        instructions = "\n\n".join(filter(None, (request.instructions, asked)))
        return replace(request, instructions=instructions, items=items, text=text_)

    async def _checked(
        self, batches: AsyncIterator[Sequence[ModelEvent]]
    ) -> AsyncGenerator[Sequence[ModelEvent]]:
        held: list[ModelEvent] = []
        chars = 0
        async for batch in batches:
            for event in batch:
                chars += len(event.text) if isinstance(event, TextDelta) else 0
                if chars > HELD_CHARS:
                    raise ModelError("upstream_protocol", "The model's answer is too long to be checked.")
            # From the first words on all is held: whether they fit is known at the end only.
            first = len(batch) if not held else 0
            if not held:
                first = next((n for n, event in enumerate(batch) if _is_message(event)), len(batch))
            held += batch[first:]
            if batch[:first]:
                yield batch[:first]
        if held and isinstance(held[-1], CallEnded):
            yield self._judged(held, held[-1])

    def _judged(self, held: Sequence[ModelEvent], ended: CallEnded) -> Sequence[ModelEvent]:
        """What was held, if it may be shown.  Raises `ModelError`."""
        called = any(isinstance(event, ItemOpened) and event.kind != "message" for event in held)
        refused = any(isinstance(event, RefusalDelta) for event in held)
        if ended.finish in ("stop", "tool_calls") and not called and not refused:
            text = "".join(event.text for event in held if isinstance(event, TextDelta))
            unwrapped = _FENCED.fullmatch(text)
            answer = unwrapped[1] if unwrapped else text
            why = misfit(answer, self._form)
            if why is not None:
                again, self._rejected = self._rejected is None, (text, why)
                self._spent += ended.usage
                message = f"The model's answer does not fit the form that was asked for: {why}."
                raise ModelError("invalid_output", message, retryable=again)
            if unwrapped:
                held = [ItemOpened("message"), TextDelta(answer), ItemClosed()]
            held = [event for event in held if event is not ended]
        else:
            held = held[:-1]
        spent, self._spent, self._rejected = self._spent, Usage(), None
        return [*held, replace(ended, usage=ended.usage + spent)]


def _property_patterns(schema: JSON) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, Mapping):
            waiting += one.values()
            if isinstance(patterns := one.get("patternProperties"), Mapping):
                yield from patterns


def _is_message(event: ModelEvent) -> bool:
    return isinstance(event, ItemOpened) and event.kind == "message"


def _message(role: str, kind: str, text: str) -> dict[str, JSON]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def misfit(text: str, form: Form) -> str | None:
    """Why `text` is not what `form` asks for, in words that its author can use; None where it is."""
    try:
        value = orjson.loads(text)
    except ValueError as reason:
        return f"it is no JSON ({reason})"
    if form.get("type") == "json_object":
        return None if isinstance(value, dict) else "it is no JSON object"
    try:
        error = best_match(_Validator(form.get("schema") or {}, registry=Registry()).iter_errors(value))
    except Unresolvable as reason:
        return f"the schema refers to what is not in it ({reason})"[:_WHY_CHARS]
    except RecursionError:
        return "it nests too deeply"
    if error is None:
        return None
    return f"{error.json_path}: {error.message}"[:_WHY_CHARS]


def _pattern(_: Any, pattern: str, value: JSON, __: JSON) -> Iterator[ValidationError]:
    # A pattern comes from a client and could take for ever; one that might is not tried.
    short = isinstance(value, str) and len(value) <= PATTERN_CHARS
    if short and is_tame(pattern) and re.search(pattern, value) is None:
        yield ValidationError(f"{value[:50]!r} does not match {pattern!r}")


_Validator: Final = extend(Draft202012Validator, {"pattern": _pattern})

"""The model `simulated`: built in, deterministic, offline.  It says that it is simulated.

Its rules stand in docs/models.md.  The same request gets the same words, on every machine and in every
attempt (unless `vary=1`), so an interrupted call can be repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from runtime.model import (
    JSON,
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    FinishReason,
    ItemClosed,
    ItemOpened,
    ModelError,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from runtime.models.json_fit import fit
from runtime.models.json_text import dumps
from runtime.models.simulated_script import FAILURES, NAME, Script, parse
from runtime.resume import GO_ON, WHAT_IS_LEFT

# How the agent loop asks for the rest of an interrupted answer.
GO_ONS = (GO_ON, WHAT_IS_LEFT)
# As many deltas as one read of a fast upstream brings.
BATCH = 64
# What the answer repeats of the question or of a tool's output.
ECHO_CHARS = 200
# JSON has no words; pieces of about a token's size stream like them.
JSON_PIECE_CHARS = 8
FILLERS = re.findall(
    r"\w+",
    "amber birch cedar delta ember fjord grove heron inlet jetty knoll lunar maple north ocean pearl quartz "
    "river stone tidal umber vapor willow xenon yarrow zephyr",
)


@dataclass(frozen=True, slots=True)
class _Item:
    """One output item to play: how it opens, and its deltas."""

    opened: ItemOpened
    deltas: Iterable[ModelEvent]


class SimulatedModel:
    """The adapter.  It holds nothing, so one serves any number of calls at once."""

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Answer by the rules.  Raises `ModelError` where the parameters say so or cannot be read."""
        try:
            script = parse(request.model)
        except ValueError as reason:
            raise ModelError("upstream_not_found", str(reason)) from None
        if script.fail and script.fail_after is None:
            raise _failure(script)
        async with aclosing(_play(request, script)) as batches:
            yield batches

    async def models(self) -> Sequence[str]:
        """Its one name."""
        return [NAME]

    async def aclose(self) -> None:
        """Nothing to release."""


async def _play(request: ModelRequest, script: Script) -> AsyncGenerator[Sequence[ModelEvent]]:
    """The events of one call, paced, cut short or broken off as the script says."""
    canonical = _canonical(request)
    yield [CallStarted(upstream_request_id=None, request_digest=hashlib.sha256(canonical).hexdigest())]
    budget = min(request.max_output_tokens or 1_000_000, script.tokens or 1_000_000)
    batch: list[ModelEvent] = []
    said = thought = 0
    finish: FinishReason = "stop"
    for item in _items(*_without_half(request), script):
        batch.append(item.opened)
        finish = "tool_calls" if item.opened.kind == "function_call" else "stop"
        for delta in item.deltas:
            if said in (script.fail_after, script.stall_after):
                yield batch
                await _break_off(script)
            if said == budget:
                yield [*batch, CallEnded("length", _usage(canonical, said, thought))]
                return
            if batch and (script.interval_ms or len(batch) >= BATCH):
                yield batch
                batch = []
                await asyncio.sleep(script.interval_ms / 1000 if said else 0)
            batch.append(delta)
            said += 1
            thought += isinstance(delta, ReasoningDelta | SummaryDelta)
        batch.append(ItemClosed())
    if script.fail_after is not None or script.stall_after is not None:
        # The answer was shorter than the number after which it breaks: it breaks at its end.
        yield batch
        await _break_off(script)
    yield [*batch, CallEnded(finish, _usage(canonical, said, thought))]


async def _break_off(script: Script) -> None:
    if script.fail:
        raise _failure(script)
    await asyncio.sleep(script.idle_ms / 1000)
    raise ModelError(
        "upstream_timeout",
        f"The simulated model said nothing for {script.idle_ms / 1000:g} s.",
        retryable=True,
    )


def _failure(script: Script) -> ModelError:
    assert script.fail is not None
    return ModelError(
        script.fail,
        f"The simulated model failed with {script.fail}, as its name asks it to.",
        retryable=FAILURES[script.fail],
    )


def _without_half(request: ModelRequest) -> tuple[ModelRequest, str]:
    """The request before its answer was interrupted, and what was said of the answer."""
    items = request.items
    if request.goes_on:
        return replace(request, items=items[:-1]), _text(items[-1].get("content"))
    if len(items) > 1 and items[-2].get("role") == "assistant" and _text(items[-1].get("content")) in GO_ONS:
        return replace(request, items=items[:-2]), _text(items[-2].get("content"))
    return request, ""


def _items(request: ModelRequest, half: str, script: Script) -> Iterator[_Item]:
    """What it answers, item by item, but for the half of it that was said before."""
    if script.reasoning and not half:
        yield _Item(ItemOpened("reasoning"), _reasoning(request, script))
    turn = _turn(request.items)
    outputs = [item for item in turn if item.get("type") == "function_call_output"]
    tool = None if half or not script.tool else _chosen(request, turn)
    if tool is not None:
        call_id = "call_" + hashlib.sha256(_salt(request, script)).hexdigest()[:24]
        arguments = dumps(fit(tool.get("parameters") or {"type": "object"})).decode()
        opened = ItemOpened("function_call", name=str(tool.get("name")), call_id=call_id)
        yield _Item(opened, map(ArgumentsDelta, _pieces(arguments)))
    elif script.refuse:
        yield _Item(
            ItemOpened("message"),
            map(RefusalDelta, _words("This refusal is simulated: I cannot answer that.")),
        )
    elif (pieces := _rest(_answer(request, script, turn, outputs), half)) is not None:
        yield _Item(ItemOpened("message"), map(_said(request.top_logprobs), pieces))


def _said(top_logprobs: int | None) -> Callable[[str], TextDelta]:
    """How a piece of text is told: as one token of which the model is quite sure, where that is asked for."""
    if top_logprobs is None:
        return TextDelta

    def told(piece: str) -> TextDelta:
        token = {"token": piece, "bytes": list(piece.encode()), "logprob": -0.125}
        return TextDelta(piece, ({**token, "top_logprobs": [token][:top_logprobs]},))

    return told


def _rest(pieces: Iterator[str], half: str) -> Iterator[str] | None:
    """What is left of an answer after its `half`, if anything; all of it where it begins otherwise."""
    if not half:
        return pieces
    text = "".join(pieces)
    rest = text.removeprefix(half)
    return iter(_words(rest)) if rest else None


def _reasoning(request: ModelRequest, script: Script) -> Iterator[ModelEvent]:
    """Raw reasoning, and a summary at its end where the request asks for one."""
    wants_summary = bool(request.reasoning and request.reasoning.get("summary"))
    steps = ["Simulated", " thought:", *_fillers(_salt(request, script) + b"thought")]
    yield from map(ReasoningDelta, islice(_endless(steps), script.reasoning))
    if wants_summary:
        yield SummaryDelta(f"Thought for {script.reasoning} simulated steps.")


def _answer(
    request: ModelRequest,
    script: Script,
    turn: Sequence[Mapping[str, JSON]],
    outputs: Sequence[Mapping[str, JSON]],
) -> Iterator[str]:
    """The pieces of a message: JSON where the request asks for it, words else."""
    form: Mapping[str, JSON] = request.text.get("format") or {}
    if form.get("type") == "json_schema":
        return _pieces(dumps(fit(form.get("schema") or {})).decode())
    if form.get("type") == "json_object":
        return _pieces(dumps({"simulated": True, "echo": _echo(turn)}).decode())
    words = _words(_sentence(request, script, turn, outputs))
    if script.deltas is None:
        return iter(words)
    return islice(_endless([*words, *_fillers(_salt(request, script))]), script.deltas)


def _sentence(
    request: ModelRequest,
    script: Script,
    turn: Sequence[Mapping[str, JSON]],
    outputs: Sequence[Mapping[str, JSON]],
) -> str:
    opening = "This answer is simulated"
    if script.vary:
        opening = (
            f"In wording {hashlib.sha256(request.seed.encode()).hexdigest()[:8]}, this answer is simulated"
        )
    if not outputs:
        return f"{opening}. You wrote: {_echo(turn) or 'nothing'}"
    names = {
        str(item.get("call_id")): str(item.get("name"))
        for item in request.items
        if item.get("type") == "function_call"
    }
    told = [
        f"The tool {names.get(str(item.get('call_id')), 'called')} answered: "
        + _short(_text(item.get("output")))
        for item in outputs
    ]
    return f"{opening}. " + " ".join(told)


def _turn(items: Sequence[Mapping[str, JSON]]) -> Sequence[Mapping[str, JSON]]:
    """The items from the last user message on."""
    for index in range(len(items) - 1, -1, -1):
        if items[index].get("role") == "user":
            return items[index:]
    return items


def _echo(turn: Sequence[Mapping[str, JSON]]) -> str:
    """The last user message in short, with what else came with it."""
    if not turn or turn[0].get("role") != "user":
        return ""
    content = turn[0].get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    kinds = [str(part.get("type")).removeprefix("input_") for part in parts]
    others = [f"{kinds.count(kind)} {kind}" for kind in ("image", "file", "audio") if kind in kinds]
    return _short(_text(content)) + (f" (with {' and '.join(others)})" if others else "")


def _text(content: JSON) -> str:
    """The text of a content or an output, whichever of its forms it has."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and part.get("text"))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= ECHO_CHARS else text[:ECHO_CHARS] + "..."


def _chosen(request: ModelRequest, turn: Sequence[Mapping[str, JSON]]) -> Mapping[str, JSON] | None:
    """The function to call: the one that `tool_choice` names, or the first that it allows.

    Once there is an output, none, but where a call is required: agents end by calling one tool of several.
    """
    tools = [tool for tool in request.tools if tool.get("type") == "function"]
    choice = request.tool_choice
    if choice == "none":
        return None
    if isinstance(choice, Mapping):
        if choice.get("type") == "function":
            tools = [tool for tool in tools if tool.get("name") == choice.get("name")]
        elif choice.get("type") == "allowed_tools":
            allowed = {tool.get("name") for tool in choice.get("tools") or ()}
            allowed = set() if choice.get("mode") == "none" else allowed
            tools = [tool for tool in tools if tool.get("name") in allowed]
    if any(item.get("type") == "function_call_output" for item in turn):
        required = "required" in (choice, choice.get("mode") if isinstance(choice, Mapping) else None)
        called = {item.get("name") for item in turn if item.get("type") == "function_call"}
        tools = [tool for tool in tools if required and tool.get("name") not in called]
    return tools[0] if tools else None


def _canonical(request: ModelRequest) -> bytes:
    """The request as bytes: what would go upstream, if there were one."""
    body: dict[str, Any] = {
        "model": request.model,
        "instructions": request.instructions,
        "input": list(request.items),
        "tools": list(request.tools),
        "tool_choice": request.tool_choice,
        "text": request.text,
        "reasoning": request.reasoning,
        "max_output_tokens": request.max_output_tokens,
    }
    return dumps(body)


def _salt(request: ModelRequest, script: Script) -> bytes:
    """What the words depend on, besides the rules: the question, and the attempt where it is to vary."""
    asked = _text(_turn(request.items)[0].get("content")) if request.items else ""
    return f"{request.model}\0{len(request.items)}\0{asked}\0{request.seed if script.vary else ''}".encode(
        errors="replace"
    )


def _usage(canonical: bytes, said: int, thought: int) -> Usage:
    """One token a delta; of the input, one for four bytes, as a rule of thumb has it."""
    return Usage(input_tokens=len(canonical) // 4, output_tokens=said, reasoning_tokens=thought)


def _words(text: str) -> list[str]:
    """`text` in words, each with the space before it; joined they are `text` again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + JSON_PIECE_CHARS] for at in range(0, len(text), JSON_PIECE_CHARS))


def _fillers(salt: bytes) -> list[str]:
    """A deterministic order of filler words."""
    return [f" {FILLERS[byte % len(FILLERS)]}" for byte in hashlib.sha256(salt).digest()]


def _endless(words: Sequence[str]) -> Iterator[str]:
    """The words, then numbered ones for ever: a word lost or doubled shows."""
    yield from words
    for number in count(1):
        yield f" {FILLERS[number % len(FILLERS)]}-{number}"

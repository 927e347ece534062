"""The fake upstream's answers as bytes: Chat Completions and Responses, streamed and whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

FRAMES_A_WRITE = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One output item: `message`, `refusal`, `reasoning` or `call`."""

    kind: str
    pieces: tuple[str, ...]
    name: str = ""
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """All that one call says."""

    model: str
    items: tuple[Item, ...]
    finish: str
    interleave: bool = False
    usage: bool = True
    done: bool = True
    late: bool = False
    reasoning_field: str = "reasoning_content"

    @property
    def counts(self) -> tuple[int, int]:
        """Output tokens, and the reasoning's among them."""
        sizes = [(item.kind, len(item.pieces)) for item in self.items]
        return sum(size for _, size in sizes), sum(size for kind, size in sizes if kind == "reasoning")


@dataclass(frozen=True, slots=True)
class Frames:
    """A stream's frames, and after which of them the n-th delta has been said."""

    frames: tuple[bytes, ...]
    delta_ends: tuple[int, ...]
    """`delta_ends[n]` frames hold the first n + 1 deltas."""

    def upto(self, deltas: int) -> tuple[bytes, ...]:
        """The frames up to and with so many deltas, and with none the head."""
        if deltas <= 0:
            return self.frames[: self.delta_ends[0] - 1 if self.delta_ends else 0]
        return self.frames[: self.delta_ends[min(deltas, len(self.delta_ends)) - 1]]


def chunk(data: bytes) -> bytes:
    """An HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=64)
def frames(api: str, answer: Answer) -> Frames:
    """The stream of `answer`, frame by frame."""
    rendered = list(_chat(answer) if api == "chat" else _responses(answer))
    ends = [n + 1 for n, (is_delta, _) in enumerate(rendered) if is_delta]
    return Frames(tuple(data for _, data in rendered), tuple(ends))


@lru_cache(maxsize=64)
def writes(api: str, answer: Answer) -> tuple[bytes, ...]:
    """The stream of `answer` in HTTP chunks of many frames each, the end of the body included."""
    every = frames(api, answer).frames
    batches = [b"".join(every[at : at + FRAMES_A_WRITE]) for at in range(0, len(every), FRAMES_A_WRITE)]
    return (*map(chunk, batches[:-1]), chunk(batches[-1]) + b"0\r\n\r\n")


def _order(answer: Answer) -> Iterator[tuple[int, Item, int]]:
    """(index, item, piece) in the order they are said."""
    if not answer.interleave:
        for index, item in enumerate(answer.items):
            yield from ((index, item, piece) for piece in range(len(item.pieces)))
        return
    for piece in range(max(len(item.pieces) for item in answer.items)):
        for index, item in enumerate(answer.items):
            if piece < len(item.pieces):
                yield index, item, piece


def _chat(answer: Answer) -> Iterator[tuple[bool, bytes]]:
    def frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return b"data: %b\n\n" % orjson.dumps({**head, "choices": choices})

    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0, "model": answer.model}
    calls = [index for index, item in enumerate(answer.items) if item.kind == "call"]
    yield False, frame({"role": "assistant", "content": ""})
    for index, item, piece in _order(answer):
        text = item.pieces[piece]
        if item.kind == "call":
            call: dict[str, Any] = {"index": calls.index(index), "function": {"arguments": text}}
            if piece == 0:
                call |= {"id": item.call_id, "type": "function"}
                call["function"]["name"] = item.name
            yield True, frame({"tool_calls": [call]})
        else:
            field = {"message": "content", "refusal": "refusal", "reasoning": answer.reasoning_field}[
                item.kind
            ]
            yield True, frame({field: text})
    yield False, frame({}, answer.finish)
    if answer.usage:
        yield False, b"data: %b\n\n" % orjson.dumps({**head, "choices": [], "usage": chat_usage(answer)})
    if answer.done:
        yield False, b"data: [DONE]\n\n"
    if answer.late:
        yield False, frame({"content": " too late"})


def chat_usage(answer: Answer) -> dict[str, Any]:
    """Usage as Chat Completions give it."""
    output, reasoning = answer.counts
    return {
        "prompt_tokens": 11,
        "completion_tokens": output,
        "total_tokens": 11 + output,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def chat_whole(answer: Answer) -> dict[str, Any]:
    """The answer as one chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    for item in answer.items:
        text = "".join(item.pieces)
        if item.kind == "call":
            call = {
                "id": item.call_id,
                "type": "function",
                "function": {"name": item.name, "arguments": text},
            }
            message.setdefault("tool_calls", []).append(call)
        else:
            field = {"message": "content", "refusal": "refusal", "reasoning": answer.reasoning_field}[
                item.kind
            ]
            message[field] = text
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
        "usage": chat_usage(answer),
    }


def response_item(index: int, item: Item, status: str) -> dict[str, Any]:
    """An output item in Responses form: empty while in progress, whole afterwards."""
    whole = status != "in_progress"
    text = "".join(item.pieces) if whole else ""
    if item.kind == "call":
        call = {"type": "function_call", "id": f"fc_{index}", "call_id": item.call_id, "name": item.name}
        return {**call, "arguments": text, "status": status}
    if item.kind == "reasoning":
        content = [{"type": "reasoning_text", "text": text}] if whole else []
        secret = {"encrypted_content": f"sealed-{index}"} if whole else {}
        return {"type": "reasoning", "id": f"rs_{index}", "summary": [], "content": content, **secret}
    part: dict[str, Any] = (
        {"type": "refusal", "refusal": text}
        if item.kind == "refusal"
        else {"type": "output_text", "text": text, "annotations": []}
    )
    content = [part] if whole else []
    return {
        "type": "message",
        "id": f"msg_{index}",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def response_whole(answer: Answer, status: str | None = None) -> dict[str, Any]:
    """The answer as one response object."""
    output, reasoning = answer.counts
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(answer.finish)
    status = status or ("incomplete" if reason else "completed")
    items = [response_item(n, item, status) for n, item in enumerate(answer.items)]
    usage = {
        "input_tokens": 11,
        "output_tokens": output,
        "total_tokens": 11 + output,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }
    running = status == "in_progress"
    return {
        "id": "resp_fake",
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": answer.model,
        "output": [] if running else items,
        "usage": None if running or not answer.usage else usage,
        "incomplete_details": {"reason": reason} if reason and not running else None,
        "error": None,
    }


def _responses(answer: Answer) -> Iterator[tuple[bool, bytes]]:
    number = -1

    def frame(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        data = orjson.dumps({"type": kind, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    deltas = {
        "call": "response.function_call_arguments.delta",
        "message": "response.output_text.delta",
        "refusal": "response.refusal.delta",
        "reasoning": "response.reasoning_text.delta",
    }
    yield False, frame("response.created", response=response_whole(answer, "in_progress"))
    for index, item, piece in _order(answer):
        opened = response_item(index, item, "in_progress")
        if piece == 0:
            yield False, frame("response.output_item.added", output_index=index, item=opened)
        place = {"output_index": index, "content_index": 0, "item_id": opened["id"]}
        yield True, frame(deltas[item.kind], **place, delta=item.pieces[piece])
        if piece == len(item.pieces) - 1:
            status = "incomplete" if answer.finish == "length" and item is answer.items[-1] else "completed"
            closed = response_item(index, item, status)
            yield False, frame("response.output_item.done", output_index=index, item=closed)
    whole = response_whole(answer)
    yield False, frame(f"response.{whole['status']}", response=whole)
    if answer.done:
        yield False, b"data: [DONE]\n\n"
    if answer.late:
        yield False, frame("response.output_text.delta", output_index=0, content_index=0, delta=" too late")

"""A fast fake of an OpenAI-compatible server: Chat Completions and Responses, scripted by the model's name.

    python -m tests.fakes.upstream --port 0        prints its base URL on one line

`POST /v1/chat/completions`, `POST /v1/responses`, `GET /v1/models` (or without `/v1`).  A model `NAME?QUERY`
follows the script of its query (`tests.fakes.script`); `POST /_script {"NAME": "QUERY"}` scripts a name.
`GET /_calls` tells what was asked: `{"count", "by_model", "accepted", "aborted", "open", "deltas", "calls":
[{"path", "authorization", "headers", "body"}]}` (the last 100 calls); `POST /_reset` forgets it.

It speaks HTTP/1.1 by hand, and prepared answers go out many frames a write: it must outrun what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from collections import Counter, deque
from dataclasses import replace
from typing import Any, cast

import orjson

from actors.collector import spare_what_stays
from tests.fakes.render import Answer, Item, chat_whole, chunk, frames, response_whole, writes
from tests.fakes.script import WITHOUT_FAULTS, Script, parse, rest, split, words
from tests.fakes.tokenizer import counted

MODELS = ("fake", "fake-large")
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
# A fixed date, for `Retry-After` in the form of a date.
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Request-Id: req_fake\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class FakeUpstream:
    """The server.  `async with FakeUpstream() as fake:` serves on a free loopback port, until its end."""

    def __init__(
        self, *, models: tuple[str, ...] = MODELS, key: str | None = None, owner: str = "fake"
    ) -> None:
        self.models = models
        self.owner = owner
        self.key = key
        self.tokenizer = ""
        """Whose way to count tokens it has (`tests.fakes.tokenizer`)."""
        self.scripts: dict[str, str] = {}
        self.reset()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    def reset(self) -> None:
        """Forget every call."""
        self.count = 0
        self.by_model: Counter[str] = Counter()
        self.accepted = 0
        self.aborted = 0
        self.deltas = 0
        self.calls: deque[dict[str, Any]] = deque(maxlen=100)

    @property
    def url(self) -> str:
        """The base URL, with `/v1`."""
        assert self._server is not None
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=4096)

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        assert self._server is not None
        self._server.close()
        for connection in tuple(self._connections):
            connection.drop()
        await self._server.wait_closed()

    async def __aenter__(self) -> FakeUpstream:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def seen(self) -> dict[str, Any]:
        """What `GET /_calls` answers."""
        return {
            "count": self.count,
            "by_model": dict(self.by_model),
            "accepted": self.accepted,
            "aborted": self.aborted,
            "open": sum(connection.busy for connection in self._connections),
            "deltas": self.deltas,
            "calls": list(self.calls),
        }

    def script(self, model: str) -> Script:
        """The script of one more call of `model`."""
        name, _, query = model.partition("?")
        script = parse(query or self.scripts.get(name, ""))
        if script.fail_first and self.by_model[model] > script.fail_first:
            return replace(script, **WITHOUT_FAULTS)
        return script


class _Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other."""

    def __init__(self, fake: FakeUpstream) -> None:
        self.fake = fake
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._task is not None

    def drop(self) -> None:
        """Close at once."""
        if self.transport:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Little is buffered on the way, so that a client who does not read is felt soon.
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 256 * 1024)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        self.fake._connections.add(self)
        self.fake.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.fake._connections.discard(self)
        self.transport = None
        self._writable.set()
        if self._task:
            self.fake.aborted += 1
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._next()

    def _next(self) -> None:
        """Take the next whole request from the buffer."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or self.transport is None:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = lines[0].split(" ", 2)
        self._obey(method, path.removeprefix("/v1"), headers, rest[:length])

    def _obey(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        fake = self.fake
        if method == "POST" and path in ("/chat/completions", "/responses"):
            self._call(path, headers, orjson.loads(body))
        elif path == "/models":
            listed = [{"id": model, "object": "model", "owned_by": fake.owner} for model in fake.models]
            self.json({"object": "list", "data": listed})
        elif path == "/_calls":
            self.json(fake.seen())
        elif path == "/_reset":
            fake.reset()
            self.json({})
        elif path == "/_script":
            fake.scripts |= orjson.loads(body)
            self.json({})
        elif (count := counted(fake.tokenizer, path, orjson.loads(body or b"{}"))) is not None:
            self.json(count)
        else:
            self.json({"error": {"message": f"no such path: {path}"}}, 404)
        if self._task is None and self._buffer:
            self._next()

    def _call(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        fake = self.fake
        model = str(body.get("model"))
        fake.count += 1
        fake.by_model[model] += 1
        kept = {"path": path, "authorization": headers.get("authorization"), "headers": headers, "body": body}
        fake.calls.append(kept)
        if fake.key is not None and headers.get("authorization") != f"Bearer {fake.key}":
            self.json({"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}, 401)
            return
        try:
            script = fake.script(model)
        except ValueError as reason:
            self.json({"error": {"message": str(reason)}}, 404)
            return
        api = "chat" if path == "/chat/completions" else "responses"
        if script.refuses_half and _context(api, body)[-1].get("role") == "assistant":
            self.json({"error": {"message": "The conversation must end with a user message."}}, 400)
            return
        answer = _answer(script, api, body, fake.by_model[model])
        if not _needs_time(script) and body.get("stream") and not script.json:
            prepared = writes(api, answer)
            if len(prepared) == 1:  # The commonest case by far under load: no task for it.
                fake.deltas += answer.counts[0]
                self.write(HEAD + prepared[0])
                return
        self._task = asyncio.get_running_loop().create_task(
            self._tell(script, api, answer, bool(body.get("stream")))
        )
        self._task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            task.result()
        if self._buffer:
            self._next()

    async def _tell(self, script: Script, api: str, answer: Answer, stream: bool) -> None:
        """Answer in time, or break as the script says."""
        await asyncio.sleep(script.delay_ms / 1000)
        if script.status:
            self.fail(script)
        elif script.content_type:
            self.body(b"<html><body>a page</body></html>", script.content_type)
        elif script.json or not stream:
            self.json(chat_whole(answer) if api == "chat" else response_whole(answer))
        elif _needs_time(script):
            self.write(HEAD.replace(b"req_fake", script.request_id.encode()))
            await asyncio.sleep(script.first_ms / 1000)
            await self._paced(script, api, answer)
        else:
            self.write(HEAD)
            for data in writes(api, answer):
                await self._writable.wait()
                self.write(data)
                self.fake.deltas += 64
            await self._writable.wait()

    async def _paced(self, script: Script, api: str, answer: Answer) -> None:
        """Frame by frame, with the script's pauses, to the end or the fault."""
        prepared = frames(api, answer)
        told = prepared.frames if script.breaks_at < 0 else prepared.upto(script.breaks_at)
        deltas = frozenset(prepared.delta_ends)
        said = 0
        for number, data in enumerate(told, start=1):
            if number in deltas:
                if said and script.interval_ms:
                    await asyncio.sleep(script.interval_ms / 1000)
                said += 1
                self.fake.deltas += 1
            for piece in _pieces(_odd(script, data), script.write_bytes):
                await self._writable.wait()
                self.write(chunk(piece))
                if script.write_bytes:
                    await asyncio.sleep(0)
        await self._break_off(script)

    async def _break_off(self, script: Script) -> None:
        if script.stall_after >= 0:
            await asyncio.Event().wait()  # Until the client goes away, which cancels this task.
        if script.cut_after >= 0:
            self._task = None  # It is the fake that cuts, not the client.
            if self.transport:
                self.transport.close()
            return
        if script.garbage_after >= 0:
            self.write(chunk(b'data: {"choices": [{"delta" oops\n\n'))
        if script.huge_after >= 0:
            for _ in range(10):
                await self._writable.wait()
                self.write(chunk(b"x" * 1_000_000))
        if script.error_after >= 0:
            error = {"message": script.message, "code": script.code or None, "type": "server_error"}
            self.write(chunk(b"data: %b\n\n" % orjson.dumps({"type": "error", "error": error})))
        self.write(b"0\r\n\r\n")

    def fail(self, script: Script) -> None:
        """An error's status and body."""
        error = {"message": script.message, "type": "fake_error", "param": None, "code": script.code or None}
        more = {"Date": DATE, "X-Request-Id": script.request_id}
        if script.retry_after:
            more["Retry-After"] = script.retry_after
        if script.retry_after_ms:
            more["Retry-After-Ms"] = script.retry_after_ms
        if 300 <= script.status < 400:
            more["Location"] = "/elsewhere"
        self.json({"error": error}, script.status, more)

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """A whole JSON answer."""
        self.body(orjson.dumps(value), "application/json", status, headers)

    def body(self, data: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """A whole answer."""
        lines = {
            "Content-Type": kind,
            "Content-Length": str(len(data)),
            "X-Request-Id": "req_fake",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.write(
            f"HTTP/1.1 {status} {REASONS.get(status, 'Failed')}\r\n{head}\r\n".encode("latin-1") + data
        )

    def write(self, data: bytes) -> None:
        """Write, if anybody still listens."""
        if self.transport:
            self.transport.write(data)


def _needs_time(script: Script) -> bool:
    """Whether the answer must go out frame by frame or not at all, and not as prepared."""
    waits = script.interval_ms or script.delay_ms or script.first_ms or script.write_bytes
    waits = waits or script.request_id != "req_fake"
    return bool(waits or script.odd or script.status or script.content_type or script.breaks_at >= 0)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def _odd(script: Script, data: bytes) -> bytes:
    """The frame with what is no text in the place of the words `odd0` and `odd1`."""
    if not script.odd:
        return data
    first, second = {
        "utf8": (b"a\xffb", b"c"),
        "lone": (b"a\\ud83d!", b"\\ude00b"),
        "pair": (b"a\\ud83d", b"\\ude00b"),
    }[script.odd]
    return data.replace(b"odd0", first).replace(b" odd1", second)


def _context(api: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What was said so far."""
    context = body.get("messages" if api == "chat" else "input") or []
    return [{"role": "user", "content": context}] if isinstance(context, str) else context


def _answer(script: Script, api: str, body: dict[str, Any], nth: int) -> Answer:
    """What this call says."""
    context = _context(api, body)
    salt = f"-{nth}" if script.unique else ""
    items = [Item("reasoning", words(script.reasoning, f"r{salt}"))] if script.reasoning else []
    # Near the end: behind them may stand half an answer, and the wish that it goes on.
    outputs_there = any(
        item.get("role") == "tool" or item.get("type") == "function_call_output" for item in context[-3:]
    )
    if script.tools and not outputs_there:
        tools = body.get("tools") or [{}]
        name = str((tools[0].get("function") or tools[0]).get("name", "get_weather"))
        pieces = tuple(script.arguments[at : at + 6] for at in range(0, len(script.arguments), 6))
        items += [Item("call", pieces, name, f"call_{len(context)}_{n}{salt}") for n in range(script.tools)]
        finish = "tool_calls"
    else:
        half = _half(script, body, context)
        pieces = _said(script, context, salt) if half is None else _rest(script, context, salt, half, nth)
        if script.chars:
            pieces = split("".join(pieces), script.chars)
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or body.get("max_output_tokens")
        finish = "length" if limit and len(pieces) > limit else "stop"
        continued = context and context[-1].get("role") == "assistant"
        kind = "reasoning" if script.thinks_on and continued else "refusal" if script.refusal else "message"
        items.append(Item(kind, pieces[:limit]))
    return Answer(
        model=str(body.get("model")),
        items=tuple(items),
        finish=script.finish or finish,
        interleave=script.interleave,
        usage=script.usage,
        done=script.done,
        late=script.late,
        reasoning_field=script.reasoning_field,
    )


def _said(script: Script, context: list[dict[str, Any]], salt: str) -> tuple[str, ...]:
    if script.odd:
        return ("odd0", " odd1", " end")
    if script.echo:
        asked = [_text(item.get("content")) for item in context if item.get("role") == "user"]
        return split(asked[-1] if asked else "nothing")
    return split(script.text) if script.text else words(script.deltas, salt)


def _half(script: Script, body: dict[str, Any], context: list[dict[str, Any]]) -> str | None:
    """The half that this call goes on with, if it can: the last message, or the one before the wish."""
    if context and context[-1].get("role") == "assistant":
        asked = {
            "vllm": body.get("continue_final_message") and not body.get("add_generation_prompt", True),
            "sglang": body.get("continue_final_message"),
            "tgi": True,
            "llama.cpp": True,
        }
        half = _text(context[-1].get("content")) if asked.get(script.continues) else None
    else:
        said = [item for item in context[-3:-1] if item.get("role") == "assistant"]
        half = _text(said[-1].get("content")) if script.goes_on and said else None
    return half.rstrip() if half and script.trims else half


def _rest(script: Script, context: list[dict[str, Any]], salt: str, half: str, nth: int) -> tuple[str, ...]:
    """What is still to be said behind the half."""
    echo = (half,) if script.echoes else ()
    if script.unique:
        return (*echo, *rest(half, script.deltas, nth, salt))
    whole = "".join(_said(script, context, salt))
    left = whole[len(half) :] if whole.startswith(half) else whole
    return (*echo, *(piece for piece in split(left) if piece))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [])


async def serve(host: str, port: int, key: str | None) -> None:
    """Serve until SIGTERM or SIGINT."""
    fake = FakeUpstream(key=key)
    await fake.start(host, port)
    print(fake.url, flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await fake.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A fast fake of an OpenAI-compatible server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default=None, help="answer 401 to every other key")
    options = parser.parse_args()
    # Looking for garbage halts all streams at once, which a measurement would take for its server's.
    spare_what_stays()
    try:
        import uvloop  # Only a faster loop: where it is missing, asyncio's own does.
    except ImportError:
        asyncio.run(serve(options.host, options.port, options.key))
    else:
        uvloop.run(serve(options.host, options.port, options.key))


if __name__ == "__main__":
    main()

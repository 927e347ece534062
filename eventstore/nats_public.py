"""The public bus over NATS: core messages for listeners, and a JetStream stream that keeps a day of them.

The stream is a cache for subscribers: nothing of ours reads it, and it is no place to keep anything.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore.nats_config import STREAM
from eventstore.nats_connection import NatsConnection
from eventstore.nats_wire import encode_headers, settle
from eventstore.ports import BusUnavailable, CaptureUnavailable

ATTEMPTS: Final = 2
"""How often a message that the stream did not acknowledge is sent before the stream counts as away."""

ID: Final = "Nats-Msg-Id"
POSITION: Final = "ce-position"
NUMBER: Final = "ce-sequencenumber"
"""Headers of every message that is captured: its id, `<incarnation>:...`, and its place in the log."""

_NANOSECONDS: Final = 1_000_000_000
_NOT_FOUND: Final = 404

logger = logging.getLogger(__name__)

Message = tuple[str, bytes, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class JetStreamSettings:
    """What the stream captures and how much of it it keeps."""

    subjects: tuple[str, ...] = ("rayspond.*.events.>",)
    """Wildcards stand for whole tokens; `>` only at the end."""
    duplicate_window: float = 10.0
    """Seconds in which a message with the same `Nats-Msg-Id` is stored once."""
    max_age: float = 24 * 3600.0
    """Seconds."""
    max_bytes: int = 1 << 30
    replicas: int = 1
    ack_timeout: float = 1.0
    """Seconds to wait for the acknowledgements of one call."""

    def stream_config(self) -> dict[str, Any]:
        """The stream as JetStream's API describes it."""
        return {
            "name": STREAM,
            "description": "Public events of responses; a cache of the log.",
            "subjects": list(self.subjects),
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "max_age": int(self.max_age * _NANOSECONDS),
            "max_bytes": self.max_bytes,
            "duplicate_window": int(self.duplicate_window * _NANOSECONDS),
            "num_replicas": self.replicas,
        }

    @property
    def exact(self) -> bool:
        """Whether the stream takes each message once and in order, for longer than the duplicate window.

        Each message then names the one before it, which a stream with replicas may check too early.
        """
        return self.replicas == 1

    def captures(self, subject: str) -> bool:
        """Whether the stream takes a message of this subject."""
        tokens = subject.split(".")
        return any(_matches(pattern.split("."), tokens) for pattern in self.subjects)


def _matches(pattern: list[str], tokens: list[str]) -> bool:
    for index, part in enumerate(pattern):
        if part == ">":
            return len(tokens) > index
        if index >= len(tokens) or part not in ("*", tokens[index]):
            return False
    return len(tokens) == len(pattern)


@dataclass(slots=True)
class _Window:
    """The acknowledgements that one call still waits for."""

    done: asyncio.Future[bool]
    waiting: set[int] = field(default_factory=set)
    reason: str = "it did not answer in time"

    def answer(self, index: int, refusal: str | None) -> None:
        if refusal is None:
            self.waiting.discard(index)
        else:
            self.reason = refusal
        if not self.waiting or refusal is not None:
            settle(self.done, True)


class NatsPublicBus:
    """`PublicBus` over a connection, which may be shared.

    Belongs to one event loop.  One call with `capture` at a time; others may run beside it.
    """

    def __init__(self, connection: NatsConnection, settings: JetStreamSettings | None = None) -> None:
        self._connection = connection
        self._settings = settings or JetStreamSettings()
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._window: _Window | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_request = 0
        self._round = 0
        self._ensured = False
        self._last: Mapping[str, str] | None = None
        connection.subscribe(f"{self._inbox}.ack.*.*", self._acknowledged)
        connection.subscribe(f"{self._inbox}.api.*", self._replied)
        connection.on_connected(self._forget)

    @property
    def settings(self) -> JetStreamSettings:
        """What the stream is asked to be."""
        return self._settings

    async def publish(self, messages: Sequence[Message], *, capture: bool = True) -> None:
        """See `PublicBus`."""
        if not self._connection.connected:
            raise BusUnavailable(f"NATS is away ({self._connection.last_error})")
        if not capture:
            await self._publish_past_the_stream(messages)
            return
        pending = list(enumerate(messages))
        problem: str | None = None
        for _ in range(ATTEMPTS):
            problem = await self._ensure_stream()
            if problem is not None:
                await self._publish_past_the_stream([message for _, message in pending])
                raise CaptureUnavailable(pending[0][0], problem)
            missing, problem = await self._attempt(pending)
            if not missing:
                return
            # What follows the first missing one is sent again too: the stream must keep the order.
            pending = [
                (index, message)
                for index, message in pending
                if index >= missing[0] and self._settings.captures(message[0])
            ]
            self._ensured = False
        raise CaptureUnavailable(pending[0][0], problem or "it did not answer in time")

    async def _attempt(self, messages: Sequence[tuple[int, Message]]) -> tuple[list[int], str | None]:
        """Send once; the indices that the stream did not acknowledge, and why."""
        window = _Window(asyncio.get_running_loop().create_future())
        self._window = window
        self._round += 1
        try:
            for index, message in messages:
                self._offer(window, index, message)
            await self._settled()
            if window.waiting:
                await asyncio.wait([window.done], timeout=self._settings.ack_timeout)
        except BaseException:
            self._ensured = False  # What the stream has taken is not known.
            raise
        finally:
            self._window = None
        if window.waiting and not self._connection.connected:
            raise BusUnavailable("NATS went away before it acknowledged")
        return sorted(window.waiting), window.reason

    async def _publish_past_the_stream(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._pass_by(message)
        await self._settled()

    def _offer(self, window: _Window, index: int, message: Message) -> None:
        """Send one message, to be acknowledged where the stream captures it and lacks it."""
        subject, payload, headers = message
        if not self._settings.captures(subject):
            self._send(subject, payload, headers, "")
            return
        before = self._last if self._settings.exact else None
        if before is not None and not _is_after(headers, before):
            self._pass_by(message)
            return
        self._last = headers
        if before is not None:
            # Where the one before it is missing the stream refuses this one: it never has a hole.
            headers = {**headers, "Nats-Expected-Last-Msg-Id": before[ID]}
        window.waiting.add(index)
        self._send(subject, payload, headers, f"{self._inbox}.ack.{self._round}.{index}")

    def _pass_by(self, message: Message) -> None:
        """Send to listeners alone."""
        subject, payload, headers = message
        if self._settings.captures(subject):
            # The server delivers it, but refuses to store it.
            headers = {**headers, "Nats-Expected-Stream": "none"}
        self._send(subject, payload, headers, "")

    def _send(self, subject: str, payload: bytes, headers: Mapping[str, str], reply: str) -> None:
        if not self._connection.publish(subject, payload, reply=reply, headers=encode_headers(headers)):
            raise BusUnavailable("NATS is away or does not read")

    async def _settled(self) -> None:
        if not await self._connection.flush(self._settings.ack_timeout):
            raise BusUnavailable("NATS did not take the messages in time")

    def _acknowledged(self, subject: bytes, payload: bytes, headers: bytes) -> None:
        turn, index = subject.rsplit(b".", 2)[-2:]
        if self._window is not None and int(turn) == self._round:
            self._window.answer(int(index), _refusal(payload, headers))

    # The stream.

    def _forget(self) -> None:
        # The server may have come back without its stream.
        self._ensured = False

    async def _ensure_stream(self) -> str | None:
        """Create the stream, or give it our settings; why that was not possible, or None."""
        if self._ensured:
            return None
        wanted = self._settings.stream_config()
        found = await self._request(f"STREAM.INFO.{STREAM}", None)
        if found.get("error", {}).get("code") == _NOT_FOUND:
            logger.info("creating the JetStream stream %s", STREAM)
            found = await self._request(f"STREAM.CREATE.{STREAM}", wanted)
        elif "error" not in found and not wanted.items() <= found.get("config", {}).items():
            logger.info("updating the JetStream stream %s", STREAM)
            found = await self._request(f"STREAM.UPDATE.{STREAM}", {**found.get("config", {}), **wanted})
        if "error" in found:
            return str(found["error"].get("description", "unknown"))
        return await self._find_last()

    async def _find_last(self) -> str | None:
        """Learn what the stream has already; why that was not possible, or None."""
        found = await self._request(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": ">"})
        if "error" in found and found["error"].get("code") != _NOT_FOUND:
            return str(found["error"].get("description", "unknown"))
        headers = _parse_headers(base64.b64decode(found.get("message", {}).get("hdrs", "")))
        self._last = headers if {ID, POSITION, NUMBER} <= headers.keys() else None
        self._ensured = True
        return None

    async def _request(self, api: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """One call of JetStream's API; its answer, or an `error` of the same shape."""
        self._last_request += 1
        number = self._last_request
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        try:
            payload = json.dumps(body).encode() if body is not None else b""
            self._connection.publish(f"$JS.API.{api}", payload, reply=f"{self._inbox}.api.{number}")
            await asyncio.wait([reply], timeout=self._settings.ack_timeout)
            return reply.result() if reply.done() else _error("JetStream did not answer in time")
        finally:
            del self._replies[number]

    def _replied(self, subject: bytes, payload: bytes, headers: bytes) -> None:
        reply = self._replies.get(int(subject.rsplit(b".", 1)[-1]))
        if reply is not None and not reply.done():
            refusal = _refusal(payload, headers)
            answer = _error(refusal) if headers and refusal is not None else _parse(payload)
            reply.set_result(answer)


def _refusal(payload: bytes, headers: bytes) -> str | None:
    """Why the stream did not take a message, or None where it did."""
    if headers.startswith(b"NATS/1.0 503"):
        return "JetStream is off, or has no stream for this subject"
    error = _parse(payload).get("error")
    return str(error.get("description", "unknown")) if isinstance(error, dict) else None


def _is_after(headers: Mapping[str, str], last: Mapping[str, str]) -> bool:
    """Whether a message is later in the log than the last one kept, of this incarnation of the log."""
    if headers[ID].split(":")[0] != last[ID].split(":")[0]:
        return True
    return _place(headers) > _place(last)


def _place(headers: Mapping[str, str]) -> tuple[int, int]:
    return int(headers[POSITION]), int(headers[NUMBER])


def _parse_headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode(errors="replace").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def _error(text: str) -> dict[str, Any]:
    return {"error": {"code": 503, "description": text}}


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(payload)
    except ValueError:
        return _error("an answer that is not JSON")
    return answer if isinstance(answer, dict) else _error("an answer that is not an object")

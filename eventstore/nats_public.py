"""The public bus over NATS: core messages for listeners, and a JetStream stream that keeps a day of them.

The stream is a cache for subscribers: nothing of ours reads it, and it is no place to keep anything.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from eventstore.nats_config import STREAM
from eventstore.nats_connection import NatsConnection
from eventstore.ports import BusUnavailable, CaptureUnavailable

ATTEMPTS: Final = 2
"""How often a message that the stream did not acknowledge is sent before the stream counts as away."""

ID: Final = "Nats-Msg-Id"
POSITION: Final = "ce-position"
NUMBER: Final = "ce-sequencenumber"
"""Headers of every message that is captured: its id, `<incarnation>:...`, and its place in the log."""

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
        """The stream, as fields of nats-py's `StreamConfig`."""
        return {
            "name": STREAM,
            "description": "Public events of responses; a cache of the log.",
            "subjects": list(self.subjects),
            "retention": RetentionPolicy.LIMITS,
            "discard": DiscardPolicy.OLD,
            "storage": StorageType.FILE,
            "max_age": self.max_age,
            "max_bytes": self.max_bytes,
            "duplicate_window": self.duplicate_window,
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
        return _any_of(self.subjects).fullmatch(subject) is not None


@lru_cache(maxsize=16)
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Asked for every message: one expression for all patterns."""
    parts = {"*": r"[^.]+", ">": r".+"}
    subjects = ([parts.get(token, re.escape(token)) for token in one.split(".")] for one in patterns)
    return re.compile("|".join(map(r"\.".join, subjects)))


@dataclass(slots=True)
class _Window:
    """The acknowledgements that one call still waits for."""

    done: asyncio.Future[None]
    waiting: set[int] = field(default_factory=set)
    reason: str = "it did not answer in time"

    def answer(self, index: int, refusal: str | None) -> None:
        if refusal is None:
            self.waiting.discard(index)
        else:
            self.reason = refusal
        if (not self.waiting or refusal is not None) and not self.done.done():
            self.done.set_result(None)


class NatsPublicBus:
    """`PublicBus` over a connection, which may be shared.

    Belongs to one event loop.  One call with `capture` at a time; others may run beside it.
    """

    def __init__(self, connection: NatsConnection, settings: JetStreamSettings | None = None) -> None:
        self._connection = connection
        self._settings = settings or JetStreamSettings()
        self._inbox = f"_INBOX.{secrets.token_hex(8)}"
        self._window: _Window | None = None
        self._round = 0
        self._ensured = False
        self._last: Mapping[str, str] | None = None
        connection.subscribe(f"{self._inbox}.ack.*.*", self._acknowledged)
        connection.on_connected(self._forget)

    @property
    def settings(self) -> JetStreamSettings:
        """What the stream is asked to be."""
        return self._settings

    @property
    def payload_max(self) -> int:
        """See `PublicBus`: what the server says, and another one after a reconnect may say otherwise."""
        return self._connection.max_payload

    async def publish(self, messages: Sequence[Message], *, capture: bool = True) -> None:
        """See `PublicBus`."""
        if not self._connection.connected:
            raise BusUnavailable(f"NATS is away ({self._connection.last_error})")
        if not capture:
            await self._publish_past_the_stream(messages)
            return
        pending: Sequence[tuple[int, Message]] = list(enumerate(messages))
        problem = ""
        for sent in range(ATTEMPTS + 1):
            if (away := await self._ensure_stream()) is not None:
                if not sent:
                    await self._publish_past_the_stream(messages)
                raise CaptureUnavailable(pending[0][0], away)
            if sent:
                pending = [(index, message) for index, message in pending if not self._has(message)]
            if not pending:
                return
            if sent == ATTEMPTS:
                break
            pending, problem = await self._attempt(pending)
            if not pending:
                return
            self._ensured = False
        raise CaptureUnavailable(pending[0][0], problem)

    async def _attempt(
        self, messages: Sequence[tuple[int, Message]]
    ) -> tuple[Sequence[tuple[int, Message]], str]:
        """Send once; what of it the stream may lack, and why."""
        captured = [(index, message) for index, message in messages if self._settings.captures(message[0])]
        # The answer to the last one stands for all, where each names the one before it.
        asked = captured[-1:] if self._settings.exact else captured
        answering = {index for index, _ in asked}
        window = _Window(asyncio.get_running_loop().create_future())
        self._window = window
        self._round += 1
        try:
            for index, message in messages:
                self._offer(window, index, message, answered=index in answering)
            await self._settled()
            if window.waiting:
                await asyncio.wait([window.done], timeout=self._settings.ack_timeout)
        except BaseException:
            self._ensured = False  # What the stream has taken is not known.
            raise
        finally:
            self._window = None
        if not window.waiting:
            return (), ""
        if not self._connection.connected:
            raise BusUnavailable("NATS went away before it acknowledged")
        # What follows the first missing one is sent again too: the stream must keep the order.
        first = 0 if self._settings.exact else min(window.waiting)
        return [(index, message) for index, message in captured if index >= first], window.reason

    async def _publish_past_the_stream(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._pass_by(message)
        await self._settled()

    def _offer(self, window: _Window, index: int, message: Message, *, answered: bool) -> None:
        """Send one message, for the stream to keep where it captures it and lacks it."""
        subject, payload, headers = message
        if not self._settings.captures(subject):
            self._send(subject, payload, headers, "")
            return
        if self._has(message):
            self._pass_by(message)
            return
        before, self._last = self._last, headers
        if before is not None and self._settings.exact:
            # Where the one before it is missing the stream refuses this one: it never has a hole.
            headers = {**headers, "Nats-Expected-Last-Msg-Id": before[ID]}
        reply = ""
        if answered:
            window.waiting.add(index)
            reply = f"{self._inbox}.ack.{self._round}.{index}"
        self._send(subject, payload, headers, reply)

    def _has(self, message: Message) -> bool:
        """Whether the stream keeps this message already, as far as that can be told."""
        if self._last is None or not self._settings.exact:
            return False
        return not _is_after(message[2], self._last)

    def _pass_by(self, message: Message) -> None:
        """Send to listeners alone."""
        subject, payload, headers = message
        if self._settings.captures(subject):
            # The server delivers it, but refuses to store it.
            headers = {**headers, "Nats-Expected-Stream": "none"}
        self._send(subject, payload, headers, "")

    def _send(self, subject: str, payload: bytes, headers: Mapping[str, str], reply: str) -> None:
        if not self._connection.publish(subject, payload, reply=reply, headers=headers):
            raise BusUnavailable(self._connection.last_error or "NATS does not read")

    async def _settled(self) -> None:
        if not await self._connection.flush(self._settings.ack_timeout):
            raise BusUnavailable("NATS did not take the messages in time")

    def _acknowledged(self, message: Msg) -> None:
        turn, index = message.subject.rsplit(".", 2)[-2:]
        if self._window is not None and int(turn) == self._round:
            self._window.answer(int(index), _refusal(message))

    # The stream.

    def _forget(self) -> None:
        # The server may have come back without its stream.
        self._ensured = False

    async def _ensure_stream(self) -> str | None:
        """Create the stream, or give it our settings; why that was not possible, or None."""
        if self._ensured:
            return None
        stream = self._connection.jetstream(self._settings.ack_timeout)
        if stream is None:
            return "NATS is away"
        try:
            await self._settle_stream(stream)
            self._last = await _find_last(stream)
        except APIError as error:
            return error.description or "JetStream is off"
        except NatsError as error:
            return str(error)
        self._ensured = True
        return None

    async def _settle_stream(self, stream: JetStreamContext) -> None:
        wanted = self._settings.stream_config()
        try:
            found = (await stream.stream_info(STREAM)).config
        except NotFoundError:
            logger.info("creating the JetStream stream %s", STREAM)
            await stream.add_stream(StreamConfig(**wanted))
            return
        if any(getattr(found, name) != value for name, value in wanted.items()):
            logger.info("updating the JetStream stream %s", STREAM)
            await stream.update_stream(found.evolve(**wanted))


async def _find_last(stream: JetStreamContext) -> Mapping[str, str] | None:
    """The headers of the last message that the stream has, or None where none tells its place in the log."""
    try:
        headers = (await stream.get_last_msg(STREAM, ">")).headers or {}
    except NotFoundError:
        return None
    return headers if {ID, POSITION, NUMBER} <= headers.keys() else None


def _refusal(message: Msg) -> str | None:
    """Why the stream did not take a message, or None where it did."""
    if message.headers is not None and message.headers.get("Status") == "503":
        return "JetStream is off, or has no stream for this subject"
    try:
        error = orjson.loads(message.data).get("error")
    except (ValueError, AttributeError):
        return "an answer that is not JetStream's"
    return str(error.get("description", "unknown")) if isinstance(error, dict) else None


def _is_after(headers: Mapping[str, str], last: Mapping[str, str]) -> bool:
    """Whether a message is later in the log than the last one kept, of this incarnation of the log."""
    if headers[ID].split(":")[0] != last[ID].split(":")[0]:
        return True
    return _place(headers) > _place(last)


def _place(headers: Mapping[str, str]) -> tuple[int, int]:
    return int(headers[POSITION]), int(headers[NUMBER])

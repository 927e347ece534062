"""How a response's events look on public subjects, and the relay that puts them there.

    rayspond.<project>.<class>.<response id>.<event type>

The payload is the `data:` JSON of the SSE frame, byte for byte.  docs/nats.md is the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import orjson

from eventstore.events import Batch
from eventstore.nats_connection import NatsConnection
from eventstore.nats_subjects import safe_token
from eventstore.ports import EventStore, PublicBus
from eventstore.relay import LiveTap, Message, Relay
from eventstore.renders import Renders
from runtime.response.replay import ResponseReplay
from runtime.response.standing import RESPONSES

DATA_BYTES_MAX: Final = 512 * 1024
"""Larger data stays behind; a reference to the API goes instead."""
PAYLOAD_MAX: Final = 1 << 20
HEADER_BYTES_MAX: Final = 2048
"""What the headers below can come to, JetStream's among them: NATS counts them as part of a message."""

LATE_SECONDS: Final = 10.0
"""How late the public subjects may be before somebody is warned."""

_EVENT: Final = b"event: "
_DATA: Final = b"\ndata: "


def messages(batch: Batch, incarnation: str, payload_max: int = PAYLOAD_MAX) -> Sequence[Message]:
    """One message for each wire event of the batch, for a server that takes `payload_max` bytes.

    Raises `UnsafeToken` for ids that fit no subject.
    """
    data_max = min(DATA_BYTES_MAX, payload_max - HEADER_BYTES_MAX)
    prefix = f"rayspond.{_token(batch.tenant)}"
    response = _token(batch.channel)
    made: list[Message] = []
    for number, frame in enumerate(batch.frames or (), batch.first):
        kind, data = _parse(frame)
        if batch.last and number == batch.end and _cancelled(kind, data):
            kind = "response.cancelled"
        identity = f"{incarnation}:{response}:{number}"
        headers = {
            "Nats-Msg-Id": identity,
            "ce-specversion": "1.0",
            "ce-id": identity,
            "ce-source": f"/rayspond/{batch.tenant}",
            "ce-type": kind,
            "ce-subject": response,
            "ce-datacontenttype": "application/json",
            "ce-position": str(batch.position),
            "ce-version": str(batch.version),
            "ce-sequencenumber": str(number),
        }
        if len(data) > data_max:
            headers["ce-dataref"] = f"/v1/responses/{response}?stream=true&starting_after={number - 1}"
            data = b""
        subject = f"{prefix}.{_class(kind, batch.transient)}.{response}.{_tokens(kind)}"
        made.append((subject, data, headers))
    return made


def response_relay(
    store: EventStore,
    live: LiveTap,
    public: PublicBus,
    hear: Callable[[Batch], None] = lambda batch: None,
) -> Relay:
    """The relay of all responses.  Run it as one task: `run()`.

    `hear` is told of every batch that is to be published, once, in the order of the log.
    """
    heard = 0

    async def open_replay(stream: str) -> ResponseReplay | None:
        head = await store.head(stream)
        known = head is not None and head.category in RESPONSES
        return ResponseReplay(store, stream) if known else None

    def compose(batch: Batch, incarnation: str, payload_max: int) -> Sequence[Message]:
        nonlocal heard
        # What the bus did not take is composed again, and was heard before.
        if batch.position > heard:
            hear(batch)
            heard = batch.position
        return messages(batch, incarnation, payload_max)

    return Relay(store, live, public, Renders(open_replay).batch, compose)


def tokens_of(batch: Batch) -> int:
    """The tokens that a response has used, by the last of its batches."""
    if not batch.last or not batch.frames:
        return 0
    _, data = _parse(batch.frames[-1])
    return int(orjson.loads(data)["response"]["usage"]["total_tokens"])


def relay_warnings(relay: Relay, connection: NatsConnection) -> list[str]:
    """What subscribers, and whoever follows live, should know of NATS, in sentences for people."""
    warnings = []
    if not connection.connected:
        warnings.append(f"NATS is away ({connection.last_error}): what is live comes from the log, later")
    elif relay.problem is not None:
        remedy = ""
        if relay.capture_away > 0:
            remedy = "; give its disk room, then start nats-server again: a full disk stops it until then"
        warnings.append(f"the public subjects wait: {relay.problem}{remedy}")
    if relay.lag_seconds > LATE_SECONDS:
        warnings.append(f"the public subjects are {relay.lag} positions, {relay.lag_seconds:.0f} s, late")
    if damaged := len(relay.damaged):
        warnings.append(
            f"streams of which nothing is published any more, because they were damaged: {damaged}; "
            "`rayspond audit verify` names them"
        )
    if (old := connection.old_server) is not None:
        warnings.append(old)
    return warnings


def captured_subjects(deltas: bool) -> tuple[str, ...]:
    """What JetStream keeps: events, deltas if asked, transient ones never."""
    return ("rayspond.*.events.>", "rayspond.*.deltas.>") if deltas else ("rayspond.*.events.>",)


def _parse(frame: bytes) -> tuple[str, bytes]:
    """The type and the data of an SSE frame, `event: <type>\\ndata: <json>\\n\\n`."""
    end = frame.index(_DATA)
    if not frame.startswith(_EVENT):
        raise ValueError(f"not an SSE frame: {frame[:40]!r}")
    return frame[len(_EVENT) : end].decode(), frame[end + len(_DATA) : -2]


def _cancelled(kind: str, data: bytes) -> bool:
    """Whether a response ended because it was cancelled; on the wire its type is `response.incomplete`."""
    if kind != "response.incomplete":
        return False
    return bool(orjson.loads(data)["response"]["status"] == "cancelled")


def _class(kind: str, transient: bool) -> str:
    if transient:
        return "transient"
    return "deltas" if kind.endswith(".delta") else "events"


@lru_cache(maxsize=4096)
def _token(name: str) -> str:
    return safe_token(name)


@lru_cache(maxsize=256)
def _tokens(kind: str) -> str:
    return ".".join(safe_token(token) for token in kind.split("."))

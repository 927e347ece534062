"""One response run without a store: commands in, records, wire events and state out."""

from __future__ import annotations

from collections.abc import Sequence

from eventstore.events import Record
from runtime.model import Usage
from runtime.response import commands as c
from runtime.response.aggregate import INITIAL, ResponseState
from runtime.response.codec import SCHEMA, encode
from runtime.response.commands import Command
from runtime.response.decider import decide
from runtime.response.events import Event, Resume
from runtime.response.request import ResponseRequest
from runtime.response.state import step
from runtime.response.wire import WireEvent

RESPONSE_ID = "resp_" + "5e" * 16
USAGE = Usage(input_tokens=11, output_tokens=7, cached_tokens=3, reasoning_tokens=2)
QUESTION = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]}

ACTIVATE = c.Activate(host="host-1", actor="response-actors-1", node="node-1", pid=42)
FINISH = c.Finish(at=1_800_000_009)
CANCEL = c.Cancel(at=1_800_000_008, by="key_1")


def create(request: ResponseRequest | None = None, **fields: object) -> c.Create:
    """A create command; `fields` override the usual ones."""
    usual: dict[str, object] = {
        "id": RESPONSE_ID,
        "project": "default",
        "key_id": "key_1",
        "at": 1_800_000_000,
        "request": request or ResponseRequest(model="simulated", input=(QUESTION,)),
        "agent": {"upstream": "simulated"},
        "code": "0.1.0",
    }
    return c.Create(**(usual | fields))  # type: ignore[arg-type]  # The callers' names are Create's own.


def begin(resume: Resume = "first") -> c.BeginCall:
    """The upstream accepts a call."""
    return c.BeginCall(
        resume=resume,
        upstream="simulated",
        upstream_request_id="req_1",
        request_digest="00" * 32,
    )


class Running:
    """A response with its log in memory."""

    def __init__(self) -> None:
        self.state: ResponseState = INITIAL
        self.events: list[Event] = []
        self.records: list[Record] = []
        self.wire: list[WireEvent] = []

    def obey(self, *commands: Command) -> list[Event]:
        """Decide and record, each command's events a record of its own."""
        decided: list[Event] = []
        for command in commands:
            events = decide(command, self.state)
            self._record(events)
            decided += events
        return decided

    def _record(self, events: Sequence[Event]) -> None:
        if not events:
            return
        encoded = [encode(event) for event in events]
        self.records.append(
            Record(
                position=len(self.records) + 1,
                stream=RESPONSE_ID,
                first_version=len(self.events),
                types=tuple(event.type for event in encoded),
                schema=SCHEMA,
                epoch=1,
                recorded_at=1_800_000_000_000,
                digest=b"",
                chain=b"",
                payload=tuple(event.data for event in encoded),
            )
        )
        for event in events:
            wire, self.state = step(self.state, event)
            self.wire += wire
            self.events.append(event)

    @property
    def sse(self) -> bytes:
        """All frames that were shown."""
        return b"".join(event.frame for event in self.wire)

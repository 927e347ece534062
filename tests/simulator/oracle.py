"""What must hold of every stream, whatever happened: checked against the log once everything is over."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from actors.host import CLIENT_GONE
from eventstore.block import unpack
from eventstore.events import ERASED, Head, Record
from eventstore.verify import audit
from runtime.response import events as e
from runtime.response import recorder
from runtime.response.aggregate import ENDINGS
from runtime.response.codec import decode
from runtime.response.items import is_response_id
from runtime.response.state import INITIAL, ResponseState
from runtime.response.wire import data_of
from tests.simulator.clients import Client, Seen, problems_of
from tests.simulator.conversations import judge_conversations
from tests.simulator.machines import World
from tests.simulator.upstream import is_counted

TERMINAL: Final = ("response.completed", "response.failed", "response.incomplete")


async def judge(world: World, clients: Sequence[Client]) -> list[str]:
    """Everything that is wrong."""
    log = world.database.log
    problems = [*world.database.problems, *problems_of(clients)]
    if (wrong := (await audit(log)).first) is not None:
        problems.append(f"the log does not verify: {wrong}")
    seen = {one.id: one for client in clients for one in client.seen}
    problems += judge_conversations(world.database.records)
    for stream, records in world.database.records.items():
        if not is_response_id(stream):
            continue
        head = log._streams[stream].head
        problems += [f"{stream}: {problem}" for problem in _Stream(world, head, records).judge(seen[stream])]
    problems += [
        f"{one.id} was accepted and is not in the log"
        for one in seen.values()
        if one.accepted and one.id not in world.database.records
    ]
    keys = Counter(
        one.command.idempotency.key
        for one in seen.values()
        if one.command.idempotency is not None and one.id in world.database.records
    )
    problems += [f"key {key} made {made} responses" for key, made in keys.items() if made > 1]
    for host in world.living_hosts():
        if host.host is not None and (running := host.host.running()):
            problems.append(f"{host.spec.name} still runs {running}")
        if host.spec.name in log._buried:
            problems.append(f"{host.spec.name} was buried and is still there")
        if world.provider.open[host.process]:
            problems.append(f"{host.spec.name} left a call to its upstream open")
    return problems


def digest_of(world: World) -> str:
    """SHA-256 over every byte of the log, for comparing two runs."""
    digest = hashlib.sha256()
    for record in world.database.log._records:
        digest.update(repr(record).encode())
    return digest.hexdigest()


class _Stream:
    """One response: its records, what they show, and what others saw of it."""

    def __init__(self, world: World, head: Head, records: Sequence[Record]) -> None:
        self.world = world
        self.head = head
        self.records = records
        self.problems: list[str] = []
        self.state: ResponseState = INITIAL
        self.frames: list[bytes] = []
        self.events: list[e.Event] = []

    def judge(self, seen: Seen) -> list[str]:
        self._fold()
        self._judge_log()
        self._judge_kept()
        shown = [json.loads(data_of(frame)) for frame in self.frames]
        self._judge_shown(shown)
        self._judge_words(shown, seen)
        self._judge_calls()
        self._judge_clients(seen)
        self._judge_subscriber()
        return self.problems

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def _fold(self) -> None:
        for record in self.records:
            if record.payload is None:
                break
            events = decode(record)
            batch, self.state = recorder.batch(self.state, events, record)
            self._expect(batch.first == len(self.frames), f"frame {batch.first} follows {len(self.frames)}")
            self.frames += batch.frames or ()
            self.events += events

    def _judge_log(self) -> None:
        head = self.head
        ends = [event for event in self.events if isinstance(event, ENDINGS)]
        self._expect(len(ends) == 1, f"it has {len(ends)} ends: {ends}; its head says {head.state}")
        if ends:
            after = self.events[self.events.index(ends[0]) + 1 :]
            self._expect(not [a for a in after if not isinstance(a, e.Erased)], f"after its end: {after}")
        epochs = [record.epoch for record in self.records]
        self._expect(epochs == sorted(epochs), f"its epoch falls: {epochs}")
        self._expect(head.owner is None, f"it is over and belongs to {head.owner}")
        erased = any(ERASED in record.types for record in self.records)
        status = "erased" if erased else self.state.status.value
        self._expect(head.state == status, f"its head says {head.state}, its events {status}")

    def _judge_kept(self) -> None:
        """The log holds what was appended, but for words that were erased; and so do its blocks."""
        kept = self.world.database.log._streams[self.head.stream]
        appended = [
            replace(record, payload=None)
            if self.head.state == "erased" and ERASED not in record.types
            else record
            for record in self.records
        ]
        self._expect(kept.records == appended, "the log does not hold what was appended")
        unpacked = [record for block in kept.blocks for record in unpack(block, kept.salts[-1][1])]
        self._expect(unpacked == appended[: len(unpacked)], "its blocks do not hold what was appended")
        self._expect(self.head.sealed is bool(unpacked), f"its head says sealed: {self.head.sealed}")

    def _judge_shown(self, shown: Sequence[dict[str, Any]]) -> None:
        numbers = [event["sequence_number"] for event in shown]
        self._expect(numbers == list(range(len(shown))), f"its numbers are {numbers}")
        ends = [event["type"] for event in shown if event["type"] in TERMINAL]
        self._expect(len(ends) == 1, f"it shows the ends {ends}")
        if not ends:
            return
        if shown[-1]["type"] != ends[0]:
            self.problems.append(f"it shows {shown[-1]['type']} after its end")
            return
        digest = hashlib.sha256(b"".join(data_of(frame) + b"\n" for frame in self.frames)).hexdigest()
        recorded = next(event.shown for event in self.events if isinstance(event, ENDINGS))
        self._expect(digest == recorded, "the digest of what it showed is not the recorded one")
        texts = [
            part["text"]
            for item in shown[-1]["response"]["output"]
            for part in item.get("content", ())
            if part["type"] == "output_text"
        ]
        self._expect(_text(shown) == "".join(texts), f"its deltas say {_text(shown)!r}, its end {texts}")

    def _judge_words(self, shown: Sequence[dict[str, Any]], seen: Seen) -> None:
        if not shown or shown[-1]["type"] not in TERMINAL:
            return
        final, manner = shown[-1]["response"], seen.manner
        for item in final["output"]:
            if item["type"] == "function_call" and item["status"] == "completed":
                whole = item["arguments"].startswith('{"') and item["arguments"].endswith('"}')
                self._expect(whole, f"a whole function call has the arguments {item['arguments']}")
        self.problems += self.world.till.judge(final["output"], self.events)
        completed = final["status"] == "completed"
        if manner.reads_as_one:
            words = manner.words if completed else None
            self._expect(is_counted(_text(shown), words), f"it says {_text(shown)!r}, as a {manner}")
        by = next((event.by for event in self.events if isinstance(event, e.ResponseCancelled)), None)
        if by == CLIENT_GONE:
            left = seen.left and not seen.command.request.background
            self._expect(left, "it was ended because nobody listened, and nobody had left")
        elif by is not None:
            self._expect(seen.cancelled or seen.deleted, "it was cancelled, and nobody asked for it")
        if manner.refuses and completed:
            self.problems.append("its model refused, and it was completed")

    def _judge_calls(self) -> None:
        """Nothing but the call in flight is bought again."""
        provider = self.world.provider
        activations = {record.epoch for record in self.records}
        again = sum(isinstance(event, e.ModelCallFailed | e.ToolFinished) for event in self.events)
        taken = self.head.epoch - self.head.sealed  # Sealing raises it, too.
        most = taken + len(activations) + provider.failed[self.head.stream] + again
        calls = provider.calls[self.head.stream]
        self._expect(calls <= most, f"{calls} calls were made, at most {most} were needed")

    def _judge_clients(self, seen: Seen) -> None:
        for number, frame in seen.frames.items():
            same = number < len(self.frames) and self.frames[number] == frame
            self._expect(same, f"a client saw {frame!r} as number {number}, which is not what the log shows")

    def _judge_subscriber(self) -> None:
        """Complete and in order, but for what was erased before it was told."""
        identity = f":{self.head.stream}:"
        heard = [message for key, message in self.world.public.heard.items() if identity in key]
        numbers = [int(headers["ce-sequencenumber"]) for _, _, headers in heard]
        self._expect(numbers == sorted(numbers), f"a subscriber heard its events as {numbers}")
        if self.head.state != "erased":
            self._expect(
                len(numbers) == len(self.frames), f"a subscriber heard {numbers} of {len(self.frames)}"
            )
        for number, (_, payload, _) in zip(numbers, heard, strict=True):
            same = number < len(self.frames) and data_of(self.frames[number]) == payload
            self._expect(same, f"a subscriber heard {payload!r} as number {number}")


def _text(shown: Sequence[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in shown if event["type"] == "response.output_text.delta")

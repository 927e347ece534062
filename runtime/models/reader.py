"""What the adapters over HTTP have in common: bytes in, batches of events out, errors told apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from runtime.model import JSON, CallStarted, ModelError, ModelEvent
from runtime.models.http import Answer, Http
from runtime.models.json_text import loads
from runtime.models.sse import EventParser
from runtime.models.upstream_errors import in_stream

# What reading JSON of an unexpected shape raises.
NONSENSE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)


class ErrorObject(Exception):
    """The upstream reports an error within its stream."""

    def __init__(self, error: JSON) -> None:
        super().__init__(error)
        self.error = error


class Reader(Protocol):
    """Understands one API's stream.  Its methods may raise `ErrorObject` and anything of `NONSENSE`."""

    ended: bool
    """Whether `CallEnded` is among the events."""

    def feed(self, data: bytes) -> None:
        """One event's data."""
        ...

    def whole(self, value: JSON) -> None:
        """An answer that is no stream."""
        ...

    def at_end(self) -> None:
        """The stream is over."""
        ...

    def take(self) -> list[ModelEvent]:
        """The events since the last time."""
        ...


async def read(
    answer: Answer, reader: Reader, http: Http, digest: str
) -> AsyncGenerator[Sequence[ModelEvent]]:
    """The events of one answer, a batch for each network read.  Raises `ModelError`."""
    if answer.kind not in ("application/json", "text/event-stream", ""):
        instead = f"answered with {answer.kind[:100]} in the place of an event stream; check its url"
        raise http.error("upstream_protocol", instead)
    yield [CallStarted(upstream_request_id=answer.request_id, request_digest=digest)]
    parser = None if answer.kind == "application/json" else EventParser()
    while not reader.ended:
        data = await (answer.read() if parser else answer.all())
        failure = _understand(parser, reader, data, http)
        answer.complete = reader.ended
        # What came before the failure was said.
        if batch := reader.take():
            yield batch
        if failure is not None:
            raise failure


def _understand(parser: EventParser | None, reader: Reader, data: bytes, http: Http) -> ModelError | None:
    """Feed one network read, or a whole answer, to the reader; the error that it means, if it means one."""
    try:
        if parser is None:
            reader.whole(loads(data))
        else:
            _feed(parser, reader, data)
    except ErrorObject as reported:
        return in_stream(http.upstream.name, reported.error, http.secrets)
    except NONSENSE as reason:
        told = str(reason) if type(reason) is ValueError else "something unreadable"
        return http.error("upstream_protocol", f"sent what is no answer of its API: {told}"[:300])
    return None if reader.ended or (data and parser is not None) else http.interrupted()


def _feed(parser: EventParser, reader: Reader, data: bytes) -> None:
    """One network read; an empty one is the end, which also ends an event that no blank line did."""
    for event in parser.feed(data or b"\n\n"):
        reader.feed(event)
        if reader.ended:
            return
    if not data:
        reader.at_end()


def read_logprobs(told: JSON) -> tuple[Mapping[str, JSON], ...]:
    """What an upstream tells of tokens, with all that the Responses API has; it may tell nothing."""
    return tuple(
        {**_token(one), "top_logprobs": [_token(top) for top in one.get("top_logprobs") or ()]}
        for one in told or ()
    )


def _token(one: Mapping[str, JSON]) -> dict[str, JSON]:
    # A token may be a piece of a character, which no JSON text can hold.
    token = str(one["token"]).encode("utf-8", "replace").decode()
    bytes_ = one.get("bytes")
    known = [int(byte) for byte in bytes_] if bytes_ is not None else list(token.encode())
    return {"token": token, "bytes": known, "logprob": float(one["logprob"])}


def count(value: JSON) -> int:
    """A number of tokens as an upstream gives it; none where it is none."""
    return value if isinstance(value, int) and value > 0 else 0

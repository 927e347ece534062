"""A response as any Ray driver of the cluster sees it: `actors.get("resp_...")`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import ray

from actors.config import NAMESPACE
from actors.orders import CancelOrder, Moved, RuntimeUnavailable, UnknownResponse
from actors.ray_supervisor import SUPERVISOR

WAIT = 10.0
"""Seconds that one call waits for further events."""


class ResponseHandle:
    """Looks at a response and steers it, from any driver that is connected to the cluster.

    Its methods block; they raise `UnknownResponse` where there is no such response, and Ray's
    `GetTimeoutError` where the cluster does not answer.
    """

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        self._supervisor: Any = ray.get_actor(SUPERVISOR, namespace=NAMESPACE)

    def __repr__(self) -> str:
        return f"<response {self.id}>"

    def state(self) -> dict[str, Any]:
        """The response object, as `GET /v1/responses/{id}` gives it."""
        body: bytes | None = _result(self._supervisor.state.remote(self.id))
        if body is None:
            raise UnknownResponse(self.id)
        state: dict[str, Any] = json.loads(body)
        return state

    def cancel(self) -> dict[str, Any]:
        """End the response, whatever runs it; its final state.  A no-op on one that is over."""
        deadline = time.monotonic() + WAIT
        while refusal := _result(self._supervisor.command.remote(CancelOrder(self.id, "driver"))):
            if not isinstance(refusal, Moved | RuntimeUnavailable) or time.monotonic() > deadline:
                raise refusal
            # It is on its way to another host.
            time.sleep(0.1)
        return self.state()

    def events(self, after: int = -1) -> Iterator[dict[str, Any]]:
        """Its wire events with a `sequence_number` above `after`, live, until the last one."""
        self.state()
        over = False
        while not over:
            events, over = _result(self._supervisor.events.remote(self.id, after, WAIT))
            for data in events:
                event: dict[str, Any] = json.loads(data)
                after = event["sequence_number"]
                yield event


def _result(call: Any) -> Any:
    # What comes back is whatever the method returns, which Ray's types do not tell.
    return ray.get(call, timeout=3 * WAIT)

"""A response as its log tells it, for programs inside the cluster."""

from __future__ import annotations

from contextlib import aclosing

from eventstore.follow import follow
from eventstore.ports import LiveBus, LogReader
from runtime.response.replay import ResponseReplay, fold_stream
from runtime.response.snapshot import response_object
from runtime.response.wire import data_of, dumps


class ResponseView:
    """Reads responses; changes nothing."""

    def __init__(self, reader: LogReader, bus: LiveBus) -> None:
        self._reader = reader
        self._bus = bus

    async def state(self, response_id: str) -> bytes | None:
        """The response object as JSON, or None where there is no such response."""
        snapshot = await self._reader.document(response_id, "snapshot")
        if snapshot is not None:
            return snapshot
        state, _ = await fold_stream(self._reader, response_id)
        return dumps(response_object(state)) if state.created is not None else None

    async def events(self, response_id: str, after: int, timeout: float) -> tuple[list[bytes], bool]:
        """The JSON of the next wire events after number `after`, and whether they are the last.

        Waits up to `timeout` seconds for some; then there are none.
        """
        async with (
            self._bus.subscribe(response_id) as live,
            aclosing(
                follow(ResponseReplay(self._reader, response_id), live, after, silence=timeout)
            ) as batches,
        ):
            async for batch in batches:
                if batch is None:
                    return [], False
                return [data_of(frame) for frame in batch.frames or ()], batch.last
        return [], True

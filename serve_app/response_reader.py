"""Reads the responses of one project.  What is unknown, erased or another project's is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventstore.events import Head
from eventstore.ports import LogReader
from runtime.response import history
from runtime.response.aggregate import Status
from runtime.response.codec import decode
from runtime.response.items import is_response_id
from runtime.response.replay import fold_stream
from runtime.response.snapshot import response_object
from runtime.response.standing import OVER, QUEUED, RUNNING, STORED, TRANSIENT, is_background
from runtime.response.state import ResponseState, fold
from runtime.response.wire import dumps
from serve_app.errors import no_response

SHOWN: Final = tuple(status.value for status in Status if status not in (Status.NEW, Status.ERASED))
"""The statuses that clients see."""
_STANDINGS: Final = (*RUNNING, *OVER)
"""The same as heads say it."""


class ResponseReader:
    """Every method raises `StoreUnavailable` while the log cannot be reached."""

    def __init__(self, reader: LogReader, project: str) -> None:
        self._reader = reader
        self._project = project

    async def find(self, response_id: str) -> Head:
        """Where a response stands.  Raises `ApiError` (404)."""
        head = await self._reader.head(response_id) if is_response_id(response_id) else None
        if head is None or not self._is_shown(head):
            raise no_response(response_id)
        return head

    async def place(self, response_id: str) -> int:
        """Where a list goes on behind a response, also one that was erased while its page was read.

        Raises `ApiError` (404).
        """
        head = await self._reader.head(response_id) if is_response_id(response_id) else None
        if head is None or head.tenant != self._project or head.category != STORED:
            raise no_response(response_id, "after")
        return head.created

    async def body(self, response_id: str) -> bytes:
        """The response object as JSON: as it was shown at the end, or as it stands now.

        Raises `ApiError` (404) where it was erased in the meantime.
        """
        snapshot = await self._reader.document(response_id, history.SNAPSHOT)
        if snapshot is not None:
            return snapshot
        state, _ = await fold_stream(self._reader, response_id)
        if state.created is None or state.status == Status.ERASED:
            raise no_response(response_id)
        return dumps(response_object(state))

    async def first_body(self, response_id: str) -> bytes:
        """The response object as it was when it was created.  Raises `ApiError` (404)."""
        return dumps(response_object(await self._created(response_id)))

    async def input_items(self, response_id: str) -> list[dict[str, Any]]:
        """The request's items, oldest first, each with an id.  Raises `ApiError` (404)."""
        return history.input_items(await self._created(response_id))

    async def _created(self, response_id: str) -> ResponseState:
        # The request is in the first event; nothing behind it is needed.
        async for record in self._reader.read(response_id):
            state = fold(decode(record)[:1])
            if state.created is not None:
                return state
            break
        raise no_response(response_id)

    async def page(self, *, status: str, after: int | None, newest_first: bool, limit: int) -> Sequence[Head]:
        """Heads of responses in the order of their creation, behind the one created at `after`.

        Only those of `status`, unless that is empty.
        """
        return await self._reader.heads(
            category=STORED,
            tenant=self._project,
            states=_standings(status) if status else _STANDINGS,
            after=after,
            newest_first=newest_first,
            limit=limit,
        )

    def _is_shown(self, head: Head) -> bool:
        if head.tenant != self._project or head.state not in _STANDINGS:
            return False
        if head.category == TRANSIENT:
            # Neither listed nor continued, and shown only to a client that waits for it.
            return head.state in RUNNING or is_background(head)
        return head.category == STORED


def _standings(status: str) -> Sequence[str]:
    return QUEUED if status == Status.QUEUED else (status,)

"""What a response is told: read from the log when it is created, and again when it is taken over."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from actors.attachment import Attachment
from eventstore.ports import LogReader
from runtime.response import history
from runtime.response.commands import Create
from runtime.response.items import response_of
from runtime.response.request import ResponseRequest

RESPONSES_AT_ONCE: Final = 64
"""Responses whose items are read by one query: what is held of them has a bound."""


class Context:
    """Reads contexts.  Every method raises `StoreUnavailable`, and what forbids to continue what is named:

    `PreviousResponseNotFound`, `PreviousResponseInProgress` or `UnknownConversation`.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def prepare(
        self, command: Create, attachment: Attachment | None
    ) -> tuple[Create, list[history.Item]]:
        """The command with its references resolved, and what the model is told.  Raises `InvalidInput`."""
        request = command.request
        told: history.Items = ()
        if attachment is not None:
            told = (await attachment.read(command.project)).items
        if wanted := history.references(request):
            items = {str(item["id"]): item for item in told}
            items |= await self._look_up([id for id in wanted if id not in items], command.project)
            request = replace(request, input=history.resolve(request.input, items))
            command = replace(command, request=request)
        context = await self._context(request, command.project, told)
        history.check_pairing(context)
        return command, context

    async def read(
        self, request: ResponseRequest, project: str, attachment: Attachment | None
    ) -> list[history.Item]:
        """What the model of a response that was created was told.

        Its conversation cannot have changed: it is locked as long as the response runs.
        """
        told: history.Items = ()
        if attachment is not None:
            told = (await attachment.read(project)).items
        return await self._context(request, project, told)

    async def _context(
        self, request: ResponseRequest, project: str, told: history.Items
    ) -> list[history.Item]:
        parent = request.previous_response_id
        if parent is None:
            return history.context((), request, told)
        lineage = await self._reader.lineage(parent, history.ITEMS)
        return history.context(history.ancestry(lineage, parent, project), request)

    async def _look_up(self, wanted: list[str], project: str) -> dict[str, history.Item]:
        """The items that can be found in stored responses of the project."""
        ids: dict[str, set[str]] = {}
        for item_id in wanted:
            if (response_id := response_of(item_id)) is not None:
                ids.setdefault(response_id, set()).add(item_id)
        items: dict[str, history.Item] = {}
        responses = list(ids)
        for start in range(0, len(responses), RESPONSES_AT_ONCE):
            page = responses[start : start + RESPONSES_AT_ONCE]
            documents = await self._reader.documents(project, page, history.ITEMS)
            for response_id, document in documents.items():
                items |= history.find(document, ids[response_id])
        return items

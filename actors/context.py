"""What a response is told: read from the log when it is created, and again when it is taken over."""

from __future__ import annotations

from dataclasses import replace

from actors.attachment import Attachment
from eventstore.ports import LogReader
from runtime.response import history
from runtime.response.commands import Create
from runtime.response.items import response_of
from runtime.response.request import ResponseRequest


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
        documents: dict[str, bytes | None] = {}
        items: dict[str, history.Item] = {}
        for item_id in wanted:
            response_id = response_of(item_id)
            if response_id is None:
                continue
            if response_id not in documents:
                head = await self._reader.head(response_id)
                ours = head is not None and head.tenant == project
                documents[response_id] = (
                    await self._reader.document(response_id, history.ITEMS) if ours else None
                )
            document = documents[response_id]
            if document is not None and (item := history.find(document, item_id)) is not None:
                items[item_id] = item
        return items

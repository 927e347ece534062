"""The endpoints under `/v1/conversations`: parse, command, read.  No rules here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from actors.orders import AggregateOrder, RuntimeUnavailable
from eventstore.errors import ClaimTaken, OutcomeUnknown
from eventstore.events import Claim
from runtime.conversation.aggregate import CATEGORY, CONVERSATION
from runtime.conversation.commands import (
    AddItems,
    ChangeMetadata,
    Command,
    CreateConversation,
    EraseConversation,
    RemoveItem,
)
from runtime.conversation.events import Item
from runtime.conversation.state import ConversationState, is_conversation_id, new_conversation_id
from runtime.sealing import Seal
from serve_app.call import Call
from serve_app.conversation_body import ConversationBody, ItemReader, ItemsBody, MetadataBody
from serve_app.errors import maybe_added, no_conversation, no_item
from serve_app.idempotency import REPLAYED, IdempotencyKeys, conflict
from serve_app.json_body import parse_object, read_body
from serve_app.limits import Limits
from serve_app.paging import item_list, item_page
from serve_app.request_body import metadata_within
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime


class ConversationRoutes:
    """Handlers; each answers its call once or raises."""

    def __init__(
        self,
        runtime: Runtime,
        limits: Limits,
        keys: IdempotencyKeys,
        seal: Seal,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._runtime = runtime
        self._limits = limits
        self._keys = keys
        self._seal = seal
        self._now = now
        self._random_bytes = random_bytes

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        one = "/v1/conversations/{conversation_id}"
        items = one + "/items"
        item = items + "/{item_id}"
        return (
            Endpoint("POST", "/v1/conversations", self.create, "Begin a conversation"),
            Endpoint("GET", one, self.show, "Show a conversation"),
            Endpoint("POST", one, self.update, "Replace a conversation's metadata"),
            Endpoint("DELETE", one, self.delete, "Erase a conversation; its responses stay"),
            Endpoint("POST", items, self.add_items, "Add items to a conversation"),
            Endpoint("GET", items, self.list_items, "List the items of a conversation"),
            Endpoint("GET", item, self.show_item, "Show an item of a conversation"),
            Endpoint("DELETE", item, self.remove_item, "Remove an item from a conversation"),
        )

    # -- Conversations -------------------------------------------------------------------------------------

    async def create(self, call: Call) -> None:
        """Begin one, perhaps with items."""
        fields, size = await self._fields(call)
        given = ConversationBody.checked(fields)
        metadata = self._metadata(given.metadata)
        items = self._items(call, given.items or (), size, self._random_bytes(16))
        id, who = new_conversation_id(self._random_bytes(16)), call.principal
        at = int(self._now())
        await self._obey(CreateConversation(id, who.project, who.key_id, at, metadata, items))
        await call.answer_json(_shown(ConversationState(id, created_at=at, metadata=metadata)))

    async def show(self, call: Call) -> None:
        """One as it stands."""
        await call.answer_json(_shown(await self._find(call)))

    async def update(self, call: Call) -> None:
        """Replace its metadata."""
        fields, _ = await self._fields(call)
        metadata = self._metadata(MetadataBody.checked(fields).metadata)
        id = (await self._find(call)).id
        await self._obey(ChangeMetadata(id, call.principal.project, metadata, call.principal.by))
        await call.answer_json(_shown(await self._find(call)))

    async def delete(self, call: Call) -> None:
        """Erase it."""
        id = (await self._find(call)).id
        at = int(self._now())
        await self._obey(EraseConversation(id, call.principal.project, at, call.principal.by))
        await call.answer_json({"id": id, "object": "conversation.deleted", "deleted": True})

    # -- Items ---------------------------------------------------------------------------------------------

    async def add_items(self, call: Call) -> None:
        """Add items, and show them under their new ids."""
        fields, size = await self._fields(call)
        given = ItemsBody.checked(fields).items
        scope = f"{call.params['conversation_id']}:items"
        once = self._keys.asked(call, fields, self._now())
        entropy = self._random_bytes(16) if once is None else self._keys.entropy(scope, once)
        items = self._items(call, given, size, entropy)
        id = (await self._find(call)).id
        if once is not None and await self._keys.claimed(scope, once) is not None:
            call.headers = (*call.headers, REPLAYED)
        else:
            claim = None
            if once is not None:
                claim = Claim(scope, once.key, once.fingerprint, id, once.expires_at)
            if not await self._add(AddItems(id, call.principal.project, items, call.principal.by), claim):
                call.headers = (*call.headers, REPLAYED)
        await call.answer_json(item_list([_told(item) for item in items]))

    async def _add(self, command: AddItems, claim: Claim | None) -> bool:
        """Add the items; False where the same request added them meanwhile."""
        try:
            await self._obey(command, claim)
        except ClaimTaken as taken:
            if claim is None or taken.fingerprint != claim.fingerprint:
                raise conflict() from None
            return False
        except (OutcomeUnknown, RuntimeUnavailable):
            if claim is not None:
                raise  # Sent again they are added once.
            # A host that does not answer may have added them all the same.
            raise maybe_added() from None
        return True

    async def list_items(self, call: Call) -> None:
        """A page of its items."""
        state = await self._find(call)
        await call.answer_json(item_page(call, [_told(item) for item in state.items], state.removed))

    async def show_item(self, call: Call) -> None:
        """One of its items."""
        await call.answer_json(_told(_item_of(await self._find(call), call)))

    async def remove_item(self, call: Call) -> None:
        """Remove an item, and show the conversation."""
        state = await self._find(call)
        item = _item_of(state, call)
        project, by = call.principal.project, call.principal.by
        await self._obey(RemoveItem(state.id, project, str(item["id"]), by))
        await call.answer_json(_shown(state))

    # -- How -----------------------------------------------------------------------------------------------

    async def _fields(self, call: Call) -> tuple[Mapping[str, Any], int]:
        """The body, which may be empty, and its size."""
        body = await read_body(call, self._limits.body, self._limits.body_seconds)
        return parse_object(body) if body.strip() else {}, len(body)

    def _metadata(self, given: dict[str, Any] | None) -> dict[str, Any]:
        return metadata_within(given or {}, self._limits.metadata)

    def _items(self, call: Call, given: Sequence[Any], size: int, entropy: bytes) -> tuple[Item, ...]:
        unseal = partial(self._seal.open, call.principal.project)
        items, left_out = ItemReader(self._limits, unseal, entropy).read(given, size)
        if left_out:
            call.warn(f"not served here, left out: {', '.join(left_out)}")
        return items

    async def _find(self, call: Call) -> ConversationState:
        """The conversation that the path names.  Raises `ApiError` (404)."""
        id = call.params["conversation_id"]
        if is_conversation_id(id):
            state, _ = await CONVERSATION.read(self._runtime.reader, id)
            if state.belongs_to(call.principal.project):
                return state
        raise no_conversation(id)

    async def _obey(self, command: Command, claim: Claim | None = None) -> None:
        await self._runtime.change(AggregateOrder(CATEGORY, command.conversation, command, claim))


def _item_of(state: ConversationState, call: Call) -> Item:
    id = call.params["item_id"]
    item = state.item(id)
    if item is None:
        raise no_item(id)
    return item


def _shown(state: ConversationState) -> dict[str, Any]:
    """The conversation object."""
    return {
        "id": state.id,
        "object": "conversation",
        "created_at": state.created_at,
        "metadata": state.metadata,
    }


def _told(item: Item) -> dict[str, Any]:
    """The item without what only its upstream may see again."""
    return {key: value for key, value in item.items() if key != "_upstream"}

"""What a conversation can go through: each a list of commands.

The logs beside this file were written from these, and are replayed for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from eventstore.events import Record
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.commands import ChangeMetadata, Command, CreateConversation
from runtime.event_codec import SCHEMA
from tests.unit.conversation.kit import ATTACH, CREATE, ERASE, ID, OURS, add, detach, item, remove

OUTPUT: Final = {
    "id": "fc_" + "5e" * 16 + "000000",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "look",
    "arguments": '{"at":"the tree"}',
    "_upstream": {"name": "vllm", "id": "fc_upstream"},
}
BEGUN: Final = CreateConversation(
    ID, OURS, None, 1_800_000_000, {}, (item(1, "Gr\u00fc\u00df \U0001f30d"), item(2))
)

CONVERSATIONS: Final[Mapping[str, Sequence[Command]]] = {
    "a_life": [
        BEGUN,
        add(item(3)),
        ChangeMetadata(ID, OURS, {"topic": "trees", "tags": ["a", None]}, "key_1"),
        ATTACH,
        detach(item(3), OUTPUT),
        remove(2),
    ],
    "running": [CREATE, ATTACH],
    "without_an_answer": [CREATE, add(item(1)), ATTACH, detach()],
    "erased": [CREATE, add(item(1)), ERASE],
}


def recorded(commands: Sequence[Command]) -> list[Record]:
    """The scenario, decided by today's rules: a record for each command."""
    state, records, version = CONVERSATION.initial, list[Record](), 0
    for command in commands:
        events = CONVERSATION.decide(command, state)
        state = CONVERSATION.fold(events, state)
        encoded = [CONVERSATION.codec.encode(event) for event in events]
        types, payload = tuple(new.type for new in encoded), tuple(new.data for new in encoded)
        records.append(Record(len(records) + 1, ID, version, types, SCHEMA, 1, 0, b"", b"", payload))
        version += len(events)
    return records


def state_json(records: Sequence[Record]) -> bytes:
    """What the records fold to."""
    state = CONVERSATION.initial
    for record in records:
        state = CONVERSATION.fold(CONVERSATION.codec.decode(record), state)
    return orjson.dumps(state, option=orjson.OPT_INDENT_2)

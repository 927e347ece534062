"""Conversations under any order of commands, each of which may arrive twice, beside a simple model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eventstore.events import Record
from runtime.aggregate import Refused
from runtime.conversation import commands as c
from runtime.conversation import events as e
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.errors import ConversationLocked, UnknownConversation
from runtime.conversation.state import from_json, to_json
from tests.depth import examples
from tests.unit.conversation.kit import ID, OURS, item

PROJECTS = st.sampled_from([OURS, OURS, OURS, "theirs"])
RESPONSES = st.sampled_from(["resp_" + digit * 32 for digit in "01"])
NUMBERS = st.integers(0, 5)


class ConversationMachine(RuleBasedStateMachine):
    """Anybody may ask for anything at any time; refusals change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[e.Event] = []
        self.state = CONVERSATION.initial
        self.texts: list[str] | None = None
        """Of the items, as they should be; None where there is no conversation."""
        self.running: str | None = None
        self.gone = False
        self.fresh = 0

    def ask(self, command: c.Command) -> bool:
        """Obey it twice; whether it was obeyed at all."""
        for attempt in range(2):
            try:
                events = CONVERSATION.decide(command, self.state)
            except Refused as refused:
                self.check_refusal(command, refused)
                return False
            assert attempt == 0 or not events, "the second time writes nothing"
            self.events += events
            self.state = CONVERSATION.fold(events, self.state)
        return True

    def check_refusal(self, command: c.Command, refused: Refused) -> None:
        if isinstance(refused, ConversationLocked):
            assert self.running is not None
        else:
            assert isinstance(refused, UnknownConversation)
            assert self.texts is None or command.project != OURS

    @rule(project=PROJECTS)
    def create(self, project: str) -> None:
        if self.texts is None and project == OURS:
            before = bool(self.state.id)
            self.ask(c.CreateConversation(ID, project, None, 0, {}))
            self.texts = None if before else []

    @rule(project=PROJECTS, count=st.integers(0, 3))
    def add(self, project: str, count: int) -> None:
        self.fresh += count
        texts = [str(self.fresh - n) for n in range(count)]
        items = tuple(item(100 + int(text), text) for text in texts)
        if self.ask(c.AddItems(ID, project, items, None)):
            assert self.texts is not None
            self.texts += texts

    @rule(project=PROJECTS, place=NUMBERS)
    def remove(self, project: str, place: int) -> None:
        chosen = self.state.items[place : place + 1]
        item_id = str(chosen[0]["id"]) if chosen else "msg_unknown"
        if self.ask(c.RemoveItem(ID, project, item_id, None)) and chosen:
            assert self.texts is not None
            del self.texts[place]

    @rule(project=PROJECTS, value=NUMBERS)
    def change(self, project: str, value: int) -> None:
        if self.ask(c.ChangeMetadata(ID, project, {"value": value}, None)):
            assert self.state.metadata == {"value": value}

    @rule(project=PROJECTS, response_id=RESPONSES)
    def attach(self, project: str, response_id: str) -> None:
        if self.ask(c.AttachResponse(ID, project, response_id)):
            self.running = response_id

    @rule(response_id=RESPONSES, places=st.lists(NUMBERS, max_size=3))
    def detach(self, response_id: str, places: list[int]) -> None:
        """It leaves an item of its own, and some that it was sent back."""
        self.fresh += 1
        back = [self.state.items[place] for place in places if place < len(self.state.items)]
        left = [item(100 + self.fresh, str(self.fresh)), *back]
        ours = self.running == response_id
        assert self.ask(c.DetachResponse(ID, OURS, response_id, tuple(left)))
        if ours:
            assert self.texts is not None
            self.texts += [each["content"][0]["text"] for each in left]
            self.running = None

    @rule(project=PROJECTS)
    def erase(self, project: str) -> None:
        if self.ask(c.EraseConversation(ID, project, 0, None)):
            self.texts = None

    @invariant()
    def it_is_what_it_should_be(self) -> None:
        assert [each["content"][0]["text"] for each in self.state.items] == (self.texts or [])
        assert self.state.attached == self.running
        assert self.state.belongs_to(OURS) is (self.texts is not None)

    @invariant()
    def every_item_can_be_named(self) -> None:
        ids = [each["id"] for each in self.state.items]
        assert len(set(ids)) == len(ids)

    @invariant()
    def it_reads_back_the_same(self) -> None:
        encoded = [CONVERSATION.codec.encode(event) for event in self.events]
        types, payload = tuple(new.type for new in encoded), tuple(new.data for new in encoded)
        record = Record(1, ID, 0, types, 1, 1, 0, b"", b"", payload)
        assert CONVERSATION.fold(CONVERSATION.codec.decode(record), CONVERSATION.initial) == self.state
        assert from_json(to_json(self.state)) == self.state


TestConversation = ConversationMachine.TestCase
TestConversation.settings = settings(max_examples=examples(100), stateful_step_count=40, deadline=None)

"""A response read back from the log, on the real in-memory store."""

from __future__ import annotations

import pytest

from eventstore.errors import StreamNotFound
from eventstore.events import NO_STREAM, Append, Batch, NewStream, Unit
from eventstore.follow import follow
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from runtime.response import recorder
from runtime.response.codec import SCHEMA, encode
from runtime.response.commands import Command, Erase
from runtime.response.decider import decide
from runtime.response.replay import ResponseReplay, fold_stream
from runtime.response.request import ResponseRequest
from runtime.response.state import INITIAL, Status
from tests.golden.scenarios import SCENARIOS
from tests.running import ACTIVATE, CANCEL, RESPONSE_ID, create

ERASE = Erase(1, "key_1", "asked to")


class Recording:
    """A response whose events go into a store, with the batches its actor would have published."""

    def __init__(self) -> None:
        self.store = MemoryEventStore()
        self.state = INITIAL
        self.version = NO_STREAM
        self.live: list[Batch] = []

    async def obey(self, *commands: Command) -> None:
        for command in commands:
            events = decide(command, self.state)
            append = Append(
                RESPONSE_ID,
                self.version,
                1,
                [encode(event) for event in events],
                SCHEMA,
                NewStream("response", "default", "queued") if self.version == NO_STREAM else None,
                erase=command == ERASE,
            )
            [recorded] = await self.store.append(Unit([append]))
            batch, self.state = recorder.batch(self.state, events, recorded)
            self.version = recorded.last_version
            self.live.append(batch)

    @property
    def frames(self) -> list[bytes]:
        return [frame for batch in self.live for frame in batch.frames or ()]


async def read(replay: ResponseReplay, after: int = -1) -> list[Batch]:
    return [batch async for batch in replay.read(after)]


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "erased" not in name])
async def test_a_replay_gives_the_very_batches_that_were_live(name: str) -> None:
    recording = Recording()
    await recording.obey(*SCENARIOS[name])
    batches = await read(ResponseReplay(recording.store, RESPONSE_ID))
    assert batches == recording.live
    assert [batch.last for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert batches[-1].end == recording.state.next_number - 1


@pytest.mark.parametrize("name", [name for name in SCENARIOS if "erased" not in name])
async def test_what_was_read_already_need_not_be_read_again(name: str) -> None:
    """Records that come one by one show what reading them shows; one too many or too few is refused."""
    recording = Recording()
    await recording.obey(*SCENARIOS[name])
    records = [record async for record in recording.store.read(RESPONSE_ID)]
    replay = ResponseReplay(recording.store, RESPONSE_ID)
    for before, record, live in zip([None, *records], records, recording.live, strict=False):
        assert [replay.following(other) for other in records if other is not record] == [None] * (
            len(records) - 1
        )
        assert replay.following(record) == live
        assert before is None or replay.following(before) is None
    assert replay.state == recording.state
    [told] = await read(replay, after=recording.state.next_number + 5)
    assert told.last


async def test_reading_again_goes_on_where_it_left_off() -> None:
    """Healing costs what is new: records that were folded are not read again."""
    recording = Recording()
    answer = SCENARIOS["answer"]
    await recording.obey(*answer[:4])
    replay = ResponseReplay(recording.store, RESPONSE_ID)
    first = await read(replay)
    assert await read(replay, after=first[-1].end) == []
    await recording.obey(*answer[4:])
    second = await read(replay, after=first[-1].end)
    assert [frame for batch in [*first, *second] for frame in batch.frames or ()] == recording.frames
    assert second[0].version > first[-1].version


async def test_a_replay_that_starts_in_the_middle_leaves_out_what_is_past() -> None:
    recording = Recording()
    await recording.obey(*SCENARIOS["answer"])
    batches = await read(ResponseReplay(recording.store, RESPONSE_ID), after=6)
    assert batches[0].first <= 7 <= batches[0].end
    assert batches == recording.live[-len(batches) :]


async def test_the_end_is_told_even_where_nothing_is_left() -> None:
    recording = Recording()
    await recording.obey(*SCENARIOS["answer"])
    replay = ResponseReplay(recording.store, RESPONSE_ID)
    end = recording.live[-1].end
    for _ in range(2):
        [told] = await read(replay, after=end + 5)
        assert told.last


async def test_a_reader_may_go_back() -> None:
    """After an overflow a follower reads pages again."""
    recording = Recording()
    await recording.obey(*SCENARIOS["answer"])
    replay = ResponseReplay(recording.store, RESPONSE_ID)
    await read(replay)
    assert await read(replay) == recording.live


async def test_an_unknown_response_has_nothing() -> None:
    store = MemoryEventStore()
    assert await read(ResponseReplay(store, RESPONSE_ID)) == []
    assert await fold_stream(store, RESPONSE_ID) == (INITIAL, NO_STREAM)


async def test_an_erased_response_cannot_be_read_and_says_nothing_of_itself() -> None:
    recording = Recording()
    await recording.obey(create(), ACTIVATE, CANCEL, ERASE)
    with pytest.raises(StreamNotFound):
        await read(ResponseReplay(recording.store, RESPONSE_ID))
    state, version = await fold_stream(recording.store, RESPONSE_ID)
    assert (state.status, state.created, version) == (Status.ERASED, None, recording.version)
    assert state == recording.state


async def test_a_follower_at_the_end_does_not_notice_the_erasure() -> None:
    recording = Recording()
    await recording.obey(create(), CANCEL)
    replay = ResponseReplay(recording.store, RESPONSE_ID)
    end = (await read(replay))[-1].end
    await recording.obey(ERASE)
    [told] = await read(replay, after=end)
    assert (told.count, told.last) == (0, True)


async def test_following_gives_every_frame_once_whatever_the_bus_lost() -> None:
    """The replay is what `follow` heals from, the batches of the actor are what it hears live."""
    recording = Recording()
    bus = MemoryLiveBus()
    await recording.obey(*SCENARIOS["answer"][:3])
    async with bus.subscribe(RESPONSE_ID) as live:
        await recording.obey(*SCENARIOS["answer"][3:])
        for batch in recording.live[3::2]:
            bus.publish(batch)
        frames: list[bytes] = []
        async for heard in follow(ResponseReplay(recording.store, RESPONSE_ID), live):
            frames += (heard and heard.frames) or ()
    assert frames == recording.frames


async def test_folding_goes_on_from_a_known_state() -> None:
    recording = Recording()
    await recording.obey(*SCENARIOS["tool_turns"][:4])
    state, version = await fold_stream(recording.store, RESPONSE_ID)
    await recording.obey(*SCENARIOS["tool_turns"][4:])
    assert await fold_stream(recording.store, RESPONSE_ID, state, version) == (
        recording.state,
        recording.version,
    )


async def test_batches_name_the_tenant_and_what_must_not_be_kept() -> None:
    recording = Recording()
    await recording.obey(create(ResponseRequest("m", store=False)), CANCEL, ERASE)
    assert {(batch.tenant, batch.transient) for batch in recording.live} == {("default", True)}
    assert [batch.last for batch in recording.live] == [False, True, True]

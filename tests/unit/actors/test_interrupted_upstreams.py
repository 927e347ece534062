"""Upstreams that break off at every delta, over real HTTP: what people read is one answer, and bought once.

The fake upstream continues half a message, goes on where it is asked to in words, says the same again or
words every call differently; it counts its calls and its words.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from actors.response_actor import ResponseActor
from runtime.catalog import ChatOptions, Continues, Resolved, Upstream
from runtime.models.http import Connections
from runtime.models.open import open_model
from runtime.response import events as e
from runtime.response.commands import Create
from tests.fakes.script import words
from tests.fakes.upstream import FakeUpstream
from tests.unit.actors.kit import ID, ScriptedModel, World, always, check_shown, create, text_of

DELTAS = 6
TEXT = "".join(words(DELTAS))
CONTINUES = "continues=vllm"
GOES_ON = "goes_on=1"


@dataclass
class Answer:
    """What became of one response, and what its upstream saw."""

    text: str
    final: Any
    calls: list[e.ModelCallStarted]
    bodies: list[dict[str, Any]]
    bought: int
    """Words that the upstream said."""

    @property
    def ways(self) -> list[str]:
        """In which way each call was asked."""
        return [call.resume for call in self.calls]

    @property
    def numbered(self) -> list[str]:
        """Its words, without the mark of the call that said them."""
        return [word.partition("-")[0] for word in self.text.split(" ")]


async def answer(script: str, resume: str, continues: Continues | None = None) -> Answer:
    """Ask a model of the fake for its words, patiently."""
    world = World(ScriptedModel(always()))
    async with FakeUpstream() as fake, aclosing(Connections()) as connections:
        chat = ChatOptions(continues=continues)
        agent = Resolved(
            "fake",
            Upstream("fake", "openai_chat", fake.url, chat=chat),
            f"fake?deltas={DELTAS}&{script}",
            resume=resume,  # type: ignore[arg-type]  # tests pass one of the four
        )
        ports = replace(
            world.ports(),
            open_model=lambda agent: open_model(Resolved.from_public(agent).upstream, {}, connections),
            sleep=lambda seconds: asyncio.sleep(0),
        )
        actor = ResponseActor(ports, ID)
        command: Create = replace(create(), agent=agent.public())
        await actor.create(command, start=True)
        await actor.run()
        shown = await world.shown()
        calls = [event for event in await world.events() if isinstance(event, e.ModelCallStarted)]
        bodies = [call["body"] for call in fake.calls]
        return Answer(text_of(shown), check_shown(shown), calls, bodies, fake.deltas)


@pytest.mark.parametrize("unique", ["", "&unique=1"])
@pytest.mark.parametrize(
    ("resume", "able"),
    [
        ("prefix", CONTINUES),
        ("prefix", f"{CONTINUES}&trims=1"),
        ("prompt", GOES_ON),
        ("prompt", f"{GOES_ON}&trims=1"),
        ("prefix", f"{GOES_ON}&refuses_half=1"),
        ("repeat", GOES_ON),
    ],
)
@pytest.mark.parametrize("chars", [0, 1, 4])
async def test_who_can_go_on_goes_on_wherever_it_is_cut(
    resume: str, able: str, unique: str, chars: int
) -> None:
    """Every word is there once and in its place, also where every call words it differently."""
    size = len(TEXT) // chars if chars else DELTAS
    for cut in range(1, size, 3 if chars else 1):
        script = f"{able}{unique}&chars={chars}&cut_after={cut}&fail_first=1"
        got = await answer(script, resume)
        assert got.final["status"] == "completed"
        assert len(got.final["output"]) == 1, "the same item went on"
        assert got.numbered == TEXT.split(" "), script
        assert unique or got.text == TEXT
        asked_in_two_ways = bool(unique and resume == "repeat") or "refuses" in able
        assert len(got.bodies) <= 2 + asked_in_two_ways, "only the call that broke off was made again"
        if resume != "repeat" and not chars:
            assert got.bought <= DELTAS + 1, "only what was not said is bought"
        if not asked_in_two_ways:
            assert got.final["usage"]["output_tokens"] == got.bought, "what was cut off counts too"


@pytest.mark.parametrize("server", ["vllm", "sglang", "tgi", "llama.cpp"])
async def test_the_log_says_where_and_how_it_went_on(server: Continues) -> None:
    """And with which words the server is told: the presets differ."""
    got = await answer(f"continues={server}&cut_after=3&fail_first=1", "prefix", server)
    assert got.ways == ["first", "prefix"]
    assert got.bodies[1]["messages"][-1]["role"] == "assistant"
    assert [call.attempt for call in got.calls] == [0, 1]
    assert got.final["usage"]["output_tokens"] == DELTAS


@pytest.mark.parametrize("resume", ["prefix", "prompt", "repeat"])
async def test_who_says_the_same_again_is_heard_once_whatever_it_was_asked(resume: str) -> None:
    for cut in range(1, len(TEXT), 4):
        got = await answer(f"chars=1&cut_after={cut}&fail_first=1", resume)
        if resume == "prefix" and cut < 16:
            continue  # A server that continues nothing, called one that does: docs/models.md.
        assert got.text == TEXT
        assert len(got.bodies) == 2


async def test_an_upstream_that_breaks_off_again_and_again_is_joined_at_every_seam() -> None:
    """Each call may say one more word, in a wording of its own."""
    got = await answer(f"{CONTINUES}&unique=1&cut_after=1&fail_first=2", "prefix")
    assert got.numbered == TEXT.split(" ")
    assert [word.partition("-")[2] for word in got.text.split(" ")] == ["1", "2", "3", "3", "3", "3"]
    assert got.ways == ["first", "prefix", "prefix"]
    assert got.bought == DELTAS


async def test_a_server_that_says_the_half_once_more_is_heard_once() -> None:
    got = await answer(f"{CONTINUES}&echoes=1&cut_after=3&fail_first=1", "prefix")
    assert got.text == TEXT


async def test_where_reasoning_is_parsed_out_of_a_continued_message_it_is_asked_in_words() -> None:
    """The server took what goes on for thought: nothing of it is lost."""
    got = await answer(f"{CONTINUES}&{GOES_ON}&thinks_on=1&cut_after=2&fail_first=1", "prefix")
    assert got.ways == ["first", "prefix", "prompt"]
    assert got.text == TEXT
    assert [item["type"] for item in got.final["output"]] == ["message"]

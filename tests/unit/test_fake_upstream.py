"""The fake upstream speaks as the real client expects: else what is proved against it proves little."""

from typing import Any

import openai
import pytest

from tests.fakes.script import words
from tests.fakes.upstream import FakeUpstream

USER: Any = [{"role": "user", "content": "hi"}]


async def test_the_real_client_reads_both_apis_streamed_and_whole() -> None:
    async with FakeUpstream() as fake, openai.AsyncOpenAI(base_url=fake.url, api_key="k") as client:
        assert [model.id async for model in client.models.list()] == ["fake", "fake-large"]
        chat = await client.chat.completions.create(model="fake?reasoning=2", messages=USER)
        assert chat.choices[0].message.content == "".join(words(8))
        stream = await client.chat.completions.create(model="fake", messages=USER, stream=True)
        pieces = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
        assert "".join(piece or "" for piece in pieces) == "".join(words(8))
        response = await client.responses.create(model="fake?reasoning=2", input="hi")
        assert response.output_text == "".join(words(8))
        async with client.responses.stream(model="fake?tools=2&interleave=1", input="hi") as events:
            final = await events.get_final_response()
        assert [item.type for item in final.output] == ["function_call"] * 2


async def test_an_interrupted_answer_can_go_on() -> None:
    async with FakeUpstream() as fake, openai.AsyncOpenAI(base_url=fake.url, api_key="k") as client:
        whole = "".join(words(8))
        for said in (1, 10, len(whole) - 1):
            half: Any = [
                *USER,
                {"role": "assistant", "content": whole[:said]},
                {"role": "user", "content": "Go on."},
            ]
            chat = await client.chat.completions.create(model="fake?goes_on=1", messages=half)
            assert whole[:said] + (chat.choices[0].message.content or "") == whole


@pytest.mark.parametrize("chars", [0, *(pytest.param(chars, marks=pytest.mark.thorough) for chars in (1, 3))])
async def test_an_answer_that_every_call_words_differently_goes_on_word_by_word(chars: int) -> None:
    """At every character: the word in the middle is ended as it began, the others are this call's."""
    script = f"unique=1&goes_on=1&continues=vllm&deltas=4&chars={chars}"
    async with FakeUpstream() as fake, openai.AsyncOpenAI(base_url=fake.url, api_key="k") as client:
        first = await client.chat.completions.create(model=f"fake?{script}", messages=USER)
        whole = first.choices[0].message.content or ""
        assert whole == "".join(words(4, "-1"))
        for said in range(1, len(whole)):
            half: Any = [*USER, {"role": "assistant", "content": whole[:said]}]
            extra = {"continue_final_message": True, "add_generation_prompt": False}
            chat = await client.chat.completions.create(
                model=f"fake?{script}", messages=half, extra_body=extra
            )
            asked: Any = [*half, {"role": "user", "content": "Go on."}]
            told = await client.chat.completions.create(model=f"fake?{script}", messages=asked)
            for n, answer in enumerate((chat, told)):
                text = whole[:said] + (answer.choices[0].message.content or "")
                salts = [word.partition("-")[2] for word in text.split(" ")]
                assert [word.partition("-")[0] for word in text.split(" ")] == "".join(words(4)).split(" ")
                ended = whole[:said].count(" ")
                assert salts[:ended] == ["1"] * ended
                assert set(salts[ended + 1 :]) <= {str(2 * said + n)}


async def test_what_was_asked_can_be_looked_up() -> None:
    async with FakeUpstream() as fake, openai.AsyncOpenAI(base_url=fake.url, api_key="k") as client:
        await client.responses.create(model="fake", input="hi")
        unique = [await client.responses.create(model="fake?unique=1", input="hi") for _ in range(2)]
        assert unique[0].output_text != unique[1].output_text
        seen = await client.get("/_calls", cast_to=dict[str, Any])
        assert seen["count"] == 3
        assert seen["by_model"] == {"fake": 1, "fake?unique=1": 2}
        assert seen["calls"][0]["body"]["input"] == "hi"
        await client.post("/_script", body={"mine": "text=as told"}, cast_to=dict[str, Any])
        assert (await client.responses.create(model="mine", input="hi")).output_text == "as told"

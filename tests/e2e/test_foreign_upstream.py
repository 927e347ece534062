"""Both adapters against an OpenAI-compatible server that nobody here wrote."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall

from tests.launching import Instance, until

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / "envs" / "foreign"
TEXT = "The quick brown fox — naïve, 漢字 🦊 — jumps over the lazy dog, again and again."
RULES: list[dict[str, Any]] = [
    {"when": "say it", "text": TEXT, "usage": {"input": 21, "output": 13}},
    {"when": "think", "text": TEXT, "reasoning": "Foxes jump."},
    {"when": "weather", "tools": [{"name": "get_weather", "args": {"city": "Paris"}}]},
    {"when": "rain", "text": "Take an umbrella."},
    {"when": "locked", "error": {"status": 401, "message": "no such key"}},
    {"when": "slower", "error": {"status": 429, "message": "too many"}},
    {"when": "broken", "error": {"status": 500, "message": "oh no"}},
]
MODELS = """
  foreign-chat: {upstream: foreign-chat, model: gpt-foreign}
  foreign-responses: {upstream: foreign-responses, model: gpt-foreign}
"""
UPSTREAMS = """
  foreign-chat: {{url: "{url}/v1", max_retries: 1}}
  foreign-responses: {{url: "{url}/v1", adapter: openai_responses, max_retries: 1}}
"""
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}

both = pytest.mark.parametrize("model", ["foreign-chat", "foreign-responses"])


@pytest.fixture(scope="module")
def environment_python() -> Path:
    """The Python of an environment with that server; made once, then kept beside the tests."""
    requirements = HERE / "foreign_server.txt"
    made, python = ENVIRONMENT / "made", ENVIRONMENT / "bin" / "python"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not made.exists() or made.read_text() != digest:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True, timeout=120)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([str(python), *install, "-r", str(requirements)], check=True, timeout=240)
        made.write_text(digest)
    return python


@pytest.fixture(scope="module")
def foreign(environment_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL, while it runs."""
    log = tmp_path_factory.mktemp("foreign") / "server.log"
    with log.open("wb") as output:
        command = [str(environment_python), str(HERE / "foreign_server.py"), json.dumps(RULES)]
        server = subprocess.Popen(command, stdout=output)
    try:
        until(lambda: b"\n" in log.read_bytes(), "the foreign server's address")
        yield log.read_text().strip()
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module", autouse=True)
def offered(instance: Instance, foreign: str, client: openai.OpenAI) -> Iterator[None]:
    """Its models are offered, without a restart: SIGHUP has the models' file read again."""
    path = instance.data_dir.parent / "models.yaml"
    before = path.read_text()
    more = before.replace("upstreams:", "upstreams:" + UPSTREAMS.format(url=foreign).rstrip(), 1)
    more = more.replace("\nmodels:", "\nmodels:" + MODELS.rstrip(), 1)
    path.write_text(more)
    instance.process.send_signal(signal.SIGHUP)
    until(lambda: all(_offers(client)), "the new models")
    yield
    path.write_text(before)
    instance.process.send_signal(signal.SIGHUP)
    until(lambda: not any(_offers(client)), "the old models")


@both
def test_its_words_arrive_unchanged(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="say it") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == TEXT
    assert len(deltas) > 3, "it was streamed"
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (21, 13)
    assert client.responses.create(model=model, input="say it").output_text == TEXT


@both
def test_its_function_calls_make_the_round_trip(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input="the weather?", tools=[WEATHER])
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(
        model=model,
        previous_response_id=first.id,
        input=[output, {"role": "user", "content": "And with rain?"}],
        tools=[WEATHER],
    )
    assert second.output_text == "Take an umbrella."


def test_its_reasoning_comes_before_its_words(client: openai.OpenAI) -> None:
    response = client.responses.create(model="foreign-responses", input="think")
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert "Foxes jump." in response.output[0].to_json()
    assert response.output_text == TEXT


@both
@pytest.mark.parametrize(
    ("asked", "code"),
    [("locked", "upstream_auth"), ("slower", "rate_limit_exceeded"), ("broken", "server_error")],
)
def test_its_errors_are_told(client: openai.OpenAI, model: str, asked: str, code: str) -> None:
    response = client.responses.create(model=model, input=asked)
    assert response.error is not None
    assert (response.status, response.error.code) == ("failed", code)


def _offers(client: openai.OpenAI) -> list[bool]:
    """Whether each replica offers them; each answers some of the questions."""
    return ["foreign-chat" in [model.id for model in client.models.list()] for _ in range(8)]

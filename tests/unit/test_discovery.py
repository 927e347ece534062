"""The look for model servers on this machine."""

import asyncio
import socket

from runtime.discovery import PORTS, discover
from tests.fakes.upstream import FakeUpstream


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_servers_that_list_models_are_found_and_the_rest_is_passed_over() -> None:
    async with (
        FakeUpstream() as ollama,
        FakeUpstream(models=("simulated", "x")) as rayspond,
        FakeUpstream(models=()) as empty,
    ):
        # It listens and never accepts: the system connects, and nobody answers.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            ports = {
                "silent": int(silent.getsockname()[1]),
                "nobody": _free_port(),
                "ollama": ollama.port,
                "rayspond": rayspond.port,
                "empty": empty.port,
            }
            async with asyncio.timeout(3):
                found = await discover(ports)
        assert [one.upstream.name for one in found] == ["ollama"]
        assert found[0].upstream.url == ollama.url
        assert list(found[0].models) == ["fake", "fake-large"]


def test_the_usual_ports() -> None:
    assert PORTS == {"ollama": 11434, "vllm": 8000, "lm-studio": 1234, "llama.cpp": 8080}

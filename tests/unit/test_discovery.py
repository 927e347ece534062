"""The look for model servers on this machine."""

import asyncio
import socket

from runtime.catalog import Catalog
from runtime.discovery import PORTS, discover
from serve_app.launch.ports import free_port
from tests.fakes.upstream import FakeUpstream
from tests.patience import PATIENCE_S


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
                "nobody": free_port(),
                "ollama": ollama.port,
                "rayspond": rayspond.port,
                "empty": empty.port,
            }
            async with asyncio.timeout(PATIENCE_S):
                found = await discover(ports)
        assert [one.upstream.name for one in found] == ["ollama"]
        assert found[0].upstream.url == ollama.url
        assert list(found[0].models) == ["fake", "fake-large"]


async def test_servers_that_can_continue_half_a_message_are_told_by_the_owner_of_their_models() -> None:
    async with FakeUpstream(owner="llamacpp") as one, FakeUpstream(owner="somebody") as other:
        found = await discover({"vllm": one.port, "ollama": other.port})
    assert [server.upstream.chat.continues for server in found] == ["llama.cpp", None]
    catalog = Catalog().with_found({server.upstream.name: server.upstream for server in found})
    assert [catalog.resolve(name).resume for name in ("vllm", "ollama")] == ["prefix", "prompt"]


def test_the_usual_ports() -> None:
    assert PORTS == {"ollama": 11434, "vllm": 8000, "lm-studio": 1234, "llama.cpp": 8080}

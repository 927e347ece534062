"""Looks for model servers on this machine, where they usually listen, by asking for their models."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from runtime.catalog import ChatOptions, Continues, Upstream
from runtime.model import ModelError
from runtime.models.http import Connections, Http
from runtime.models.simulated_script import NAME as SIMULATED

PORTS: Mapping[str, int] = {"ollama": 11434, "vllm": 8000, "lm-studio": 1234, "llama.cpp": 8080}
"""The ports that these servers choose when nobody tells them."""
OWNERS: Mapping[str, Continues] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
"""What servers that can continue half a message call the owner of their models."""
# On the same machine an answer takes a few milliseconds; a start must not wait for what is not there.
PATIENCE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answered, and the models that it listed."""

    upstream: Upstream
    models: Sequence[str]


async def discover(ports: Mapping[str, int] = PORTS, host: str = "127.0.0.1") -> Sequence[Found]:
    """Every server of `ports` (name to port) that lists models, in the order of `ports`.  Never raises."""
    async with aclosing(Connections()) as connections:
        looks = (_look(name, host, port, connections) for name, port in ports.items())
        return [found for found in await asyncio.gather(*looks) if found is not None]


async def _look(name: str, host: str, port: int, connections: Connections) -> Found | None:
    upstream = Upstream(name=name, adapter="openai_chat", url=f"http://{host}:{port}/v1")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            owners = await Http(upstream, connections, {}).owners()
    except (ModelError, TimeoutError):
        return None
    # Whoever lists `simulated` is a Rayspond, perhaps this very one.
    if not owners or SIMULATED in owners:
        return None
    # On a usual port another server may listen than the one that chose it.
    known: Sequence[Continues] = [OWNERS[owner] for owner in owners.values() if owner in OWNERS]
    chat = ChatOptions(continues=known[0] if known else None)
    return Found(replace(upstream, chat=chat), list(owners))

"""Programs as others write them, in processes of their own: openai-agents, and OpenAI's client for Node."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launching import Instance

HERE = Path(__file__).parent
LIMIT_S = 200
SAID = "This answer is simulated. You wrote: Hello"
WEATHER = "This answer is simulated. The tool get_weather answered: Sunny"


def told_by(*command: str, directory: Path) -> dict[str, Any]:
    """What a program printed as its last line."""
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_openai_agents(instance: Instance) -> None:
    """Tools, a stream, a handoff, a structured answer, stateless, chained, and its conversation session."""
    url = f"{instance.url}/v1"
    told = told_by(sys.executable, "-m", "tests.e2e.agents_program", url, directory=HERE.parents[1])
    assert told == {
        "tool": f"{WEATHER} in simulated.",
        "streamed": [f"{WEATHER} in simulated.", True],
        "handoff": ["Specialist", told["handoff"][1]],
        "typed": {"name": "simulated", "inhabitants": 1},
        "stateless": f"{WEATHER} in simulated.",
        "chained": f"{WEATHER} in simulated.",
        "session": ["user", "assistant", "user", "assistant"],
    }
    assert "transfer_to_specialist" in told["handoff"][1]


@pytest.fixture(scope="module")
def node_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program with the packages that it needs."""
    directory = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(HERE / "node", directory)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


def test_openai_for_node(instance: Instance, node_program: Path) -> None:
    """All that an ordinary program does with it."""
    told = told_by("node", "client.mjs", f"{instance.url}/v1", directory=node_program)
    assert told == {
        "plain": SAID,
        "streamed": {"text": SAID, "deltas": SAID, "first": "response.created", "last": "response.completed"},
        "again": {"text": SAID, "first": 3},
        "parsed": {"name": "simulated", "inhabitants": 1},
        "tool": {"arguments": {"city": "simulated"}, "text": f"{WEATHER}."},
        "custom": [["custom_tool_call", "sql", "string"]],
        "background": "completed",
        "items": ["Hello"],
        "tokens": True,
        "compacted": ["message", "compaction"],
        "conversation": True,
        "remembered": ["user", "user", "assistant"],
        "gone": 404,
        "refused": [422, "temperature", "decimal_above_max_value", "string"],
        "models": True,
    }

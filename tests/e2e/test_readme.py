"""The README holds, and docs/ray.md: each block is executed, against a running server where it needs one."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from runtime import config
from serve_app import settings
from tests.launching import Instance

ROOT: Final = Path(__file__).parents[2]
ADDRESS: Final = "http://127.0.0.1:8088"
"""Where the README's server is; that of the tests takes its place."""
LIMIT_S: Final = 120


class Block(NamedTuple):
    """A fenced block."""

    page: str
    language: str
    text: str
    line: int
    shown: str | None
    """What the README says that it prints: the `text` block behind it."""


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, each `text` block with the one before it."""
    text = (ROOT / page).read_text()
    found = [
        Block(page, match[1], match[2], text[: match.start()].count("\n") + 1, None)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "text":
            shown = after.text if after is not None and after.language == "text" else None
            yield block._replace(shown=shown)


BLOCKS: Final = (*blocks("README.md"), *blocks("docs/ray.md"))


def _of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def _named(block: Block) -> str:
    return f"{block.page}:{block.line}"


@pytest.fixture
def place(instance: Instance, tmp_path: Path) -> Path:
    """A working directory that looks like the repository with the server's data directory in it."""
    (tmp_path / ".rayspond").symlink_to(instance.data_dir)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(instance: Instance, place: Path, *arguments: str, given: str = "") -> str:
    """Run Python in that place, as a reader would; what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env={**os.environ, "OPENAI_BASE_URL": f"{instance.url}/v1"},
        input=given,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_every_block_is_of_a_kind_that_is_executed() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python", "yaml"}


@pytest.mark.parametrize("block", _of("python"), ids=_named)
def test_python_prints_what_the_page_shows(block: Block, instance: Instance, place: Path) -> None:
    assert block.shown is not None, "show what it prints in a text block behind it"
    printed = run(instance, place, "-c", block.text.replace(ADDRESS, instance.url))
    same = doctest.OutputChecker().check_output(block.shown, printed, doctest.ELLIPSIS)
    assert same, f"shown:\n{block.shown}\nprinted:\n{printed}"


@pytest.mark.parametrize("block", _of("yaml"), ids=_named)
def test_the_models_file_is_accepted(block: Block) -> None:
    catalog = config.parse(block.text, "models.yaml", {"OPENAI_API_KEY": "sk-x"})
    assert set(yaml.safe_load(block.text)["models"]) - {"*"} <= set(catalog.ids())


@pytest.mark.parametrize("block", _of("bash"), ids=_named)
def test_commands_are_those_of_the_makefile_with_settings_that_exist(block: Block) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        variables = [word.partition("=")[0] for word in words if re.match(r"[A-Z_]+=", word)]
        known = {option.variable for option in settings.options()} | {"OPENAI_API_KEY", "ARGS"}
        assert set(variables) <= known
        command = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        assert command[0] == "make"
        for target in command[1:]:
            assert re.search(rf"^{target}:.*## ", makefile, re.M), f"make {target}"
        for word in words:
            if word.startswith("ARGS="):
                flags = re.findall(r"--[a-z-]+", word)
                assert set(flags) <= {option.flag for option in settings.options()}


def test_the_doctor_finds_the_server_well(instance: Instance, place: Path) -> None:
    assert instance.url in run(instance, place, "-m", "serve_app.cli", "doctor")


def test_examples_do_what_they_say(instance: Instance, place: Path) -> None:
    talked = run(instance, place, "examples/conversation.py", given="My name is Ada.\nWho am I?\n\n")
    assert [line.partition("wrote: ")[2] for line in talked.splitlines()] == ["My name is Ada.", "Who am I?"]
    assert "wrote: Well?\n-- resp_" in run(instance, place, "examples/stream.py", "simulated", "Well?")
    resumed = run(instance, place, "examples/resume.py")
    assert resumed.startswith("39 events over 5 connections")
    assert resumed.endswith(" once: True\n")


def test_the_subscriber_hears_a_whole_response(instance: Instance, place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "examples/subscriber.py"], cwd=place, stdout=subprocess.PIPE, text=True
    ) as listening:
        try:
            assert listening.stdout is not None
            assert listening.stdout.readline() == "listening\n"
            mine = instance.post("/v1/responses", {"model": "simulated", "input": "Hello!"})["id"]
            heard: list[list[str]] = []
            while not heard or heard[-1][1:] != [str(len(heard) - 1), "response.completed"]:
                line = listening.stdout.readline().split()
                assert line, "the subscriber ended"
                if line[0] == mine:
                    heard.append(line)
        finally:
            listening.kill()
    assert [int(number) for _, number, _ in heard] == list(range(len(heard)))

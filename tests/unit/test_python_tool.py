"""Python functions as tools: in a thread or awaited, with their key, and never in the way of the host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from runtime.python_tool import THREADS_MAX, PythonTool, open_tool
from runtime.tool import ToolError, in_words, is_run_here, offered
from tests.patience import PATIENCE_S

HERE = "tests.unit.test_python_tool"
RELEASE = threading.Event()


def thread_name(city: str) -> str:
    return f"{city} {threading.current_thread().name}"


async def awaited(city: str, idempotency_key: str) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {
        "city": city,
        "key": idempotency_key,
        "main": threading.current_thread() is threading.main_thread(),
    }


def fails(kind: str) -> None:
    raise {"value": ValueError("no such\n city"), "exit": SystemExit(3), "stop": StopIteration()}[kind]


def waits() -> str:
    RELEASE.wait(20)
    return "late"


def gives(what: str) -> object:
    return {"none": None, "text": "so", "list": [1, "a"], "object": object()}[what]


class Holder:
    """A module's attribute that holds functions."""

    @staticmethod
    def method() -> str:
        return "held"


def tool(name: str, **fields: Any) -> PythonTool:
    return open_tool({"name": name, "python": f"{HERE}:{name}", **fields})


async def run(name: str, **arguments: Any) -> str:
    return await tool(name).run(arguments, "key-1")


async def test_a_function_runs_in_a_thread_and_a_coroutine_in_the_loop() -> None:
    assert await run("thread_name", city="Aachen") == "Aachen tool"
    assert await run("awaited", city="Aachen") == '{"city":"Aachen","key":"key-1","main":true}'
    assert await run("Holder.method") == "held"


async def test_what_is_returned_goes_back_as_text_or_json() -> None:
    assert [await run("gives", what=what) for what in ("none", "text", "list")] == ["null", "so", '[1,"a"]']
    with pytest.raises(ToolError, match="returned a object, which is no JSON"):
        await run("gives", what="object")


async def test_arguments_that_do_not_fit_run_nothing() -> None:
    with pytest.raises(ToolError, match="do not fit the tool: missing a required argument: 'city'"):
        await run("thread_name")
    with pytest.raises(ToolError, match="unexpected keyword argument 'country'"):
        await run("thread_name", city="x", country="y")
    with pytest.raises(ToolError, match="do not fit"):
        await run("thread_name", city="x", idempotency_key="chosen by the model")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("value", "ValueError: no such city"), ("exit", "SystemExit: 3"), ("stop", "StopIteration")],
)
async def test_an_exception_is_told_in_one_line_and_ends_no_host(kind: str, words: str) -> None:
    with pytest.raises(ToolError) as caught:
        await run("fails", kind=kind)
    assert in_words(caught.value) == words


async def test_threads_that_are_left_behind_are_counted_and_hold_up_nobody() -> None:
    RELEASE.clear()
    try:
        for _ in range(THREADS_MAX):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await run("waits")
        with pytest.raises(ToolError, match="Try again later"):
            await run("thread_name", city="x")
    finally:
        RELEASE.set()
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                assert await run("thread_name", city="x")
                return
            except ToolError:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "path",
    ["no_such_module:f", f"{HERE}:no_such", f"{HERE}:HERE", "tests.unit.broken_tool:f"],
)
def test_what_cannot_be_called_is_said(path: str) -> None:
    with pytest.raises(ToolError, match=path.partition(":")[0]):
        open_tool({"python": path})


def test_what_a_model_is_told_of_a_tool() -> None:
    recorded: Mapping[str, Any] = {
        "type": "function",
        "name": "f",
        "description": None,
        "parameters": {},
        "strict": None,
        "python": "m:f",
        "idempotent": True,
        "timeout": 3,
    }
    assert is_run_here(recorded)
    assert set(offered(recorded)) == {"type", "name", "description", "parameters", "strict"}
    theirs = {"type": "function", "name": "g", "x": 1}
    assert not is_run_here(theirs)
    assert offered(theirs) == theirs
    opened = tool("gives", idempotent=True, timeout=3)
    assert (opened.idempotent, opened.timeout_s) == (True, 3)
    assert (tool("gives").idempotent, tool("gives").timeout_s) == (False, 60)

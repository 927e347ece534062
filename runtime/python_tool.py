"""A tool that is a Python function, named by its import path: `package.module:function`.

A coroutine function is awaited in the host's event loop and must not block it; any other runs in a thread of
its own.  A thread cannot be stopped: cancelled or too late, it is left behind and what it returns is dropped.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from runtime.model import JSON, ModelError
from runtime.models.json_text import dumps
from runtime.tool import TIMEOUT_S, ToolError, in_words

KEY: Final = "idempotency_key"
"""The parameter in which a function gets the key of its call, if it has one of this name."""

THREADS_MAX: Final = 64
"""Tools that run in threads of one process, those left behind among them."""

_threads: Final = threading.BoundedSemaphore(THREADS_MAX)


class PythonTool:
    """One function.  See `runtime.tool.Tool`."""

    def __init__(self, function: Callable[..., Any], *, idempotent: bool, timeout_s: float) -> None:
        self.idempotent = idempotent
        self.timeout_s = timeout_s
        self._function = function
        self._signature = inspect.signature(function)
        self._takes_key = KEY in self._signature.parameters

    async def run(self, arguments: Mapping[str, JSON], key: str) -> str:
        """Call the function with the arguments by name.  What it returns is told as text or JSON."""
        given = {**arguments, KEY: key} if self._takes_key else dict(arguments)
        try:
            self._signature.bind(**given)
        except TypeError as reason:
            raise ToolError(f"The arguments do not fit the tool: {reason}.") from None
        call = partial(self._function, **given)
        returned = await (call() if inspect.iscoroutinefunction(self._function) else _in_thread(call))
        if isinstance(returned, str):
            return returned
        try:
            return dumps(returned).decode()
        except ModelError:
            raise ToolError(f"The tool returned a {type(returned).__name__}, which is no JSON.") from None


def open_tool(tool: Mapping[str, JSON]) -> PythonTool:
    """The tool that a configuration names.  Raises `ToolError` where it cannot be imported or called."""
    path = str(tool.get("python"))
    module, _, name = path.partition(":")
    try:
        function = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        if not callable(function):
            raise ToolError(f"{path!r} is no function.")
        return PythonTool(
            function,
            idempotent=bool(tool.get("idempotent", False)),
            timeout_s=float(tool.get("timeout", TIMEOUT_S)),
        )
    except ToolError:
        raise
    except Exception as reason:  # Whatever a foreign module does when it is imported.
        raise ToolError(f"{path!r} cannot be imported: {in_words(reason)}") from reason


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Call it in a thread that nobody waits for at the process's end."""
    if not _threads.acquire(blocking=False):
        raise ToolError(f"{THREADS_MAX} tools are running already. Try again later.")
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.done():
            return  # Nobody waits any more.
        if error is None:
            done.set_result(value)
        else:
            # A future takes no StopIteration, and a thread's SystemExit must not end the host.
            done.set_exception(error if isinstance(error, ToolError) else ToolError(in_words(error)))

    def work() -> None:
        value, error = None, None
        try:
            value = call()
        except BaseException as reason:  # noqa: BLE001  (whatever it is, the model is told)
            error = reason
        finally:
            _threads.release()
        with suppress(RuntimeError):  # The loop may be over by now.
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="tool", daemon=True).start()
    return await done

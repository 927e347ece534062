"""Tools that run on the client, as functions: what every upstream can call.

Custom tools, shells, patches and namespaces are the Responses API's own; a Chat Completions server knows
functions only.  A request is told in functions, and calls of those come back as the items that the client
expects.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from runtime.compaction import as_message
from runtime.model import (
    JSON,
    ArgumentsDelta,
    CallEnded,
    ItemClosed,
    ItemKind,
    ItemOpened,
    ModelError,
    ModelEvent,
    ModelRequest,
)
from runtime.response.items import ACTIONS, ADDITIONAL, CALLS, OUTPUTS, call_of

Fields = Mapping[str, JSON]

NAME_MAX: Final = 64
_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_WHOLE: Final = {"type": "integer"}


@dataclass(frozen=True, slots=True)
class Expressed:
    """A tool of the client, and the function that stands for it."""

    kind: ItemKind
    name: str = ""
    """Its own name, within its namespace."""
    namespace: str | None = None


SHELL: Final[Fields] = {
    "description": "Run shell commands on the user's machine.",
    "parameters": {
        "type": "object",
        "properties": {"commands": _TEXTS, "timeout_ms": _WHOLE, "max_output_length": _WHOLE},
        "required": ["commands"],
    },
}
LOCAL_SHELL: Final[Fields] = {
    "description": "Run one command on the user's machine; `command` is its words.",
    "parameters": {
        "type": "object",
        "properties": {
            "command": _TEXTS,
            "working_directory": _TEXT,
            "timeout_ms": _WHOLE,
            "env": {"type": "object", "additionalProperties": _TEXT},
        },
        "required": ["command"],
    },
}
APPLY_PATCH: Final[Fields] = {
    "description": (
        "Change one file of the user's. `diff` is in the V4A format: lines that begin with a space, + or -, "
        "under @@ headers; for create_file every line begins with +."
    ),
    "parameters": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            "path": _TEXT,
            "diff": _TEXT,
        },
        "required": ["type", "path"],
    },
}
BUILT_IN: Final[Mapping[str, tuple[ItemKind, Fields]]] = {
    "shell": ("shell_call", SHELL),
    "local_shell": ("local_shell_call", LOCAL_SHELL),
    "apply_patch": ("apply_patch_call", APPLY_PATCH),
}
"""Tools that have no name of their own, each with the item that calls it and its function."""


def with_additional(request: ModelRequest) -> ModelRequest:
    """The request with the tools that its items offer among its own, and without those items."""
    named = {
        (tool.get("type"), tool.get("name")): tool
        for item in request.items
        if item.get("type") == ADDITIONAL
        for tool in item["tools"]
    }
    named |= {(tool.get("type"), tool.get("name")): tool for tool in request.tools}
    items = tuple(item for item in request.items if item.get("type") != ADDITIONAL)
    return replace(request, tools=tuple(named.values()), items=items)


class ClientTools:
    """The tools of one request, and their functions."""

    def __init__(self, tools: Sequence[Fields]) -> None:
        self.functions: list[Fields] = []
        self._by_function: dict[str, Expressed] = {}
        self._function_of: dict[Expressed, str] = {}
        taken = {str(tool.get("name")) for tool in tools if tool.get("type") == "function"}
        for tool in tools:
            match tool.get("type"):
                case "namespace":
                    for inner in tool["tools"]:
                        self._add(inner, taken, str(tool["name"]), str(tool.get("description") or ""))
                case _:
                    self._add(tool, taken)

    @property
    def are_plain(self) -> bool:
        """Whether all of them are functions already."""
        return not self._by_function

    def find(self, function: str) -> Expressed | None:
        """The tool behind a function's name, unless it is that very function."""
        return self._by_function.get(function)

    def names(self, choice: Fields) -> list[str]:
        """The functions that a choice of one tool means; several where namespaces use one name twice."""
        kind = choice.get("type")
        if isinstance(kind, str) and kind in BUILT_IN:
            wanted: tuple[str, str] = (BUILT_IN[kind][0], "")
        else:
            wanted = ("custom_tool_call" if kind == "custom" else "function_call", str(choice.get("name")))
        own = [name for tool, name in self._function_of.items() if (tool.kind, tool.name) == wanted]
        return own or [wanted[1]]

    def told(self, request: ModelRequest) -> ModelRequest:
        """The request in functions."""
        return replace(
            request,
            tools=tuple(self.functions),
            tool_choice=self._choice(request.tool_choice),
            items=tuple(self._item(item) for item in request.items),
        )

    def _choice(self, choice: JSON) -> JSON:
        if not isinstance(choice, Mapping):
            return choice
        if choice.get("type") != "allowed_tools":
            return {"type": "function", "name": self.names(choice)[0]}
        names = [name for one in choice["tools"] for name in self.names(one)]
        tools = [{"type": "function", "name": name} for name in dict.fromkeys(names)]
        return {**choice, "tools": tools}

    def _add(self, tool: Fields, taken: set[str], namespace: str | None = None, about: str = "") -> None:
        kind = str(tool.get("type"))
        if kind in BUILT_IN:
            item, shape = BUILT_IN[kind]
            return self._express(Expressed(item), kind, taken, shape)
        name = str(tool.get("name"))
        if kind == "custom":
            return self._express(
                Expressed("custom_tool_call", name, namespace), name, taken, _custom(tool, about)
            )
        if namespace is None:
            self.functions.append(tool)
            return None
        words = "\n".join(filter(None, (tool.get("description"), about and f"Part of {namespace}: {about}")))
        shape = {**{key: tool.get(key) for key in ("parameters", "strict")}, "description": words or None}
        return self._express(Expressed("function_call", name, namespace), name, taken, shape)

    def _express(self, tool: Expressed, name: str, taken: set[str], shape: Fields) -> None:
        if name in taken and tool.namespace is not None:
            name = f"{tool.namespace}__{name}"[:NAME_MAX]
        while name in taken:
            name = f"{name[: NAME_MAX - 1]}_"
        taken.add(name)
        self._by_function[name] = tool
        self._function_of[tool] = name
        known = {"description": None, "parameters": None, "strict": None}
        self.functions.append({"type": "function", "name": name, **known, **shape})

    # -- Items that went before ----------------------------------------------------------------------------

    def _item(self, item: Fields) -> Fields:
        kind = item.get("type")
        if kind == "compaction":
            return as_message(item)
        if kind in CALLS:
            return self._call(item)
        if kind in OUTPUTS and kind != "function_call_output":
            return {"type": "function_call_output", "call_id": call_of(item), "output": _output(item)}
        return item

    def _call(self, item: Fields) -> Fields:
        kind: ItemKind = item["type"]
        own, namespace = str(item.get("name") or ""), item.get("namespace")
        name = self._function_of.get(Expressed(kind, own, namespace)) or own or kind.removesuffix("_call")
        if kind == "function_call":
            return (
                item if name == own and namespace is None else {**_without(item, "namespace"), "name": name}
            )
        arguments: JSON = {"input": item["input"]} if kind == "custom_tool_call" else item[ACTIONS[kind]]
        if kind == "local_shell_call":
            arguments = _without(arguments, "type")
        arguments = {key: value for key, value in arguments.items() if value is not None}
        return {
            "type": "function_call",
            "call_id": call_of(item),
            "name": name,
            "arguments": orjson.dumps(arguments).decode(),
            "status": "completed",
        }


def _without(item: Fields, *keys: str) -> dict[str, JSON]:
    return {key: value for key, value in item.items() if key not in keys}


def _custom(tool: Fields, about: str) -> Fields:
    """A function with one text.  A grammar cannot be enforced by every upstream; the model is told of it."""
    form = tool.get("format") or {}
    words = [str(tool.get("description") or ""), about]
    if form.get("type") == "grammar":
        words.append(f"The input must match this {form.get('syntax')} grammar:\n{form.get('definition')}")
    schema = {"type": "object", "properties": {"input": _TEXT}, "required": ["input"]}
    return {"description": "\n\n".join(filter(None, words)) or None, "parameters": schema}


def _output(item: Fields) -> JSON:
    """An output as a function's: text, or parts where it has them."""
    output = item.get("output")
    if item["type"] == "shell_call_output" and isinstance(output, list):
        return orjson.dumps(output).decode()
    if item["type"] == "apply_patch_call_output":
        return f"{item.get('status')}: {output}" if output else str(item.get("status"))
    return output


# -- Calls that come back ----------------------------------------------------------------------------------


class CallTranslator:
    """Calls of the functions of `tools`, as items of the tools themselves.

    What is no plain function is held until it is whole, so that its item is never half a one.
    """

    def __init__(self, tools: ClientTools) -> None:
        self._tools = tools
        self._held: tuple[Expressed, ItemOpened] | None = None
        self._arguments: list[str] = []

    def feed(self, events: Sequence[ModelEvent]) -> list[ModelEvent]:
        """Raises `ModelError` for arguments that nobody could obey."""
        return [event for one in events for event in self._one(one)]

    def _one(self, event: ModelEvent) -> Iterator[ModelEvent]:
        if self._held is not None:
            yield from self._hold(*self._held, event)
            return
        tool = self._tools.find(event.name) if isinstance(event, ItemOpened) else None
        if tool is None or not isinstance(event, ItemOpened) or event.kind != "function_call":
            yield event
        elif tool.kind == "function_call":
            yield replace(event, name=tool.name, namespace=tool.namespace)
        else:
            self._held, self._arguments = (tool, event), []

    def _hold(self, tool: Expressed, opened: ItemOpened, event: ModelEvent) -> Iterator[ModelEvent]:
        if isinstance(event, ArgumentsDelta):
            self._arguments.append(event.text)
            return
        self._held = None
        whole = isinstance(event, ItemClosed) or (
            isinstance(event, CallEnded) and event.finish in ("stop", "tool_calls")
        )
        if whole:
            yield from _translated(tool, opened, "".join(self._arguments))
        if not isinstance(event, ItemClosed):
            yield event


def _translated(tool: Expressed, opened: ItemOpened, arguments: str) -> Iterator[ModelEvent]:
    # The upstream knows a function call by its id, so that id means nothing for the item that it becomes.
    call = ItemOpened(tool.kind, name=tool.name, call_id=opened.call_id, namespace=tool.namespace)
    try:
        given: JSON = orjson.loads(arguments)
    except ValueError:
        given = None
    if tool.kind == "custom_tool_call":
        # A model that was trained on free text may give the text itself.
        text = given.get("input") if isinstance(given, dict) else None
        yield call
        yield ArgumentsDelta(text if isinstance(text, str) else arguments)
    else:
        action = _ACTIONS[tool.kind](given) if isinstance(given, dict) else None
        if action is None:
            word = tool.kind.removesuffix("_call")
            raise ModelError(
                "upstream_protocol", f"The model called {word} with unusable arguments.", retryable=True
            )
        yield replace(call, action=action)
    yield ItemClosed()


def _texts(value: JSON) -> list[str] | None:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        return None
    return value


def _number(value: JSON) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _shell(given: Mapping[str, Any]) -> Fields | None:
    commands = _texts(given.get("commands"))
    if commands is None:
        return None
    numbers = {key: _number(given.get(key)) for key in ("timeout_ms", "max_output_length")}
    return {"commands": commands, **numbers}


def _local_shell(given: Mapping[str, Any]) -> Fields | None:
    command = _texts(given.get("command"))
    if command is None:
        return None
    env = given.get("env")
    named = {str(key): str(value) for key, value in env.items()} if isinstance(env, dict) else {}
    action: dict[str, JSON] = {"type": "exec", "command": command, "env": named}
    if (timeout := _number(given.get("timeout_ms"))) is not None:
        action["timeout_ms"] = timeout
    if isinstance(given.get("working_directory"), str):
        action["working_directory"] = given["working_directory"]
    return action


def _patch(given: Mapping[str, Any]) -> Fields | None:
    kind, path, diff = given.get("type"), given.get("path"), given.get("diff")
    if not isinstance(path, str) or not path:
        return None
    if kind == "delete_file":
        return {"type": kind, "path": path}
    if kind not in ("create_file", "update_file") or not isinstance(diff, str):
        return None
    return {"type": kind, "path": path, "diff": diff}


_ACTIONS: Final = {"shell_call": _shell, "local_shell_call": _local_shell, "apply_patch_call": _patch}

"""The `tools` and `tool_choice` of a request, checked and in one form.

Functions and the tools that run on the client are served.  Hosted tools, which OpenAI runs itself, are left
out of the request and named in a warning: most clients list them in case they are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from runtime.tool import is_run_here
from serve_app.errors import bad_request, dotted, invalid, not_supported

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MODES: Final = ("none", "auto", "required")
EXPECTED_MODE: Final = "Input should be 'none', 'auto' or 'required'"
ALLOWED_MAX: Final = 128

HOSTED: Final = frozenset(
    {
        *("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
        *("file_search", "code_interpreter", "image_generation", "mcp", "tool_search"),
        *("computer", "computer_use", "computer_use_preview", "programmatic_tool_calling"),
    }
)
"""Tools that somebody else than the client runs, and nobody here."""

JSON = Any
Fields = Mapping[str, JSON]
Path = tuple[str | int, ...]


class Tools(NamedTuple):
    """What is offered to the model, and what was left out."""

    served: tuple[Fields, ...]
    left_out: tuple[str, ...]
    """Types of hosted tools."""


def read_tools(tools: Sequence[Fields], place: Path = ("tools",)) -> Tools:
    """Every served tool of the field at `place` in its normal form; a function has `description, parameters,
    strict`, too.

    Raises `ApiError`: 422 for types and names, 400 for unknown kinds and names used twice.
    """
    found: dict[tuple[str, JSON], Fields] = {}
    for index, tool in enumerate(tools):
        path: Path = (*place, index)
        kind = tool.get("type")
        if not isinstance(kind, str):
            raise _missing_or_wrong(kind, (*path, "type"), "string")
        if _is_hosted(kind):
            continue
        read = KINDS.get(kind)
        if read is None:
            known = ", ".join(KINDS)
            raise not_supported(f"The tool type '{kind[:64]}'", dotted((*path, "type")), f"Use {known}.")
        one = read(tool, path)
        # A model tells functions and custom tools apart by their names only.
        key = ("", one["name"]) if kind in ("function", "custom") else (kind, one.get("name"))
        if key in found:
            what = f"named '{one['name']}'. Rename one." if "name" in one else f"{kind} tools. Send one."
            raise bad_request(f"Two tools are {what}", dotted((*path, "name" if "name" in one else "type")))
        found[key] = one
    return Tools(tuple(found.values()), hosted_among(tools))


def hosted_among(tools: Sequence[Fields]) -> tuple[str, ...]:
    """The types of hosted tools, each once."""
    kinds = (str(tool.get("type")) for tool in tools)
    return tuple(dict.fromkeys(kind[:64] for kind in kinds if _is_hosted(kind)))


def _is_hosted(kind: str) -> bool:
    return kind in HOSTED or ":" in kind


def check_not_run_here(tools: Sequence[Fields], offered: Sequence[Fields], place: Path = ("tools",)) -> None:
    """Raise `ApiError` (400) where a tool of the client's has the name of one that the agent runs itself."""
    names = {tool["name"] for tool in offered if is_run_here(tool)}
    for index, tool in enumerate(tools):
        if tool.get("name") in names:
            message = f"The agent runs a tool named '{tool['name']}' itself. Rename yours, or leave it out."
            raise bad_request(message, dotted((*place, index, "name")))


def _function(tool: Fields, path: Path) -> Fields:
    if "name" not in tool and isinstance(tool.get("function"), dict):
        message = "Field required (the Responses API has `name` beside `type`, not inside `function`)"
        raise invalid([((*path, "name"), message, "missing")])
    return {
        "type": "function",
        "name": _name(tool.get("name"), (*path, "name")),
        "description": _optional(tool, "description", str, "string", path),
        "parameters": _optional(tool, "parameters", dict, "dict", path),
        "strict": _optional(tool, "strict", bool, "bool", path),
    }


def _custom(tool: Fields, path: Path) -> Fields:
    form = _optional(tool, "format", dict, "dict", path) or {"type": "text"}
    if form.get("type") == "grammar":
        where = (*path, "format")
        for key in ("syntax", "definition"):
            if not isinstance(form.get(key), str):
                raise _missing_or_wrong(form.get(key), (*where, key), "string")
        if form["syntax"] not in ("lark", "regex"):
            raise invalid([((*where, "syntax"), "Input should be 'lark' or 'regex'", "literal_error")])
        form = {key: form[key] for key in ("type", "syntax", "definition")}
    elif form.get("type") == "text":
        form = {"type": "text"}
    else:
        message = "Input should be 'text' or 'grammar'"
        raise invalid([((*path, "format", "type"), message, "literal_error")])
    read = {
        "type": "custom",
        "name": _name(tool.get("name"), (*path, "name")),
        "description": _optional(tool, "description", str, "string", path),
        "format": form,
    }
    return {key: value for key, value in read.items() if value is not None}


def _namespace(tool: Fields, path: Path) -> Fields:
    inner = tool.get("tools")
    if not isinstance(inner, list):
        raise _missing_or_wrong(inner, (*path, "tools"), "list")
    found: dict[str, Fields] = {}
    for index, one in enumerate(inner):
        where = (*path, "tools", index)
        if not isinstance(one, dict):
            raise invalid([(where, "Input should be a valid dictionary", "dict_type")])
        read = {"function": _function, "custom": _custom}.get(str(one.get("type")))
        if read is None:
            raise not_supported("This type of tool in a namespace", dotted((*where, "type")), "Use function.")
        fields = read(one, where)
        if fields["name"] in found:
            raise bad_request(f"Two tools are named '{fields['name']}'. Rename one.", dotted(where))
        found[fields["name"]] = fields
    return {
        "type": "namespace",
        "name": _name(tool.get("name"), (*path, "name")),
        "description": _optional(tool, "description", str, "string", path) or "",
        "tools": list(found.values()),
    }


def _shell(tool: Fields, path: Path) -> Fields:
    environment = _optional(tool, "environment", dict, "dict", path)
    if environment is not None and environment.get("type") != "local":
        remedy = "Leave environment out, or send {type: local}: your program runs the commands."
        raise not_supported("A shell in a container", dotted((*path, "environment", "type")), remedy)
    return {"type": "shell"} if environment is None else {"type": "shell", "environment": {"type": "local"}}


KINDS: Final[Mapping[str, Callable[[Fields, Path], Fields]]] = {
    "function": _function,
    "custom": _custom,
    "namespace": _namespace,
    "shell": _shell,
    "local_shell": lambda _, __: {"type": "local_shell"},
    "apply_patch": lambda _, __: {"type": "apply_patch"},
}
"""Tool types that are served, each with what reads it."""


# -- Choice ------------------------------------------------------------------------------------------------


def tool_choice(choice: JSON, tools: Sequence[Fields], left_out: Sequence[str] = ()) -> JSON:
    """The choice in one form; `tools` are all that the model will be offered.

    Raises `ApiError`: 422 for its form, 400 where it names what is not there.
    """
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in MODES:
            raise invalid([(("tool_choice",), EXPECTED_MODE, "literal_error")])
        if choice == "required" and not tools:
            named = f" ({', '.join(left_out)} cannot be served here)" if left_out else ""
            message = f"tool_choice 'required' needs tools. Send tools with it{named}."
            raise bad_request(message, "tool_choice")
        return choice
    if choice.get("type") == "allowed_tools":
        return _allowed_tools(choice, tools)
    return _one_tool(choice, tools, ("tool_choice",))


def _one_tool(choice: Fields, tools: Sequence[Fields], path: Path) -> Fields:
    kind = choice.get("type")
    if not isinstance(kind, str):
        raise _missing_or_wrong(kind, (*path, "type"), "string")
    param = dotted((*path, "type"))
    if kind in HOSTED:
        remedy = "This server does not run that tool. Choose one of your own."
        raise not_supported(f"The tool choice '{kind}'", param, remedy)
    if kind in ("function", "custom"):
        name = _name(choice.get("name"), (*path, "name"))
        if (kind, name) not in _choices(tools):
            message = f"The tool choice '{name}' is not among the tools."
            raise bad_request(message, dotted((*path, "name")))
        return {"type": kind, "name": name}
    if kind not in KINDS or kind == "namespace":
        raise not_supported(f"The tool choice type '{kind[:64]}'", param, "Choose a function tool.")
    if (kind, None) not in _choices(tools):
        raise bad_request(f"The tool choice '{kind}' is not among the tools.", param)
    return {"type": kind}


def _choices(tools: Sequence[Fields]) -> set[tuple[str, JSON]]:
    """(type, name) of all that can be chosen."""
    found: set[tuple[str, JSON]] = set()
    for tool in tools:
        if tool.get("type") == "namespace":
            found |= {(inner["type"], inner["name"]) for inner in tool["tools"]}
        else:
            found.add((str(tool.get("type")), tool.get("name")))
    return found


def _allowed_tools(choice: Fields, tools: Sequence[Fields]) -> JSON:
    mode = choice.get("mode", "auto")
    if mode not in MODES:
        raise invalid([(("tool_choice", "mode"), EXPECTED_MODE, "literal_error")])
    listed = choice.get("tools")
    path: Path = ("tool_choice", "tools")
    if not isinstance(listed, list) or not 1 <= len(listed) <= ALLOWED_MAX:
        raise invalid([(path, f"Input should be a list of 1 to {ALLOWED_MAX} tools", "list_type")])
    allowed: list[Fields] = []
    for index, one in enumerate(listed):
        if not isinstance(one, dict):
            raise invalid([((*path, index), "Input should be a valid dictionary", "dict_type")])
        if str(one.get("type")) in HOSTED:
            continue  # What is not offered cannot be called.
        chosen = _one_tool({"type": "function", **one}, tools, (*path, index))
        if chosen not in allowed:
            allowed.append(chosen)
    if not allowed:
        message = "None of the allowed tools can be served here. Allow one of your own tools."
        raise bad_request(message, "tool_choice.tools", "unsupported_parameter")
    return {"type": "allowed_tools", "mode": mode, "tools": allowed}


# -- Checks ------------------------------------------------------------------------------------------------


def _name(value: JSON, path: Path) -> str:
    if not isinstance(value, str):
        raise _missing_or_wrong(value, path, "string")
    if NAME.fullmatch(value) is None:
        message = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
        raise invalid([(path, message, "string_pattern_mismatch")])
    return value


def _optional(tool: Fields, key: str, kind: type, word: str, path: Path) -> JSON:
    value = tool.get(key)
    if value is not None and not isinstance(value, kind):
        raise _missing_or_wrong(value, (*path, key), word)
    return value


def _missing_or_wrong(value: JSON, path: Path, word: str) -> Exception:
    if value is None:
        return invalid([(path, "Field required", "missing")])
    return invalid([(path, f"Input should be a valid {word}", f"{word}_type")])

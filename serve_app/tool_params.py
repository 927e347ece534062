"""The `tools` and `tool_choice` of a request: function tools, checked and in one form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from serve_app.errors import bad_request, dotted, invalid, not_supported

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MODES: Final = ("none", "auto", "required")
EXPECTED_MODE: Final = "Input should be 'none', 'auto' or 'required'"

JSON = Any
Path = tuple[str | int, ...]


def function_tools(tools: Sequence[Mapping[str, JSON]]) -> tuple[Mapping[str, JSON], ...]:
    """Every tool with all of `type, name, description, parameters, strict`.

    Raises `ApiError`: 422 for types and names, 400 for tools of other kinds and names used twice.
    """
    found: dict[str, Mapping[str, JSON]] = {}
    for index, tool in enumerate(tools):
        one = _function_tool(tool, ("tools", index))
        if one["name"] in found:
            raise bad_request(f"Two tools are named '{one['name']}'. Rename one.", f"tools[{index}].name")
        found[one["name"]] = one
    return tuple(found.values())


def _function_tool(tool: Mapping[str, JSON], path: Path) -> Mapping[str, JSON]:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise _missing_or_wrong(kind, (*path, "type"), "string")
    if kind != "function":
        raise not_supported(f"The tool type '{kind[:64]}'", dotted((*path, "type")), "Use function tools.")
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


def tool_choice(choice: JSON, tools: Sequence[Mapping[str, JSON]]) -> JSON:
    """The choice in one form; `tools` are all that the model will be offered.

    Raises `ApiError`: 422 for its form, 400 where it names what is not there.
    """
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in MODES:
            raise invalid([(("tool_choice",), EXPECTED_MODE, "literal_error")])
        if choice == "required" and not tools:
            raise bad_request("tool_choice 'required' needs tools. Send tools with it.", "tool_choice")
        return choice
    kind = choice.get("type")
    if kind == "function":
        name = _name(choice.get("name"), ("tool_choice", "name"))
        _there(name, tools, "tool_choice.name")
        return {"type": "function", "name": name}
    if kind == "allowed_tools":
        return _allowed_tools(choice, tools)
    if not isinstance(kind, str):
        raise _missing_or_wrong(kind, ("tool_choice", "type"), "string")
    raise not_supported(f"The tool choice type '{kind[:64]}'", "tool_choice.type", "Choose a function tool.")


def _allowed_tools(choice: Mapping[str, JSON], tools: Sequence[Mapping[str, JSON]]) -> JSON:
    mode = choice.get("mode", "auto")
    if mode not in MODES:
        raise invalid([(("tool_choice", "mode"), EXPECTED_MODE, "literal_error")])
    listed = choice.get("tools")
    path: Path = ("tool_choice", "tools")
    if not isinstance(listed, list) or not 1 <= len(listed) <= 128:
        raise invalid([(path, "Input should be a list of 1 to 128 tools", "list_type")])
    names = []
    for index, one in enumerate(listed):
        if not isinstance(one, dict):
            raise invalid([((*path, index), "Input should be a valid dictionary", "dict_type")])
        if one.get("type", "function") != "function":
            param = f"tool_choice.tools[{index}].type"
            raise not_supported("A tool choice among other than function tools", param, "Name functions.")
        names.append(_name(one.get("name"), (*path, index, "name")))
        _there(names[-1], tools, f"tool_choice.tools[{index}].name")
    return {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function", "name": name} for name in dict.fromkeys(names)],
    }


def _there(name: str, tools: Sequence[Mapping[str, JSON]], param: str) -> None:
    if all(tool["name"] != name for tool in tools):
        raise bad_request(f"The tool choice '{name}' is not among the tools.", param)


def _name(value: JSON, path: Path) -> str:
    if not isinstance(value, str):
        raise _missing_or_wrong(value, path, "string")
    if NAME.fullmatch(value) is None:
        message = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
        raise invalid([(path, message, "string_pattern_mismatch")])
    return value


def _optional(tool: Mapping[str, JSON], key: str, kind: type, word: str, path: Path) -> JSON:
    value = tool.get(key)
    if value is not None and not isinstance(value, kind):
        raise _missing_or_wrong(value, (*path, key), word)
    return value


def _missing_or_wrong(value: JSON, path: Path, word: str) -> Exception:
    if value is None:
        return invalid([(path, "Field required", "missing")])
    return invalid([(path, f"Input should be a valid {word}", f"{word}_type")])

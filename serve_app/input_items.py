"""The `input` of a request: what clients really send, in the one form that is recorded.

Clients leave out `type` of messages, write content as a string, and send back output items with ids, statuses
and keys of their own; all of that is understood.  What cannot be served is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from runtime.compaction import TRIGGER
from runtime.response.items import ACTIONS, ADDITIONAL
from serve_app.errors import ApiError, bad_request, dotted, invalid, not_supported, too_large
from serve_app.limits import Limits
from serve_app.tool_params import hosted_among, read_tools

JSON = Any
Path = tuple[str | int, ...]
Fields = Mapping[str, JSON]

ROLES: Final = ("user", "assistant", "system", "developer")
STATUSES: Final = ("in_progress", "completed", "incomplete")
DETAILS: Final = ("low", "high", "auto", "original")
CALL_ID_MAX: Final = 256  # Ids of other servers are longer than the 64 characters that Open Responses names.

HOSTED: Final = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("mcp_list_tools", "mcp_call", "mcp_approval_request", "computer_call", "computer_call_output"),
        *("tool_search_call", "tool_search_output", "program", "program_output"),
    }
)
"""What other servers' hosted tools left in a conversation, beside every `vendor:name`.  The model is told of
its words, not of these."""


class Items(NamedTuple):
    """An input, read."""

    items: tuple[Fields, ...]
    left_out: tuple[str, ...] = ()
    """Types of items of hosted tools."""


Unseal = Callable[[str], dict[str, JSON] | None]
"""Opens what a client keeps for us, or says None of what is not ours."""


def sealed_nowhere(text: str) -> None:
    """The `Unseal` of who sealed nothing."""


def input_items(
    items: Sequence[JSON],
    limits: Limits,
    body_size: int,
    unseal: Unseal = sealed_nowhere,
    name: str = "input",
) -> Items:
    """Every item with its `type`, message content as a list of parts; items of hosted tools are left out.

    `name` is the field that holds them.

    Raises `ApiError`: 422 for types and missing fields, 413 for an item that is too long, 400 for what is not
    served.  `body_size` saves measuring items that cannot be too long.
    """
    if len(items) > limits.items:
        raise invalid([((name,), f"List should have at most {limits.items} items", "too_long")])
    if body_size > limits.item:
        for index, item in enumerate(items):
            if len(orjson.dumps(item)) > limits.item:
                message = f"An input item is longer than {limits.item:,} bytes, the most this server takes."
                raise too_large(message, f"{name}[{index}]")
    read: list[Fields] = []
    left_out: dict[str, None] = {}
    for index, item in enumerate(items):
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and (kind in HOSTED or ":" in kind):
            left_out[kind[:64]] = None
        else:
            read.append(_opened(_item(item, (name, index)), unseal, (name, index)))
            if kind == ADDITIONAL:
                left_out |= dict.fromkeys(hosted_among(item["tools"]))
            if read[-1]["type"] == TRIGGER and index + 1 < len(items):
                message = "A compaction_trigger must be the last input item."
                raise bad_request(message, f"{name}[{index}]", "invalid_value")
    return Items(tuple(read), tuple(left_out))


def _item(item: JSON, path: Path) -> Fields:
    if not isinstance(item, dict):
        raise invalid([(path, "Input should be a valid dictionary", "dict_type")])
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if "id" in item else None
    read = KINDS.get(kind) if isinstance(kind, str) else None
    if read is not None:
        return read(item, path)
    if kind is None:
        raise _missing((*path, "type"))
    if not isinstance(kind, str):
        raise _wrong((*path, "type"), "string")
    remedy = "Send messages, calls with their outputs, reasoning, compactions and references to those."
    raise not_supported(f"An input item of type '{kind[:64]}'", dotted((*path, "type")), remedy)


# -- Items -------------------------------------------------------------------------------------------------


def _message(item: Fields, path: Path) -> Fields:
    role = item.get("role")
    if role not in ROLES:
        if not isinstance(role, str):
            raise _missing((*path, "role")) if role is None else _wrong((*path, "role"), "string")
        more = "; send a tool's output as an item of type function_call_output" if role == "tool" else ""
        expected = f"Input should be 'user', 'assistant', 'system' or 'developer'{more}"
        raise invalid([((*path, "role"), expected, "literal_error")])
    content = item.get("content")
    own = "output_text" if role == "assistant" else "input_text"
    if isinstance(content, str):
        parts: list[Fields] = [_text_part(own, content)]
    elif isinstance(content, list):
        parts = [_part(part, own, (*path, "content", index)) for index, part in enumerate(content)]
    elif content is None:
        raise _missing((*path, "content"))
    else:
        raise _wrong((*path, "content"), "string or list")
    message: dict[str, JSON] = {
        "type": "message",
        **_identity(item, path),
        "role": role,
        "content": parts,
    }
    if role == "assistant" and item.get("phase") in ("commentary", "final_answer"):
        message["phase"] = item["phase"]
    return message


def _call(item: Fields, path: Path) -> Fields:
    """A function's call or a custom tool's."""
    words = "arguments" if item["type"] == "function_call" else "input"
    call: dict[str, JSON] = {
        "type": item["type"],
        **_identity(item, path),
        "call_id": _call_id(item, path),
        "name": _string(item, "name", path, least=1),
        words: _string(item, words, path),
    }
    if item.get("namespace") is not None:
        call["namespace"] = _string(item, "namespace", path, least=1)
    return call


def _call_output(item: Fields, path: Path) -> Fields:
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part, "input_text", (*path, "output", index)) for index, part in enumerate(output)]
    elif not isinstance(output, str):
        raise _missing((*path, "output")) if output is None else _wrong((*path, "output"), "string or list")
    return {
        "type": item["type"],
        **_identity(item, path),
        "call_id": _call_id(item, path),
        "output": output,
    }


def _shell_call(item: Fields, path: Path) -> Fields:
    """A shell's call, of whichever kind, or a patch: what is to be done is a JSON object."""
    key = ACTIONS[item["type"]]
    action = item.get(key)
    if not isinstance(action, dict):
        raise _missing((*path, key)) if action is None else _wrong((*path, key), "dict")
    if item["type"] == "apply_patch_call":
        _string(action, "path", (*path, key), least=1)
    else:
        words = "commands" if item["type"] == "shell_call" else "command"
        if not isinstance(action.get(words), list):
            raise _wrong((*path, key, words), "list")
    return {"type": item["type"], **_identity(item, path), "call_id": _call_id(item, path), key: action}


def _shell_call_output(item: Fields, path: Path) -> Fields:
    output = item.get("output")
    if not isinstance(output, list | str):
        raise _missing((*path, "output")) if output is None else _wrong((*path, "output"), "list")
    return {
        "type": item["type"],
        **_identity(item, path),
        "call_id": _call_id(item, path),
        "output": output,
    }


def _local_shell_call_output(item: Fields, path: Path) -> Fields:
    # Its call is named by `id`; some clients send `call_id`, as every other output has it.
    named = "call_id" if item.get("call_id") is not None else "id"
    return {
        "type": item["type"],
        "call_id": _string(item, named, path, least=1, most=CALL_ID_MAX),
        "output": _string(item, "output", path),
        "status": "completed",
    }


def _apply_patch_call_output(item: Fields, path: Path) -> Fields:
    if (status := item.get("status")) not in ("completed", "failed"):
        raise invalid([((*path, "status"), "Input should be 'completed' or 'failed'", "literal_error")])
    read = {"type": item["type"], **_identity(item, path), "call_id": _call_id(item, path), "status": status}
    return read if item.get("output") is None else {**read, "output": _string(item, "output", path)}


def _reasoning(item: Fields, path: Path) -> Fields:
    reasoning: dict[str, JSON] = {
        "type": "reasoning",
        **_identity(item, path),
        # Some clients drop what is empty.
        "summary": _texts(item, "summary", "summary_text", path) if item.get("summary") is not None else [],
    }
    if item.get("content"):
        reasoning["content"] = _texts(item, "content", "reasoning_text", path)
    if item.get("encrypted_content") is not None:
        reasoning["encrypted_content"] = _string(item, "encrypted_content", path)
    return reasoning


def _opened(item: Fields, unseal: Unseal, path: Path) -> Fields:
    """The item with what it holds for us, where it does.

    Encrypted reasoning of other servers is kept for listing and told to no model.
    """
    if item["type"] not in ("reasoning", "compaction") or "encrypted_content" not in item:
        return item
    held = unseal(item["encrypted_content"])
    if held is None:
        if item["type"] == "reasoning":
            return item
        message = "This compaction was not made here, or not for this project. Send the items it stands for."
        raise bad_request(message, dotted((*path, "encrypted_content")), "invalid_value")
    text = held.pop("text", None)
    if text and "content" not in item:
        item = {**item, "content": [{"type": "reasoning_text", "text": text}]}
    return {**item, "_upstream": held}


def _compaction(item: Fields, path: Path) -> Fields:
    known = {"id": _string(item, "id", path, least=1, most=CALL_ID_MAX)} if item.get("id") else {}
    return {"type": "compaction", **known, "encrypted_content": _string(item, "encrypted_content", path)}


def _additional_tools(item: Fields, path: Path) -> Fields:
    known = {"id": _string(item, "id", path, least=1, most=CALL_ID_MAX)} if item.get("id") else {}
    tools = item.get("tools")
    if not isinstance(tools, list):
        raise _missing((*path, "tools")) if tools is None else _wrong((*path, "tools"), "list")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise _wrong((*path, "tools", index), "dict")
    served = read_tools(tools, (*path, "tools")).served
    return {"type": ADDITIONAL, **known, "role": "developer", "tools": served}


def _item_reference(item: Fields, path: Path) -> Fields:
    return {"type": "item_reference", "id": _string(item, "id", path, least=1, most=CALL_ID_MAX)}


KINDS: Final[Mapping[str, Callable[[Fields, Path], Fields]]] = {
    "message": _message,
    "function_call": _call,
    "function_call_output": _call_output,
    "custom_tool_call": _call,
    "custom_tool_call_output": _call_output,
    "shell_call": _shell_call,
    "shell_call_output": _shell_call_output,
    "local_shell_call": _shell_call,
    "local_shell_call_output": _local_shell_call_output,
    "apply_patch_call": _shell_call,
    "apply_patch_call_output": _apply_patch_call_output,
    "reasoning": _reasoning,
    "compaction": _compaction,
    "compaction_summary": _compaction,
    ADDITIONAL: _additional_tools,
    TRIGGER: lambda _, __: {"type": TRIGGER},
    "item_reference": _item_reference,
}
"""Item types that are served, each with what reads it."""


def _identity(item: Fields, path: Path) -> dict[str, JSON]:
    """The id that the client knows the item by, if any, and its status."""
    known: dict[str, JSON] = {}
    if item.get("id") is not None:
        known["id"] = _string(item, "id", path, least=1, most=CALL_ID_MAX)
    status = item.get("status")
    known["status"] = status if status in STATUSES else "completed"
    return known


def _call_id(item: Fields, path: Path) -> str:
    return _string(item, "call_id", path, least=1, most=CALL_ID_MAX)


def _texts(item: Fields, key: str, kind: str, path: Path) -> list[Fields]:
    """Parts of one kind that hold nothing but text."""
    parts = item.get(key)
    if not isinstance(parts, list):
        raise _missing((*path, key)) if parts is None else _wrong((*path, key), "list")
    texts: list[Fields] = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict):
            raise _wrong((*path, key, index), "dict")
        texts.append({"type": kind, "text": _string(part, "text", (*path, key, index))})
    return texts


# -- Content parts -----------------------------------------------------------------------------------------


def _part(part: JSON, own: str, path: Path) -> Fields:
    """A content part.  `own` is the kind of text that this place holds: other servers mix them up."""
    if not isinstance(part, dict):
        raise invalid([(path, "Input should be a valid dictionary", "dict_type")])
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return _text_part(own, _string(part, "text", path), part.get("annotations"))
    if kind == "refusal" and own == "output_text":
        return {"type": "refusal", "refusal": _string(part, "refusal", path)}
    if kind == "input_image" and own == "input_text":
        return _image(part, path)
    if kind == "input_file" and own == "input_text":
        return _file(part, path)
    if kind is None:
        raise _missing((*path, "type"))
    if not isinstance(kind, str):
        raise _wrong((*path, "type"), "string")
    allowed = "output_text or refusal" if own == "output_text" else "input_text, input_image or input_file"
    raise not_supported(f"A content part of type '{kind[:64]}'", dotted((*path, "type")), f"Use {allowed}.")


def _text_part(kind: str, text: str, annotations: JSON = None) -> Fields:
    if kind == "input_text":
        return {"type": kind, "text": text}
    return {"type": kind, "text": text, "annotations": annotations if isinstance(annotations, list) else []}


def _image(part: Fields, path: Path) -> Fields:
    _no_file_id(part, path)
    url = part.get("image_url")
    if isinstance(url, dict):  # As Chat Completions have it.
        raise invalid([((*path, "image_url"), "Input should be a string: the URL itself", "string_type")])
    url = _string(part, "image_url", path, least=1)
    if not url.startswith(("data:image/", "https://", "http://")):
        message = "image_url must be a URL (https://...) or a data URL (data:image/png;base64,...)."
        raise bad_request(message, dotted((*path, "image_url")), "invalid_image_url")
    detail = part.get("detail")
    if detail is not None and detail not in DETAILS:
        message = "Input should be 'low', 'high', 'auto' or 'original'"
        raise invalid([((*path, "detail"), message, "literal_error")])
    return {"type": "input_image", "image_url": url, "detail": detail or "auto"}


def _file(part: Fields, path: Path) -> Fields:
    _no_file_id(part, path)
    file: dict[str, JSON] = {"type": "input_file"}
    for key in ("filename", "file_data", "file_url"):
        if part.get(key) is not None:
            file[key] = _string(part, key, path, least=1)
    if ("file_data" in file) == ("file_url" in file):
        raise bad_request("An input_file needs either file_data or file_url.", dotted(path))
    url = file.get("file_url")
    if url is not None and not url.startswith(("https://", "http://")):
        raise bad_request("file_url must be a URL (https://...).", dotted((*path, "file_url")))
    return file


def _no_file_id(part: Fields, path: Path) -> None:
    if part.get("file_id") is not None:
        param = dotted((*path, "file_id"))
        raise not_supported("file_id (there is no files API)", param, "Send the data or a URL.")


# -- Checks ------------------------------------------------------------------------------------------------


def _string(item: Fields, key: str, path: Path, *, least: int = 0, most: int | None = None) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise _missing((*path, key)) if value is None else _wrong((*path, key), "string")
    if len(value) < least:
        raise invalid([((*path, key), f"String should have at least {least} character", "string_too_short")])
    if most is not None and len(value) > most:
        raise invalid([((*path, key), f"String should have at most {most} characters", "string_too_long")])
    return value


def _missing(path: Path) -> ApiError:
    return invalid([(path, "Field required", "missing")])


def _wrong(path: Path, word: str) -> ApiError:
    kind = {"dict": "dictionary"}.get(word, word)
    return invalid([(path, f"Input should be a valid {kind}", f"{word.split()[0]}_type")])

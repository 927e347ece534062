"""JSON as it goes to and comes from upstreams: fast, and never failing over odd characters.

A lone surrogate can be written in JSON as an escape and held by a Python string, but it is no text: no
UTF-8 has it.  Here it becomes U+FFFD, in both directions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from runtime.model import ModelError

JSON = Any

_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def dumps(value: JSON) -> bytes:
    """`value` as JSON bytes, in the order of its keys.  Raises `ModelError` where it is nested too deeply."""
    try:
        # A copy: what orjson gives keeps 4 KiB however short it is, and a call holds its body to its end.
        return memoryview(orjson.dumps(value, default=_plain)).tobytes()
    except TypeError:
        pass  # Half a surrogate pair, a number beyond 64 bits, or far too many levels.
    try:
        return json.dumps(_clean(value), ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise ModelError(
            "invalid_prompt", "The request is nested too deeply to be sent to a model."
        ) from None


def loads(data: bytes) -> JSON:
    """The value of `data`.  Invalid UTF-8 becomes U+FFFD; lone surrogates stay, for `whole` to mend.

    Raises `ValueError` where it is no JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode("utf-8", "replace"), parse_constant=_refuse)


def has_surrogate(text: str) -> bool:
    """Whether `text` holds half of a pair."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def whole(text: str) -> str:
    """`text` with halves that stand side by side joined, and lone ones replaced."""
    return (
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if has_surrogate(text)
        else text
    )


def _refuse(constant: str) -> JSON:
    raise ValueError(f"{constant} is no JSON")


def _plain(value: object) -> JSON:
    """What orjson does not know of itself: read-only mappings and sequences."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _clean(value: JSON) -> JSON:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {whole(key): _clean(one) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_clean(one) for one in value]
    return value

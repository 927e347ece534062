"""JSON to and from upstreams, whatever it holds."""

import json
from types import MappingProxyType
from typing import Any

import pytest

from runtime.model import ModelError
from runtime.models.json_text import dumps, loads, whole


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ({"b": 1, "a": ["x", None, 1.5]}, {"b": 1, "a": ["x", None, 1.5]}),
        (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
        ({"a": "x\ud83d"}, {"a": "x\ufffd"}),
        ({"a\ude00": ["\ud83d\ude00", 10**30]}, {"a\ufffd": ["\U0001f600", 10**30]}),
    ],
)
def test_any_json_can_be_sent(value: Any, back: Any) -> None:
    assert json.loads(dumps(value)) == back


def test_what_is_nested_too_deeply_is_the_requests_fault() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ModelError) as caught:
        dumps({"a": value})
    assert caught.value.code == "invalid_prompt"
    while value:
        value = value[0]  # Freed from the outside in: the interpreter would do it by recursion.


def test_halves_are_kept_for_the_next_piece_and_mended_at_last() -> None:
    assert loads(b'"a\\ud83d"') == "a\ud83d"
    assert whole("a\ud83d") == "a\ufffd"
    assert whole("a\ud83d" + "\ude00") == "a\U0001f600"
    assert loads(b'"\xff"') == "\ufffd"

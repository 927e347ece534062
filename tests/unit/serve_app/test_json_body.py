"""What is no JSON object gets a 400 or 422 that says why, at once, whatever it is."""

from __future__ import annotations

import time

import pytest

from serve_app.errors import ApiError
from serve_app.json_body import parse_object

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "it is empty"),
        (b"  \n", "it is empty"),
        (b'{"a": 1', "line 1"),
        (b'{"a": 1} x', "line 1"),
        (b'{"a": NaN}', "line 1"),
        (b'{"a": Infinity}', "line 1"),
        (b'{"a": 1e400}', "infinity"),
        (b'{"a": -1e400}', "infinity"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "infinity"),
        (b'{"model": "a", "model": "b"}', "the same key twice, at line 1 column"),
        (b'{"t": [{"a": {"x": 1, "x": 1}}]}', "the same key twice"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "must be UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "must be UTF-8"),
        ('{"a": 1}'.encode("utf-32"), "must be UTF-8"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\\udc00 later"}', "surrogate"),
        (b'{"a": "x\\u0000y"}', "U+0000"),
        (b'{"a\\u0000": 1}', "U+0000"),
        (b'{"a": "x\x00y"}', "control character"),
        (b"[" * 100_000 + b"]" * 100_000, "deeper than 200 levels"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "deeper than 200 levels"),
    ],
)
def test_what_is_no_json_is_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(ApiError, match=r"The body") as refused:
        parse_object(body)
    problem = refused.value.problem
    assert (problem.status, problem.code) == (400, "invalid_json")
    assert says in problem.message
    assert len(problem.message) < 200, "the answer must not repeat the body"


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
def test_json_that_is_no_object_is_a_422(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_object(body)
    assert refused.value.problem.status == 422


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10 * MEBIBYTE,
        b'{"a":[' + b"1," * (4 * MEBIBYTE) + b"1]}x",
        b'{"a":"' + b"\\u0000" * MEBIBYTE + b'"}',
    ],
)
def test_a_hostile_body_is_refused_without_keeping_others_waiting(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ApiError):
        parse_object(body)
    assert time.process_time() - began < 2.0


def test_a_text_about_the_escape_of_nul_is_a_text() -> None:
    assert parse_object(b'{"a": "write \\\\u0000 for NUL"}') == {"a": "write \\u0000 for NUL"}


def test_every_other_text_arrives_as_it_was_sent() -> None:
    zoo = "\u0001\u001f é é 😀 \ufffd \u2028 \U0010ffff"
    body = '{"a": "\\u0001\\u001f é é \\ud83d\\ude00 \ufffd \u2028 \U0010ffff", "b": -0.0}'.encode()
    value = parse_object(body)
    assert value["a"] == zoo
    assert str(value["b"]) == "-0.0"

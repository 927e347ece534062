"""Whatever is sent, the answer is the client's to understand: never a 5xx, never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.request_body import NOT_YET, CreateBody
from tests.depth import examples
from tests.unit.serve_app.served import Connection, served

FIELDS = [*CreateBody.model_fields, *NOT_YET]
WORDS = st.sampled_from(
    [
        *("type", "role", "content", "text", "id", "call_id", "name", "arguments", "output", "summary"),
        *("image_url", "file_data", "file_url", "detail", "format", "schema", "effort", "tools", "mode"),
    ]
)
VALUES = st.sampled_from(
    [
        *("message", "function_call", "function_call_output", "reasoning", "item_reference", "input_text"),
        *("output_text", "input_image", "input_file", "refusal", "user", "assistant", "tool", "function"),
        *("json_schema", "json_object", "allowed_tools", "auto", "required", "none", "simulated", "resp_x"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | VALUES
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("simulated") | JSON},
    optional=dict.fromkeys(FIELDS[1:], JSON),
) | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)


Send = Callable[[str, str, bytes, str], tuple[int, bytes]]


@pytest.fixture(scope="module")
def send() -> Iterator[Send]:
    """One server for all examples, in a loop of its own."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(served()))

        async def exchange(method: str, path: str, body: bytes, query: str) -> tuple[int, bytes]:
            answer = await Connection(server.api, method, path, body, query=query).done()
            return answer.status, answer.body

        yield lambda *request: runner.run(exchange(*request))
        runner.run(stack.aclose())


def _understood(status: int, body: bytes) -> None:
    assert status in (200, 400, 403, 404, 405, 413, 422), body
    if status != 200:
        error = orjson.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert (status == 422) == ("detail" in orjson.loads(body))


FEW = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(body=BODIES)
def test_any_json_gets_an_answer(send: Send, body: dict[str, Any]) -> None:
    _understood(*send("POST", "/v1/responses", orjson.dumps(_within_64_bits(body)), ""))


@FEW
@given(body=st.binary(max_size=60))
def test_any_bytes_get_an_answer(send: Send, body: bytes) -> None:
    status, answer = send("POST", "/v1/responses", body, "")
    assert status in (400, 422)
    _understood(status, answer)


@FEW
@given(
    method=st.sampled_from(["GET", "DELETE", "POST", "PATCH"]),
    start=st.sampled_from(["/v1/responses/", "/v1/conversations/", "/v1/models/", "/"]),
    end=st.text(max_size=12),
    query=st.text(st.characters(codec="latin-1"), max_size=12),
)
def test_any_path_and_query_get_an_answer(send: Send, method: str, start: str, end: str, query: str) -> None:
    _understood(*send(method, start + end, b"", query))


@FEW
@given(body=st.dictionaries(st.sampled_from(["items", "metadata"]), JSON | st.lists(JSON, max_size=3)))
def test_any_json_about_a_conversation_gets_an_answer(send: Send, body: dict[str, Any]) -> None:
    data = orjson.dumps(_within_64_bits(body))
    _understood(*send("POST", "/v1/conversations", data, ""))
    id = orjson.loads(send("POST", "/v1/conversations", b"", "")[1])["id"]
    for path in (f"/v1/conversations/{id}", f"/v1/conversations/{id}/items"):
        _understood(*send("POST", path, data, ""))
    _understood(*send("GET", f"/v1/conversations/{id}/items", b"", ""))


def _within_64_bits(value: Any) -> Any:
    """The same, with integers that orjson can write; larger ones are sent as the text of a float."""
    if isinstance(value, dict):
        return {key: _within_64_bits(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_within_64_bits(one) for one in value]
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value

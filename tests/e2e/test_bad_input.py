"""What no client should send: refused at once with a reason, never a 5xx, and nothing is written."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.log import records
from tests.e2e.parts import HAPROXY, REPLICA, memory, named
from tests.launching import Instance
from tests.patience import PATIENCE_S

GROWTH = 64 * 1024 * 1024
MODEL = "simulated"


@pytest.fixture(autouse=True)
async def nothing_written(instance: Instance) -> AsyncIterator[None]:
    """Refused requests leave no trace in the log."""
    before = [record.position for record in await records(instance.runtime["log_url"])][-1:]
    yield
    new = await records(instance.runtime["log_url"], before[0] if before else 0)
    # Responses of other tests may end, or be erased, meanwhile; none may begin.
    assert not [record for record in new if record.first_version == 0]


@pytest.fixture
def post(instance: Instance) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=instance.url, timeout=PATIENCE_S) as one:
        yield one


def refused(answer: httpx.Response, *statuses: int) -> dict[str, object]:
    """Its error, in the one shape that errors have."""
    assert answer.status_code in statuses, answer.text[:500]
    body = answer.json()
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert ("detail" in body) == (answer.status_code == 422)
    assert answer.headers["x-request-id"]
    error: dict[str, object] = body["error"]
    return error


# -- Bodies ------------------------------------------------------------------------------------------------

BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no JSON": (b"{model: simulated}", 400),
    "truncated": (b'{"model": "simulated", "input": "x', 400),
    "depth": (b'{"model": "simulated", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "long integer": (b'{"model": "simulated", "input": "x", "seed": ' + b"9" * 10_000 + b"}", 400),
    "NaN": (b'{"model": "simulated", "input": "x", "temperature": NaN}', 400),
    "duplicate keys": (b'{"model": "simulated", "model": "gpt", "input": "x"}', 400),
    "BOM": (b'\xef\xbb\xbf{"model": "simulated", "input": "x"}', 400),
    "UTF-16": ('{"model": "simulated", "input": "x"}'.encode("utf-16"), 400),
    "broken UTF-8": (b'{"model": "simulated", "input": "\xff\xfe"}', 400),
    "lone surrogate": (b'{"model": "simulated", "input": "\\ud800"}', 400),
    "NUL": (b'{"model": "simulated", "input": "a\\u0000b"}', 400),
    "list": (b"[]", 422),
    "no model": (b'{"input": "x"}', 422),
    "model of another type": (b'{"model": 7, "input": "x"}', 422),
    "input of another type": (b'{"model": "simulated", "input": 7}', 422),
    "items of another type": (b'{"model": "simulated", "input": [7]}', 422),
    "temperature out of bounds": (b'{"model": "simulated", "input": "x", "temperature": 2.1}', 422),
    "tokens out of bounds": (b'{"model": "simulated", "input": "x", "max_output_tokens": 8001}', 422),
    "no tokens": (b'{"model": "simulated", "input": "x", "max_output_tokens": 0}', 422),
    "effort": (b'{"model": "simulated", "input": "x", "reasoning": {"effort": "heroic"}}', 422),
    "contradiction": (
        b'{"model": "simulated", "input": "x", "reasoning_effort": "low", "reasoning": {"effort": "high"}}',
        422,
    ),
    "long user": (b'{"model": "simulated", "input": "x", "user": "' + b"u" * 201 + b'"}', 422),
    "metadata": (b'{"model": "simulated", "input": "x", "metadata": {"k": "' + b"v" * 17_000 + b'"}}', 422),
    "unknown model": (b'{"model": "simulated?bogus=1", "input": "x"}', 404),
    "conversation": (b'{"model": "simulated", "input": "x", "conversation": "conv_1"}', 404),
    "hosted tool": (b'{"model": "simulated", "input": "x", "tool_choice": {"type": "web_search"}}', 400),
    "long item": (b'{"model": "simulated", "input": "' + b"x" * (10 * 1024 * 1024 + 1) + b'"}', 413),
    "long body": (b'{"model": "simulated", "input": "x", "y": "' + b"x" * (32 * 1024 * 1024) + b'"}', 413),
}


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES.keys())
def test_a_body_that_cannot_be_served_is_refused(post: httpx.Client, body: bytes, status: int) -> None:
    answer = post.post("/v1/responses", content=body, headers={"content-type": "application/json"})
    error = refused(answer, status)
    assert error["message"]
    assert len(answer.content) < 2000


def test_a_million_keys_are_read_once_and_ignored(post: httpx.Client) -> None:
    keys = b",".join(b'"k%d":1' % n for n in range(1_000_000))
    answer = post.post("/v1/responses", content=b'{"model": "nothing?", "temperature": 9, %b}' % keys)
    refused(answer, 422)


def test_a_refusal_never_repeats_a_secret(post: httpx.Client) -> None:
    answer = post.post("/v1/responses", json={"model": MODEL, "input": "x", "user": ["sk-very-secret"]})
    refused(answer, 422)
    assert "sk-very-secret" not in answer.text


@pytest.mark.parametrize("key", ["", '"', "k" * 256])
def test_a_key_that_is_none_is_refused(post: httpx.Client, key: str) -> None:
    headers = {"idempotency-key": key}
    answer = post.post("/v1/responses", json={"model": MODEL, "input": "x"}, headers=headers)
    assert refused(answer, 400)["param"] == "Idempotency-Key"


# -- Paths, methods, ids -----------------------------------------------------------------------------------

IDS = [
    "resp_unknown",
    "resp_" + "0" * 32,
    "x" * 2000,
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%2f",
    "resp_%00",
    "*",
    "%3E",
    "resp_1.2",
    "%F0%9F%92%A5",
    "%FF%FE",
    "'%20OR%201=1--",
    "%0d%0aX-Injected:%201",
    "resp_%25s%25n",
]


@pytest.mark.parametrize("hostile", IDS)
def test_an_id_that_is_none_is_not_found(post: httpx.Client, hostile: str) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "?stream=true"),
        ("POST", "/cancel"),
        ("DELETE", ""),
        ("GET", "/input_items"),
    ):
        answer = post.request(method, f"/v1/responses/{hostile}{path}")
        refused(answer, 404)
        assert "x-injected" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/responses", 405),
        ("PATCH", "/v1/responses/resp_1", 405),
        ("DELETE", "/v1/responses", 405),
        ("GET", "/v1/responses/resp_1/cancel", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1", 404),
        ("GET", "/v1/responses/resp_1/unknown", 404),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/..%2f..%2fetc/passwd", 404),
    ],
)
def test_what_is_not_served_says_so(post: httpx.Client, method: str, path: str, status: int) -> None:
    answer = post.request(method, path)
    refused(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=" + "9" * 400,
        "order=up",
        "after=resp_unknown",
        "status=dreaming",
        "&".join(f"a{n}=1" for n in range(200)),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(post: httpx.Client, query: str) -> None:
    refused(post.get(f"/v1/responses?{query}"), 400, 404)


def test_pages_and_names_of_elsewhere_are_refused(post: httpx.Client) -> None:
    body = {"model": MODEL, "input": "x"}
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        refused(post.post("/v1/responses", json=body, headers=headers), 403)


# -- Raw bytes ---------------------------------------------------------------------------------------------


def talk(instance: Instance, *pieces: bytes, limit_s: float = PATIENCE_S) -> bytes:
    """Send bytes as they are; all that comes back until the other side closes or nothing more comes."""
    place = urlsplit(instance.url)
    assert place.hostname is not None
    received = b""
    with socket.create_connection((place.hostname, place.port or 80), timeout=limit_s) as connection:
        # It may not want to hear the rest, and close; what it said before that is still read.
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    return received


def status_of(answer: bytes) -> int | None:
    """Of an HTTP answer; None where the connection was closed without one."""
    if not answer:
        return None
    version, status, _ = answer.split(b" ", 2)
    assert version in (b"HTTP/1.0", b"HTTP/1.1")
    return int(status)


def head(*lines: str, method: str = "POST") -> bytes:
    usual = (f"{method} /v1/responses HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*usual, *lines, "", "")).encode("latin-1")


BODY = json.dumps({"model": MODEL, "input": "x"}).encode()


@pytest.mark.parametrize(
    "pieces",
    [
        (head("Content-Length: 5", "Transfer-Encoding: chunked"), b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
        (head("Content-Length: 5", "Content-Length: 6"), b"{}...."),
        (head("Transfer-Encoding: chunked"), b"zz\r\n{}\r\n0\r\n\r\n"),
        (head("Transfer-Encoding: chunked"), b"ffffffffffffffff1\r\n{}\r\n"),
        (head("Transfer-Encoding: gzip"), BODY),
        (head("Content-Length: -1"), BODY),
        (head("Content-Length: abc"), BODY),
        (head("X-Folded: a\r\n b", "Content-Length: 0"),),
        (b"GET /v1/models\r\n\r\n",),
        (b"BREW /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,),
        (b"POST /v1/responses HTTP/1.1\nHost: localhost\nContent-Length: x\n\n",),
        (head(f"Content-Length: {len(BODY)}", "Content-Encoding: gzip"), BODY),
        (head("X-Bad: \x00", "Content-Length: 0"),),
        (head("Bad Header : x", "Content-Length: 0"),),
    ],
    ids=lambda pieces: repr(pieces[0][:80]),
)
def test_broken_http_is_refused(instance: Instance, pieces: tuple[bytes, ...]) -> None:
    answer = talk(instance, *pieces)
    status = status_of(answer)
    assert status is None or 400 <= status < 500, answer[:300]
    assert answer.count(b"HTTP/1.1 ") <= 1, "a second request was smuggled in"


@pytest.mark.parametrize(
    "lines",
    [
        (f"X-Long: {'x' * 1_000_000}",),
        tuple(f"X-Header-{n}: {n}" for n in range(10_000)),
    ],
    ids=["one of a megabyte", "ten thousand"],
)
def test_headers_without_end_are_refused(instance: Instance, lines: tuple[str, ...]) -> None:
    answer = talk(instance, head(*lines, f"Content-Length: {len(BODY)}"), BODY)
    status = status_of(answer)
    assert status is None or 400 <= status < 500, answer[:300]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_is_cut_off_while_it_is_read(instance: Instance, chunked: bool) -> None:
    """Three hundred megabytes: refused at the limit, and never held in memory."""
    mebibyte = b"x" * (1 << 20)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {300 << 20}"
    piece = b"100000\r\n" + mebibyte + b"\r\n" if chunked else mebibyte
    before = _memory(instance)
    answer = talk(instance, head(length), *(piece for _ in range(300)))
    grown = _memory(instance) - before
    status = status_of(answer)
    assert status in (None, 413)
    assert grown < GROWTH, f"{grown >> 20} MiB"


def test_a_body_that_stops_arriving_holds_up_nobody_else(instance: Instance) -> None:
    place = urlsplit(instance.url)
    assert place.hostname is not None
    waiting = []
    try:
        for _ in range(50):
            connection = socket.create_connection((place.hostname, place.port or 80), timeout=PATIENCE_S)
            connection.sendall(head(f"Content-Length: {len(BODY)}") + BODY[:5])
            waiting.append(connection)
        assert instance.get("/readyz")[0] == 200
    finally:
        for connection in waiting:
            connection.close()


def _memory(instance: Instance) -> int:
    """Resident bytes of the replicas and the ingress."""
    return memory(named(instance, REPLICA, HAPROXY))

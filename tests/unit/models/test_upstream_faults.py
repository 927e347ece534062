"""Every way in which an upstream fails ends in one clear `ModelError`, in time, without a key in it."""

import asyncio
from dataclasses import replace

import pytest

from runtime.catalog import Adapter, Timeouts
from runtime.model import ModelError
from runtime.models.open import ModelPool
from runtime.models.upstream_errors import in_stream, refused, retry_after
from tests.fakes.script import words
from tests.fakes.upstream import FakeUpstream
from tests.unit.models.calls import Said, ask, call, until, upstream_of, user

both = pytest.mark.parametrize("adapter", ["openai_chat", "openai_responses"])


async def _ask(fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str) -> Said:
    """A call with a key; whatever the error says, the key is not in it."""
    patience = Timeouts(idle=1) if "stall" in query else Timeouts()
    upstream = upstream_of(fake, adapter, key_env="FAKE_KEY", timeouts=patience)
    said = await call(pool.open(upstream), ask(f"fake?{query}", user("hi")))
    if said.error is not None:
        assert "sk-very-secret" not in repr(said.error)
        assert "'fake'" in said.error.message, "the upstream is named"
    return said


def _error(said: Said) -> ModelError:
    assert said.error is not None
    return said.error


@both
@pytest.mark.parametrize(
    ("query", "code", "retryable"),
    [
        ("status=400", "invalid_prompt", False),
        ("status=401", "upstream_auth", False),
        ("status=403", "upstream_auth", False),
        ("status=404", "upstream_not_found", False),
        ("status=408", "upstream_timeout", True),
        ("status=409", "server_error", True),
        ("status=418", "upstream_protocol", False),
        ("status=422", "invalid_prompt", False),
        ("status=429", "rate_limit_exceeded", True),
        ("status=429&code=insufficient_quota", "rate_limit_exceeded", False),
        ("status=500", "server_error", True),
        ("status=503", "server_error", True),
        ("status=307", "upstream_protocol", False),
    ],
)
async def test_a_status_has_a_meaning_and_the_upstreams_words(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str, code: str, retryable: bool
) -> None:
    said = await _ask(fake, pool, adapter, query + "&message=The+key+sk-very-secret+is+bad")
    error = _error(said)
    assert (error.code, error.retryable) == (code, retryable)
    assert said.events == []
    if "307" not in query:
        assert "It says: The key *** is bad" in error.message


@both
async def test_retry_after_is_passed_on(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    for query, seconds in [
        ("retry_after=7", 7.0),
        ("retry_after_ms=250", 0.25),
        ("retry_after=Sun,+22+Nov+2026+12:00:30+GMT", 30.0),
        ("retry_after=soon", None),
        ("", None),
    ]:
        error = _error(await _ask(fake, pool, adapter, f"status=429&{query}"))
        assert error.retry_after == seconds


@both
@pytest.mark.parametrize(
    ("query", "code", "retryable"),
    [
        ("cut_after=3", "upstream_interrupted", True),
        ("end_after=3", "upstream_interrupted", True),
        ("stall_after=3", "upstream_timeout", True),
        ("garbage_after=3", "upstream_protocol", False),
        ("huge_after=3", "upstream_protocol", False),
        ("error_after=3", "server_error", True),
        ("error_after=3&code=rate_limit_exceeded", "rate_limit_exceeded", True),
        ("error_after=3&code=context_length_exceeded", "context_length_exceeded", False),
        ("error_after=3&code=503", "server_error", True),
    ],
)
async def test_a_stream_that_breaks_keeps_what_it_said(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str, code: str, retryable: bool
) -> None:
    said = await _ask(fake, pool, adapter, f"deltas=9&interval_ms=1&{query}")
    assert (_error(said).code, _error(said).retryable) == (code, retryable)
    assert tuple(said.pieces) == words(3)
    assert said.items[0][1].endswith("...")


@both
async def test_a_page_in_the_place_of_a_stream(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    error = _error(await _ask(fake, pool, adapter, "content_type=text/html"))
    assert error.code == "upstream_protocol"
    assert "text/html" in error.message
    assert "url" in error.message


@both
@pytest.mark.parametrize("query", ["delay_ms=60000", "first_ms=60000", "deltas=3&interval_ms=60000"])
async def test_silence_ends_and_the_connection_with_it(
    fake: FakeUpstream, pool: ModelPool, adapter: Adapter, query: str
) -> None:
    upstream = upstream_of(fake, adapter, timeouts=Timeouts(connect=2, first_byte=0.2, idle=0.2))
    said = await call(pool.open(upstream), ask(f"fake?{query}", user("hi")))
    assert (_error(said).code, _error(said).retryable) == ("upstream_timeout", True)
    await until(lambda: fake.aborted == 1)


@both
async def test_a_slow_upstream_is_no_error(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    said = await _ask(fake, pool, adapter, "deltas=4&delay_ms=20&first_ms=20&interval_ms=20")
    assert said.error is None
    assert tuple(said.pieces) == words(4)


@both
async def test_nobody_listens(fake: FakeUpstream, pool: ModelPool, adapter: Adapter) -> None:
    upstream = replace(upstream_of(fake, adapter), url="http://127.0.0.1:9/v1")
    error = _error(await call(pool.open(upstream), ask("fake", user("hi"))))
    assert (error.code, error.retryable) == ("upstream_unreachable", True)
    assert "127.0.0.1" not in error.message, "a client need not know the address"


async def test_something_else_listens(fake: FakeUpstream, pool: ModelPool) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        upstream = replace(upstream_of(fake), url=f"http://127.0.0.1:{port}/v1")
        error = _error(await call(pool.open(upstream), ask("fake", user("hi"))))
    assert error.code == "upstream_protocol"


async def test_the_first_calls_fail_then_it_succeeds(fake: FakeUpstream, pool: ModelPool) -> None:
    query = "status=500&fail_first=2"
    ends = [await _ask(fake, pool, "openai_chat", query) for _ in range(3)]
    assert [end.error is None for end in ends] == [False, False, True]


async def test_a_key_that_is_not_set_is_said_by_its_name(fake: FakeUpstream, pool: ModelPool) -> None:
    with pytest.raises(ModelError, match="NO_SUCH_KEY") as caught:
        pool.open(upstream_of(fake, key_env="NO_SUCH_KEY"))
    assert caught.value.code == "upstream_auth"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error":{"message":"no"}}', "no"),
        (b'{"error":"no"}', "no"),
        (b'{"message":"no"}', "no"),
        (b'{"detail":[{"msg":"no"}]}', "no"),
        (b'[{"error":{"message":"no"}}]', "no"),
        (b'{"error":{"message":"\\ud800 no"}}', "\ufffd no"),
        (b"<html>", None),
        (b"", None),
        (b'{"error":{"message":' + b'"' + b"x" * 9999 + b'"}}', "x" * 500 + "..."),
    ],
)
def test_an_errors_words_are_found_in_every_usual_shape(body: bytes, words: str | None) -> None:
    message = refused("up", 400, {}, body, []).message
    assert message == "The upstream 'up' refused the request (400)." + (f" It says: {words}" if words else "")


def test_an_error_in_a_stream_may_be_a_mere_text() -> None:
    error = in_stream("up", "out of memory", [])
    assert (error.code, error.retryable) == ("server_error", True)
    assert "out of memory" in error.message


def test_a_wait_that_makes_no_sense_is_none() -> None:
    for value in ("-1", "nan", "inf", "", "x"):
        assert retry_after({"retry-after": value}) is None
    assert retry_after({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}) is None, (
        "without the upstream's own date"
    )


def test_an_upstream_may_forbid_the_retry() -> None:
    assert not refused("up", 500, {"x-should-retry": "false"}, b"", []).retryable

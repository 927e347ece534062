"""One upstream over HTTP: a bounded call whose every failure is a `ModelError` that names the upstream.

Connections are kept alive and shared by all calls of a process.  Nothing waits without a bound.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urlsplit

import aiohttp

from runtime.catalog import Upstream
from runtime.model import JSON, ModelError
from runtime.models.json_text import dumps, loads
from runtime.models.upstream_errors import cleaned, refused

# An answer without a stream, and an error's body, in memory.
WHOLE_BYTES = 16 * 1024 * 1024
ERROR_BYTES = 64 * 1024
ERROR_SECONDS = 5.0
# A stream that has said all is read to its end, so that its connection can be used again; not for long.
DRAIN_SECONDS = 0.1
MODELS_LISTED = 1000
MODELS_SECONDS = 10.0
# A count of tokens that takes longer is not waited for.
ASK_SECONDS = 3.0


class Connections:
    """The process's HTTP session, opened by the first call."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """The session.  Must be called from the event loop that will use it."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                # A host makes one call for each response that runs there: its slots bound the connections.
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()


class Answer:
    """A successful answer, to be read once."""

    def __init__(self, http: Http, response: aiohttp.ClientResponse) -> None:
        self._http = http
        self._response = response
        self._patience = http.upstream.timeouts.first_byte
        self._loop = asyncio.get_running_loop()
        self._due = math.inf
        """When the read that waits has waited for long enough, in the loop's time."""
        self._timer: asyncio.TimerHandle | None = None
        self.complete = False
        """Set by the reader once the stream has said all: what still comes is of no use."""

    @property
    def request_id(self) -> str | None:
        """The upstream's own id of the call."""
        headers = self._response.headers
        return self._http.clean(headers.get("x-request-id") or headers.get("request-id") or "")[:200] or None

    @property
    def kind(self) -> str:
        """The media type; empty where the upstream names none."""
        return self._response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        """What has come since, or comes next; empty at the end.  Raises `ModelError`."""
        self._due = self._loop.time() + self._patience
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)
        try:
            data = await self._response.content.readany()
        except TimeoutError:
            raise self._http.error(
                "upstream_timeout", f"said nothing for {self._patience:g} s", retryable=True
            ) from None
        except (aiohttp.ClientError, OSError):
            raise self._http.interrupted() from None
        self._due = math.inf
        idle = self._http.upstream.timeouts.idle
        if self._patience != idle:
            self._patience = idle
            self._stop_timer()  # It may look too late.
        return data

    def _look(self) -> None:
        """End a wait that is over.  One timer for all reads: one each cost more than reading."""
        now = self._loop.time()
        if now < self._due:
            after = self._patience if self._due == math.inf else self._due - now
            self._timer = self._loop.call_later(after, self._look)
        else:
            self._response.content.set_exception(TimeoutError())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def all(self, limit: int = WHOLE_BYTES) -> bytes:
        """The whole body.  Raises `ModelError`, also past `limit` bytes."""
        body = bytearray()
        while data := await self.read():
            body += data
            if len(body) > limit:
                raise self._http.error("upstream_protocol", f"answered with more than {limit} bytes")
        return bytes(body)

    async def leave(self) -> None:
        """Give the connection back where the answer is read to its end, and close it otherwise."""
        self._stop_timer()
        try:
            if self.complete:
                async with asyncio.timeout(DRAIN_SECONDS):
                    while await self._response.content.readany():
                        pass
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # The answer is complete; only its connection is lost.
        finally:
            if self._response.content.at_eof():
                self._response.release()
            else:
                self._response.close()


class Http:
    """One upstream's address, key and patience."""

    def __init__(self, upstream: Upstream, connections: Connections, env: Mapping[str, str]) -> None:
        self.upstream = upstream
        self._connections = connections
        self._headers = {
            "Accept-Encoding": "identity",  # Compression gathers deltas before it sends them.
            "Content-Type": "application/json",
            **upstream.headers,
        }
        self.secrets: list[str] = []
        if upstream.key_env:
            self._headers["Authorization"] = f"Bearer {self._secret(upstream.key_env, env)}"
        for header, variable in upstream.headers_env.items():
            self._headers[header] = self._secret(variable, env)
        self.secrets.sort(key=len, reverse=True)  # One may be the beginning of another.

    def _secret(self, variable: str, env: Mapping[str, str]) -> str:
        secret = env.get(variable, "").strip()
        if not secret or not secret.isprintable():
            raise self.error("upstream_auth", f"has no usable key: set the environment variable {variable}")
        self.secrets.append(secret)
        return secret

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Answer]:
        """Send `body` to `path` under the base url.  Raises `ModelError` for anything but a success."""
        answer = await self._send("POST", path, body)
        try:
            yield answer
        finally:
            await answer.leave()

    async def ask(self, path: str, value: JSON, *, beside: bool = False) -> JSON:
        """What `path` answers to `value`, both JSON; with `beside` the path stands beside `/v1`.

        Raises `ModelError`.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self._send("POST", path, dumps(value), beside=beside)
                try:
                    said = loads(await answer.all())
                    answer.complete = True
                    return said
                finally:
                    await answer.leave()
        except TimeoutError:
            raise self.error("upstream_timeout", f"did not answer within {ASK_SECONDS:g} s") from None
        except ValueError:
            raise self.error("upstream_protocol", f"answers no JSON at {path}") from None

    async def models(self) -> Sequence[str]:
        """The ids that `GET /models` lists.  Raises `ModelError`."""
        return list(await self.owners())

    async def owners(self) -> Mapping[str, str]:
        """The ids that `GET /models` lists, each with what it says about its owner.  Raises `ModelError`."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                return await self._owners()
        except TimeoutError:
            raise self.error(
                "upstream_timeout", f"did not list its models within {MODELS_SECONDS:g} s", retryable=True
            ) from None

    async def _owners(self) -> Mapping[str, str]:
        answer = await self._send("GET", "/models", None)
        try:
            listed = loads(await answer.all())
            answer.complete = True
            models = [one for one in listed["data"][:MODELS_LISTED] if isinstance(one["id"], str)]
            return {model["id"]: str(model.get("owned_by") or "") for model in models}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self.error("upstream_protocol", "does not list its models at /models") from None
        finally:
            await answer.leave()

    async def _send(self, method: str, path: str, body: bytes | None, *, beside: bool = False) -> Answer:
        timeouts = self.upstream.timeouts
        connect = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)
        try:
            async with asyncio.timeout(timeouts.first_byte):
                response = await self._connections.session().request(
                    method,
                    _url(self.upstream.url, path, beside=beside),
                    data=body,
                    headers=self._headers,
                    allow_redirects=False,
                    timeout=connect,
                )
        except aiohttp.ConnectionTimeoutError:
            raise self.error(
                "upstream_unreachable",
                f"did not accept a connection within {timeouts.connect:g} s",
                retryable=True,
            ) from None
        except TimeoutError:
            raise self.error(
                "upstream_timeout", f"did not answer within {timeouts.first_byte:g} s", retryable=True
            ) from None
        except aiohttp.ClientConnectorError as reason:
            # The system's own text would name the address, which is no client's business.
            number = reason.os_error.errno or 0
            why = os.strerror(number) if number > 0 else "its host is unknown"
            raise self.error("upstream_unreachable", f"cannot be reached ({why})", retryable=True) from None
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, OSError):
            raise self.interrupted() from None
        except (aiohttp.ClientError, ValueError):
            raise self.error("upstream_protocol", "does not speak HTTP as expected; check its url") from None
        answer = Answer(self, response)
        if not 200 <= response.status < 300:
            try:
                raise await self._refusal(answer, response)
            finally:
                await answer.leave()
        return answer

    async def _refusal(self, answer: Answer, response: aiohttp.ClientResponse) -> ModelError:
        """What a status that is no success means; its body helps where it comes in time."""
        try:
            async with asyncio.timeout(ERROR_SECONDS):
                body = await answer.all(ERROR_BYTES)
        except (TimeoutError, ModelError):
            body = b""
        headers = {name.lower(): value for name, value in response.headers.items()}
        return refused(self.upstream.name, response.status, headers, body, self.secrets)

    def error(self, code: str, problem: str, *, retryable: bool = False) -> ModelError:
        """An error that says which upstream has the problem."""
        message = self.clean(f"The upstream {self.upstream.name!r} {problem}.")
        return ModelError(code, message, retryable=retryable)

    def clean(self, text: str) -> str:
        """What an upstream said, without the secrets that it was told."""
        return cleaned(text, self.secrets)

    def interrupted(self) -> ModelError:
        """The error of a connection that broke before the upstream had finished."""
        return self.error("upstream_interrupted", "broke off before it had finished", retryable=True)


@lru_cache(maxsize=256)
def _url(base: str, path: str, *, beside: bool) -> str:
    parts = urlsplit(base)
    above = parts.path.rstrip("/")
    return parts._replace(path=(above.removesuffix("/v1") if beside else above) + path).geturl()

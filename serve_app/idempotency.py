"""`Idempotency-Key`: of all requests with one key, one has an effect, and the others get its answer.

The key is claimed in the unit that creates the response, or adds the items, so it does not matter which
replica or host a repeat meets, or what died in between.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from eventstore.events import Claim
from eventstore.ports import LogReader
from runtime.response.aggregate import Status
from runtime.response.commands import Idempotency, idempotency_scope
from runtime.response.standing import RUNNING, is_background
from serve_app.call import Call
from serve_app.errors import ApiError, Problem, bad_request

HEADER: Final = "Idempotency-Key"
KEY_CHARS_MAX: Final = 255
REPLAYED: Final = (b"idempotent-replayed", b"true")
"""On every answer that was given before."""
RETRY_AFTER_S: Final = 1
"""Seconds after which a client may ask again for the answer to a request that still runs."""
_PRINTABLE: Final = re.compile(r"[ -~]+")
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # A string of RFC 9651.
_NO_RETRY: Final = {"x-should-retry": "false"}


class Earlier(NamedTuple):
    """The response that a key's first request made, and whether it runs in the background."""

    response_id: str
    background: bool


class IdempotencyKeys:
    """The keys of requests, each of them its project's."""

    def __init__(self, reader: LogReader, lifetime: float, secret: str) -> None:
        """`lifetime` in seconds; `secret` keys the fingerprints, the same in every replica."""
        self._reader = reader
        self._lifetime = lifetime
        self._secret = secret.encode()

    def asked(self, call: Call, fields: Mapping[str, Any], now: float) -> Idempotency | None:
        """What the request claims, from its header and its parsed body.  Raises `ApiError` (400)."""
        key = key_of(call)
        if key is None:
            return None
        expires_at = int((now + self._lifetime) * 1000)
        return Idempotency(key, fingerprint(self._secret, fields), expires_at)

    async def earlier(self, project: str, asked: Idempotency) -> Earlier | None:
        """The response whose answer is to be given again, or None for a key that is new or has expired.

        Raises `ApiError` (409) where there is no such answer: the request is another one, still runs while
        its client waits, or its response was erased.  Raises `StoreUnavailable`.
        """
        claim = await self.claimed(idempotency_scope(project), asked)
        if claim is None:
            return None
        head = await self._reader.head(claim.stream)
        if head is None or head.state == Status.ERASED:
            raise erased()
        background = is_background(head)
        if head.state in RUNNING and not background:
            raise _in_progress(claim.stream)
        return Earlier(claim.stream, background)

    async def claimed(self, scope: str, asked: Idempotency) -> Claim | None:
        """What the same request claimed before.  Raises `ApiError` (409) where it was another one."""
        claim = await self._reader.claim(scope, asked.key)
        if claim is not None and not hmac.compare_digest(claim.fingerprint, asked.fingerprint):
            raise conflict()
        return claim

    def entropy(self, scope: str, asked: Idempotency) -> bytes:
        """16 bytes for the ids of what the request makes: a repeat names the same things."""
        told = b"ids\0" + f"{scope}\0{asked.key}\0".encode() + asked.fingerprint
        return hmac.digest(self._secret, told, hashlib.sha256)[:16]


def key_of(call: Call) -> str | None:
    """The key that a request names, raw or quoted; None without the header.  Raises `ApiError` (400)."""
    given = [str(value, "latin-1") for name, value in call.scope["headers"] if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1:
        raise bad_request(f"{HEADER} is there more than once. Send it once.", HEADER, "invalid_value")
    key = given[0].strip()
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            message = f'{HEADER} begins with a quote but is no quoted string. Send "key" or key.'
            raise bad_request(message, HEADER, "invalid_value")
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if len(key) > KEY_CHARS_MAX or not _PRINTABLE.fullmatch(key):
        message = f"{HEADER} must hold 1 to {KEY_CHARS_MAX} printable ASCII characters."
        raise bad_request(message, HEADER, "invalid_value")
    return key


def fingerprint(secret: bytes, fields: Mapping[str, Any]) -> bytes:
    """What tells one request from another, and nothing about it to who has no `secret`.

    Of the JSON's meaning: the order of keys, white space and escapes make no difference.
    """
    told = b"request\0" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(secret, told, hashlib.sha256)


def conflict() -> ApiError:
    """409: the key is taken by another request."""
    message = f"This {HEADER} was used with another request. Send a new key, or the same request."
    return ApiError(Problem(409, message, code="idempotency_key_conflict", param=HEADER, headers=_NO_RETRY))


def _in_progress(response_id: str) -> ApiError:
    message = (
        f"The request with this {HEADER} still runs, as response {response_id}. Ask again for its answer, or "
        "get the response by its id."
    )
    return ApiError(
        Problem(
            409,
            message,
            code="idempotency_in_progress",
            param=HEADER,
            headers={"retry-after": str(RETRY_AFTER_S)},
            response_id=response_id,
        )
    )


def erased() -> ApiError:
    """409: the answer is not there any more."""
    message = f"The response that was made with this {HEADER} was erased. Send a new key to make another."
    return ApiError(
        Problem(409, message, code="idempotency_response_erased", param=HEADER, headers=_NO_RETRY)
    )

"""What an upstream's failure means to us: its status or error object in, a `ModelError` out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from runtime.model import ModelError
from runtime.models.json_text import loads, whole

JSON = Any

# An upstream's message is shown to the client: enough to understand, not enough to flood.
MESSAGE_CHARS = 500

# code, retryable, what to do
STATUSES: Mapping[int, tuple[str, bool, str]] = {
    400: ("invalid_prompt", False, "refused the request"),
    401: ("upstream_auth", False, "did not accept the key; the operator must check it"),
    402: ("upstream_auth", False, "asks for payment; the operator must check its account"),
    403: ("upstream_auth", False, "does not let this key do that; the operator must check it"),
    404: (
        "upstream_not_found",
        False,
        "does not have that model or path; check the model's name and the url",
    ),
    408: ("upstream_timeout", True, "timed out"),
    409: ("server_error", True, "is in a conflict"),
    413: ("invalid_prompt", False, "refused the request as too large"),
    415: ("invalid_prompt", False, "refused the kind of content"),
    422: ("invalid_prompt", False, "refused the request"),
    425: ("server_error", True, "is not ready"),
    429: ("rate_limit_exceeded", True, "is limiting the rate; try again later"),
}
TOO_LONG = "context_length_exceeded"
# As vLLM, SGLang, llama.cpp, TGI and Mistral word it.
_TOO_LONG = re.compile(
    r"context (length|window|size)|maximum (context|input|model) length|too large for model|`inputs` tokens",
    re.IGNORECASE,
)
QUOTA_CODES = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached")
# Values of the Responses API's `error.code` that an upstream's own code may pass on as they are.
OWN_CODES = frozenset(
    {
        "server_error",
        "rate_limit_exceeded",
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "misalignment_policy_violation",
        "vector_store_timeout",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_url",
        "invalid_image_mode",
        "invalid_base64_image",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
    }
)
KINDS: Mapping[str, int] = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "slow_down": 429,
    **dict.fromkeys(QUOTA_CODES, 429),
}


def refused(
    name: str, status: int, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]
) -> ModelError:
    """The error of an answer with a status that is no success."""
    if 300 <= status < 400:
        return ModelError(
            "upstream_protocol",
            f"The upstream {name!r} redirects elsewhere ({status}). Name the final address as its url.",
        )
    fallback = (
        ("server_error", True, "failed")
        if status >= 500
        else ("upstream_protocol", False, "refused the call")
    )
    code, retryable, meaning = STATUSES.get(status, fallback)
    error = _error_of(body)
    if status == 429 and set(QUOTA_CODES).intersection(_codes(error)):
        retryable, meaning = False, "says that its quota is used up; the operator must check its account"
    if (asked := headers.get("x-should-retry")) in ("true", "false") and status not in (401, 403):
        retryable = asked == "true"
    text = _message(name, f"{meaning} ({status})", error, secrets)
    if code == "invalid_prompt" and _is_too_long(error, text):
        code = TOO_LONG
    return ModelError(
        code, text, retryable=retryable, retry_after=retry_after(headers) if retryable else None
    )


def in_stream(name: str, error: JSON, secrets: Sequence[str]) -> ModelError:
    """The error that an upstream reports within a stream, in an error object or as a text."""
    for said in _codes(error):
        if said in OWN_CODES:
            retryable = said in ("server_error", "rate_limit_exceeded", "vector_store_timeout")
            return ModelError(said, _message(name, "failed", error, secrets), retryable=retryable)
        status = KINDS.get(said) or (int(said) if said.isdigit() and len(said) == 3 else 0)
        if status in STATUSES:
            code, retryable, meaning = STATUSES[status]
            again = retryable and said not in QUOTA_CODES
            text = _message(name, meaning, error, secrets)
            too_long = code == "invalid_prompt" and _is_too_long(error, text)
            return ModelError(TOO_LONG if too_long else code, text, retryable=again)
    return ModelError("server_error", _message(name, "failed", error, secrets), retryable=True)


def cleaned(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, of which the longest come first."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _is_too_long(error: JSON, text: str) -> bool:
    """Whether a request was refused because its context is too long; few servers have a code for that."""
    return TOO_LONG in _codes(error) or _TOO_LONG.search(text) is not None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, where the upstream says: in milliseconds, in seconds, or as a date after its own."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    then, now = _date(headers.get("retry-after", "")), _date(headers.get("date", ""))
    return max(0.0, (then - now).total_seconds()) if then and now else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else None


def _error_of(body: bytes) -> JSON:
    """What an error's body says, in whichever of the usual shapes."""
    try:
        value = loads(body)
    except ValueError:
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, Mapping):
        return value if isinstance(value, str) else None
    return value.get("error") or value.get("detail") or value


def _codes(error: JSON) -> list[str]:
    """What the error calls itself, the most telling name first."""
    if not isinstance(error, Mapping):
        return []
    return [str(error[key]).lower() for key in ("code", "type", "status") if error.get(key) is not None]


def _message(name: str, meaning: str, error: JSON, secrets: Sequence[str]) -> str:
    """Our sentence, then the upstream's own words, without anything secret."""
    if isinstance(error, list) and error:
        error = error[0]
    words = error
    if isinstance(error, Mapping):
        words = next((error[key] for key in ("message", "msg", "error", "detail") if error.get(key)), None)
    if not isinstance(words, str) or not words.strip():
        return f"The upstream {name!r} {meaning}."
    said = cleaned(" ".join(whole(words).split()), secrets)
    said = said if len(said) <= MESSAGE_CHARS else said[:MESSAGE_CHARS] + "..."
    return f"The upstream {name!r} {meaning}. It says: {said}"

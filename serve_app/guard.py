"""Who may speak to the API while no keys are configured: programs on this machine, and no page of others.

Once there are keys, they decide (`serve_app.auth`).

A page on the internet can make the browser of somebody on this machine send requests here, under a name that
its owner points at 127.0.0.1 (DNS rebinding).  They have that page as `Origin`, or that name as `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

from serve_app.errors import ApiError, Problem

OWN_NAMES: Final = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Refuses what does not come from this machine."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset((*OWN_NAMES, *(name.strip("[]").lower() for name in names)))

    def check(self, scope: Scope) -> None:
        """Raises `ApiError` (403)."""
        client = scope.get("client")
        if client is not None and not _is_loopback(client[0]):
            raise _forbidden("the API answers only this machine as long as no API keys are configured")
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = str(value, "latin-1")
                if _name(host) not in self._names:
                    raise _forbidden("the Host header must name this machine, such as localhost")
            elif name == b"origin":
                origin = str(value, "latin-1")
        if origin is not None and not _is_own(origin, host):
            raise _forbidden("requests of web pages from elsewhere (Origin) are not served")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_own(origin: str, host: str | None) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc == host


@lru_cache(maxsize=256)
def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _forbidden(why: str) -> ApiError:
    return ApiError(Problem(403, f"Refused: {why}.", code="forbidden"))

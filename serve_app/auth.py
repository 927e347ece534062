"""Who asks?  Credentials in a request's headers become a principal, or an error.

Without any key configured, neither an admin key nor one of a project, everybody on this machine may do
everything in the project `default`.  The first key ends that for good.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from typing import Final

from starlette.types import Scope

from runtime.project.state import DEFAULT_PROJECT
from serve_app.errors import ApiError, Problem
from serve_app.guard import Guard
from serve_app.keys import KeyHashes
from serve_app.principal import NOBODY, OPEN, Principal
from serve_app.projects import Projects
from serve_app.router import Access

ADMIN_HEADER: Final = "X-Admin-Key"
PROJECT_HEADER: Final = "X-Project-ID"
_BEARER: Final = "bearer "


class Auth:
    """The door of the API."""

    def __init__(
        self,
        projects: Projects,
        hashes: KeyHashes,
        guard: Guard,
        admin_key: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._projects = projects
        self._hashes = hashes
        self._guard = guard
        self._closed = admin_key is not None
        self._admin_keys = [key.encode() for key in (admin_key, hashes.local_admin_key()) if key is not None]
        self._now = now

    def guard(self, scope: Scope) -> None:
        """Keep strangers out where no key does.  Raises `ApiError` (403)."""
        if not self._closed and not self._projects.known_to_have_keys:
            self._guard.check(scope)

    async def admit(self, scope: Scope, access: Access) -> Principal:
        """Who asks for something that is meant for `access`.

        Raises `ApiError`: 401 without a good key; 403 for a key that is not for this; 404 where an operator
        names a project that does not exist.
        """
        if access == "anybody":
            self.guard(scope)
            return self._anybody(scope)
        if not self._closed and not await self._projects.have_keys():
            self._guard.check(scope)
            return OPEN
        shown = _Shown(scope)
        if shown.admin is not None:
            if not self._is_admin(shown.admin):
                raise _unauthorized(f"the {ADMIN_HEADER} is not the one of this server")
            return await self._operator(shown.project, access)
        if shown.bearer is None:
            raise _unauthorized(f"send Authorization: Bearer and a project's key, or {ADMIN_HEADER}")
        # OpenAI's clients send an admin key so, and only where nothing but an admin key will do.
        if access == "operator" and self._is_admin(shown.bearer):
            return await self._operator(shown.project, access)
        principal = await self._holder(shown.bearer)
        if access == "operator":
            raise _forbidden(
                "This needs an admin key; a project's key may not do it.", "insufficient_permissions"
            )
        if shown.project not in (None, principal.project):
            # The same for a project that does not exist: nobody learns from it which do.
            raise _forbidden(
                f"This key is not for the project that {PROJECT_HEADER} names.", "project_mismatch"
            )
        return principal

    def _anybody(self, scope: Scope) -> Principal:
        """Whoever asks for what needs no key: an operator who says so is told more."""
        if not self._closed and not self._projects.known_to_have_keys:
            return OPEN
        shown = _Shown(scope)
        is_operator = shown.admin is not None and self._is_admin(shown.admin)
        return Principal(DEFAULT_PROJECT, None, admin=True) if is_operator else NOBODY

    async def _holder(self, text: str) -> Principal:
        named = self._hashes.parse(text)
        if named is None:
            raise _unauthorized("that is no API key of this server")
        project = await self._projects.find(named.project)
        if named.key_id not in project.keys:
            # It may have been made a moment ago, through another replica.
            project = await self._projects.find(named.project, 0.0)
        key = project.keys.get(named.key_id) if project.serves else None
        # What is unknown is compared all the same: it takes as long as what is wrong.
        good = self._hashes.matches(text, key.digest if key else "")
        if key is None or not good or not key.works_at(self._now()):
            raise _unauthorized("the API key is unknown or was revoked")
        return Principal(project.id, key.id, admin=False)

    async def _operator(self, project: str | None, access: Access) -> Principal:
        if access == "project" and project is not None and not (await self._projects.find(project)).serves:
            message = f"No project has the id that {PROJECT_HEADER} names, or it was archived."
            raise ApiError(Problem(404, message, code="project_not_found", param=PROJECT_HEADER))
        return Principal(project or DEFAULT_PROJECT, None, admin=True)

    def _is_admin(self, text: str) -> bool:
        given = text.encode("latin-1")
        # Each is compared whole, and all of them: how long it takes tells nothing.
        return sum([hmac.compare_digest(given, key) for key in self._admin_keys]) > 0


class _Shown:
    """The headers that say who asks; the first of each, and none that is empty."""

    __slots__ = ("admin", "bearer", "project")

    def __init__(self, scope: Scope) -> None:
        found: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in (b"authorization", b"x-admin-key", b"x-project-id", b"openai-project"):
                found.setdefault(name, str(value, "latin-1").strip())
        authorization = found.get(b"authorization", "")
        scheme, text = authorization[: len(_BEARER)], authorization[len(_BEARER) :].strip()
        self.bearer = text if scheme.lower() == _BEARER and text else None
        self.admin = found.get(b"x-admin-key") or None
        self.project = found.get(b"x-project-id") or found.get(b"openai-project") or None


def _unauthorized(why: str) -> ApiError:
    headers = {"www-authenticate": "Bearer"}
    return ApiError(Problem(401, f"Refused: {why}.", code="invalid_api_key", headers=headers))


def _forbidden(message: str, code: str) -> ApiError:
    return ApiError(Problem(403, message, code=code))

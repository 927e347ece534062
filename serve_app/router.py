"""The table of endpoints, and which of them a request goes to.  OpenAPI is written from the same table."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.call import Call
from serve_app.errors import ApiError, Problem

Handler = Callable[[Call], Awaitable[None]]
Access = Literal["project", "operator", "anybody"]
"""Who may call an endpoint once keys are configured: whoever acts for a project, whoever holds an admin key,
or everybody without one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path.  `{name}` in a path is one segment, `{name:path}` all that is left."""

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access = "project"
    ends_work: bool = False
    """Whether it ends what runs.  No quota refuses that."""

    @property
    def counts(self) -> bool:
        """Whether it asks a project for work, which quotas bound."""
        return self.access == "project" and self.method == "POST" and not self.ends_work


class Router:
    """Finds endpoints.  A trailing slash makes no difference."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._patterns: list[tuple[re.Pattern[str], dict[str, Endpoint]]] = []
        for endpoint in endpoints:
            self._methods_of(endpoint.path)[endpoint.method] = endpoint

    def find(self, method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
        """The endpoint and what the path names.  Raises `ApiError` (404, 405)."""
        path = path.rstrip("/") or "/"
        methods, params = self._exact.get(path), {}
        if methods is None:
            for pattern, candidate in self._patterns:
                if (match := pattern.fullmatch(path)) is not None:
                    methods, params = candidate, match.groupdict()
                    break
            else:
                message = f"There is nothing at {_shown(path)}. See /docs for what there is."
                raise ApiError(Problem(404, message, code="unknown_url"))
        endpoint = methods.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            allowed = ", ".join(sorted(methods))
            message = f"{method} is not possible at {_shown(path)}, only {allowed}."
            raise ApiError(Problem(405, message, code="method_not_allowed", headers={"allow": allowed}))
        return endpoint, params

    def _methods_of(self, path: str) -> dict[str, Endpoint]:
        if "{" not in path:
            return self._exact.setdefault(path, {})
        expression = re.sub(r"\\{(\w+):path\\}", r"(?P<\1>.+)", re.escape(path))
        pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", expression), re.DOTALL)
        for known, methods in self._patterns:
            if known == pattern:
                return methods
        self._patterns.append((pattern, {}))
        return self._patterns[-1][1]


def _shown(path: str) -> str:
    return path if len(path) <= 100 else path[:100] + "..."

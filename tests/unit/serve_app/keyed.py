"""A server with an admin key, two projects with a key each, and whatever else credentials can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.unit.serve_app.served import Served, served

ADMIN = "the admin key of the tests"
PROJECTS = "/v1/organization/projects"
AS_ADMIN = {"x-admin-key": ADMIN}
UNKNOWN_PROJECT = "proj_" + "0" * 24


@dataclass
class Tenant:
    """A project and a key of it."""

    project: str
    key_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What shows its key."""
        return {"authorization": f"Bearer {self.key}"}


@dataclass
class Keyed:
    """The server and who may use it."""

    server: Served
    ours: Tenant
    theirs: Tenant

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, json: object = None
    ) -> tuple[int, dict[str, object]]:
        """The status and the JSON of an answer."""
        answer = await self.server.client.request(method, path, headers=headers, json=json)
        return answer.status_code, answer.json()


async def tenant(server: Served, name: str) -> Tenant:
    """A new project with a key."""
    made = await server.client.post(PROJECTS, headers=AS_ADMIN, json={"name": name})
    project = made.json()["id"]
    key = await server.client.post(
        f"{PROJECTS}/{project}/api_keys", headers=AS_ADMIN, json={"name": f"{name}'s"}
    )
    assert key.status_code == 200, key.text
    return Tenant(project, key.json()["id"], key.json()["value"])


@asynccontextmanager
async def keyed() -> AsyncIterator[Keyed]:
    """Start, and end everything."""
    async with served(admin_key=ADMIN) as server:
        yield Keyed(server, await tenant(server, "ours"), await tenant(server, "theirs"))

"""The endpoints for operators: projects, keys and quotas, in the shapes of OpenAI's administration API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from actors.orders import AggregateOrder
from eventstore.events import Head
from runtime.project import commands as c
from runtime.project.aggregate import ACTIVE, ARCHIVED, CATEGORY
from runtime.project.state import DEFAULT_PROJECT, VIRTUAL_DEFAULT, Key, ProjectState
from serve_app.call import Call
from serve_app.errors import no_key, no_project
from serve_app.keys import KeyHashes, is_project_id, new_project_id
from serve_app.paging import PAGE_DEFAULT, PAGE_MAX, item_list
from serve_app.project_bodies import KeyBody, ProjectBody, QuotaBody, RotateBody, read_as
from serve_app.projects import Projects
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime

ROOT: Final = "/v1/organization/projects"


class ProjectRoutes:
    """Handlers; each answers its call once or raises."""

    def __init__(
        self,
        runtime: Runtime,
        projects: Projects,
        hashes: KeyHashes,
        now: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._runtime = runtime
        self._projects = projects
        self._hashes = hashes
        self._now = now
        self._random_bytes = random_bytes

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        one = ROOT + "/{project_id}"
        key = one + "/api_keys/{key_id}"
        rows = (
            ("GET", ROOT, self.index, "List the projects"),
            ("POST", ROOT, self.create, "Create a project"),
            ("GET", one, self.show, "Show a project"),
            ("POST", one, self.rename, "Rename a project"),
            ("POST", one + "/archive", self.archive, "Archive a project: its keys stop working"),
            ("GET", one + "/api_keys", self.keys, "List the keys of a project"),
            ("POST", one + "/api_keys", self.create_key, "Create a key; its value is shown this once"),
            ("GET", key, self.show_key, "Show a key, without its value"),
            ("DELETE", key, self.revoke_key, "Revoke a key, at once"),
            ("POST", key + "/rotate", self.rotate_key, "Replace a key by a new one, with an overlap"),
            ("GET", one + "/quota", self.quota, "Show a project's quotas"),
            ("POST", one + "/quota", self.set_quota, "Change a project's quotas"),
        )
        return [Endpoint(*row, "operator") for row in rows]

    # -- Projects ------------------------------------------------------------------------------------------

    async def index(self, call: Call) -> None:
        """A page of projects, the oldest first; the default one, while nothing is recorded of it, last."""
        limit = call.number("limit", PAGE_DEFAULT, 1, PAGE_MAX)
        states = [ACTIVE, ARCHIVED] if call.flag("include_archived") else [ACTIVE]
        after = call.query("after")
        heads = await self._heads(after, states, limit + 1)
        page = [_listed(head) for head in heads[:limit]]
        has_more = len(heads) > limit
        if (
            not has_more
            and after != DEFAULT_PROJECT
            and await self._runtime.reader.head(DEFAULT_PROJECT) is None
        ):
            has_more = len(page) == limit
            if not has_more:
                page.append(_project(VIRTUAL_DEFAULT))
        await call.answer_json(item_list(page, has_more=has_more))

    async def create(self, call: Call) -> None:
        """Make a project."""
        body = await read_as(call, ProjectBody)
        project = new_project_id(self._random_bytes)
        await self._change(c.CreateProject(project, body.name, *self._who(call)))
        await call.answer_json(_project(await self._find(project)))

    async def show(self, call: Call) -> None:
        """A project, archived or not."""
        await call.answer_json(_project(await self._named(call)))

    async def rename(self, call: Call) -> None:
        """Give it another name."""
        body = await read_as(call, ProjectBody)
        project = (await self._named(call)).id
        await self._change(c.RenameProject(project, body.name, *self._who(call)))
        await call.answer_json(_project(await self._find(project)))

    async def archive(self, call: Call) -> None:
        """Let it serve nobody any more."""
        project = (await self._named(call)).id
        await self._change(c.ArchiveProject(project, *self._who(call)))
        await call.answer_json(_project(await self._find(project)))

    # -- Keys ----------------------------------------------------------------------------------------------

    async def keys(self, call: Call) -> None:
        """A page of the keys that work, the oldest first."""
        limit = call.number("limit", PAGE_DEFAULT, 1, PAGE_MAX)
        after = call.query("after")
        keys = [key for key in (await self._named(call)).keys.values() if key.works_at(self._now())]
        if after is not None:
            ids = [key.id for key in keys]
            if after not in ids:
                raise no_key(after)
            keys = keys[ids.index(after) + 1 :]
        await call.answer_json(item_list([_key(key) for key in keys[:limit]], has_more=len(keys) > limit))

    async def create_key(self, call: Call) -> None:
        """Make a key and show its value, once."""
        body = await read_as(call, KeyBody)
        project = (await self._named(call)).id
        value, key = self._hashes.make(project, body.name, self._random_bytes)
        await self._change(c.CreateKey(project, key, *self._who(call)))
        made = (await self._find(project)).keys[key.id]
        await call.answer_json({**_key(made), "value": value})

    async def show_key(self, call: Call) -> None:
        """A key that works."""
        await call.answer_json(_key(self._key_of(await self._named(call), call)))

    async def revoke_key(self, call: Call) -> None:
        """Let a key be worth nothing from now on."""
        project, key_id = (await self._named(call)).id, call.params["key_id"]
        at, by = self._who(call)
        await self._change(c.RevokeKey(project, key_id, ends_at=at, at=at, by=by))
        await call.answer_json(
            {"object": "organization.project.api_key.deleted", "id": key_id, "deleted": True}
        )

    async def rotate_key(self, call: Call) -> None:
        """Make a new key in the place of another one, which goes on working for a while."""
        body = await read_as(call, RotateBody, optional=True)
        project = await self._named(call)
        old = self._key_of(project, call)
        value, key = self._hashes.make(project.id, body.name or old.name, self._random_bytes)
        at, by = self._who(call)
        ends_at = at + body.overlap_seconds
        await self._change(c.RotateKey(project.id, old.id, key, ends_at, at, by))
        keys = (await self._find(project.id)).keys
        await call.answer_json({**_key(keys[key.id]), "value": value, "replaces": _key(keys[old.id])})

    def _key_of(self, project: ProjectState, call: Call) -> Key:
        key = project.keys.get(call.params["key_id"])
        if key is None or not key.works_at(self._now()):
            raise no_key(call.params["key_id"])
        return key

    # -- Quotas --------------------------------------------------------------------------------------------

    async def quota(self, call: Call) -> None:
        """A project's bounds."""
        await call.answer_json(_quota(await self._named(call)))

    async def set_quota(self, call: Call) -> None:
        """Change the bounds that are named."""
        body = await read_as(call, QuotaBody)
        project = (await self._named(call)).id
        limits = body.model_dump(include=body.model_fields_set)
        await self._change(c.SetQuota(project, limits, *self._who(call)))
        await call.answer_json(_quota(await self._find(project)))

    # -- How -----------------------------------------------------------------------------------------------

    def _who(self, call: Call) -> tuple[int, str]:
        return int(self._now()), call.principal.by

    async def _change(self, command: c.Command) -> None:
        try:
            await self._runtime.change(AggregateOrder(CATEGORY, command.project, command))
        finally:
            self._projects.forget(command.project)

    async def _named(self, call: Call) -> ProjectState:
        """The project that the path names, as it is now.  Raises `ApiError` (404)."""
        project = call.params["project_id"]
        self._projects.forget(project)
        return await self._find(project)

    async def _find(self, project: str) -> ProjectState:
        found = await self._projects.find(project)
        if not found.id:
            raise no_project(project)
        return found

    async def _heads(self, after: str | None, states: Sequence[str], limit: int) -> Sequence[Head]:
        behind = None
        if after is not None:
            head = await self._runtime.reader.head(after) if is_project_id(after) else None
            if head is None:
                if after == DEFAULT_PROJECT:
                    return ()
                raise no_project(after)
            behind = head.created
        return await self._runtime.reader.heads(category=CATEGORY, states=states, after=behind, limit=limit)


def _project(state: ProjectState) -> dict[str, Any]:
    return _shown(state.id, state.name, state.created_at, state.archived_at)


def _listed(head: Head) -> dict[str, Any]:
    told = head.attributes
    archived_at = told.get("archived_at")
    return _shown(
        head.stream, told["name"], int(told["created_at"]), None if archived_at is None else int(archived_at)
    )


def _shown(id: str, name: str, created_at: int, archived_at: int | None) -> dict[str, Any]:
    return {
        "object": "organization.project",
        "id": id,
        "name": name,
        "created_at": created_at,
        "archived_at": archived_at,
        "status": ACTIVE if archived_at is None else ARCHIVED,
    }


def _key(key: Key) -> dict[str, Any]:
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": f"rs_...{key.last4}",
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.ends_at,
        "last_used_at": None,
        # OpenAI's keys belong to people or programs; here a key is its own owner.
        "owner": {
            "type": "service_account",
            "service_account": {
                "object": "organization.project.service_account",
                "id": key.id,
                "name": key.name,
                "role": "member",
                "created_at": key.created_at,
            },
        },
        "owner_project_access": "active",
    }


def _quota(state: ProjectState) -> dict[str, Any]:
    return {"object": "organization.project.quota", "project_id": state.id, **asdict(state.quotas)}

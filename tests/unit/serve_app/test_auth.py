"""Who is let in, and on whose behalf."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator

import pytest

from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryEventStore
from serve_app.auth import Auth
from serve_app.errors import ApiError
from serve_app.guard import Guard
from serve_app.keys import KeyHashes
from serve_app.projects import FRESH_S, Projects
from serve_app.router import Access
from tests.unit.serve_app.keyed import ADMIN, AS_ADMIN, PROJECTS, UNKNOWN_PROJECT, Keyed, keyed
from tests.unit.serve_app.served import SECRET, Connection, Served

ANSWER = {"model": "simulated", "input": "Hello"}


@pytest.fixture
async def door() -> AsyncIterator[Keyed]:
    async with keyed() as one:
        yield one


def test_a_key_names_its_project_and_itself_and_nothing_of_it_is_recorded() -> None:
    hashes = KeyHashes("secret")
    text, key = hashes.make("proj_" + "a" * 24, "laptop", lambda size: b"\x5f" * size)
    assert hashes.parse(text) == ("proj_" + "a" * 24, key.id)
    assert (text[-4:], len(base64.urlsafe_b64decode(text[-32:]))) == (key.last4, 24)
    assert text[-32:] not in repr(key)
    assert hashes.matches(text, key.digest)
    assert not KeyHashes("another").matches(text, key.digest), "a stolen log lets nobody check a guess"
    default, _ = hashes.make("default", "laptop", lambda size: b"\xff" * size)
    assert hashes.parse(default) is not None
    assert KeyHashes("another").parse(default) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer  "},
        {"authorization": "Basic cnM6cnM="},
        {"authorization": "Bearer sk-proj-1234"},
        {"authorization": f"Bearer rs_default_{'0' * 16}_{'A' * 32}"},
        {"authorization": f"Bearer rs_{'0' * 24}_{'0' * 16}_{'A' * 32}"},
        {"x-admin-key": "wrong"},
        {"x-admin-key": "\xe4"},
        {"authorization": f"Bearer {ADMIN}"},
        {"x-project-id": "default"},
    ],
)
async def test_without_a_good_key_nobody_is_served(door: Keyed, headers: dict[str, str]) -> None:
    answer = await Connection(door.server.api, "GET", "/v1/responses", headers=headers).done()
    assert answer.status == 401
    assert b'"type":"invalid_request_error"' in answer.body
    assert b'"code":"invalid_api_key"' in answer.body
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_no_answer_repeats_a_key(door: Keyed) -> None:
    for headers in ({"authorization": f"Bearer {door.ours.key}x"}, {"x-admin-key": "secret-guess"}):
        answer = await Connection(door.server.api, "GET", "/v1/responses", headers=headers).done()
        assert door.ours.key[-8:].encode() not in answer.body
        assert b"secret-guess" not in answer.body


async def test_a_key_acts_for_its_project_and_the_log_says_which(door: Keyed) -> None:
    status, made = await door.ask("POST", "/v1/responses", door.ours.headers, ANSWER)
    assert status == 200
    path = f"/v1/responses/{made['id']}"
    assert (await door.ask("GET", path, door.theirs.headers))[0] == 404
    assert (await door.ask("GET", path, AS_ADMIN | {"x-project-id": door.ours.project}))[0] == 200
    assert (await door.ask("GET", path, AS_ADMIN))[0] == 404, "it is not of the default project"
    assert (await door.ask("DELETE", path, door.ours.headers))[0] == 200
    recorded = [record async for record in door.server.cluster.store.read(str(made["id"]))]
    assert recorded[-1].payload is not None
    assert f'"by":"{door.ours.key_id}"'.encode() in recorded[-1].payload[0]


@pytest.mark.parametrize("name", ["X-Project-ID", "OpenAI-Project"])
async def test_a_key_may_name_its_own_project_and_no_other(door: Keyed, name: str) -> None:
    def named(project: str) -> dict[str, str]:
        return door.ours.headers | {name: project}

    assert (await door.ask("GET", "/v1/responses", named(door.ours.project)))[0] == 200
    foreign = await door.ask("GET", "/v1/responses", named(door.theirs.project))
    unknown = await door.ask("GET", "/v1/responses", named(UNKNOWN_PROJECT))
    assert foreign == unknown == await door.ask("GET", "/v1/responses", named("no id at all"))
    assert foreign[0] == 403


async def test_a_wrong_key_hears_nothing_of_projects(door: Keyed) -> None:
    wrong = {"authorization": f"Bearer {door.ours.key[:-4]}AAAA", "x-project-id": door.theirs.project}
    assert (await door.ask("GET", "/v1/responses", wrong))[0] == 401


async def test_an_operator_chooses_a_project_that_exists(door: Keyed) -> None:
    status, told = await door.ask("GET", "/v1/responses", AS_ADMIN | {"x-project-id": UNKNOWN_PROJECT})
    assert (status, told["error"]["code"]) == (404, "project_not_found")  # type: ignore[index]  # it is an error
    both = AS_ADMIN | {"x-project-id": door.ours.project, "openai-project": UNKNOWN_PROJECT}
    assert (await door.ask("GET", "/v1/responses", both))[0] == 200


async def test_a_projects_key_does_nothing_that_is_for_operators(door: Keyed) -> None:
    for path in (PROJECTS, "/hosts"):
        status, told = await door.ask("GET", path, door.ours.headers)
        assert (status, told["error"]["code"]) == (403, "insufficient_permissions")  # type: ignore[index]  # it is an error
    assert (await door.ask("GET", PROJECTS, {"authorization": f"Bearer {ADMIN}"}))[0] == 200


async def test_what_is_open_to_anybody_needs_no_key(door: Keyed) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        answer = await Connection(door.server.api, "GET", path, client=("10.1.2.3", 5)).done()
        assert answer.status == 200


async def test_only_operators_hear_what_the_logs_database_says(door: Keyed) -> None:
    door.server.cluster.store.available = False
    status, told = await door.ask("GET", "/readyz", {})
    assert (status, told["problems"]) == (503, ["the log cannot be reached"])
    status, told = await door.ask("GET", "/readyz", AS_ADMIN)
    assert status == 503
    assert told["problems"] not in ([], ["the log cannot be reached"])


async def test_with_keys_other_machines_are_served(door: Keyed) -> None:
    headers = {**door.ours.headers, "host": "api.example", "origin": "https://chat.example"}
    answer = await Connection(
        door.server.api, "GET", "/v1/models", headers=headers, client=("10.1.2.3", 5)
    ).done()
    assert answer.status == 200


async def test_the_first_key_closes_an_open_server_for_good(server: Served) -> None:
    made = await server.client.post(f"{PROJECTS}/default/api_keys", json={"name": "first"})
    assert made.status_code == 200
    assert made.json()["created_by"] == "anonymous"
    local = {"x-admin-key": KeyHashes(SECRET).local_admin_key()}
    assert (await server.client.get("/v1/responses")).status_code == 401
    own = {"authorization": f"Bearer {made.json()['value']}"}
    assert (await server.client.get("/v1/responses", headers=own)).status_code == 200
    gone = await server.client.delete(f"{PROJECTS}/default/api_keys/{made.json()['id']}", headers=local)
    assert gone.status_code == 200
    assert (await server.client.get("/v1/responses", headers=own)).status_code == 401
    assert (await server.client.get("/v1/responses")).status_code == 401, "a server never opens again"


class Replicas:
    """Two replicas over one log; time passes for the second one as it is told."""

    def __init__(self, store: MemoryEventStore) -> None:
        self.now = 0.0
        projects = Projects(store, lambda: self.now)
        self.auth = Auth(projects, KeyHashes(SECRET), Guard(), now=lambda: 10_000_000_000 + self.now)

    async def status(self, headers: dict[str, str], access: Access = "project") -> int:
        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            await self.auth.admit({"type": "http", "client": None, "headers": given}, access)
        except ApiError as refused:
            return refused.problem.status
        return 200


async def test_a_revoked_key_is_refused_by_every_replica_within_seconds(door: Keyed) -> None:
    other = Replicas(door.server.cluster.store)
    assert await other.status(door.ours.headers) == 200
    path = f"{PROJECTS}/{door.ours.project}/api_keys/{door.ours.key_id}"
    assert (await door.ask("DELETE", path, AS_ADMIN))[0] == 200
    assert (await door.ask("GET", "/v1/models", door.ours.headers))[0] == 401, "here it is known at once"
    other.now += FRESH_S
    assert await other.status(door.ours.headers) == 401
    assert await other.status(door.theirs.headers) == 200


async def test_a_new_key_works_at_once_at_every_replica(door: Keyed) -> None:
    """Also at one that has just looked at its project."""
    other = Replicas(door.server.cluster.store)
    assert await other.status(door.ours.headers) == 200
    made = await door.server.client.post(
        f"{PROJECTS}/{door.ours.project}/api_keys", headers=AS_ADMIN, json={"name": "second"}
    )
    assert await other.status({"authorization": f"Bearer {made.json()['value']}"}) == 200


async def test_keys_that_somebody_makes_up_cost_the_log_nothing(door: Keyed) -> None:
    """Whatever of a real key they hold, also while the log is away."""
    other = Replicas(door.server.cluster.store)
    assert await other.status({}) == 401
    door.server.cluster.store.available = False
    real = door.ours.key
    for at in (5, 32, len(real) - 30, len(real) - 1):
        made_up = real[:at] + ("a" if real[at] != "a" else "b") + real[at + 1 :]
        assert await other.status({"authorization": f"Bearer {made_up}"}) == 401
    with pytest.raises(StoreUnavailable):
        await other.status(door.ours.headers)
    door.server.cluster.store.available = True
    assert await other.status(door.ours.headers) == 200


async def test_a_replica_asks_the_log_no_more_often_than_it_must(door: Keyed) -> None:
    other = Replicas(door.server.cluster.store)
    assert await other.status(door.ours.headers) == 200
    door.server.cluster.store.available = False
    assert await other.status(door.ours.headers) == 200
    door.server.cluster.store.available = True


async def test_other_replicas_learn_of_the_first_key_within_seconds(server: Served) -> None:
    other = Replicas(server.cluster.store)
    assert await other.status({}) == 200
    await server.client.post(f"{PROJECTS}/default/api_keys", json={"name": "first"})
    other.now += FRESH_S
    assert await other.status({}) == 401


async def test_an_archived_projects_keys_stop_working(door: Keyed) -> None:
    assert (await door.ask("POST", f"{PROJECTS}/{door.ours.project}/archive", AS_ADMIN))[0] == 200
    assert (await door.ask("GET", "/v1/models", door.ours.headers))[0] == 401
    named = AS_ADMIN | {"x-project-id": door.ours.project}
    assert (await door.ask("GET", "/v1/responses", named))[0] == 404


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens, no log line holds a key."""
    yield
    assert "rs_" not in caplog.text
    assert ADMIN not in caplog.text

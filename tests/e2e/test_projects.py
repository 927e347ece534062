"""Projects and keys on a running server: two teams, OpenAI's client, the command line, and a restart."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest

from tests.launching import Instance, rayspond, until
from tests.patience import PATIENCE_S

ADMIN: Final = "e2e-admin-key-4c8f2d"
REVOKED_WITHIN_S: Final = 5.0
ENOUGH: Final = 40
"""Requests on connections of their own, so that every replica answers some."""
REQUESTS: Final = "1" if os.environ.get("RAYSPOND_ISOLATION") == "dedicated" else "10"
"""A minute: a response with a Ray actor of its own takes seconds."""


class Server:
    """An instance with an admin key, started as often as it must be."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.environment = {"RAYSPOND_ADMIN_KEY": ADMIN}
        self.instances: list[Instance] = []

    def start(self) -> Instance:
        """The next instance on the same data directory."""
        options = ("--host", "0.0.0.0", "--hosts", "1")
        self.instances.append(Instance(self.data_dir, *options, app=None, **self.environment))
        return self.instances[-1].wait_ready()

    def command(self, *arguments: str, fails: int = 0) -> str:
        """What a command of the command line printed."""
        done = rayspond(*arguments, "--data-dir", str(self.data_dir), environment=self.environment)
        assert done.returncode == fails, done
        return done.stdout.strip() if not fails else done.stderr.strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Ended whatever happens."""
    one = Server(tmp_path)
    try:
        yield one
    finally:
        for instance in one.instances:
            instance.kill()


def client(instance: Instance, key: str, **more: Any) -> openai.OpenAI:
    """OpenAI's client with that key."""
    return openai.OpenAI(base_url=f"{instance.url}/v1", api_key=key, max_retries=0, **more)


def test_two_teams_share_a_server_and_never_meet(server: Server) -> None:
    first = server.start()
    project = server.command("projects", "create", "Search")
    theirs = server.command("keys", "create", "ci", "--project", "Search")
    ours = server.command("keys", "create", "laptop")
    with client(first, ours) as us, client(first, theirs) as them:
        made = us.responses.create(model="simulated", input="Hello")
        assert us.responses.retrieve(made.id).output_text == made.output_text
        with pytest.raises(openai.NotFoundError) as foreign:
            them.responses.retrieve(made.id)
        unknown_id = "resp_" + "0" * 32
        with pytest.raises(openai.NotFoundError) as unknown:
            them.responses.retrieve(unknown_id)
        assert str(foreign.value).replace(made.id, unknown_id) == str(unknown.value)
        assert [event.type for event in them.responses.create(model="simulated", input="x", stream=True)][
            -1
        ] == ("response.completed")
    for refused in ("sk-any", theirs[:-4] + "AAAA"):
        with client(first, refused) as nobody, pytest.raises(openai.AuthenticationError):
            nobody.responses.create(model="simulated", input="x")
    with client(first, ours, project=project) as wrong, pytest.raises(openai.PermissionDeniedError):
        wrong.models.list()
    _operators_see_everything(server, project)

    _quotas_hold(server, first, theirs, ours)
    rotated = _rotate(server, first, ours)
    _revoke(server, first, rotated)
    first.stop(signal.SIGINT)
    assert _kept_nowhere(server, ADMIN, ours, theirs, rotated) == []

    second = server.start()
    with client(second, theirs) as them:
        assert them.responses.create(model="simulated", input="still here").status == "completed"
    assert _statuses(second, rotated, 4) == {401}
    second.stop()


def _operators_see_everything(server: Server, project: str) -> None:
    listed = json.loads(server.command("projects", "list", "--json"))
    assert {one["name"]: one["id"] for one in listed} == {"Search": project, "default": "default"}
    assert "laptop" in server.command("keys", "list")
    assert "isolation" in server.command("ps"), "the table, whatever runs"
    assert "no project is 'Nobody'" in server.command("keys", "list", "--project", "Nobody", fails=2)
    server.command("keys", "revoke", "key_0", fails=1)


def _quotas_hold(server: Server, instance: Instance, theirs: str, ours: str) -> None:
    """Over all replicas together, and for one project only; tokens count once a response has ended."""
    server.command("projects", "quota", "Search", "--requests-per-minute", REQUESTS)
    until(lambda: 429 in _created(instance, theirs, 1), "a refusal")
    server.command(
        "projects", "quota", "Search", "--requests-per-minute", "none", "--tokens-per-minute", "60"
    )
    until(lambda: 429 in _created(instance, theirs, 1), "a refusal")
    assert _created(instance, ours, 5) == {200}
    server.command("projects", "quota", "Search", "--tokens-per-minute", "none")
    until(lambda: _created(instance, theirs, 1) == {200}, "the end of the quota")


def _created(instance: Instance, key: str, count: int) -> set[int]:
    headers, body = {"authorization": f"Bearer {key}"}, {"model": "simulated", "input": "Hello"}
    url = f"{instance.url}/v1/responses"
    return {httpx.post(url, headers=headers, json=body, timeout=PATIENCE_S).status_code for _ in range(count)}


def _rotate(server: Server, instance: Instance, key: str) -> str:
    [one] = json.loads(server.command("keys", "list", "--json"))
    new = server.command("keys", "rotate", one["id"], "--overlap-s", "3600")
    for each in (key, new):
        assert _statuses(instance, each, ENOUGH // 2) == {200}
    server.command("keys", "revoke", one["id"])
    return new


def _revoke(server: Server, instance: Instance, key: str) -> None:
    ids = [one["id"] for one in json.loads(server.command("keys", "list", "--json"))]
    server.command("keys", "revoke", ids[-1])
    revoked = began = time.monotonic()
    while 200 in _statuses(instance, key, 1):
        assert began - revoked < REVOKED_WITHIN_S, "who asks later than that is refused"
        began = time.monotonic()
    assert _statuses(instance, key, ENOUGH) == {401}


def _statuses(instance: Instance, key: str, count: int) -> set[int]:
    headers = {"authorization": f"Bearer {key}"}
    return {
        httpx.get(f"{instance.url}/v1/models", headers=headers, timeout=PATIENCE_S).status_code
        for _ in range(count)
    }


def _kept_nowhere(server: Server, *secrets: str) -> list[tuple[Path, str]]:
    """Files of the data directory, the logs of Ray and the server's output that hold a secret."""
    files = [path for path in server.data_dir.parent.rglob("*") if path.is_file()]
    assert any(path.name == "log.db" for path in files)
    return [(path, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()]

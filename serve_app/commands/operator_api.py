"""How commands speak to a running instance as its operator."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from serve_app import settings as table
from serve_app.keys import KeyHashes
from serve_app.launch.data_dir import SECRET_KEY, read_runtime, secret_at
from serve_app.launch.errors import CannotStart, StartFailed

TIMEOUT_S: Final = 30.0
PROJECTS: Final = "/v1/organization/projects"
PAGE: Final = 100


class OperatorApi:
    """The HTTP API of one instance, with an admin key."""

    def __init__(self, url: str, admin_key: str | None) -> None:
        self._url, self._admin_key = url.rstrip("/"), admin_key

    def get(self, path: str) -> dict[str, Any]:
        """What is there.  Raises `StartFailed` with what the server said against it."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Do something.  Raises as `get`."""
        return self._ask("POST", path, body or {})

    def delete(self, path: str) -> dict[str, Any]:
        """End something.  Raises as `get`."""
        return self._ask("DELETE", path, None)

    def pages(self, path: str, query: str = "") -> Iterator[dict[str, Any]]:
        """Everything in a list."""
        after = ""
        while True:
            page = self.get(f"{path}?limit={PAGE}{query}{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&after={page['last_id']}"

    def project(self, wanted: str) -> str:
        """The path of a project, by its id or its name.  Raises `CannotStart` where that is not one."""
        found = [one["id"] for one in self.pages(PROJECTS) if wanted in (one["id"], one["name"])]
        if len(found) == 1 or wanted in found:
            return f"{PROJECTS}/{wanted if wanted in found else found[0]}"
        many = f"{len(found)} projects are called {wanted!r}: name one by its id, of" if found else None
        raise CannotStart(f"{many or f'no project is {wanted!r}: see'} rayspond projects list")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self._admin_key is not None:
            headers["x-admin-key"] = self._admin_key
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                told: dict[str, Any] = json.load(answer)
                return told
        except urllib.error.HTTPError as error:
            raise StartFailed(_said(error)) from None
        except (OSError, ValueError) as reason:
            raise StartFailed(f"{self._url} does not answer ({reason}): see rayspond doctor") from None


def options() -> list[click.Parameter]:
    """Options of every command that speaks to an instance."""
    data_dir = next(option for option in table.options() if option.name == "data_dir")
    return [
        click.Option([data_dir.flag], help=f"{data_dir.explanation}  [{data_dir.variable}]"),
        click.Option(["--url"], help="The instance's URL; without, the one that runs on the data directory."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ]


def connect(data_dir: str | None, url: str | None) -> OperatorApi:
    """The instance that the options mean.  Raises `CannotStart` or `StartFailed` where there is none."""
    settings = table.read({"data_dir": data_dir}, os.environ)
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise CannotStart(f"--url must begin with http:// or https://, not {url!r}")
        if settings.admin_key is None:
            raise CannotStart("with --url, set RAYSPOND_ADMIN_KEY to the admin key of that server")
        return OperatorApi(url, settings.admin_key)
    running = read_runtime(settings.data_dir)
    if running is None:
        raise StartFailed(f"nothing runs on {settings.data_dir}: start it with rayspond serve")
    return OperatorApi(running["http_url"], admin_key_of(settings))


def admin_key_of(settings: table.Settings) -> str | None:
    """The admin key of the instance that the settings mean, or None where nothing here tells it."""
    if settings.admin_key is not None:
        return settings.admin_key
    # Whoever can read the server's secret is its operator, without any key being handed around.
    secret = settings.secret_key or secret_at(settings.data_dir, SECRET_KEY)
    return KeyHashes(secret).local_admin_key() if secret is not None else None


def _said(error: urllib.error.HTTPError) -> str:
    try:
        message = str(json.load(error)["error"]["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"the server answered {error.code}"
    if error.code == 401:
        return f"{message} Set RAYSPOND_ADMIN_KEY to the admin key of this instance."
    return message

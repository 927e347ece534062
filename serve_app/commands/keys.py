"""`rayspond keys`: who may ask for something, and for which project."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from runtime.project.state import DEFAULT_PROJECT
from serve_app.commands.operator_api import connect, options
from serve_app.commands.projects import when
from serve_app.project_bodies import OVERLAP_DEFAULT_S

command = click.Group(
    "keys", help="List, make, revoke and rotate API keys.  The first one ends that everybody is served."
)


def _list(data_dir: str | None, url: str | None, *, as_json: bool, project: str) -> None:
    api = connect(data_dir, url)
    found = list(api.pages(api.project(project) + "/api_keys"))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = Table("id", "name", "key", "created", "by", "ends", box=None, pad_edge=False)
    for one in found:
        ends = when(one["expires_at"] or 0)
        rows.add_row(
            one["id"], one["name"], one["redacted_value"], when(one["created_at"]), one["created_by"], ends
        )
    Console().print(rows)


def _create(data_dir: str | None, url: str | None, *, as_json: bool, project: str, name: str) -> None:
    api = connect(data_dir, url)
    _tell(api.post(api.project(project) + "/api_keys", {"name": name}), as_json=as_json)


def _revoke(data_dir: str | None, url: str | None, *, as_json: bool, project: str, key_id: str) -> None:
    api = connect(data_dir, url)
    revoked = api.delete(f"{api.project(project)}/api_keys/{key_id}")
    print(json.dumps(revoked, indent=2) if as_json else f"{key_id} is revoked, everywhere within 5 s")


def _rotate(
    data_dir: str | None, url: str | None, *, as_json: bool, project: str, key_id: str, overlap_s: int
) -> None:
    api = connect(data_dir, url)
    path = f"{api.project(project)}/api_keys/{key_id}/rotate"
    made = api.post(path, {"overlap_seconds": overlap_s})
    _tell(made, as_json=as_json)
    if not as_json:
        print(f"{key_id} works until {when(made['replaces']['expires_at'])} UTC", file=sys.stderr)


def _tell(made: dict[str, Any], *, as_json: bool) -> None:
    """The key alone on standard output, so that a script can take it from there."""
    if as_json:
        print(json.dumps(made, indent=2))
        return
    print(made["value"])
    print(f"{made['id']} ({made['name']}); the key above is not shown again", file=sys.stderr)


_PROJECT: Final = click.Option(
    ["--project"], default=DEFAULT_PROJECT, show_default=True, help="The project, by its id or its name."
)
_KEY: Final = click.Argument(["key_id"])
_OVERLAP: Final = click.Option(
    ["--overlap-s", "overlap_s"],
    type=click.IntRange(0),
    default=OVERLAP_DEFAULT_S,
    show_default=True,
    help="Seconds for which the old key goes on working.",
)
for _name, _callback, _more, _help in (
    ("list", _list, [], "List the keys that work, without their values."),
    ("create", _create, [click.Argument(["name"])], "Make a key; prints it, this once."),
    ("revoke", _revoke, [_KEY], "Let a key be worth nothing, at once."),
    ("rotate", _rotate, [_KEY, _OVERLAP], "Make a new key in the place of another; prints it, this once."),
):
    command.add_command(
        click.Command(_name, callback=_callback, params=[*_more, _PROJECT, *options()], help=_help)
    )

"""`rayspond projects`: the tenants of a running instance, and how much each may use."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from runtime.project.state import QUOTAS
from serve_app.commands.operator_api import PROJECTS, connect, options
from serve_app.launch.errors import CannotStart

NO_BOUND: Final = "none"

command = click.Group("projects", help="List, make and archive projects, and bound what they use.")


def _list(data_dir: str | None, url: str | None, *, as_json: bool, archived: bool) -> None:
    query = "&include_archived=true" if archived else ""
    found = list(connect(data_dir, url).pages(PROJECTS, query))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    rows = Table("id", "name", "created", "status", box=None, pad_edge=False)
    for one in found:
        rows.add_row(one["id"], one["name"], when(one["created_at"]), one["status"])
    Console().print(rows)


def _create(data_dir: str | None, url: str | None, *, as_json: bool, name: str) -> None:
    made = connect(data_dir, url).post(PROJECTS, {"name": name})
    print(json.dumps(made, indent=2) if as_json else made["id"])


def _show(data_dir: str | None, url: str | None, *, as_json: bool, project: str) -> None:
    api = connect(data_dir, url)
    path = api.project(project)
    found, quota = api.get(path), api.get(path + "/quota")
    keys = list(api.pages(path + "/api_keys"))
    if as_json:
        print(json.dumps({**found, "quota": _limits(quota), "api_keys": keys}, indent=2))
        return
    lines = {
        "id": found["id"],
        "name": found["name"],
        "created": when(found["created_at"]),
        "status": found["status"],
        "keys": str(len(keys)),
        **_limits(quota),
    }
    _print(lines)


def _archive(data_dir: str | None, url: str | None, *, as_json: bool, project: str) -> None:
    api = connect(data_dir, url)
    archived = api.post(api.project(project) + "/archive")
    print(
        json.dumps(archived, indent=2) if as_json else f"{archived['id']} is archived; its keys stop working"
    )


def _quota(
    data_dir: str | None, url: str | None, *, as_json: bool, project: str, **given: str | None
) -> None:
    limits = {name: _limit(name, text) for name, text in given.items() if text is not None}
    api = connect(data_dir, url)
    path = api.project(project) + "/quota"
    quota = api.post(path, limits) if limits else api.get(path)
    if as_json:
        print(json.dumps(quota, indent=2))
    else:
        _print(_limits(quota))


def when(seconds: int) -> str:
    """A time for people, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M") if seconds else "-"


def _limit(name: str, text: str) -> int | None:
    if text == NO_BOUND:
        return None
    if not text.isdigit():
        raise CannotStart(f"--{name.replace('_', '-')} must be a whole number or {NO_BOUND}, not {text!r}")
    return int(text)


def _limits(quota: dict[str, Any]) -> dict[str, Any]:
    return {name: quota[name] for name in QUOTAS}


def _print(lines: dict[str, Any]) -> None:
    for name, value in lines.items():
        print(f"{name:<22}{NO_BOUND if value is None else value}")


_PROJECT: Final = click.Argument(["project"])
_BOUNDS: Final = [
    click.Option([f"--{name.replace('_', '-')}"], help=f"A whole number, or {NO_BOUND}.", metavar="N")
    for name in QUOTAS
]
_ALL: Final = click.Option(["--all", "archived"], is_flag=True, help="Archived ones, too.")
for _name, _callback, _more, _help in (
    ("list", _list, [_ALL], "List the projects."),
    ("create", _create, [click.Argument(["name"])], "Make a project; prints its id."),
    ("show", _show, [_PROJECT], "Show a project (its id or name), with quotas."),
    ("archive", _archive, [_PROJECT], "Serve nobody of a project any more; what it recorded stays."),
    ("quota", _quota, [_PROJECT, *_BOUNDS], "Show or change what a project may use."),
):
    command.add_command(click.Command(_name, callback=_callback, params=[*_more, *options()], help=_help))

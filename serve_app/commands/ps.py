"""`rayspond ps`: what runs now, and where."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from serve_app import settings as table
from serve_app.launch.data_dir import read_runtime
from serve_app.launch.errors import StartFailed

_TIMEOUT_S: Final = 10.0
_OPTIONS: Final = ("data_dir",)


def _run(*, as_json: bool, **given: str | None) -> None:
    hosts = fetch(table.read(given, os.environ))
    if as_json:
        print(json.dumps(hosts, indent=2))
    else:
        show(hosts, Console())


command = click.Command(
    "ps",
    callback=_run,
    params=[
        *(
            click.Option([option.flag], help=f"{option.explanation}  [{option.variable}]")
            for option in table.options()
            if option.name in _OPTIONS
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON instead of a table."),
    ],
    help="List the hosts of the running instance and the responses that run on them.",
)


def fetch(settings: table.Settings) -> list[dict[str, Any]]:
    """The hosts of the instance on the data directory.  Raises `StartFailed` where none answers."""
    running = read_runtime(settings.data_dir)
    if running is None:
        raise StartFailed(f"nothing runs on {settings.data_dir}: start it with rayspond serve")
    try:
        with urllib.request.urlopen(f"{running['http_url']}/hosts", timeout=_TIMEOUT_S) as answer:
            hosts: list[dict[str, Any]] = json.load(answer)["data"]
    except (OSError, urllib.error.URLError) as reason:
        raise StartFailed(f"{running['http_url']} does not answer ({reason}): see rayspond doctor") from None
    return hosts


def show(hosts: list[dict[str, Any]], console: Console) -> None:
    """A row for each response, and one for each host that is idle."""
    rows = Table("response", "model", "for", "actor", "isolation", "node", "pid", box=None, pad_edge=False)
    for host in hosts:
        where = (host["actor"], host["isolation"], host["node"][:12], str(host["pid"]))
        for one in host["responses"]:
            rows.add_row(one["id"], one["model"], f"{time.time() - one['since']:.0f} s", *where)
        if not host["responses"]:
            rows.add_row("-", "-", "-", *where)
    console.print(rows)

"""`rayspond ps`: what runs now, and where."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from serve_app.commands.operator_api import connect, options


def _run(data_dir: str | None, url: str | None, *, as_json: bool) -> None:
    hosts: list[dict[str, Any]] = connect(data_dir, url).get("/hosts")["data"]
    if as_json:
        print(json.dumps(hosts, indent=2))
    else:
        show(hosts, Console())


command = click.Command(
    "ps",
    callback=_run,
    params=options(),
    help="List the hosts of the running instance and the responses that run on them.",
)


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

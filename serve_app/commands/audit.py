"""`rayspond audit verify`: whether a log still says what was recorded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from eventstore.verify import Audit, audit
from serve_app.commands.log_access import command as reads_log
from serve_app.commands.log_access import with_log

command = click.Group("audit", help="Show that the log is what was recorded.")


def _verify(data_dir: str | None, log_url: str | None, *, as_json: bool) -> None:
    found = with_log(data_dir, log_url, audit)
    print(json.dumps(asdict(found)) if as_json else _told(found))
    if found.wrong:
        sys.exit(1)


def _told(found: Audit) -> str:
    counts = f"{found.events} events in {found.records} records of {found.streams} streams"
    erased = f", {found.erased} of them erased" if found.erased else ""
    if found.first is None:
        return f"verified {counts}{erased}: the log is what was recorded"
    more = f" ({found.wrong} streams are wrong)" if found.wrong > 1 else ""
    return f"the log is not what was recorded{more}; the first thing that is wrong:\n{found.first}"


command.add_command(
    reads_log(
        "verify",
        _verify,
        [click.Option(["--json", "as_json"], is_flag=True, help="Print JSON instead of a sentence.")],
        "Walk the hash chains of a log, running or copied, and name the first event that was edited, removed,"
        " inserted or moved.  Exits with 0 if there is none, 1 if there is one, 2 if the log cannot be read.",
    )
)

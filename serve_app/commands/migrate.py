"""`rayspond migrate`: bring the log's database to this version."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import click

from eventstore.errors import StoreUnavailable, UnsafeStore
from serve_app import settings as table
from serve_app.launch import checks
from serve_app.launch.errors import CannotStart

_OPTIONS: Final = ("data_dir", "log_url")


def _run(*, restored: bool, **given: str | None) -> None:
    settings = table.read(given, os.environ)
    try:
        if settings.log_url is not None and settings.log_url.startswith("postgresql:"):
            place = _postgres(settings.log_url, restored=restored)
        else:
            place = _sqlite(checks.log_directory(settings), restored=restored)
    except (StoreUnavailable, UnsafeStore) as error:
        raise CannotStart(str(error)) from None
    print(f"{place} holds a log of this version" + (", in a new incarnation" if restored else ""))


command = click.Command(
    "migrate",
    callback=_run,
    params=[
        *(
            click.Option([option.flag], help=f"{option.explanation}  [{option.variable}]")
            for option in table.options()
            if option.name in _OPTIONS
        ),
        click.Option(["--restored"], is_flag=True, help="Say that the database was restored from a backup."),
    ],
    help="Create or upgrade the log's database.  Running it again changes nothing.",
)


def _sqlite(directory: Path, *, restored: bool) -> str:
    from eventstore.sql.owner import migrate_directory

    if not migrate_directory(directory, restored=restored):
        raise CannotStart(f"the log in {directory} is in use: stop rayspond on it first")
    return str(directory)


def _postgres(url: str, *, restored: bool) -> str:
    from eventstore.sql.postgres_connection import shown
    from eventstore.sql.postgres_migrate import migrate_postgres

    asyncio.run(migrate_postgres(url, restored=restored))
    return shown(url)

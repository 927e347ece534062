"""`rayspond serve`: start everything that is missing, and keep it until Ctrl-C."""

from __future__ import annotations

import os

import click

from serve_app import settings as table


def _options() -> list[click.Parameter]:
    """One option a setting, from the table, without a default: the environment comes before it."""
    return [
        click.Option(
            [option.flag],
            metavar="TEXT" if isinstance(option.default, str | None) else None,
            help=f"{option.explanation}  [{option.variable}; default: {option.shown_default}]",
        )
        for option in table.options()
    ]


def _run(**given: str | None) -> None:
    from serve_app.launch import supervisor

    raise SystemExit(supervisor.serve(table.read(given, os.environ)))


command = click.Command(
    "serve",
    callback=_run,
    params=_options(),
    help="Start everything that is missing (Ray, NATS, the API) and keep it until Ctrl-C or SIGTERM.",
)

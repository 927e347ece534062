"""What is checked before anything starts."""

from __future__ import annotations

import os

from runtime import config
from serve_app.launch.data_dir import port_problem
from serve_app.launch.errors import CannotStart
from serve_app.settings import Settings


def check(settings: Settings) -> None:
    """Raise `CannotStart` with one clear line when these settings cannot work on this machine."""
    check_models(settings)
    if not (settings.log_url or "sqlite:///").startswith("sqlite:///"):
        raise CannotStart(
            "--log-url must begin with sqlite:/// and name a directory: this version has no other log; "
            "without the option it is in the data directory"
        )
    if settings.port and (problem := port_problem(settings.host, settings.port)) is not None:
        raise CannotStart(
            f"port {settings.port} on {settings.host} cannot be listened on ({problem}): "
            "stop what uses it or choose another with --port"
        )


def check_models(settings: Settings) -> None:
    """Raise `CannotStart` when the file of models, or the upstream that settings name, cannot be used."""
    given = {config.URL_ENV: settings.upstream_url, config.KEY_ENV: settings.upstream_key}
    environ = os.environ | {name: value for name, value in given.items() if value is not None}
    try:
        config.load(settings.config, environ)
    except config.ConfigError as error:
        raise CannotStart(" ".join(str(error).split())) from None

"""What is checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import yaml

from serve_app.launch.data_dir import port_problem
from serve_app.launch.errors import CannotStart
from serve_app.settings import Settings


def check(settings: Settings) -> None:
    """Raise `CannotStart` with one clear line when these settings cannot work on this machine."""
    if settings.config is not None:
        check_config(settings.config)
    if settings.port and (problem := port_problem(settings.host, settings.port)) is not None:
        raise CannotStart(
            f"port {settings.port} on {settings.host} cannot be listened on ({problem}): "
            "stop what uses it or choose another with --port"
        )


def check_config(path: Path) -> None:
    """Raise `CannotStart` when the configuration file cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise CannotStart(
            f"--config {path} cannot be read ({(reason.strerror or str(reason)).lower()})"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        where = " ".join(str(reason).split())
        raise CannotStart(f"--config {path} is no valid YAML: {where}") from None
    if content is not None and not isinstance(content, dict):
        raise CannotStart(f"--config {path} must be a mapping with keys such as models and agents")

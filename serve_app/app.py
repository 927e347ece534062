"""The Serve application, and the one place where its parts are put together.

`build` makes it from settings, as `rayspond serve` does; `application` from the environment, for `serve run
serve_app.app:application` and `serve deploy` on a cluster that somebody else started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray import serve
from ray.serve.schema import LoggingConfig

from actors.cluster import RaySupervisor
from actors.config import ClusterConfig
from runtime import config as models
from runtime.catalog import Catalog
from serve_app.launch.data_dir import SECRET_KEY, kept_secret
from serve_app.launch.errors import CannotStart
from serve_app.settings import Settings, read

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from serve_app.replica_parts import ReplicaParts

ONGOING_MAX: Final = 10_000
"""Open requests a replica: streams, most of them waiting.  HAProxy ends at 4,096 connections a process."""


def build(settings: Settings) -> serve.Application:
    """The application.  Raises `CannotStart` where the models' file cannot be used."""
    if settings.nats_url is None:
        raise CannotStart(
            "no NATS server is named: set RAYSPOND_NATS_URL to one, with the runtime's credentials"
        )
    config_text = _config_text(settings.config)
    _catalog(config_text, settings)
    deployment = serve.deployment(
        Replica,
        name="api",
        num_replicas=settings.replicas,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": 0},
        logging_config=LoggingConfig(enable_access_log=False, log_level=_serve_log_level(settings)),
        # Serve hands a change of this to replicas that run: the models can be changed without a restart.
        user_config={"config_text": config_text},
    )
    # Without a version every deployment counts as new code: Serve would replace replicas and cut streams.
    same_code: Any = deployment.options(version=version("rayspond"), _internal=True)  # pyright: ignore[reportFunctionMemberAccess]  # Serve's decorator has no types
    if settings.secret_key is None:
        # Made here and not in a replica: all of them must have the same one.
        settings = replace(settings, secret_key=kept_secret(settings.data_dir, SECRET_KEY))
    bound: serve.Application = same_code.bind(settings)
    return bound


def application(arguments: Mapping[str, str]) -> serve.Application:
    """The application from `arguments` (settings by name) and the environment.  Raises `CannotStart`."""
    return build(read(arguments, os.environ))


@serve.ingress()
class Replica:
    """One process that serves HTTP.  Holds no durable state."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]  # Serve awaits it.
        # Imported in the replica only: whoever deploys it lives as long, and needs none of it (25 MiB).
        from serve_app.replica_parts import ReplicaParts

        config = cluster_config(settings)
        self._settings = settings
        self._parts: ReplicaParts = await ReplicaParts.open(
            settings, config, RaySupervisor(config), _env(settings)
        )

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take the models from another text, for responses from now on."""
        await self._parts.use(_catalog(user_config["config_text"], self._settings))

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Serve's own name for it
        """The application, for Serve."""
        return self._parts.api

    async def __del__(self) -> None:
        """Let go of everything."""
        await self._parts.aclose()


def _serve_log_level(settings: Settings) -> str:
    # At `info` Serve composes a line for every request, and drops it where its access log is off.
    return "WARNING" if settings.log_level == "info" else settings.log_level.upper()


def cluster_config(settings: Settings) -> ClusterConfig:
    """What the actors need to know of the settings."""
    assert settings.nats_url is not None
    return ClusterConfig(
        log_url=settings.log_url or f"sqlite:///{settings.data_dir}",
        nats_url=settings.nats_url,
        secret_key=settings.secret_key or "",
        config_path=str(settings.config) if settings.config else None,
        isolation=settings.isolation,
        hosts=settings.hosts,
        slots=settings.slots,
        seal_after=settings.seal_after_s,
        retention=settings.retention_days * 86_400,
        jetstream_deltas=settings.jetstream_deltas,
        jetstream_duplicate_window=settings.jetstream_duplicate_window_s,
        jetstream_max_age=settings.jetstream_max_age_s,
        jetstream_max_bytes=settings.jetstream_max_bytes,
    )


def _config_text(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise CannotStart(f"--config {path} cannot be read ({reason})") from None


def _env(settings: Settings) -> dict[str, str]:
    """The environment, with what the settings say about the upstream."""
    given = {models.URL_ENV: settings.upstream_url, models.KEY_ENV: settings.upstream_key}
    return os.environ | {name: value for name, value in given.items() if value is not None}


def _catalog(config_text: str, settings: Settings) -> Catalog:
    try:
        return models.parse(config_text, str(settings.config or "the environment"), _env(settings))
    except models.ConfigError as error:
        raise CannotStart(str(error)) from None

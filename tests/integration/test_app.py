"""How the Serve application is put together from settings, and what it refuses before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from serve_app.app import application, build, cluster_config
from serve_app.launch.errors import CannotStart
from serve_app.limits import Limits
from serve_app.settings import Settings

NATS = "nats://runtime:secret@127.0.0.1:4222"


def test_serves_own_loader_builds_it_from_its_import_path() -> None:
    """`serve run` and `serve deploy` call it with their arguments; the rest comes from the environment."""
    built = call_user_app_builder_with_args_if_necessary(application, {"nats_url": NATS, "replicas": "3"})
    deployment = built._bound_deployment
    assert (deployment.name, deployment.num_replicas) == ("api", 3)


def test_without_a_nats_server_it_says_what_to_set() -> None:
    with pytest.raises(CannotStart, match="RAYSPOND_NATS_URL"):
        build(Settings())


@pytest.mark.parametrize("text", ["models: 5", "models: [", "unknown: {}", None])
def test_a_broken_configuration_is_refused_before_anything_starts(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "models.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(CannotStart, match=r"models\.yaml"):
        build(Settings(nats_url=NATS, config=config))


def test_the_settings_reach_the_actors_and_the_limits(tmp_path: Path) -> None:
    settings = Settings(
        nats_url=NATS, data_dir=tmp_path, hosts=3, slots=7, max_output_tokens=9, body_limit_bytes=1024
    )
    config = cluster_config(settings)
    assert (config.log_url, config.nats_url) == (f"sqlite:///{tmp_path}", NATS)
    assert (config.hosts, config.slots, config.isolation) == (3, 7, "shared")
    assert (Limits.of(settings).max_output_tokens, Limits.of(settings).body) == (9, 1024)


def test_all_replicas_share_one_secret_that_outlives_them(tmp_path: Path) -> None:
    """Otherwise keys would be good at one replica and unknown at the next, or after a restart."""

    def secret(**settings: str) -> str | None:
        built = build(Settings(nats_url=NATS, data_dir=tmp_path, **settings))  # type: ignore[arg-type]  # texts only
        given: Settings = built._bound_deployment.init_args[0]
        assert (given.secret_key or "") not in repr(given)
        return given.secret_key

    kept = secret()
    assert kept is not None
    assert len(kept) == 64
    assert secret() == kept
    assert (tmp_path / "secrets" / "secret-key").stat().st_mode & 0o777 == 0o600
    assert secret(secret_key="of a cluster") == "of a cluster"

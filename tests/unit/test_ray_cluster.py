"""`ray_cluster.yaml` is what Ray's cluster launcher accepts."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "ray_cluster.yaml"


@pytest.fixture
def schema() -> object:
    """Ray's own schema, found without importing Ray."""
    import importlib.util

    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text())


def test_the_launcher_accepts_it(schema: dict[str, object]) -> None:
    jsonschema.validate(yaml.safe_load(CLUSTER.read_text()), schema)


def test_the_schema_would_refuse_a_mistake(schema: dict[str, object]) -> None:
    cluster = yaml.safe_load(CLUSTER.read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "worker_start_ray_comands": []}, schema)


def test_ray_is_started_with_its_token_and_both_switches() -> None:
    cluster = yaml.safe_load(CLUSTER.read_text())
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        starting = next(command for command in cluster[kind] if "ray start" in command)
        for needed in (
            "RAY_AUTH_MODE=token",
            "RAY_SERVE_ENABLE_HA_PROXY=1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED=1",
        ):
            assert needed in starting

"""What `rayspond` says when it cannot start: one clear line, exit code 2, nothing left."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest

from serve_app import settings as table
from serve_app.launch import checks
from serve_app.launch.errors import CannotStart
from tests.launching import ECHO, rayspond


def refused(*options: str, data_dir: Path, environment: dict[str, str] | None = None) -> str:
    """The one line on standard error with which `serve` refuses to start."""
    done = rayspond("serve", "--data-dir", str(data_dir), "--app", ECHO, *options, environment=environment)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list(data_dir.glob("sessions.json"))
    return done.stderr


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused("--port", port, data_dir=tmp_path / "data")
    assert f"port {port} on 127.0.0.1" in line
    assert "--port" in line


def test_a_data_directory_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file where a directory is needed")
    line = refused(data_dir=blocked / "data")
    assert str(blocked / "data") in line
    assert "--data-dir" in line


def test_a_read_only_data_directory_is_refused() -> None:
    assert "/proc/rayspond" in refused(data_dir=Path("/proc/rayspond"))


@pytest.mark.parametrize("text", ["models: [", "- a list", "\x00"])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rayspond.yaml"
    path.write_text(text)
    assert str(path) in refused("--config", str(path), data_dir=tmp_path / "data")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.yaml"
    assert str(path) in refused("--config", str(path), data_dir=tmp_path / "data")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "70000"),
        ("--isolation", "none"),
        ("--host", "0.0.0.0"),
        ("--replicas", "0"),
        ("--nats-url", "x"),
        ("--app", "nosuch:build"),
        ("--app", "serve_app.app"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(tmp_path: Path, option: str, value: str) -> None:
    assert option in refused(option, value, data_dir=tmp_path / "data")


def test_with_an_admin_key_others_may_be_served() -> None:
    settings = table.read({"host": "0.0.0.0", "admin_key": "operator"}, {})
    assert settings.host == "0.0.0.0"
    with pytest.raises(CannotStart, match="RAYSPOND_ADMIN_KEY must be printable ASCII"):
        table.read({}, {"RAYSPOND_ADMIN_KEY": "two\nlines"})


def test_an_environment_variable_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    assert "RAYSPOND_SLOTS" in refused(data_dir=tmp_path / "data", environment={"RAYSPOND_SLOTS": "many"})


def test_help_documents_every_setting_as_option_and_as_variable() -> None:
    documented = rayspond("--help").stdout
    for option in table.options():
        assert option.flag in documented
        assert option.variable in documented


def test_an_option_comes_before_the_environment_and_that_before_the_default() -> None:
    environ = {"RAYSPOND_PORT": "9001", "RAYSPOND_REPLICAS": "3", "RAYSPOND_CONFIG": ""}
    settings = table.read({"port": "9000", "replicas": None}, environ)
    assert (settings.port, settings.replicas, settings.config, settings.hosts) == (9000, 3, None, 2)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:sk-secret@127.0.0.1:1/log", "127.0.0.1:1/log"),
        ("postgresql://user:sk/secret@127.0.0.1:1/log", "%2F"),
        ("sqlite://sk-secret", "sqlite:///DIRECTORY"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_before_anything_starts(
    tmp_path: Path, url: str, said: str
) -> None:
    """The line says what and where; no part of a password."""
    line = refused("--log-url", url, data_dir=tmp_path / "data")
    assert "--log-url" in line
    assert said in line
    assert "secret" not in line


@pytest.mark.parametrize("given", [{}, {"log_url": "sqlite:///somewhere"}])
def test_sqlite_is_refused_on_several_nodes(given: dict[str, str]) -> None:
    checks.check_nodes(table.read(given, {}), 1)
    checks.check_nodes(table.read({"log_url": "postgresql://database/log"}, {}), 3)
    with pytest.raises(CannotStart, match=r"3 nodes and SQLite serves only one.*--log-url"):
        checks.check_nodes(table.read(given, {}), 3)


def test_a_serve_that_listens_elsewhere_already_is_refused() -> None:
    settings = table.read({"port": "8088"}, {})
    checks.check_serve(settings, None)
    checks.check_serve(settings, 8088)
    with pytest.raises(CannotStart, match=r"Serve, on port 8000, .*8088.*`serve shutdown`"):
        checks.check_serve(settings, 8000)


def test_settings_travel_by_pickle_and_show_no_secret() -> None:
    secrets = {
        "upstream_key": "sk-secret",
        "admin_key": "sk-secret",
        "secret_key": "sk-secret",
        "nats_url": "nats://u:sk-secret@h",
        "log_url": "postgresql://sk-secret",
    }
    settings = table.read(secrets, {})
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert "sk-secret" not in repr(settings)
    with pytest.raises(CannotStart) as refusal:
        table.read({"log_url": "mysql://sk-secret"}, {})
    assert "sk-secret" not in str(refusal.value)

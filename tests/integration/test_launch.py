"""The life of `rayspond serve`: it starts, answers, keeps to itself, and ends without a trace."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest

from serve_app.launch.processes import MARK
from tests.launching import Instance, rayspond, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    instance = Instance(tmp_path_factory.mktemp("launch") / "data")
    try:
        yield instance.wait_ready()
    finally:
        instance.kill()


def test_it_says_where_it_is_and_answers_there(running: Instance) -> None:
    ready = running.wait_for("ready: ")
    assert ready.startswith(f"ready: {running.url}/v1 (rayspond 0.1.0, started in ")
    assert ready.endswith(" s; Ctrl-C stops it)")
    assert running.get("/readyz")[0] == 200
    assert running.post("/v1/responses", {"input": "hi"})["echo"] == {"input": "hi"}
    assert f"curl {running.url}/v1/responses" in running.output


def test_runtime_json_is_private_and_complete(running: Instance) -> None:
    mode = (running.data_dir / "runtime.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    expected = {"pid", "http_url", "nats_url", "nats_runtime_url", "log_url", "ray_address", "ray_env"}
    assert expected <= running.runtime.keys()
    assert running.runtime["pid"] == running.process.pid


def test_other_users_reach_neither_ray_s_session_nor_the_script_that_starts_haproxy(
    running: Instance,
) -> None:
    """Ray opens its own directory to every user."""
    scratch = Path((running.data_dir / "scratch.path").read_text())
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert (scratch / "ray" / "session_latest").exists()


def test_a_second_instance_on_the_same_data_directory_is_refused(running: Instance) -> None:
    done = rayspond("serve", "--data-dir", str(running.data_dir), "--port", "0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert running.url in done.stderr
    assert running.get("/readyz")[0] == 200


def test_doctor_finds_the_running_instance_well(running: Instance) -> None:
    done = rayspond("doctor", "--data-dir", str(running.data_dir))
    assert done.returncode == 0, done.stdout
    assert "HAProxy straight to the replicas" in done.stdout
    assert f"{running.url}/readyz answers 200" in done.stdout


def test_sighup_reads_the_models_again_and_goes_on(running: Instance) -> None:
    running.process.send_signal(signal.SIGHUP)
    running.wait_for("the models were read again")
    assert running.get("/readyz")[0] == 200


async def test_nats_is_started_again_on_the_same_port_when_it_dies(running: Instance) -> None:
    server = next(process for process in running.note_everything() if process.name() == "nats-server")
    server.kill()
    running.wait_for("nats-server ended; started again")
    client = await nats.connect(
        running.runtime["nats_url"], max_reconnect_attempts=20, reconnect_time_wait=0.1
    )
    await client.close()


@pytest.fixture
def neighbour() -> Iterator[tuple[str, str]]:
    """Another network namespace, joined to this one by a wire: its name, and our address as it sees it."""
    if shutil.which("ip") is None:
        pytest.fail("this test needs `ip`: install iproute2")
    number = os.getpid() % 250 + 1
    name, wire, ours = f"rayspond-{number}", f"rs{number}", f"198.18.{number}.1"
    try:
        ip("netns", "add", name)
        ip("link", "add", f"{wire}a", "type", "veth", "peer", "name", f"{wire}b", "netns", name)
        ip("addr", "add", f"{ours}/24", "dev", f"{wire}a")
        ip("link", "set", f"{wire}a", "up")
        ip("-n", name, "addr", "add", f"198.18.{number}.2/24", "dev", f"{wire}b")
        ip("-n", name, "link", "set", f"{wire}b", "up")
        yield name, ours
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def test_nothing_answers_another_machine_without_credentials(
    running: Instance, neighbour: tuple[str, str]
) -> None:
    namespace, ours = neighbour
    running.note_everything()
    with socket.create_server(("0.0.0.0", 0)) as control:
        ports = [control.getsockname()[1], *sorted(port for _, port in running.listening)]
        probe = [sys.executable, str(Path(__file__).with_name("exposure_probe.py")), ours, *map(str, ports)]
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *probe],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    found = json.loads(done.stdout)
    assert found.pop(str(ports[0])) == ["open"], "the scan must see a port that is open to all"
    # The replicas' own gRPC servers listen on every interface whatever one says; they must ask for the token.
    answers = {port: said for port, said in found.items() if {"http", "grpc OK"} & set(said)}
    refusals = {port for port, said in found.items() if "grpc UNAUTHENTICATED" in said}
    assert not answers
    assert refusals == found.keys(), found
    pids = {process.pid for process in running.note_everything()}
    assert not [each for each in psutil.net_connections("udp") if each.pid in pids and not _loopback(each)]


@pytest.fixture(scope="module")
def left(running: Instance) -> list[psutil.Process]:
    """What is left of it, now that both of its parts that would end the others are killed."""
    everything = running.note_everything()
    core = next(process for process in everything if "serve_app.launch.core" in " ".join(process.cmdline()))
    core.suspend()
    running.process.kill()
    core.kill()
    running.process.wait(10)
    return [process for process in everything if process.pid != core.pid]


@pytest.fixture(scope="module")
def second(running: Instance, left: list[psutil.Process]) -> Iterator[Instance]:
    """The next one on its data directory."""
    assert any(map(_lives, left))
    instance = Instance(running.data_dir, "--replicas", "1")
    try:
        yield instance.wait_ready()
    finally:
        instance.kill()


def test_what_a_killed_run_left_is_ended_by_the_next_one(
    left: list[psutil.Process], second: Instance
) -> None:
    assert "that an earlier run left" in second.output
    assert not any(map(_lives, left))


def test_sigterm_ends_every_process_and_port_within_15_seconds(second: Instance) -> None:
    with second.open_stream("/stream"):
        assert second.stop(signal.SIGTERM) < 15
    assert second.process.returncode == 0


def test_all_ends_when_only_the_launcher_is_killed(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "data")
    try:
        instance.wait_for("  Ray ")
        left = instance.note_everything()
        instance.process.kill()
        until(lambda: not any(map(_lives, left)), "the end of every process")
    finally:
        instance.kill()


def test_without_its_raylet_it_ends_and_says_so(tmp_path: Path) -> None:
    """A server that can run nothing any more must not call itself ready."""
    instance = Instance(tmp_path / "data", "--replicas", "1")
    try:
        instance.wait_ready()
        everything = instance.note_everything()
        next(process for process in everything if process.name() == "raylet").kill()
        assert instance.process.wait(20) == 1
        assert "Ray lost its raylet; start again on the same data directory" in instance.output
        instance.assert_gone()
    finally:
        instance.kill()


@pytest.mark.parametrize(
    ("line", "later_s"), [("rayspond ", 0), ("  NATS ", 0), ("  NATS ", 2), ("  Ray ", 0), ("  Ray ", 2)]
)
def test_ctrl_c_during_the_start_ends_everything(tmp_path: Path, line: str, later_s: float) -> None:
    instance = Instance(tmp_path / "data")
    try:
        instance.wait_for(line)
        time.sleep(later_s)  # not to wait for something: Ctrl-C comes at any moment
        took = instance.stop(signal.SIGINT)
        assert took < 10
        assert instance.process.returncode == 0
        assert "Traceback" not in instance.output
    finally:
        instance.kill()


def test_an_application_that_does_not_start_is_told_in_one_line(tmp_path: Path) -> None:
    instance = Instance(tmp_path / "data", app="tests.echo_application:build_broken")
    try:
        until(lambda: instance.process.poll() is not None, "the end of the failed start")
        assert instance.process.returncode == 1
        assert "this application never starts" in instance.output.splitlines()[-1]
        assert "Traceback" not in instance.output
        instance.assert_gone()
    finally:
        instance.kill()


def _loopback(connection: Any) -> bool:
    return bool(ipaddress.ip_address(connection.laddr[0]).is_loopback)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)


FAILS_ONCE = """
import os, pathlib, sys, traceback
import ray
from serve_app.launch import core, processes

start, started, failed = core._start_node, [], True

def fails_once(scratch):
    started.append(start(scratch))
    if len(started) == 1:
        raise Exception("The current node timed out during startup.")
    return started[-1]

core._start_node = fails_once
try:
    address, node = core._start_ray("local", pathlib.Path(sys.argv[1]))
    assert node is started[1] and address == node.address
    assert {name for name, _ in started[0].dead_processes()} >= {"raylet", "gcs_server"}
    assert [one["Alive"] for one in ray.nodes()] == [True]
    failed = False
except Exception:
    traceback.print_exc()
processes.end(lambda: processes.family([processes.current()]), grace_s=0)
os._exit(failed)
"""


def test_a_ray_that_does_not_start_in_its_time_is_ended_and_started_once_more() -> None:
    ours = {MARK: "once-more", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="rayspond-") as scratch:  # Ray's sockets have short names only.
        done = subprocess.run(
            [sys.executable, "-c", FAILS_ONCE, scratch],
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
            env={**os.environ, **ours},
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Ray did not start, and is started once more" in done.stderr

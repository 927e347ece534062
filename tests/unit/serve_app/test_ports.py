"""Ports that are held seconds before somebody listens on them."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.launch.data_dir import DataDir
from serve_app.launch.ports import free_port, hold


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_chosen_port_is_free_and_stays_out_of_the_way_of_outgoing_connections(host: str) -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(20):
        port = free_port(host)
        with socket.create_server((host, port), family=_family(host)):
            assert port < first_outgoing


def test_a_chosen_port_is_given_to_nobody_else() -> None:
    port = free_port()
    assert hold("127.0.0.1", port) == "another part of this instance has it"
    elsewhere = "import socket, sys; socket.socket().bind(('127.0.0.1', int(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", elsewhere, str(port)], capture_output=True, text=True, check=False
    )
    assert "already in use" in done.stderr


def test_a_port_where_a_server_closed_its_connections_can_be_held() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            listening.accept()[0].close()
            assert client.recv(1) == b""
    assert hold("127.0.0.1", port) is None
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_kept_port_stays_unless_the_api_has_it_now(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    api = free_port()
    (tmp_path / "nats.port").write_text(str(api))
    chosen = data.kept_port("nats")
    data.close()
    assert chosen != api
    again = "import sys, pathlib, serve_app.launch.data_dir as d; "
    again += "print(d.DataDir(pathlib.Path(sys.argv[1])).kept_port('nats'))"
    done = subprocess.run([sys.executable, "-c", again, str(tmp_path)], capture_output=True, check=True)
    assert int(done.stdout) == chosen


def test_why_a_port_cannot_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert hold("127.0.0.1", listening.getsockname()[1]) == "address already in use"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

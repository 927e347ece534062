"""Ports that are chosen seconds before somebody listens on them."""

import socket
from pathlib import Path

import pytest

from serve_app.launch.ports import free_port, port_problem


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_chosen_port_is_free_and_stays_out_of_the_way_of_outgoing_connections(host: str) -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(20):
        port = free_port(host)
        assert port_problem(host, port) is None
        assert port < first_outgoing


def test_why_a_port_cannot_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert port_problem("127.0.0.1", listening.getsockname()[1]) == "address already in use"

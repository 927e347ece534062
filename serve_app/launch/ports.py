"""Ports of this machine: whether one can be listened on, and one that stays free until somebody does."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_CHOSEN: Final = range(20_000, 30_000)
"""Above the ports that Ray gives its workers, below those that Serve gives its replicas."""
_TRIES: Final = 100
_random: Final = random.SystemRandom()


def port_problem(host: str, port: int) -> str | None:
    """Why `port` cannot be listened on, or nothing."""
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as reason:
            return (reason.strerror or str(reason)).lower()
    return None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on.

    Seconds pass until its process listens.  One that the kernel also gives to outgoing connections may be
    taken by then, so it is one of those that the kernel keeps out of that, where there are any.
    """
    candidates = range(_CHOSEN.start, min(_CHOSEN.stop, _first_outgoing()))
    for port in _random.sample(candidates, min(_TRIES, len(candidates))):
        if port_problem(host, port) is None:
            return port
    with _socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)

"""Ports of this machine that this process holds for what it starts: seconds may pass until somebody listens.

A held port is bound and not listened on.  Nobody else who asks for a free one is given it, and a server can
listen on it all the same, because servers set SO_REUSEADDR.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_CHOSEN: Final = range(20_000, 30_000)
"""Above the ports that Ray gives its workers, below those that Serve gives its replicas."""
_TRIES: Final = 100
_random: Final = random.SystemRandom()
_held: Final[set[int]] = set()


def hold(host: str, port: int) -> str | None:
    """Hold `port` until this process ends.  Why it cannot be listened on, where it cannot."""
    if port in _held:
        return "another part of this instance has it"
    return _bind(host, port, again=True)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody uses, held until this process ends.

    One that the kernel also gives to outgoing connections may be taken where a server starts again, so it is
    one of those that the kernel keeps out of that, where there are any.
    """
    candidates = range(_CHOSEN.start, min(_CHOSEN.stop, _first_outgoing()))
    for port in _random.sample(candidates, min(_TRIES, len(candidates))):
        if port not in _held and _bind(host, port, again=False) is None:
            return port
    with _socket(host) as probe:
        probe.bind((host, 0))
        return _keep(probe)


def _bind(host: str, port: int, *, again: bool) -> str | None:
    """`again`: also where others hold it, or where connections of a server that ended are remembered."""
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
        try:
            probe.bind((host, port))
        except OSError as reason:
            return (reason.strerror or str(reason)).lower()
        _keep(probe)
    return None


def _keep(bound: socket.socket) -> int:
    """Its port.  The descriptor is never closed: the kernel does it when this process ends."""
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    port = int(bound.getsockname()[1])
    bound.detach()
    _held.add(port)
    return port


def _first_outgoing() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)

"""Where the log's owner listens: a unix socket in the data directory, for the same user only."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SOCKET: Final = "log.sock"

_BACKLOG: Final = 128


def listen(data_dir: Path) -> socket.socket:
    """A listening socket in the directory, in place of one that a former owner left there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(data_dir) as address:
            with suppress(FileNotFoundError):
                os.unlink(address)
            # Nobody else may connect, not even between these two calls.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(address)
            os.chmod(address, 0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(data_dir: Path) -> socket.socket:
    """A connected, non-blocking socket.  Never waits: raises OSError if nobody listens or too many wait."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        with _short_path(data_dir) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _short_path(data_dir: Path) -> Iterator[str]:
    """An address within the 108 bytes that a socket's name may have, however deep the directory."""
    directory = os.open(data_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{SOCKET}"
    finally:
        os.close(directory)

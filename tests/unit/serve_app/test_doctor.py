"""What `rayspond doctor` says of a NATS server before anything runs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventstore.nats_config import OLDEST_SERVER
from serve_app.commands.doctor import Finding, examine
from serve_app.settings import Settings

OLDEST = ".".join(map(str, OLDEST_SERVER))


@contextmanager
def server(says: bytes) -> Iterator[str]:
    """A port that says one line to whoever connects; its url."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"nats://runtime:secret@127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def found(url: str, place: Path) -> list[Finding]:
    findings = list(examine(Settings(data_dir=place, nats_url=url, port=0)))
    assert not any("secret" in finding.text for finding in findings)
    return [finding for finding in findings if finding.what == "NATS"]


def info(**said: object) -> bytes:
    return b"INFO " + json.dumps({"version": OLDEST, "jetstream": True, **said}).encode() + b"\r\n"


def test_a_server_that_will_do_is_well(tmp_path: Path) -> None:
    with server(info()) as url:
        assert [finding.mark for finding in found(url, tmp_path)] == ["ok  "]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"version": "2.10.1"}, "nats-server 2.10.1 has known holes"),
        ({"jetstream": False}, "JetStream is off"),
    ],
)
def test_what_should_be_seen_to_is_a_warning(tmp_path: Path, said: dict[str, object], text: str) -> None:
    with server(info(**said)) as url:
        findings = found(url, tmp_path)
    assert [finding.mark for finding in findings] == ["ok  ", "warn"]
    assert text in findings[1].text


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"INFO {}\r\n", b""])
def test_what_is_no_nats_server_is_bad(tmp_path: Path, said: bytes) -> None:
    with server(said) as url:
        assert [finding.mark for finding in found(url, tmp_path)] == ["BAD "]


def test_nobody_there_is_bad(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert [finding.mark for finding in found(f"nats://127.0.0.1:{port}", tmp_path)] == ["BAD "]

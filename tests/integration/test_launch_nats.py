"""The embedded nats-server under the launcher's watch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.launch import nats_server
from serve_app.launch.data_dir import DataDir
from serve_app.launch.nats_server import NatsServer
from tests.launching import until
from tests.patience import PATIENCE_S


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    data = DataDir(tmp_path)
    server = NatsServer(data)
    server.start()
    try:
        server.wait(PATIENCE_S, lambda: False)
        yield server
    finally:
        assert server.child is not None
        server.child.kill()
        server.child.communicate()
        data.close()


def test_a_server_that_stands_still_is_ended_and_started_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_server, "_LOOK_S", 0.0)
    monkeypatch.setattr(nats_server, "_ANSWER_S", 0.5)
    halted = server.child
    assert halted is not None
    for _ in range(3 * nats_server._SILENT_MAX):
        assert server.watch() is None
    assert halted.poll() is None, "one that answers is left alone"
    halted.send_signal(signal.SIGSTOP)
    until(lambda: server.watch() is not None, "another server")
    halted.communicate()
    assert halted.returncode == -signal.SIGKILL
    server.wait(PATIENCE_S, lambda: False)
    assert server.child is not halted

"""What is measured beside us is pinned, and writes nothing outside of its folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.peers import PEERS, Peer


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.title)
def test_a_peer_is_pinned_and_asks_the_upstream_it_is_given(peer: Peer, tmp_path: Path) -> None:
    launch = peer.launch("http://127.0.0.1:4321/v1", 8765, tmp_path)
    said = " ".join([*launch.arguments, *launch.environment.values()])
    said += "".join(path.read_text() for path in tmp_path.iterdir())
    assert re.fullmatch(r"\d+\.\d+\.\d+", peer.version)
    for wanted in ("http://127.0.0.1:4321", "8765", str(tmp_path)):
        assert wanted in said

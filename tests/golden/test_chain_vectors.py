"""The log's bytes as ADR 1 fixes them: computed once, by hand, from the ADR's text; never regenerated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventstore import chain

VECTORS = json.loads(Path(__file__).with_name("chain_vectors.json").read_text())


def events_of(record: dict[str, Any]) -> list[bytes]:
    data = (item if isinstance(item, str) else item["repeat"] * item["times"] for item in record["data"])
    return [item.encode() for item in data]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_log_of_any_release_has_these_bytes(vector: dict[str, Any]) -> None:
    """Framing, digest, header and chain of whole streams are exactly the recorded ones."""
    stream, before = vector["stream"], chain.genesis(vector["stream"])
    assert before.hex() == vector["genesis"]
    for record in vector["records"]:
        header = {
            "stream": stream,
            "first_version": record["first_version"],
            "types": record["types"],
            "schema": record["schema"],
            "epoch": record["epoch"],
            "recorded_at": record["recorded_at"],
        }
        payload = chain.frame(events_of(record))
        assert len(payload) == record["payload_bytes"]
        assert payload.hex() == record.get("payload", payload.hex())
        assert chain.unframe(payload, len(record["types"])) == tuple(events_of(record))
        assert chain.canonical_header(**header).hex() == record["header"]
        digest = chain.digest(bytes.fromhex(record["salt"]), record["first_version"], payload)
        assert digest.hex() == record["digest"]
        before = chain.link(before, **header, digest=digest)
        assert before.hex() == record["chain"]

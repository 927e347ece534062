"""What a host holds of the configurations that orders bring."""

from __future__ import annotations

from runtime.catalog import shared


def test_equal_configurations_are_one_object_and_others_keep_their_own() -> None:
    """Each order brings a copy, which its response would hold to its end."""
    recorded = {"model": "m", "tools": [{"name": "t"}], "limits": {"turns": 3, "seconds": 1.5}}
    again = {"model": "m", "tools": [{"name": "t"}], "limits": {"turns": 3, "seconds": 1.5}}
    other = {**recorded, "model": "n"}
    assert shared(recorded) is shared(again)
    assert shared(recorded) == recorded
    assert list(shared(recorded)) == list(recorded), "its bytes in the log stay the same"
    assert shared(other) == other

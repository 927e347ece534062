"""Payload framing and headers, where the golden vectors do not reach: every payload, and the wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore import chain


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_a_payload_reads_back_as_the_events_it_was_made_of(events: list[bytes]) -> None:
    assert chain.unframe(chain.frame(events), len(events)) == tuple(events)


@given(payload=st.binary(max_size=40), count=st.integers(1, 4))
def test_whatever_unframe_accepts_has_one_spelling(payload: bytes, count: int) -> None:
    """Two payloads never read as the same events: a digest could otherwise vouch for both."""
    try:
        events = chain.unframe(payload, count)
    except ValueError:
        return
    assert chain.frame(events) == payload


@pytest.mark.parametrize(
    ("payload", "count", "says"),
    [
        (b"\x05abc", 1, "ends within an event"),
        (b"\x80", 1, "ends within a length"),
        (b"", 1, "ends within a length"),
        (b"\xff" * 12, 1, "ends within a length"),
        (b"\x81\x00a", 1, "shortest"),
        (b"\x01ab", 1, "1 bytes follow"),
    ],
)
def test_a_damaged_payload_is_refused_in_words(payload: bytes, count: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        chain.unframe(payload, count)


@pytest.mark.parametrize("name", ["", "a,b", "a\n", "\x00"])
def test_a_type_that_could_not_be_read_back_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="event type"):
        chain.join_types(["fine", name])


def test_types_read_back_as_they_were_joined() -> None:
    assert chain.split_types(chain.join_types(["a", "b_c", "$erased"])) == ("a", "b_c", "$erased")

"""Events taken apart and put together again: always the same bytes, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.texts import STRINGS_MAX, apart, together
from tests.depth import examples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
AWKWARD = st.lists(st.sampled_from(b'"\\[],:\0\nda'), max_size=16).map(bytes)


@given(st.lists(JSON.map(orjson.dumps) | AWKWARD | st.binary(max_size=8), max_size=6))
@settings(max_examples=examples(400))
def test_what_was_taken_apart_comes_together(events: Sequence[bytes]) -> None:
    assert together(*apart(events)) == list(events)


def test_the_deltas_of_a_text_lie_end_to_end() -> None:
    deltas = ["This", " is", ' "an', ' answer".\n', ""]
    events = [orjson.dumps({"d": deltas[:3]}), b"{}", orjson.dumps({"index": 0, "d": deltas[3:]})]
    left, strings = apart(events)
    assert left == b'{"d":[\0,\0,\0]}\n{}\n{"index":0,"d":[\0,\0]}'
    assert b"".join(strings) == b'This is \\"an answer\\".\\n'


def test_more_strings_than_memory_is_meant_for_stay_where_they_are() -> None:
    fits = [orjson.dumps(["x"] * (STRINGS_MAX // 2)) for _ in range(2)]
    assert len(apart(fits)[1]) == STRINGS_MAX
    more = [*fits, b'["x"]']
    assert apart(more) == (b"", more)


def test_a_string_that_never_ends_is_looked_at_once() -> None:
    """Each quote in it taken for another's beginning, this would need more than the time of a test."""
    event = b'"' + b'\\"' * 100_000 + b"x" * 4_000_000
    assert apart([event]) == (event, [])


def test_another_number_of_strings_is_noticed() -> None:
    left, strings = apart([b'{"d":["a","b"]}'])
    for wrong in (strings[:1], [*strings, b"c"]):
        with pytest.raises(ValueError, match="lack strings, or hold more"):
            together(left, wrong)

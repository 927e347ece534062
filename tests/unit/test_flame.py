"""Stacks that were sampled become a picture."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.flame import folded, svg

STACKS = [
    "thread (7): AsyncIO Thread;run (runners.py:19);serve (serve_app/routes.py:12);write <x> (a/sse.py:3) 30",
    "thread (7): AsyncIO Thread;run (runners.py:190);serve (serve_app/routes.py:14) 69",
    "thread (8): log-writer;rare (b/c.py:1) 1",
]


def test_what_is_called_lies_below_what_calls_it_and_lines_do_not_tell_functions_apart() -> None:
    root = folded(STACKS)
    assert root.samples == 100
    assert {name: called.samples for name, called in root.calls.items()} == {
        "AsyncIO Thread": 99,
        "log-writer": 1,
    }
    serve = root.calls["AsyncIO Thread"].calls["serve (routes.py)"]
    assert (serve.samples, serve.calls["write <x> (sse.py)"].samples) == (99, 30)


def test_the_picture_is_sound_and_names_no_folder() -> None:
    picture = ElementTree.fromstring(svg(folded(STACKS), "A host"))
    titles = [one.text for one in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "A host"
    assert "write <x> (sse.py), 30.0 %" in titles
    assert not any("serve_app" in str(title) for title in titles)

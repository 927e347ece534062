"""What a process counts, and what it costs to keep."""

from __future__ import annotations

import pickle

import pytest

from eventstore.meter import LABELLED_MAX, Meter


def test_a_counter_without_labels_is_there_before_anything_happened() -> None:
    """Else nobody could tell "nothing happened" from "nobody counts"."""
    meter = Meter()
    counter = meter.counter("cuts", "Cuts.")
    (figure,) = meter.figures()
    assert (figure.name, figure.kind, figure.samples) == ("cuts", "counter", (((), 0.0),))
    counter.add()
    counter.add(2)
    assert meter.figures()[0].samples == (((), 3.0),)


def test_labels_are_kept_apart_up_to_a_bound() -> None:
    meter = Meter()
    counter = meter.counter("errors", "Errors.", "upstream", "code")
    for number in range(LABELLED_MAX + 50):
        counter.add(1, f"u{number}", "x")
    counter.add(5, "u0", "x")
    samples = dict(meter.figures()[0].samples)
    assert len(samples) == LABELLED_MAX + 1
    assert samples["u0", "x"] == 6
    assert samples["other", "other"] == 50


def test_a_distribution_counts_each_value_once() -> None:
    meter = Meter()
    seconds = meter.distribution("seconds", "Seconds.", bounds=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        seconds.observe(value)
    (figure,) = meter.figures()
    assert (figure.bounds, figure.counts, figure.total) == ((1.0, 2.0), (2, 1, 1), 12.0)


def test_what_is_kept_anyway_is_read_when_it_is_asked_for() -> None:
    meter, held = Meter(), [1, 2]
    meter.read("held", "Held.", lambda: len(held))
    held.append(3)
    assert meter.figures()[0].samples == (((), 3.0),)
    meter.read("held", "Held.", lambda: 7)
    assert [figure.samples for figure in meter.figures()] == [(((), 7.0),)]


def test_a_name_means_one_figure() -> None:
    meter = Meter()
    meter.counter("x", "X.")
    with pytest.raises(ValueError, match="'x' already"):
        meter.distribution("x", "X.")


def test_figures_travel_between_processes() -> None:
    meter = Meter()
    meter.counter("x", "X.", "y").add(1, "z")
    assert pickle.loads(pickle.dumps(meter.figures())) == meter.figures()

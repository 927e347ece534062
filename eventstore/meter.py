"""What a process counts: plain numbers, added to where things happen and read when somebody asks.

One meter a process, because that is what can be scraped, restarted and added up.  Counting costs a dictionary
look-up; names, words and sums are made when the figures are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for how long a commit takes: from a fast disk to one that hangs."""
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
LABELLED_MAX: Final = 256
"""Combinations of labels a figure keeps apart; whatever comes later counts as `other`."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one process as it stood when it was read.  Picklable."""

    name: str
    kind: Kind
    about: str
    labels: Labels
    samples: tuple[tuple[Labels, float], ...]
    """Of a counter or gauge: the value for each combination of label values."""
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    """Of a histogram: how many were at most each bound and above the one before, then how many above all."""
    total: float = 0.0
    """Of a histogram: the sum of everything observed."""


Figures = Sequence[Figure]


def added(one: Figure, other: Figure) -> Figure:
    """Two processes' counters, or histograms of the same bounds, as one figure."""
    samples = dict(one.samples)
    for labels, value in other.samples:
        samples[labels] = samples.get(labels, 0.0) + value
    return replace(
        one,
        samples=tuple(samples.items()),
        counts=tuple(map(sum, zip(one.counts, other.counts, strict=True))),
        total=one.total + other.total,
    )


class Counter:
    """Goes up.  For one event loop or thread: a count that two threads add at once may be lost."""

    def __init__(self, name: str, about: str, labels: Labels) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, *labels: str) -> None:
        """Count, for these label values in the order of the names."""
        values = self._values
        if labels not in values and len(values) >= LABELLED_MAX:
            labels = ("other",) * len(labels)
        values[labels] = values.get(labels, 0.0) + amount

    def value(self, *labels: str) -> float:
        """The count so far."""
        return self._values.get(labels, 0.0)

    def figure(self) -> Figure:
        """As it stands."""
        return Figure(self._name, "counter", self._about, self._labels, tuple(self._values.items()))


class Distribution:
    """How values are spread, such as the seconds of a commit."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._name, self._about = name, about
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def figure(self) -> Figure:
        """As it stands."""
        return Figure(
            self._name, "histogram", self._about, (), (), self._bounds, tuple(self._counts), self._total
        )


class Read:
    """A figure that somebody keeps anyway, read when it is asked for."""

    def __init__(self, name: str, kind: Kind, about: str, read: Callable[[], float]) -> None:
        self._name, self._about, self._read = name, about, read
        self._kind: Kind = kind

    def figure(self) -> Figure:
        """As it stands."""
        return Figure(self._name, self._kind, self._about, (), (((), float(self._read())),))


_Kept = TypeVar("_Kept", Counter, Distribution, Read)


class Meter:
    """All figures of a process."""

    def __init__(self) -> None:
        self._kept: dict[str, Counter | Distribution | Read] = {}

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        """A new counter; the labels' names are fixed.  For modules to make when they are imported."""
        return self._keep(name, Counter(name, about, labels))

    def distribution(self, name: str, about: str, bounds: Sequence[float] = SECONDS) -> Distribution:
        """A new distribution."""
        return self._keep(name, Distribution(name, about, bounds))

    def read(self, name: str, about: str, read: Callable[[], float], kind: Kind = "gauge") -> None:
        """A figure that `read` tells, which must not raise; one of the same name is replaced."""
        self._kept.pop(name, None)
        self._keep(name, Read(name, kind, about, read))

    def figures(self) -> Figures:
        """Everything as it stands."""
        return [kept.figure() for kept in self._kept.values()]

    def _keep(self, name: str, made: _Kept) -> _Kept:
        if name in self._kept:
            raise ValueError(f"there is a figure {name!r} already")
        self._kept[name] = made
        return made


METER: Final = Meter()
"""This process's."""

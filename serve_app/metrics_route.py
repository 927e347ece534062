"""`GET /metrics`: what every process counted, in Prometheus' text format.

`prometheus_client` writes the text and nothing else: its own counters take a lock whenever they are added to,
and Ray Serve's are exported by an agent that listens on every interface (docs/adr/0012-metrics.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eventstore.meter import Figure, Figures
from serve_app.call import Call
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime

PREFIX: Final = "rayspond_"
PROCESS: Final = "process"
"""The label that tells one process' series from another's: sum over it."""
CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class MetricsRoute:
    """`/metrics`, the same whichever replica answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        summary = "What every process counted, for Prometheus"
        return (Endpoint("GET", "/metrics", self.show, summary, "operator"),)

    async def show(self, call: Call) -> None:
        """All of it."""
        text = render(await self._runtime.figures())
        await call.answer(text, 200, (b"content-type", CONTENT_TYPE))


def render(processes: Iterable[tuple[str, Figures]]) -> bytes:
    """The figures of each named process as one text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(processes))
    return generate_latest(registry)


class _Families(Collector):
    """Figures of the same name are one family, with a series for each process."""

    def __init__(self, processes: Iterable[tuple[str, Figures]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        families: dict[str, Metric] = {}
        for process, figures in self._processes:
            for figure in figures:
                family = families.get(figure.name)
                if family is None:
                    family = families[figure.name] = _family(figure)
                _add(family, process, figure)
        yield from families.values()


def _family(figure: Figure) -> Metric:
    name, labels = PREFIX + figure.name, (PROCESS, *figure.labels)
    match figure.kind:
        case "counter":
            return CounterMetricFamily(name, figure.about, labels=labels)
        case "gauge":
            return GaugeMetricFamily(name, figure.about, labels=labels)
        case "histogram":
            return HistogramMetricFamily(name, figure.about, labels=labels)


def _add(family: Metric, process: str, figure: Figure) -> None:
    if isinstance(family, HistogramMetricFamily):
        upper = (*map(str, figure.bounds), "+Inf")
        buckets = list(zip(upper, accumulate(figure.counts), strict=True))
        family.add_metric([process], buckets, figure.total)
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        for labels, value in figure.samples:
            family.add_metric([process, *labels], value)

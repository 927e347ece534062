"""For all tests: what they show is held against schemas, and two workers share those that start servers."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Generator, Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from runtime.response.events import Event
    from runtime.response.state import ResponseState
    from runtime.response.wire import WireEvent

# `make test-fast` names it.
settings.register_profile("fast", max_examples=25)

SERVERS_OF_THEIR_OWN: Final = (
    "tests/e2e/test_postgres.py",
    "tests/integration/test_launch.py",
    "tests/integration/test_running_cluster.py",
    "tests/e2e/test_stalled_clients.py",
    "tests/chaos/test_chaos.py",
    "tests/e2e/test_projects.py",
    "tests/e2e/test_nats_faults.py",
    "tests/e2e/test_restart.py",
    "tests/e2e/test_isolation.py",
    "tests/integration/test_raylets.py",
    "tests/integration/test_actors_on_ray.py",
)
"""What starts a Ray, the longest first.  All other files of `tests/e2e` share one server."""
SHARED: Final = "tests/e2e"

SHARED_SERVER: Final = pytest.StashKey[Any]()
"""That one (`tests.launching.Instance`), in `Config.stash`, while it runs."""

ALIKE_MAX = 20
"""Events that are checked of those that differ in their words and numbers only, in one process."""
WORDS = ("type", "status", "object", "role", "code", "reason", "effort", "phase", "detail", "truncation")
"""Fields whose words a schema has rules for."""

_seen: Counter[Hashable] = Counter()
_right: set[int] = set()
"""Hashes of events that were looked at and are right: most tests of crashes show the same ones again."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """Nothing that is imported here is ever let go, so that nobody need look whether it could be."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest goes first, so that no worker idles at the end."""
    order = {group: place for place, group in enumerate((SHARED, *SERVERS_OF_THEIR_OWN))}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(order)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """End the shared server behind its last test: it has 1.2 GiB, and is never quite idle."""
    # Where all servers are to be dedicated, those of `test_isolation` are this one.
    done = group_of(item.nodeid) != SHARED and os.environ.get("RAYSPOND_ISOLATION") != "dedicated"
    if done and SHARED_SERVER in item.config.stash:
        running = item.config.stash[SHARED_SERVER]
        del item.config.stash[SHARED_SERVER]
        running.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell beside a failure what servers complained of: their folders do not stay everywhere."""
    report = yield
    launching = sys.modules.get("tests.launching")
    if report.failed and launching is not None:
        for instance in launching.RUNNING:
            report.sections.append((f"Server on {instance.data_dir}", instance.complaints()))
    return report


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together | None:
    """For `--dist loadfile`; the other ways stay xdist's own."""
    return Together(config, log) if config.getvalue("dist") == "loadfile" else None


class Together(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types.
    """Gives whole files to workers, and all that share a server to one of them."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """What runs in the same worker as this test."""
    file = nodeid.partition("::")[0]
    shares = file.startswith(f"{SHARED}/") and file not in SERVERS_OF_THEIR_OWN
    return SHARED if shares else file


def shape(value: object, name: str = "") -> Hashable:
    """What schemas look at: names, kinds and the words of enumerations, but no other words and numbers."""
    match value:
        case dict():
            return tuple((key, shape(part, key)) for key, part in value.items())
        case list():
            return ("list", *dict.fromkeys(shape(part) for part in value))
        case str() if name not in WORDS:
            return "str" if value else "empty"
        case bool() | None | str():
            return value
        case _:
            return type(value).__name__


@pytest.fixture(autouse=True)
def _every_wire_event_conforms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`step` is the one place where wire events are made, and looks `project` up here."""
    # The process that only hands the tests to others needs none of these, and they take a second.
    from runtime.response import state
    from runtime.response.projection import project
    from tests.conformance import check_event

    wrong: list[str] = []

    def checked(before: ResponseState, event: Event) -> list[WireEvent]:
        wire = project(before, event)
        for shown in wire:
            if hash(shown.data) in _right:
                continue
            alike = shape(orjson.loads(shown.data))
            _seen[alike] += 1
            if _seen[alike] <= ALIKE_MAX:
                try:
                    check_event(shown.data)
                except (ValueError, AssertionError) as error:
                    wrong.append(f"{shown.data[:2000]!r}: {error}")
                    continue
            _right.add(hash(shown.data))
        return wire

    monkeypatch.setattr(state, "project", checked)
    yield
    assert wrong == [], orjson.dumps(wrong, option=orjson.OPT_INDENT_2).decode()

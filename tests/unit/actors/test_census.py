"""Who counts in a cluster, and who is left out."""

from __future__ import annotations

import asyncio
from typing import cast

from actors.census import ANSWER_MAX, REPORT_AGE_MAX, REPORTS_MAX, Census
from actors.hosts import HostDied, HostHandle
from eventstore.meter import Figures, Meter
from tests.virtual_time import run


def counted(name: str) -> Figures:
    meter = Meter()
    meter.counter(name, "X.").add()
    return meter.figures()


class Host:
    """Answers, is dead, or hangs."""

    def __init__(self, answer: Figures | None, hangs: bool = False) -> None:
        self._answer, self._hangs = answer, hangs

    async def figures(self) -> Figures:
        if self._hangs:
            await asyncio.sleep(3600)
        if self._answer is None:
            raise HostDied("it is gone")
        return self._answer


def hosts(**named: Host) -> dict[str, HostHandle]:
    return {name: cast(HostHandle, host) for name, host in named.items()}


def test_everybody_who_answers_counts_by_name() -> None:
    async def main() -> None:
        census = Census("supervisor", asyncio.get_running_loop().time)
        census.report("api-1", counted("a"))
        found = await census.gather(hosts(one=Host(counted("h")), dead=Host(None), hung=Host((), hangs=True)))
        assert [name for name, _ in found] == ["supervisor", "one", "api-1"]
        assert dict(found)["one"] == counted("h")
        assert asyncio.get_running_loop().time() <= ANSWER_MAX + 0.1, "one that hangs holds nobody up"

    run(main())


def test_a_replica_that_reports_no_more_is_left_out() -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        census = Census("supervisor", clock)
        census.report("api-1", counted("a"))
        await asyncio.sleep(REPORT_AGE_MAX - 1)
        census.report("api-2", counted("a"))
        await asyncio.sleep(2)
        assert [name for name, _ in await census.gather({})] == ["supervisor", "api-2"]

    run(main())


def test_reports_are_bounded() -> None:
    async def main() -> None:
        census = Census("supervisor", asyncio.get_running_loop().time)
        for number in range(REPORTS_MAX + 10):
            census.report(f"api-{number}", ())
        census.report("api-0", counted("again"))
        found = dict(await census.gather({}))
        assert len(found) == REPORTS_MAX + 1
        assert found["api-0"] == counted("again")

    run(main())


def test_hosts_of_one_response_are_added_up_when_they_end() -> None:
    """Their names are too many to be kept, and what they counted must not be lost with them."""

    async def main() -> None:
        census = Census("supervisor", asyncio.get_running_loop().time)
        meter = Meter()
        meter.counter("ended", "X.", "status").add(2, "completed")
        meter.distribution("seconds", "X.", bounds=(1.0,)).observe(0.5)
        meter.read("open", "X.", lambda: 1)
        for _ in range(3):
            await census.add_up(cast(HostHandle, Host(meter.figures())))
        await census.add_up(cast(HostHandle, Host(None)))
        found = {figure.name: figure for figure in dict(await census.gather({}))["supervisor-ended"]}
        assert found.keys() == {"ended", "seconds"}
        assert found["ended"].samples == ((("completed",), 6.0),)
        assert (found["seconds"].counts, found["seconds"].total) == ((3, 0), 1.5)

    run(main())

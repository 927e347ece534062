"""Placement: which host gets a command, and how commands reach it in few calls.  No Ray here.

A replica's view of the hosts is a little old; that costs balance, never correctness: the id is chosen before
the call, so a create tried on two hosts happens once, and a host that is full queues or refuses by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from actors.hosts import HostDied, HostHandle
from actors.orders import CreateOrder, HostInfo, Order, Overloaded

log = logging.getLogger(__name__)

CALLS_MAX = 2
"""Calls with creates under way to one host.  While they are, what arrives waits and goes together in the next
one: a call costs about what committing a response costs."""
ORDERS_MAX = 64
"""Orders in one call."""
AT_HOME = 64
"""So many responses the host that is preferred gets before others get a second one; then all get as many."""
FEW_PROCESSORS = 4
"""On so few, processes that share the same work wake twice as often for it, and that costs more than sharing
saves."""
WAITING_MAX = 2048
"""Creates that wait here for one host; whoever comes then is told to come again."""


@dataclass(slots=True)
class _Line:
    """The way to one host."""

    info: HostInfo
    handle: HostHandle
    home: bool
    """Whether it is preferred while it has little to do (`_home`)."""
    sent: int = 0
    """Responses sent there that it has not answered for."""
    waiting: list[tuple[CreateOrder, asyncio.Future[Exception | None]]] = field(default_factory=list)
    calls: int = 0

    @property
    def rank(self) -> tuple[bool, bool, float, bool]:
        """The lowest is chosen, by what is known here: an idle host, else the one with most room.

        The one that is preferred counts as empty while it has little to do: one event loop is enough for that
        only.
        """
        running = self.info.running + self.sent
        weight = 0 if self.home and running < AT_HOME else running
        return running >= self.info.slots, running > 0, weight / self.info.slots, not self.home


class Placement:
    """Sends orders to hosts: creates many in one call under load, at once when idle.

    `processors` are those of this machine.
    """

    def __init__(self, processors: int | None = None) -> None:
        self._few_processors = (processors or os.cpu_count() or 1) <= FEW_PROCESSORS
        self._lines: dict[str, _Line] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def update(self, hosts: Sequence[tuple[HostInfo, HostHandle]]) -> None:
        """Take in what the supervisor says of the hosts."""
        lines = {}
        home = self._home([info for info, _ in hosts if info.isolation == "shared"])
        for info, handle in hosts:
            line = self._lines.get(info.name)
            if line is None:
                line = _Line(info, handle, info.name == home)
            else:
                line.info, line.home = info, info.name == home
            lines[info.name] = line
        self._lines = lines

    def _home(self, hosts: Sequence[HostInfo]) -> str | None:
        """Which host is preferred, if any.

        The one that owns the log: its commits cross no socket and wake nobody, which is a fifth of what a
        short response costs.  Where none does, any one on a machine of few processors that has them all, and
        every replica the same one.
        """
        owner = next((info.name for info in hosts if info.owns_log), None)
        if owner is None and self._few_processors and len({info.node for info in hosts}) == 1:
            return min(info.name for info in hosts)
        return owner

    def __len__(self) -> int:
        """How many hosts are known."""
        return len(self._lines)

    def least_loaded(self, isolation: str = "shared") -> str | None:
        """The name of the host of that isolation to be preferred, or None where there is none."""
        lines = [line for line in self._lines.values() if line.info.isolation == isolation]
        best = min(lines, key=lambda line: line.rank, default=None)
        return best.info.name if best else None

    def knows(self, name: str | None) -> bool:
        """Whether a host of that name was alive when last heard of."""
        return name in self._lines

    async def send(self, name: str, order: Order) -> Exception | None:
        """Have the host carry out an order; its refusal, or None.  Raises `HostDied`."""
        line = self._lines.get(name)
        if line is None:
            raise HostDied(f"{name} is not known any more")
        if not isinstance(order, CreateOrder):
            # It may take as long as its upstream takes to hang up: no create should wait for that.
            return (await line.handle.obey([order])).outcomes[0]
        if len(line.waiting) >= WAITING_MAX:
            return Overloaded(retry_after=1.0)
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        line.waiting.append((order, done))
        line.sent += 1
        if len(line.waiting) == 1:
            # One turn of the event loop lets all that arrives in it travel together.
            asyncio.get_running_loop().call_soon(self._call, line)
        return await done

    def _call(self, line: _Line) -> None:
        if not line.waiting or line.calls >= CALLS_MAX:
            return
        batch, line.waiting = line.waiting[:ORDERS_MAX], line.waiting[ORDERS_MAX:]
        line.calls += 1
        task = asyncio.create_task(self._deliver(line, batch))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _deliver(
        self, line: _Line, batch: Sequence[tuple[CreateOrder, asyncio.Future[Exception | None]]]
    ) -> None:
        try:
            answer = await line.handle.obey([order for order, _ in batch])
        except Exception as error:  # noqa: BLE001  # Whatever it is, those who wait for an answer must hear of it.
            if isinstance(error, HostDied):
                self._lines.pop(line.info.name, None)
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
        else:
            line.info = replace(line.info, running=answer.running)
            for (_, done), outcome in zip(batch, answer.outcomes, strict=True):
                if not done.done():
                    done.set_result(outcome)
        finally:
            line.calls -= 1
            line.sent -= len(batch)
            self._call(line)

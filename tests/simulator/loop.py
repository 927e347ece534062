"""An event loop in virtual time that runs what is ready in an order of its own choosing, and its processes.

Whatever may happen in another order does so under some seed.  A process is a set of tasks that can be
killed or stopped together, between any two of their steps: a killed one runs nothing any more, not even its
`finally` blocks, and a stopped one goes on later as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from random import Random
from typing import Any, Final, TypeVar

T = TypeVar("T")

STEP_SECONDS: Final = 0.0002
"""What a step of a task takes at most, so that timers and steps race."""
STEPS_MAX: Final = 2_000_000
"""A simulation that takes more steps than this never ends."""

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
NOWHERE: Final = contextvars.Context()
"""The context of what happens in no process: networks, upstreams, people."""


class Endless(Exception):
    """Every task waits for something that nothing will bring, or they go round in circles."""


class Process:
    """Tasks that live and die together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stopped = False
        """By SIGSTOP, or because something blocks its event loop."""
        self._held: list[asyncio.Handle] = []
        self._mourners: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return self.name

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a task in this process."""
        context = contextvars.Context()
        context.run(_PROCESS.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def kill(self) -> None:
        """Nothing of it runs any more."""
        if not self.alive:
            return
        self.alive = False
        mourners, self._mourners = self._mourners, []
        for mourner in mourners:
            asyncio.get_running_loop().call_soon(mourner, context=NOWHERE)

    def stop(self) -> None:
        """Let nothing of it run until `go_on`."""
        self.stopped = True

    def go_on(self) -> None:
        """Run what has become ready in the meantime."""
        self.stopped = False
        if self.alive:
            self.release()

    def on_death(self, mourner: Callable[[], None]) -> None:
        """Call this once the process is dead; soon, where it is."""
        if self.alive:
            self._mourners.append(mourner)
        else:
            asyncio.get_running_loop().call_soon(mourner, context=NOWHERE)

    def holds(self, handle: asyncio.Handle) -> bool:
        """Keep a step that may not run now."""
        if self.alive and not self.stopped:
            return False
        self._held.append(handle)
        return True

    def release(self) -> None:
        """Give back what was kept."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        held, self._held = self._held, []
        loop.add(held)


def current_process() -> Process | None:
    """Where the caller runs."""
    return _PROCESS.get()


class _Task(asyncio.Task[Any]):
    """Hashed by number, so that sets of tasks are walked in the same order every time."""

    def __new__(cls, _work: Any, *, loop: SimulatedLoop, **_options: Any) -> _Task:
        task = super().__new__(cls)
        task.number = loop.number()
        return task

    number: int

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """The same for futures."""

    def __new__(cls, *, loop: SimulatedLoop) -> _Future:
        future = super().__new__(cls)
        future.number = loop.number()
        return future

    number: int

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """For code that reaches the world through ports alone."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._random = chance.random
        self._now = 0.0
        self._numbers = count()
        self._waiting: list[asyncio.Handle] = []
        self._ready = self._waiting
        self.steps = 0
        self.ends = False
        """Whether all is over: then the dead run once more, to be cleared away."""
        self.processes: list[Process] = []
        self.set_task_factory(lambda loop, work, **options: _Task(work, loop=self, **options))

    def time(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """See `AbstractEventLoop`."""
        return _Future(loop=self)

    def number(self) -> int:
        """The next one."""
        return next(self._numbers)

    def process(self, name: str) -> Process:
        """A new process."""
        made = Process(name)
        self.processes.append(made)
        return made

    def add(self, handles: list[asyncio.Handle]) -> None:
        """Make these ready."""
        self._waiting += handles

    def run_in_executor(  # type: ignore[override]  # Theirs ties the arguments to the function.
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As a step among the others: no seed decides when a thread is through."""
        done = self.create_future()

        def work() -> None:
            try:
                value = func(*args)
            except Exception as error:  # noqa: BLE001  (whatever it is, who waits for it gets it)
                done.set_exception(error)
            else:
                done.set_result(value)

        self.call_soon(work)
        return done

    def _run_once(self) -> None:
        """One step of whichever task chance picks."""
        timers = self._timers()
        ready = self._waiting
        if ready:
            self._now += self._random() * STEP_SECONDS
        elif timers:
            self._now = max(self._now, timers[0].when())
        elif not self._stopping:  # type: ignore[attr-defined]  # not in typeshed
            raise Endless("every task waits for something that nothing will bring")
        while timers and timers[0].when() <= self._now:
            ready.append(heapq.heappop(timers))
        if not ready:
            return
        index = int(self._random() * len(ready))
        ready[index], ready[-1] = ready[-1], ready[index]
        handle = ready.pop()
        process = handle._context.get(_PROCESS)  # type: ignore[attr-defined]  # not in typeshed
        if handle.cancelled():
            return
        if process is not None and not self.ends and process.holds(handle):
            return
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Endless(f"it is not over after {STEPS_MAX} steps")
        handle._run()

    def _timers(self) -> list[asyncio.TimerHandle]:
        """Those to come, as a heap whose first one was not cancelled."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # not in typeshed
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        return timers

    def _process_events(self, event_list: Any) -> None:
        """There is no input or output."""

    def _write_to_self(self) -> None:
        """There are no other threads."""


def run(main: Awaitable[T], loop: SimulatedLoop) -> T:
    """Run `main` on the loop; then end whatever is left of it, the dead and the stopped too."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            loop.run_until_complete(_end(loop))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


async def _end(loop: SimulatedLoop) -> None:
    loop.ends, loop.steps = True, 0
    for process in loop.processes:
        process.release()
    # What is ended may begin something else as its last act.
    while rest := asyncio.all_tasks(loop) - {asyncio.current_task()}:
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

"""Clock and chance of a simulated machine: whatever asks the operating system for them gets the seed's."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.simulator.loop import SimulatedLoop

EPOCH: Final = 1_700_000_000
"""When every simulation begins, seconds since 1970 UTC."""


@contextmanager
def simulated_machine(seed: str, loop: SimulatedLoop) -> Iterator[None]:
    """`os.urandom`, `random` and `time.time` answer by the seed and in virtual time.

    So do `uuid4` and `secrets`, which use them.  The garbage collector waits: it would run the `finally`
    blocks of what is lost at moments of its own.
    """
    entropy = random.Random(f"{seed}/entropy")
    state = random.getstate()
    urandom, clock, clock_ns = os.urandom, time.time, time.time_ns
    collects = gc.isenabled()
    gc.disable()
    random.seed(f"{seed}/random")
    os.urandom = entropy.randbytes
    time.time = lambda: EPOCH + loop.time()
    time.time_ns = lambda: int((EPOCH + loop.time()) * 1e9)
    try:
        yield
    finally:
        os.urandom, time.time, time.time_ns = urandom, clock, clock_ns
        random.setstate(state)
        if collects:
            gc.enable()

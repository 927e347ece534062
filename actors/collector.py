"""Python's collector of cyclic garbage, in processes that live long and hold much that never ends."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 50_000
"""So many more than ended, and the youngest are looked through.  Python's 700 are there after two streams.

With 10,000 a host of 500 streams was halted twice a second for 10 to 50 ms, and once, as they opened, for a
tenth of a second.  More keeps what is garbage for longer and gains nothing."""


def spare_what_stays() -> None:
    """Leave out of every collection what is there now: modules and libraries, some 200,000 objects.

    For the end of a process's start.  Looking through all of them halts every stream for a tenth of a second,
    and as streams come and go that is due again and again.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])

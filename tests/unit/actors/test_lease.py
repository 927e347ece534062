"""A host's sign of life does not depend on its event loop, nor on every renewal going well."""

from __future__ import annotations

import threading

from actors.lease import LeaseKeeper
from eventstore.errors import LeaseLost, StoreUnavailable


def test_only_a_lost_lease_ends_its_keeper() -> None:
    outcomes: list[Exception | None] = [None, StoreUnavailable("away"), KeyError("a mistake of ours"), None]
    outcomes.append(LeaseLost("host-1"))
    lost = threading.Event()

    def renew() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    LeaseKeeper(renew, lost.set, 0.001).start()
    assert lost.wait(10)
    assert not outcomes

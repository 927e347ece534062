"""One process owns a log's file: whoever comes second is told so, and leaves it alone."""

from __future__ import annotations

import os
from pathlib import Path

from eventstore.sql.owner_lock import OwnerLock, read_owner


def test_a_directory_that_is_owned_is_not_taken(tmp_path: Path) -> None:
    lock = OwnerLock.try_take(tmp_path)
    assert lock is not None
    assert OwnerLock.try_take(tmp_path) is None
    owner = read_owner(tmp_path)
    assert owner is not None
    assert owner.pid == os.getpid()
    lock.release()
    second = OwnerLock.try_take(tmp_path)
    assert second is not None, "it was given back"
    second.release()

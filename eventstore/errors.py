"""What can go wrong with the log.

EventStoreError
├── WrongExpectedVersion   another writer appended to the stream first
├── Fenced                 a later activation owns the stream
├── ClaimTaken             the key was claimed by another unit
├── StreamNotFound         no such stream
├── LeaseLost              the holder was declared dead
├── StoreUnavailable       the database cannot be reached now; nothing was recorded
├── OutcomeUnknown         it cannot be told whether the unit was committed; read, do not assume
├── UnsafeStore            the database's settings would lose acknowledged events
├── UnknownFormat          a later version wrote it
└── LogCorrupted           what was read does not verify
"""

from __future__ import annotations


class EventStoreError(Exception):
    """Base of all errors of the log.  Arguments are kept whole so that they survive pickling."""


class WrongExpectedVersion(EventStoreError):
    """Another writer appended to the stream first."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(stream, expected, actual)
        self.stream, self.expected, self.actual = stream, expected, actual

    def __str__(self) -> str:
        return f"stream {self.stream!r} is at version {self.actual}, not {self.expected}"


class Fenced(EventStoreError):
    """A later activation owns the stream; this writer must stop, having shown nothing."""

    def __init__(self, stream: str, epoch: int, actual: int) -> None:
        super().__init__(stream, epoch, actual)
        self.stream, self.epoch, self.actual = stream, epoch, actual

    def __str__(self) -> str:
        return (
            f"stream {self.stream!r} is at epoch {self.actual}; a writer of epoch {self.epoch} may not append"
        )


class ClaimTaken(EventStoreError):
    """The key was claimed by another unit."""

    def __init__(self, scope: str, key: str, fingerprint: bytes, stream: str) -> None:
        super().__init__(scope, key, fingerprint, stream)
        self.scope, self.key, self.fingerprint, self.stream = scope, key, fingerprint, stream

    def __str__(self) -> str:
        return f"key {self.key!r} in {self.scope!r} is claimed by stream {self.stream!r}"


class StreamNotFound(EventStoreError):
    """No such stream."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"no stream {self.stream!r}"


class LeaseLost(EventStoreError):
    """The holder was declared dead; it must stop itself."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder

    def __str__(self) -> str:
        return f"the lease of {self.holder!r} was taken away"


class StoreUnavailable(EventStoreError):
    """The database cannot be reached now.  Nothing was recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the log cannot be reached: {self.reason}"


class OutcomeUnknown(StoreUnavailable):
    """It cannot be told whether the unit was committed: read, do not assume."""


class UnsafeStore(EventStoreError):
    """The database's settings would lose acknowledged events."""

    def __init__(self, setting: str, found: str, needed: str) -> None:
        super().__init__(setting, found, needed)
        self.setting, self.found, self.needed = setting, found, needed

    def __str__(self) -> str:
        return f"{self.setting} is {self.found!r} but must be {self.needed!r}"


class UnknownFormat(EventStoreError):
    """A later version of this program wrote what was read: it is waited for, never skipped."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream

    def __str__(self) -> str:
        return f"stream {self.stream!r} is sealed in a format that only a later version can read"


class LogCorrupted(EventStoreError):
    """What was read does not verify."""

    def __init__(self, stream: str, version: int, reason: str) -> None:
        super().__init__(stream, version, reason)
        self.stream, self.version, self.reason = stream, version, reason

    def __str__(self) -> str:
        return f"stream {self.stream!r}, version {self.version}: {self.reason}"

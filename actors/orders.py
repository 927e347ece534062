"""What is asked of a host: commands on their way to what carries them out, and why they can be refused.

Orders cross processes by pickle, many in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eventstore.events import Claim
from runtime.response.commands import Create


@dataclass(frozen=True, slots=True)
class CreateOrder:
    """Create a response and run it, now or when a slot is free."""

    command: Create


@dataclass(frozen=True, slots=True)
class ReserveOrder:
    """Have the supervisor name a host for one response that needs one of its own."""

    response_id: str
    isolation: str
    model: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Cancel a response, active here or not."""

    response_id: str
    by: str


@dataclass(frozen=True, slots=True)
class DeleteOrder:
    """Cancel a response if it runs, then erase it."""

    response_id: str
    by: str
    reason: str = "deleted by its owner"


@dataclass(frozen=True, slots=True)
class AttachOrder:
    """Somebody listens to a foreground response.  For the host that runs it."""

    response_id: str
    listener: str


@dataclass(frozen=True, slots=True)
class DetachOrder:
    """A listener left: cancel the response unless somebody listens again within `grace` seconds.

    For the host that runs it.  A background response has no listeners, and goes on.
    """

    response_id: str
    listener: str
    grace: float


@dataclass(frozen=True, slots=True)
class ResumeOrder:
    """Run a response that waits in the queue or whose host died.

    Obeyed only while the stream stands at `epoch`: whoever gave the order may have been overtaken, and what
    runs elsewhere by now must not be taken away from there.
    """

    response_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class AggregateOrder:
    """Carry out a command to an aggregate that no host runs; any host may.

    Where the host dies before it answers it is carried out again, so the command brings its time and ids.
    """

    category: str
    """Which of `runtime.aggregates.AGGREGATES`."""
    stream: str
    command: object
    claim: Claim | None = None
    """Taken in the unit that records what follows."""


Order = CreateOrder | CancelOrder | DeleteOrder | AttachOrder | DetachOrder | ResumeOrder | AggregateOrder


@dataclass(frozen=True, slots=True)
class Running:
    """A response that a host runs now."""

    response_id: str
    model: str
    project: str
    since: float
    """Seconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says to orders."""

    outcomes: Sequence[Exception | None]
    """For each order nothing, or why it was refused."""
    running: int
    """Responses that run there now."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """A host as the supervisor and placement see it."""

    name: str
    """Name of the Ray actor and, with its random end, the host's incarnation id."""
    isolation: str
    slots: int
    node: str
    pid: int
    address: str = field(default="", repr=False)
    """Where it takes orders from its own node (`actors.local_orders`), with a secret in it."""
    running: int = 0
    guests: int = 0
    """Those of them that take no slot."""
    ran: int = 0
    """Responses it has been given in its life."""
    queued: bool = False
    """Whether it knows of work in the durable queue."""
    owns_log: bool = False
    """Whether it writes the log's database by itself."""


class PlacementError(Exception):
    """Base of what can keep a command from its actor.  Arguments are kept whole, for pickling."""


class Overloaded(PlacementError):
    """Every slot is taken and the queue is full: try again later."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"every slot is taken and the queue is full; try again in {self.retry_after:g} s"


class RuntimeUnavailable(PlacementError):
    """No host can be reached now: the runtime starts, stops or recovers."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason, retry_after)
        self.reason, self.retry_after = reason, retry_after

    def __str__(self) -> str:
        return f"the runtime cannot be reached: {self.reason}"


class UnknownResponse(PlacementError):
    """No such response, or none any more."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.response_id = response_id

    def __str__(self) -> str:
        return f"no response {self.response_id!r}"


class Moved(PlacementError):
    """The stream has another owner by now: look the owner up again."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.response_id = response_id

    def __str__(self) -> str:
        return f"response {self.response_id!r} runs elsewhere by now"

"""`GET /hosts`: which Ray actor, node and process runs which response."""

from __future__ import annotations

from collections.abc import Sequence

from actors.hosts import actor_of
from serve_app.call import Call
from serve_app.router import Endpoint
from serve_app.runtime_port import Runtime


class HostRoutes:
    """What runs where, as the supervisor knows it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def endpoints(self) -> Sequence[Endpoint]:
        """The rows of the table."""
        summary = "List the hosts and the responses that run on them"
        return (Endpoint("GET", "/hosts", self.index, summary, "operator"),)

    async def index(self, call: Call) -> None:
        """Every host with what it runs, the oldest response first."""
        hosts = [
            {
                "actor": actor_of(info.name),
                "isolation": info.isolation,
                "node": info.node,
                "pid": info.pid,
                "slots": info.slots,
                "responses": [
                    {
                        "id": one.response_id,
                        "project": one.project,
                        "model": one.model,
                        "since": round(one.since, 3),
                    }
                    for one in running
                ],
            }
            for info, running in await self._runtime.running()
        ]
        await call.answer_json({"object": "list", "data": hosts})

"""Wait until a NATS server has what a client of nats-py asked it for."""

from __future__ import annotations

from nats.aio.client import Client


async def arrived(client: Client) -> None:
    """Subscriptions and messages sent before are with the server.

    The ping of nats-py's `flush` overtakes what its client still keeps for the next turn of the event loop;
    the ping of a second one, sent when the first was answered, cannot.
    """
    await client.flush()
    await client.flush()

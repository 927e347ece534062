"""The configuration of the nats-server that runs beside us: loopback, two users, JetStream with bounds.

`runtime` may do everything.  `subscriber` reads the public subjects, alone or as a JetStream consumer, and
publishes nothing there; the private tier (`_rs.>`) and the server's own subjects are closed to it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from eventstore.nats_subjects import safe_token

STREAM: Final = "RAYSPOND"
"""The JetStream stream that captures public events."""
SUBSCRIBER_INBOX: Final = "_INBOX_subscriber"
"""Replies to a subscriber arrive below this prefix; clients set it as their inbox prefix."""
OLDEST_SERVER: Final = (2, 12, 7)
"""Older servers have known holes in their permissions or lose acknowledged messages."""


def old_server(version: tuple[int, ...]) -> str | None:
    """Why a server of this version should be a later one, in words, or None."""
    if version >= OLDEST_SERVER:
        return None
    found, oldest = (".".join(map(str, numbers)) for numbers in (version, OLDEST_SERVER))
    return f"nats-server {found} has known holes; use {oldest} or a later one"


_CONSUMER_API: Final = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    f"$JS.API.STREAM.INFO.{STREAM}",
    f"$JS.API.CONSUMER.CREATE.{STREAM}",
    f"$JS.API.CONSUMER.CREATE.{STREAM}.>",
    f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.>",
    f"$JS.API.CONSUMER.INFO.{STREAM}.>",
    f"$JS.API.CONSUMER.NAMES.{STREAM}",
    f"$JS.API.CONSUMER.LIST.{STREAM}",
    f"$JS.API.CONSUMER.DELETE.{STREAM}.>",
    f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.>",
    f"$JS.ACK.{STREAM}.>",
    "$JS.FC.>",
)


def permissions() -> dict[str, Any]:
    """What `subscriber` may do: a list of what is allowed, never of what is denied.

    Subscribers are operator-level: whoever may create a consumer chooses where it delivers to, and the server
    does not check that subject.  So nothing in the private tier trusts what it cannot decode.
    """
    return {
        "publish": {"allow": list(_CONSUMER_API)},
        "subscribe": {"allow": ["rayspond.>", f"{SUBSCRIBER_INBOX}.>"]},
    }


def render(port: int, store_dir: str, runtime_password: str, subscriber_password: str) -> str:
    """The text of nats-server's configuration file, for `nats-server -c`.

    Write it with mode 0600: it holds both passwords.  Raises `UnsafeToken` where a password has characters
    that would need quoting in a URL.
    """
    users = [
        {"user": "runtime", "password": safe_token(runtime_password)},
        {"user": "subscriber", "password": safe_token(subscriber_password), "permissions": permissions()},
    ]
    lines = [
        "host: 127.0.0.1",
        f"port: {port}",
        "server_name: rayspond",
        "jetstream {",
        f"  store_dir: {json.dumps(store_dir, ensure_ascii=False)}",
        "  max_memory_store: 64MB",
        "  max_file_store: 2GB",
        "}",
        # Streaming replicas open one subscription a response; the server's own limit on them is none.
        "max_payload: 1MB",
        "max_pending: 64MB",
        'write_deadline: "5s"',
        'ping_interval: "10s"',
        "ping_max: 3",
        "logtime: true",
        f"authorization {{ users: {json.dumps(users, ensure_ascii=False)} }}",
    ]
    return "\n".join(lines) + "\n"


def url(port: int, user: str, password: str) -> str:
    """The URL under which `user` reaches the server that `render` describes."""
    return f"nats://{user}:{password}@127.0.0.1:{port}"

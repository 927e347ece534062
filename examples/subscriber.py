"""Print every response's events as they happen: `python examples/subscriber.py [runtime.json]`, until Ctrl-C.

Needs no key of the API: the NATS address in `runtime.json` holds a user who may only read.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import nats


async def main(url: str) -> None:
    """Listen, drop what the relay repeats, print."""
    client = await nats.connect(url, inbox_prefix=b"_INBOX_subscriber")
    messages = await client.subscribe("rayspond.>")
    await client.flush()
    # nats-py's first ping may overtake the subscription; what answers a second one has heard of it.
    await client.flush()
    print("listening", flush=True)
    last: dict[str, int] = {}
    async for message in messages.messages:
        response, number = message.headers["ce-subject"], int(message.headers["ce-sequencenumber"])
        if number > last.get(response, -1):
            last[response] = number
            print(response, number, message.headers["ce-type"], flush=True)


runtime = Path(sys.argv[1] if len(sys.argv) > 1 else ".rayspond/runtime.json")
with contextlib.suppress(KeyboardInterrupt):
    asyncio.run(main(json.loads(runtime.read_text())["nats_url"]))

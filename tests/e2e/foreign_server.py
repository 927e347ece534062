"""An OpenAI-compatible server that nobody here wrote, told what to say.  Runs in an environment of its own.

python foreign_server.py RULES_JSON        prints its URL, serves until SIGTERM
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

from llm_mock_api import MockServer, MockServerOptions  # type: ignore[import-not-found]  # Not installed here.
from llm_mock_api.types.reply import (  # type: ignore[import-not-found]  # Not installed here.
    ErrorReply,
    ReplyObject,
    ToolCall,
    Usage,
)


def reply(rule: dict[str, Any]) -> Any:
    """One rule's answer as that server wants it."""
    return ReplyObject(
        text=rule.get("text"),
        reasoning=rule.get("reasoning"),
        tools=[ToolCall(**tool) for tool in rule["tools"]] if "tools" in rule else None,
        usage=Usage(**rule["usage"]) if "usage" in rule else None,
        error=ErrorReply(**rule["error"]) if "error" in rule else None,
    )


async def main() -> None:
    """Serve."""
    server = MockServer(MockServerOptions(default_chunk_size=7))
    for rule in json.loads(sys.argv[1]):
        server.when(rule["when"]).reply(reply(rule))
    await server.start()
    print(server.url, flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop()


asyncio.run(main())

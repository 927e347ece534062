"""An upstream gives its secrets away wherever it can, and they get nowhere (the design's invariant 8)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import nats
import pytest

from tests.e2e.upstream import KEY, TOKEN, Upstream
from tests.e2e.wire import created, id_of, replayed
from tests.launching import Instance
from tests.nats_barrier import arrived
from tests.patience import PATIENCE_S

SAID = f"The+key+{KEY}+and+the+token+{TOKEN}+are+bad."
LEAKS = {
    "in the message of a refusal": f"status=401&message={SAID}",
    "in the message of a failure": f"status=500&message={SAID}",
    "as the code of an error": f"status=400&code={KEY}&message={SAID}",
    "in the message of an error within the stream": f"error_after=2&message={SAID}",
    "as the code of an error within the stream": f"error_after=0&code={TOKEN}&message={SAID}",
    "as the id of an answer": f"request_id={KEY}",
    "as the id of a refusal": f"request_id={TOKEN}&status=429&message=x",
    "as the type of the answer": f"content_type=text/{KEY}",
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
async def test_what_an_upstream_tells_of_its_key_is_nowhere(
    instance: Instance, http: httpx.AsyncClient, upstream: Upstream, leak: str
) -> None:
    """Not in what clients get, not on any subject of NATS, not in the log, not in what processes write."""
    upstream.tell("leaky", leak)
    heard: list[bytes] = []
    listener = await nats.connect(instance.runtime["nats_runtime_url"])
    try:
        everything = await listener.subscribe(">")
        await arrived(listener)
        payloads = await created(http, {"model": "leaky", "input": "x"})
        response_id = id_of(payloads[0])
        heard += payloads
        heard += await replayed(http, response_id)
        for path in ("", "/input_items"):
            heard.append((await http.get(f"/v1/responses/{response_id}{path}")).content)
        plain = await http.post("/v1/responses", json={"model": "leaky", "input": "x"})
        heard.append(plain.content + repr(plain.headers).encode())
        last = json.dumps(json.loads(payloads[-2])["type"]).encode()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message = await everything.next_msg(30)
                heard.append(message.subject.encode() + repr(message.headers).encode() + message.data)
                public = message.subject.startswith("rayspond.") and response_id in message.subject
                if public and last in message.data:
                    break
    finally:
        await listener.close()
    call = upstream.seen()["calls"][-1]
    assert call["headers"]["x-gateway-token"] == TOKEN, "it was told, so that it can give it away"
    assert call["authorization"] == f"Bearer {KEY}"
    told = b"".join(heard)
    assert response_id.encode() in told
    assert [secret for secret in (KEY, TOKEN) if secret.encode() in told] == []
    files = list(_written(instance))
    assert any(path.name.startswith("log.db") and response_id in text for path, text in files)
    assert [path for path, text in files if KEY in text or TOKEN in text] == []


def _written(instance: Instance) -> Iterator[tuple[Path, str]]:
    """All that the server's processes have written: the log, their own logs, Ray's, what they printed."""
    directory = instance.data_dir
    scratch = Path((directory / "scratch.path").read_text().strip())
    for root in (directory, scratch):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes().decode("latin-1")
    yield Path("output"), instance.output

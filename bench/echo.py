"""The floor: a bare Ray Serve application with both ingress switches that streams and stores nothing.

`python -m bench.echo --port 8099` serves `POST /v1/responses` with the frames that its model name asks for,
`echo?deltas=100`, or with `&interval_ms=20` one every 20 ms; and `GET /v1/responses/any?bytes=500`.  A signal
ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from serve_app.launch.ports import free_port

SWITCHES = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


def script(model: str) -> tuple[int, float]:
    """How many deltas that name asks for, and the seconds from one to the next."""
    asked = parse_qs(urlsplit(model).query)
    return int(asked.get("deltas", ["1"])[0]), float(asked.get("interval_ms", ["0"])[0]) / 1e3


def frames(deltas: int) -> list[bytes]:
    """One frame a delta, of the size that a delta of Rayspond's has."""
    return [
        b"event: response.output_text.delta\ndata: "
        + json.dumps(
            {
                "type": "response.output_text.delta",
                "sequence_number": number,
                "item_id": "msg_" + "0" * 38,
                "output_index": 0,
                "content_index": 0,
                "delta": f"word{number} ",
                "logprobs": [],
            },
            separators=(",", ":"),
        ).encode()
        + b"\n\n"
        for number in range(deltas)
    ]


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    scratch = Path(tempfile.mkdtemp(prefix="rsb-"))
    os.environ.update(
        SWITCHES,
        RAY_USAGE_STATS_ENABLED="0",
        RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=str(scratch / "haproxy.cfg"),
        RAY_SERVE_HAPROXY_SOCKET_PATH=str(scratch / "admin.sock"),
        RAY_SERVE_HAPROXY_SERVER_STATE_BASE=str(scratch),
        RAY_SERVE_HAPROXY_SERVER_STATE_FILE=str(scratch / "server-state"),
        RAY_SERVE_HAPROXY_STATS_PORT=str(free_port()),
        RAY_SERVE_HAPROXY_METRICS_PORT=str(free_port()),
    )
    # Serve reads the switches when it is imported.
    import ray
    from ray import serve
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def readyz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def respond(request: Request) -> StreamingResponse:
        model = json.loads(await request.body())["model"]

        async def stream() -> AsyncIterator[bytes]:
            deltas, pause = script(model)
            for number, frame in enumerate(frames(deltas)):
                if number and pause:
                    await asyncio.sleep(pause)
                yield frame
            yield b"data: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def read(request: Request) -> JSONResponse:
        return JSONResponse({"text": "x" * (int(request.query_params["bytes"]) - len('{"text":""}'))})

    routes = [
        Route("/readyz", readyz),
        Route("/v1/responses", respond, methods=["POST"]),
        Route("/v1/responses/{id}", read),
    ]
    api = Starlette(routes=routes)

    class Echo:
        """Streams what it is asked for."""

    ray.init(address="local", include_dashboard=False, log_to_driver=False, _temp_dir=str(scratch))
    serve.start(http_options=serve.HTTPOptions(host="127.0.0.1", port=port))
    deployment = serve.deployment(
        num_replicas=2, max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0}
    )(serve.ingress(api)(Echo))
    serve.run(deployment.bind())
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main()

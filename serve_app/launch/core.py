"""The core: a child process that starts Ray, the actors and Serve, reports each step, and waits.

It reads lines from its standard input: first its `Orders`, later `reload` or `stop`.  It writes one JSON
object a line to the pipe it was given.  When its input ends without `stop`, whoever started it is dead, and
it then ends its whole session, Ray and HAProxy included.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray import serve
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.serve.context import _get_global_client

from actors import cluster
from actors.hosts import HostDied
from serve_app.launch import checks, haproxy, processes
from serve_app.launch.errors import CannotStart, StartFailed
from serve_app.launch.orders import Orders
from serve_app.settings import Settings

APPLICATION: Final = "rayspond"
NAMESPACE: Final = "rayspond"
_OBJECT_STORE_BYTES: Final = 512 * 1024 * 1024
_READY_LIMIT_S: Final = 180.0
_STOP_LIMIT_S: Final = 5.0
_LOOK_INTERVAL_S: Final = 1.0
_CAPTURE_INTERVAL_S: Final = 5.0
_CAPTURE_AWAY_S: Final = 15.0
"""For how long JetStream may take nothing before it is told; the relay has tried it some times by then."""


@dataclass(frozen=True, slots=True)
class Application:
    """What an import path names."""

    build: Callable[[Settings], serve.Application]
    actors: Callable[[Settings], Any] | None
    """`cluster_config` beside it: how its actors are to run.  An application without needs none."""


class Report:
    """The pipe to the supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def step(self, name: str, text: str, began: float) -> None:
        """Something is up, since `began` (monotonic)."""
        self.send({"step": name, "text": text, "seconds": round(time.monotonic() - began, 1)})

    def send(self, message: dict[str, Any]) -> None:
        """One message."""
        os.write(self._descriptor, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Run until told to stop.  Argument: the pipe's file descriptor."""
    report = Report(int(sys.argv[1]))
    line = sys.stdin.buffer.readline()
    if not line:
        return
    try:
        asyncio.run(_until_stopped(Orders.parse(line), report))
    except CannotStart as reason:
        report.send({"failed": str(reason), "usage": not isinstance(reason, StartFailed)})
    except Exception as error:  # noqa: BLE001  (whatever it is, the supervisor tells it in one line)
        sys.excepthook(type(error), error, error.__traceback__)
        words = str(error).strip().splitlines()
        report.send({"failed": f"{type(error).__name__}: {words[-1] if words else ''}", "usage": False})
    # Ray's own way out waits for processes that the supervisor ends faster.
    sys.stdout.flush()
    os._exit(0)


async def _until_stopped(orders: Orders, report: Report) -> None:
    reload = asyncio.Event()
    run = asyncio.ensure_future(_run(orders, report, reload))
    loop = asyncio.get_running_loop()
    threading.Thread(target=_listen, args=(loop, run, reload), daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        await run


async def _run(orders: Orders, report: Report, reload: asyncio.Event) -> None:
    """Start everything, then read the models again whenever `reload` is set, until cancelled."""
    settings = orders.settings
    # The application's modules are imported while Ray's processes start.
    loading = asyncio.create_task(asyncio.to_thread(_load, settings.app))
    began = time.monotonic()
    address, node = await asyncio.to_thread(_start_ray, settings.address, orders.scratch)
    checks.check_nodes(settings, sum(1 for node in ray.nodes() if node["Alive"]))
    if node is None:
        checks.check_serve(settings, await asyncio.to_thread(_serve_port))
    report.send({"ray_address": address})
    report.step("Ray", address, began)
    application = await loading
    if node is None and application.actors is not None:
        # Before there is anything to be put down: what runs there is somebody else's.
        await cluster.check(application.actors(settings))
    watching: asyncio.Task[None] | None = None
    try:
        await asyncio.gather(
            _start_actors(application, settings, report), asyncio.to_thread(_start_serve, settings)
        )
        began = time.monotonic()
        await _deploy(application, settings)
        await asyncio.to_thread(_wait_ready, orders.http_url)
        report.step("API", f"{orders.http_url}, {settings.replicas} replicas", began)
        report.send({"ready": True})
        watching = asyncio.create_task(_watch_capture(application, settings, report))
        while True:
            await _until_reload(reload, node)
            try:
                await _deploy(application, settings)
                report.send({"told": "the models were read again; new responses use them"})
            except CannotStart as reason:
                report.send({"told": f"the models stay as they were: {reason}"})
    finally:
        if watching is not None:
            watching.cancel()
        await _put_down(settings)


async def _until_reload(reload: asyncio.Event, node: Node | None) -> None:
    """Wait for `reload`.  Raises `StartFailed` once a Ray of our own lost a process: nothing runs then."""
    while not reload.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reload.wait(), _LOOK_INTERVAL_S)
        dead = [name for name, _ in node.dead_processes()] if node is not None else []
        if dead:
            names = ", ".join(sorted(set(dead)))
            raise StartFailed(
                f"Ray lost its {names}; start again on the same data directory: what is unfinished goes on"
            )
    reload.clear()


async def _deploy(application: Application, settings: Settings) -> None:
    """Deploy what `build` makes of the settings and the files that they name, or what changed in it."""
    made = application.build(settings)
    await asyncio.to_thread(serve.run, made, name=APPLICATION, route_prefix="/", blocking=False)


async def _start_actors(application: Application, settings: Settings, report: Report) -> None:
    if application.actors is None:
        return
    began = time.monotonic()
    await cluster.start(application.actors(settings))
    report.step("Actors", f"{settings.hosts} warm hosts, {settings.slots} slots each", began)


async def _watch_capture(application: Application, settings: Settings, report: Report) -> None:
    """Tell whenever JetStream takes nothing although its server answers."""
    if application.actors is None:
        return
    supervisor = cluster.RaySupervisor(application.actors(settings))
    while True:
        await asyncio.sleep(_CAPTURE_INTERVAL_S)
        with contextlib.suppress(HostDied):
            away = await supervisor.capture_away()
            if away > _CAPTURE_AWAY_S:
                report.send({"capture_away": away})


async def _put_down(settings: Settings) -> None:
    """Let the actors finish what they hold.  The supervisor ends a Ray of our own whole afterwards."""
    steps: list[Awaitable[Any]] = [cluster.stop()]
    if settings.address != "local":
        steps.append(asyncio.to_thread(serve.delete, APPLICATION))
    for step in steps:
        try:
            await asyncio.wait_for(step, _STOP_LIMIT_S / len(steps))
        except Exception as error:  # noqa: BLE001  (what goes wrong here must not hide why everything ends)
            print(f"no answer when asked to stop ({type(error).__name__})", file=sys.stderr)


def _start_ray(address: str, scratch: Path) -> tuple[str, Node | None]:
    """Start a Ray of our own, or join the one at `address`; its address, and the node if it is ours."""
    if address != "local":
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        return str(ray.get_runtime_context().gcs_address), None
    try:
        node = _start_node(scratch)
    except Exception as error:  # noqa: BLE001  (Ray raises no narrower one)
        # Ray gives its processes 30 s, which a machine that is short of memory or of its disk may exceed.
        print(f"Ray did not start, and is started once more: {error}", file=sys.stderr)
        own = processes.current()
        processes.end(lambda: processes.family([own]), grace_s=0)
        node = _start_node(scratch)
    ray.init(address=node.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    return str(node.address), node


def _start_node(scratch: Path) -> Node:
    # `ray.init(address="local")` does the same, plus a log monitor and an autoscaler: 95 MiB for nothing.
    node = Node(
        RayParams(
            node_ip_address="127.0.0.1",
            temp_dir=str(scratch / "ray"),  # Ray opens it to every user; what is around it stays ours alone.
            include_dashboard=False,
            include_log_monitor=False,  # pyright: ignore[reportArgumentType]  (Ray annotates a flag as str)
            no_monitor=True,
            dashboard_agent_listen_port=0,
            object_store_memory=_OBJECT_STORE_BYTES,
        ),
        head=True,
        shutdown_at_exit=False,
        spawn_reaper=False,
        ray_init_cluster=True,
    )
    # Without a dashboard Ray starts this process all the same, for statistics of use, which are off: 73 MiB.
    node.kill_dashboard()
    return node


def _serve_port() -> int | None:
    """Where the Serve listens that runs on this Ray already, if one does."""
    running = _get_global_client(raise_if_no_controller_running=False)
    return None if running is None else int(running.http_config.port)


def _start_serve(settings: Settings) -> None:
    # With our HAProxy, replicas listen on loopback only; its wrapper puts in the host that was asked for.
    host = "127.0.0.1" if haproxy.wrapped(os.environ) else settings.host
    serve.start(http_options={"host": host, "port": settings.port})


def _load(import_path: str) -> Application:
    module_name, _, name = import_path.partition(":")
    try:
        module = importlib.import_module(module_name)
        return Application(getattr(module, name), getattr(module, "cluster_config", None))
    except (ImportError, AttributeError, ValueError) as reason:
        raise CannotStart(
            f"--app {import_path} cannot be imported ({reason}): name it as module:function"
        ) from None


def _wait_ready(http_url: str) -> None:
    """Return when `GET /readyz` answers 200.  Raises `StartFailed` with its last answer."""
    deadline = time.monotonic() + _READY_LIMIT_S
    answer = "nothing"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{http_url}/readyz", timeout=2) as response:
                if response.status == 200:
                    return
        except urllib.error.HTTPError as error:
            answer = f"{error.code} {error.read(300).decode(errors='replace')}"
        except OSError as error:
            answer = str(error)
        time.sleep(0.05)
    raise StartFailed(f"{http_url}/readyz did not become ready in {_READY_LIMIT_S:.0f} s; it said: {answer}")


def _listen(loop: asyncio.AbstractEventLoop, run: asyncio.Future[None], reload: asyncio.Event) -> None:
    """Take the supervisor's words until `stop`; the end of input instead means that it died."""
    for line in sys.stdin.buffer:
        if line.strip() == b"reload":
            loop.call_soon_threadsafe(reload.set)
        if line.strip() == b"stop":
            loop.call_soon_threadsafe(run.cancel)
            return
    own = processes.current()
    processes.end(lambda: processes.family([own]), grace_s=0)
    os._exit(1)


if __name__ == "__main__":
    main()

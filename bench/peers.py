"""Peers: other servers of the Responses API, pinned, each in an environment of its own.

`python -m bench.peers` makes these environments in `bench/envs`; `installed` starts those that are there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.processes import child
from bench.systems import BIN, System
from serve_app.launch.ports import free_port

ENVS: Final = Path(__file__).parent / "envs"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a peer is started: its arguments and further environment variables."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: how it is installed, started and asked."""

    title: str
    program: str
    """Its program, after which its environment is named."""
    package: str
    version: str
    launch: Callable[[str, int, Path], Launch]
    """The upstream's base URL, the port to listen on and a folder for all it writes, to how it is started."""
    ready: str
    """The path that answers 200 once it is up."""
    model: str
    """What its model names begin with."""
    python: str = sys.executable
    """The interpreter that it needs."""

    @property
    def path(self) -> Path:
        """Where its program is, once it is installed."""
        return ENVS / self.program / "bin" / self.program


def _litellm(upstream_url: str, port: int, folder: Path) -> Launch:
    config = folder / "config.json"
    upstream = {"model": "openai/*", "api_base": upstream_url, "api_key": "none"}
    config.write_text(json.dumps({"model_list": [{"model_name": "*", "litellm_params": upstream}]}))
    return Launch(
        ("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        {
            # It is alone with the bench; else it asks for a key of its own.
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            # Else it downloads a list of prices.
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        },
    )


def _ogx(upstream_url: str, port: int, folder: Path) -> Launch:
    config = folder / "config.json"
    config.write_text(json.dumps(_ogx_config(upstream_url, port, folder)))
    # Without `--insecure` it wants a certificate.
    return Launch(("run", str(config), "--insecure"), {"OGX_CONFIG_DIR": str(folder)})


def _ogx_config(upstream_url: str, port: int, folder: Path) -> dict[str, Any]:
    """Its starter distribution, less the tools and vector stores, which a plain text does not use."""
    upstream = {"base_url": upstream_url, "api_key": "none"}
    files = {"storage_dir": str(folder / "files"), "metadata_store": _table("files_metadata")}
    return {
        "version": 2,
        "distro_name": "bench",
        "apis": ["inference", "responses", "files", "file_processors", "tool_runtime", "vector_io"],
        "providers": {
            "inference": [{"provider_id": "bench", "provider_type": "remote::openai", "config": upstream}],
            "responses": [
                {
                    "provider_id": "builtin",
                    "provider_type": "inline::builtin",
                    "config": {"persistence": {"responses": _table("responses")}},
                }
            ],
            "files": [{"provider_id": "files", "provider_type": "inline::localfs", "config": files}],
            "file_processors": [],
            "tool_runtime": [],
            "vector_io": [],
        },
        "storage": {
            "backends": {
                "kv": {"type": "kv_sqlite", "db_path": str(folder / "kv.db")},
                "sql": {"type": "sql_sqlite", "db_path": str(folder / "sql.db")},
            },
            "stores": {
                "metadata": {"namespace": "registry", "backend": "kv"},
                "inference": _table("inference"),
                "conversations": _table("conversations"),
                "prompts": _table("prompts"),
                "connectors": _table("connectors"),
            },
        },
        "server": {"host": "127.0.0.1", "port": port},
    }


def _table(name: str) -> dict[str, str]:
    return {"table_name": name, "backend": "sql"}


def _agentic_api(upstream_url: str, port: int, folder: Path) -> Launch:
    upstream = upstream_url.removesuffix("/v1")
    return Launch(
        ("serve", "--vllm-base-url", upstream, "--host", "127.0.0.1", "--port", str(port)),
        {
            "AGENTIC_API_HOME": str(folder),
            "DATABASE_URL": f"sqlite://{folder}/responses.db",
            "OPENAI_API_KEY": "none",
            # It would wait for vLLM's `/health`.
            "SKIP_LLM_READY_CHECK": "true",
        },
    )


PEERS: Final = (
    # It streams only models of families that it knows by name.  For others it asks for the whole answer and
    # cuts that in deltas of five characters.  Later versions want what could not be had when this was pinned.
    Peer(
        title="LiteLLM proxy",
        program="litellm",
        package="litellm[proxy]",
        version="1.106.2",
        launch=_litellm,
        ready="/health/liveliness",
        model="gpt-5-fake",
    ),
    Peer(
        title="OGX",
        program="ogx",
        package="ogx",
        version="1.5.0",
        launch=_ogx,
        ready="/v1/health",
        model="bench/fake",
        python="python3.12",
    ),
    Peer(
        title="agentic-api",
        program="agentic-api",
        package="agentic-api",
        version="0.9.0",
        launch=_agentic_api,
        ready="/health",
        model="fake",
    ),
)


def installed(upstream_url: str, scratch: Path) -> Iterator[tuple[str, AbstractContextManager[System]]]:
    """The peers that are installed, by name, each ready to be started."""
    for peer in PEERS:
        if peer.path.exists():
            yield peer.program, started(peer, upstream_url, scratch)


@contextlib.contextmanager
def started(peer: Peer, upstream_url: str, scratch: Path) -> Iterator[System]:
    """A peer on a fresh folder, which asks the upstream."""
    port = free_port()
    folder = scratch / peer.program
    folder.mkdir()
    launch = peer.launch(upstream_url, port, folder)
    base = f"http://127.0.0.1:{port}"
    with child(
        [str(peer.path), *launch.arguments], f"{base}{peer.ready}", folder / "log", launch.environment
    ) as process:
        name = f"{peer.title} {peer.version}"
        yield System(name, f"{base}/v1/responses", process, peer.model, peer=True)


def main() -> None:
    """Install every peer whose interpreter is here."""
    for peer in PEERS:
        python = shutil.which(peer.python)
        # A version manager's program may be on PATH and have no interpreter behind it.
        if not python or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            print(f"{peer.title} is left out: it needs {peer.python}, and none on PATH runs.")
            continue
        print(f"Installing {peer.title} {peer.version} ...", flush=True)
        env = str(ENVS / peer.program)
        subprocess.run([python, "-m", "venv", "--clear", "--without-pip", env], check=True)
        pinned = f"{peer.package}=={peer.version}"
        subprocess.run([BIN / "uv", "pip", "install", "--quiet", "--python", env, pinned], check=True)


if __name__ == "__main__":
    main()

"""What an operator may set: one frozen record, read once, from one table.

A value comes from the command line option, else from the environment (`RAYSPOND_<NAME>`), else it is the
default below.  Nothing is read when a module is imported.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

from serve_app.launch.errors import CannotStart

Isolation = Literal["shared", "exclusive", "dedicated"]
PREFIX: Final = "RAYSPOND_"
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


def _text(text: str) -> str:
    return text


def _secret(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without spaces around it, so that it fits into a header")
    return text


def _directory(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return text

    return parse


def _whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if text.strip().lstrip("-").isdigit() else None
        if value is None or value < least or (most is not None and value > most):
            raise ValueError(f"must be a whole number from {least}" + (f" to {most}" if most else " up"))
        return value

    return parse


def _switch(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be on or off")


def _address(text: str) -> str:
    if text != "localhost":
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("must be an address such as 127.0.0.1 or 0.0.0.0") from None
    return text


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return parse


def _about(parse: Callable[[str], Any], explanation: str) -> dict[str, Any]:
    return {"parse": parse, "help": explanation}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one instance.  Picklable; URLs and keys that hold secrets are not in its `repr`."""

    host: str = field(default="127.0.0.1", metadata=_about(_address, "Address the API listens on."))
    port: int = field(default=8088, metadata=_about(_whole(0, 65535), "Port of the API; 0 takes a free one."))
    data_dir: Path = field(
        default=Path(".rayspond"),
        metadata=_about(_directory, "Directory of the log, keys and everything else that stays."),
    )
    config: Path | None = field(
        default=None, metadata=_about(_directory, "YAML file that names models and agents.")
    )
    address: str = field(
        default="local",
        metadata=_about(
            _text, "Ray to run on: local (one of its own), auto (the one on this machine), or its address."
        ),
    )
    nats_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(_url("nats", "tls"), "NATS server to use; an embedded one is started without."),
    )
    log_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            _url("sqlite", "postgresql"), "Database of the log; without, SQLite in the data directory."
        ),
    )
    isolation: Isolation = field(
        default="shared",
        metadata=_about(
            _choice("shared", "exclusive", "dedicated"),
            "Who shares a Ray actor: many responses (shared), one at a time (exclusive), or one and "
            "then none (dedicated).",
        ),
    )
    hosts: int = field(
        default=2, metadata=_about(_whole(1, 1024), "Warm actor hosts, one to spare among them.")
    )
    slots: int = field(default=256, metadata=_about(_whole(1, 4096), "Responses that one host runs at once."))
    replicas: int = field(default=2, metadata=_about(_whole(1, 256), "Replicas of the HTTP application."))
    upstream_url: str | None = field(
        default=None,
        repr=False,  # Whoever writes a password into it by mistake should not find it in a log.
        metadata=_about(
            _url("http", "https"), "Base URL of an OpenAI-compatible server whose models are offered."
        ),
    )
    upstream_key: str | None = field(default=None, repr=False, metadata=_about(_text, "Key for that server."))
    admin_key: str | None = field(
        default=None,
        repr=False,
        metadata=_about(_secret, "Key of operators; with it nobody is served without credentials."),
    )
    secret_key: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            _secret,
            "What API keys are hashed with and what clients keep for us is sealed with. Give all nodes the "
            "same, best from a secret store as RAYSPOND_SECRET_KEY; without, it is made and kept as "
            "secrets/secret-key in the data directory.",
        ),
    )
    body_limit_bytes: int = field(
        default=32 * 1024 * 1024, metadata=_about(_whole(1024), "Longest request body.")
    )
    item_limit_bytes: int = field(
        default=10 * 1024 * 1024, metadata=_about(_whole(1024), "Longest single input item.")
    )
    metadata_limit_bytes: int = field(
        default=16 * 1024, metadata=_about(_whole(0), "Longest metadata of a response.")
    )
    max_output_tokens: int = field(
        default=8000, metadata=_about(_whole(1), "Highest max_output_tokens a request may ask for.")
    )
    grace_s: int = field(
        default=30,
        metadata=_about(_whole(0, 86_400), "Seconds a foreground response goes on without its client."),
    )
    idempotency_ttl_s: int = field(
        default=24 * 3600, metadata=_about(_whole(1), "Seconds an Idempotency-Key is remembered.")
    )
    seal_after_s: int = field(
        default=3600,
        metadata=_about(_whole(0), "Seconds after its end at which a response's events are compressed."),
    )
    retention_days: int = field(
        default=0,
        metadata=_about(_whole(0), "Days after its end at which a response is erased; 0 keeps it."),
    )
    client_stall_s: int = field(
        default=30,
        # Below the keep-alives' pace a stream with nothing to say would look like a client that stalls.
        metadata=_about(_whole(20), "Seconds a client may take nothing of its answer before it is cut."),
    )
    jetstream_duplicate_window_s: int = field(
        default=10, metadata=_about(_whole(1), "Seconds in which JetStream drops repeated messages.")
    )
    jetstream_max_age_s: int = field(
        default=24 * 3600, metadata=_about(_whole(1), "Seconds JetStream keeps public events.")
    )
    jetstream_max_bytes: int = field(
        default=1 << 30, metadata=_about(_whole(1024 * 1024), "Bytes of public events JetStream keeps.")
    )
    jetstream_deltas: bool = field(
        default=False, metadata=_about(_switch, "Whether JetStream keeps deltas, too (on or off).")
    )
    log_level: str = field(
        default="info",
        metadata=_about(_choice("debug", "info", "warning", "error"), "Least severity that is logged."),
    )
    app: str = field(
        default="serve_app.app:build",
        metadata=_about(_text, "Import path of a function that makes the Serve application from these."),
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: how a setting is given, and what it means."""

    name: str
    explanation: str
    default: Any
    parse: Callable[[str], Any]
    secret: bool

    @property
    def flag(self) -> str:
        """The command line option, such as `--data-dir`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable, such as `RAYSPOND_DATA_DIR`."""
        return PREFIX + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default as `--help` shows it."""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return "none" if self.default is None else str(self.default)


def options() -> Iterator[Option]:
    """The table of all settings, in the order in which `--help` shows them."""
    for each in fields(Settings):
        assert each.default is not MISSING
        about = each.metadata
        yield Option(each.name, about["help"], each.default, about["parse"], secret=not each.repr)


def read(given: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """The settings that `given` (option name to text, or nothing) and `environ` ask for.

    An empty environment variable counts as not set.  Raises `CannotStart`, naming the option or the variable.
    """
    values: dict[str, Any] = {}
    for option in options():
        text, source = given.get(option.name), option.flag
        if text is None:
            text, source = environ.get(option.variable) or None, option.variable
        if text is not None:
            try:
                values[option.name] = option.parse(text)
            except ValueError as reason:
                shown = "" if option.secret else f", not {text!r}"
                raise CannotStart(f"{source} {reason}{shown}") from None
    values.setdefault("data_dir", _directory(".rayspond"))
    settings = Settings(**values)
    if settings.admin_key is None and not is_loopback(settings.host):
        raise CannotStart(
            f"--host must be a loopback address such as 127.0.0.1, not {settings.host!r}, because without "
            "credentials only this machine is served: set RAYSPOND_ADMIN_KEY, or put a reverse proxy that "
            "authenticates in front"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether a valid `host` is reached from this machine only."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback

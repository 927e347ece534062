"""The models and agents that may be asked for, and how each is reached.

It holds no key, so all of it may be shown.
`runtime.config` reads a catalog from a file and the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import orjson

from runtime.models.simulated_script import NAME as SIMULATED
from runtime.models.simulated_script import is_simulated, parse

JSON = Any
Adapter = Literal["openai_chat", "openai_responses", "simulated"]
Resume = Literal["prefix", "prompt", "repeat", "fail"]
Isolation = Literal["shared", "exclusive", "dedicated"]
Continues = Literal["vllm", "sglang", "tgi", "llama.cpp"]
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may take, in seconds."""

    connect: float = 10
    first_byte: float = 120
    """From the request to the first byte of its answer, the connection included."""
    idle: float = 60
    """Between two bytes of an answer."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How an upstream's Chat Completions differ from the plainest."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    developer_role: bool = False
    """Whether it knows the role `developer`; it gets `system` otherwise."""
    stream_usage: bool = True
    """Whether `stream_options.include_usage` may be sent."""
    structured_output: bool = True
    """Whether it sees to it that answers fit `response_format`; they are checked here where it does not."""
    reasoning_field: str | None = None
    """The field of an assistant's message that takes earlier reasoning back; left out when not given."""
    continues: Continues | None = None
    """As which server it is asked to continue half a message; as vLLM, when not given."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server of models, and how to speak to it."""

    name: str
    adapter: Adapter
    url: str = ""
    """The API's base, up to and with `/v1`."""
    key_env: str | None = None
    """The environment variable that holds the key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers; no secret."""
    headers_env: Mapping[str, str] = field(default_factory=dict)
    """Further headers whose values are secret: header to environment variable."""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """Further fields of every request body, such as `stop` or a server's own."""
    timeouts: Timeouts = Timeouts()
    max_retries: int = 2
    """How often a call that failed before it said anything may be tried again."""
    chat: ChatOptions = ChatOptions()

    def secret_names(self) -> frozenset[str]:
        """The environment variables it needs."""
        named = {self.key_env} if self.key_env else set()
        return frozenset(named | set(self.headers_env.values()))


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a response must stop, whatever its request says; nothing means no limit of its own."""

    max_output_tokens: int | None = None
    max_model_calls: int | None = None
    max_tool_calls: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model id, or `*` for every other one."""

    id: str
    upstream: Upstream
    model: str | None = None
    """The upstream's own name of it; the id, when not given."""
    resume: Resume = "prompt"
    isolation: Isolation | None = None
    ray_options: Mapping[str, JSON] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """A model with instructions, tools and limits of its own, addressed like a model."""

    id: str
    model: str
    instructions: str | None = None
    tools: Sequence[Mapping[str, JSON]] = ()
    description: str | None = None
    resume: Resume | None = None
    isolation: Isolation | None = None
    ray_options: Mapping[str, JSON] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Resolved:
    """All that a response needs to know of the model or agent it was created with.

    `public()` is what gets recorded; `from_public` reads it back, and with the environment's keys the model
    can be opened again, also after the file has changed.
    """

    id: str
    """As the request names it."""
    upstream: Upstream
    model: str
    """The upstream's own name of the model."""
    agent: str | None = None
    instructions: str | None = None
    tools: Sequence[Mapping[str, JSON]] = ()
    resume: Resume = "prompt"
    isolation: Isolation | None = None
    ray_options: Mapping[str, JSON] = field(default_factory=dict)
    limits: Limits = Limits()

    @property
    def continues(self) -> bool:
        """Whether its adapter can ask for the rest of half a message."""
        return self.upstream.adapter != "openai_responses"

    def public(self) -> dict[str, JSON]:
        """Everything as JSON.  Secrets are in it by the names of their environment variables only."""
        return {**asdict(self), "tools": [dict(tool) for tool in self.tools]}

    @staticmethod
    def from_public(recorded: Mapping[str, JSON]) -> Resolved:
        """What `public` recorded.  Fields it does not know are left out, missing ones get defaults."""
        return _from_json(orjson.dumps(recorded))


@lru_cache(maxsize=1024)
def _from_json(text: bytes) -> Resolved:
    """Read once for all responses of a model: reading costs more than a short answer's own events."""
    recorded = orjson.loads(text)
    upstream = _known(Upstream, recorded["upstream"])
    upstream["timeouts"] = Timeouts(**_known(Timeouts, upstream.get("timeouts", _NONE)))
    upstream["chat"] = ChatOptions(**_known(ChatOptions, upstream.get("chat", _NONE)))
    given = _known(Resolved, recorded)
    given["upstream"] = Upstream(**upstream)
    given["tools"] = tuple(given.get("tools", ()))
    given["limits"] = Limits(**_known(Limits, given.get("limits", _NONE)))
    return Resolved(**given)


def shared(recorded: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """What `public` recorded, as one object for all responses that were created with the same.

    Each order brings its own, 4 KiB and all of an agent's instructions and tools, and a response holds it to
    its end.
    """
    return _shared(orjson.dumps(recorded))


@lru_cache(maxsize=1024)
def _shared(text: bytes) -> Mapping[str, JSON]:
    recorded: dict[str, JSON] = orjson.loads(text)
    return recorded


class UnknownModel(Exception):
    """No model or agent has this id, or its parameters cannot be read.  The text is for the client."""

    def __init__(self, model: str, message: str) -> None:
        super().__init__(model, message)
        self.model = model
        self.message = message

    def __str__(self) -> str:
        return self.message


SIMULATED_UPSTREAM = Upstream(name=SIMULATED, adapter="simulated")
SIMULATED_MODEL = ModelConfig(id=SIMULATED, upstream=SIMULATED_UPSTREAM, resume="repeat")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model and agent by id.  `simulated` is always there."""

    models: Mapping[str, ModelConfig] = field(default_factory=dict)
    agents: Mapping[str, AgentConfig] = field(default_factory=dict)
    wildcard: ModelConfig | None = None
    """Reached by every id that nothing else has."""

    @property
    def configured(self) -> bool:
        """Whether anybody named a model; else it is worth looking for local servers."""
        return bool(self.models or self.agents or self.wildcard)

    def ids(self) -> tuple[str, ...]:
        """The ids that it names itself: agents, models, `simulated`."""
        return tuple(dict.fromkeys([*self.agents, *self.models, SIMULATED]))

    def upstreams(self) -> tuple[Upstream, ...]:
        """Every upstream that a model of it uses, once."""
        configs = [*self.models.values(), *([self.wildcard] if self.wildcard else [])]
        return tuple({config.upstream.name: config.upstream for config in configs}.values())

    def secret_names(self) -> frozenset[str]:
        """The environment variables that a process must have to open its models."""
        return frozenset().union(*(upstream.secret_names() for upstream in self.upstreams()))

    def resolve(self, model: str) -> Resolved:
        """What `model` means here.  Raises `UnknownModel`."""
        agent = self.agents.get(model)
        if agent is None:
            return self._model(model)
        base = self._model(agent.model)
        return replace(
            base,
            id=agent.id,
            agent=agent.id,
            instructions=agent.instructions,
            tools=agent.tools,
            resume=agent.resume or base.resume,
            isolation=agent.isolation or base.isolation,
            ray_options={**base.ray_options, **agent.ray_options},
            limits=_tighter(agent.limits, base.limits),
        )

    def with_found(self, found: Mapping[str, Upstream]) -> Catalog:
        """Also these models, by id; what is there already stays."""
        models = {
            model: ModelConfig(model, upstream, resume="prefix" if upstream.chat.continues else "prompt")
            for model, upstream in found.items()
        }
        return replace(self, models={**models, **self.models})

    def _model(self, model: str) -> Resolved:
        config = self.models.get(model) or (SIMULATED_MODEL if is_simulated(model) else self.wildcard)
        if config is None or not model:
            known = self.ids()
            more = f" and {len(known) - 10} more" if len(known) > 10 else ""
            raise UnknownModel(
                model, f"The model {model!r} does not exist here. There are: {', '.join(known[:10])}{more}."
            )
        name = config.model or model
        if config.upstream.adapter == "simulated":
            try:
                parse(name)
            except ValueError as reason:
                raise UnknownModel(model, str(reason)) from None
        return Resolved(
            id=model,
            upstream=config.upstream,
            model=name,
            resume=config.resume,
            isolation=config.isolation,
            ray_options=config.ray_options,
            limits=config.limits,
        )


def _known(kind: type[Any], recorded: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in recorded.items() if name in {one.name for one in fields(kind)}}


def _tighter(one: Limits, other: Limits) -> Limits:
    """Of both limits the tighter ones."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in (f.name for f in fields(Limits))}
    return Limits(
        **{name: min((v for v in pair if v is not None), default=None) for name, pair in pairs.items()}
    )

"""Reads the YAML file of models and agents into a `Catalog`.  docs/models.md is its reference.

`parse` is pure: a text and an environment in, a catalog out; an error names the file, the key's path and the
remedy.
Keys stay in the environment: the file and the catalog hold the names of their variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import yaml

from runtime.catalog import (
    SIMULATED_UPSTREAM,
    AgentConfig,
    Catalog,
    ChatOptions,
    Limits,
    ModelConfig,
    Resolved,
    Resume,
    Timeouts,
    UnknownModel,
    Upstream,
)
from runtime.config_node import ConfigError, Node
from runtime.models.simulated_script import is_simulated
from runtime.python_tool import open_tool
from runtime.tool import TIMEOUT_S, ToolError, is_run_here

__all__ = [
    "AgentConfig",
    "Catalog",
    "ChatOptions",
    "ConfigError",
    "Limits",
    "ModelConfig",
    "Resolved",
    "Timeouts",
    "UnknownModel",
    "Upstream",
    "load",
    "parse",
]

URL_ENV = "RAYSPOND_UPSTREAM_URL"
KEY_ENV = "RAYSPOND_UPSTREAM_KEY"
ADAPTERS = ("openai_chat", "openai_responses", "simulated")
RESUMES = ("prefix", "prompt", "repeat", "fail")
CONTINUES = ("vllm", "sglang", "tgi", "llama.cpp")
ISOLATIONS = ("shared", "exclusive", "dedicated")
# Names under which keys usually travel: a value here would be shown and recorded.
SECRET_NAMES = ("authorization", "api-key", "apikey", "api_key", "x-api-key", "key", "token", "cookie", "sig")
# Everything that a response's actor may ask of Ray; `env_vars` may hold secrets and would be recorded.
RAY_OPTIONS = ("num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "runtime_env")


def load(path: str | Path | None, env: Mapping[str, str]) -> Catalog:
    """The catalog of the file at `path`, or of the environment alone; its tools can be imported.

    Raises `ConfigError`.
    """
    if path is None:
        return parse("", "the environment", env)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as reason:
        raise ConfigError(str(path), "", f"cannot be read: {reason.strerror}. Check --config.") from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "is not UTF-8. Save it as UTF-8.") from None
    catalog = parse(text, str(path), env)
    _check_tools(catalog, str(path))
    return catalog


def _check_tools(catalog: Catalog, source: str) -> None:
    """Import what agents run.  Raises `ConfigError`."""
    for agent in catalog.agents.values():
        for number, tool in enumerate(agent.tools):
            try:
                if is_run_here(tool):
                    open_tool(tool)
            except ToolError as reason:
                place = f"`agents.{agent.id}.tools[{number}].python`"
                raise ConfigError(source, place, f"{reason}. Is it on PYTHONPATH?") from None


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See `yaml.SafeLoader`."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value!r} stands there twice, remove one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str, source: str, env: Mapping[str, str]) -> Catalog:
    """The catalog that `text` (YAML) and `env` describe; errors name `source`.  Raises `ConfigError`."""
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as reason:
        mark = getattr(reason, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(source, "", f"is no YAML{where}: {getattr(reason, 'problem', reason)}.") from None
    root = Node({} if document is None else document, source).mapping("upstreams", "models", "agents")
    upstreams = _upstreams(root.get("upstreams"), env)
    shortcut = _from_environment(env)
    if shortcut:
        upstreams.setdefault(shortcut.name, shortcut)
    models = {node.key: _model(node, upstreams) for node in _entries(root.get("models"))}
    wildcard = models.pop("*", None) or (ModelConfig("*", shortcut) if shortcut else None)
    catalog = Catalog(models=models, wildcard=wildcard)
    agents = [_agent(node, catalog) for node in _entries(root.get("agents"))]
    return replace(catalog, agents={agent.id: agent for agent in agents})


def _entries(node: Node | None) -> Sequence[Node]:
    return node.entries() if node else ()


def _from_environment(env: Mapping[str, str]) -> Upstream | None:
    """The upstream that the two variables name, through which any model id goes."""
    url = env.get(URL_ENV, "").strip()
    if not url:
        return None
    _check_url(Node(url, "the environment", URL_ENV))
    key_env = KEY_ENV if env.get(KEY_ENV) else None
    return Upstream("default", "openai_chat", url.rstrip("/"), key_env, chat=_chat(None, url))


def _upstreams(node: Node | None, env: Mapping[str, str]) -> dict[str, Upstream]:
    upstreams = {SIMULATED_UPSTREAM.name: SIMULATED_UPSTREAM}
    for entry in _entries(node):
        if entry.key in upstreams:
            entry.fail("is built in. Choose another name for your upstream.")
        upstreams[entry.key] = _upstream(entry, env)
    return upstreams


def _upstream(node: Node, env: Mapping[str, str]) -> Upstream:
    fields = node.mapping(
        "adapter", "url", "key_env", "headers", "headers_env", "extra", "timeouts", "max_retries", "chat"
    )
    adapter = fields["adapter"].choice(*ADAPTERS) if "adapter" in fields else "openai_chat"
    if adapter == "simulated":
        return replace(SIMULATED_UPSTREAM, name=node.key)
    if "url" not in fields:
        node.fail("has no `url`. Give the base of its API, such as http://127.0.0.1:8000/v1.")
    key_env = fields["key_env"].text() if "key_env" in fields else None
    headers_env = fields["headers_env"].texts() if "headers_env" in fields else {}
    if key_env is not None:
        _check_variable(fields["key_env"], key_env, env)
    for name, variable in headers_env.items():
        _check_variable(fields["headers_env"].child(name), variable, env)
    return Upstream(
        name=node.key,
        adapter=adapter,  # type: ignore[arg-type]  # `choice` has checked it against ADAPTERS
        url=_check_url(fields["url"]),
        key_env=key_env,
        headers=_headers(fields.get("headers")),
        headers_env=headers_env,
        extra=fields["extra"].json_object() if "extra" in fields else {},
        timeouts=_timeouts(fields.get("timeouts")),
        max_retries=fields["max_retries"].whole(0, 10) if "max_retries" in fields else 2,
        chat=_chat(fields.get("chat"), str(fields["url"].value)),
    )


def _check_url(node: Node) -> str:
    """A base URL without secrets in it."""
    url = node.text().rstrip("/")
    parts = _split(url)
    if parts is None:
        node.fail("is no http(s) URL. Give the base of the API, such as http://127.0.0.1:8000/v1.")
    if parts.username is not None or parts.password is not None:
        node.fail("holds a user name or password. Put the key into an environment variable and name it.")
    if any(name.lower() in SECRET_NAMES for name, _ in parse_qsl(parts.query)):
        node.fail(
            "holds a key. Put it into an environment variable and name it in `key_env` or `headers_env`."
        )
    return url


def _split(url: str) -> SplitResult | None:
    """The parts of an http(s) URL with a host; nothing where it is none."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 else None
    except ValueError:
        return None


def _check_variable(node: Node, variable: str, env: Mapping[str, str]) -> None:
    if not variable.replace("_", "a").isalnum():
        # What is no variable's name is most likely the key itself: it is not repeated.
        node.fail("must be the name of an environment variable, not the key itself.")
    if not env.get(variable):
        node.fail(f"names {variable}, which is not set. Set it in the environment, or remove this line.")


def _headers(node: Node | None) -> dict[str, str]:
    headers = node.texts() if node else {}
    for name in headers:
        if node and name.lower() in SECRET_NAMES:
            node.child(name).fail("is secret. Name its environment variable under `headers_env` instead.")
    return headers


def _timeouts(node: Node | None) -> Timeouts:
    fields = node.mapping("connect", "first_byte", "idle") if node else {}
    return Timeouts(**{name: field.number(0.001, 86_400) for name, field in fields.items()})


def _chat(node: Node | None, url: str) -> ChatOptions:
    known = (
        *("max_tokens_field", "developer_role", "stream_usage", "structured_output"),
        *("reasoning_field", "continues"),
    )
    fields = node.mapping(*known) if node else {}
    # OpenAI's newer models refuse the field that every other server knows.
    openai = (urlsplit(url).hostname or "").endswith((".openai.com", ".openai.azure.com"))
    options = ChatOptions(
        max_tokens_field="max_completion_tokens" if openai else "max_tokens", developer_role=openai
    )
    if "max_tokens_field" in fields:
        name = fields["max_tokens_field"].choice("max_tokens", "max_completion_tokens")
        options = replace(options, max_tokens_field=name)  # type: ignore[arg-type]  # `choice` has checked it
    if "developer_role" in fields:
        options = replace(options, developer_role=fields["developer_role"].boolean())
    if "stream_usage" in fields:
        options = replace(options, stream_usage=fields["stream_usage"].boolean())
    if "structured_output" in fields:
        options = replace(options, structured_output=fields["structured_output"].boolean())
    if "reasoning_field" in fields:
        options = replace(options, reasoning_field=fields["reasoning_field"].text())
    if "continues" in fields:
        server = fields["continues"].choice(*CONTINUES)
        options = replace(options, continues=server)  # type: ignore[arg-type]  # `choice` has checked it
    return options


def _model(node: Node, upstreams: Mapping[str, Upstream]) -> ModelConfig:
    fields = node.mapping("upstream", "model", "resume", "isolation", "ray_options", "limits")
    if is_simulated(node.key):
        node.fail("is built in. Choose another id for your model.")
    if "upstream" not in fields:
        node.fail(f"has no `upstream`. Name one of: {', '.join(upstreams)}.")
    upstream = upstreams[fields["upstream"].choice(*upstreams)]
    if upstream.adapter == "simulated" and "model" not in fields:
        fields["model"] = Node(SIMULATED_UPSTREAM.name, node.source, node.path)
    model = fields["model"].text() if "model" in fields else None
    if model is not None and node.key == "*" and upstream.adapter != "simulated":
        fields["model"].fail("has no meaning for `*`, which passes every id on as it is. Remove it.")
    config = ModelConfig(
        id=node.key,
        upstream=upstream,
        model=model,
        resume=_resume(fields.get("resume"), upstream) or _default_resume(upstream),
        isolation=_isolation(fields),
        ray_options=_ray_options(fields.get("ray_options")),
        limits=_limits(fields.get("limits")),
    )
    _check_resolves(Catalog(models={config.id: config}), config.id, fields.get("model", node))
    return config


def _agent(node: Node, catalog: Catalog) -> AgentConfig:
    fields = node.mapping(
        "model", "instructions", "tools", "description", "resume", "isolation", "ray_options", "limits"
    )
    if is_simulated(node.key) or node.key in catalog.models or node.key == "*":
        node.fail("is the id of a model already. Choose another id for your agent.")
    if "model" not in fields:
        node.fail("has no `model`. Name the model that it thinks with.")
    model = fields["model"].text()
    _check_resolves(catalog, model, fields["model"])
    return AgentConfig(
        id=node.key,
        model=model,
        instructions=fields["instructions"].text() if "instructions" in fields else None,
        description=fields["description"].text() if "description" in fields else None,
        tools=_tools(fields.get("tools")),
        resume=_resume(fields.get("resume"), catalog.resolve(model).upstream),
        isolation=_isolation(fields),
        ray_options=_ray_options(fields.get("ray_options")),
        limits=_limits(fields.get("limits")),
    )


def _check_resolves(catalog: Catalog, model: str, node: Node) -> None:
    try:
        catalog.resolve(model)
    except UnknownModel as reason:
        node.fail(f"cannot be served. {reason}")


def _resume(node: Node | None, upstream: Upstream) -> Resume | None:
    if node is None:
        return None
    resume = node.choice(*RESUMES)
    if resume == "prefix" and upstream.adapter == "openai_responses":
        node.fail("is not possible over Responses, which cannot continue half a message. Choose prompt.")
    return resume  # type: ignore[return-value]  # `choice` has checked it


def _default_resume(upstream: Upstream) -> Resume:
    if upstream.adapter == "simulated":
        return "repeat"
    return "prefix" if upstream.chat.continues else "prompt"


def _isolation(fields: Mapping[str, Node]) -> Any:
    return fields["isolation"].choice(*ISOLATIONS) if "isolation" in fields else None


def _ray_options(node: Node | None) -> dict[str, Any]:
    if node is None:
        return {}
    fields = node.mapping(*RAY_OPTIONS)
    for name in ("num_cpus", "num_gpus", "memory"):
        if name in fields:
            fields[name].number(0, 2**50)
    runtime_env = fields.get("runtime_env")
    if runtime_env is not None and "env_vars" in runtime_env.json_object():
        runtime_env.child("env_vars").fail(
            "would be recorded in the log, secrets and all. Set them where Ray starts instead."
        )
    return node.json_object()


def _limits(node: Node | None) -> Limits:
    fields = node.mapping("max_output_tokens", "max_model_calls", "max_tool_calls", "seconds") if node else {}
    wholes = {name: field.whole(1, 2**31) for name, field in fields.items() if name != "seconds"}
    seconds = fields["seconds"].number(0.001, 10**8) if "seconds" in fields else None
    return Limits(seconds=seconds, **wholes)


def _tools(node: Node | None) -> tuple[Mapping[str, Any], ...]:
    tools = [_tool(tool) for tool in (node.items() if node else ())]
    names = [tool["name"] for tool in tools]
    if node is not None and len(set(names)) < len(names):
        node.fail("has two tools of one name. Rename one.")
    return tuple(tools)


def _tool(node: Node) -> Mapping[str, Any]:
    tool = node.json_object()
    if "python" in tool:
        return _python_tool(node)
    if tool.get("type") != "function" or not isinstance(tool.get("name"), str):
        node.fail(
            "must be a function tool: {type: function, name: ..., parameters: {...}}; one that this server "
            "runs has `python: package.module:function`."
        )
    return tool


def _python_tool(node: Node) -> Mapping[str, Any]:
    """A tool that this server runs: as the model is told of it, and how it is run."""
    fields = node.mapping(
        "python", "type", "name", "description", "parameters", "strict", "idempotent", "timeout"
    )
    path = fields["python"].text()
    if re.fullmatch(r"[\w.]+:[\w.]+", path) is None:
        fields["python"].fail("is no import path. Write package.module:function.")
    if "type" in fields:
        fields["type"].choice("function")
    name = fields["name"].text() if "name" in fields else path.rpartition(":")[2].rpartition(".")[2]
    if re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) is None:
        node.fail("needs a `name` of 1 to 64 letters, digits, _ and -.")
    parameters = {"type": "object", "properties": {}}
    return {
        "type": "function",
        "name": name,
        "description": fields["description"].text() if "description" in fields else None,
        "parameters": fields["parameters"].json_object() if "parameters" in fields else parameters,
        "strict": fields["strict"].boolean() if "strict" in fields else None,
        "python": path,
        "idempotent": fields["idempotent"].boolean() if "idempotent" in fields else False,
        "timeout": fields["timeout"].number(0.001, 86_400) if "timeout" in fields else TIMEOUT_S,
    }

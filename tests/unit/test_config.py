"""The YAML file of models and agents, the environment's shortcut, and what gets recorded of them."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from runtime.config import (
    AgentConfig,
    Catalog,
    ChatOptions,
    ConfigError,
    Limits,
    ModelConfig,
    Resolved,
    Timeouts,
    UnknownModel,
    Upstream,
    load,
    parse,
)
from runtime.model import ModelError
from runtime.models.open import ModelPool
from runtime.models.openai_responses import OpenAIResponsesModel
from runtime.models.simulated_script import FAILURES, READERS
from tests.fakes.upstream import FakeUpstream

ENV = {"OPENAI_API_KEY": "sk-very-secret", "GATEWAY_TOKEN": "token-very-secret"}
EXAMPLE = """
upstreams:
  openai:
    adapter: openai_responses
    url: https://api.openai.com/v1
    key_env: OPENAI_API_KEY
    timeouts: {connect: 5, first_byte: 60, idle: 30}
    max_retries: 4
  local:
    url: http://127.0.0.1:8000/v1/
    headers: {X-Team: agents}
    headers_env: {X-Token: GATEWAY_TOKEN}
    extra: {top_k: 20}
    chat: {max_tokens_field: max_completion_tokens, reasoning_field: reasoning_content}
models:
  gpt: {upstream: openai, model: gpt-5, limits: {max_output_tokens: 2000, seconds: 60}}
  big:
    upstream: local
    resume: repeat
    isolation: dedicated
    ray_options: {num_gpus: 1, runtime_env: {pip: [numpy]}}
  demo: {upstream: simulated, model: "simulated?deltas=5"}
  "*": {upstream: local}
agents:
  weather:
    model: gpt
    instructions: Tell the weather.
    tools: [{type: function, name: get_weather, parameters: {type: object}}]
    isolation: exclusive
    limits: {max_output_tokens: 3000, max_model_calls: 8}
  toy: {model: "simulated?deltas=3"}
"""


def _catalog(text: str = EXAMPLE) -> Catalog:
    return parse(text, "models.yaml", ENV)


def test_a_model_has_its_upstream_name_and_settings() -> None:
    gpt = _catalog().resolve("gpt")
    assert (gpt.id, gpt.model, gpt.upstream.name, gpt.upstream.adapter) == (
        "gpt",
        "gpt-5",
        "openai",
        "openai_responses",
    )
    assert (gpt.upstream.timeouts.idle, gpt.upstream.max_retries, gpt.resume) == (30, 4, "prompt")
    big = _catalog().resolve("big")
    assert (big.model, big.resume, big.isolation) == ("big", "repeat", "dedicated")
    assert big.ray_options == {"num_gpus": 1, "runtime_env": {"pip": ["numpy"]}}
    assert big.upstream.adapter == "openai_chat"
    assert big.upstream.chat.reasoning_field == "reasoning_content"


def test_an_agent_is_a_model_with_more_to_it() -> None:
    agent = _catalog().resolve("weather")
    assert (agent.id, agent.agent, agent.model) == ("weather", "weather", "gpt-5")
    assert agent.instructions == "Tell the weather."
    assert [tool["name"] for tool in agent.tools] == ["get_weather"]
    assert agent.limits == Limits(max_output_tokens=2000, max_model_calls=8, seconds=60), (
        "the tighter ones hold"
    )
    assert agent.isolation == "exclusive"


def test_simulated_is_always_there_and_repeats() -> None:
    for catalog in (Catalog(), _catalog()):
        plain = catalog.resolve("simulated?deltas=3")
        assert (plain.model, plain.upstream.adapter, plain.resume) == (
            "simulated?deltas=3",
            "simulated",
            "repeat",
        )
    assert _catalog().resolve("demo").model == "simulated?deltas=5"
    assert _catalog().resolve("demo").resume == "repeat"
    assert _catalog().resolve("toy").resume == "repeat"


def test_a_tool_that_the_server_runs() -> None:
    text = """
        agents:
          clerk:
            model: simulated
            tools: [{python: "json:dumps", idempotent: true, timeout: 5}, {python: "a.b:C.d"}]
        """
    first, second = _catalog(text).resolve("clerk").tools
    assert first == {
        "type": "function",
        "name": "dumps",
        "description": None,
        "parameters": {"type": "object", "properties": {}},
        "strict": None,
        "python": "json:dumps",
        "idempotent": True,
        "timeout": 5,
    }
    assert (second["name"], second["idempotent"], second["timeout"]) == ("d", False, 60)


def test_a_tool_that_cannot_be_imported_is_found_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("agents: {a: {model: simulated, tools: [{python: 'no_such.module:f'}]}}")
    with pytest.raises(ConfigError) as wrong:
        load(file, ENV)
    assert "`agents.a.tools[0].python`" in str(wrong.value)
    assert "PYTHONPATH" in str(wrong.value)


def test_who_names_the_server_that_continues_means_it_to_continue() -> None:
    text = """
        upstreams: {here: {url: "http://h/v1", chat: {continues: sglang}}}
        models: {a: {upstream: here}, b: {upstream: here, resume: prompt}}
        """
    catalog = _catalog(text)
    assert [catalog.resolve(model).resume for model in "ab"] == ["prefix", "prompt"]
    assert catalog.resolve("a").upstream.chat.continues == "sglang"


def test_the_wildcard_passes_every_other_id_on() -> None:
    assert _catalog().resolve("org/some-model:7b").model == "org/some-model:7b"
    assert _catalog().resolve("org/some-model:7b").upstream.name == "local"


def test_an_unknown_id_is_answered_with_the_known_ones() -> None:
    catalog = replace(_catalog(), wildcard=None)
    with pytest.raises(UnknownModel, match=r"'nope'.*weather, toy, gpt, big, demo, simulated"):
        catalog.resolve("nope")
    with pytest.raises(UnknownModel, match="'bogus'"):
        catalog.resolve("simulated?bogus=1")
    with pytest.raises(UnknownModel):
        _catalog().resolve("")


def test_the_environment_alone_is_enough() -> None:
    env = {"RAYSPOND_UPSTREAM_URL": "http://127.0.0.1:9000/v1/", "RAYSPOND_UPSTREAM_KEY": "sk-very-secret"}
    catalog = load(None, env)
    resolved = catalog.resolve("anything")
    assert (resolved.model, resolved.upstream.url) == ("anything", "http://127.0.0.1:9000/v1")
    assert resolved.upstream.key_env == "RAYSPOND_UPSTREAM_KEY"
    assert catalog.configured
    assert catalog.secret_names() == {"RAYSPOND_UPSTREAM_KEY"}
    assert "sk-very-secret" not in repr(catalog)
    assert load(None, {"RAYSPOND_UPSTREAM_URL": "http://h/v1"}).resolve("x").upstream.key_env is None


def test_the_file_goes_before_the_environment() -> None:
    env = {**ENV, "RAYSPOND_UPSTREAM_URL": "http://127.0.0.1:9000/v1"}
    catalog = parse(EXAMPLE, "models.yaml", env)
    assert catalog.resolve("unnamed").upstream.name == "local"
    named = parse("models: {m: {upstream: default}}", "models.yaml", env)
    assert named.resolve("m").upstream.url == "http://127.0.0.1:9000/v1"


def test_nothing_configured_is_simulated_and_what_is_found() -> None:
    catalog = load(None, {})
    assert not catalog.configured
    assert catalog.ids() == ("simulated",)
    upstream = _catalog().resolve("big").upstream
    found = catalog.with_found({"llama": upstream})
    assert found.resolve("llama").upstream is upstream
    assert found.ids() == ("llama", "simulated")


def test_openai_itself_gets_what_only_it_knows() -> None:
    catalog = load(None, {"RAYSPOND_UPSTREAM_URL": "https://api.openai.com/v1"})
    chat = catalog.resolve("gpt-5").upstream.chat
    assert (chat.max_tokens_field, chat.developer_role) == ("max_completion_tokens", True)


@pytest.mark.parametrize("model", ["gpt", "big", "weather", "toy", "simulated", "x/y"])
def test_what_is_recorded_opens_the_model_again_and_holds_no_secret(model: str) -> None:
    resolved = _catalog().resolve(model)
    recorded = json.dumps(resolved.public())
    assert Resolved.from_public(json.loads(recorded)) == resolved
    assert "very-secret" not in recorded + repr(resolved)


def test_a_record_of_another_version_is_read() -> None:
    recorded = _catalog().resolve("gpt").public()
    recorded["later"] = 1
    recorded["upstream"]["later"] = 1
    del recorded["limits"], recorded["upstream"]["chat"]
    assert Resolved.from_public(recorded).upstream.url == "https://api.openai.com/v1"


def test_the_environment_is_asked_for_every_secret() -> None:
    assert _catalog().secret_names() == {"OPENAI_API_KEY", "GATEWAY_TOKEN"}


async def test_a_pool_opens_what_was_resolved_with_the_environments_keys(tmp_path: Path) -> None:
    async with FakeUpstream(key="sk-very-secret") as fake:
        path = tmp_path / "models.yaml"
        path.write_text(
            f"upstreams: {{up: {{url: '{fake.url}', key_env: OPENAI_API_KEY, adapter: openai_responses}}}}\n"
            "models: {'*': {upstream: up}, mine: {upstream: up, model: fake}}\n"
        )
        catalog = load(path, ENV)
        pool = ModelPool(ENV)
        try:
            model = pool.open(catalog.resolve("mine"))
            assert isinstance(model, OpenAIResponsesModel)
            assert pool.open(Resolved.from_public(catalog.resolve("mine").public())) is model
            assert await pool.ids(catalog) == ("mine", "simulated", "fake", "fake-large")
            await fake.stop()
            assert await pool.ids(catalog) == ("mine", "simulated"), (
                "an upstream that is away hides nothing else"
            )
            await fake.start()
        finally:
            await pool.aclose()
        with pytest.raises(ModelError, match="OPENAI_API_KEY"):
            ModelPool({}).open(catalog.resolve("mine"))


UP = "upstreams: {u: {url: 'http://h/v1'%s}}"


@pytest.mark.parametrize(
    ("text", "path", "remedy"),
    [
        ("[", "", "no YAML at line 1"),
        ("- 1", "", "mapping with some of: upstreams, models, agents"),
        ("model: {}", "`model`", "Known here: upstreams, models, agents"),
        ("models: []", "`models`", "mapping of names"),
        ("models: {1: {}}", "`models`", "quotes"),
        ("models: {m: {}}", "`models.m`", "Name one of: simulated"),
        ("models: {m: {upstream: nope}}", "`models.m.upstream`", "one of simulated"),
        ("models: {simulated: {upstream: simulated}}", "`models.simulated`", "built in"),
        (
            "models: {m: {upstream: simulated, model: 'simulated?x=1'}}",
            "`models.m.model`",
            "no parameter 'x'",
        ),
        (
            "upstreams: {r: {url: http://h/v1, adapter: openai_responses}}\n"
            "models: {m: {upstream: r, resume: prefix}}",
            "`models.m.resume`",
            "Choose prompt",
        ),
        (
            "agents: {a: {model: simulated, tools: [{python: os.system}]}}",
            "`agents.a.tools[0].python`",
            "import path",
        ),
        (
            "agents: {a: {model: simulated, tools: [{python: 'm:f', name: 'a b'}]}}",
            "`agents.a.tools[0]`",
            "`name`",
        ),
        (
            "agents: {a: {model: simulated, tools: [{python: 'm:f'}, {python: 'n:f'}]}}",
            "`agents.a.tools`",
            "Rename",
        ),
        (
            "agents: {a: {model: simulated, tools: [{python: 'm:f', idempotent: 1}]}}",
            "`agents.a.tools[0].idempotent`",
            "true or false",
        ),
        (
            "models: {m: {upstream: simulated, resume: maybe}}",
            "`models.m.resume`",
            "prefix, prompt, repeat, fail",
        ),
        ("models: {m: {upstream: simulated, isolation: 1}}", "`models.m.isolation`", "shared, exclusive"),
        ("models: {m: {upstream: simulated, limits: {seconds: x}}}", "`models.m.limits.seconds`", "number"),
        (
            "models: {m: {upstream: simulated, limits: {max_output_tokens: 0}}}",
            "`models.m.limits.max_output_tokens`",
            "from 1",
        ),
        (
            "models: {m: {upstream: simulated, ray_options: {runtime_env: {env_vars: {A: b}}}}}",
            "`models.m.ray_options.runtime_env.env_vars`",
            "where Ray starts",
        ),
        (
            "models: {m: {upstream: simulated, ray_options: {cpus: 1}}}",
            "`models.m.ray_options.cpus`",
            "num_cpus",
        ),
        ("upstreams: {u: {}}", "`upstreams.u`", "Give the base"),
        ("upstreams: {u: {url: nonsense}}", "`upstreams.u.url`", "http://127.0.0.1:8000/v1"),
        ("upstreams: {u: {url: 'http://h:99999/v1'}}", "`upstreams.u.url`", "http://127.0.0.1:8000/v1"),
        (
            "upstreams: {u: {url: 'http://a:sk-very-secret@h/v1'}}",
            "`upstreams.u.url`",
            "environment variable",
        ),
        ("upstreams: {u: {url: 'http://h/v1?key=sk-very-secret'}}", "`upstreams.u.url`", "key_env"),
        ("upstreams: {simulated: {url: 'http://h'}}", "`upstreams.simulated`", "Choose another name"),
        (UP % ", key_env: sk-very-secret", "`upstreams.u.key_env`", "not the key itself"),
        (UP % ", key_env: NOT_SET", "`upstreams.u.key_env`", "Set it in the environment"),
        (UP % ", headers_env: {A: NOT_SET}", "`upstreams.u.headers_env.A`", "Set it in the environment"),
        (UP % ", headers: {Authorization: x}", "`upstreams.u.headers.Authorization`", "headers_env"),
        (UP % ", timeouts: {idle: 0}", "`upstreams.u.timeouts.idle`", "from 0.001"),
        (UP % ", max_retries: -1", "`upstreams.u.max_retries`", "from 0 to 10"),
        (UP % ", extra: {a: 2026-01-01}", "`upstreams.u.extra`", "quotes"),
        (UP % ", chat: {developer_role: 1}", "`upstreams.u.chat.developer_role`", "true or false"),
        (UP % ", adapter: grpc", "`upstreams.u.adapter`", "openai_chat"),
        (UP % "" + "\nmodels: {'*': {upstream: u, model: m}}", "`models.*.model`", "Remove it"),
        ("agents: {a: {}}", "`agents.a`", "Name the model"),
        ("agents: {a: {model: nope}}", "`agents.a.model`", "There are: simulated"),
        ("agents: {a: {model: simulated, tools: [{type: mcp}]}}", "`agents.a.tools[0]`", "function tool"),
        (
            "models: {m: {upstream: simulated}}\nagents: {m: {model: simulated}}",
            "`agents.m`",
            "Choose another id",
        ),
    ],
)
def test_an_error_names_file_key_and_remedy_in_one_line(text: str, path: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _catalog(text)
    said = str(caught.value)
    assert said.startswith(f"models.yaml: {path}")
    assert remedy in said
    assert "\n" not in said
    assert "very-secret" not in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        load(tmp_path / "missing.yaml", {})
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "bad.yaml", {})


def test_a_bad_shortcut_is_named() -> None:
    with pytest.raises(ConfigError, match="the environment: `RAYSPOND_UPSTREAM_URL` is no http"):
        load(None, {"RAYSPOND_UPSTREAM_URL": "localhost:8000"})


def _reference() -> str:
    return (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_the_reference_is_a_file_that_can_be_read_and_names_every_setting() -> None:
    text = _reference().partition("```yaml\n")[2].partition("```")[0]
    catalog = _catalog(text)
    assert set(catalog.ids()) == {"weather", "gpt", "qwen", "demo", "simulated"}
    kinds = (Upstream, Timeouts, ChatOptions, Limits, ModelConfig, AgentConfig)
    settings = {one.name for kind in kinds for one in fields(kind)} - {"id", "name"}
    assert {name for name in settings if f"{name}:" not in text} == set()


def test_every_parameter_of_simulated_is_documented() -> None:
    assert {name for name in READERS if f"| `{name}=" not in _reference()} == set()
    assert {code for code in FAILURES if f"`{code}`" not in _reference()} == set()


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    text = "models:\n  a: {upstream: simulated}\n  b: {upstream: simulated}\n  a: {upstream: other}\n"
    with pytest.raises(ConfigError, match="at line 4: the key 'a' stands there twice"):
        parse(text, "models.yaml", {})

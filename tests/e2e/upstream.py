"""The fake upstream as a process of its own, and the models of the server under test that speak to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.launching import until

KEY = "sk-upstream-secret"
TOKEN = "token-of-the-gateway-secret"

MODELS = """
upstreams:
  chat:
    url: {url}
    key_env: E2E_UPSTREAM_KEY
    timeouts: {{connect: 2, first_byte: 3, idle: 2}}
  responses:
    adapter: openai_responses
    url: {url}
    key_env: E2E_UPSTREAM_KEY
  patient: {{url: "{url}", key_env: E2E_UPSTREAM_KEY}}
  locked: {{url: "{url}", key_env: E2E_WRONG_KEY, max_retries: 0}}
  leaky:
    url: {url}
    key_env: E2E_UPSTREAM_KEY
    headers_env: {{X-Gateway-Token: E2E_GATEWAY_TOKEN}}
    max_retries: 0
  continuing: {{url: "{url}", key_env: E2E_UPSTREAM_KEY, chat: {{continues: vllm}}}}
  nobody: {{url: "http://127.0.0.1:{closed_port}/v1", max_retries: 1}}
models:
  "*": {{upstream: chat}}
  repeats: {{upstream: patient, model: "fake?deltas={deltas}&interval_ms=50&key=repeats", resume: repeat}}
  goes-on: {{upstream: patient, model: "fake?deltas={deltas}&interval_ms=50&goes_on=1&key=goes-on"}}
  rewords: {{upstream: patient, model: "fake?deltas={deltas}&interval_ms=50&unique=1&key=rewords"}}
  continues:
    upstream: continuing
    model: "fake?deltas={deltas}&interval_ms=50&unique=1&continues=vllm&trims=1&key=continues"
  goes-on-anew:
    upstream: patient
    model: "fake?deltas={deltas}&interval_ms=50&unique=1&goes_on=1&key=anew"
  firehose: {{upstream: patient}}
  other-wire: {{upstream: responses, model: "fake?reasoning=3"}}
  other-wire-tools: {{upstream: responses, model: "fake?tools=2"}}
  locked: {{upstream: locked, model: fake}}
  leaky: {{upstream: leaky}}
  nobody: {{upstream: nobody}}
agents:
  clerk:
    model: goes-on
    instructions: You are a clerk.
  spends-once:
    model: fake?tools=1&arguments={{"purse":"once"}}&key=once
    tools: [{{python: "tests.e2e.spending:hold", name: hold, parameters: {{type: object}}}}]
  spends-again:
    model: fake?tools=1&arguments={{"purse":"again"}}&key=again
    tools: [{{python: "tests.e2e.spending:hold", name: hold, parameters: {{type: object}}, idempotent: true}}]
  counts:
    model: simulated
    tools:
      - python: tests.e2e.spending:length
        description: How long a text is.
        parameters: {{type: object, properties: {{text: {{const: abc}}}}, required: [text]}}
"""
PACED_DELTAS = 100
"""Deltas of the answers that take five seconds, so that faults come in the middle."""


class Upstream:
    """A fake upstream that runs until `stop`."""

    def __init__(self, log: Path) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.upstream", "--port", "0", "--key", KEY], stdout=output
            )
        self.url: str = until(lambda: log.read_text().strip(), "the fake upstream's address")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)

    def models(self, path: Path) -> Path:
        """Write the models' file that names it."""
        text = MODELS.format(url=self.url, deltas=PACED_DELTAS, closed_port=1)
        path.write_text(text)
        return path

    def seen(self) -> dict[str, Any]:
        """What was asked of it so far."""
        seen: dict[str, Any] = httpx.get(self.url.removesuffix("/v1") + "/_calls", timeout=10).json()
        return seen

    def tell(self, model: str, script: str) -> None:
        """Have it answer for a model as the script says."""
        answer = httpx.post(self.url.removesuffix("/v1") + "/_script", json={model: script}, timeout=60)
        assert answer.status_code == 200

    def calls(self, model: str) -> list[dict[str, Any]]:
        """The bodies of its calls for one model, of the last hundred calls."""
        return [call["body"] for call in self.seen()["calls"] if call["body"]["model"] == model]

    def count(self, model: str) -> int:
        """How often that model was asked."""
        return int(self.seen()["by_model"].get(model, 0))


def own(script: str = "") -> str:
    """A model of the fake that no other test uses, so that its calls can be told apart."""
    return f"fake?{script}{'&' if script else ''}key={uuid4().hex[:12]}"

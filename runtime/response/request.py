"""What a client asked for, validated and in one normal form.

The edge (`serve_app`) parses and validates; this is what is recorded and what everything else reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.model import JSON


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """A create request.  JSON fields hold plain values in the Responses API's shapes."""

    model: str
    """As the client wrote it; echoed."""
    input: tuple[Mapping[str, JSON], ...] = ()
    """Items, each with a `type`; message content is always a list of parts.  A string became one message."""
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool = False
    store: bool = True
    include: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    parallel_tool_calls: bool = True
    tools: tuple[Mapping[str, JSON], ...] = ()
    """Function tools with all of `type, name, description, parameters, strict`."""
    tool_choice: JSON = "auto"
    text: Mapping[str, JSON] = field(default_factory=lambda: {"format": {"type": "text"}})
    reasoning: Mapping[str, JSON] | None = None
    """`{"effort", "summary"}`, both keys, or None where the request named neither."""
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    truncation: str = "disabled"
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    conversation: str | None = None
    """The conversation that it goes on with, and adds to."""
    compact_threshold: int | None = None
    """Tokens of context from which on a response begins with a compaction."""

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults: the recorded form."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name in self.__slots__
            if (value := getattr(self, name)) != _DEFAULTS[name]
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ResponseRequest:
        """The inverse of `to_json`.  Unknown keys are a newer vocabulary's and are refused."""
        fields: dict[str, Any] = {
            name: tuple(value) if name in _TUPLES else value for name, value in data.items()
        }
        return ResponseRequest(**fields)


_TUPLES = frozenset({"input", "include", "tools"})
_DEFAULTS: Mapping[str, Any] = {
    name: getattr(ResponseRequest(model=""), name) for name in ResponseRequest.__slots__
} | {"model": None}

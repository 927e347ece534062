"""The bodies of `input_tokens` and `compact`: what of a create request makes its context."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from serve_app.request_body import Body, ConversationRef, Effort, Input, Reasoning, Text


class CompactBody(Body):
    """Summarize a conversation."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Input = ""
    instructions: str | None = None
    previous_response_id: str | None = None


class CountBody(Body):
    """Count the tokens of a request's input."""

    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    input: Input = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: Effort | None = None
    parallel_tool_calls: bool | None = True


COUNTED: Final = tuple(CountBody.model_fields)
COMPACTED: Final = tuple(CompactBody.model_fields)

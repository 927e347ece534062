"""What a model is asked in one call: the request that an upstream's adapter gets.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runtime.catalog import Resolved
from runtime.model import JSON, ModelRequest
from runtime.response.history import is_whole
from runtime.response.request import ResponseRequest
from runtime.response.state import ResponseState
from runtime.resume import Plan
from runtime.seam import Said
from runtime.tool import is_run_here, offered

CHARS_PER_TOKEN: Final = 4
"""A rule of thumb, for what a continued answer has left of its `max_output_tokens`."""

TOKENS_LEAST: Final = 16
"""Some upstreams refuse fewer."""


def question(
    config: Resolved,
    context: Sequence[Mapping[str, JSON]],
    state: ResponseState,
    plan: Plan,
    said: Sequence[Said],
) -> ModelRequest:
    """The next call: a further try of the one that was begun, or the first of the next turn."""
    request, begun = state.request, state.begun_call
    earlier = state.context_items[: begun.first_item if begun else len(state.output)]
    # What was summarized is in the context already.
    told = [item for item in earlier if is_whole(item) and item["type"] != "compaction"]
    return ModelRequest(
        model=config.model,
        instructions="\n\n".join(filter(None, (config.instructions, request.instructions))) or None,
        items=(*context, *told, *plan.items),
        tools=_tools(config, request),
        tool_choice=_free(request.tool_choice) if tools_answered(state) else request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        text=request.text,
        reasoning=request.reasoning,
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        top_logprobs=_top_logprobs(request),
        max_output_tokens=_max_output_tokens(config, state, plan, said),
        user=request.user,
        goes_on=plan.resume == "prefix",
        seed=f"{state.id}:{state.turn}:{begun.attempt + 1 if begun else 0}",
    )


def tokens_left(config: Resolved, state: ResponseState) -> int | None:
    """What turns with tools have left of the response's output tokens; None without a limit."""
    limits = (state.request.max_output_tokens, config.limits.max_output_tokens)
    limit = min((limit for limit in limits if limit is not None), default=None)
    return limit if limit is None or not tools_answered(state) else limit - state.usage.output_tokens


def tools_answered(state: ResponseState) -> bool:
    """Whether the server ran a tool for the response, or refused to."""
    return any(item["type"] == "function_call_output" for item in state.output)


def _max_output_tokens(
    config: Resolved, state: ResponseState, plan: Plan, said: Sequence[Said]
) -> int | None:
    limit = tokens_left(config, state)
    if limit is None or plan.resume not in ("prefix", "prompt"):
        return limit
    spent = sum(len(text) for one in said for text in one.texts.values()) // CHARS_PER_TOKEN
    return max(min(TOKENS_LEAST, limit), limit - spent)


def _tools(config: Resolved, request: ResponseRequest) -> tuple[Mapping[str, JSON], ...]:
    """The agent's and the request's; a client puts none in the place of one that runs here."""
    ours = [offered(tool) for tool in config.tools if is_run_here(tool)]
    theirs = [tool for tool in config.tools if not is_run_here(tool)]
    named = {(tool.get("type"), tool.get("name")): tool for tool in (*theirs, *request.tools, *ours)}
    return tuple(named.values())


def _free(choice: JSON) -> JSON:
    """The choice once a tool has answered: who was made to call one must not be made to for ever."""
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": "auto"} if choice.get("mode") == "required" else choice
    return choice if choice == "none" else "auto"


def _top_logprobs(request: ResponseRequest) -> int | None:
    """How many are wanted at each place; none are told to a client that did not ask."""
    asked = "message.output_text.logprobs" in request.include or bool(request.top_logprobs)
    return (request.top_logprobs or 0) if asked else None

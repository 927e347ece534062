"""The body of `POST /v1/responses`: what the API page promises, checked once, in one normal form afterwards.

Lenient where real clients are: null is "not given" everywhere, unknown fields are ignored, hints that change
no answer are accepted.  A field whose meaning this server does not have yet is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from runtime.catalog import Catalog
from runtime.response.items import ADDITIONAL
from runtime.response.request import ResponseRequest
from serve_app.errors import DECIMAL_CODES, ApiError, bad_request, invalid, not_supported
from serve_app.input_items import Items, Unseal, input_items, sealed_nowhere
from serve_app.limits import Limits
from serve_app.tool_params import check_not_run_here, read_tools, tool_choice

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Input = str | list[Any] | dict[str, Any] | None
"""The API page bounds it by nothing: a text, items, or a single item."""
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Body(BaseModel):
    """A body, or a part of one, as it is checked."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True, frozen=True)

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> Self:
        """The fields as this body.  Raises `ApiError` (422)."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise told(error) from None


def _whole(value: Any) -> Any:
    """JSON knows no integers: 10.0 is as whole as 10, as far as a float can tell."""
    return int(value) if isinstance(value, float) and abs(value) < 2**53 and value.is_integer() else value


WHOLE: Final = BeforeValidator(_whole)
"""Takes whole numbers however their writer writes them; stands behind their bounds."""


SUMMARIES: Final = ("auto", "concise", "detailed")
"""How a model may tell what it thought."""


class Reasoning(Body):
    """How much the model thinks, and whether it tells."""

    effort: Effort | None = None
    summary: Any = None
    """One of `SUMMARIES`.  The API page bounds it by nothing, so anything else is as if it were not given."""
    generate_summary: Any = None
    """The older name of `summary`."""


class TextFormat(Body):
    """Plain words."""

    type: Literal["text"]


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Body):
    """JSON that fits a schema."""

    type: Literal["json_schema"]
    name: Name
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class Text(Body):
    """The form of the answer's text."""

    format: (
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None
    ) = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_obfuscation: bool | None = None
    """Whether deltas are padded, so that their length does not betray the words to who watches the line."""


class ConversationRef(Body):
    """A conversation by its id."""

    id: str


class ContextManagement(Body):
    """What is done about a context that grows too long."""

    type: Literal["compaction"]
    compact_threshold: Annotated[int, Field(ge=1000), WHOLE] | None = None
    """Tokens from which on the context is summarized."""


COMPACT_THRESHOLD: Final = 100_000
"""Tokens, where a request wants compaction and does not say when."""


class CreateBody(Body):
    """Create one response."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    input: Input = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    background: bool | None = False
    store: bool | None = True
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    include: list[str] | None = None
    max_output_tokens: Annotated[int, Field(ge=1), WHOLE] | None = None
    max_tool_calls: Annotated[int, Field(ge=1), WHOLE] | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: Effort | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    truncation: Literal["disabled", "auto"] | None = None
    service_tier: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    safety_identifier: Annotated[str, Field(max_length=128)] | None = None
    prompt_cache_key: str | None = None
    context_management: list[ContextManagement] | None = None


NOT_YET: Final[Mapping[str, str]] = {
    "prompt": "Send the prompt's text as instructions and input.",
    "moderation": "Moderate the input and the output yourself.",
}
"""Fields of the Responses API that mean nothing here yet, each with what to do instead."""


class Asked(NamedTuple):
    """A request that can be served, as far as it can be told without the log."""

    request: ResponseRequest
    stream: bool
    obfuscated: bool = False
    """Whether deltas are padded."""
    left_out: tuple[str, ...] = ()
    """Types of hosted tools and of their items, which this server does not have."""


def read_create(
    body: Mapping[str, Any],
    catalog: Catalog,
    limits: Limits,
    body_size: int,
    unseal: Unseal = sealed_nowhere,
) -> Asked:
    """The request in its normal form; `unseal` opens what was sealed for its project.

    Raises `UnknownModel` and `ApiError`: 422 for types and bounds, 413 for an item that is too long, 400 for
    what makes no sense or is not served.
    """
    given = CreateBody.checked(body)
    if given.conversation is not None and given.previous_response_id is not None:
        message = "previous_response_id and conversation exclude each other. Send one of them."
        raise bad_request(message, "conversation", "mutually_exclusive_parameters")
    for name, remedy in NOT_YET.items():
        if body.get(name) is not None:
            raise not_supported(f"'{name}'", name, remedy)
    offered = catalog.resolve(given.model).tools
    tools = read_tools(given.tools or ())
    check_not_run_here(given.tools or (), offered)
    input_ = _input(given, limits, body_size, unseal)
    _check_additional(given.input, offered)
    additional = [tool for item in input_.items if item["type"] == ADDITIONAL for tool in item["tools"]]
    return Asked(
        ResponseRequest(
            model=given.model,
            input=input_.items,
            instructions=given.instructions,
            previous_response_id=given.previous_response_id,
            background=bool(given.background),
            store=given.store is not False,
            include=tuple(given.include or ()),
            max_output_tokens=_max_output_tokens(given.max_output_tokens, limits.max_output_tokens),
            max_tool_calls=given.max_tool_calls,
            metadata=metadata_within(given.metadata or {}, limits.metadata),
            parallel_tool_calls=given.parallel_tool_calls is not False,
            tools=tools.served,
            tool_choice=tool_choice(
                given.tool_choice, (*tools.served, *additional, *offered), tools.left_out
            ),
            text=_text(given.text),
            reasoning=_reasoning(given),
            temperature=given.temperature,
            top_p=given.top_p,
            presence_penalty=given.presence_penalty,
            frequency_penalty=given.frequency_penalty,
            top_logprobs=given.top_logprobs,
            truncation=given.truncation or "disabled",
            service_tier=given.service_tier,
            user=given.user,
            safety_identifier=given.safety_identifier,
            prompt_cache_key=given.prompt_cache_key,
            conversation=_conversation(given.conversation),
            compact_threshold=_compact_threshold(given.context_management),
        ),
        bool(given.stream),
        obfuscated=bool(given.stream_options and given.stream_options.include_obfuscation),
        left_out=(*tools.left_out, *input_.left_out),
    )


UNION_BRANCHES: Final = ("str", "list[any]", "dict[str,any]", "ConversationRef", "json_schema")
"""What pydantic adds to the place of an error inside a union; no body has fields of these names."""


def told(error: ValidationError) -> ApiError:
    """422, without what was sent: a wrong field may hold a secret."""
    errors = error.errors(include_url=False, include_input=False)
    first = errors[0]
    of_decimal = any(isinstance(bound, float) for bound in first.get("ctx", {}).values())
    return invalid(
        [
            (tuple(part for part in one["loc"] if part not in UNION_BRANCHES), _words(one), one["type"])
            for one in errors
        ],
        DECIMAL_CODES.get(first["type"]) if of_decimal else None,
    )


def _words(error: ErrorDetails) -> str:
    tags = error.get("ctx", {}).get("expected_tags")
    # Pydantic's own words for a wrong tag hold what was sent.
    return error["msg"] if tags is None else f"Input should be one of {tags}"


def _input(given: CreateBody, limits: Limits, body_size: int, unseal: Unseal) -> Items:
    if isinstance(given.input, list | dict):
        items = given.input if isinstance(given.input, list) else [given.input]
        return input_items(items, limits, body_size, unseal)
    if not given.input and (given.previous_response_id or given.conversation) is not None:
        return Items(())  # The conversation goes on from where it stands.
    if body_size > limits.item:
        return input_items([{"role": "user", "content": given.input}], limits, body_size, unseal)
    content = [{"type": "input_text", "text": given.input or ""}]
    return Items(({"type": "message", "role": "user", "status": "completed", "content": content},))


def _check_additional(input: Input, offered: Sequence[Mapping[str, Any]]) -> None:
    """Check the tools that items of a valid input offer: errors name the places as they were sent."""
    for index, item in enumerate(input if isinstance(input, list) else [input]):
        if isinstance(item, dict) and item.get("type") == ADDITIONAL:
            check_not_run_here(item["tools"], offered, ("input", index, "tools"))


def _conversation(given: str | ConversationRef | None) -> str | None:
    return given.id if isinstance(given, ConversationRef) else given


def _max_output_tokens(tokens: int | None, ceiling: int) -> int | None:
    if tokens is not None and tokens > ceiling:
        message = f"Input should be less than or equal to {ceiling}"
        raise invalid([(("max_output_tokens",), message, "less_than_equal")])
    return tokens


def _compact_threshold(given: list[ContextManagement] | None) -> int | None:
    if not given:
        return None
    return min(one.compact_threshold or COMPACT_THRESHOLD for one in given)


def metadata_within(metadata: dict[str, Any], limit: int) -> dict[str, Any]:
    """The metadata.  Raises `ApiError` (422) where it is longer than `limit` bytes."""
    if metadata and len(orjson.dumps(metadata)) > limit:
        raise invalid([(("metadata",), f"Input should take at most {limit:,} bytes as JSON", "too_large")])
    return metadata


def _text(text: Text | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"format": {"type": "text"}}
    if text is None:
        return shown
    if isinstance(text.format, JsonSchemaFormat):
        shown["format"] = {
            "type": "json_schema",
            "name": text.format.name,
            "description": text.format.description,
            "schema": text.format.schema_,
            "strict": bool(text.format.strict),
        }
    elif text.format is not None:
        shown["format"] = {"type": text.format.type}
    if text.verbosity is not None:
        shown["verbosity"] = text.verbosity
    return shown


def _reasoning(given: CreateBody) -> dict[str, Any] | None:
    named = given.reasoning or Reasoning()
    if given.reasoning_effort and named.effort and given.reasoning_effort != named.effort:
        message = "Value error, contradicts reasoning.effort; send only one of them"
        raise invalid([(("reasoning_effort",), message, "value_error")])
    effort = named.effort or given.reasoning_effort
    wanted = (named.summary, named.generate_summary)
    summary = next((one for one in wanted if one in SUMMARIES), None)
    if effort is None and summary is None:
        return None
    return {"effort": effort, "summary": summary}

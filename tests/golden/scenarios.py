"""What a response can go through, from its creation to its end: each a list of commands.

The logs beside this file were written from these, and are replayed for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    ItemClosed,
    ItemOpened,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from runtime.response.commands import (
    CloseItem,
    Command,
    EndCallFailed,
    Erase,
    Fail,
    Finish,
    FinishTool,
    RecordOutput,
    StartTool,
)
from runtime.response.request import ResponseRequest
from tests.running import ACTIVATE, CANCEL, FINISH, QUESTION, USAGE, begin, create

WEATHER: Final = {
    "type": "function",
    "name": "get_weather",
    "description": None,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}
EVERYTHING: Final = ResponseRequest(
    model="agent/thinker",
    input=(QUESTION,),
    instructions="Be brief.\n\u2028 Say “Grüß Gott” \U0001f44b",
    previous_response_id="resp_" + "0a" * 16,
    background=True,
    include=("reasoning.encrypted_content",),
    max_output_tokens=8000,
    max_tool_calls=3,
    metadata={"ticket": 7, "tags": ["a", None]},
    parallel_tool_calls=False,
    tools=(WEATHER,),
    tool_choice={"type": "function", "name": "get_weather"},
    text={"format": {"type": "text"}, "verbosity": "low"},
    reasoning={"effort": "high", "summary": "auto"},
    temperature=0.7,
    top_p=0.9,
    presence_penalty=0.5,
    frequency_penalty=-0.5,
    top_logprobs=0,
    truncation="auto",
    service_tier="fast",
    user="u-1",
    safety_identifier="s-1",
    prompt_cache_key="k-1",
)
CLIENT_TOOLS: Final = (
    {"type": "custom", "name": "sql", "format": {"type": "text"}},
    {"type": "shell"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
    {"type": "namespace", "name": "crm", "description": "", "tools": [{**WEATHER, "name": "look_up"}]},
)
COMMANDS: Final = {"commands": ["ls", "pwd"], "timeout_ms": None, "max_output_length": 100}
COMMAND: Final = {"type": "exec", "command": ["ls"], "env": {}}
LIKELY: Final = {
    "token": "Hel",
    "bytes": [72, 101, 108],
    "logprob": -0.125,
    "top_logprobs": [{"token": "Hel", "bytes": [72, 101, 108], "logprob": -0.125}],
}
SAID: Final = (ItemOpened("message", upstream_id="msg_up"), TextDelta("Hel"), TextDelta("lo"))


def say(*events: object) -> RecordOutput:
    """A model says this."""
    return RecordOutput(events)  # type: ignore[arg-type]  # Each is a ModelEvent.


SCENARIOS: Final[Mapping[str, Sequence[Command]]] = {
    "answer": [
        create(),
        ACTIVATE,
        begin(),
        say(*SAID),
        say(TextDelta(', w\n"ö"\\rld \U0001f30d\x7f'), TextDelta("!"), ItemClosed()),
        say(CallEnded("stop", USAGE)),
        FINISH,
    ],
    "queued_with_every_field": [
        create(EVERYTHING, queued=True, obfuscation="seed"),
        ACTIVATE,
        begin(),
        say(
            ItemOpened("reasoning", upstream_id="rs_up"),
            SummaryDelta("First"),
            SummaryDelta(", think."),
            SummaryDelta("Then answer.", 1),
            ItemClosed(encrypted_content="gAAA=="),
            *SAID,
            ItemClosed(),
            CallEnded("stop", USAGE),
        ),
        FINISH,
    ],
    "tool_turns": [
        create(ResponseRequest(model="simulated", input=(QUESTION,), tools=(WEATHER,))),
        ACTIVATE,
        begin(),
        say(ItemOpened("function_call", "get_weather", "call_1"), ArgumentsDelta('{"city":')),
        say(ArgumentsDelta('"Aachen"}'), ItemClosed()),
        say(ItemOpened("function_call", "get_weather", "call_1"), ItemClosed()),
        say(CallEnded("tool_calls", USAGE)),
        begin(),
        say(*SAID, ItemClosed(), CallEnded("stop", Usage(1, 2))),
        FINISH,
    ],
    "tools_run_here": [
        create(),
        ACTIVATE,
        begin(),
        say(ItemOpened("function_call", "lookup", "call_1"), ArgumentsDelta("{}"), ItemClosed()),
        say(ItemOpened("function_call", "refund", "call_2"), ArgumentsDelta("{}"), ItemClosed()),
        say(ItemOpened("function_call", "refund", "call_3"), ItemClosed()),
        say(CallEnded("tool_calls", USAGE)),
        StartTool("call_1"),
        StartTool("call_2"),
        FinishTool("call_2", "gr\u00fcn \U0001f33f\n", None),
        ACTIVATE,
        StartTool("call_1"),
        FinishTool("call_3", "not run", "refused"),
        FinishTool("call_1", "The tool did not answer within 2 s.", "timeout"),
        begin(),
        say(*SAID, ItemClosed(), CallEnded("stop", Usage(1, 2))),
        Finish(1_800_000_009, "max_messages"),
    ],
    "raw_reasoning": [
        create(),
        ACTIVATE,
        begin(),
        say(ItemOpened("reasoning"), ReasoningDelta("Hm"), ReasoningDelta("."), SummaryDelta("Hm?")),
        say(ReasoningDelta("More."), ItemClosed(), *SAID, ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "raw_reasoning_open_responses": [
        create(dialect="open_responses"),
        ACTIVATE,
        begin(),
        say(ItemOpened("reasoning"), ReasoningDelta("Hm"), ItemClosed()),
        say(ItemOpened("message"), RefusalDelta("I would "), RefusalDelta("rather not.")),
        say(ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "out_of_tokens": [
        create(),
        ACTIVATE,
        begin(),
        say(*SAID, CallEnded("length", USAGE)),
        FINISH,
    ],
    "filtered_and_empty": [
        create(),
        ACTIVATE,
        begin(),
        say(ItemOpened("message"), CallEnded("content_filter", USAGE)),
        FINISH,
    ],
    "failed": [
        create(),
        ACTIVATE,
        begin(),
        say(*SAID),
        EndCallFailed("upstream_timeout", "The upstream went silent."),
        Fail(1_800_000_007, "upstream_timeout", "The upstream went silent."),
    ],
    "cancelled_in_a_call": [
        create(),
        ACTIVATE,
        begin(),
        say(*SAID, ItemClosed(), ItemOpened("function_call", "get_weather", ""), ArgumentsDelta('{"ci')),
        CANCEL,
    ],
    "crashed_and_resumed": [
        create(),
        ACTIVATE,
        begin(),
        say(ItemOpened("reasoning"), ReasoningDelta("Half a thou")),
        ACTIVATE,
        begin("repeat"),
        CloseItem(),
        say(ItemOpened("reasoning"), ReasoningDelta("A whole thought."), ItemClosed()),
        say(*SAID),
        EndCallFailed("upstream_interrupted", "The upstream cut the stream."),
        begin("prompt"),
        say(ItemOpened("message"), TextDelta(" again."), ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "tools_of_the_client": [
        create(ResponseRequest(model="simulated", input=(QUESTION,), tools=CLIENT_TOOLS)),
        ACTIVATE,
        begin(),
        say(ItemOpened("custom_tool_call", "sql", "call_1"), ArgumentsDelta('select "\u00f6"'), ItemClosed()),
        say(ItemOpened("shell_call", call_id="call_2", action=COMMANDS), ItemClosed()),
        say(ItemOpened("local_shell_call", call_id="call_3", action=COMMAND), ItemClosed()),
        say(ItemOpened("apply_patch_call", action={"type": "delete_file", "path": "a"}), ItemClosed()),
        say(ItemOpened("function_call", "look_up", "call_5", namespace="crm"), ArgumentsDelta("{}")),
        say(ItemClosed(), CallEnded("tool_calls", USAGE)),
        FINISH,
    ],
    "log_probabilities": [
        create(obfuscation="seed"),
        ACTIVATE,
        begin(),
        say(ItemOpened("message"), TextDelta("Hel", (LIKELY,)), TextDelta("lo"), TextDelta("!", (LIKELY,))),
        say(ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "compacted_and_sealed": [
        create(ResponseRequest(model="simulated", input=(QUESTION,), store=False, compact_threshold=1000)),
        ACTIVATE,
        begin(),
        say(ItemOpened("compaction"), ItemClosed(sealed="rs1.AAAA", summary="They talked.")),
        say(CallEnded("stop", USAGE)),
        begin(),
        say(ItemOpened("reasoning", upstream_id="rs_up"), ReasoningDelta("Hm.")),
        say(ItemClosed("gAAA==", sealed="rs1.BBBB"), *SAID, ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "in_a_conversation": [
        create(ResponseRequest(model="simulated", input=(QUESTION,), conversation="conv_" + "c0" * 16)),
        ACTIVATE,
        begin(),
        say(*SAID, ItemClosed(), CallEnded("stop", USAGE)),
        FINISH,
    ],
    "cancelled_in_the_queue_then_erased": [
        create(ResponseRequest(model="simulated", background=True, store=False), queued=True),
        CANCEL,
        Erase(1_800_000_010, "store:false", "not to be stored"),
    ],
}

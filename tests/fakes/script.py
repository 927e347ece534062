"""How the fake upstream is told what to say, behind the model's name: `fake?deltas=100&cut_after=5`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

NOUNS = (
    "apple",
    "brook",
    "cloud",
    "dune",
    "echo",
    "fern",
    "gale",
    "harbor",
    "isle",
    "kite",
    "leaf",
    "moss",
    "pine",
)


@dataclass(frozen=True, slots=True)
class Script:
    """What a model of the fake does.  Numbers of deltas count those of all items."""

    deltas: int = 8
    """Deltas of the answer."""
    interval_ms: float = 0
    """Pause before every delta but the first."""
    delay_ms: float = 0
    """Pause before the answer's head."""
    first_ms: float = 0
    """Pause between the answer's head and its first frame."""
    text: str = ""
    """The answer, word by word, in the place of the usual words."""
    echo: bool = False
    """Answer with the last user text."""
    unique: bool = False
    """Word every call differently."""
    goes_on: bool = False
    """Where the request ends in a half of the answer and the wish that it goes on, say only the rest."""
    continues: str = ""
    """Where it ends in a half of the answer, say only the rest: where it is asked as `vllm` or `sglang` wants
    to be asked, or in any case, as `tgi` and `llama.cpp` do."""
    trims: bool = False
    """The template trims the half: what follows is as if there were no white space at its end."""
    echoes: bool = False
    """Say the half once more before it is continued, whatever `echo` says."""
    thinks_on: bool = False
    """Say what is continued as reasoning, as a parser does that waits for the end of a thought."""
    refuses_half: bool = False
    """Answer 400 to requests that end in a message of the assistant's."""
    chars: int = 0
    """Characters of a delta; words when not given."""
    reasoning: int = 0
    """Deltas of reasoning before the answer."""
    reasoning_field: str = "reasoning_content"
    refusal: bool = False
    tools: int = 0
    """Parallel function calls in the place of the answer, until their outputs are there."""
    arguments: str = '{"city":"Paris","unit":"celsius"}'
    interleave: bool = False
    """Mix the pieces of parallel calls."""
    finish: str = ""
    usage: bool = True
    done: bool = True
    """Whether `[DONE]` is sent."""
    late: bool = False
    """Send more deltas after `[DONE]`."""
    json: bool = False
    """Answer with plain JSON though a stream was asked for."""
    write_bytes: int = 0
    """Write in pieces of this size, each on its own."""
    odd: str = ""
    """`utf8`, `lone` or `pair`: bytes that are no UTF-8, half a surrogate pair, a pair in two deltas."""
    # Faults; they befall all calls, or with `fail_first` only the first ones.
    fail_first: int = 0
    status: int = 0
    message: str = "The fake failed as it was told to."
    code: str = ""
    retry_after: str = ""
    retry_after_ms: str = ""
    cut_after: int = -1
    """Drop the connection after so many deltas."""
    end_after: int = -1
    """End the body in good order after so many deltas, without a finish."""
    stall_after: int = -1
    garbage_after: int = -1
    huge_after: int = -1
    """A line of 10 MB."""
    error_after: int = -1
    """An error object in the stream."""
    content_type: str = ""
    request_id: str = "req_fake"
    key: str = ""
    """Tells scripts apart that are otherwise the same."""

    @property
    def breaks_at(self) -> int:
        """The delta after which a fault comes; -1 for none."""
        return max(
            self.cut_after,
            self.end_after,
            self.stall_after,
            self.garbage_after,
            self.huge_after,
            self.error_after,
        )


FAULTS = (
    "status",
    "cut_after",
    "end_after",
    "stall_after",
    "garbage_after",
    "huge_after",
    "error_after",
    "content_type",
)
WITHOUT_FAULTS: dict[str, Any] = {one.name: one.default for one in fields(Script) if one.name in FAULTS}


@lru_cache(maxsize=4096)
def parse(query: str) -> Script:
    """Read a query.  Raises `ValueError` for what it does not know."""
    defaults = {one.name: one.default for one in fields(Script)}
    given: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in defaults:
            raise ValueError(f"the fake upstream knows no parameter {name!r}")
        kind: Any = type(defaults[name])
        given[name] = text not in ("0", "false", "") if kind is bool else kind(text)
    return Script(**given)


def rest(half: str, count: int, calls: int, salt: str) -> tuple[str, ...]:
    """What is left of `words(count)` behind `half`, which up to so many calls may have worded, each its way.

    The word in the middle of which it ends is ended as it began; further ones get `salt`.  Where `half` is no
    such beginning, it is the whole answer.
    """
    said = half.split(" ")
    last = len(said) - 1
    salts = ("", *(f"-{call}" for call in range(1, calls + 1)))
    if last >= count or any(word not in _spelled(n, salts) for n, word in enumerate(said[:-1])):
        return words(count, salt)
    begun = [word for word in _spelled(last, salts) if word.startswith(said[-1])]
    if not begun:
        return words(count, salt)
    # A word that is whole already is not gone on with, though a longer one may begin with it.
    ended = said[-1] if said[-1] in begun else next((w for w in begun if w.endswith(salt)), begun[0])
    return tuple(filter(None, (ended[len(said[-1]) :], *words(count, salt)[last + 1 :])))


def _spelled(number: int, salts: tuple[str, ...]) -> list[str]:
    return [words(number + 1, salt)[number].lstrip() for salt in salts]


@lru_cache(maxsize=64)
def words(count: int, salt: str = "") -> tuple[str, ...]:
    """The answer's pieces: every word has its number, so that a lost or doubled one shows."""
    return tuple(f"{' ' if n else ''}{NOUNS[n * 7 % len(NOUNS)]}{n}{salt}" for n in range(count))


def split(text: str, chars: int = 0) -> tuple[str, ...]:
    """`text` word by word, or in pieces of so many characters; joined it is `text` again."""
    if chars:
        return tuple(text[at : at + chars] for at in range(0, len(text), chars))
    pieces = text.split(" ")
    return tuple(piece if n == 0 else " " + piece for n, piece in enumerate(pieces)) if text else ()

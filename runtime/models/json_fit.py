"""A JSON value that fits a JSON Schema: deterministic, and as plain as the schema allows.

It covers what tool parameters and structured outputs use.  A schema that nothing can fit gets a best effort;
a `pattern` is met only where one of a few common shapes meets it.  Schemas come from clients: whatever they
hold, the work is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

JSON = Any
Schema = Mapping[str, JSON]

# Deep enough for every schema seen in use; beyond it a recursive schema gets only what it requires.
DEPTH_PLENTY = 6
# A schema that requires itself without end has no finite value: give up here rather than recurse for ever.
DEPTH_LIMIT = 40
# Values in all: beyond the first number only what is required is given, beyond the second nothing.
VALUES_PLENTY = 2_000
VALUES_LIMIT = 20_000
# A regular expression can take for ever on a few characters: one with more of these is not tried.
QUANTIFIERS_MAX = 4
RUN_CHARS = 16
# No schema in use asks for more; a hostile `minItems: 1e9` must not fill the memory.
SIZE_LIMIT = 4096

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "simulated@example.com",
    "idn-email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "uri-reference": "/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
SHAPES = (
    "simulated",
    "Simulated",
    "SIMULATED",
    "A",
    "a",
    "1",
    "12",
    "123",
    "1234",
    "12345",
    "AB",
    "ABC",
    "A1",
    "a1",
    "a-b",
    "a_b",
    "a.b",
    "2026-01-31",
    "12:00",
    "+15550100",
    "#aabbcc",
    "#AABBCC",
    "1.0.0",
    "abc123",
)


def fit(schema: JSON) -> JSON:
    """A value that fits `schema`; an empty object where it is no schema."""
    try:
        return _Fitter(schema).value(schema, 0, 0)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return {}


class _Fitter:
    """Knows the root, where `$ref` points into."""

    def __init__(self, root: JSON) -> None:
        self._root = root
        self._made = 0

    def value(self, schema: JSON, depth: int, nth: int) -> JSON:
        """A value for `schema`; different `nth` give different values where the schema lets them."""
        self._made += 1
        if depth > DEPTH_LIMIT or self._made > VALUES_LIMIT:
            return None
        if not isinstance(schema, Mapping):
            return "simulated"
        schema = self._plain(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][nth % len(schema["enum"])]
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return _string(schema, nth)
            case "integer":
                return _number(schema, nth, whole=True)
            case "number":
                return _number(schema, nth, whole=False)
            case "boolean":
                return nth % 2 == 0
            case _:
                return None

    def _plain(self, schema: Schema, depth: int) -> Schema:
        """`schema` with its references followed, its parts merged and its first suitable branch taken."""
        for _ in range(DEPTH_LIMIT):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(self._target(schema["$ref"]), rest)
            elif "allOf" in schema:
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    rest = _merged(part if isinstance(part, Mapping) else {}, rest)
                schema = rest
            elif branches := schema.get("anyOf") or schema.get("oneOf"):
                rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                branch = _branch(branches, depth)
                schema = _merged(branch if isinstance(branch, Mapping) else {}, rest)
            else:
                return schema
        return {}

    def _target(self, reference: JSON) -> Schema:
        target = self._root
        for step in str(reference).removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key, {}) if isinstance(target, Mapping) else {}
        return target if isinstance(target, Mapping) else {}

    def _object(self, schema: Schema, depth: int) -> dict[str, JSON]:
        properties: Schema = schema.get("properties") or {}
        required: Sequence[str] = schema.get("required") or ()
        extra = schema.get("additionalProperties")
        extra = extra if isinstance(extra, Mapping) else {"type": "string"}
        plenty = depth < DEPTH_PLENTY and self._made < VALUES_PLENTY
        names = [name for name in properties if plenty or name in required]
        names += [name for name in required if name not in properties]
        names = (
            names[: _bounded(schema.get("maxProperties"), len(names))] if "maxProperties" in schema else names
        )
        names += [f"key{n}" for n in range(_bounded(schema.get("minProperties"), 0) - len(names))]
        return {name: self.value(properties.get(name, extra), depth + 1, 0) for name in names}

    def _array(self, schema: Schema, depth: int) -> list[JSON]:
        first: Sequence[JSON] = schema.get("prefixItems") or ()
        wanted = _bounded(schema.get("minItems"), 0) or max(1 if depth < DEPTH_PLENTY else 0, len(first))
        wanted = min(wanted, _bounded(schema.get("maxItems"), wanted))
        rest = schema.get("items", {"type": "string"})
        return [self.value(first[n] if n < len(first) else rest, depth + 1, n) for n in range(wanted)]


def _type(schema: Schema) -> str:
    """The type to give: the first that is not null, or what the other keywords imply."""
    named = schema.get("type")
    if isinstance(named, str):
        return named
    if isinstance(named, Sequence) and named:
        return next((str(one) for one in named if one != "null"), "null")
    for keyword, implied in (
        ("properties", "object"),
        ("required", "object"),
        ("items", "array"),
        ("prefixItems", "array"),
        ("minimum", "number"),
        ("maximum", "number"),
        ("multipleOf", "number"),
    ):
        if keyword in schema:
            return implied
    return "string"


def _branch(branches: Sequence[JSON], depth: int) -> JSON:
    """The first branch that says something; where it is deep, one that ends the recursion."""
    simple = ("string", "number", "integer", "boolean", "null")
    if depth >= DEPTH_PLENTY:
        for branch in branches:
            if isinstance(branch, Mapping) and (branch.get("type") in simple or "const" in branch):
                return branch
    return next(
        (one for one in branches if not (isinstance(one, Mapping) and one.get("type") == "null")), branches[0]
    )


def _merged(part: Schema, rest: Schema) -> dict[str, JSON]:
    """Both at once; what stands beside a reference or a branch wins, properties and requirements add up."""
    merged = {**part, **rest}
    if "properties" in part and "properties" in rest:
        merged["properties"] = {**part["properties"], **rest["properties"]}
    if "required" in part and "required" in rest:
        merged["required"] = list(dict.fromkeys([*part["required"], *rest["required"]]))
    return merged


def _bounded(value: JSON, default: int) -> int:
    return min(int(value), SIZE_LIMIT) if isinstance(value, int | float) and value >= 0 else default


def _string(schema: Schema, nth: int) -> str:
    text = FORMATS.get(str(schema.get("format")), "simulated")
    pattern = schema.get("pattern")
    shortest, longest = _bounded(schema.get("minLength"), 0), _bounded(schema.get("maxLength"), SIZE_LIMIT)
    if isinstance(pattern, str):
        return _matching(pattern, shortest, longest)
    if nth:
        text = f"{text}{nth}" if longest > len(text) else f"{nth}"
    return text.ljust(shortest, "x")[:longest]


def is_tame(pattern: str) -> bool:
    """Whether a regular expression is sure to be done with a short text in no time."""
    return len(re.findall(r"[*+?{|]", pattern)) <= QUANTIFIERS_MAX and not re.search(r"\)[*+?{]", pattern)


def _matching(pattern: str, shortest: int, longest: int) -> str:
    """The first common shape that meets `pattern` and the lengths; a run of one character else."""
    if not is_tame(pattern):
        return "simulated"
    try:
        meets = re.compile(pattern).search
    except (re.error, OverflowError):
        return "simulated"
    lengths = range(max(shortest, 1), min(longest, RUN_CHARS) + 1)
    runs = (letter * length for letter in "aA1" for length in lengths)
    shapes = (shape for shape in SHAPES if shortest <= len(shape) <= longest)
    return next((text for text in (*shapes, *runs) if meets(text)), "simulated")


def _number(schema: Schema, nth: int, *, whole: bool) -> int | float:
    """The lowest number allowed that is at least 1, where the bounds let it be."""
    step = schema.get("multipleOf") or (1 if whole else None)
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    unit = step or 0.5
    if isinstance(above, int | float) and not isinstance(above, bool):
        low = above + (unit if step else _part(above, high if high is not None else below))
    if isinstance(below, int | float) and not isinstance(below, bool):
        high = below - (unit if step else _part(low, below))
    value: int | float = 1 + nth * unit
    if low is not None and value < low:
        value = low + nth * unit
    if high is not None and value > high:
        value = high - nth * unit if low is None or high - nth * unit >= low else high
    if step:
        value = _multiple(value, step, low)
    return int(value) if whole or float(value).is_integer() else value


def _part(low: int | float | None, high: int | float | None) -> float:
    """A distance from a bound that surely stays below the other one."""
    return min(0.5, abs(high - low) / 4) if low is not None and high is not None else 0.5


def _multiple(value: int | float, step: int | float, low: int | float | None) -> int | float:
    down = value // step * step
    return down if low is None or down >= low else down + step

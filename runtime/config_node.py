"""A value of a configuration file that knows where it stands, so that an error can say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson


class ConfigError(Exception):
    """The configuration is wrong.  Its text is one line: file, path of the key, what is wrong, remedy."""

    def __init__(self, source: str, path: str, problem: str) -> None:
        super().__init__(source, path, problem)
        self.source, self.path, self.problem = source, path, problem

    def __str__(self) -> str:
        return f"{self.source}: {self.path + ' ' if self.path else ''}{self.problem}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value, the file it stands in, and the path of keys that leads to it."""

    value: Any
    source: str
    path: str = ""
    key: str = ""
    """The last step of the path."""

    def fail(self, problem: str) -> NoReturn:
        """Raise `ConfigError` about this value."""
        raise ConfigError(self.source, f"`{self.path}`" if self.path else "", problem)

    def child(self, key: str) -> Node:
        """The value under `key`."""
        return Node(self.value[key], self.source, f"{self.path}.{key}".lstrip("."), key)

    def entries(self) -> Sequence[Node]:
        """The values of a mapping whose keys are free."""
        if not isinstance(self.value, Mapping):
            self.fail("must be a mapping of names to settings.")
        for key in self.value:
            if not isinstance(key, str) or not key:
                self.fail(f"has the key {key!r}, which is no text. Put it in quotes.")
        return [self.child(key) for key in self.value]

    def mapping(self, *known: str) -> dict[str, Node]:
        """The values of a mapping that may have only the `known` keys; what is null counts as absent."""
        if not isinstance(self.value, Mapping):
            self.fail(f"must be a mapping with some of: {', '.join(known)}.")
        for node in self.entries():
            if node.key not in known:
                node.fail(f"is unknown. Known here: {', '.join(known)}.")
        return {node.key: node for node in self.entries() if node.value is not None}

    def items(self) -> Sequence[Node]:
        """The values of a list."""
        if not isinstance(self.value, list):
            self.fail("must be a list.")
        return [Node(one, self.source, f"{self.path}[{n}]", str(n)) for n, one in enumerate(self.value)]

    def text(self) -> str:
        """A text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail("must be a text. Put it in quotes if it looks like a number.")
        return self.value

    def texts(self) -> dict[str, str]:
        """A mapping of texts to texts."""
        return {node.key: node.text() for node in self.entries()}

    def choice(self, *values: str) -> str:
        """One of `values`."""
        if self.value not in values:
            self.fail(f"must be one of {', '.join(values)}, not {self.value!r}.")
        return str(self.value)

    def boolean(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.fail("must be true or false.")
        return self.value

    def whole(self, low: int, high: int) -> int:
        """A whole number within both bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            self.fail(f"must be a whole number from {low} to {high}.")
        return self.value

    def number(self, low: float, high: float) -> float:
        """A number within both bounds."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.fail("must be a number.")
        if not low <= self.value <= high:
            self.fail(f"must be a number from {low:g} to {high:g}.")
        return self.value

    def json_object(self) -> dict[str, Any]:
        """A mapping that JSON can hold: no dates, no other keys than texts."""
        if not isinstance(self.value, Mapping):
            self.fail("must be a mapping.")
        try:
            copy: dict[str, Any] = orjson.loads(orjson.dumps(self.value))
        except TypeError as reason:
            self.fail(f"holds what JSON cannot: {reason}. Put dates and odd keys in quotes.")
        if copy != self.value:
            self.fail("holds what JSON cannot, such as a date. Put it in quotes.")
        return copy

"""The part of a query that depends on what was asked for."""

from __future__ import annotations

from collections.abc import Sequence


class Where:
    """Conditions that must all hold, and the parameters that they name: `str` is the clause, or nothing.

    Names are ours, values are parameters: nothing of a caller becomes text of a query.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, object] = {}
        self._conditions: list[str] = []

    def that(self, condition: str, **parameters: object) -> None:
        """One more, as SQL."""
        self._conditions.append(condition)
        self.parameters |= parameters

    def equals(self, **columns: object) -> None:
        """These columns have these values; None is not asked for."""
        for name, value in columns.items():
            if value is not None:
                self.that(f"{name} = :{name}", **{name: value})

    def among(self, column: str, values: Sequence[object] | None) -> None:
        """The column has one of these values; None is not asked for."""
        if values is not None:
            names = [f"{column}_{number}" for number in range(len(values))]
            listed = ", ".join(f":{name}" for name in names) or "NULL"
            self.that(f"{column} IN ({listed})", **dict(zip(names, values, strict=True)))

    def __str__(self) -> str:
        return f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""

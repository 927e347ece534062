"""The table of mutations fits the sources: one that does not apply any more would prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.mutation import Mutation
from tests.mutations.table import TABLE

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", TABLE, ids=lambda mutation: mutation.mechanism)
def test_a_mutation_fits_the_sources(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1, (
        f"mend tests/mutations: {mutation.file}"
    )
    assert mutation.new != mutation.old
    for test in mutation.tests:
        assert (ROOT / test.partition("::")[0]).is_file(), test


def test_the_page_on_reliability_lists_exactly_these() -> None:
    """Each with a test, or a parameter of one, that is among those that must notice."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    table = page.partition("| without this | this fails |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [mechanism for mechanism, _ in rows] == [mutation.mechanism for mutation in TABLE]
    for (mechanism, noticed), mutation in zip(rows, TABLE, strict=True):
        assert noticed.strip("`").startswith(mutation.tests), mechanism

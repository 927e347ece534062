"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import actors
import eventstore
import runtime
import serve_app

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = (runtime, actors, eventstore, serve_app)
LINES_MAX: Final = 420
"""A file is about one thing; CONTRIBUTING.md asks for under 400, and this keeps it from creeping."""
TESTS_LINES_MAX: Final = 640

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, the new ones too; in a copy without its history, all that lie there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    found = [ROOT / name for name in listed] or [path for each in patterns for path in ROOT.rglob(each)]
    return [path for path in found if path.is_file() and ".venv" not in path.parts]


SOURCES: Final = tracked("*.py")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_package_is_ours_and_typed(package: object) -> None:
    """An installed distribution of the same name would be imported in its place and seem to work."""
    where = Path(str(getattr(package, "__file__", ""))).parent
    assert where.parent == ROOT
    assert (where / "py.typed").is_file()


def test_no_file_grows_too_long() -> None:
    for path in SOURCES:
        most = TESTS_LINES_MAX if "tests" in path.parts else LINES_MAX
        assert len(path.read_text().splitlines()) <= most, f"{_name(path)}: split it by what it is about"


def test_nothing_is_left_for_later() -> None:
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
    for path in [*SOURCES, *tracked("*.md", "Makefile", "*.yaml", "*.toml")]:
        assert not marks.search(path.read_text()), f"{_name(path)}: do it, or open an issue"


def test_no_test_is_skipped() -> None:
    words = (r"pytest\.(mark\.)?(sk" + "ip|xf" + "ail)", r"unittest\.mo" + "ck", "Magic" + "Mock")
    skips = re.compile("|".join(words))
    for path in SOURCES:
        if "tests" in path.parts:
            found = skips.search(path.read_text())
            assert found is None, f"{_name(path)}: {found and found[0]}"


def test_an_ignored_rule_is_named_and_gives_its_reason() -> None:
    ignored = re.compile(r"#\s*(noqa|type: ignore|pyright: ignore)(?P<rest>.*)")
    named = re.compile(r"(: [A-Z]+\d+(, [A-Z]+\d+)*|\[[\w, -]+\])\W+\w")
    for path in set(SOURCES) - {Path(__file__)}:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = ignored.search(line)
            assert found is None or named.match(found["rest"]), f"{_name(path)}:{number}: {line.strip()}"


def test_docstrings_are_sentences() -> None:
    for path in SOURCES:
        for name, text in _docstrings(ast.parse(path.read_text())):
            first = text.partition("\n\n")[0].rstrip()
            assert not re.match(r"[a-z]+\s", first), f"{_name(path)}: {name} starts in lower case"
            assert first[-1] in ".?!:", f"{_name(path)}: {name} is no sentence"


def test_nobody_reads_the_clock_or_chance_where_it_is_decided() -> None:
    """What import-linter cannot see: modules of the standard library."""
    outside = {"time", "datetime", "random", "secrets", "uuid", "socket", "subprocess", "threading"}
    deciding = tuple(ROOT / "runtime" / noun for noun in ("response", "project", "conversation"))
    for path in sorted(path for folder in deciding for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not outside & {name.partition(".")[0] for name in named}, _name(path)


def test_ray_is_imported_in_few_named_files() -> None:
    """The rest is tested without it."""
    importing = {
        _name(path)
        for path in SOURCES
        if path.parts[len(ROOT.parts)] in ("runtime", "actors", "eventstore", "serve_app")
        and re.search(r"^\s*(import ray\b|from ray\b)", path.read_text(), re.M)
    }
    assert importing == {
        "actors/cluster.py",
        "actors/handle.py",
        "actors/ray_hosts.py",
        "serve_app/app.py",
        "serve_app/launch/core.py",
    }


def _docstrings(scope: ast.Module | Definition) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(scope)
    if text:
        yield getattr(scope, "name", "the module"), text
    for node in scope.body:
        if isinstance(node, Definition):
            yield from _docstrings(node)

"""The documents say what the code says: settings, error codes, files, tests, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from runtime.models.simulated_script import FAILURES
from serve_app import errors, settings
from serve_app.cli import COMMANDS

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ARCHITECTURE: Final = (ROOT / "ARCHITECTURE.md").read_text()
INVARIANTS: Final = 10
CODE_AT: Final = {
    "bad_request": 2,
    "Problem": 3,
    "ModelError": 0,
    "Fail": 1,
    "_fail": 0,
    "_parent": 0,
}
"""Which argument of what makes an error is its code, where it is not given by name."""


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_setting_has_its_row() -> None:
    rows = [
        f"| `{option.flag}` | `{option.variable}` | "
        f"{'none' if option.default is None else f'`{option.shown_default}`'} | {option.explanation} |"
        for option in settings.options()
    ]
    page = (ROOT / "docs/settings.md").read_text().splitlines()
    assert [row for row in page if row.startswith("| `--")] == rows


def test_every_command_is_mentioned() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in COMMANDS if f"rayspond {name}" not in text] == []


def test_every_error_code_is_documented() -> None:
    said = (ROOT / "docs/api.md").read_text() + (ROOT / "docs/models.md").read_text()
    codes = {*errors.CODES.values(), *FAILURES}
    for package in ("serve_app", "runtime", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            codes |= set(_codes(ast.parse(path.read_text())))
    assert len(codes) > 20
    assert sorted(code for code in codes if f"`{code}`" not in said) == []


def _codes(tree: ast.Module) -> Iterator[str]:
    """The codes of the errors that a module makes."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given: list[ast.expr] = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        if name in CODE_AT and len(call.args) > CODE_AT[name]:
            given.append(call.args[CODE_AT[name]])
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and "_" in value.value:
                yield value.value


def test_every_figure_has_its_row() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    said = set(re.findall(r"`rayspond_(\w+?)(?:_total)?`", page))
    kept = set()
    for package in ("serve_app", "runtime", "actors", "eventstore"):
        for path in (ROOT / package).rglob("*.py"):
            kept |= set(re.findall(r'METER\.\w+\(\s*"(\w+)"', path.read_text()))
    assert len(kept) > 20
    assert said == kept


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_tests_that_are_named_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / path).is_file(), path
        if name:
            assert re.search(rf"^((async )?def {name}\(|{name} = )", (ROOT / path).read_text(), re.M), name


def test_every_invariant_names_tests() -> None:
    chapter = ARCHITECTURE.partition("## Invariants")[2].partition("\n## ")[0]
    invariants = re.split(r"^\d+\. ", chapter, flags=re.M)[1:]
    assert len(invariants) == INVARIANTS
    for invariant in invariants:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", invariant), invariant


@pytest.mark.parametrize("package", ["eventstore", "runtime", "actors", "serve_app"])
def test_the_code_map_shows_every_file(package: str) -> None:
    chapter = ARCHITECTURE.partition(f"**`{package}/`**")[2].partition("\n**`")[0].partition("\n## ")[0]
    for path in (ROOT / package).iterdir():
        if path.name.startswith("__") or path.name == "py.typed":
            continue
        name = f"{path.name}/" if path.is_dir() else path.name
        assert f"`{name}`" in chapter, f"{package}/{name} is on no map"
    for name in re.findall(r"`([a-z_/]+\.py)`", chapter):
        assert list((ROOT / package).rglob(Path(name).name)), f"{package}/{name} is gone"


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    pages = sorted((ROOT / "docs/adr").glob("0*.md"))
    assert re.findall(r"\((0\d+-[\w-]+\.md)\)", index) == [page.name for page in pages]
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert re.search(r"^Status: (accepted|superseded)", page.read_text(), re.M), page.name


def test_pages_that_the_code_names_exist() -> None:
    for package in ("runtime", "actors", "eventstore", "serve_app", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            for page in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
                assert (ROOT / page).is_file(), f"{_named(path)} names {page}"


def test_the_cluster_file_uses_settings_that_exist() -> None:
    known = {option.variable for option in settings.options()}
    lines = (ROOT / "deploy/cluster.env.example").read_text().splitlines()
    assert {line.partition("=")[0] for line in lines if line and not line.startswith("#")} <= known
    cluster: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    assert any("rayspond serve" in command for command in cluster["head_start_ray_commands"])

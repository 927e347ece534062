"""`python -m tests.mutations`: remove one mechanism after the other, and show which test fails.

Everything happens in a copy.  The run fails where no test notices a mutation, and where one does not fit the
sources any more.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.mutations.mutation import Mutation
from tests.mutations.table import TABLE

ROOT: Final = Path(__file__).parents[2]
SECONDS_MAX: Final = 900
"""A test that hangs without its mechanism has noticed."""
COPIED: Final = ("actors", "eventstore", "runtime", "serve_app", "tests", "docs", "pyproject.toml", "deploy")


def main() -> int:
    """Run the table, or the rows that the arguments name; 1 where one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("word", nargs="?", default="", help="only mechanisms whose name holds this")
    given = parser.parse_args()
    survived = 0
    print("| without this | this fails |\n|---|---|")
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy = Path(folder)
        _copy_to(copy)
        for mutation in TABLE:
            if given.word in mutation.mechanism:
                noticed = _try(mutation, copy)
                survived += noticed is None
                print(
                    f"| {mutation.mechanism} | {f'`{noticed}`' if noticed else '**nothing**'} |", flush=True
                )
    if survived:
        print(f"{survived} survived", file=sys.stderr)
    return 1 if survived else 0


def _copy_to(copy: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)


def _try(mutation: Mutation, copy: Path) -> str | None:
    """Which test fails without the mechanism, or None."""
    path = copy / mutation.file
    whole = path.read_text()
    if whole.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.mechanism}: {mutation.file} does not hold its text exactly once; mend the table"
        )
    path.write_text(whole.replace(mutation.old, mutation.new))
    try:
        return _failure(mutation, copy)
    finally:
        path.write_text(whole)


def _failure(mutation: Mutation, copy: Path) -> str | None:
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / "examples"),
    }
    try:
        ran = subprocess.run(
            [*command, *mutation.tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{mutation.tests[0]} hangs"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", ran.stdout, re.M)
    if ran.returncode == 1 and failed is not None:
        return failed[1]
    if ran.returncode != 0:
        raise SystemExit(
            f"{mutation.mechanism}: its tests did not run:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())

"""Flame graphs of the processes that a stream goes through: `python -m bench.flame [--into docs]`.

32 clients stream one delta each, again and again; py-spy, which comes with Ray, samples the busiest host, a
replica and the supervisor one after the other while they hold the interpreter's lock.  Wide is what takes
long; what is called lies below what calls it.  The pictures are plain SVG: point at a frame for its name.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import psutil

from bench.load import Load, drive
from bench.processes import kind_of
from bench.systems import System, rayspond, upstream

PICTURES: Final = {"host": "hosts", "replica": "replicas", "supervisor": "supervisor"}
"""What is drawn, of which kind of process."""
CLIENTS: Final = 32
RATE: Final = 400
"""Samples a second."""
LEAST: Final = 0.004
"""The share of all samples below which a frame is left out."""
WIDTH: Final = 1200
ROW: Final = 17
LETTER: Final = 6.2
"""Width of a letter."""
_FRAME: Final = re.compile(r"(?P<function>.+) \((?P<file>[^()]+):\d+\)")
_ABOVE_OURS: Final = ("threading.py", "runners.py", "base_events.py")
_STYLE: Final = "text{font:11px sans-serif;fill:#222}rect{stroke:#fff;stroke-width:.5}"


@dataclass(slots=True)
class Frame:
    """A function, where it was seen, and what it called."""

    samples: int = 0
    calls: dict[str, Frame] = field(default_factory=dict)


def folded(lines: list[str]) -> Frame:
    """The tree of stacks as py-spy's `--format raw` has them."""
    root = Frame()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frame = root
        frame.samples += int(count)
        for name in filter(None, map(_name, stack.split(";"))):
            frame = frame.calls.setdefault(name, Frame())
            frame.samples += int(count)
    return root


def _name(text: str) -> str | None:
    found = _FRAME.fullmatch(text)
    if found is None:
        return text.split(": ")[-1]  # A thread.
    file = Path(found["file"]).name
    return None if file in _ABOVE_OURS else f"{found['function']} ({file})"


def svg(root: Frame, title: str) -> str:
    """The picture."""
    boxes: list[str] = []
    rows = _draw(boxes, root, 0.0, WIDTH / max(1, root.samples), 1)
    height = rows * ROW + 6
    body = "\n".join(boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n<text x="4" y="13">{escape(title)}</text>\n'
        f"{body}\n</svg>\n"
    )


def _draw(boxes: list[str], frame: Frame, left: float, scale: float, row: int) -> int:
    """Add the boxes of what a frame called, from that row on; the first row that nothing is in."""
    rows = row
    for name, called in sorted(frame.calls.items()):
        width = called.samples * scale
        if width >= LEAST * WIDTH:
            # Warm colours, the same for a file wherever it is seen.
            hue = sum(name.rpartition("(")[2].encode()) % 50
            shown = name[: int(width / LETTER)] if width > 4 * LETTER else ""
            share = 100 * width / WIDTH
            y = row * ROW + 3
            boxes.append(
                f'<g><title>{escape(name)}, {share:.1f} %</title><rect x="{left:.1f}" y="{y}" '
                f'width="{width:.1f}" height="{ROW}" fill="hsl({hue},80%,72%)"/>'
                f'<text x="{left + 2:.1f}" y="{y + 12}">{escape(shown)}</text></g>'
            )
            rows = max(rows, _draw(boxes, called, left, scale, row + 1))
        left += width
    return rows


def busiest(system: System, kind: str) -> psutil.Process:
    """Of the processes of that kind, the one that used most of a processor."""
    found = [one for one in system.process.children(recursive=True) if kind_of(one) == kind]
    return max(found, key=lambda one: sum(one.cpu_times()[:2]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.flame", description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="folder of the pictures (default: docs)"
    )
    parser.add_argument("--seconds", type=int, default=8, help="for each process (default: 8)")
    options = parser.parse_args()
    spy = shutil.which("py-spy", path=Path(sys.executable).parent)
    if spy is None:
        raise SystemExit("py-spy is missing: it comes with `make .venv/ready`")
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with upstream(scratch) as url, rayspond("shared", url, scratch) as system:
            _stream(system, 3.0)
            for name, kind in PICTURES.items():
                lines = _sampled(system, busiest(system, kind), spy, options.seconds, scratch)
                path = options.into / f"flame-{name}.svg"
                path.write_text(svg(folded(lines), f"A {name}, {CLIENTS} clients that stream one delta each"))
                print(f"{path}: {len(lines)} stacks", flush=True)


def _stream(system: System, seconds: float) -> None:
    load = Load("1 delta", system.scripted(1), CLIENTS, 1, seconds)
    asyncio.run(drive(system.url, load, None))


def _sampled(system: System, process: psutil.Process, spy: str, seconds: int, scratch: Path) -> list[str]:
    """The stacks of a process under load."""
    raw = scratch / f"{process.pid}.raw"
    load = threading.Thread(target=_stream, args=(system, seconds + 2.0))
    load.start()
    command = [spy, "record", "--pid", str(process.pid), "--duration", str(seconds), "--rate", str(RATE)]
    command += ["--gil", "--threads", "--nonblocking", "--format", "raw", "--output", str(raw)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        load.join()
    if done.returncode:
        raise SystemExit(f"py-spy could not look at process {process.pid}: {done.stderr.strip()}")
    return raw.read_text().splitlines()


if __name__ == "__main__":
    main()

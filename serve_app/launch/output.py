"""What `rayspond serve` shows: a line for each thing that is up, then what to do next."""

from __future__ import annotations

import contextlib
import sys
from typing import Final, TextIO

_SNIPPETS: Final = """
  curl {url}/v1/responses -H 'content-type: application/json' \\{authorization}
    -d '{{"model": "simulated", "input": "Hello!"}}'

  {imports}from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={key})
  print(client.responses.create(model="simulated", input="Hello!").output_text)
"""
_MAKE_A_KEY: Final = """
  export KEY=$(rayspond keys create first)"""


class Output:
    """Progress on standard output, trouble on standard error.  A reader that went away disturbs nothing."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    def began(self, what: str) -> None:
        """On a terminal: say what is waited for; the next line replaces it."""
        if self._terminal:
            self._write(sys.stdout, f"  {what} ...")

    def step(self, name: str, text: str, seconds: float) -> None:
        """`name` is up."""
        self.line(f"  {name:<14}{text:<58} {seconds:5.1f} s")

    def line(self, text: str) -> None:
        """One line of progress."""
        self._write(sys.stdout, f"{self._clear()}{text}\n")

    def snippets(self, url: str, *, keyed: bool) -> None:
        """What to paste next; `keyed` where nobody is served without a key."""
        if keyed:
            self.line(_MAKE_A_KEY)
        authorization = '\n    -H "authorization: Bearer $KEY" \\' if keyed else ""
        key = 'os.environ["KEY"]' if keyed else '"unused"'
        imports = "import os\n  " if keyed else ""
        self.line(_SNIPPETS.format(url=url, authorization=authorization, imports=imports, key=key))

    def trouble(self, text: str) -> None:
        """One line about what went wrong."""
        self._write(sys.stdout, self._clear())
        self._write(sys.stderr, f"rayspond: {text}\n")

    def _clear(self) -> str:
        return "\r\x1b[K" if self._terminal else ""

    @staticmethod
    def _write(file: TextIO, text: str) -> None:
        with contextlib.suppress(OSError):
            file.write(text)
            file.flush()

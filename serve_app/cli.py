"""The command line: `rayspond COMMAND`.  Each command is a small module that offers `command`."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Final

COMMANDS: Final = {
    "serve": "serve_app.commands.serve",
    "ps": "serve_app.commands.ps",
    "projects": "serve_app.commands.projects",
    "keys": "serve_app.commands.keys",
    "doctor": "serve_app.commands.doctor",
    "migrate": "serve_app.commands.migrate",
    "tail": "serve_app.commands.tail",
    "events": "serve_app.commands.events",
    "replay": "serve_app.commands.replay",
    "audit": "serve_app.commands.audit",
}
"""Name to module, in the order in which `--help` lists them.  A module is imported when it is needed."""


def main() -> None:
    """Run the command that the arguments name; exits with its code."""
    # Ctrl-C before anything has started ends us without a word; Python would show where it was.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import click

    from serve_app import settings
    from serve_app.launch.errors import CannotStart, StartFailed

    class Commands(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in COMMANDS:
                return None
            command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
            return command

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            rows = [
                (
                    f"{option.flag}, {option.variable}",
                    f"{option.explanation} [default: {option.shown_default}]",
                )
                for option in settings.options()
            ]
            with formatter.section("Settings (option of serve, environment variable)"):
                formatter.write_dl(rows)

    group = Commands("rayspond", help="A self-hosted agent runtime behind the Responses API.")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        group.main(prog_name="rayspond")
    except CannotStart as reason:
        print(f"rayspond: {reason}", file=sys.stderr)
        sys.exit(1 if isinstance(reason, StartFailed) else 2)


if __name__ == "__main__":
    main()

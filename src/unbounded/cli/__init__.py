"""The command `unbounded`: trains on a stream from the shell, shows the training, and writes reports."""

from __future__ import annotations

import signal
import sys
from typing import Any


def _run(app: Any) -> int:
    """Run typer's application. What was typed wrongly is one sentence on standard error, as of other commands."""
    try:
        return int(app(standalone_mode=False) or 0)
    except Exception as error:
        # Recent versions of typer have a copy of click's exceptions, and older ones import click's.
        words = getattr(error, "format_message", None)
        if words is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
        else:
            print(f"{words()} (unbounded --help lists what there is.)", file=sys.stderr)
        return int(error.exit_code)  # type: ignore[attr-defined]


def main() -> None:
    """Run the command; the console's entry point."""
    try:
        from unbounded.cli._app import app

        sys.exit(_run(app))
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("The command is made with typer, which is not installed: pip install 'unbounded[demo]'.")
    except KeyboardInterrupt:  # while the command was being imported
        sys.exit(130)
    finally:
        # All is written: a signal while the interpreter exits would only print a traceback.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

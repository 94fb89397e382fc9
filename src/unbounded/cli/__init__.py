"""The command `unbounded`: trains on a stream from the shell, shows the training, and writes reports."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command; the console's entry point."""
    try:
        from unbounded.cli._app import app

        app()
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

"""The command `unbounded`: train on a stream from the shell, watch it, and see what it would take to write it."""

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
    except KeyboardInterrupt:  # while the command itself was being loaded
        sys.exit(130)
    finally:
        # All is said and saved: a signal that comes while the interpreter ends would only leave a traceback.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

"""The command `unbounded`: train on a stream from the shell, watch it, and see what it would take to write it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; the console's entry point."""
    try:
        from unbounded.cli._app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.exit("The command is made with typer, which is not installed: pip install 'unbounded[demo]'.")
    app()

"""Errors, warnings and messages in the terms of the command: with its flags in place of the library's arguments."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from unbounded.detect._readings import SourceError

_INSTEAD = (
    ("Pass accept_changes=True", "Type it with --accept-changes"),
    ("pass accept_changes=True", "type it with --accept-changes"),
    ("accept_changes=True", "--accept-changes"),
    ("from_files(columns=…) asks for", "The run reads the column"),
    ("the same call of fit", "the same command"),
    ("The same call of fit", "The same command"),
)


def in_words(words: str) -> str:
    """A message of the library for a user of the command.

    Args:
        words: the text of an error or a warning.

    Returns:
        The text, with the command's flags in place of the library's arguments.
    """
    for old, new in _INSTEAD:
        words = words.replace(old, new)
    return words


def is_sentence(error: BaseException) -> bool:
    """True if an error was raised by this package with a message for the user.

    Args:
        error: the error.

    Returns:
        False for an error in a user's function or a framework, for which the traceback is needed.
    """
    if isinstance(error, SourceError | ModuleNotFoundError):
        return True
    if isinstance(error, LookupError | AttributeError | AssertionError | NameError):
        return False  # an internal error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("unbounded.")


def in_users_file(error: BaseException, source: str) -> str:
    """The traceback of an error in a user's function, from the user's file on.

    Args:
        error: the error.
        source: the source's name in the command.

    Returns:
        The text; empty if the error did not come from the source's file.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return "".join(traceback.format_exception_only(error))
    path, colon, _ = source.rpartition(":")
    if not Path(path).is_file():
        path = getattr(sys.modules.get(path), "__file__", None) or ""  # of MODULE:FUNCTION
    if not colon or not path:
        return ""
    trace = error.__traceback__
    while trace is not None:
        try:
            if Path(trace.tb_frame.f_code.co_filename).samefile(path):
                return "".join(traceback.format_exception(type(error), error, trace, chain=False))
        except OSError:
            pass
        trace = trace.tb_next
    return ""


@contextlib.contextmanager
def warnings_said(say: Callable[[str], None]) -> Iterator[None]:
    """Pass this package's warnings and log messages to `say`, without file names and line numbers.

    Args:
        say: receives sentences.
    """
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if "unbounded" in Path(filename).parts:
            say(in_words(str(message)))
        else:
            before(message, category, filename, lineno, file, line)

    logger, handler = logging.getLogger("unbounded"), _Said(say)
    propagate, logger.propagate = logger.propagate, False
    warnings.showwarning = show
    logger.addHandler(handler)
    try:
        yield
    finally:
        warnings.showwarning = before
        logger.removeHandler(handler)
        logger.propagate = propagate


class WithoutAdvice(io.TextIOBase):
    """Standard error without the library's advice at the end of a `fit`: the command prints its own.

    Args:
        out: receives all else.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._dropped = False

    def write(self, text: str) -> int:
        """Write text, except that advice and its line end, which comes in a call of its own."""
        dropped, self._dropped = self._dropped, "the same call of fit goes on" in text
        if not self._dropped and not (dropped and text == "\n"):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the output."""
        self._out.flush()

    def isatty(self) -> bool:
        """As the output."""
        return self._out.isatty()

    def fileno(self) -> int:
        """As the output."""
        return self._out.fileno()


class _Said(logging.Handler):
    """Passes on the library's log messages, except those about waiting, which the display shows itself."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.module != "_waiting":
            self._say(in_words(record.getMessage()))

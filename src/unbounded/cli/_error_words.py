"""Errors, warnings and messages in the words of the command: its flags, where the library names an argument."""

from __future__ import annotations

import contextlib
import io
import logging
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
    ("the same call of fit", "the same command"),
    ("The same call of fit", "The same command"),
)


def in_words(words: str) -> str:
    """A sentence of the library's for whoever typed the command.

    Args:
        words: of an error or a warning.

    Returns:
        The sentence, with the command's flags in place of the library's arguments.
    """
    for old, new in _INSTEAD:
        words = words.replace(old, new)
    return words


def is_sentence(error: BaseException) -> bool:
    """Whether an error was raised by this package's own code, to be read by whoever typed the command.

    Args:
        error: what was raised.

    Returns:
        False for what somebody's function, or a framework, stumbled over: there, the traceback is what helps.
    """
    if isinstance(error, SourceError | ModuleNotFoundError):
        return True
    if isinstance(error, LookupError | AttributeError | AssertionError | NameError):
        return False  # nobody wrote that for a reader
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("unbounded.")


def in_users_file(error: BaseException, source: str) -> str:
    """The traceback of an error in somebody's function, from there on.

    Args:
        error: what was raised.
        source: as in the command.

    Returns:
        The text; empty where the error did not come from the source's file.
    """
    path, colon, _ = source.rpartition(":")
    if not colon or not Path(path).is_file():
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
    """Say what this package warns of or logs as a remark, without the file and the line that it comes from.

    Args:
        say: is told sentences.
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
    """Standard error without what the library says there at the end of a `fit`: the command has words of its own.

    Args:
        out: where all else goes.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._dropped = False

    def write(self, text: str) -> int:
        """Write text, but for that sentence and the end of its line, which comes by itself."""
        dropped, self._dropped = self._dropped, "the same call of fit goes on" in text
        if not self._dropped and not (dropped and text == "\n"):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what is underneath."""
        self._out.flush()

    def isatty(self) -> bool:
        """As what is underneath."""
        return self._out.isatty()

    def fileno(self) -> int:
        """As what is underneath."""
        return self._out.fileno()


class _Said(logging.Handler):
    """Says the messages of the library's log; what it says of waiting, the display shows by itself."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        if record.module != "_waiting":
            self._say(in_words(record.getMessage()))

"""Does something at a line of the package that the main thread executes: the lines are first listed, then tried."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, TypeAlias

import unbounded

_PACKAGE = str(Path(unbounded.__file__).parent)

Line: TypeAlias = tuple[str, int]
"""A file's name and a line in it."""


class Lines:
    """Watches this thread's lines while it is entered.

    Args:
        act: called at one of them, before it is executed; what it raises comes out of that line.
        at: which: the line, and the how manieth time it is executed, from 0. None only lists them.
    """

    def __init__(self, act: Callable[[], None] | None = None, at: tuple[Line, int] | None = None) -> None:
        self._act = act
        self._at = at
        self._watched: dict[CodeType, bool] = {}  # whether a function's lines are traced
        self.times: dict[Line, int] = {}
        """How often each line was executed."""
        self.acted = False

    def __enter__(self) -> Lines:
        sys.settrace(self._call)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        watched = self._watched.get(code)
        if watched is None:
            watched = self._watched[code] = self._concerns(code)
        return self._line if watched else None

    def _concerns(self, code: CodeType) -> bool:
        """Whether a function's lines are of interest: all of the package's, or only those of the function with `at`,
        since tracing takes several times as long as what is traced."""
        if self._at is None:
            return code.co_filename.startswith(_PACKAGE)
        name, number = self._at[0]
        return code.co_filename == name and any(line == number for _, _, line in code.co_lines())

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            line = (frame.f_code.co_filename, frame.f_lineno)
            time = self.times.get(line, 0)
            self.times[line] = time + 1
            if self._at == (line, time):
                self.acted = True
                sys.settrace(None)
                assert self._act is not None
                self._act()
        return self._line


def places(times: dict[Line, int], most: int = 3) -> list[tuple[Line, int]]:
    """For each line the first times it was executed, and the last: `most` in all."""
    found = []
    for line, count in sorted(times.items()):
        chosen = {*range(min(count, most - 1)), count - 1}
        found += [(line, time) for time in sorted(chosen)]
    return found

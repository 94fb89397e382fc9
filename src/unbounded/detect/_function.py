"""Reading: a user's generator function, found by `FILE.py:FUNCTION` or `MODULE:FUNCTION`, called, and iterated."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from unbounded.detect._yielded import EXAMPLE, SourceError, Yielded, read_block

Grade = Literal["start", "state", "live"]


def load(path: Path, name: str) -> Callable[..., Any]:
    """Import a file and find a function in it.

    Args:
        path: of a Python file.
        name: of the function, or of anything that can be called.

    Returns:
        The function.

    Raises:
        SourceError: there is no such file, no such function, or it requires arguments.
    """
    if not path.is_file():
        raise SourceError(
            f"There is no file {path}. Write the path of a Python file, and a function in it: FILE.py:FUNCTION."
        )
    # As for a script: modules beside the file can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _checked(module, name, path)


def load_module(module: str, name: str) -> Callable[..., Any]:
    """Import a module and find a function in it.

    Args:
        module: its name, such as ``plant.sensors``; modules in the current directory are found, too.
        name: of the function.

    Returns:
        The function.

    Raises:
        SourceError: there is no such module, no such function, or it requires arguments.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # One that the module itself imports is the user's error.
        if not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise SourceError(
            f"There is no module {error.name}: it is neither installed nor in the current directory. Name a function "
            "as MODULE:FUNCTION or FILE.py:FUNCTION, and a file by its path."
        ) from None
    return _checked(found, name, Path(getattr(found, "__file__", None) or module))


def _checked(module: Any, name: str, path: Path) -> Callable[..., Any]:
    """A module's function, which is called without arguments."""
    function = getattr(module, name, None)
    if function is not None and not callable(function):
        raise SourceError(
            f"{name} in {path} is {type(function).__name__}, and a function is expected: one that yields dicts of "
            f"columns, such as {EXAMPLE}. {functions(path)}"
        )
    if function is None:
        raise SourceError(f"There is no function {name!r} in {path}. {functions(path)}")
    required = [
        parameter.name
        for parameter in _parameters(function).values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name != "start"
    ]
    if required:
        raise SourceError(
            f"{name} in {path} requires {', '.join(required)}, and it is called without arguments. Give each a "
            "default, or write a function that calls it with its arguments."
        )
    return function  # type: ignore[no-any-return]


def functions(path: Path) -> str:
    """The names of the functions of a file, as a sentence.

    Args:
        path: of a Python file.

    Returns:
        Such as ``It has: boiler, cellar.``; empty if the file can't be read.
    """
    import ast

    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ""
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return f"It has: {', '.join(names)}." if names else "It has no function."


def _parameters(function: Callable[..., Any]) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # callables written in C may have no signature
        return {}


class Reading:
    """A called function: its iterator, made once when it is first needed, and the blocks that were read ahead.

    Args:
        function: called without arguments, or with `start` if it has a parameter of that name.
        source: the source's name in the command.
    """

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self.function, self.source = function, source
        self._opened: Any = None  # (iterator, its state before the first block), until a stream takes them
        self._before: Any = None
        self._seen: list[Any] = []
        self.came: tuple[float, float] | None = None
        """When the first block was requested and when it came, in seconds since 1970; None if none was read ahead."""
        self._grade: Grade | None = "start" if "start" in _parameters(function) else None

    @property
    def grade(self) -> Grade:
        """How the function resumes: by `start`, by a state, or not; may call it."""
        if self._grade is None:
            self._open()
            has = all(hasattr(self._opened, name) for name in ("state_dict", "load_state_dict"))
            self._grade = "state" if has else "live"
        return self._grade

    def _open(self) -> None:
        if self._opened is None:
            self._opened = _iterator(self.function(), self.source)

    def first(self) -> Yielded:
        """The first block that has a row; it is read ahead, not lost.

        Raises:
            SourceError: there is none.
        """
        if self.grade == "start":
            blocks = self.blocks(0)
            try:
                for block in blocks:
                    if (yielded := read_block(block, self.source)).rows:
                        return yielded
            finally:
                blocks.close()  # type: ignore[attr-defined]
        else:
            if self.grade == "state":
                self._before = copy.deepcopy(self._opened.state_dict())
            asked = clock.time()
            for block in self._opened:
                self._seen.append(block)
                self.came = asked, clock.time()
                if (yielded := read_block(block, self.source)).rows:
                    return yielded
        raise SourceError(f"{self.source} yielded nothing. It is to yield dicts of columns, such as {EXAMPLE}.")

    def blocks(self, start: int = 0) -> Iterator[Any]:
        """The blocks that it yields, from row `start` if it has that parameter; otherwise from where it is.

        Args:
            start: the number of the first row, for functions with a parameter `start`.
        """
        if self._grade == "start":
            iterator = _iterator(self.function(start=start), self.source)
        else:
            self._open()
            iterator, self._opened = self._opened, None
            seen, self._seen = self._seen, []
            yield from seen
        try:
            yield from iterator
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def take(self) -> tuple[Any, Any, list[Any]]:
        """The iterator, for a stream that keeps its state.

        Returns:
            The iterator, its state before the blocks that were read ahead, and these blocks.
        """
        self._open()
        taken = self._opened, self._before, self._seen
        self._opened, self._before, self._seen = None, None, []
        return taken


def _iterator(returned: Any, source: str) -> Iterator[Any]:
    """The iterator over a function's result."""
    if hasattr(returned, "__aiter__") or inspect.isawaitable(returned):
        close = getattr(returned, "close", None)
        if close is not None:
            close()  # a coroutine that is never awaited would cause a warning
        raise SourceError(
            f"{source} is asynchronous, and a plain generator function is expected: def, with a loop that yields "
            f"dicts of columns, such as {EXAMPLE}."
        )
    if isinstance(returned, dict | str | bytes) or not hasattr(returned, "__iter__"):
        raise SourceError(
            f"{source} returned {type(returned).__name__}, and it is to yield one reading after the other:\n\n"
            "    def readings():\n"
            "        while True:\n"
            "            yield {'temperature': read()}\n"
        )
    return iter(returned)

"""The map of files in docs/design.md, made of the modules' docstrings; `python tests/file_map.py` writes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent / "src" / "unbounded"
DESIGN = ROOT.parent.parent / "docs" / "design.md"
# From below: a room imports from itself and from those before it. See test_imports.py.
ROOMS = (
    "core",
    "store",
    "sources",
    "sources/datasets",
    "sources/files",
    "stages",
    "feed",
    "simulation",
    "keras",
    "detect",
    "cli",
)
MAP = re.compile(r"(?<=^```\nsrc/unbounded/\n).*?(?=^tests/ )", re.S | re.M)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?!])\s", text)[0].rstrip(".")


def _line(indent: int, name: str, path: Path) -> str:
    return f"{' ' * indent}{name:<{max(24 - indent, len(name) + 1)}}{first_sentence(path)}\n"


def _files(folder: Path, indent: int) -> str:
    files = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    return "".join(_line(indent, path.name, path) for path in files)


def file_map() -> str:
    """The lines of all modules, and of the rooms, each with the first sentence of its docstring."""
    lines = _line(2, "__init__.py", ROOT / "__init__.py") + _files(ROOT, 2)
    for room in ROOMS:
        lines += _line(2, f"{room}/", ROOT / room / "__init__.py") + _files(ROOT / room, 4)
    return lines


if __name__ == "__main__":
    DESIGN.write_text(MAP.sub(lambda found: file_map(), DESIGN.read_text()))

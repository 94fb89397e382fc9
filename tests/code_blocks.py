"""The code blocks of README.md, CONTRIBUTING.md and docs/, and how each kind of them is run or checked.

- `python`: executed, those of a page from top to bottom with shared names; or the text of a program in examples/.
- `text`: what the blocks of code before it have printed.
- `sh`, or no language: commands whose targets, options and files must exist.

Pages with Keras are run by test_keras_readme.py, all others by test_code_blocks.py.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parent.parent
PAGES = {
    path.relative_to(TOP).as_posix(): path.read_text()
    for path in [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]
}
# Their blocks without code are drawings and the map of files, which test_docs.py checks.
DRAWINGS = {"docs/design.md"}
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.S | re.M)
PROGRAM = re.compile(r'--8<-- "examples/(\w+)\.py"\n')


@dataclass(frozen=True)
class Block:
    """One fenced block with its language, and the line of its page in which its text begins (from 0)."""

    page: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    text = PAGES[page]
    usual = "drawing" if page in DRAWINGS else "sh"
    return [
        Block(page, text[: found.start(2)].count("\n"), found[1].strip() or usual, found[2])
        for found in FENCE.finditer(text)
    ]


def python(page: str) -> list[str]:
    """The text of each block of Python that is not a program in examples/."""
    return [b.text for b in blocks(page) if b.language == "python" and not PROGRAM.fullmatch(b.text)]


def has_keras(page: str) -> bool:
    return any(re.search(r"^import keras|^from keras", text, re.M) for text in python(page))


def programs() -> set[str]:
    """The names of the programs in examples/ whose text is on a page."""
    found = (PROGRAM.fullmatch(block.text) for page in PAGES for block in blocks(page))
    return {match[1] for match in found if match}


def run_page(
    page: str, capsys: pytest.CaptureFixture[str], names: dict[str, Any], shorter: dict[str, str] | None = None
) -> None:
    """Executes a page from top to bottom, in the current directory.

    Args:
        page: its path.
        capsys: what it prints.
        names: names that the page expects of its reader; those that it defines are added.
        shorter: text that is replaced so that it takes less time; each must be there.
    """
    for old in shorter or ():
        assert any(old in text for text in python(page)), f"{page} has no {old!r} any more"
    capsys.readouterr()
    for block in blocks(page):
        if block.language == "python" and not PROGRAM.fullmatch(block.text):
            text = block.text
            for old, new in (shorter or {}).items():
                text = text.replace(old, new)
            exec(compile("\n" * block.line + text, page, "exec"), names)
        elif block.language == "text":
            printed = capsys.readouterr().out
            assert printed.endswith(block.text), f"{page}, line {block.line}: it prints {printed!r}"


def check_command(line: str, files: set[str]) -> None:
    """Fails where a line of a shell is no command, or names a target, an extra, an option or a file that is not there.

    Args:
        line: the line, perhaps with a comment.
        files: the names of the files that the page has its reader save.
    """
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    if not words:
        return
    command, *rest = words
    if command == "make":
        targets = re.findall(r"^(\w[\w-]*):", (TOP / "Makefile").read_text(), re.M)
        assert set(word for word in rest if "=" not in word) <= set(targets), line
    elif command == "pip":
        assert rest[:2] == ["install", "-e"], line
        extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.fullmatch(r"\.(?:\[(.*)\])?", rest[2])
        assert named is not None, line
        assert set((named[1] or "").split(",")) - {""} <= set(extras), line
    elif command == "python":
        assert rest[0] in files or (TOP / rest[0]).is_file(), f"{line}: no such file"
    elif command == "unbounded":
        check_options(rest, files)
    else:
        pytest.fail(f"{line!r}: a command that no test knows")


def check_options(words: list[str], files: set[str]) -> None:
    """Has the command parse its options, without running it."""
    import typer.main

    from unbounded.cli._app import app

    group: Any = typer.main.get_command(app)
    if words == ["-h"]:
        return
    command = group.commands[words[0]]
    if words[1:] == ["-h"]:
        return
    command.make_context(words[0], words[1:])
    if found := re.fullmatch(r"(\w+\.py):\w+", words[1]):
        assert found[1] in files, f"{words[1]}: the page has no such file"

"""Each code block of README.md, CONTRIBUTING.md and docs/ is run, or checked to be what can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import code_blocks
from code_blocks import PAGES, PROGRAM, TOP, blocks, check_command, has_keras, run_page
from test_recipes import EXAMPLES

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks.python(page) and not has_keras(page)])
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, capsys, {"__name__": page})


def test_there_is_no_block_of_another_kind() -> None:
    for page, text in PAGES.items():
        found = blocks(page)
        assert text.count("```") == 2 * len(found), f"{page}: a fence that is not at the beginning of its line"
        assert "~~~" not in text, f"{page}: fences are ```"
        for block in found:
            known = ("python", "sh", "text", "drawing")
            assert block.language in known, f"{page}, line {block.line}: {block.language!r}"


def test_each_command_in_the_pages_exists() -> None:
    for page in PAGES:
        saved = set(re.findall(r"^# (\w+\.py)$|Save this as `(\w+\.py)`", PAGES[page], re.M))
        files = {name for names in saved for name in names if name}
        for block in blocks(page):
            if block.language == "sh":
                for line in block.text.splitlines():
                    check_command(line, files)


def test_each_program_in_the_examples_is_on_a_page() -> None:
    assert code_blocks.programs() == {path.stem for path in EXAMPLES.glob("*.py")}, "a program without a page"
    for page in PAGES:
        for block in blocks(page):
            assert ("--8<--" in block.text) == bool(PROGRAM.fullmatch(block.text)), f"{page}, line {block.line}"


def test_pictures_in_the_pages_exist() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert (TOP / page).parent.joinpath(target).is_file(), f"{page}: {target}"

"""The pages of docs/ run as they stand, and every public name has an example that runs."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import unbounded as ub

PAGES = Path(__file__).parent.parent / "docs"

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize("page", ["sources", "promises"])
def test_the_code_of_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (PAGES / f"{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)
    assert blocks
    names: dict[str, Any] = {"__name__": page}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, f"docs/{page}.md", "exec"), names)

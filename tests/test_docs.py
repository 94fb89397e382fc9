"""The code of the pages in docs/ runs, every public name has an example, and the map of files is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import file_map
import unbounded as ub

PAGES = Path(__file__).parent.parent / "docs"
# A protocol is shown by its page, and by `from_source`; an opening by the page.
SHOWN_ELSEWHERE = {"Source", "Reader", "Opening"}
# The words of a stream: its public methods that give a stream, and those that look at one.
STREAM = {
    *("map", "map_rows", "random_map", "filter", "columns", "shuffle", "buffer", "windows", "normalize", "replay"),
    *("take", "batch", "prefetch", "join", "exclude", "peek", "shapes", "describe", "batch_at", "rows_at", "step_of"),
    *("encode", "fill", "drop_missing", "time", "read", "__iter__"),
    *("balance", "flat_map", "images", "pad", "split"),
}

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


def test_every_public_name_has_an_example() -> None:
    public = {f"ub.{name}": getattr(ub, name) for name in ub.__all__ if name not in SHOWN_ELSEWHERE}
    public |= {f"ub.testing.{name}": getattr(ub.testing, name) for name in ub.testing.__all__}
    public |= {f"Stream.{name}": getattr(ub.Stream, name) for name in STREAM}
    assert [name for name, value in public.items() if ">>>" not in (value.__doc__ or "")] == []


def test_what_is_shown_elsewhere_is_on_the_page_of_sources() -> None:
    text = (PAGES / "sources.md").read_text()
    assert [name for name in SHOWN_ELSEWHERE if name.lower() not in text.lower()] == []


def test_the_map_of_files_has_the_first_sentence_of_each_docstring() -> None:
    (found,) = file_map.MAP.findall(file_map.DESIGN.read_text())
    assert found.splitlines() == file_map.file_map().splitlines(), "python tests/file_map.py writes the map anew"
    rooms = {path.parent.relative_to(file_map.ROOT).as_posix() for path in file_map.ROOT.rglob("__init__.py")} - {"."}
    assert set(file_map.ROOMS) == rooms

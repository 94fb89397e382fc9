"""Pages: cursors refer to them, and a save writes those that are not on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.pages import Page, as_page, join_pages, split_pages, write_pages
from unbounded.store.checkpoints import Checkpoints

CURSOR: Any = {
    "inputs": [{"row": 3, "page": 5}],
    "own": {"snapshot": Page("a", {"x": np.arange(3)}), "log": [Page("b", np.ones(2)), Page("c", np.zeros(1))]},
}


def test_pages_are_taken_out_of_a_cursor_and_put_back() -> None:
    plain, pages = split_pages(CURSOR)
    assert list(pages) == ["a", "b", "c"]
    assert plain["inputs"] == CURSOR["inputs"]  # whatever a reader's position is made of
    back = join_pages(from_plain(to_plain(plain)), pages.__getitem__)
    assert back["own"]["log"][1] is not None
    assert back["own"]["log"][1].tree is pages["c"]
    assert to_plain(back) == to_plain(CURSOR)


def test_a_cursor_as_plain_data_has_its_pages_inside() -> None:
    plain = from_plain(to_plain(CURSOR))
    page = as_page(plain["own"]["snapshot"])
    assert page is not None
    assert page.id == "a"
    assert page.tree["x"].tolist() == [0, 1, 2]


def test_each_page_is_written_once_and_as_often_as_its_file_was_removed(tmp_path: Path) -> None:
    _, pages = split_pages(CURSOR)
    with Checkpoints(tmp_path) as store:
        first = write_pages(store, pages, [])
        store.write(1, {}, {}, segments=first)
        written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "segments").iterdir()}
        more = write_pages(store, {**dict(list(pages.items())[1:]), "d": {"x": np.arange(5)}}, first)
        store.write(2, {}, {}, segments=more)
        assert [segment.name for segment in more] == ["b", "c", "d"]
        after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "segments").iterdir()}
        assert {name: after[name] for name in written} == written
        assert len(after) == 4
        (tmp_path / "segments" / more[0].file).unlink()
        store.write(3, {}, {}, segments=write_pages(store, pages, more))
        saved = store.newest()
        assert saved is not None
        assert saved.read_segment("b").tolist() == [1, 1]

"""Pages: cursors refer to them, and a save writes those that are not on the disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import unbounded as ub
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


def keyed(rows: int = 40_000) -> ub.Stream:
    """Windows and statistics of 300 keys."""
    table = {"k": np.arange(rows) * 7 % 300, "x": np.sin(np.arange(rows))}
    return ub.from_arrays(table, shuffle=False).normalize("x", by="k").windows(8, by="k").batch(20)


def test_a_checkpoint_has_keyed_rows_in_files_of_arrays_and_a_run_goes_on_from_them(tmp_path: Path) -> None:
    with ub.Feed(keyed()) as feed:
        expected = [batch["x"].copy() for batch in itertools.islice(feed.batches(), 2800)]
    seen = []
    for _ in range(4):
        with ub.Feed(keyed()) as feed:
            feed.load(tmp_path)
            for batch in itertools.islice(feed.batches(), 700):
                seen.append(batch["x"].copy())
                feed.trained()
            path = feed.save(tmp_path)
        assert (path / "manifest.json").stat().st_size < 20_000
    assert list((tmp_path / "segments").iterdir())
    assert np.concatenate(seen).tobytes() == np.concatenate(expected).tobytes()


def test_a_save_writes_what_changed(tmp_path: Path) -> None:
    # 20,000 keys that are silent from some row on, and ten that are not.
    rows = {"k": np.concatenate([np.arange(20_000), np.arange(60_000) % 10]), "x": np.zeros((80_000, 16))}

    def some(start: int = 0) -> Iterator[Any]:
        for at in range(start, 80_000, 500):
            yield {name: column[at : at + 500] for name, column in rows.items()}

    with ub.Feed(ub.from_generator(some).windows(2, by="k").batch(10)) as feed:
        sizes = []
        for step, _ in enumerate(feed.batches()):
            feed.trained()
            if step % 100 == 99:
                before = {path.name for path in (tmp_path / "segments").glob("*")}
                feed.save(tmp_path)
                new = [path for path in (tmp_path / "segments").iterdir() if path.name not in before]
                sizes.append(sum(path.stat().st_size for path in new))
            if len(sizes) == 10:
                break
    assert max(sizes) > 20_000 * 16 * 8
    # But for the first save and one with a new snapshot: 1,000 rows between two saves, and what was in no full page.
    assert sorted(sizes)[-3] < 1_000 * 17 * 8 + (1 << 18) + 100_000
    assert sorted(sizes)[5] > 0


def test_what_saves_write_over_a_long_run_is_bounded_by_the_rows_that_came(tmp_path: Path) -> None:
    # 500 keys that hold 9 rows each, 1,000 rows between two saves.
    rows = {"k": np.arange(150_000) * 7 % 500, "x": np.zeros((150_000, 16))}
    stream = ub.from_arrays(rows, shuffle=False, passes=1).windows(10, by="k").batch(500)
    with ub.Feed(stream) as feed:
        written: dict[str, int] = {}
        saves = 0
        for step, _ in enumerate(feed.batches()):
            feed.trained()
            if step % 2:
                feed.save(tmp_path)
                saves += 1
                written |= {path.name: path.stat().st_size for path in (tmp_path / "segments").glob("*")}
    row, held = 17 * 8, 500 * (9 * 17 + 3) * 8
    # Rows, once each; snapshots, once for twice their bytes of rows; and again with each save what is in no full page.
    assert sum(written.values()) < 150_000 * row * 1.5 + saves * ((1 << 18) + 3 * held / 16 + 10_000)

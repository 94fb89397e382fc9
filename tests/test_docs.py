"""Every public name has an example, and a place in the API's pages; the map of files is true."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_every_public_name_has_an_example() -> None:
    public = {f"ub.{name}": getattr(ub, name) for name in ub.__all__ if name not in SHOWN_ELSEWHERE}
    public |= {f"ub.testing.{name}": getattr(ub.testing, name) for name in ub.testing.__all__}
    public |= {f"Stream.{name}": getattr(ub.Stream, name) for name in STREAM}
    assert [name for name, value in public.items() if ">>>" not in (value.__doc__ or "")] == []


def test_every_public_name_is_on_a_page_of_the_api() -> None:
    pages = "\n".join(path.read_text() for path in sorted((PAGES / "api").glob("*.md")))
    named = set(re.findall(r"^::: ([\w.]+)$", pages, re.M))
    keras = re.findall(r"\"(\w+)\"", (file_map.ROOT / "keras" / "__init__.py").read_text().split("__all__", 1)[1])
    public = {f"unbounded.{name}" for name in ub.__all__} | {f"unbounded.keras.{name}" for name in keras}
    assert named == public | {f"unbounded.testing.{name}" for name in ub.testing.__all__}
    members = pages.split("::: unbounded.Stream\n", 1)[1].split(":::", 1)[0]
    words = [kind for kind in ub.Stream.__mro__ if kind is ub.Stream or kind.__name__.endswith("Words")]
    methods = {name for kind in words for name in vars(kind) if not name.startswith("_")}
    looks = {"batch_at", "rows_at", "step_of", "guarantee"}
    assert set(re.findall(r"^ +- (\w+)$", members, re.M)) == methods | looks


def test_what_is_shown_elsewhere_is_on_the_page_of_sources() -> None:
    text = (PAGES / "sources.md").read_text()
    assert [name for name in SHOWN_ELSEWHERE if name.lower() not in text.lower()] == []


def test_the_map_of_files_has_the_first_sentence_of_each_docstring() -> None:
    (found,) = file_map.MAP.findall(file_map.DESIGN.read_text())
    assert found.splitlines() == file_map.file_map().splitlines(), "python tests/file_map.py writes the map anew"
    rooms = {path.parent.relative_to(file_map.ROOT).as_posix() for path in file_map.ROOT.rglob("__init__.py")} - {"."}
    assert set(file_map.ROOMS) == rooms

"""Pages: rows and state of keyed stages as immutable trees of arrays, to which cursors refer.

A cursor is small but the state of a keyed stage is not, so the cursor contains pages by reference. A save takes the
pages out of the cursor, writes those that are not on the disk yet, and a load puts them back. Where pages are saved,
and for how long, is left to the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from unbounded.core.cursor import Cursor
from unbounded.core.trees import Tree

_REFERENCE = "$page"


class Page(NamedTuple):
    """A part of a keyed stage's state.

    `id` is unique among all pages of all runs; `tree` consists of arrays and plain data.
    """

    id: str
    tree: Tree


def as_page(value: Any) -> Page | None:
    """A Page from a value that may be a Page, or the tuple that `to_plain` made of one."""
    return None if value is None else Page(*value)


def split_pages(cursor: Cursor) -> tuple[Cursor, dict[str, Tree]]:
    """A cursor with references in place of its pages, and the pages' trees by their ids.

    Example:
        >>> split_pages({"row": 7, "log": [Page("a", {"x": 1})]})
        ({'row': 7, 'log': [{'$page': 'a'}]}, {'a': {'x': 1}})
    """
    pages: dict[str, Tree] = {}

    def split(value: Any) -> Any:
        if isinstance(value, Page):
            pages[value.id] = value.tree
            return {_REFERENCE: value.id}
        return _each(split, value)

    plain: Cursor = split(cursor)
    return plain, pages


def join_pages(plain: Cursor, load: Callable[[str], Tree]) -> Cursor:
    """The inverse of `split_pages`; `load` returns the tree of a page id.

    Example:
        >>> join_pages({"row": 7, "log": [{"$page": "a"}]}, {"a": {"x": 1}}.__getitem__)
        {'row': 7, 'log': [Page(id='a', tree={'x': 1})]}
    """

    def join(value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) == 1 and _REFERENCE in value:
            return Page(value[_REFERENCE], load(value[_REFERENCE]))
        return _each(join, value)

    cursor: Cursor = join(plain)
    return cursor


def _each(fn: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: fn(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fn(item) for item in value]
    if isinstance(value, tuple):
        items = [fn(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


class _PageSegment(Protocol):
    @property
    def name(self) -> str: ...


S = TypeVar("S", bound=_PageSegment)


class _Store(Protocol[S]):
    """What pages need of a checkpoint directory: files that several checkpoints share."""

    def add_segment(self, name: str, arrays: Tree) -> S: ...

    def has(self, segment: S) -> bool: ...


def write_pages(store: _Store[S], pages: Mapping[str, Tree], known: Collection[S]) -> list[S]:
    """Write each page that is not on the disk yet, as a segment named by the page's id.

    Args:
        store: the directory of checkpoints.
        pages: trees by page id, from `split_pages`.
        known: segments that this run wrote before, or that the checkpoint listed from which it resumed. Those that are
            not pages of the cursor are left out of the result.

    Returns:
        One segment for each page, in the order of `pages`.
    """
    there = {segment.name: segment for segment in known}
    segments: list[S] = []
    for name, tree in pages.items():
        segment = there.get(name)
        if segment is None or not store.has(segment):
            segment = store.add_segment(name, tree)
        segments.append(segment)
    return segments

"""Pages: the rows and the state of keyed stages, as immutable trees of arrays that cursors refer to.

A cursor is small, and a keyed stage's state is not: the cursor holds pages by reference, and nobody changes a page once
it was made. Whoever saves a cursor takes the pages out of it, writes those that are not saved yet, and puts them back
when it is read. Where each page is saved, and for how long, is left to the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from unbounded.core.cursor import Cursor
from unbounded.core.trees import Tree

_REFERENCE = "$page"


class Page(NamedTuple):
    """Part of a keyed stage's state.

    `id` is unlike that of any other page, of this run or of another one; `tree` is made of arrays and plain data.
    """

    id: str
    tree: Tree


def as_page(value: Any) -> Page | None:
    """A page that was made plain data of, as `to_plain` does, is a tuple."""
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
    """The cursor that `split_pages` was given; `load` gives a page's tree for its id.

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
    """What a directory of checkpoints does with files that several checkpoints share."""

    def add_segment(self, name: str, arrays: Tree) -> S: ...

    def has(self, segment: S) -> bool: ...


def write_pages(store: _Store[S], pages: Mapping[str, Tree], known: Collection[S]) -> list[S]:
    """Write each page that is not on the disk yet, as a segment with the page's id as its name.

    Args:
        store: where to.
        pages: by their ids, from `split_pages`.
        known: segments that were written before or that the checkpoint listed from which the run goes on; of these,
            those that are no pages of the cursor at hand are left out of what is returned.

    Returns:
        One segment for each page, in their order.
    """
    there = {segment.name: segment for segment in known}
    segments: list[S] = []
    for name, tree in pages.items():
        segment = there.get(name)
        if segment is None or not store.has(segment):
            segment = store.add_segment(name, tree)
        segments.append(segment)
    return segments

"""FlatMap: a function makes any number of rows of each record.

A position is a record and a number of its rows. A resume calls the function for that record again, and skips that many
of its rows: the rows of a record need not be in memory together, nor are those of earlier records made again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from unbounded.core import check, ragged, row_spec, trees, user_code
from unbounded.core.block import Block
from unbounded.core.input_buffer import InputBuffer
from unbounded.core.node import Context, Cursor, Node
from unbounded.core.trees import Array, RowsError, Tree
from unbounded.stages.stage import Holding, Stage, name_of

_STACKED = 256
"""Single rows that are stacked at a time, and rows after which a block is passed on."""
_SCALARS = frozenset({bool, int, float, complex, str, np.str_, *(np.dtype(code).type for code in "?bhilqBHILQefdFD")})
_CUT = 4096
"""The rows of a tree that are copied at a time."""


@dataclass(frozen=True)
class FlatMap(Stage):
    """See `Stream.flat_map`."""

    fn: Callable[[Tree], Any]
    word: ClassVar[str] = "flat_map"

    def __post_init__(self) -> None:
        check.function(self.fn, "flat_map(fn)", "row")

    def rows_per_pass(self, rows: int | None) -> int | None:
        return None

    def open(self, upstream: Node, context: Context) -> Node:
        return _FlatMapNode(upstream, self.fn, max(_STACKED, context.batch_rows))


class _FlatMapNode(Holding):
    """The first row held is the record at hand, of which `given` rows were returned."""

    def __init__(self, upstream: Node, fn: Callable[[Tree], Any], most: int) -> None:
        super().__init__(upstream)
        self._fn = fn
        self._most = most
        self._form = _RowForm(f"flat_map({name_of(fn)})")
        self._made: _MadeRows | None = None
        self._begin(0)

    def _begin(self, given: int) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._given = given
        self._failure: Exception | None = None  # raised by the next pull, which changes nothing
        self._drop_made()

    def _drop_made(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure
        while True:
            if not held.blocks and not held.pull(timeout):
                return None
            block = held.blocks[0]
            out = self._next(block) if block.count else held.pop(0)
            held.keep(held.head)
            if out is not None:
                return out

    def _next(self, block: Block) -> Block | None:
        """Rows of the records of a block; None if these have none. Until it returns, nothing has changed for `own`."""
        # Taken out: if the function raises, its rows so far are lost, and the next pull begins the record again.
        made, self._made = self._made, None
        record, given, total = 0, self._given, 0
        parts: list[Tree] = []
        of: list[int] = []  # the record of each row
        try:
            while record < block.count and total < self._most:
                if made is None:
                    made = _MadeRows(self._fn, block.rows, record, self._form, given)
                rows = made.next()
                if rows is None:
                    record, given, made = record + 1, 0, None
                    continue
                parts.append(rows)
                of += [record] * (count := trees.count(rows))
                given += count
                total += count
        except Exception as error:
            if not parts:
                raise
            self._failure, made = error, None  # first what was made before it
        over = record == block.count
        out = Block(None, 0, block.boundary) if over else None
        if parts:
            times, provenance, seen = (_each(of, beside) for beside in (block.times, block.provenance, block.seen))
            out = Block(trees.join(parts), total, block.boundary if over else None, times, provenance, seen)
        self._held.drop(record)
        self._given, self._made = given, made
        return out if out is not None and (out.count or out.boundary) else None

    def own(self) -> Mapping[str, Any]:
        return {"given": self._given}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["given"])

    def restore(self, cursor: Cursor) -> None:
        self._drop_made()
        super().restore(cursor)

    def close(self) -> None:
        self._drop_made()
        super().close()


def _each(of: list[int], beside: Any) -> Any:
    """The times, provenance or `seen` of the records that rows are of."""
    return None if beside is None else beside[of]


class _MadeRows:
    """The rows that a function makes of one record, some at a time.

    Args:
        fn: the user's function.
        rows: the block with the record.
        record: its number in the block.
        form: the form that its rows must have.
        skip: the rows to leave out at first.
    """

    def __init__(self, fn: Callable[[Tree], Any], rows: Tree, record: int, form: _RowForm, skip: int) -> None:
        self._form = form
        self._skip = skip
        # Copies, since the function may write to them.
        row = trees.map_leaves(lambda leaf: leaf[record].copy() if leaf.ndim > 1 else leaf[record], rows)
        self._value = value = user_code.call(fn, row)
        if isinstance(value, (dict, tuple, np.ndarray)):
            self._pieces = _cut(form.rows(value))
        elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
            self._pieces = _stacked(iter(value), form, ragged.names_of(rows))
        else:
            raise RowsError(
                f"{form.what} returned {'None' if value is None else f'a {type(value).__name__}'}. Expected the rows "
                "of a record: `yield` one row after the other, or return a list of single rows, or an array, a dict or "
                "a tuple of arrays that share their first dimension. A record without rows gives []."
            )

    def next(self) -> Tree | None:
        """The next rows; None after the last."""
        while True:
            rows = user_code.call(next, self._pieces, None)
            if rows is None:
                return None
            count = trees.count(rows)
            over = min(self._skip, count)
            self._skip -= over
            if over < count:
                return trees.cut(rows, over, count)

    def close(self) -> None:
        """Close the function's generator, if it is one."""
        close = getattr(self._value, "close", None)
        if isinstance(self._value, Iterator) and close is not None:
            close()


def _cut(rows: Tree) -> Iterator[Tree]:
    """Copies of rows, some at a time: the function may reuse its memory for the next record."""
    count = trees.count(rows)
    for start in range(0, count, _CUT):
        yield trees.map_leaves(trees.copied, trees.cut(rows, start, min(start + _CUT, count)))


def _stacked(rows: Iterator[Any], form: _RowForm, names: frozenset[Any]) -> Iterator[Tree]:
    """Single rows as rows, some at a time."""
    while found := [_kept(each, names) for each in itertools.islice(rows, _STACKED)]:
        stacked = _as_columns(found)
        yield form.checked(stacked) if stacked is not None else trees.join([form.row(each) for each in found])


def _kept(row: Tree, names: frozenset[Any]) -> Tree:
    """A row without memory that the function may reuse for the next one. The columns `names` of the records are
    ragged, and so are those of the rows."""
    row = ragged.box_columns(row, names)
    if type(row) is dict and not any(type(part) not in _SCALARS for part in row.values()):
        return dict(row)
    return row if type(row) in _SCALARS else trees.map_leaves(_copied, row)


def _copied(leaf: Any) -> Any:
    return leaf if type(leaf) in _SCALARS else np.array(trees.unmasked(leaf), order="C")


def _as_columns(rows: list[Any]) -> Tree | None:
    """Rows that are dicts of plain numbers and text, each column of one type, as arrays; None for any others, which are
    made arrays one by one: that takes ten times as long."""
    names = rows[0].keys() if type(rows[0]) is dict else ()
    if not names or any(type(row) is not dict or row.keys() != names for row in rows):
        return None
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        kind = type(values[0])
        if kind not in _SCALARS or any(type(value) is not kind for value in values):
            return None
        columns[name] = np.array(values)
        if columns[name].dtype != np.array(values[0]).dtype and kind not in (str, np.str_):
            return None  # such as an int beyond 64 bits among others
    return columns


class _RowForm:
    """The form that all rows must have: that of the first ones. `what` is the function's call, for errors."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._spec: Tree = None

    def rows(self, tree: Tree) -> Tree:
        """A tree of rows as arrays."""
        rows = trees.as_rows(tree, f"What {self.what} returned")
        return self.checked(rows) if trees.count(rows) else rows

    def row(self, tree: Tree) -> Tree:
        """A single row as arrays of one row, copied."""
        return self.checked(trees.map_leaves(_one_row, tree))

    def checked(self, rows: Tree) -> Tree:
        """The rows; raises RowsError if they are of another form than the first ones."""
        if self._spec is None:
            if next(trees.leaves(rows), None) is None:
                raise RowsError(f"{self.what} gave a row without an array. Expected at least one array or number.")
            self._spec = row_spec.spec(rows)
        elif not row_spec.fits(self._spec, rows):
            row_spec.check_same(self._spec, rows, f"A row of {self.what}")
        return rows


def _one_row(leaf: Any) -> Array:
    return np.array(trees.unmasked(leaf), order="C")[None]

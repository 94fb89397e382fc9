"""Iteration: the blocks of what a user function yields: copied, checked, stamped with arrival times, samples stacked.

What is yielded is copied at once: a generator may reuse its memory, and later stages never write to the user's arrays.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

from unbounded.core import row_spec, trees, user_code
from unbounded.core.block import Block
from unbounded.core.locked import locked
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Array, Tree
from unbounded.sources.as_block import AsBlock
from unbounded.sources.ragged_columns import RaggedNames

_MOST_SAMPLES = 256
_SOON = 0.01  # seconds after which stacked samples are returned, however few; and after which nothing more is offered
_ENDED = object()
_NONE = object()  # None is a value that a function may yield, by mistake
Offer: TypeAlias = Callable[[Any, bool], int]
"""Takes a value that a function yielded, which is a sample or a tree of rows; returns the number of rows, or 0 if it
does not take it."""


class Form:
    """The required form of one function's rows, set by the first of them.

    Args:
        word: the constructor that the user called, `from_generator` or `from_samples`.
        name: the function's name, or the call of a constructor.
        single: True if it yields single samples.
        runtime: its clock gives the arrival times.
        ragged: the columns of samples that have rows of several lengths.
    """

    def __init__(
        self, word: str, name: str, single: bool, runtime: Runtime, ragged: tuple[Any, ...] | None = None
    ) -> None:
        self.ragged = RaggedNames(ragged, word) if ragged else None
        self.word = word
        self.name = name
        self.single = single
        self.runtime = runtime
        self._as_block = AsBlock(
            name if name.endswith(")") else f"{name}()", runtime, what="Sample" if single else "Row"
        )

    def block(self, rows: Tree, number: int) -> Block:
        """Rows as a block; raises RowsError if their form differs from earlier rows."""
        self._as_block.row = number
        return self._as_block.block(rows)


class Made:
    """The result of one call of the function, to be iterated once."""

    def __init__(self, fn: Callable[..., Any], form: Form, **given: Any) -> None:
        self.value = value = user_code.call(fn, **given)
        refused = (Mapping, str, bytes) if form.single else (Mapping, str, bytes, np.ndarray)
        if inspect.isasyncgen(value) or inspect.iscoroutine(value):
            if inspect.iscoroutine(value):
                value.close()  # it will not be awaited
            raise TypeError(
                f"{form.word}() called {form.name}(), which is asynchronous, and nothing awaits it here. Expected a "
                "plain generator function. It is called in a thread of its own: run an event loop in it, and yield "
                "what asyncio.Runner().run(…) returns."
            )
        if isinstance(value, refused) or not isinstance(value, Iterable | Iterator):
            raise TypeError(
                f"{form.word}() called {form.name}(), which returned a {type(value).__name__}. Expected a function "
                f"that yields {'one sample' if form.single else 'some rows'} after the other: "
                "`yield` in place of `return`, in a loop."
                + ("" if form.single else " For rows that are all there already, use ub.from_arrays.")
            )

    @property
    def keeps_state(self) -> bool:
        """True if it has `state_dict` and `load_state_dict`."""
        return hasattr(self.value, "state_dict") and hasattr(self.value, "load_state_dict")

    def iterator(self, state: Any) -> Iterator[Any]:
        """Its iterator, restored to a state; None for its beginning."""
        # A data loader or a data set takes the state for the iterator that it makes next. An iterator takes it for
        # itself, after `iter`, which may reset it.
        takes_before = state is not None and not isinstance(self.value, Iterator)
        if takes_before:
            user_code.call(self.value.load_state_dict, copy.deepcopy(state))
        values: Iterator[Any] = user_code.call(iter, self.value)
        if state is not None and not takes_before:
            user_code.call(self.value.load_state_dict, copy.deepcopy(state))
        return values

    def close(self) -> None:
        """Close the iterator, if it has a method for that."""
        close = getattr(self.value, "close", None)
        if close is not None:
            close()


class Iteration:
    """Blocks of the rows that one call of the function yields.

    Args:
        made: the result of the call.
        form: the required form of its rows.
        row: the number of its first row, for messages.
        stack: the most samples in a block.
        state: the state to restore; None for the beginning.
    """

    def __init__(self, made: Made, form: Form, row: int, *, stack: int = _MOST_SAMPLES, state: Any = None) -> None:
        self.made = made
        self._form = form
        self.row = row
        """The number of the next row."""
        self._values = made.iterator(state)
        self._left: Any = _NONE  # a sample of another form than those before it, or a value that was offered in vain
        self._failure: Exception | None = None  # raised after samples that are returned first
        self._ended = False
        self._stack = stack
        self._lock = form.runtime.lock()  # guards the three attributes below
        self._asking = False
        self._closing = False
        self._closed = False

    @property
    def is_ahead(self) -> bool:
        """True if the iterator has yielded rows that no block has returned."""
        return self._left is not _NONE or self._failure is not None

    def next(self, offer: Offer | None = None) -> Block | None:
        """The next block, perhaps without rows; None at the end of the iterator.

        Args:
            offer: takes values first, for as long as it can and about 10 ms; the block is of the one that it does not
                take.
        """
        # A running generator can't be closed: neither by another thread, nor by a signal handler in its own thread.
        self._begin_asking()
        try:
            if offer is not None and self._left is _NONE:
                user_code.call(self._offer_all, offer)
                if self._left is _NONE and not self._ended:
                    return Block(None, 0)
            rows = self._stacked() if self._form.single else self._ask()
        finally:
            if self._is_to_close():
                self._close()
        if rows is _ENDED:
            return None
        block = self._form.block(rows if self._form.single else trees.map_leaves(trees.copied, rows), self.row)
        self.row += block.count
        return block

    def _offer_all(self, offer: Offer) -> None:
        """Ask for values and offer them, until one is not taken."""
        values, single, monotonic = self._values, self._form.single, self._form.runtime.monotonic
        until = monotonic() + _SOON
        while not self._closing:
            value = next(values, _ENDED)
            if value is _ENDED:
                self._ended = True
                return
            rows = offer(value, single)
            if not rows:
                self._left = value
                return
            self.row += rows
            if monotonic() >= until:
                return

    def _ask(self) -> Any:
        if self._left is not _NONE:
            value, self._left = self._left, _NONE
            return value
        return _ENDED if self._ended else user_code.call(next, self._values, _ENDED)

    def _stacked(self) -> Any:
        samples: list[Tree] = []
        runtime = self._form.runtime
        asked = runtime.monotonic()
        while len(samples) < self._stack:
            try:
                if self._failure is not None:
                    raise self._failure
                value = self._ask()
            except Exception as error:
                if not samples:
                    raise
                self._failure = error
                break
            if value is _ENDED:
                self._ended = True
                break
            if self._form.ragged is not None:
                value = self._form.ragged.sample(value)
            sample = trees.map_leaves(_copied_sample, value)
            if samples and not row_spec.same_spec(samples[0], sample):
                self._left = value
                break
            samples.append(sample)
            # After a slow sample, return at once: the next may be as slow.
            if runtime.monotonic() - asked >= _SOON:
                break
        return trees.join(samples) if samples else _ENDED

    def close(self) -> None:
        """Close the iterator: now, or when the thread that is inside it leaves."""
        if self._may_close():
            self._close()

    def abandon(self) -> None:
        """Close the iterator after a failure, ignoring errors of closing: the failure is raised instead."""
        with suppress(Exception):
            self.close()

    def _close(self) -> None:
        close = getattr(self._values, "close", None)
        if close is not None and self._values is not self.made.value:
            close()
        self.made.close()

    @locked
    def _may_close(self) -> bool:
        self._closing = True
        if self._asking or self._closed:
            return False
        self._closed = True
        return True

    @locked
    def _begin_asking(self) -> None:
        self._asking = True

    @locked
    def _is_to_close(self) -> bool:
        """Whether it was to be closed while it was asked."""
        self._asking = False
        if not self._closing or self._closed:
            return False
        self._closed = True
        return True


def _copied_sample(leaf: Any) -> Array:
    # A sample of a ragged column is an array of shape () that contains it.
    return np.array(trees.unmasked(leaf), order="C")[None]

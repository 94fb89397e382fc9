"""Messages of a feed: its position, the address of a bad row, and why it can't continue from a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.core.block import Block
from unbounded.core.cursor import leaf_cursors
from unbounded.core.identity import CannotCompare, change, comparable, is_function
from unbounded.core.node import Cursor
from unbounded.core.trees import RowsError
from unbounded.core.warn import warn
from unbounded.feed.in_flight import Count
from unbounded.stages.combined import Combined
from unbounded.stream import Stream


class StreamChanged(UserWarning):
    """A warning: a state is resumed although it belongs to a different stream."""


class RunFinished(UserWarning):
    """A warning: the run has all the epochs that were requested already, so nothing is trained.

    >>> import tempfile, warnings, numpy as np, unbounded as ub
    >>> with ub.Feed(ub.from_arrays(np.arange(4)).batch(2), epoch=ub.Epoch(steps=1)) as feed:
    ...     for epoch in feed.epochs(2):
    ...         for batch in epoch:
    ...             pass
    ...     with warnings.catch_warnings(record=True) as caught:
    ...         warnings.simplefilter("always")
    ...         list(feed.epochs(2))
    []
    >>> [warning.category.__name__ for warning in caught]
    ['RunFinished']
    """


def finished(number: int, asked: int) -> None:
    """Warn that nothing is left to train; called by the generator of `Feed.epochs`."""
    epochs = "epoch" if number == 1 else "epochs"
    warn(
        f"The run has trained {number} {epochs} already, and {asked} were asked for: nothing is left to train. "
        f"feed.epochs({max(number, asked) + max(asked, 1)}) would go on.",
        RunFinished,
    )


def weakest(stream: Stream) -> str:
    """A sentence that names the parts of a stream with a weaker guarantee than `exact`."""
    parts = [part for part in stream.all_parts if part.guarantee != "exact" and not isinstance(part, Combined)]
    return " ".join(f"{part.word}() promises {part.guarantee!r}." for part in parts)


class Position:
    """The position of training: `steps`, `rows` and `passes` from the run's beginning; `str` describes it in words.

    >>> import numpy as np, unbounded as ub
    >>> with ub.Feed(ub.from_arrays(np.arange(10)).batch(4), epoch=ub.Epoch(steps=3)) as feed:
    ...     for batch in feed:
    ...         pass
    ...     print(feed.position, feed.position.rows)
    pass 2, row 2 of 10 12
    """

    def __init__(self, count: Count, words: str) -> None:
        self.steps, self.rows, self.passes, _ = count
        self._words = words

    def __str__(self) -> str:
        return self._words

    def __repr__(self) -> str:
        return f"<Position: {self._words}; {self.steps:,} steps>"


def position(stream: Stream, count: Count, cursor: Cursor, now: float) -> str:
    """A position in words, such as "pass 7, row 1,024 of 10,000"; `now` is in seconds since 1970."""
    per_pass = stream.rows_per_pass
    if per_pass:
        passed, row = divmod(count.rows, per_pass)
        return f"pass {passed + 1:,}, row {row:,} of {per_pass:,}"
    if stream.has_passes:
        return f"pass {count.passes + 1:,}, {count.rows:,} rows trained"
    if count.inputs:
        return _position_in_mix(stream, count, leaf_cursors(cursor), now)
    leaf = leaf_cursors(cursor)[0]
    read = leaf.get("row")
    return f"row {count.rows:,}" + (
        ""
        if read is None or read == count.rows
        else f", to be read again from row {read:,} of the source{_age(leaf, now)}"
    )


def _age(cursor: Cursor, now: float) -> str:
    """How long ago a source's rows before a cursor arrived, if known."""
    time = cursor.get("time")
    return "" if time is None else f", which came {max(0.0, now - time):,.0f} seconds ago"


def _position_in_mix(stream: Stream, count: Count, leaves: Sequence[Cursor], now: float) -> str:
    """Such as "row 4,096: old pass 11, row 24 of 100; new row 3,072", with the oldest row that must be read again."""
    parts, oldest = [], (0, "")
    for (name, per_pass), leaf, (rows, _) in zip(stream.input_passes().items(), leaves, count.inputs, strict=True):
        passed, row = divmod(rows, per_pass) if per_pass else (0, rows)
        parts.append(f"{name} pass {passed + 1:,}, row {row:,} of {per_pass:,}" if per_pass else f"{name} row {row:,}")
        read = leaf.get("row")
        if read is not None and rows - read > oldest[0]:
            back = f", {name} to be read again from its row {read:,}, {rows - read:,} rows back{_age(leaf, now)}"
            oldest = (rows - read, back)
    return f"row {count.rows:,}: {'; '.join(parts)}{oldest[1]}"


def address(stream: Stream, step: int, row: int) -> str:
    """The number of a batch's row in its source in words, if the stream can tell."""
    try:
        run = stream.numbered().run_at(step)
        return _row_words(run.items[0][row], _source_of(stream, run.provenance, row))
    except (LookupError, IndexError, RowsError):
        return ""


def _source_of(stream: Stream, provenance: Any, row: int) -> str:
    """The name of a row's source."""
    return "the arrays" if provenance is None else repr(list(stream.leaves)[int(provenance[row]) & 0xFF])


def _row_words(numbers: Any, source: str) -> str:
    """The number of a row in words; for a window, those of its rows."""
    first, last = int(np.min(numbers)), int(np.max(numbers))
    return f", row {first:,} of {source}" if first == last else f", rows {first:,} to {last:,} of {source}"


def row_address(stream: Stream, ordinal: int) -> str:
    """The same for a row of a stream without `batch`, by its ordinal."""
    try:
        numbers = stream.numbered()
        cursor = numbers.cursor_at(ordinal)
    except LookupError:
        return ""
    opened = numbers.open()
    try:
        opened.top.restore(cursor)
        while not ((block := opened.top.pull(None)) and block.count):
            pass
        assert isinstance(block, Block)
        return _row_words(block.rows[0], _source_of(stream, block.provenance, 0))
    except RowsError:  # branches of a mix may have row numbers of unequal shapes, as of windows and of plain rows
        return ""
    finally:
        opened.top.close()


_PARTS = ("format", "fingerprint", "stream", "position", "count", "epoch", "counters", "arrivals")


def check_whole(state: Any) -> None:
    """Raise ValueError unless `state` has all parts of a result of `Feed.state_dict`."""
    if not isinstance(state, Mapping) or "format" not in state:
        raise ValueError(
            f"This is not the state of a feed: it is a {type(state).__name__}. Expected a result of feed.state_dict()."
        )
    missing = [part for part in _PARTS if part not in state]
    if missing:
        raise ValueError(f"The state of a feed is not whole: {', '.join(missing)} is missing. It can't be loaded.")


def check_state(stream: Stream, state: Mapping[str, Any], newest: int, *, accept_changes: bool) -> None:
    """Raise ValueError if a state does not belong to this stream."""
    if not isinstance(state, Mapping) or "format" not in state:
        raise ValueError("This is not the state of a feed. Expected a result of feed.state_dict().")
    if not isinstance(state["format"], int) or state["format"] > newest:
        raise ValueError(
            f"The state has format {state['format']}, and this version of unbounded reads up to {newest}. Use the "
            "version that wrote it, or a newer one."
        )
    if state["fingerprint"] == stream.fingerprint:
        return
    changes, unknown = differences(state["stream"], stream.identity())
    if changes and not accept_changes:
        raise ValueError(
            f"The state is of another stream: {'; '.join(changes)}. Its position means other rows here. Use another "
            "directory, or the stream as it was; "
            "accept_changes=True resumes nevertheless."
        )
    if changes:
        warn(
            f"The state is of another stream: {'; '.join(changes)}. It is resumed nevertheless, as "
            "accept_changes=True demands.",
            StreamChanged,
        )
    if unknown:
        warn(f"{' '.join(unknown)} It is resumed.", StreamChanged)


def differences(was: Any, now: Any) -> tuple[list[str], list[str]]:
    """The differences between two streams' identities, and what can't be compared, as sentences."""
    words = [[part[0] for part in side] for side in (was, now)]
    if words[0] != words[1]:
        return [f"it was {'.'.join(words[0])} and is {'.'.join(words[1])}"], []
    found, unknown = [], []
    for (word, before), (_, after) in zip(was, now, strict=True):
        for name in sorted({*before, *after}):
            old, new = before.get(name), after.get(name)
            if comparable(old) == comparable(new):
                continue
            if word == "mix" and name == "inputs" and old and new:
                if list(old) != list(new):
                    found.append(f"it mixed {', '.join(old)} and mixes {', '.join(new)}")
                for each in old if list(old) == list(new) else ():
                    changes, open_ = differences(old[each], new[each])
                    found += [f"of {each!r}, {change}" for change in changes]
                    unknown += [f"Of {each!r}: {text}" for text in open_]
                continue
            if is_function(new):
                old_name = old["function"] if is_function(old) else old
                if old_name != new["function"]:
                    found.append(f"{word}({name}) was {old_name!r} and is {new['function']!r}")
                    continue
                try:
                    if what := change(old, new):
                        found.append(f"the function of {word}({new['function']}) has changed: {what}")
                except CannotCompare as error:
                    unknown.append(
                        f"Whether the function of {word}({new['function']}) has changed can't be told: the state was "
                        f"written under {error}, and this is {new['python']}."
                    )
                continue
            shown = f"{old!r} and is {new!r}" if np.ndim(old) == 0 and not isinstance(old, dict) else "other"
            found.append(f"{word}({name}) was {shown}")
    return found, unknown

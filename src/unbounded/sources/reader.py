"""The public protocol of a source: what to write so that `unbounded` reads from anywhere.

A `Source` describes where rows come from; nothing runs yet. `open` gives a `Reader`, which is at work. The framework
does what is the same for all of them: threads, waiting, back-off after passing errors, the log of rows that can't be
read again, the order of partitions, positions and checkpoints.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unbounded.core.block import Boundary
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.sources.retention import Retention

JSON: TypeAlias = Any
"""What `json` writes and reads back equal: dicts with string keys, lists, strings, numbers, bools and None."""
Partition: TypeAlias = Hashable
"""A string or a number that names one part of a source, such as a partition of a topic."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that a reader gives, where there is more to say of them than their values.

    Args:
        rows: a tree of arrays that share their first dimension; None for a boundary without rows. The memory is not
            written again by the reader: it is not copied.
        boundary: a seam after the last row: `Boundary("pass")` at the end of a pass, `Boundary("gap", missed=3)` where
            rows did not come, `Boundary("file")` where another file begins.
        times: when each row arrived or happened, float64 of shape (rows,), seconds since 1970. None: now.
        partition: which partition all of the rows are of; None where there is one alone.

    >>> import numpy as np
    >>> Rows({"x": np.zeros(3)}, Boundary("gap", missed=2)).boundary.missed
    2
    """

    rows: Tree
    boundary: Boundary | None = None
    times: NDArray[np.float64] | None = None
    partition: Partition | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What a source may want to know when it is opened, for an `open` with a parameter.

    `rows` were read of it before, in this run and the processes before this one; the last of them arrived at `last`
    (seconds since 1970; None where there is none); `passes` ended. `block_rows` had best come at once (None: as many as
    is handy), of which `batch_rows` make a batch; `share` is that of the source in a mix. `runtime` has the clock.
    """

    rows: int = 0
    last: float | None = None
    passes: int = 0
    block_rows: int | None = None
    batch_rows: int = 1
    share: float = 1.0
    runtime: Runtime = SYSTEM


class Reader(Protocol):
    """A source at work. All calls but `wake` come one at a time, and from one thread.

    A reader may have some methods more:

    - `wake()`, from any thread: end a `read` that waits;
    - `logged(position)`: the rows before `position` are on the disk of this machine: acknowledge them now;
    - `commit(trained, needed)`: positions of the newest and of the oldest checkpoint on the disk. What lies before
      `needed` will not be asked for again.
    """

    def position(self) -> JSON:
        """Of the next row. It is concrete before the first read: "the newest row" has become a number by then. A
        boundary changes it."""

    def seek(self, position: JSON) -> None:
        """Read on from a position that `position` gave, in this process or in another. Not called where the source is
        not `replayable`."""

    def read(self, timeout: float) -> Tree | Rows | None:
        """The next rows, all of one partition: a tree of arrays, which is copied, or `Rows`. None where there are none
        within `timeout` seconds; it may return sooner, the framework waits.

        A source with partitions has a second parameter, `only=None`: a partition from which alone to read.

        Raises:
            EndOfStream: there are no more rows, and there were not meant to be.
            OSError: what may pass, and whatever the source declares as `transient`: the reader is closed, and after a
                while opened again and put back to its last position. Any other exception ends the run.
        """

    def close(self) -> None:
        """Let go of connections and files."""


@runtime_checkable
class Source(Protocol):
    """Where rows come from, described.

    A source may have some attributes more:

    - `redelivers` (False): a row may come again after a restart, as from a broker that waits for acknowledgements;
    - `transient` (none): a tuple of exception classes that may pass, beside OSError;
    - `partitions` (False): whether blocks are of partitions, which `Rows.partition` names;
    - `retention` (none): a `Retention`, how long it keeps rows: a run warns where a checkpoint needs rows that are more
      than half as old;
    - `rows_per_pass()`, `position_at(row)`, `row_after(row, after)`: of a source that repeats, or that can go to any
      row at once; see `ub.from_arrays`.
    """

    @property
    def replayable(self) -> bool:
        """Whether `seek` leads back to any position that it ever gave: an attribute will do. Where it does not, rows
        are kept in the row log from the oldest that a checkpoint needs."""

    @property
    def open(self) -> Callable[..., Reader]:
        """A method that gives a reader at its beginning. It may have one parameter, which is given an `Opening`."""

    def identity(self) -> JSON:
        """What tells it from another source, for the fingerprint: a topic's or a table's name, never hosts, paths or
        secrets."""


def open_reader(source: Source, opening: Opening) -> Reader:
    """Open a source, with what it wants to know."""
    return source.open(opening) if _takes_one(source.open) else source.open()


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def check_source(source: Any) -> None:
    """Raise TypeError where something is no source, saying what it lacks."""
    if isinstance(source, type):
        raise TypeError(f"from_source() was given the class {source.__name__}. Give an instance: {source.__name__}(…).")
    missing = [name for name in ("open", "identity") if not callable(getattr(source, name, None))]
    if not isinstance(getattr(source, "replayable", None), bool):
        missing.append("replayable (True or False)")
    if missing:
        raise TypeError(
            f"from_source() was given a {type(source).__name__}, which lacks {', '.join(missing)}. Expected a source: "
            "open(), identity() and replayable, as docs/sources.md shows; or use ub.from_generator(fn) for a function."
        )
    retention = getattr(source, "retention", None)
    if retention is not None and not isinstance(retention, Retention):
        raise TypeError(
            f"{type(source).__name__}.retention is {retention!r}. Expected ub.Retention(rows=…, seconds=…), or none."
        )
    identity = source.identity()
    try:
        same = json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError):
        same = False
    if not same:
        raise TypeError(
            f"{type(source).__name__}.identity() gave {identity!r}. Expected what JSON can hold and give back equal: "
            "dicts with string keys, lists, strings, numbers, True, False and None."
        )

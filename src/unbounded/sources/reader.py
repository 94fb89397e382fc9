"""Source and Reader: the public protocol of a source, for reading rows from anywhere.

A `Source` is a description. Its `open` returns a `Reader`, which reads. The framework does the rest for all sources
alike: threads, waiting, back-off after transient errors, the log of rows that can't be read again, the order of
partitions, positions and checkpoints.
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
"""What `json` writes and reads back as an equal value: dicts with string keys, lists, strings, numbers, bools, None."""
Partition: TypeAlias = Hashable
"""A string or a number that identifies a part of a source, such as a partition of a topic."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with metadata, returned by a reader.

    Args:
        rows: a tree of arrays that share their first dimension; None for a boundary without rows. It is not copied: the
            reader must not write to the memory again.
        boundary: what follows the last row: `Boundary("pass")` at the end of a pass, `Boundary("gap", missed=3)` if
            rows are missing, `Boundary("file")` before another file.
        times: when each row arrived or happened, float64 of shape (rows,), seconds since 1970. None: now.
        partition: the partition of all these rows; None if the source has one only.

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
    """The argument of a source's `open`, if that has a parameter.

    `rows` is the number of rows that were read so far, over all processes of the run. `last` is the arrival time of the
    last of them (seconds since 1970; None if there is none), `passes` the number of ended passes. `block_rows` is the
    number of rows to return at once (None: any), and `batch_rows` the size of a batch. `share` is the source's share
    in a mix. `runtime` has the clock.
    """

    rows: int = 0
    last: float | None = None
    passes: int = 0
    block_rows: int | None = None
    batch_rows: int = 1
    share: float = 1.0
    runtime: Runtime = SYSTEM


class Reader(Protocol):
    """A source that is open. All methods but `wake` are called one at a time, from one thread.

    A reader may have more methods:

    - `wake()`, from any thread: end a `read` that waits;
    - `logged(position)`: the rows before `position` are on this machine's disk: acknowledge them now;
    - `settled(position)`, from any thread: an earlier position with what is known of it since, such as the checksum of
      a file that was not open yet; or the same object;
    - `keep_in(directory)`, a `pathlib.Path` in the run's directory: keep there what can be made again and takes long,
      such as an index. It is called before the first read or between two reads, and again after a failure;
    - `commit(trained, needed)`: the positions of the newest and the oldest checkpoint on the disk. The framework will
      not seek to a position before `needed`.
    """

    def position(self) -> JSON:
        """The position of the next row, also before the first read: an opening position such as "the newest row" is a
        number by then. A boundary changes the position."""

    def seek(self, position: JSON) -> None:
        """Continue at a position that `position` returned in any process. Called only if the source is
        `replayable`."""

    def read(self, timeout: float) -> Tree | Rows | None:
        """The next rows, all of one partition: a tree of arrays, which is copied, or `Rows`. None if there are none
        within `timeout` seconds; it may return None sooner, and the framework waits.

        A source with partitions has a second parameter, `only=None`: the one partition to read.

        Raises:
            EndOfStream: there are no more rows, and this is meant.
            OSError: a transient error, as are exceptions in the source's `transient`: the reader is closed, opened
                again after a while, and sought to its last position. Any other exception ends the run.
        """

    def close(self) -> None:
        """Close connections and files."""


@runtime_checkable
class Source(Protocol):
    """The description of where rows come from.

    A source may have more attributes:

    - `redelivers` (False): True if a row may come again after a restart, as from a broker with acknowledgements;
    - `transient` (none): a tuple of exception classes that may pass, beside OSError;
    - `partitions` (False): whether blocks are of partitions, which `Rows.partition` names;
    - `retention` (none): a `Retention`, how long it keeps rows: a run warns if a checkpoint needs rows older than half
      of it;
    - `has_passes` (False): True if rows come in passes that end with `Boundary("pass")`, however many rows each has;
    - `rows_per_pass()`, `position_at(row)`, `row_after(row, after)`: of a source that repeats, or that can go to any
      row at once; see `ub.from_arrays`.
    """

    @property
    def replayable(self) -> bool:
        """True if `seek` can go to any position that `position` ever returned; an attribute will do. If False, rows are
        kept in the row log from the oldest that a checkpoint needs."""

    @property
    def open(self) -> Callable[..., Reader]:
        """A method that returns a reader at the beginning. It may have one parameter, for an `Opening`."""

    def identity(self) -> JSON:
        """The identity of its data, for the fingerprint: such as the name of a topic or table, without hosts, paths
        and secrets."""


def open_reader(source: Source, opening: Opening) -> Reader:
    """Open a source, with an `Opening` if it takes one."""
    return source.open(opening) if _takes_one(source.open) else source.open()


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def check_source(source: Any) -> None:
    """Raise TypeError, naming what is missing, if `source` is not a source."""
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

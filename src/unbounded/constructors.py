"""The words with which a stream begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.sources import given
from unbounded.sources.arrays import Arrays
from unbounded.sources.generator import Generator
from unbounded.sources.log_options import LogOptions
from unbounded.sources.machine import Machine
from unbounded.sources.reader import Source, check_source
from unbounded.sources.source import SourcePart
from unbounded.stages.mix import Ends, Silence, Weights, described
from unbounded.stream import Stream


@checked("ub.from_arrays(rows, shuffle=True, seed=0, passes=None)", "Rows are one tree: ub.from_arrays((x, y)).")
def from_arrays(rows: Tree, *, shuffle: bool = True, seed: int = 0, passes: int | None = None) -> Stream:
    """Finite rows in memory, repeated for ever: a new order in each pass.

    The order takes no memory, and any position is reached at once.

    Args:
        rows: an array, or a tuple, list or dict of arrays, nested as you like, that share their first
            dimension. They are not copied: do not write to them while a feed is open. A `numpy.memmap` is
            read where it lies. A list of plain numbers or texts is made an array; None holds the place of what isn't
            there, as in `(x, None, sample_weight)`.
        shuffle: whether each pass has a new random order; False keeps the rows' own.
        seed: the orders are a function of the seed and the pass.
        passes: how many passes there are before the declared end; None for no end.

    Raises:
        RowsError: for unequal first dimensions, zero rows, or leaves without rows.
        TypeError: for what is no array, such as a data set, a path or a generator; the sentence says what to write.

    >>> import numpy as np, unbounded as ub
    >>> stream = ub.from_arrays((np.zeros((10, 3)), np.ones(10))).batch(4)
    >>> [leaf.shape for leaf in stream.batch_at(0)]
    [(4, 3), (4,)]
    """
    return Stream(SourcePart(Arrays(given.as_arrays(rows, "ub.from_arrays()"), shuffle, seed, passes)))


@checked("ub.from_generator(fn, passes=None)")
def from_generator(
    fn: Callable[..., Iterator[Any]], *, passes: int | None = None, log: LogOptions | None = None
) -> Stream:
    """Rows that a generator function yields, any number at a time, for ever.

    How it resumes is up to the function:

    - with a parameter named `start`, it is called with the number of the first row to make;
    - if it returns an iterator with `state_dict()` and `load_state_dict(state)`, the iterator is put back;
    - any other function can't go back. It is read in a thread of its own, and its rows are written to the row log, in
      the run's directory, before they are handed on: none that was read is lost, also after a kill. With a parameter
      named `past` it is told how many rows were read before, and when the last one came.

    Args:
        fn: a function without required parameters (but `start` or `past`) that returns an iterator of rows: trees of
            arrays that share their first dimension. Structure, dtypes and trailing shapes stay the same; the
            number of rows may change. What was yielded is copied at once, so the same memory may be filled again.
        passes: call it this many times, each to its end; None: it never ends, and an end is an error.
        log: bounds its row log, or puts a function behind one that could go back: `ub.LogOptions(max_bytes=…)`.

    Raises:
        TypeError: for a generator that is already running, or a function that requires other parameters.

    >>> import numpy as np, unbounded as ub
    >>> def numbers(start=0):
    ...     while True:
    ...         yield np.arange(start, start + 5)
    ...         start += 5
    >>> ub.from_generator(numbers).batch(4).batch_at(1000)
    array([4000, 4001, 4002, 4003])
    """
    return Stream(SourcePart(Generator(fn, passes), log))


@checked("ub.from_samples(fn, passes=None)")
def from_samples(
    fn: Callable[..., Iterator[Any]], *, passes: int | None = None, log: LogOptions | None = None
) -> Stream:
    """Rows that a generator function yields one at a time, for ever.

    As `from_generator`, but each value is a single sample: a tree of arrays or numbers without a first dimension
    for the row.

    >>> import unbounded as ub
    >>> def squares(start=0):
    ...     while True:
    ...         yield {"x": start, "y": start**2}
    ...         start += 1
    >>> ub.from_samples(squares).columns(x="x", y="y").batch(3).batch_at(1)
    (array([3, 4, 5]), array([ 9, 16, 25]))
    """
    return Stream(SourcePart(Generator(fn, passes, single=True), log))


@checked("ub.from_machine(rate=10.0)")
def from_machine(*, rate: float = 10.0) -> Stream:
    """This computer's own vitals, live: for trying things on data that is real and never ends. Needs psutil.

    Rows are dicts of columns, each of shape (rows,): `time` (float64, seconds since 1970) and, in float32,
    `cpu` and `memory` (per cent), `load` (the one-minute average), `disk_read`, `disk_write`, `net_in` and
    `net_out` (bytes a second).

    Args:
        rate: readings a second. Where a reading could not be taken in time, a gap stands in the stream, and
            is counted.

    >>> import unbounded as ub
    >>> print(ub.from_machine(rate=10).windows(32).replay(1000, reuse=16).batch(32))
    from_machine().windows(32).replay(1000, reuse=16).batch(32)
    """
    return Stream(SourcePart(Machine(rate)))


@checked(
    "ub.mix(streams, weights={'old': 1, 'new': 3})",
    "The streams are one dict, or one list: ub.mix({'old': a, 'new': b}).",
)
def mix(
    streams: Mapping[str, Stream] | Sequence[Stream],
    *,
    weights: Weights | None = None,
    seed: int = 0,
    on_silence: Silence = "wait",
    patience: float = 1.0,
    ends: Ends = "first",
) -> Stream:
    """Rows of several streams in given shares, such as old rows beside new ones against forgetting.

    Of each 1,024 rows every stream gives its share, in a random order; what a share is more than whole rows is carried
    over, so that in the long run the shares are exact. Ends of passes are absorbed: windows do not follow a mix, and
    passes are counted for each source, `Epoch(passes={"old": 1})`. The rows of all streams must have one structure, and
    the same dtypes and shapes.

    Args:
        streams: 2 to 16 streams without `batch`, by name; those in a list are named "0", "1", and so on. A stream may
            be a mix itself: its sources are then named "a/b".
        weights: a number for each stream, of which only the ratios count; None for equal ones. Or a table
            `[(0, {"old": 1, "new": 1}), (100_000, {"old": 1, "new": 3})]` of the weights from some output row on, which
            is read at the next multiple of 1,024 rows.
        seed: the order is a function of the seed, the mix's place in the stream and the row's number.
        on_silence: what happens where a stream has no rows yet. "wait" waits for it. "leave_out" goes on without it
            after `patience` seconds, from the next group of 1,024 rows on, until it has its share of a group at hand
            again; what it did not give meanwhile is not owed. Which groups were without it is saved with the position.
        patience: in seconds, for `on_silence="leave_out"`.
        ends: where streams have declared ends. "first" ends with the first of them; "all" goes on with the others, and
            ends with the last.

    Raises:
        ValueError: for weights or names that do not fit, or a stream with `batch`.
        TypeError: for what is no stream.

    >>> import numpy as np, unbounded as ub
    >>> old, new = (ub.from_arrays(np.full(100, value)) for value in (0, 1))
    >>> stream = ub.mix({"old": old, "new": new}, weights={"old": 0.25, "new": 0.75}).batch(1024)
    >>> np.bincount(stream.batch_at(10**6)).tolist()
    [256, 768]
    """
    return Stream(described(streams, weights, seed, on_silence, patience, ends))


@checked("ub.from_source(source)")
def from_source(source: Source, *, log: LogOptions | None = None) -> Stream:
    """Rows of a source of your own.

    Where the source is `replayable`, it is read in a thread of its own and put back to a stored position after a crash.
    Where it is not, all that it gives is in the row log first: on the disk, once the run has a directory.

    Args:
        source: an object with `open()`, `identity()` and `replayable`, as `Source` says. `ub.testing.assert_reads`
            tests one.
        log: bounds its row log, or puts a source behind one that could go back: `ub.LogOptions(max_bytes=…)`.

    Raises:
        TypeError: it lacks something of that, or its identity is not what JSON can hold.

    >>> import numpy as np, unbounded as ub
    >>> class Squares:
    ...     replayable = True
    ...     def identity(self):
    ...         return {"squares": 1}
    ...     def open(self):
    ...         return SquaresReader()
    >>> class SquaresReader:
    ...     def __init__(self):
    ...         self.at = 0
    ...     def position(self):
    ...         return self.at
    ...     def seek(self, position):
    ...         self.at = position
    ...     def read(self, timeout):
    ...         self.at += 4
    ...         return np.arange(self.at - 4, self.at) ** 2
    ...     def close(self):
    ...         pass
    >>> with ub.Feed(ub.from_source(Squares()).batch(3)) as feed:
    ...     batches = feed.batches()
    ...     print(next(batches), next(batches))
    ...     batches.close()
    [0 1 4] [ 9 16 25]
    """
    check_source(source)
    return Stream(SourcePart(source, log))

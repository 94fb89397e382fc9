"""The constructors of streams: from_arrays, from_generator, from_samples, from_dataset, from_files, from_machine,
from_source and mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.sources import given
from unbounded.sources.arrays import Arrays
from unbounded.sources.generator import Generator
from unbounded.sources.log_options import LogOptions
from unbounded.sources.machine import Machine
from unbounded.sources.ragged_columns import as_names
from unbounded.sources.reader import Source, check_source
from unbounded.sources.source import SourcePart
from unbounded.stages.mix import Ends, Silence, Weights, described
from unbounded.stream import Stream


@checked("ub.from_arrays(rows, shuffle=True, seed=0, passes=None)", "Rows are one tree: ub.from_arrays((x, y)).")
def from_arrays(rows: Tree, *, shuffle: bool = True, seed: int = 0, passes: int | None = None) -> Stream:
    """Finite rows in memory, repeated forever, in a new order in each pass.

    The order needs no memory, and any position is reached in constant time.

    Args:
        rows: an array, or a tuple, list or dict of arrays, nested at will, that share their first dimension. They are
            not copied: do not write to them while a feed is open. A `numpy.memmap` is read in place. A list of plain
            numbers or strings is converted; None stands for an absent part, as in `(x, None, sample_weight)`.
        shuffle: True for a new random order in each pass; False for the rows' own order.
        seed: of the orders, together with the number of the pass.
        passes: the number of passes before the declared end; None for no end.
    Raises:
        RowsError: for unequal first dimensions, zero rows, or leaves without rows.
        TypeError: for an object that is not an array, such as a data set, a path or a generator; the message has
        advice.

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
    """Rows that a generator function yields, any number at a time, without an end.

    How it resumes depends on the function:

    - with a parameter named `start`, it is called with the number of the first row to make;
    - if it returns an iterator with `state_dict()` and `load_state_dict(state)`, the iterator is restored;
    - any other function can't seek. It is read in a thread of its own, and its rows are written to the row log, in the
      run's directory, before they are used: no row that was read is lost, even after a kill. A parameter named `past`
      receives the number of rows read before, and the arrival time of the last one.

    Args:
        fn: a function without required parameters (except `start` or `past`) that returns an iterator of rows: trees of
            arrays that share their first dimension. Structure, dtypes and trailing shapes must stay the same; the
            number of rows may change. What it yields is copied at once, so it may reuse its memory.
        passes: the number of calls, each of which is iterated to its end; None: it has no end, and an end is an error.
        log: limits its row log, or adds one to a function that could resume: `ub.LogOptions(max_bytes=…)`.

    Raises:
        TypeError: for a running generator, or a function with other required parameters.

    >>> import numpy as np, unbounded as ub
    >>> def numbers(start=0):
    ...     while True:
    ...         yield np.arange(start, start + 5)
    ...         start += 5
    >>> ub.from_generator(numbers).batch(4).batch_at(1000)
    array([4000, 4001, 4002, 4003])
    """
    return Stream(SourcePart(Generator(fn, passes), log))


@checked("ub.from_samples(fn, passes=None, ragged=None)")
def from_samples(
    fn: Callable[..., Iterator[Any]],
    *,
    passes: int | None = None,
    ragged: str | int | Sequence[str | int] | None = None,
    log: LogOptions | None = None,
) -> Stream:
    """Rows that a generator function yields one at a time, without an end.

    Like `from_generator`, but each value is a single sample: a tree of arrays or numbers without a first dimension
    for the row.

    Args:
        fn: see `from_generator`.
        passes: see `from_generator`.
        ragged: the name of a column, or a list of names, whose samples have several lengths: arrays of shape
            (length, …), lists, or bytes. See `ragged`.
        log: see `from_generator`.

    >>> import unbounded as ub
    >>> def squares(start=0):
    ...     while True:
    ...         yield {"x": start, "y": start**2}
    ...         start += 1
    >>> ub.from_samples(squares).columns(x="x", y="y").batch(3).batch_at(1)
    (array([3, 4, 5]), array([ 9, 16, 25]))
    """
    return Stream(SourcePart(Generator(fn, passes, True, as_names(ragged, "from_samples")), log))


@checked("ub.from_dataset(dataset, shuffle=None, seed=0, passes=None, batched=None, dtypes=None, ragged=None)")
def from_dataset(
    dataset: Any,
    *,
    shuffle: bool | None = None,
    seed: int = 0,
    passes: int | None = None,
    batched: bool | None = None,
    dtypes: Mapping[str, Any] | None = None,
    ragged: str | int | Sequence[str | int] | None = None,
) -> Stream:
    """The rows of a data set of another library, repeated forever.

    How it resumes depends on the data set:

    - With random access it comes in a new order in each pass, as arrays do, and any position is reached in constant
      time. This holds for anything with `len` and `[i]`: data sets of PyTorch (by `__getitems__` where they have that),
      of Hugging Face and of Grain (`MapDataset`), frames of pandas and polars, Tables of pyarrow, data sets of h5py and
      zarr, lists, and Keras's `PyDataset`, of which whole batches are shuffled. The order is exact. So are the values,
      unless the items are computed at random, as by an augmentation: `.random_map` is exact.
    - With a state, the state is part of the checkpoint: an `IterableDataset` of Hugging Face, torchdata's
      `StatefulDataLoader`, data sets and iterators of Grain, and iterables with `state_dict` and `load_state_dict`. The
      object itself is not read, but a copy of it in each pass.
    - With neither, its rows go to the row log, as those of a generator that can't seek: tf.data, PyTorch's `DataLoader`
      and `IterableDataset`. After a restart the pass begins again, after the rows in the log.

    It is read in a thread of its own. A loader of PyTorch draws its order from a generator of its own.

    Args:
        dataset: the data set. Its items are arrays, tensors, numbers or text, or tuples, lists and dicts of them, each
            time with the same structure, dtypes and shapes. A list of numbers is an array. Columns of tables keep their
            dtypes; a missing value is NaN among floats, NaT among times, "" among text, and an error elsewhere. Times
            with a zone become UTC. Text becomes an array of `U`.
        shuffle: True for a new random order in each pass, False for the data set's own. None: True with random access,
            else False. True is an error without random access: write `.shuffle(rows)`.
        seed: of the orders, together with the number of the pass; also that of the generators of a PyTorch loader that
            has none.
        passes: the number of passes before the declared end; None for no end.
        batched: True if an item is a batch, a tree of rows, False if it is one row. None: what the data set implies. A
            loader with a batch size, a `PyDataset`, and a data set of tf.data or Grain whose last step is `batch` give
            batches, all others rows.
        dtypes: for tables (frames, pyarrow's Tables and Hugging Face's Datasets), a dict of names of columns and the
            dtypes to which they are converted: `{"count": "float64"}` reads whole numbers as floats with NaN.
        ragged: the name of a column, or a list of names, whose rows have several lengths, or are bytes. See `ragged`.

    Raises:
        TypeError: for an object that is no data set, or a state that is known to be incomplete; the message has advice.
        ValueError: for an empty data set, one of tf.data that reshuffles, or a loader that forks workers.
        RowsError: for items that are ragged, sparse, bytes, or of another form than item 0. With random access item 0
            is read at once.

    >>> import unbounded as ub
    >>> squares = [{"x": i, "y": i**2} for i in range(10)]
    >>> ub.from_dataset(squares, shuffle=False).columns(x="x", y="y").batch(3).batch_at(1)
    (array([3, 4, 5]), array([ 9, 16, 25]))
    """
    # Imported here and not above, as files are: both are an eighth of what the package takes to import.
    from unbounded.sources.datasets import dataset_kinds

    return Stream(SourcePart(dataset_kinds.source_of(dataset, shuffle, seed, passes, batched, dtypes, ragged)))


@checked(
    "ub.from_files(paths, format=None, columns=None, dtypes=None, ragged=None, shuffle=False, seed=0, passes=None, "
    "on_bad='raise')"
)
def from_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    format: str | None = None,
    *,
    columns: Sequence[str] | Mapping[str, Any] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    ragged: str | Sequence[str] | None = None,
    shuffle: bool = False,
    seed: int = 0,
    passes: int | None = None,
    on_bad: str | os.PathLike[str] = "raise",
) -> Stream:
    """Rows of files, repeated forever. Needs pyarrow and fsspec: `pip install 'unbounded[files]'`.

    A file is read in pieces, and a few pieces are in memory at a time: files may be larger than memory. A resume reads
    the piece that it continues in, or the window that the piece belongs to, wherever it is in the file.

    | format | suffixes | a piece |
    |---|---|---|
    | "parquet" | .parquet, .pq | a row group |
    | "arrow", Arrow IPC | .arrow, .feather, .ipc | a record batch |
    | "csv", with a header | .csv, .tsv (tabs) | lines of 4 MiB; a quoted value may have line ends |
    | "jsonl", a JSON object in each line | .jsonl, .ndjson | lines of 4 MiB |
    | "tar", shards in WebDataset's layout | .tar | samples of 4 MiB |
    | "tfrecord", of `tf.train.Example` | .tfrecord, .tfrecords | records of 4 MiB |
    | "images", files on this machine | .jpg, .png, .webp, … | paths alone |

    CSV and JSON lines may be compressed (.csv.gz, .bz2, .zst, .lz4, .br); such files can't be shuffled, and a resume
    decompresses them from the beginning.

    Rows are dicts of columns, each an array of shape (rows,):

    - numbers and bools have the dtypes of the file. A missing value is NaN among floats, NaT among times, "" among
      text, and an error in others: `dtypes={"n": "float64"}` reads whole numbers as floats with NaN;
    - text has the dtype 'U', times 'datetime64' or 'timedelta64', those with a zone in UTC, bytes 'O';
      dictionary-encoded columns are decoded;
    - lists of one length k have the shape (rows, k); lists of several lengths are an error, unless
      `ragged=["tokens"]` names the column;
    - types of CSV and JSON lines are those of the first file's first 4 MiB, where `dtypes` does not name others. A
      line with a value of another type is a broken one;
    - a sample of a tar shard has "__key__", and a column for each suffix: text of .txt and .json, int64 of .cls, .id
      and .index, the array of .npy, the bytes of any other;
    - a feature of a TFRecord is float32, int64 or bytes;
    - an image has its "path" and its "folder", the name of the directory that contains it, as text. `.images("path",
      size)` decodes it. All paths are in memory; they are listed once, when the stream is made.

    Args:
        paths: a path, a glob, a directory, a URL that fsspec knows, or a list of these. Files are read in the order of
            their names.
        format: one of the table above; None: by the files' suffix.
        columns: the names of the columns to read; None for all. A dict of names and dtypes is both `columns` and
            `dtypes`.
        dtypes: a dict of names of columns and the dtypes to which they are converted.
        ragged: the name of a column, or a list of names, whose rows have several lengths. See `ragged`.
        shuffle: True for a new random order in each pass: pieces in a random order, and rows permuted in windows of at
            least two pieces and 32 MiB. For that, an index of all files is made first. Parquet and Arrow have it in
            their footers; other formats are scanned for it, once: it is stored in the run's directory.
        seed: of the orders, together with the number of the pass.
        passes: the number of passes before the declared end; None for no end.
        on_bad: what to do with a broken line of CSV or JSON lines: "raise" an error with its file and line; "skip" it,
            with a warning in the log for each file; or the path of a file to which such lines are written, too, as JSON
            lines with file, line and text.

    The end of a pass is a boundary, and without `shuffle` so is the end of each file. Files that are new when a pass
    begins are read in it, which is logged. A position has the names, sizes and checksums of the files of its pass, and
    of the piece at hand: a resume raises `StreamError` if a file that it needs is gone or has changed.

    Raises:
        FileNotFoundError: a path or glob names no file.
        ValueError: a format is unknown or files have several.
        RowsError: a column of `columns` or `dtypes` is missing.

    >>> import numpy as np, pyarrow as pa, pyarrow.parquet as pq, tempfile, unbounded as ub
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"x": np.arange(100.0), "y": np.arange(100) % 2}), f"{folder}/a.parquet")
    ...     stream = ub.from_files(f"{folder}/*.parquet").batch(4)
    ...     with ub.Feed(stream, epoch=ub.Epoch(steps=2)) as feed:
    ...         print([batch["x"].tolist() for batch in feed])
    [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]
    """
    from unbounded.sources.files.file_set import FileSet
    from unbounded.sources.files.image_files import are_images, image_files

    if are_images(paths, format):
        several = {"columns": columns, "dtypes": dtypes, "ragged": ragged}
        given: dict[str, Any] = {name: value for name, value in several.items() if value is not None}
        given |= {} if on_bad == "raise" else {"on_bad": on_bad}
        return Stream(SourcePart(image_files(paths, shuffle, seed, passes, given)))
    return Stream(SourcePart(FileSet(paths, format, columns, shuffle, seed, passes, on_bad, dtypes, ragged)))


@checked("ub.from_machine(rate=10.0)")
def from_machine(*, rate: float = 10.0) -> Stream:
    """This computer's own vitals, live: real data without an end, for trying things out. Needs psutil.

    Rows are dicts of columns, each of shape (rows,): `time` (float64, seconds since 1970) and, in float32,
    `cpu` and `memory` (per cent), `load` (the one-minute average), `disk_read`, `disk_write`, `net_in` and
    `net_out` (bytes a second).

    Args:
        rate: readings a second. A reading that could not be taken in time is a gap in the stream, which is counted.

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
    """Rows of several streams in given shares, such as old rows beside new ones to prevent forgetting.

    In each 1,024 rows every stream has its share, in a random order; fractions of rows are carried over, so that shares
    are exact in the long run. Ends of passes are absorbed: windows can't follow a mix, and passes are counted for each
    source, `Epoch(passes={"old": 1})`. The rows of all streams must have the same structure, dtypes and shapes.

    Args:
        streams: 2 to 16 streams without `batch`, by name; those of a list are named "0", "1", and so on. A stream may
            be a mix itself: its sources are then named "a/b".
        weights: a number for each stream; only their ratios count. None for equal weights. Or a table `[(0, {"old": 1,
            "new": 1}), (100_000, {"old": 1, "new": 3})]` of the weights from an output row on, which take effect at the
            next multiple of 1,024 rows.
        seed: of the order, together with the mix's place in the stream and the row's number.
        on_silence: what to do if a stream has no rows yet. "wait" waits for it. "leave_out" goes on without it after
            `patience` seconds, from the next group of 1,024 rows on, until its share of a group is available again; it
            gets no compensation. The groups without it are saved with the position.
        patience: in seconds, for `on_silence="leave_out"`.
        ends: for streams with declared ends. "first" ends with the first of them; "all" goes on with the others, and
            ends with the last.

    Raises:
        ValueError: for weights or names that do not fit, or a stream with `batch`.
        TypeError: for an object that is not a stream.

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

    A `replayable` source is read in a thread of its own, and sought to a saved position after a crash. All rows of any
    other source go to the row log first: on the disk, once the run has a directory.

    Args:
        source: an object with `open()`, `identity()` and `replayable`: see `Source`. `ub.testing.assert_reads` tests
            it.
        log: limits its row log, or adds one to a replayable source: `ub.LogOptions(max_bytes=…)`.

    Raises:
        TypeError: it lacks one of these, or JSON can't hold its identity.

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

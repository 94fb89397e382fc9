"""Files: Parquet shuffled and in order beside a bare scan by pyarrow, and CSV beside pyarrow's reader.

The Parquet file has 2 M rows of 11 float32 in groups of 131,072, the CSV file 200,000 of these rows. Both are in the
system's cache. A side gives batches of 256, except for the scans, which only make NumPy columns of each row group or
block. pyarrow has no threads of its own on any side; ours reads in a thread beside the loop, and another one while it
shuffles.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed
from unbounded.sources.reader import Opening

ROWS, GROUP, SIZE, WIDTH = 2_000_000, 1 << 17, 256, 11
CSV_ROWS = 200_000
SCAN = "pyarrow, row groups into NumPy"
CSV_SCAN = "pyarrow's CSV reader into NumPy"
SHUFFLED = "from_files, shuffled"
ORDERED = "from_files, in order"
TORCH = "torch DataLoader over a loop with pyarrow, rows shuffled in each group"
TF_DATA = "tf.data over a loop with pyarrow, shuffle(10k)"
HF = "datasets, streaming, shuffle(10k)"
LIMIT = 1 / 0.8


def groups(path: Path) -> Iterator[dict[str, Any]]:
    """The columns of each row group, for ever."""
    import pyarrow.parquet as pq

    while True:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            yield {name: table.column(name).to_numpy() for name in table.column_names}


def blocks(path: Path) -> Iterator[dict[str, Any]]:
    """The columns of each block of a CSV file, for ever."""
    import pyarrow.csv as pc

    while True:
        options = pc.ReadOptions(use_threads=False, block_size=1 << 22)
        for batch in pc.open_csv(path, read_options=options):
            yield {name: batch.column(name).to_numpy() for name in batch.schema.names}


def scan(name: str, parts: Iterator[dict[str, Any]]) -> Side:
    """A scan; n batches are as many rows, and what is beyond them counts for the next turn."""
    rows = 0

    def run(n: int) -> None:
        nonlocal rows
        rows -= n * SIZE
        while rows < 0:
            rows += len(next(parts)["c0"])

    return Side(name, timed(run), least=4 * GROUP // SIZE)


def side(name: str, batches: Iterator[Any], least: int = 4 * GROUP // SIZE) -> Side:
    """The making of n batches, each dropped at once; `least` is more than what is read ahead."""
    return Side(name, timed(lambda n: deque(islice(batches, n), maxlen=0)), least=least)


def torch_batches(path: Path) -> Iterator[Any]:
    """What one writes with torch: a data set that permutes the rows of each group, and cuts batches."""
    from torch.utils.data import DataLoader, IterableDataset

    class Groups(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            rng = np.random.default_rng(0)
            for columns in groups(path):
                order = rng.permutation(len(columns["c0"]))
                mixed = {name: values[order] for name, values in columns.items()}
                for at in range(0, len(order), SIZE):
                    yield {name: values[at : at + SIZE] for name, values in mixed.items()}

    return iter(DataLoader(Groups(), batch_size=None))


def tf_batches(path: Path) -> Iterator[Any]:
    """What one writes with tf.data: a generator of row groups, rows in a shuffle buffer."""
    import tensorflow as tf

    spec = {f"c{i}": tf.TensorSpec((None,), tf.float32) for i in range(WIDTH)}
    data = tf.data.Dataset.from_generator(lambda: groups(path), output_signature=spec)
    return data.unbatch().shuffle(10_000).batch(SIZE).prefetch(2).as_numpy_iterator()


def hf_batches(path: Path) -> Iterator[Any]:
    """What one writes with Hugging Face's datasets."""
    from datasets import load_dataset

    while True:
        data = load_dataset("parquet", data_files=str(path), streaming=True, split="train")
        yield from data.shuffle(seed=0, buffer_size=10_000).with_format("numpy").iter(SIZE)


def peers(path: Path) -> list[tuple[Side, Iterator[Any]]]:
    """Those that are installed, each with its batches."""
    makers: list[tuple[str, Callable[[Path], Iterator[Any]], int]] = [
        (TORCH, torch_batches, 4 * GROUP // SIZE),
        (TF_DATA, tf_batches, 200),
        (HF, hf_batches, 200),
    ]
    packages = {TORCH: "torch", TF_DATA: "tensorflow", HF: "datasets"}
    found = [(name, make(path), least) for name, make, least in makers if find_spec(packages[name]) is not None]
    return [(side(name, batches, least), batches) for name, batches, least in found]


def report(*, quick: bool = False) -> Report:
    """Parquet, CSV, and what the index of a CSV file costs."""
    import pyarrow as pa
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    found = Report()
    rounds, seconds = (5, 0.1) if quick else (15, 0.3)
    with tempfile.TemporaryDirectory() as folder:
        parquet, csv = Path(folder) / "rows.parquet", Path(folder) / "rows.csv"
        rng = np.random.default_rng(0)
        table = pa.table({f"c{i}": rng.random(ROWS, dtype=np.float32) for i in range(WIDTH)})
        pq.write_table(table, parquet, row_group_size=GROUP)
        pc.write_csv(table.slice(0, CSV_ROWS), csv)
        feeds = [
            ub.Feed(ub.from_files(path, shuffle=shuffle).batch(SIZE))
            for path, shuffle in ((parquet, True), (parquet, False), (csv, False))
        ]
        shuffled, ordered, lines = (feed.batches() for feed in feeds)
        others = peers(parquet)
        sides = [scan(SCAN, groups(parquet)), side(SHUFFLED, shuffled), side(ORDERED, ordered)]
        sides += [peer for peer, _ in others]
        timings = measure("Parquet of 11 float32, µs a batch of 256", sides, rounds=rounds, slice_seconds=seconds)
        found.tables.append((timings, SCAN))
        found.checks.append(Check.of(f"Parquet: {SHUFFLED} / {SCAN}", timings.ratio(SHUFFLED, SCAN), LIMIT))
        found.checks.append(Check.of(f"Parquet: {ORDERED} / {SCAN}", timings.ratio(ORDERED, SCAN), LIMIT))
        for peer, batches in others:
            # Threads of Arrow's scanner, which datasets uses, must have ended before the process does.
            getattr(batches, "close", lambda: None)()
            what = f"Parquet: {peer.name} / {SHUFFLED}"
            found.checks.append(Check.of(what, timings.ratio(peer.name, SHUFFLED), 1.0, at_least=True))
        others.clear()
        sides = [scan(CSV_SCAN, blocks(csv)), side(ORDERED, lines)]
        timings = measure("CSV of 11 float32, µs a batch of 256", sides, rounds=rounds, slice_seconds=seconds)
        found.tables.append((timings, CSV_SCAN))
        found.checks.append(Check.of(f"CSV: {ORDERED} / {CSV_SCAN}", timings.ratio(ORDERED, CSV_SCAN), LIMIT))
        found.remarks.append(_index_cost(csv))
        for feed in feeds:
            feed.close()
    return found


def _index_cost(path: Path) -> str:
    """What a shuffled run of a file of lines does first."""
    reader = ub.from_files(path, shuffle=True).sources[0].source.open(Opening())
    begin = perf_counter()
    reader.read(0.0)
    whole = perf_counter() - begin
    begin = perf_counter()
    data = path.read_bytes()
    data.count(b"\n")
    seconds = perf_counter() - begin
    reader.close()
    size = len(data) / 1e6
    return (
        f"The index of a CSV file takes one scan for line ends: {seconds / size * 1e3:.2f} ms a MB; the first shuffled "
        f"block of {size:.0f} MB came after {whole * 1e3:.0f} ms."
    )

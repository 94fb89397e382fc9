"""from_files: a set of ten times the memory that a process may use is read in that memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import installed

pytestmark = installed("pyarrow", "fsspec")

MIB = 1 << 20
LIMIT = 64 * MIB
GROUP = 1 << 17  # rows: 1 MiB of int64
GROUPS = 10 * LIMIT // (8 * GROUP)

CODE = """
import resource, sys
import numpy as np
import unbounded as ub
from unbounded.sources.files import shuffled_pieces
import pyarrow.parquet as pq

paths, limit, shuffle = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "shuffle"
shuffled_pieces.WINDOW_BYTES = limit // 16
stream = ub.from_files(paths, shuffle=shuffle, passes=1).batch(4096)
stream.peek()  # what is loaded on first use is loaded
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
rows = total = 0
with ub.Feed(stream) as feed:
    for batch in feed.batches():
        rows += len(batch["id"])
        total += int(batch["id"].sum())
print(rows, total)
try:
    pq.read_table(paths.replace("*", "0"))["id"].to_numpy()
    print("one file fits")
except MemoryError:
    print("one file does not fit")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
@pytest.mark.parametrize("order", ["in order", "shuffle"])
def test_a_set_of_ten_times_the_memory_is_read(tmp_path: Path, order: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(2):  # few bytes on the disk: the values of a row group are equal
        schema = pa.schema([("id", pa.int64())])
        with pq.ParquetWriter(tmp_path / f"{number}.parquet", schema) as writer:
            for group in range(GROUPS // 2):
                writer.write_table(pa.table({"id": np.full(GROUP, number * GROUPS // 2 + group)}), GROUP)
    given = [sys.executable, "-W", "ignore", "-c", CODE, str(tmp_path / "*.parquet"), str(LIMIT), order]
    # Arrow's default allocator and each thread's of glibc reserve far more addresses than they use.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(given, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = GROUPS * GROUP
    assert done.stdout.splitlines() == [f"{rows} {GROUP * GROUPS * (GROUPS - 1) // 2}", "one file does not fit"]

"""JPEGs of about 100 KB, decoded and resized in two threads, beside a DataLoader of PyTorch with two workers.

Both read the same bytes in memory, shuffle, never end, and give uint8 arrays of 224 × 224. The loader's data set
decodes as `images` does, with Pillow: once as people write it (open, convert, resize), and once with the JPEG decoder's
own reduction, which `images` uses. Its workers are processes, made as the loader makes them by default; an epoch of it
is longer than a turn, so that their start is outside of what is measured. Both sides go on while the other one is
measured, until their queues are full: a turn has many more batches than these hold.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image

import unbounded as ub
from benchmarks._harness import Check, Report, Side, measure, timed

FILES, BATCH, SIZE, WORKERS = 64, 32, 224, 2
LEAST = 24  # batches in a turn: the queues hold four, or seven
OURS = "images(workers=2)"
THEIRS = "DataLoader(num_workers=2)"
THEIR_DRAFT = "DataLoader, reduced decoding"


def photos() -> list[bytes]:
    """Encoded images of 800 × 600, of 85 to 120 KB: smooth shapes and some noise, as photographs have."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(FILES):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((800, 600), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "jpeg", quality=80)
        found.append(file.getvalue())
    return found


class Decoded(torch.utils.data.Dataset[Any]):
    """The images as a map-style data set; `length` is that of an epoch."""

    def __init__(self, encoded: list[bytes], *, draft: bool, length: int = 1 << 16) -> None:
        self._encoded, self._draft, self._length = encoded, draft, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, i: int) -> Any:
        with Image.open(io.BytesIO(self._encoded[i % FILES])) as image:
            if self._draft:
                image.draft("RGB", (SIZE, SIZE))
            return torch.from_numpy(np.array(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)))


def ours(encoded: list[bytes]) -> Side:
    """A feed that goes on from turn to turn."""
    stream = ub.from_arrays({"image": ub.ragged(encoded)}).images("image", SIZE, workers=WORKERS, fit="stretch")
    batches = ub.Feed(stream.batch(BATCH)).batches()
    return Side(OURS, timed(lambda n: deque(islice(batches, n), maxlen=0)), least=LEAST)


def theirs(name: str, encoded: list[bytes], *, draft: bool) -> Side:
    """A loader that goes on from turn to turn, epoch after epoch."""
    data = Decoded(encoded, draft=draft)

    def endless() -> Iterator[Any]:
        while True:
            yield from torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=WORKERS)

    batches = endless()
    return Side(name, timed(lambda n: deque(islice(batches, n), maxlen=0)), least=LEAST)


def report(*, quick: bool = False) -> Report:
    """Batches of 32 images."""
    found = Report()
    encoded = photos()
    size = sum(map(len, encoded)) / len(encoded) / 1000
    sides = [theirs(THEIRS, encoded, draft=False), theirs(THEIR_DRAFT, encoded, draft=True), ours(encoded)]
    timings = measure(
        f"Batches of {BATCH} JPEGs of {size:.0f} KB, 800 × 600, to {SIZE} × {SIZE}, µs a batch",
        sides,
        rounds=3 if quick else 7,
        slice_seconds=1.0 if quick else 2.0,
    )
    found.tables.append((timings, THEIRS))
    note = f"{1e6 * BATCH / timings.spread(OURS).median:.0f} images a second"
    found.checks.append(Check.of(f"{OURS} / {THEIRS}", timings.ratio(OURS, THEIRS), 1.0, note=note))
    return found

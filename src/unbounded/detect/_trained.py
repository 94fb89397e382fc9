"""Counter: totals of training: steps, rows, and rows of batches that were trained on twice, which must be 0."""

from __future__ import annotations

import hashlib
import time as clock
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import unbounded as ub
from unbounded.detect._record import Trained

BATCHES = 2_000  # batches remembered: by then a row has left the replay buffer long ago
SECONDS = 2.0  # between two records, at first
SHARE = 0.01  # later: of the time since the start, so that the number of records grows with its logarithm


class Counter:
    """Counts batches when they are handed out and when they were trained on."""

    def __init__(self) -> None:
        self.total = Trained()
        """The totals."""
        self._handed: deque[tuple[int, int]] = deque()  # digest, rows
        self._digests: deque[int] = deque(maxlen=BATCHES)
        self._began = self._written = clock.monotonic()
        self._restored = False  # until the first batch after a restore was trained on

    def hand_out(self, rows: np.ndarray) -> None:
        """A batch is handed out to the model.

        Args:
            rows: the numbers of its rows, in order, [rows].
        """
        numbers = np.ascontiguousarray(rows, dtype="<i8")
        digest = hashlib.blake2b(numbers.tobytes(), digest_size=7)  # 56 bits: an int64 holds it
        self._handed.append((int.from_bytes(digest.digest(), "big"), len(numbers)))

    def train(self, step: int, stats: ub.Stats, skipped: Mapping[str, int]) -> None:
        """The oldest batch that was handed out was trained on.

        Args:
            step: the optimizer's count of updates.
            stats: the feed's.
            skipped: readings left out, by column.
        """
        if self._restored:
            self._restored = False
            self._pass_over()
        digest, rows = self._handed.popleft()
        twice = rows if digest in self._digests else 0
        self._digests.append(digest)
        before = self.total
        self.total = Trained(
            step=step,
            steps=before.steps + 1,
            rows=before.rows + rows,
            twice=before.twice + twice,
            missed=stats.missed,
            skipped=dict(skipped),
            time=clock.time(),
        )

    def _pass_over(self) -> None:
        """Drop the batches that were read again after a restore and skipped.

        A stream is read again from the beginning of the run of batches in which its position is, and functions are
        applied to all of it. These batches are the last that were trained on, in their order.
        """
        handed = [digest for digest, _ in self._handed]
        trained = list(self._digests)
        skipped = next((n for n in range(min(len(handed), len(trained)), 0, -1) if handed[:n] == trained[-n:]), 0)
        for _ in range(skipped):
            self._handed.popleft()

    @property
    def due(self) -> bool:
        """True, once, when it is time to write the totals."""
        now = clock.monotonic()
        if now - self._written < max(SECONDS, SHARE * (now - self._began)):
            return False
        self._written = now
        return True

    def state_dict(self) -> dict[str, Any]:
        """The totals and the remembered batches, as plain data and a small array."""
        # Without `skipped`: column names may be any strings, also those reserved in JSON.
        total = {name: value for name, value in asdict(self.total).items() if name != "skipped"}
        return {"total": total, "digests": np.array(self._digests, dtype=np.int64)}

    def load_state_dict(self, state: Mapping[str, Any], skipped: Mapping[str, int]) -> None:
        """Continue from saved totals.

        Args:
            state: from `state_dict`.
            skipped: readings left out, by column.
        """
        self.total = Trained(**state["total"], skipped=dict(skipped))
        self._digests = deque(np.asarray(state["digests"]).tolist(), maxlen=BATCHES)
        self._restored = True

"""The detector on simulated streams with labelled faults: the score of the Numenta Anomaly Benchmark, windows hit, and
false alarms a week.

The score follows Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta anomaly benchmark"
(ICMLA 2015), standard profile: the first alarm in a window counts by a scaled sigmoid of its place, a missed window -1,
and a false alarm at most -0.11. 0 is a detector without alarms, and 100 one that is perfect.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.faulty_streams import FaultyStream, corpus

WEEK = 7 * 86_400.0
FALSE = 0.11


@dataclass
class Tally:
    """What was found on some streams."""

    raw: float = 0.0
    windows: int = 0
    hit: int = 0
    false: int = 0
    weeks: float = 0.0

    def add(self, other: Tally) -> None:
        """Add another tally."""
        for name in ("raw", "windows", "hit", "false", "weeks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def score(self) -> float:
        """From 0, no alarms, to 100, perfect."""
        return 100 * (self.raw + self.windows) / (2 * self.windows) if self.windows else float("nan")

    def __str__(self) -> str:
        return (
            f"score {self.score:6.1f}  hit {self.hit:3}/{self.windows:3}  false alarms {self.false:4}, "
            f"{self.false / self.weeks:.2f} a week"
        )


def sigmoid(y: float) -> float:
    """The worth of an alarm at a place relative to its window: -1 at the window's beginning, 0 at its end."""
    return -1.0 if y > 3 else 2 / (1 + np.exp(5 * y)) - 1


def judge(stream: FaultyStream, alarms: list[int]) -> Tally:
    """Score the rows of the alarms on a stream."""
    rows = len(stream.time)
    probation = min(int(0.15 * rows), 750)
    tally = Tally(windows=len(stream.windows), weeks=float(stream.time[-1] - stream.time[probation]) / WEEK)
    best: dict[int, float] = {}
    for row in sorted(set(alarms)):
        if row < probation:
            continue
        inside = [i for i, (first, last) in enumerate(stream.windows) if first <= row <= last]
        if inside:
            first, last = stream.windows[inside[0]]
            worth = sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(-1.0)
            best[inside[0]] = max(best.get(inside[0], -1.0), worth)
            continue
        tally.false += 1
        before = [window for window in stream.windows if window[1] < row]
        worth = -1.0
        if before:
            first, last = before[-1]
            worth = sigmoid((row - last) / (last - first)) if last > first else -1.0
        tally.raw += FALSE * worth
    tally.hit = len(best)
    tally.raw += sum(best.values()) - (tally.windows - tally.hit)
    return tally


def expected(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stand-in for the model, so that a corpus takes seconds: the readings at unit variance, as the training
    normalizes them, and the exponential mean with the least recent error.
    """
    count = np.arange(1, len(value) + 1)
    mean = np.cumsum(value) / count
    spread = np.sqrt(np.maximum(np.cumsum(value**2) / count - mean**2, 1e-12))
    x = (value - mean) / np.where(spread > 1e-6, spread, 1.0)
    shares = np.array([1.0, 0.5, 0.25, 0.12, 0.06])
    level, error = np.full(len(shares), x[0]), np.zeros(len(shares))
    out = np.zeros(len(x))
    for i, one in enumerate(x.tolist()):
        # The mean and the scale move a little with each reading; the levels are kept on the new scale.
        if i:
            level = (level * spread[i - 1] + mean[i - 1] - mean[i]) / spread[i] if spread[i] > 1e-6 else level
        weight = np.exp(-4 * (error - error.min()) / (error.min() + 1e-9))
        out[i] = weight @ level / weight.sum()
        error += (np.minimum(np.abs(level - one), 3.0) ** 2 - error) / 200
        level = level + shares * (one - level)
    return x, out


def rows_of_alarms(stream: FaultyStream, **options: float) -> list[int]:
    """The rows at which the detector raises an alarm, with a stand-in for its model."""
    from unbounded.detect._columns import Column
    from unbounded.detect._score import Scorer

    x, guess = expected(stream.value)
    scorer = Scorer([Column("value")], **options)
    scored = scorer.score(np.arange(len(x)), stream.time, stream.value[:, None], x[:, None], guess[:, None])
    return [alarm.row for alarm in scored.alarms]


def table(streams: list[FaultyStream], alarms: Callable[[FaultyStream], list[int]]) -> dict[str, Tally]:
    """The tally of each kind of stream, and of all."""
    out: dict[str, Tally] = {}
    whole = Tally()
    for stream in streams:
        tally = judge(stream, alarms(stream))
        out.setdefault(stream.kind, Tally()).add(tally)
        whole.add(tally)
    return {**dict(sorted(out.items())), "all": whole}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=1_000, help="the first seed; those below 1,000 chose the defaults")
    parser.add_argument("--seeds", type=int, default=4, help="streams of each kind")
    options = parser.parse_args()
    streams = corpus(range(options.first, options.first + options.seeds))
    for kind, tally in table(streams, rows_of_alarms).items():
        print(f"{kind:14} {tally}")


if __name__ == "__main__":
    main()

"""Stats: the numbers of batches, rows, passes, waits and losses of a feed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple


class InputStats(NamedTuple):
    """The rows of one source of a mix that were trained on, and the passes over them; None if it has no passes."""

    rows: int
    passes: float | None


@dataclass(frozen=True)
class Stats:
    """The stats of a feed, for the whole run or for one epoch.

    Attributes:
        steps: batches trained on.
        rows: rows in them.
        passes: passes over a finite source's rows; None if there are none.
        fetched: rows that the sources returned.
        reuse: rows trained on for each row fetched; None before the first.
        in_doubt: batches that were handed out, never confirmed, and came again.
        waited: seconds in which the trainer waited for a batch.
        worked: seconds in which it did not.
        age: mean seconds from a row's time to its training: from its arrival, or from the event time that
            `.time(column)` declares; None for rows without either.
        bad: rows with a non-finite value that `normalize` saw, `on_nan="pass"` let through, or `on_nan="skip"` left
            out.
        dropped: rows that a full buffer dropped.
        missed: rows missing in the gaps that the source noticed.
        retries: how often a source was opened again after a transient error.
        cut: rows that `pad` or `batch(bucket=)` has cut to a length.
        broken: rows that `images(on_bad="skip")` left out.
        expired: keys that `windows(by=)` or `normalize(by=)` forgot after a long silence.
        left_out: rows that `drop_missing` left out.
        unfilled: rows in which a value stayed missing behind `fill("last")`, since none had come before.
        unmatched: rows for which no label came in time in `join`.
        unmatched_labels: labels for which no row came in time.
        inputs: for a mix, the rows and passes of each source, by name.

    >>> import numpy as np, unbounded as ub
    >>> with ub.Feed(ub.from_arrays(np.arange(10)).batch(5), epoch=ub.Epoch(steps=4)) as feed:
    ...     for batch in feed:
    ...         pass
    ...     print(feed.stats, feed.stats.in_doubt)
    4 batches × 5 = 20 rows, 2 passes 0
    """

    steps: int = 0
    rows: int = 0
    passes: float | None = None
    fetched: int = 0
    in_doubt: int = 0
    waited: float = 0.0
    worked: float = 0.0
    aged: float = 0.0
    aged_rows: int = 0
    bad: int = 0
    dropped: int = 0
    missed: int = 0
    retries: int = 0
    cut: int = 0
    broken: int = 0
    expired: int = 0
    left_out: int = 0
    unfilled: int = 0
    unmatched: int = 0
    unmatched_labels: int = 0
    inputs: Mapping[str, InputStats] = field(default_factory=dict)

    @property
    def reuse(self) -> float | None:
        """Rows trained on for each row fetched."""
        return self.rows / self.fetched if self.fetched else None

    @property
    def age(self) -> float | None:
        """Mean seconds from a row's arrival, or its event time, to its training."""
        return self.aged / self.aged_rows if self.aged_rows else None

    @property
    def waiting(self) -> float:
        """The fraction of time in which the trainer waited, from 0 to 1."""
        total = self.waited + self.worked
        return self.waited / total if total else 0.0

    def since(self, earlier: Stats) -> Stats:
        """The difference to `earlier` stats.

        Differences are at least 0: a resumed run fetches and drops again what was read ahead and not trained on.
        """
        more = dict(zip(_NAMES, map(_minus, _values(self), _values(earlier)), strict=True))
        none = InputStats(0, 0.0)
        inputs = {
            name: InputStats(*map(_minus, each, earlier.inputs.get(name, none))) for name, each in self.inputs.items()
        }
        ahead = {name: max(0, more[name]) for name in ("fetched", *_OF_STAGES)}
        return Stats(**{**more, **ahead}, inputs=inputs)

    def logs(self) -> dict[str, float]:
        """The stats as numbers for a trainer's logs: a History, a CSV file or TensorBoard."""
        shown: dict[str, Any] = {
            "rows": self.rows,
            "passes": self.passes,
            "reuse": self.reuse,
            "age": self.age,
        }
        for name, each in self.inputs.items():
            shown |= {f"rows/{name}": each.rows, f"passes/{name}": each.passes}
        shown["waiting"] = self.waiting
        rare = ("bad", "dropped", "missed", "retries", *_OF_STAGES, "in_doubt")
        shown.update({name: getattr(self, name) for name in rare if getattr(self, name)})
        return {name: float(value) for name, value in shown.items() if value is not None}

    def __str__(self) -> str:
        size = f" × {self.rows // self.steps:,}" if self.steps and self.rows % self.steps == 0 else ""
        text = f"{self.steps:,} {'batch' if self.steps == 1 else 'batches'}{size} = {self.rows:,} rows"
        if not size:
            text = text.replace(" = ", ", ")
        if self.passes is not None:
            passes = f"{self.passes:,.2f}".rstrip("0").rstrip(".")
            text += f", {passes} {'pass' if passes == '1' else 'passes'}"
        return text


def _minus(a: Any, b: Any) -> Any:
    return a if b is None else None if a is None else a - b


# Counted by stages, which may be ahead of the training.
_OF_STAGES = ("cut", "broken", "expired", "left_out", "unfilled", "unmatched", "unmatched_labels")
_NAMES = tuple(each.name for each in fields(Stats) if each.name != "inputs")
_values = attrgetter(*_NAMES)

"""Stats: what really happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple


class InputStats(NamedTuple):
    """What was trained on of one source of a mix: rows, and passes over its rows; None where there are none."""

    rows: int
    passes: float | None


@dataclass(frozen=True)
class Stats:
    """What a feed did, over the whole run or over one epoch.

    Attributes:
        steps: batches trained on.
        rows: rows in them.
        passes: passes over a finite source's rows; None where there are none.
        fetched: rows that the source gave.
        reuse: rows trained on for each row that the source gave, over all of the stream; None before the
            first.
        in_doubt: batches that were handed out and never confirmed, and came again.
        waited: seconds in which the trainer waited for a batch.
        worked: seconds in which it did not.
        age: seconds from a row's arrival to its training, on average; None for rows that were there from the
            beginning.
        bad: rows with a value that is not finite: `normalize` saw them, or `on_nan="pass"` let them through, or
            `on_nan="skip"` left them out.
        dropped: rows that a full buffer let go.
        missed: rows that did not come, in the gaps that the source noticed.
        retries: how often a source was opened again after an error that may pass.
        expired: keys that `windows(by=)` or `normalize(by=)` forgot after a long silence, as far as that was noticed.
        unmatched: rows that `join` gave up waiting for a label of.
        unmatched_labels: labels that it gave up waiting for a row of.
        inputs: of a mix, the rows and passes of each source, by its name.

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
    expired: int = 0
    unmatched: int = 0
    unmatched_labels: int = 0
    inputs: Mapping[str, InputStats] = field(default_factory=dict)

    @property
    def reuse(self) -> float | None:
        """Rows trained on for each row fetched."""
        return self.rows / self.fetched if self.fetched else None

    @property
    def age(self) -> float | None:
        """Seconds from a row's arrival to its training, on average."""
        return self.aged / self.aged_rows if self.aged_rows else None

    @property
    def waiting(self) -> float:
        """The share of the time in which the trainer waited, from 0 to 1."""
        total = self.waited + self.worked
        return self.waited / total if total else 0.0

    def since(self, earlier: Stats) -> Stats:
        """What happened after `earlier`.

        A resumed run fetches again what was fetched ahead and not trained on: that is not fewer than none. So it is
        with what is given up on the way.
        """
        more = dict(zip(_NAMES, map(_minus, _values(self), _values(earlier)), strict=True))
        none = InputStats(0, 0.0)
        inputs = {
            name: InputStats(*map(_minus, each, earlier.inputs.get(name, none))) for name, each in self.inputs.items()
        }
        ahead = {name: max(0, more[name]) for name in ("fetched", "expired", "unmatched", "unmatched_labels")}
        return Stats(**{**more, **ahead}, inputs=inputs)

    def logs(self) -> dict[str, float]:
        """As numbers for a trainer's logs, for a History, a CSV file or TensorBoard."""
        shown: dict[str, Any] = {
            "rows": self.rows,
            "passes": self.passes,
            "reuse": self.reuse,
            "age": self.age,
        }
        for name, each in self.inputs.items():
            shown |= {f"rows/{name}": each.rows, f"passes/{name}": each.passes}
        shown["waiting"] = self.waiting
        rare = ("bad", "dropped", "missed", "retries", "expired", "unmatched", "unmatched_labels", "in_doubt")
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


_NAMES = tuple(each.name for each in fields(Stats) if each.name != "inputs")
_values = attrgetter(*_NAMES)

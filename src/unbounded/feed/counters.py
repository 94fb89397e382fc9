"""Counters of a feed: seconds waited and worked, the age of rows, batches in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from unbounded.core.block import Run
from unbounded.core.runtime import Runtime
from unbounded.feed.in_flight import Count
from unbounded.feed.stats import InputStats, Stats

CARRIED = ("in_doubt", "waited", "worked", "aged", "aged_rows", "bad")
"""The counters that a state contains; all other stats follow from the position or come from the nodes."""


class Counters:
    """Counts of one feed, from the run's beginning."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.begin({})

    def begin(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`; from 0 if it is empty."""
        self.in_doubt: int = state.get("in_doubt", 0)
        self.bad: int = state.get("bad", 0)
        self._waited: float = state.get("waited", 0.0)
        self._worked: float = state.get("worked", 0.0)
        self._aged: float = state.get("aged", 0.0)
        self._aged_rows: int = state.get("aged_rows", 0)
        self._looked: float | None = None  # when the current work began; None while the trainer does something else
        epoch = dict(state.get("epoch", {}))
        inputs = {name: InputStats(*each) for name, each in epoch.pop("inputs", {}).items()}
        self._epoch = Stats(**epoch, inputs=inputs)

    def state(self) -> dict[str, Any]:
        """The counters as plain data."""
        now = self.stats(Count(), None, {})
        return {**{name: getattr(now, name) for name in CARRIED}, "epoch": self._epoch_state()}

    def _epoch_state(self) -> dict[str, Any]:
        # Zeros are left out, to keep positions small.
        state = {name: value for name, value in asdict(self._epoch).items() if value}
        inputs = {name: list(each) for name, each in state.pop("inputs", {}).items()}
        return {**state, "inputs": inputs} if inputs else state

    # -- time ----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """The trainer works on a batch from now on, if it did not already."""
        if self._looked is None:
            self._looked = self._runtime.monotonic()

    def pause(self) -> None:
        """The trainer does something else: neither work on batches nor waiting."""
        if self._looked is not None:
            self._worked += self._runtime.monotonic() - self._looked
            self._looked = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting."""
        begun = self._runtime.monotonic()
        if self._looked is not None:
            self._worked += begun - self._looked
        try:
            yield
        finally:
            self._looked = self._runtime.monotonic()
            self._waited += self._looked - begun

    # -- rows ----------------------------------------------------------------------------------------------------

    def trained(self, run: Run) -> None:
        """Count a run of batches that was trained on now."""
        if run.arrived is not None:
            self._aged += (self._runtime.time() - run.arrived) * run.total
            self._aged_rows += run.total

    # -- results -------------------------------------------------------------------------------------------------

    def stats(
        self,
        count: Count,
        passes: float | None,
        counts: Mapping[str, int],
        inputs: Mapping[str, InputStats] | None = None,
    ) -> Stats:
        """The stats up to `count`, also for each source of a mix; `counts` are those of the nodes."""
        working = 0.0 if self._looked is None else self._runtime.monotonic() - self._looked
        return Stats(
            steps=count.steps,
            rows=count.rows,
            passes=passes,
            fetched=counts.get("fetched", 0),
            in_doubt=self.in_doubt,
            waited=self._waited,
            worked=self._worked + working,
            aged=self._aged,
            aged_rows=self._aged_rows,
            # Not the sum: both may have counted the same rows.
            bad=max(counts.get("bad", 0), self.bad),
            dropped=counts.get("dropped", 0),
            missed=counts.get("missed", 0),
            retries=counts.get("retries", 0),
            cut=counts.get("cut", 0),
            broken=counts.get("broken", 0),
            expired=counts.get("expired", 0),
            left_out=counts.get("left_out", 0),
            unfilled=counts.get("unfilled", 0),
            unmatched=counts.get("unmatched", 0),
            unmatched_labels=counts.get("unmatched_labels", 0),
            inputs=inputs or {},
        )

    def end_epoch(self, stats: Stats) -> None:
        """The epoch ends at `stats`."""
        self._epoch = stats

    def epoch(self, stats: Stats) -> Stats:
        """The stats of the current epoch, given those of the run."""
        return stats.since(self._epoch)

"""OneByOne: batches for a trainer that requests each of them in its own time, as Keras does.

The trainer calls `fetch` where waiting and errors are possible, and `take` where they are not. The feed's own loops are
in `loops`.
"""

from __future__ import annotations

from collections.abc import Iterator

from unbounded.core.trees import Tree
from unbounded.feed.delivery import Delivery
from unbounded.feed.in_flight import InFlight


class OneByOne(Delivery):
    """The part of `Feed` that fetches batches and hands them out one by one."""

    def fetch(self, batches: int, *, whole: bool = False) -> int:
        """Read and check the next `batches` batches of the current epoch, without handing them out; may wait.

        Args:
            batches: how many to fetch.
            whole: True if an epoch that has any batch left has all of these, even if a bound falls among them. Only
                `steps` and a declared end are then exact.

        Returns:
            How many `take` can return now, up to `batches`: fewer if the epoch or the stream ends, or the feed was
            interrupted.
        """
        wanted = self._handed + batches
        if wanted <= self._fetched:
            return batches
        self.check_usable()
        if wanted <= self._sure and not self._interrupted:
            self._fetched = wanted
            return batches
        have = self._fetched - self._handed
        if have <= 0:
            have = 0
            self._settle()
            self.progress.enter()
            if self.epoch_over:
                return 0
        fixed = self.epoch.steps if self.epoch is not None else None
        stop = None if fixed is None else self.progress.start.steps + fixed
        while have < batches and not self._interrupted:
            step = self._handed + have
            if stop is not None and step >= stop:
                break
            if step >= self._reader.tail.steps:
                if not self._pull():
                    break
                continue
            flight = self._reader.flight_of(step)
            assert flight is not None
            if step > self._handed and not whole and step >= self.progress.end_in(flight):
                break
            if not flight.checked:
                self._check(flight, step)
            have += 1
            self._fetched = self._handed + have
            self._sure = self._sure_in(flight)
        return have

    def _sure_in(self, flight: InFlight) -> int:
        """The step before which the batches of a run need no check by `fetch`."""
        if not flight.checked or (self.epoch is not None and self.epoch.seconds is not None):
            return 0
        return min(flight.end, self.progress.end_in(flight))

    @property
    def ready(self) -> int:
        """The number of batches that were fetched and not handed out."""
        return max(0, self._fetched - self._handed)

    def take(self) -> Tree:
        """Hand out the next batch, which `fetch` has fetched."""
        step = self._handed
        assert step < self._fetched
        flight = self._reader.flight_of(step)
        assert flight is not None
        self._handed = step + 1
        return flight.run.items[step - flight.before.steps]

    def taken_in_turn(self, batches: int) -> Iterator[Tree]:
        """`trained`, `fetch` and `take` in one for each batch requested: the three calls would cost more than gathering
        a batch of 32 rows. Ends where more than the current run of batches has to be looked at.

        Args:
            batches: how many to fetch at a time; after an `interrupt` the loop ends with the last of them.
        """
        step = self._handed
        flight = self._reader.flight_of(step)
        if flight is None:
            return
        items, first, end = flight.run.items, flight.before.steps, flight.end
        while self._handed == step < end:
            self._trained = step
            if step >= self._fetched:
                if self._interrupted or step + batches > self._sure:
                    return
                self._fetched = step + batches
            self._handed = step = step + 1
            yield items[step - 1 - first]

    def upcoming(self, most: int) -> list[Tree]:
        """The next batches, up to `most`, that `fetch` would return without waiting; none is handed out.

        The first is there if `fetch` has returned it. None follow it if the epoch ends by time.
        """
        first = self._handed
        flight = self._reader.flight_of(first)
        if flight is None or first >= self._fetched:
            return []
        stop = min(max(self._fetched, self._sure), flight.end, first + most)
        return flight.run.items[first - flight.before.steps : stop - flight.before.steps]

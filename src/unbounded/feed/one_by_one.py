"""OneByOne: batches for a trainer that asks for each of them in its own time, as Keras does.

It has batches fetched, where waiting and failing are in place, and takes them where neither may happen. Loops of the
feed's own are left to `loops`.
"""

from __future__ import annotations

from collections.abc import Iterator

from unbounded.core.trees import Tree
from unbounded.feed.at_hand import AtHand
from unbounded.feed.in_flight import InFlight


class OneByOne(AtHand):
    """Batches that are fetched, and then handed out one by one. See `Feed`, of which this is a part."""

    def fetch(self, batches: int, *, whole: bool = False) -> int:
        """Have the next `batches` batches of the epoch at hand there, waited for and checked; none is handed out.

        Args:
            batches: how many are wanted.
            whole: an epoch that has a batch left has this many, though a bound falls among them. Only a number of
                steps and a declared end are kept to the batch.

        Returns:
            How many `take` can hand out now, up to `batches`: fewer where the epoch or the stream ends, or the feed is
            to stop.
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
            if step >= self._tail.steps:
                if not self._pull():
                    break
                continue
            flight = self._flight_of(step)
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
        """Up to where batches of the run in which the last one was fetched need no look any more."""
        if not flight.checked or (self.epoch is not None and self.epoch.seconds is not None):
            return 0
        return min(flight.end, self.progress.end_in(flight))

    @property
    def ready(self) -> int:
        """How many batches `fetch` has found that are not handed out."""
        return max(0, self._fetched - self._handed)

    def take(self) -> Tree:
        """Hand out the next batch, which `fetch` has said is there."""
        step = self._handed
        assert step < self._fetched
        flight = self._flight_of(step)
        assert flight is not None
        self._handed = step + 1
        return flight.run.items[step - flight.before.steps]

    def taken_in_turn(self, batches: int) -> Iterator[Tree]:
        """`trained`, `fetch` and `take`, each time that the next batch is asked for, which together cost more than to
        gather a batch of 32 rows. It ends where they have to look further than into one run of batches.

        Args:
            batches: how many to fetch at a time; an `interrupt` ends the loop after the last of them.
        """
        step = self._handed
        flight = self._flight_of(step)
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
        """The next batches, up to `most`, that `fetch` would have without waiting; none is handed out.

        The first is there where `fetch` has said so. None follow it where time ends the epoch.
        """
        first = self._handed
        flight = self._flight_of(first)
        if flight is None or first >= self._fetched:
            return []
        stop = min(max(self._fetched, self._sure), flight.end, first + most)
        return flight.run.items[first - flight.before.steps : stop - flight.before.steps]

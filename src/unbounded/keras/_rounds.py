"""Rounds: the batches of `evaluate`, `predict` and validation, independent of the position of training."""

from __future__ import annotations

from typing import Any, Literal

from unbounded.core import user_code
from unbounded.core.cursor import from_plain
from unbounded.core.node import StreamError
from unbounded.core.pages import join_pages
from unbounded.core.trees import Tree
from unbounded.feed.epoch import Epoch
from unbounded.feed.feed import Feed
from unbounded.keras import _length
from unbounded.keras.internals import Role

Validation = Literal["same", "next"]

_ASKED = {
    "validation": "validation_steps",
    "fit": "validation_steps",
    "evaluate": "steps",
    "predict": "steps",
}


class Rounds:
    """The same stream, opened again and read in rounds. A round that was left before its end is repeated.

    Args:
        feed: a core feed for the rounds, with confirm="manual".
        validation: "same" gives the same batches in each round, "next" continues after the last round.
    """

    def __init__(self, feed: Feed, validation: Validation) -> None:
        self.feed = feed
        self.validation = validation
        self._epoch = feed.epoch
        self._begun = False
        self._state: Any = None  # the position at which the round began
        self._pages: dict[str, Tree] = {}  # that it refers to
        self.number = 0
        """The number of rounds that ran to their end."""
        if validation == "same":
            self._mark()
            # The round will be repeated, so a source that can't seek must keep its rows.
            feed.releases.hold()

    def length(self, steps: int | None, role: Role) -> int | None:
        """The number of steps of the next round, if known.

        Args:
            steps: `validation_steps` or `steps`; None leaves it to the feed's epoch, or to the end.
            role: the purpose of the round.

        Raises:
            ValueError: nothing defines the length of a round, or two things do.
        """
        if steps is not None and self._epoch is not None and self._epoch != Epoch(steps=steps):
            raise ValueError(
                f"{_ASKED[role]}={steps} was given beside a feed with {self._epoch!r}. Leave one of them out."
            )
        self.feed.epoch = Epoch(steps=steps) if steps is not None else self._epoch
        if self.feed.epoch is None and not self.feed.stream.has_end:
            raise ValueError(
                "The feed never ends, and nothing says how much of it makes a round. Give "
                f"Feed(stream, epoch=ub.Epoch(steps=100)), or {_ASKED[role]}=100."
            )
        if self.validation == "same" or self._begun:
            self.back()
        return _length.epoch_steps(self.feed)[1]

    def begin(self, steps: int | None, role: Role) -> int | None:
        """Begin a round; return its number of steps, if known."""
        length = self.length(steps, role)
        if self.validation == "next":
            self._mark()
        self._begun = True
        self.feed.resume()
        return length

    def fetch(self, batches: int) -> int:
        """Fetch `batches` batches of the round; return how many there are. A signal ends the wait.

        Raises:
            StreamError: the stream has ended before the round.
        """
        feed = self.feed
        if feed.interrupted:
            return 0
        there = None
        with user_code.CatchInterrupt():
            there = feed.fetch(batches, whole=batches > 1 and feed.epoch is not None and feed.epoch.steps is None)
        if there is None:
            return 0  # a signal has ended the wait
        if not there and not feed.outstanding and not feed.interrupted and not feed.epoch_over:
            raise StreamError(
                'The stream of a feed with validation="next" has ended: there is no next round. Declare more '
                'passes, or use validation="same".'
            )
        return there

    @property
    def is_seen(self) -> bool:
        """True if the current round has handed out all of its batches."""
        return self._begun and self.feed.outstanding > 0 and self.feed.epoch_over

    def end(self) -> None:
        """The round is over: its batches were seen."""
        if self._begun and not self.feed.interrupted:
            self._begun = False
            self.number += 1
            self.feed.trained()
            self.feed.end_epoch()

    def settle(self) -> None:
        """Go to the beginning of the next round."""
        if self.validation == "same" or self._begun:
            self.back()

    def moved(self) -> None:
        """The core feed was moved to another position."""
        self._begun = False
        self._mark()

    def _mark(self) -> None:
        """A round begins where the feed stands. The pages of keyed stages are kept as they are: nobody changes one, and
        with many keys it takes far longer to make plain data of them."""
        self._pages = {}
        self._state = self.feed.plain_state(self._pages)

    def back(self) -> None:
        """Go back to the beginning of the round, as if it had not begun."""
        self._begun = False
        if self._state is not None and (self.feed.handed or self.feed.epoch_number):
            self.feed.go_to(self._state, join_pages(from_plain(self._state["position"]), self._pages.__getitem__))

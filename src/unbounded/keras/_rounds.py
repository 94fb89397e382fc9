"""Rounds: what `evaluate`, `predict` and validation see of a feed. They never touch the position of training."""

from __future__ import annotations

from typing import Any, Literal

from unbounded.core import user_code
from unbounded.core.cursor import from_plain
from unbounded.core.node import StreamError
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
    """The same stream once more, a round at a time. A round that was left before its end is begun again.

    Args:
        feed: a core feed of its own for the rounds, that confirms by hand.
        validation: "same" shows the same batches in each round, "next" goes on where the last one ended.
    """

    def __init__(self, feed: Feed, validation: Validation) -> None:
        self.feed = feed
        self.validation = validation
        self._epoch = feed.epoch
        self._begun = False
        self._state: Any = None  # where the round began
        self.number = 0
        """How many rounds have been seen to their end."""
        if validation == "same":
            self._state = feed.plain_state()
            # What follows its beginning is wanted again, so a source that can't go back must keep it.
            feed.hold()

    def length(self, steps: int | None, role: Role) -> int | None:
        """How many steps the next round has, where that is known.

        Args:
            steps: what `validation_steps` or `steps` says; None leaves it to the feed's own epoch, or the end.
            role: what the round is for.

        Raises:
            ValueError: nothing says how much a round is, or two things do.
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
        """A round begins; says how many steps it has, where that is known."""
        length = self.length(steps, role)
        if self.validation == "next":
            self._state = self.feed.plain_state()
        self._begun = True
        self.feed.resume()
        return length

    def fetch(self, batches: int) -> int:
        """Have so many batches of the round there; says how many there are. A signal ends the wait.

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
        """Whether the round at hand has handed out all of its batches."""
        return self._begun and self.feed.outstanding > 0 and self.feed.epoch_over

    def end(self) -> None:
        """The round is over: what was handed out was seen."""
        if self._begun and not self.feed.interrupted:
            self._begun = False
            self.number += 1
            self.feed.trained()
            self.feed.end_epoch()

    def settle(self) -> None:
        """Stand where the next round begins, between two of them."""
        if self.validation == "same" or self._begun:
            self.back()

    def moved(self) -> None:
        """The core feed was put somewhere else."""
        self._begun = False
        self._state = self.feed.plain_state()

    def back(self) -> None:
        """Go back to where the round began: it has not happened."""
        self._begun = False
        if self._state is not None and (self.feed.handed or self.feed.epoch_number):
            self.feed.go_to(self._state, from_plain(self._state["position"]))

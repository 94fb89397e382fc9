"""Rounds: what `evaluate`, `predict` and validation see of a feed. They never touch the position of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

from unbounded._epoch import Epoch
from unbounded._feed import Feed
from unbounded._mark import from_plain
from unbounded._node import StreamError
from unbounded._rows import Tree
from unbounded.keras import _length
from unbounded.keras._signals import Interrupted

EachRound = Literal["same", "next"]


class Rounds:
    """The same stream once more, a round at a time.

    Args:
        feed: a core feed of its own for the rounds, that confirms by being asked.
        each_round: "same" shows the same batches in each round, "next" goes on where the last one ended.
    """

    def __init__(self, feed: Feed, each_round: EachRound) -> None:
        self.feed = feed
        self.each_round = each_round
        self._epoch = feed.epoch
        self._begun = False
        self._state: Any = None  # where the round began
        self.number = 0
        """How many rounds have begun."""
        if each_round == "same":
            self._state = feed._state()
            # What follows its beginning is wanted again, so a source that can't go back must keep it.
            feed._kept = deque([feed._mark()["from"]])

    def begin(self, steps: int | None) -> int | None:
        """A round begins; says how many steps it has, where that is known.

        Args:
            steps: what `validation_steps` or `steps` says; None leaves it to the feed's own epoch, or the end.
        """
        if steps is not None and self._epoch is not None and self._epoch != Epoch(steps=steps):
            raise ValueError(
                f"{steps} validation steps were given beside a feed with {self._epoch!r}. Leave one of them out."
            )
        self.feed.epoch = Epoch(steps=steps) if steps is not None else self._epoch
        if self.feed.epoch is None and not _length.ends(self.feed.stream):
            raise ValueError(
                "The feed never ends, and nothing says how much of it makes a round. Give "
                "Feed(stream, epoch=ub.Epoch(steps=100)), or validation_steps= (steps= of evaluate and predict)."
            )
        if self.each_round == "same":
            self.back()
        else:
            if self._begun:
                self.end()
            self._state = self.feed._state()
        self._begun = True
        self.number += 1
        self.feed.resume()
        if not self._available() and not self.feed.interrupted:
            raise StreamError(
                'The stream of a feed with each_round="next" has ended: there is no next round. Declare more '
                'passes, or use each_round="same".'
            )
        return _length.epoch_steps(self.feed)[1]

    def _available(self) -> bool:
        try:
            return self.feed.available()
        except Interrupted:
            return False

    def batches(self) -> Iterator[Tree]:
        """The batches of the round at hand."""
        return self.feed.batches()

    def end(self) -> None:
        """The round is over: what was handed out was seen."""
        if self._begun:
            self._begun = False
            self.feed.trained()
            self.feed.end_epoch()

    def settle(self) -> None:
        """Stand where the next round begins, between two of them."""
        if self.each_round == "same":
            self.back()

    def moved(self) -> None:
        """The core feed was put somewhere else."""
        self._begun = False
        self._state = self.feed._state()

    def back(self) -> None:
        """Go back to where the round began: it has not happened."""
        self._begun = False
        if self._state is not None and self.feed.handed:
            self.feed._go(self._state, from_plain(self._state["position"]))

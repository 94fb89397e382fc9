"""Saving: what a checkpoint of a Keras run holds, written as one, and the feeds put where it says.

What it holds of the model is in `_model`, of the callbacks in `_callbacks`, of a feed in `unbounded.feed.snapshot`;
how it is written all or nothing in `unbounded.store.checkpoints`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from unbounded.feed.snapshot import Keeper
from unbounded.keras import _model
from unbounded.store.checkpoints import CheckpointError, Checkpoints, Saved

if TYPE_CHECKING:
    from unbounded.keras._feed import Feed

FORMAT = 1


class NotSaved(UserWarning):
    """A checkpoint was due and was not written, since its weights would replace better ones."""


class Saving:
    """The checkpoints of one run.

    Args:
        feeds: what is trained on, and then the validation feeds whose positions are saved.
        directory: of this run's checkpoints alone.
        keep: how many to keep, the newest.
        accept_changes: go on though a stream is no longer the one that a checkpoint is of.
    """

    def __init__(
        self, feeds: Sequence[Feed], directory: str | os.PathLike[str], *, keep: int, accept_changes: bool
    ) -> None:
        self._feeds = feeds
        self._store = Checkpoints(directory, keep=keep)
        self._keep = keep
        self._accept_changes = accept_changes
        self._keepers: list[Keeper] = []
        self._wrote: int | None = None  # the step of the newest checkpoint
        self._wrote_at_rest = False  # after a signal, when sources read no more

    @property
    def directory(self) -> Path:
        """Of this run's checkpoints alone."""
        return self._store.directory

    def close(self) -> None:
        """Let go of the directory; the next write takes it again."""
        self._store.close()

    def take_place(self) -> Saved | None:
        """Put the feeds where the newest checkpoint says, where there is one, and give it.

        Raises:
            CheckpointError: nothing can be written here, or what is here is no checkpoint of these feeds.
            ValueError: it is of another stream.
        """
        self._store.prepare()
        if not self._keepers:
            names = ["feed", *(f"feed-{i}" for i in range(1, len(self._feeds)))]
            parts = [self._feeds[0].core, *(other.rounds.feed for other in self._feeds[1:])]
            self._keepers = [
                Keeper(core, self._store.directory, name=name) for core, name in zip(parts, names, strict=True)
            ]
        saved = self._store.newest()
        if saved is None:
            for keeper in self._keepers:
                keeper.begin()
            return None
        info = saved.info
        if "keras" not in info:
            raise CheckpointError(
                f"{saved.path} was not written by ub.keras.Checkpoint. Use another directory for this run."
            )
        if info["keras"]["format"] > FORMAT:
            raise CheckpointError(
                f"{saved.path} holds a Keras run in format {info['keras']['format']}, and this version of unbounded "
                f"reads up to {FORMAT}. Update it (pip install -U unbounded), or use another directory."
            )
        if len(info["feeds"]) != len(self._feeds):
            raise CheckpointError(
                f"{saved.path} holds the positions of {len(info['feeds'])} feeds, and Checkpoint() was given "
                f"{len(self._feeds)}. Give the same feeds in the same order, or use another directory."
            )
        for keeper, state in zip(self._keepers, info["feeds"], strict=True):
            keeper.load(state, saved, accept_changes=self._accept_changes)
        for other in self._feeds[1:]:
            other.rounds.moved()
        self._feeds[0].moved()
        self._wrote = saved.number
        return saved

    def is_late(self) -> bool:
        """Whether there is something that the newest checkpoint lacks."""
        # After a signal in the middle of a write: what a source that can't go back has read since then comes along.
        live = not self._wrote_at_rest and any(keeper.is_live for keeper in self._keepers)
        return self._wrote != self._feeds[0].steps or live

    def write(
        self, model: Any, states: Any, about: Mapping[str, Any], changed: Mapping[str, Any], *, last: bool
    ) -> bool:
        """Write a checkpoint of this moment, unless its weights would replace better ones; says whether it did.

        Args:
            model: what is trained.
            states: of its callbacks.
            about: plain data about the run, to be read again before anything is put back.
            changed: of the model's state, what has changed since the moment that is meant.
            last: whether the run is about to stop.

        Raises:
            CheckpointError: it could not be written; the one before is still there, whole.
        """
        step = self._feeds[0].steps
        state = {**_model.model_state(model, steps=step), **changed}
        if (bad := _model.broken_weight(model, state)) is not None:
            old = "nothing was saved yet" if self._wrote is None else f"the newest is of step {self._wrote:,}"
            warnings.warn(
                f"{bad} has a NaN or an infinity after step {step:,}, so no checkpoint was written: {old}.",
                NotSaved,
                stacklevel=3,
            )
            return False
        for other in self._feeds[1:]:
            other.rounds.settle()
        at_rest = last or self._feeds[0].core.interrupted
        snapshots = [keeper.cut(last=at_rest) for keeper in self._keepers]
        segments = [segment for snapshot in snapshots for segment in snapshot.write(self._store)]
        feeds = [snapshot.info for snapshot in snapshots]
        versions = {"format": FORMAT, "keras": keras.__version__, "backend": keras.backend.backend()}
        self._store.write(
            step,
            {"model": state, "callbacks": states},
            {"feeds": feeds, "keras": {**versions, **about}},
            segments=segments,
        )
        for snapshot in snapshots:
            snapshot.posted(self._keep)
        self._wrote, self._wrote_at_rest = step, at_rest
        return True

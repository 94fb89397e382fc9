"""Saving: what a checkpoint of a Keras run holds, written as one, and the feeds put where it says.

All that it holds is taken in the thread that trains, between two steps: the model's variables, the random states, the
callbacks' states and the feeds' positions are of one moment. It is written in another thread, while training goes on.

What it holds of the model is in `_model_state`, of the callbacks in `_callbacks`, of a feed in
`unbounded.feed.snapshot`; how it is written all or nothing in `unbounded.store.checkpoints`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from unbounded.core.copies import Copies
from unbounded.core.packing import Packed, non_finite, owned, pack
from unbounded.core.warn import warn
from unbounded.feed.snapshot import Keeper, Snapshot, States
from unbounded.keras import _model_state
from unbounded.store.checkpoints import CheckpointError, Checkpoints, Saved

if TYPE_CHECKING:
    from unbounded.keras._keras_feed import Feed

FORMAT = 1


class NotSaved(UserWarning):
    """A checkpoint was due and was not written, since its weights would replace better ones."""


@dataclass(frozen=True)
class _Cut:
    """All of one checkpoint, as it was between two steps; nothing of it changes until it is written.

    Args:
        step: after which step.
        packed: the model's state and those of the callbacks.
        trainable: of the model's state, what a NaN must not replace.
        about: plain data about the run.
        snapshots: the feeds' parts.
        copies: what the arrays are some of.
    """

    step: int
    packed: Packed
    trainable: dict[str, Any]
    about: dict[str, Any]
    snapshots: list[Snapshot]
    copies: Copies


class Saving:
    """The checkpoints of one run.

    Args:
        feeds: what is trained on, and then the validation feeds whose positions are saved.
        directory: of this run's checkpoints alone.
        keep: how many to keep, the newest.
        accept_changes: go on though a stream is no longer the one that a checkpoint is of.
        wait: write each checkpoint before training goes on.
        local: where the run's logs lie on this machine, where the directory is a URL.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        directory: str | os.PathLike[str],
        *,
        keep: int,
        accept_changes: bool,
        wait: bool,
        local: str | os.PathLike[str] | None,
    ) -> None:
        self._feeds = feeds
        self._store = Checkpoints(directory, keep=keep, local=local, runtime=feeds[0].core.runtime)
        self._keep = keep
        self._accept_changes = accept_changes
        self._wait = wait
        self._writer = feeds[0].core.writer
        self._keepers: list[Keeper] = []
        self._copies: Copies | None = None  # of the one that was written last: their memory is for the next copies
        self._wrote: int | None = None  # the step of the newest checkpoint
        self._not_saved: str | None = None  # why the one that was written last was left out, until that is said

    @property
    def directory(self) -> Path | str:
        """Of this run's checkpoints alone."""
        return self._store.directory

    def close(self) -> None:
        """Let go of the directory, after what is being written; the next write takes it again.

        Raises:
            CheckpointError: what was being written could not be.
        """
        try:
            self.finish()
        finally:
            self._copies = None
            self._store.close()

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writer.busy

    def check(self) -> None:
        """Say what became of the checkpoint that was written last, unless it is still being written.

        Raises:
            CheckpointError: it could not be written; the one before is still there, whole.

        Warns:
            NotSaved: its weights would have replaced better ones.
        """
        self._writer.check()
        if self._not_saved is not None and not self._writer.busy:
            text, self._not_saved = self._not_saved, None
            warn(text, NotSaved)

    def finish(self) -> None:
        """Wait for what is being written, and `check`."""
        self._writer.finish()
        self.check()

    def take_place(self) -> Saved | None:
        """Put the feeds where the newest checkpoint says, where there is one, and give it.

        Raises:
            CheckpointError: nothing can be written here, or what is here is no checkpoint of these feeds.
            ValueError: it is of another stream.
        """
        self.finish()  # a fit that ended by an error may have left one
        self._store.prepare()
        if not self._keepers:
            names = ["feed", *(f"feed-{i}" for i in range(1, len(self._feeds)))]
            parts = [self._feeds[0].core, *(other.rounds.feed for other in self._feeds[1:])]
            self._keepers = [
                Keeper(core, self._store.local, name=name, find=_find(i))
                for i, (core, name) in enumerate(zip(parts, names, strict=True))
            ]
            for part in parts:
                part.writer = self._writer  # whichever of them is closed waits for what is written of all
        saved = self._store.fetch_newest()
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
            keeper.load(state, saved, self._store, accept_changes=self._accept_changes)
        for other in self._feeds[1:]:
            other.rounds.moved()
        self._feeds[0].moved()
        self._wrote = saved.number
        return saved

    def is_late(self) -> bool:
        """Whether there is something that the newest checkpoint lacks."""
        return self._wrote != self._feeds[0].steps

    def write(
        self, model: Any, states: Any, about: Mapping[str, Any], changed: Mapping[str, Any], *, last: bool
    ) -> bool:
        """Take a checkpoint of this moment, and write it while training goes on, or at once where training ends.

        Where one is being written, it waits for that if this is the last one, and else takes none.

        Args:
            model: what is trained.
            states: of its callbacks.
            about: plain data about the run, to be read again before anything is put back.
            changed: of the model's state, what has changed since the moment that is meant.
            last: whether the run is about to stop.

        Returns:
            Whether one was taken. What becomes of it is said by `check` and `finish`.

        Raises:
            CheckpointError: it was to be written at once, and could not be; the one before is still there, whole.
        """
        at_once = last or self._wait
        if at_once:
            self.finish()
        elif self._writer.busy:
            return False
        self.check()
        cut = self._cut(model, states, about, changed, last=last)
        if at_once:
            self._write(cut)
            self.check()
        else:
            self._writer.begin(lambda: self._write(cut))
        return True

    def _cut(
        self, model: Any, states: Any, about: Mapping[str, Any], changed: Mapping[str, Any], *, last: bool
    ) -> _Cut:
        """All of a checkpoint, as it is at this moment."""
        step = self._feeds[0].steps
        copies, self._copies = Copies(self._copies), None
        state = {**_model_state.model_state(model, steps=step, copies=copies), **changed}
        for other in self._feeds[1:]:
            other.rounds.settle()
        versions = {"format": FORMAT, "keras": keras.__version__, "backend": keras.backend.backend()}
        return _Cut(
            step,
            pack({"model": state, "callbacks": owned(states, copies)}),
            _model_state.trainable(model, state),
            {**versions, **about},
            [keeper.cut() for keeper in self._keepers],
            copies,
        )

    def _write(self, cut: _Cut) -> None:
        """Write what was taken, unless its weights would replace better ones; mostly in the writer's thread."""
        try:
            self._write_unless_bad(cut)
        finally:
            self._copies = cut.copies

    def _write_unless_bad(self, cut: _Cut) -> None:
        if (bad := non_finite(cut.trainable, name="weights")) is not None:
            old = "nothing was saved yet" if self._wrote is None else f"the newest is of step {self._wrote:,}"
            self._not_saved = (
                f"{bad} has a NaN or an infinity after step {cut.step:,}, so no checkpoint was written: {old}."
            )
            return
        segments = [segment for snapshot in cut.snapshots for segment in snapshot.write(self._store)]
        feeds = [snapshot.info for snapshot in cut.snapshots]
        self._store.write(cut.step, cut.packed, {"feeds": feeds, "keras": cut.about}, segments=segments)
        for snapshot in cut.snapshots:
            snapshot.posted(self._keep)
        self._wrote = cut.step


def _find(number: int) -> States:
    """Finds the state of the feed with that number in a manifest's plain data."""
    return lambda info: info["feeds"][number] if "feeds" in info and number < len(info["feeds"]) else None

"""Saving: takes checkpoints of a Keras run and writes them, and restores the feeds from one.

All of a checkpoint is copied in the training thread, between two steps: the model's variables, the random states, the
callbacks' states and the feeds' positions are of one moment. It is written in another thread, while training goes on.

The state of the model is in `_model_state`, that of callbacks in `_callbacks`, that of a feed in
`unbounded.feed.snapshot`; writing all or nothing is in `unbounded.store.checkpoints`.
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
from unbounded.feed.snapshot import Keeper, Snapshot, States, write_checkpoint
from unbounded.keras import _model_state
from unbounded.store.checkpoints import CheckpointError, Checkpoints, Saved

if TYPE_CHECKING:
    from unbounded.keras._keras_feed import Feed

FORMAT = 1


class NotSaved(UserWarning):
    """A warning: a checkpoint was due and was not written, since its weights would replace better ones."""


@dataclass(frozen=True)
class _Cut:
    """A checkpoint of a moment between two steps; it does not change until it is written.

    Args:
        step: the steps before it.
        packed: the states of the model and the callbacks.
        trainable: the trainable weights, which are checked for NaN.
        about: plain data about the run.
        snapshots: the feeds' parts.
        copies: made the copies of the arrays.
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
        feeds: the training feed, then the validation feeds whose positions are saved.
        directory: for this run's checkpoints alone.
        keep: how many to keep, the newest.
        accept_changes: True to resume although a stream differs from that of the checkpoint.
        wait: True to write each checkpoint before training goes on.
        local: for a URL, the directory on this machine that has the run's logs.
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
        self._accept_changes = accept_changes
        self._wait = wait
        self._writer = feeds[0].core.writer
        self._keepers: list[Keeper] = []
        self._copies: Copies | None = None  # of the last checkpoint written: the next copies reuse their memory
        self._wrote: int | None = None  # the step of the newest checkpoint
        self._not_saved: str | None = None  # why the last one was not written, until the warning

    @property
    def directory(self) -> Path | str:
        """The directory of this run's checkpoints."""
        return self._store.directory

    def close(self) -> None:
        """Wait for the checkpoint that is being written, and release the directory; the next write takes it again.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            self.finish()
        finally:
            self._copies = None
            self._store.close()

    @property
    def is_busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._writer.busy

    def check(self) -> None:
        """Report the outcome of the last checkpoint, unless it is still being written.

        Raises:
            CheckpointError: it could not be written; the one before is whole.

        Warns:
            NotSaved: its weights would have replaced better ones.
        """
        self._writer.check()
        if self._not_saved is not None and not self._writer.busy:
            text, self._not_saved = self._not_saved, None
            warn(text, NotSaved)

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and `check`."""
        self._writer.finish()
        self.check()

    def take_place(self) -> Saved | None:
        """Restore the feeds from the newest checkpoint, and return it; None if there is none.

        Raises:
            CheckpointError: nothing can be written here, or the checkpoint is not one of these feeds.
            ValueError: it belongs to another stream.
        """
        self.finish()  # a fit that ended by an error may have left a write
        self._store.prepare()
        if not self._keepers:
            names = ["feed", *(f"feed-{i}" for i in range(1, len(self._feeds)))]
            parts = [self._feeds[0].core, *(other.rounds.feed for other in self._feeds[1:])]
            self._keepers = [
                Keeper(core, self._store.local, name=name, find=_find(i))
                for i, (core, name) in enumerate(zip(parts, names, strict=True))
            ]
            for part in parts:
                part.writer = self._writer  # closing any of the feeds waits for the write
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
        """True if anything changed since the newest checkpoint."""
        return self._wrote != self._feeds[0].steps

    def write(
        self, model: Any, states: Any, about: Mapping[str, Any], changed: Mapping[str, Any], *, last: bool
    ) -> bool:
        """Take a checkpoint of this moment. It is written while training goes on, or at once if training ends.

        If another one is being written, wait for it if this is the last one, else take none.

        Args:
            model: the model.
            states: of its callbacks.
            about: plain data about the run, which is read before anything is restored.
            changed: parts of the model's state from before they were changed.
            last: True if the run is about to stop.

        Returns:
            True if one was taken. Its outcome is reported by `check` and `finish`.

        Raises:
            CheckpointError: it had to be written at once, and could not; the one before is whole.
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
        """A checkpoint of this moment."""
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
        """Write a checkpoint, unless its weights would replace better ones; usually in the writer's thread."""
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
        # The infos are complete when the snapshots are written, before the manifest is.
        info = {"feeds": [snapshot.info for snapshot in cut.snapshots], "keras": cut.about}
        write_checkpoint(self._store, cut.step, cut.packed, info, cut.snapshots)
        self._wrote = cut.step


def _find(number: int) -> States:
    """A function that returns the state of feed `number` from a manifest's plain data."""
    return lambda info: info["feeds"][number] if "feeds" in info and number < len(info["feeds"]) else None

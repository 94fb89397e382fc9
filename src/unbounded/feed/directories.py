"""Directories: saves a feed to directories of checkpoints and loads it from them, for `Feed.save` and `Feed.load`.

The feed's part of a checkpoint is in `snapshot`; writing a checkpoint all or nothing is in `unbounded.store`.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbounded.core.copies import Copies
from unbounded.core.node import StreamError
from unbounded.core.packing import pack_owned
from unbounded.core.trees import Tree
from unbounded.feed.snapshot import Keeper, write_checkpoint
from unbounded.store.checkpoints import CheckpointError, Checkpoints, Saved
from unbounded.store.paths import is_url, local_path
from unbounded.store.writer import Pending

if TYPE_CHECKING:
    from unbounded.feed.feed import Feed

_log = logging.getLogger("unbounded")


class Directories:
    """The directories that a feed was saved to or loaded from. All that it writes to them belongs to one run."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._run = feed.runtime.unique()
        self._open: dict[str, tuple[Keeper, Checkpoints]] = {}
        self.copies: Copies | None = None
        """Of the state that was written last: their memory is for the next copies."""

    @classmethod
    def of(cls, feed: Feed) -> Directories:
        """The directories of a feed."""
        if feed.directories is None:
            feed.directories = cls(feed)
        directories: Directories = feed.directories
        return directories

    def open(
        self,
        directory: str | os.PathLike[str],
        keep: int | None = None,
        local: str | os.PathLike[str] | None = None,
    ) -> tuple[Keeper, Checkpoints]:
        """A directory's checkpoints, and the writer of the feed's part of them.

        Raises:
            ValueError: the directory is a URL, and fsspec is not installed or does not know its scheme.
        """
        place = str(directory) if is_url(directory) else os.path.abspath(local_path(directory))
        if place not in self._open:
            kept, runtime = 3 if keep is None else keep, self._feed.runtime
            store = Checkpoints(directory, keep=kept, run=self._run, local=local, runtime=runtime)
            keeper = Keeper(self._feed, store.local, name="feed", find=lambda info: info.get("feed"))
            self._open[place] = (keeper, store)
        keeper, store = self._open[place]
        if keep is not None:
            store.keep = keep
        return keeper, store

    def loaded(self, saved: Saved) -> None:
        """The feed continues the run of a checkpoint."""
        self._run = saved.run

    def close(self) -> None:
        """Close all of them."""
        self.copies = None
        for _, store in self._open.values():
            store.close()


def save(
    feed: Feed, directory: Any, state: Tree, keep: int, *, wait: bool, local: Any
) -> Path | str | Pending[Path | str]:
    """See `Feed.save`."""
    if feed.outstanding:
        raise StreamError(
            "A batch is out and not confirmed, so whether its update is in the model can't be known. Call "
            "feed.trained() once the batch "
            "is trained on, and then feed.save(); or save between epochs."
        )
    feed.writer.finish()  # one checkpoint at a time; until then its files belong to the writing thread
    directories = Directories.of(feed)
    keeper, store = directories.open(directory, keep, local)
    steps = feed.steps
    # Copied if it is written while training goes on; otherwise written from where it is.
    copies, owned = None, state
    if not wait:
        copies, directories.copies = Copies(directories.copies), None
        owned = pack_owned(state, copies=copies)
    # Before the feed's row logs are moved here: the directory may be another run's, whose logs stay as they are.
    keeper.take_up(store)
    store.prepare(writing=True)
    snapshot = keeper.cut()

    def write() -> Path | str:
        path = write_checkpoint(store, steps, owned, {"feed": snapshot.info}, [snapshot])
        if copies is not None:
            directories.copies = copies
        return path

    if not wait:
        return feed.writer.begin(write)
    path = write()
    feed.releases.release_posted()
    return path


def load_newest(feed: Feed, directory: Any, *, accept_changes: bool, local: Any) -> Tree:
    """See `Feed.load`."""
    feed.check_usable()
    feed.writer.finish()
    before = feed.steps
    directories = Directories.of(feed)
    keeper, store = directories.open(directory, local=local)
    saved = store.fetch_newest()
    if saved is None:
        keeper.begin()
        return None
    if "feed" not in saved.info:
        by = "ub.keras.Checkpoint" if "keras" in saved.info else "something else than Feed.save"
        raise CheckpointError(
            f"{saved.path} was written by {by}, and Feed.load can't go on with it. Go on as it was begun, or use "
            "another directory."
        )
    state = saved.read_state()  # first: if it can't be read, the feed stays where it is
    keeper.load(saved.info["feed"], saved, store, accept_changes=accept_changes)
    directories.loaded(saved)
    if before and feed.steps != before:
        _log.warning(
            "feed.load(%r): the feed had trained %s batches, and stands after %s now, as the checkpoint does.",
            os.fspath(directory),
            f"{before:,}",
            f"{feed.steps:,}",
        )
    return state

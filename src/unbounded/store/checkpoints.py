"""A directory of checkpoints, each written all or nothing: after a crash at any moment the old one or the new
one is there, whole.

It keeps a tree of arrays, some plain data, and references to segments: files written once that several
checkpoints share. What they mean is left to those who write them.

    runs/first/
      step-000000000412/    one checkpoint; .1, .2, … at its end: written after the run had gone back
        state.npz           the tree
        manifest.json       format, what wrote it, the info, each file's size and SHA-256 (its own first)
      segments/             the files that checkpoints share
      .lock                 held by the process that writes
      .tmp-…                what is not finished, or half removed

At a URL there is neither a lock nor an unfinished file: a checkpoint is there when its manifest is (`remote.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from unbounded.core.packing import JSON, Packed, Tree, pack, to_json, write_packed
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.warn import warn
from unbounded.store import manifest
from unbounded.store.choosing import ReadOnly
from unbounded.store.directory import SEGMENTS
from unbounded.store.listing import Listed
from unbounded.store.lock import Lock
from unbounded.store.manifest import CheckpointError, DamagedCheckpoint, DamagedError, Segment
from unbounded.store.saved import STATE, Saved

__all__ = ["CheckpointError", "Checkpoints", "DamagedCheckpoint", "DamagedError", "Saved", "Segment"]

_SEGMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


class Checkpoints(ReadOnly):
    """A directory of checkpoints.

    Reading takes no lock and changes nothing. The first `write`, `add_segment` or `prepare` makes the
    directory, takes its lock and removes what a killed writer left; `close` lets go of the lock, as does the
    process's end.

    Args:
        directory: made when first written to; a path, or a URL that fsspec knows.
        keep: how many checkpoints to keep, the newest ones of this run. What this run did not write is never removed.
        run: the id of the run that is saved here: nothing is written where the newest checkpoint is of another one,
            unless `resume` was told to go on from it. None writes for whichever run wrote the newest.
        local: for a URL, where the run's logs lie on this machine.
        runtime: what is read and written with.

    Raises:
        ValueError: `keep` is no number of checkpoints; or the directory is a URL, and fsspec is not installed or does
            not know its scheme.

    Example:
        >>> import tempfile
        >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
        ...     path = checkpoints.write(412, {"w": np.ones(2)}, {"epoch": 3})
        >>> saved = checkpoints.newest()
        >>> saved.number, saved.info, saved.read_state()
        (412, {'epoch': 3}, {'w': array([1., 1.])})
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 3,
        run: str | None = None,
        local: str | os.PathLike[str] | None = None,
        runtime: Runtime = SYSTEM,
    ) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep={keep!r} is not a number of checkpoints: give 1 or more.")
        super().__init__(directory, local=local, runtime=runtime)
        self.keep = keep
        self.run = run
        self._runtime = runtime
        self._own: set[str] = set()  # what this run goes on from, and what it wrote
        self._lock: Lock | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; the next write takes it again."""
        if self._lock is not None:
            self._lock.let_go(self)
            self._lock = None

    def resume(self, saved: Saved) -> None:
        """Go on with the run that wrote a checkpoint, one that `newest` gave.

        What is written from now on takes the place of that checkpoint as the newest.
        """
        self.run = saved.run
        self._own = {*self._seen, saved.name}

    def prepare(self, *, writing: bool = False) -> None:
        """Make the directory, take its lock, and remove what a killed writer left.

        Every write does so by itself; done early, it shows early that nothing can be written here.

        Args:
            writing: something is about to be written that is no checkpoint and no segment.

        Raises:
            CheckpointError: nothing can be written, another process writes here, or a newer version did; for
                `writing`, the newest checkpoint here is of another run.
        """
        with self._sentence("Nothing can be saved"):
            lock = self._ready()
            if writing:
                with lock.turn:
                    self._refuse_others()

    def write(
        self, number: int, state: Tree | Packed, info: Mapping[str, JSON], *, segments: Sequence[Segment] = ()
    ) -> Path | str:
        """Write a checkpoint, all or nothing, and then remove those that are older than the newest `keep`.

        Of the same number again, it replaces the earlier one. A lower number than those already there means
        that the run has gone back: it is the newest all the same.

        Args:
            number: the step; it names the directory.
            state: nested dicts, lists and tuples of arrays and plain data, as `packing.write_tree` takes them; or what
                `packing.pack_owned` has made of such a tree, to be written in another thread than that in which it may
                change.
            info: plain data, to be read without the arrays.
            segments: what it refers to, from `add_segment` or from another checkpoint's `segments`.

        Returns:
            The checkpoint's directory, on the disk; a string where it is a URL.

        Raises:
            CheckpointError: it could not be written (a full disk, no permission, another writer), or the newest
                checkpoint here is of another run. What was there before is still there.
            TypeError: something in `state` or `info` can't be saved; the sentence says where it is.
        """
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise ValueError(f"A checkpoint's number is an int, 0 or more, not {number!r}.")
        names = [segment.name for segment in segments]
        if len(set(names)) < len(names):
            raise ValueError(f"Two segments of one checkpoint have one name: {', '.join(names)}.")
        packed = state if isinstance(state, Packed) else pack(state)
        plain = to_json(dict(info))
        with self._sentence(f"Step {number} was not saved"):
            lock = self._ready()
            with lock.turn:
                self._refuse_others()
                # Without a run of its own, it is written for whichever wrote the newest.
                newest = self._listing.newest()
                run = self.run or (newest.run if newest is not None else self._runtime.unique())
                name = self._write(int(number), run, packed, plain, segments, newest, lock)
                self._clean(name, int(number), run, lock)
        return self._directory.at(name)

    def add_segment(self, name: str, arrays: Tree | Packed) -> Segment:
        """Write a file that checkpoints can refer to.

        It stays until the last kept checkpoint that lists it goes; one that no checkpoint ever listed goes
        when the next process begins to write.

        Args:
            name: letters, digits, `.`, `_` and `-`; unique among the segments of a checkpoint.
            arrays: such as `{"x": array}`; any tree that `write` takes as state.

        Raises:
            CheckpointError: it could not be written.
        """
        if not _SEGMENT_NAME.fullmatch(name):
            raise ValueError(f"{name!r} can't name a segment: use letters, digits, '.', '_' and '-', up to 151.")
        packed = arrays if isinstance(arrays, Packed) else pack(arrays, name=name)
        with self._sentence(f"The segment {name} was not saved"):
            lock = self._ready()
            with lock.turn:
                self._refuse_others()
                file, size, sha256 = self._directory.add_segment(
                    name, lambda file: write_packed(file, *packed), lock.fresh
                )
        return Segment(name, file, size, sha256)

    def has(self, segment: Segment) -> bool:
        """Whether a segment's file is there, as long as it was written."""
        return self._directory.size(f"{SEGMENTS}/{segment.file}") == segment.size

    def _ready(self) -> Lock:
        lock = self._lock
        if lock is None or not lock.holds():
            lock = self._directory.begin(self)
            with lock.turn:
                self._listing.forget()
                self._listing.remove_orphans(lock.fresh)
            self._lock = lock
        return lock

    def _write(
        self,
        number: int,
        run: str,
        packed: Packed,
        info: JSON,
        segments: Sequence[Segment],
        newest: Listed | None,
        lock: Lock,
    ) -> str:
        listed = frozenset(segment.file for segment in segments)
        for segment in segments:
            if not self.has(segment):
                path = self._directory.at(f"{SEGMENTS}/{segment.file}")
                raise CheckpointError(f"{path} is not there as it was written: add that segment again.")
        logs = self._directory.copy_logs(() if newest is None else newest.logs)
        files: dict[str, tuple[int, str]] = {}
        name = self._listing.next_name(number)
        with self._owned(name):
            self._directory.write(
                name,
                {
                    STATE: lambda file: write_packed(file, *packed),
                    manifest.NAME: lambda file: manifest.write(file, number, run, info, segments, logs, files),
                },
                files,
                sync_segments=bool(listed & lock.fresh),
            )
        self._listing.wrote(name, Listed(run, listed, logs))
        lock.fresh -= listed
        return name

    @contextlib.contextmanager
    def _owned(self, name: str) -> Iterator[None]:
        """What is written is this run's, whatever comes of it: after a failed sync it is there all the same."""
        try:
            yield
        except BaseException:
            if any(entry.name == name for entry in self._listing.scan()):
                self._own.add(name)
            raise
        self._own.add(name)

    def _refuse_others(self) -> None:
        """Raise CheckpointError where the newest checkpoint is none that this run wrote or goes on from."""
        entries = self._listing.scan()
        if self.run is None or not entries or entries[-1].name in self._own:
            return
        name, folder = entries[-1].name, str(self.directory)
        if self._own:
            raise CheckpointError(
                f"Another process wrote {name} to {folder} after this run had loaded or written its newest checkpoint "
                "there. Nothing was saved and nothing was removed. To go on from that one, load it again: "
                f"feed.load({folder!r}); to keep both, save to another directory."
            )
        listed = self._listing.listed(entries[-1])
        if listed is not None and listed.run == self.run:
            return  # a second directory of a run that was loaded from the first
        raise CheckpointError(
            f"{folder} holds {name} of another run, and this run did not go on from it. Nothing was saved and nothing "
            f"was removed. To go on with that run, call feed.load({folder!r}) before the first batch; to begin a new "
            "run, save to another directory."
        )

    def _clean(self, written: str, number: int, run: str, lock: Lock) -> None:
        """Remove what is no longer kept; what can't be removed is tried again next time."""
        try:
            self._listing.remove_old(written, number, run, self.keep)
            self._listing.remove_orphans(lock.fresh)
        except OSError as error:
            text = f"An old checkpoint in {self.directory} could not be removed: {error.strerror or error}."
            warn(text)


def saved_steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps after which the checkpoints in a directory were saved, oldest first; none where there is none.

    Args:
        directory: of a run's checkpoints.

    Example:
        >>> import tempfile, numpy as np, unbounded as ub
        >>> folder = tempfile.mkdtemp()
        >>> with ub.Feed(ub.from_arrays(np.arange(10)).batch(2)) as feed:
        ...     for _, batch in zip(range(3), feed.batches()):
        ...         pass
        ...     feed.trained()
        ...     path = feed.save(folder)
        >>> ub.saved_steps(folder)
        [3]
    """
    return [saved.number for saved in Checkpoints(directory).all()]

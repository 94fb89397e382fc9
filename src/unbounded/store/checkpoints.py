"""A directory of checkpoints, each written all or nothing: after a crash at any moment, the old or the new one is
whole.

A checkpoint consists of a tree of arrays, plain data, and references to segments: files that are written once and that
several checkpoints share. Their content is defined by the callers.

    runs/first/
      step-000000000412/    one checkpoint; with .1, .2, … if the run had gone back and saved this step again
        state.npz           the tree
        manifest.json       format, versions, the info, each file's size and SHA-256, and its own SHA-256 first
      segments/             the files that checkpoints share
      .lock                 held by the process that writes
      .tmp-…                unfinished or partly removed

At a URL there is neither a lock nor an unfinished file: a checkpoint exists once its manifest does (`remote.py`).
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

    Reading takes no lock and changes nothing. The first `write`, `add_segment` or `prepare` creates the directory,
    takes its lock and removes what a killed writer left. `close` releases the lock, as does the end of the process.

    Args:
        directory: a path, or a URL that fsspec knows; created by the first write.
        keep: how many checkpoints of this run to keep, the newest. Those that this run did not write are never removed.
        run: the id of this run: writes are refused if the newest checkpoint is of another run, unless `resume` was
            called with it. None writes on behalf of the run that wrote the newest.
        local: for a URL, the directory on this machine that has the run's logs.
        runtime: for reading and writing.

    Raises:
        ValueError: `keep` is not a number of checkpoints; or the directory is a URL, and fsspec is not installed or
            does not know its scheme.

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
        self._own: set[str] = set()  # checkpoints that this run wrote, and the one that it resumed
        self._lock: Lock | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; the next write takes it again."""
        if self._lock is not None:
            self._lock.let_go(self)
            self._lock = None

    def resume(self, saved: Saved) -> None:
        """Continue the run that wrote a checkpoint, one that `newest` returned.

        Later checkpoints follow it as the newest.
        """
        self.run = saved.run
        self._own = {*self._seen, saved.name}

    def prepare(self, *, writing: bool = False) -> None:
        """Create the directory, take its lock, and remove what a killed writer left.

        Each write does this itself; calling it early reports early that nothing can be written.

        Args:
            writing: True if files other than checkpoints and segments are about to be written.

        Raises:
            CheckpointError: nothing can be written, another process writes here, or a newer version of unbounded did;
                with `writing`, also if the newest checkpoint is of another run.
        """
        with self._sentence("Nothing can be saved"):
            lock = self._ready()
            if writing:
                with lock.turn:
                    self._refuse_others()

    def write(
        self, number: int, state: Tree | Packed, info: Mapping[str, JSON], *, segments: Sequence[Segment] = ()
    ) -> Path | str:
        """Write a checkpoint, all or nothing, then remove those older than the newest `keep`.

        It replaces an earlier one of the same number. A number lower than existing ones means that the run has gone
        back: the checkpoint is the newest nevertheless.

        Args:
            number: the step; it names the directory.
            state: nested dicts, lists and tuples of arrays and plain data, as for `packing.write_tree`; or the result
                of `packing.pack_owned`, which can be written in another thread while the original tree changes.
            info: plain data that can be read without the arrays.
            segments: the segments that it refers to, from `add_segment` or another checkpoint's `segments`.

        Returns:
            The checkpoint's directory, on the disk; a string if it is a URL.

        Raises:
            CheckpointError: it could not be written (a full disk, no permission, another writer), or the newest
                checkpoint is of another run. Earlier checkpoints are unchanged.
            TypeError: a value in `state` or `info` can't be saved; the message names its path.
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
                # Without a run id, write on behalf of the run that wrote the newest.
                newest = self._listing.newest()
                run = self.run or (newest.run if newest is not None else self._runtime.unique())
                name = self._write(int(number), run, packed, plain, segments, newest, lock)
                self._clean(name, int(number), run, lock)
        return self._directory.at(name)

    def numbers(self) -> frozenset[int] | None:
        """The numbers of all checkpoints in the directory, also of damaged ones; None if it can't be read."""
        try:
            return frozenset(entry.number for entry in self._listing.scan())
        except OSError:
            return None

    def add_segment(self, name: str, arrays: Tree | Packed) -> Segment:
        """Write a file that checkpoints can refer to.

        It is kept as long as a kept checkpoint lists it. One that no checkpoint ever listed is removed when the next
        process begins to write.

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
        """True if a segment's file exists with the size that was written."""
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
        """Count a checkpoint as this run's even if writing it raises: after a failed sync it may exist."""
        try:
            yield
        except BaseException:
            if any(entry.name == name for entry in self._listing.scan()):
                self._own.add(name)
            raise
        self._own.add(name)

    def _refuse_others(self) -> None:
        """Raise CheckpointError if this run neither wrote nor resumed the newest checkpoint."""
        entries = self._listing.scan()
        if self.run is None or not entries or entries[-1].name in self._own:
            return
        name, folder = entries[-1].name, str(self.directory)
        if self._own:
            raise CheckpointError(
                f"Another process or feed wrote {name} to {folder} after this run had loaded or written its newest "
                "checkpoint there. Nothing was saved and nothing was removed. To go on from that one, load it again: "
                f"feed.load({folder!r}); to keep both, save to another directory."
            )
        listed = self._listing.listed(entries[-1])
        if listed is not None and listed.run == self.run:
            return  # this run was loaded from another directory of the same run
        raise CheckpointError(
            f"{folder} holds {name} of another run, and this run did not go on from it. Nothing was saved and nothing "
            f"was removed. To go on with that run, call feed.load({folder!r}) before the first batch; to begin a new "
            "run, save to another directory."
        )

    def _clean(self, written: str, number: int, run: str, lock: Lock) -> None:
        """Remove what is no longer kept; a failed removal is retried after the next write."""
        try:
            self._listing.remove_old(written, number, run, self.keep)
            self._listing.remove_orphans(lock.fresh)
        except OSError as error:
            text = f"An old checkpoint in {self.directory} could not be removed: {error.strerror or error}."
            warn(text)


def saved_steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps of the checkpoints in a directory, oldest first; an empty list if there are none.

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

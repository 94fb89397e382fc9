"""A directory of checkpoints, each written all or nothing: after a crash at any moment the old one or the new
one is there, whole.

It keeps a tree of arrays, some plain data, and references to segments: files written once that several
checkpoints share. What they mean is left to those who write them.

    runs/first/
      step-000000000412/    one checkpoint; .1, .2, … at its end: written after the run had gone back
        manifest.json       format, what wrote it, the info, each file's size and SHA-256 (its own first)
        state.npz           the tree
      segments/             the files that checkpoints share
      .lock                 held by the process that writes
      .tmp-…                what is not finished, or half removed
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from unbounded.core.packing import JSON, Packed, Tree, pack, to_json, write_packed
from unbounded.store import disk
from unbounded.store.listing import Listing, Manifest
from unbounded.store.saved import (
    CheckpointError,
    DamagedCheckpoint,
    DamagedError,
    Saved,
    Segment,
    open_saved,
    write_manifest,
)

__all__ = ["CheckpointError", "Checkpoints", "DamagedCheckpoint", "DamagedError", "Saved", "Segment"]

_SEGMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_T = TypeVar("_T")
_unique = itertools.count()


class Checkpoints:
    """A directory of checkpoints.

    Reading takes no lock and changes nothing. The first `write`, `add_segment` or `prepare` makes the
    directory, takes its lock and removes what a killed writer left; `close` lets go of the lock, as does the
    process's end.

    Args:
        directory: made when first written to; a path, no URL.
        keep: how many checkpoints to keep, the newest ones of this run. What this run did not write is never removed.
        run: the id of the run that is saved here: nothing is written where the newest checkpoint is of another one,
            unless `resume` was told to go on from it. None writes for whichever run wrote the newest.

    Raises:
        ValueError: the directory is a URL, or `keep` is no number of checkpoints.

    Example:
        >>> import tempfile
        >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
        ...     path = checkpoints.write(412, {"w": np.ones(2)}, {"epoch": 3})
        >>> saved = checkpoints.newest()
        >>> saved.number, saved.info, saved.read_state()
        (412, {'epoch': 3}, {'w': array([1., 1.])})
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 3, run: str | None = None) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep={keep!r} is not a number of checkpoints: give 1 or more.")
        self.directory = disk.local_path(directory)
        self.keep = keep
        self.run = run
        self._seen: frozenset[str] = frozenset()  # what was there when the newest was last looked for
        self._own: set[str] = set()  # what this run goes on from, and what it wrote
        self._lock: disk.Lock | None = None
        self._listing = Listing(self.directory)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; the next write takes it again."""
        if self._lock is not None:
            self._lock.let_go(self)
            self._lock = None

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole, every byte of it checked; None where there is none.

        Warns:
            DamagedCheckpoint: a newer one is damaged; the warning names the file and says why.

        Raises:
            CheckpointError: there are some, but none is whole, or the newest is of a newer format.
        """
        found = self._newest(Saved.check)
        return None if found is None else found[0]

    def read_newest(self, *, only: Sequence[str | tuple[str, ...]] | None = None) -> tuple[Saved, Tree] | None:
        """The newest checkpoint whose state is whole, and that state: to use a model, without going on with the run.

        No lock is taken, nothing is changed, the segments are not looked at, and a writer may be at work.

        Args:
            only: which parts of the state to read; see `Saved.read_state`.

        Warns:
            DamagedCheckpoint: a newer one is damaged.

        Raises:
            CheckpointError: there are some, but none is whole, or the newest is of a newer format.
        """
        return self._newest(lambda saved: saved.read_state(only=only))

    def _newest(self, look: Callable[[Saved], _T]) -> tuple[Saved, _T] | None:
        """The newest checkpoint at which `look` finds no damage, and what it gave."""
        with self._sentence("The checkpoints could not be read"):
            while True:
                reasons: list[str] = []
                entries = self._listing.scan()
                self._seen = frozenset(entry.name for entry in entries)
                run: str | None = None  # of the newest whose manifest can be read
                for entry in reversed(entries):
                    path = self.directory / entry.name
                    try:
                        saved = open_saved(path)
                        run = saved.run if run is None else run
                        result = look(saved)
                    except DamagedError as error:
                        if not path.exists():
                            break  # its writer has just removed it, in favour of a newer one: look again
                        self._listing.damaged.add(entry.name)
                        reasons.append(str(error))
                        continue
                    if reasons:
                        whose = "" if saved.run == run else ", which another run wrote"
                        text = f"{' '.join(reasons)} Going on from {path} instead{whose}."
                        warnings.warn(DamagedCheckpoint(text), stacklevel=3)
                    return saved, result
                else:
                    break
        if not reasons:
            return None
        raise CheckpointError(
            f"No checkpoint in {self.directory} is whole. {' '.join(reasons)} "
            "Put back a copy, or move that directory away to begin anew."
        )

    def all(self) -> list[Saved]:
        """The checkpoints with a whole manifest, oldest first; their other files are not looked at."""
        found = []
        with self._sentence("The checkpoints could not be read"):
            for entry in self._listing.scan():
                with contextlib.suppress(DamagedError):
                    found.append(open_saved(self.directory / entry.name))
        return found

    def resume(self, saved: Saved) -> None:
        """Go on with the run that wrote a checkpoint, one that `newest` gave.

        What is written from now on takes the place of that checkpoint as the newest.
        """
        self.run = saved.run
        self._own = {*self._seen, saved.path.name}

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
    ) -> Path:
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
            The checkpoint's directory, on the disk.

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
                newest = self._listing.newest_run() if self.run is None else self.run
                run = uuid.uuid4().hex if newest is None else newest
                path = self._write(int(number), run, packed, plain, segments, lock)
                self._clean(path.name, int(number), run, lock)
        return path

    def add_segment(self, name: str, arrays: Tree) -> Segment:
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
        packed = pack(arrays, name=name)
        with self._sentence(f"The segment {name} was not saved"):
            lock = self._ready()
            with lock.turn:
                self._refuse_others()
                folder = self.directory / "segments"
                disk.make_directory(folder)
                unfinished = folder / f".tmp-{os.getpid()}-{next(_unique)}"
                with _removed_on_failure(unfinished):
                    size, sha256 = disk.write_file(unfinished, lambda file: write_packed(file, *packed))
                    # Named by what is in it: what a checkpoint refers to is never replaced by other rows.
                    segment = Segment(name, f"{name}-{sha256[:16]}.npz", size, sha256)
                    lock.fresh.add(segment.file)
                    disk.rename(unfinished, folder / segment.file)  # `write` sees that the name is on the disk
        return segment

    def has(self, segment: Segment) -> bool:
        """Whether a segment's file is there, as long as it was written."""
        try:
            return (self.directory / "segments" / segment.file).stat().st_size == segment.size
        except OSError:
            return False

    @contextlib.contextmanager
    def _sentence(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(f"{what} in {self.directory}: {reason}.{self._remains()}") from error

    def _remains(self) -> str:
        try:
            entries = self._listing.scan()
        except OSError:
            return ""
        return f" What was saved before is still there, up to {entries[-1].name}." if entries else ""

    def _ready(self) -> disk.Lock:
        lock = self._lock
        if lock is None or not lock.holds():
            disk.make_directory(self.directory)
            lock = disk.Lock.of(self.directory, self)
            with lock.turn:
                for folder in (self.directory, self.directory / "segments"):
                    for path in folder.glob(".tmp-*"):
                        disk.remove(path)
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
        lock: disk.Lock,
    ) -> Path:
        folder = self.directory / "segments"
        listed = frozenset(segment.file for segment in segments)
        for segment in segments:
            if not self.has(segment):
                path = folder / segment.file
                raise CheckpointError(f"{path} is not there as it was written: add that segment again.")
        unfinished = self.directory / f".tmp-step-{number:012}-{os.getpid()}-{next(_unique)}"
        with _removed_on_failure(unfinished):
            disk.call(os.mkdir, unfinished)
            state = disk.write_file(unfinished / "state.npz", lambda file: write_packed(file, *packed))
            files = {"state.npz": state}
            disk.write_file(
                unfinished / "manifest.json", lambda file: write_manifest(file, number, run, info, segments, files)
            )
            disk.sync_directory(unfinished)
            if listed & lock.fresh:
                disk.sync_directory(folder)
            path = self.directory / self._listing.next_name(number)
            self._own.add(path.name)  # whatever comes of it: after a failed sync it is there all the same
            disk.rename(unfinished, path)
            disk.sync_directory(self.directory)
        self._listing.wrote(path.name, Manifest(run, listed))
        lock.fresh -= listed
        return path

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
        manifest = self._listing.manifest(entries[-1])
        if manifest is not None and manifest.run == self.run:
            return  # a second directory of a run that was loaded from the first
        raise CheckpointError(
            f"{folder} holds {name} of another run, and this run did not go on from it. Nothing was saved and nothing "
            f"was removed. To go on with that run, call feed.load({folder!r}) before the first batch; to begin a new "
            "run, save to another directory."
        )

    def _clean(self, written: str, number: int, run: str, lock: disk.Lock) -> None:
        """Remove what is no longer kept; what can't be removed is tried again next time."""
        try:
            self._listing.remove_old(written, number, run, self.keep)
            self._listing.remove_orphans(lock.fresh)
        except OSError as error:
            text = f"An old checkpoint in {self.directory} could not be removed: {error.strerror or error}."
            warnings.warn(text, stacklevel=3)


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the reason for the failure matters more
            disk.remove(path)
        raise

"""The choice of the checkpoint to resume from: the newest that is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from unbounded.core.packing import Tree
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.warn import warn
from unbounded.store.directory import open_directory
from unbounded.store.listing import Listing
from unbounded.store.manifest import CheckpointError, DamagedCheckpoint, DamagedError
from unbounded.store.saved import Saved, open_saved

_T = TypeVar("_T")


class ReadOnly:
    """A directory of checkpoints for reading: changes and locks nothing, also while a writer works.

    Args:
        directory: a path, or a URL that fsspec knows.
        local: for a URL, the directory on this machine that has the run's logs.
        runtime: for reading.

    Raises:
        ValueError: it is a URL, and fsspec is not installed or does not know its scheme.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        local: str | os.PathLike[str] | None = None,
        runtime: Runtime = SYSTEM,
    ) -> None:
        self._directory = open_directory(directory, runtime, local=local)
        self._listing = Listing(self._directory)
        self._seen: frozenset[str] = frozenset()  # the names at the last search for the newest

    @property
    def directory(self) -> Path | str:
        """A path, or a string if it is a URL."""
        return self._directory.path

    @property
    def local(self) -> Path:
        """The directory of the run's logs: the same, or for a URL one on this machine."""
        return self._directory.local

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole, with every byte verified; None if there are no checkpoints.

        Warns:
            DamagedCheckpoint: a newer one is damaged; the warning names the file and says why.

        Raises:
            CheckpointError: there are some, but none is whole, or the newest is of a newer format.
        """
        found = self._newest(Saved.check)
        return None if found is None else found[0]

    def fetch_newest(self) -> Saved | None:
        """`newest`, for resuming: its `read_state` and `read_segment` return what was read to verify it, so that no
        file is read twice, and the logs that it needs are copied to this machine.

        Warns:
            DamagedCheckpoint: a newer one is damaged.

        Raises:
            CheckpointError: there are some, but none is whole, or the newest is of a newer format.
        """

        def fetch(saved: Saved) -> None:
            saved.fetch()
            self._directory.fetch_logs(saved.logs)

        found = self._newest(fetch)
        return None if found is None else found[0]

    def read_newest(self, *, only: Sequence[str | tuple[str, ...]] | None = None) -> tuple[Saved, Tree] | None:
        """The newest checkpoint whose state is whole, and that state: for using a model without resuming the run.

        Segments are not verified.

        Args:
            only: the parts of the state to read; see `Saved.read_state`.

        Warns:
            DamagedCheckpoint: a newer one is damaged.

        Raises:
            CheckpointError: there are some, but none is whole, or the newest is of a newer format.
        """
        return self._newest(lambda saved: saved.read_state(only=only))

    def _newest(self, look: Callable[[Saved], _T]) -> tuple[Saved, _T] | None:
        """The newest checkpoint for which `look` raises no DamagedError, and the result of `look`."""
        with self._sentence("The checkpoints could not be read"):
            while True:
                reasons: list[str] = []
                entries = self._listing.scan()
                self._seen = frozenset(entry.name for entry in entries)
                run: str | None = None  # of the newest checkpoint with a readable manifest
                for entry in reversed(entries):
                    try:
                        saved = open_saved(self._directory, entry.name)
                        run = saved.run if run is None else run
                        result = look(saved)
                    except DamagedError as error:
                        if entry not in self._listing.scan():
                            break  # its writer has removed it since, in favour of a newer one: search again
                        self._listing.damaged.add(entry.name)
                        reasons.append(str(error))
                        continue
                    if reasons:
                        whose = "" if saved.run == run else ", which another run wrote"
                        text = f"{' '.join(reasons)} Going on from {saved.path} instead{whose}."
                        warn(DamagedCheckpoint(text))
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
        """The checkpoints with a whole manifest, oldest first; their other files are not verified."""
        found = []
        with self._sentence("The checkpoints could not be read"):
            for entry in self._listing.scan():
                with contextlib.suppress(DamagedError):
                    found.append(open_saved(self._directory, entry.name))
        return found

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

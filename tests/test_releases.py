"""Sources keep what any checkpoint on the disk needs, also one whose write was said to have failed."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import wait_until
from unbounded.core.files import Files
from unbounded.core.runtime import Runtime

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Numbers:
    """A broker with one topic: the numbers from 0 on. It hears what is saved."""

    replayable = True

    def __init__(self) -> None:
        self.committed: list[tuple[int, int]] = []

    def identity(self) -> Any:
        return {"topic": "numbers"}

    def open(self) -> NumbersReader:
        return NumbersReader(self)


class NumbersReader:
    def __init__(self, topic: Numbers) -> None:
        self.topic, self.at = topic, 0

    def position(self) -> Any:
        return self.at

    def seek(self, position: Any) -> None:
        self.at = position

    def read(self, timeout: float) -> Any:
        self.at += 1
        return np.array([self.at - 1])

    def commit(self, trained: Any, needed: Any) -> None:
        self.topic.committed.append((trained, needed))

    def close(self) -> None:
        pass


class Disk(Runtime):
    """A disk on which one kind of call fails, for paths with a certain name, as long as it is set."""

    class _Files(Files):
        fails: tuple[str, str] | None = None

        def _call(self, call: str, path: Path) -> None:
            if self.fails is not None and self.fails[0] == call and self.fails[1] in path.name:
                raise OSError(errno.EIO, "Input/output error", str(path))

        def sync_directory(self, path: Path) -> None:
            self._call("sync_directory", path)
            super().sync_directory(path)

        def rename(self, old: Path, new: Path) -> None:
            self._call("rename", new)
            super().rename(old, new)

    def __init__(self) -> None:
        self.files: Disk._Files = Disk._Files()


class Run:
    """A feed of the topic, in batches of one row, and a directory."""

    def __init__(self, feed: ub.Feed, topic: Numbers, disk: Disk, directory: Path) -> None:
        self.feed, self.topic, self.disk, self.directory = feed, topic, disk, directory
        feed.load(directory)
        self.batches = feed.batches()

    def train_to(self, step: int) -> None:
        while self.feed.steps < step:
            next(self.batches)
            self.feed.trained()

    def save(self, step: int, *, keep: int = 2, fails: tuple[str, str] | None = None) -> None:
        self.train_to(step)
        self.disk.files.fails = fails
        try:
            self.feed.save(self.directory, keep=keep)
        finally:
            self.disk.files.fails = None

    def heard(self, trained: int) -> int:
        """The row that the source was told to keep, with the newest checkpoint at `trained`."""
        found = self.topic.committed
        wait_until(lambda: bool(found) and found[-1][0] == trained)
        return found[-1][1]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    topic, disk = Numbers(), Disk()
    with ub.Feed(ub.from_source(topic).batch(1), runtime=disk) as feed:
        yield Run(feed, topic, disk, tmp_path / "run")


def test_a_checkpoint_that_is_there_although_its_write_failed_keeps_its_rows(run: Run) -> None:
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(5, fails=("sync_directory", "run"))  # after the rename: all of it is there
    assert ub.saved_steps(run.directory) == [5]
    run.save(10)
    assert run.heard(10) == 5
    (run.directory / "step-000000000010" / "state.npz").write_bytes(b"damaged")
    run.feed.close()
    with ub.Feed(ub.from_source(run.topic).batch(1)) as feed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ub.DamagedCheckpoint)
            feed.load(run.directory)
        assert feed.steps == 5
        assert next(feed.batches()).tolist() == [5]


def test_a_checkpoint_that_is_not_there_keeps_nothing(run: Run) -> None:
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(5, fails=("rename", "step-"))
    assert ub.saved_steps(run.directory) == []
    run.save(10)
    assert run.heard(10) == 10
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(15, fails=("rename", "step-"))
    run.save(20)
    assert ub.saved_steps(run.directory) == [10, 20]
    assert run.heard(20) == 10
    run.save(25)
    assert run.heard(25) == 20


def test_a_step_that_is_saved_again_in_vain_keeps_what_it_kept(run: Run) -> None:
    run.save(5, keep=3)
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(5, keep=3, fails=("rename", "step-"))
    run.save(10, keep=3)
    assert run.heard(10) == 5


def test_an_old_checkpoint_that_could_not_be_removed_keeps_its_rows(run: Run) -> None:
    run.save(5, keep=1)
    assert run.heard(5) == 5
    with pytest.warns(UserWarning, match="could not be removed"):
        run.save(10, keep=1, fails=("rename", ".tmp-gone"))
    there = ub.saved_steps(run.directory)
    assert run.heard(10) == there[0]
    run.save(15, keep=1)
    assert ub.saved_steps(run.directory) == [15]
    assert run.heard(15) == 15


def test_the_source_hears_of_the_last_checkpoint_before_it_is_closed(run: Run) -> None:
    for step in (3, 8):
        run.save(step)
    run.feed.close()
    assert run.topic.committed[-1] == (8, 3)

"""Sources keep what any checkpoint on the disk needs, also one whose write was said to have failed."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unbounded as ub
from helpers import CountingReader, log_of, wait_until
from test_record_log import Disk
from test_run_logs import of_small_segments, train
from unbounded.core.block import Offset

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


class NumbersReader(CountingReader):
    def __init__(self, topic: Numbers) -> None:
        super().__init__(0)
        self.topic = topic

    def commit(self, trained: Any, needed: Any) -> None:
        self.topic.committed.append((trained, needed))


def renames_to(name: str) -> Callable[..., None]:
    """A disk that refuses to rename to a path with such a name."""

    def fails(function: Any, *args: Any) -> None:
        if function is os.replace and name in Path(args[1]).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fails


def syncs_after_renaming_to(name: str) -> Callable[..., None]:
    """A disk that refuses all syncs after such a rename."""
    renamed = False

    def fails(function: Any, *args: Any) -> None:
        nonlocal renamed
        renamed |= function is os.replace and name in Path(args[1]).name
        if renamed and function is os.fsync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fails


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

    def save(self, step: int, *, keep: int = 2, fails: Callable[..., None] | None = None) -> None:
        self.train_to(step)
        self.disk.fails = fails
        try:
            self.feed.save(self.directory, keep=keep)
        finally:
            self.disk.fails = None

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
        run.save(5, fails=syncs_after_renaming_to("step-"))  # after the rename: all of it is there
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
        run.save(5, fails=renames_to("step-"))
    assert ub.saved_steps(run.directory) == []
    run.save(10)
    assert run.heard(10) == 10
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(15, fails=renames_to("step-"))
    run.save(20)
    assert ub.saved_steps(run.directory) == [10, 20]
    assert run.heard(20) == 10
    run.save(25)
    assert run.heard(25) == 20


def test_a_step_that_is_saved_again_in_vain_keeps_what_it_kept(run: Run) -> None:
    run.save(5, keep=3)
    with pytest.raises(ub.CheckpointError, match="Input/output error"):
        run.save(5, keep=3, fails=renames_to("step-"))
    run.save(10, keep=3)
    assert run.heard(10) == 5


def test_an_old_checkpoint_that_could_not_be_removed_keeps_its_rows(run: Run) -> None:
    run.save(5, keep=1)
    assert run.heard(5) == 5
    with pytest.warns(UserWarning, match="could not be removed"):
        run.save(10, keep=1, fails=renames_to(".tmp-gone"))
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


def test_a_run_that_was_saved_only_elsewhere_begins_again_with_its_first_row(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    with ub.Feed(of_small_segments()) as feed:
        feed.load(home)
        for _ in range(3):
            train(feed, 5)
            feed.load(home)  # there is still nothing
            feed.save(elsewhere, keep=1)
        assert log_of(feed).start == Offset(0)
    with ub.Feed(of_small_segments()) as feed:
        feed.load(home)
        assert train(feed, 15) == [[*range(first, first + 50)] for first in range(0, 750, 50)]
        feed.save(home)  # from here on its checkpoint says what is needed
        train(feed, 1)
        feed.save(tmp_path / "third")
        assert log_of(feed).start == Offset(600)  # its segments are removed whole


def test_a_broker_hears_that_a_run_saved_only_elsewhere_needs_its_first_row(tmp_path: Path) -> None:
    topic = Numbers()
    with ub.Feed(ub.from_source(topic).batch(1)) as feed:
        run = Run(feed, topic, Disk(), tmp_path / "home")
        run.train_to(3)
        feed.save(tmp_path / "elsewhere")
        assert run.heard(3) == 0
        run.save(5)
        assert run.heard(5) == 3

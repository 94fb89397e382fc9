"""The logs of a run: begun with it, moved with it, and never mixed with those of another run."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import CountingReader, log_of, train, train_all, wait_until
from intercepted_files import all_changes
from test_record_log import QUICK, Disk, FailsAt, full, never
from unbounded.core.block import Offset
from unbounded.sources.memory_log import MemoryLog
from unbounded.sources.row_log import RowLog
from unbounded.store.origin import SourceOrigin, read_origin, set_aside, write_origin

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Meter:
    """A function that gives each number once, whatever the process, and waits after `stop` of them."""

    def __init__(self, first: int = 0) -> None:
        self.numbers = itertools.count(first)

    def stream(self, size: int = 3, batch: int | None = 4, **given: Any) -> ub.Stream:
        """Its stream: one that can't go back."""
        numbers = self.numbers

        def meter() -> Iterator[Any]:
            while True:
                yield np.array([next(numbers) for _ in range(size)])

        made = ub.from_generator(meter, **given)
        return made if batch is None else made.batch(batch)


def counted(batches: list[list[int]]) -> list[int]:
    """The rows of all batches."""
    return [row for batch in batches for row in batch]


def left_alone(feed: ub.Feed) -> None:
    """What a kill leaves: nothing is saved."""
    feed.close()


# ---- the beginning of a run ----


def test_killed_before_its_first_checkpoint_a_run_begins_again_with_the_first_row_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        assert feed.load(tmp_path) is None
        assert counted(train(feed, 5)) == [*range(20)]
    assert not caplog.records
    for _ in range(2):
        caplog.clear()
        with ub.Feed(meter.stream()) as feed:
            assert feed.load(tmp_path) is None
            # Nothing that was read is lost, and nothing is read twice.
            assert counted(train(feed, 3000)) == [*range(12_000)]
        (said,) = [r.getMessage() for r in caplog.records]
        assert "ended before its first checkpoint. It begins again with the first row of meter()" in said


def test_a_source_that_can_seek_begins_again_where_it_was_first_opened(tmp_path: Path) -> None:
    class Latest:
        """Begins with the newest row."""

        replayable = True
        newest = 100

        def identity(self) -> Any:
            return "latest"

        def open(self) -> Any:
            return CountingReader(self.newest, rows=2)

    for newest in (100, 500):
        Latest.newest = newest
        with ub.Feed(ub.from_source(Latest()).batch(2)) as feed:
            feed.load(tmp_path)
            assert train(feed, 2) == [[100, 101], [102, 103]]


def test_rows_that_were_read_before_the_directory_was_known_are_spilled_into_it(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        assert counted(train(feed, 3)) == [*range(12)]
        assert isinstance(log_of(feed), MemoryLog)
        feed.save(tmp_path)
        assert isinstance(log_of(feed), RowLog)
        assert counted(train(feed, 2)) == [*range(12, 20)]
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 2000)) == [*range(12, 8012)]


def test_a_disk_that_is_full_when_rows_are_spilled_leaves_nothing_behind_and_the_run_at_work(tmp_path: Path) -> None:
    meter = Meter()
    disk = Disk()
    with ub.Feed(meter.stream(), runtime=disk) as feed:
        train(feed, 3)
        # More rows than the disk takes in 30 writes.
        wait_until(lambda: log_of(feed).stop.rows > 4000)
        for allowed in (0, 1, 2, 30):
            disk.fails = full(5, writes=allowed)
            with pytest.raises(ub.CheckpointError, match=r"can't be opened: No space left.*Make room there"):
                feed.save(tmp_path)
            disk.fails = None
            assert isinstance(log_of(feed), MemoryLog)
            assert not (tmp_path / "log" / "feed" / "meter").exists()
            assert not [*tmp_path.glob("log/feed/**/*.log")]
        feed.save(tmp_path)
        assert counted(train(feed, 2)) == [*range(12, 20)]
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 500)) == [*range(12, 2012)]


# ---- whose log it is ----


def test_the_log_of_another_source_is_set_aside_under_a_free_name_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ub.Feed(Meter().stream()) as feed:
        feed.load(tmp_path)
        train(feed, 2)
    kept = {p.name: p.read_bytes() for p in (tmp_path / "log").rglob("*.log")}

    def other() -> Iterator[Any]:
        while True:
            yield np.arange(7)

    for number in (1, 2):
        caplog.clear()
        with ub.Feed(ub.from_generator(other, passes=number).batch(7)) as feed:
            feed.load(tmp_path)
            assert train(feed, 2) == [[*range(7)]] * 2
        (said,) = [r.getMessage() for r in caplog.records]
        assert f".old-{number}" in said
        assert "another source's. It was set aside" in said
    aside = [p for p in (tmp_path / "log" / "feed").iterdir() if p.name.endswith(".old-1")]
    assert len(aside) == 1
    assert {p.name: p.read_bytes() for p in aside[0].glob("*.log")} == kept


def test_a_run_that_was_copied_goes_on_there_and_both_by_themselves(tmp_path: Path) -> None:
    meter, other = Meter(), Meter(1000)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "a")
        train(feed, 3)
        feed.save(tmp_path / "a")
        train(feed, 2)
    had = int(next(meter.numbers))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name, source in (("b", other), ("a", meter)):
        with ub.Feed(source.stream()) as feed:
            feed.load(tmp_path / name)
            found = counted(train(feed, had // 4 + 10))
            expected = [*range(12, had)]
            assert found[: len(expected)] == expected
            assert found[len(expected)] == (1000 if name == "b" else had + 1)


@pytest.mark.parametrize("resumed_from", ["log", "checkpoint", "state"])
def test_rows_of_another_form_than_those_of_the_process_before_are_refused(resumed_from: str, tmp_path: Path) -> None:
    width = 3

    def sensor() -> Iterator[Any]:
        while True:
            yield np.zeros((2, width))

    def resume(feed: ub.Feed) -> None:
        if resumed_from == "state":
            feed.load_state_dict(state)
        else:
            feed.load(tmp_path)

    stream = ub.from_generator(sensor).batch(4)
    with ub.Feed(stream) as feed:
        if resumed_from != "state":
            feed.load(tmp_path)
        train(feed, 3)
        state = feed.state_dict()
        if resumed_from == "checkpoint":
            feed.save(tmp_path)
    width = 4
    with ub.Feed(stream) as feed:
        resume(feed)
        told = r"Row [\d,]+ of sensor\(\): .* shape \(4,\) and they had \(3,\) before.* in another directory"
        with pytest.raises(ub.RowsError, match=told):
            train(feed, 10_000)
    width = 3
    with ub.Feed(stream) as feed:
        resume(feed)
        assert len(train(feed, 10_000)) == 10_000


def test_checkpoints_are_not_gone_on_with_beside_the_log_of_another_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with ub.Feed(Meter().stream()) as feed:
            feed.load(tmp_path / name)
            train(feed, 3)
            feed.save(tmp_path / name)
            train(feed, 4000)  # more than were in the other log at its checkpoint
    shutil.rmtree(tmp_path / "a" / "log")
    shutil.copytree(tmp_path / "b" / "log", tmp_path / "a" / "log")
    with ub.Feed(Meter().stream()) as feed, pytest.raises(ub.DataLoss, match="is another run's"):
        feed.load(tmp_path / "a")


def test_a_log_that_ends_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        train(feed, 100)
        feed.save(tmp_path)
    (file,) = tmp_path.rglob("*.log")
    file.write_bytes(file.read_bytes()[:2000])
    with ub.Feed(meter.stream()) as feed, pytest.raises(ub.DataLoss, match=r"rows 0 to \d+.*Put the run"):
        feed.load(tmp_path)
    shutil.rmtree(tmp_path / "log")
    with ub.Feed(meter.stream()) as feed, pytest.raises(ub.DataLoss, match="rows 0 to 0"):
        feed.load(tmp_path)


def test_a_checkpoint_from_before_the_first_row_is_gone_on_with_when_rows_have_come(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        feed.save(tmp_path)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        train(feed, 3)
        left_alone(feed)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 3)) == [*range(12)]


def test_an_older_checkpoint_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        for _ in range(4):
            train(feed, 5)
            feed.save(tmp_path, keep=3)
    newest = max(p for p in tmp_path.iterdir() if (p / "manifest.json").exists())
    shutil.rmtree(newest)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert feed.steps == 15
        assert counted(train(feed, 2000)) == [*range(60, 8060)]


def test_rows_travel_into_a_second_directory_and_a_run_goes_on_there(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "first")
        train(feed, 3)
        feed.save(tmp_path / "first")
        train(feed, 2)
        held = log_of(feed).stop.rows
        feed.save(tmp_path / "second")
        assert Path(log_of(feed).where).is_relative_to(tmp_path / "first")
    shutil.rmtree(tmp_path / "first")
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "second")
        found = counted(train(feed, 5000))
        # What was read after the save, and lay in the first directory alone, is gone with it.
        old = next((i for i, (a, b) in enumerate(itertools.pairwise(found), 1) if b != a + 1), len(found))
        assert found[:old] == [*range(20, 20 + old)]
        assert 20 + old >= held
        feed.save(tmp_path / "second")
        assert Path(log_of(feed).where).is_relative_to(tmp_path / "second")
        after = counted(train(feed, 1))[0]
        assert after == found[-1] + 1
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "second")
        assert counted(train(feed, 3))[0] == after


def test_a_run_that_began_with_carried_rows_and_was_killed_before_its_next_save_has_all_that_it_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "first")
        train(feed, 5)
        feed.save(tmp_path / "second")
    found: list[int] = []
    for number in range(4):
        before = found
        with ub.Feed(meter.stream()) as feed:
            feed.load(tmp_path / "second")
            assert feed.steps == 5
            found = counted(train(feed, 2000 + 500 * number))
            assert found[: len(before)] == before
            left_alone(feed)
    assert found == sorted({*found})
    assert "set aside" not in caplog.text
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "second")
        train(feed, 10)
        feed.save(tmp_path / "second")
        train(feed, 1)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "second")
        assert counted(train(feed, 500)) == found[40:2040]


def test_another_runs_log_is_not_gone_on_with_beside_carried_rows(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "first")
        train(feed, 5)
        feed.save(tmp_path / "second")
        with ub.Feed(Meter(10**6).stream()) as other:
            other.load(tmp_path / "second")
            train(other, 3000)
        # A later checkpoint of the first run: the log that lies beside it began with another one.
        train(feed, 5)
        feed.save(tmp_path / "second")
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "second")
        held = log_of(feed).stop.rows
        found = counted(train(feed, held))
        assert found[: held - 40] == [*range(40, held)]
        assert max(found) < 10**6


class KilledDisk(Disk):
    """A machine that shows what a kill before each of its changes leaves of a directory."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = threading.Lock()  # of its threads: what one changes while another's copy is made is in no kill

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._turn:
            return super()._call(function, *args)

    def killed_at_each_change(self, path: Path, killed: Path, action: Callable[[], Any]) -> list[Path]:
        """Copies of a directory, as it was before each change that an action, or a thread meanwhile, made on the
        disk."""
        found: list[Path] = []

        def copy(*_: Any) -> None:
            found.append(killed / f"{len(found)}")
            if path.exists():
                shutil.copytree(path, found[-1])
            else:
                found[-1].mkdir(parents=True)

        self.fails = copy
        action()
        with self._turn:
            self.fails = None
        return found


def test_killed_while_rows_in_memory_are_spilled_no_log_of_the_run_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk, meter = KilledDisk(), Meter(10)
    with ub.Feed(meter.stream(), runtime=disk) as feed:
        train(feed, 2)
        oldest = 10 + log_of(feed).start.rows  # those before it were trained on, and let go of
        run = tmp_path / "run"
        places = disk.killed_at_each_change(run, tmp_path / "killed", lambda: feed.save(run))
    assert len(places) > 10
    began: list[int] = []
    for place in places[:: max(1, len(places) // 20)]:
        with ub.Feed(Meter(10**6).stream()) as feed:
            feed.load(place)
            began.append(train(feed, 1)[0][0])
            left_alone(feed)
    # Before the first row is written: with a new row. Then with the oldest that was kept, up to the checkpoint.
    ways = [10**6, oldest, 18]
    assert {*ways[:2]} <= {*began} <= {*ways}
    assert began == sorted(began, key=ways.index)
    assert "set aside" not in caplog.text


def test_killed_while_carried_rows_are_spilled_a_run_has_them_from_its_checkpoint(tmp_path: Path) -> None:
    disk, meter = KilledDisk(), Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path / "first")
        train(feed, 5)
        feed.save(tmp_path / "second")
    with ub.Feed(meter.stream(), runtime=disk) as feed:
        second = tmp_path / "second"
        places = disk.killed_at_each_change(second, tmp_path / "killed", lambda: feed.load(second))
        held = log_of(feed).stop.rows
    assert len(places) > 10
    for place in places[:: max(1, len(places) // 12)]:
        with ub.Feed(Meter(10**6).stream()) as feed:
            feed.load(place)
            found = counted(train(feed, held // 4))
            assert [row for row in found if row < 10**6] == [*range(20, 20 + sum(row < 10**6 for row in found))]
            assert sum(row < 10**6 for row in found) >= min(held - 20, len(found))


@pytest.mark.parametrize("keep", [1, 3])
def test_a_checkpoint_in_another_directory_costs_none_of_those_beside_the_log_its_rows(
    keep: int, tmp_path: Path
) -> None:
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path / "run")
        for step in (10, 20):
            train(feed, 10)
            feed.save(tmp_path / "run", state={"step": np.array([step])}, keep=2)
        for _ in range(4):
            train(feed, 5)
            feed.save(tmp_path / "copy", keep=keep)
    damage(tmp_path / "run", 20)
    with ub.Feed(of_small_segments()) as feed:
        with pytest.warns(ub.DamagedCheckpoint):
            assert feed.load(tmp_path / "run") == {"step": np.array([10])}
        assert train(feed, 1) == [[*range(500, 550)]]
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path / "copy")
        assert train(feed, 1) == [[*range(2000, 2050)]]


@pytest.mark.parametrize("steps", [0, 2])
def test_a_feed_that_has_given_way_reads_nothing_any_more_and_removes_nothing(steps: int, tmp_path: Path) -> None:
    opened: list[str] = []

    def stream(name: str) -> ub.Stream:
        def sensor() -> Iterator[Any]:
            opened.append(name)
            while True:
                yield np.array([next(numbers) for _ in range(50)])

        return ub.from_generator(sensor, log=ub.LogOptions(max_bytes=40_000)).batch(50)

    numbers = itertools.count()
    forgotten = ub.Feed(stream("forgotten"))
    forgotten.load(tmp_path)
    train(forgotten, steps)
    with ub.Feed(stream("new")) as feed:
        feed.load(tmp_path)
        found = counted(train(feed, 25))
        assert found == sorted(found)
        before = opened.count("forgotten")
        for _ in range(3):
            with pytest.raises(ub.StreamError, match="Another feed of this process goes on with the row log"):
                train(forgotten, 1000)
        assert opened.count("forgotten") == before  # the new one calls its own in a thread, perhaps only now
        # What the forgotten one lets go of, in whatever thread, is the new one's.
        node = forgotten.opened.sources[0]
        node.release({"row": 1000, "boundaries": 0})
        assert log_of(feed).start == Offset(0)
        left_alone(feed)
    forgotten.close()
    with ub.Feed(stream("next")) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 25)) == found


def of_small_segments() -> ub.Stream:
    """A stream of which each checkpoint lets go of rows: 5 blocks are a segment of its log."""
    return Meter().stream(size=50, batch=50, log=ub.LogOptions(max_bytes=40_000))


def damage(directory: Path, number: int) -> None:
    """The state of a checkpoint is cut short."""
    state = directory / f"step-{number:012}" / "state.npz"
    state.write_bytes(state.read_bytes()[:-1])


def test_a_checkpoint_behind_a_damaged_one_has_its_rows_whatever_the_damaged_one_needed(tmp_path: Path) -> None:
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path)
        for _ in range(2):
            train(feed, 10)
            feed.save(tmp_path, state={"x": np.zeros(9)}, keep=2)
    damage(tmp_path, 20)
    with ub.Feed(of_small_segments()) as feed:
        with pytest.warns(ub.DamagedCheckpoint):
            feed.load(tmp_path)
        train(feed, 1)
        feed.save(tmp_path, keep=2)
        assert log_of(feed).start.rows <= 500
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path)
        assert train(feed, 1) == [[*range(550, 600)]]


def test_a_step_that_is_saved_again_leaves_the_checkpoint_before_it_its_rows(tmp_path: Path) -> None:
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path)
        for steps in (10, 10, 0, 0):
            train(feed, steps)
            feed.save(tmp_path, state={"x": np.zeros(9)}, keep=2)
    assert [path.name for path in sorted(tmp_path.glob("step-*"))] == ["step-000000000010", "step-000000000020.2"]
    state = tmp_path / "step-000000000020.2" / "state.npz"
    state.write_bytes(state.read_bytes()[:-1])
    with ub.Feed(of_small_segments()) as feed:
        with pytest.warns(ub.DamagedCheckpoint):
            feed.load(tmp_path)
        assert train(feed, 1) == [[*range(500, 550)]]


def test_a_run_that_has_gone_back_keeps_the_rows_of_the_checkpoint_that_it_writes_then(tmp_path: Path) -> None:
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path)
        states = []
        for steps in (10, 1, 9):
            train(feed, steps)
            states.append(feed.state_dict())
            feed.save(tmp_path, keep=3)
        feed.load_state_dict(states[1])
        assert feed.steps == 11
        train(feed, 1)
        feed.save(tmp_path, keep=2)
    with ub.Feed(of_small_segments()) as feed:
        feed.load(tmp_path)
        assert train(feed, 1) == [[*range(600, 650)]]


def test_a_state_has_the_rows_wherever_they_lie(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        train(feed, 2)
        feed.releases.hold()
        in_memory = json.loads(json.dumps(feed.state_dict()))
        feed.save(tmp_path)
        wait_until(lambda: log_of(feed).stop.rows > 1000)
        on_disk = json.loads(json.dumps(feed.state_dict()))
        held = log_of(feed).stop.rows
    for state in (in_memory, on_disk):
        with ub.Feed(Meter(10**6).stream()) as feed:
            feed.load_state_dict(state)
            found = counted(train(feed, held + 5000))
            old = [row for row in found if row < 10**6]
            assert old == [*range(8, 8 + len(old))]
            assert len(old) >= 900 or state is in_memory
            assert found[len(old) :] == [*range(10**6, 10**6 + len(found) - len(old))]


@pytest.mark.parametrize("times", [1, 3])
def test_a_directory_that_is_removed_during_an_append_is_made_again(times: int, tmp_path: Path) -> None:
    left = [times]

    def removed(function: Any, *args: Any) -> None:
        name = Path(args[0]).name if function is os.replace else ""
        if left[0] and name.endswith(".log.new") and not name.startswith("000000000000"):
            left[0] -= 1
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(args[0]))

    found: list[int] = []
    with ub.Feed(of_small_segments(), runtime=Disk(removed)) as feed:
        feed.load(tmp_path)
        if times == 3:  # it can't be made: that is an error, and the next attempt goes on
            with pytest.raises(ub.StreamError, match="No such file or directory"):
                train_all(feed, found)
        found += counted(train(feed, 20))
        assert found == [*range(len(found))]
        assert left == [0]


# ---- a disk that refuses ----


def test_on_a_full_disk_what_is_logged_is_handed_on_then_it_raises_and_asking_again_goes_on(tmp_path: Path) -> None:
    meter = Meter()
    disk = Disk()
    seen: list[int] = []
    with ub.Feed(meter.stream(), runtime=disk) as feed:
        feed.load(tmp_path)
        seen += counted(train(feed, 2))
        wait_until(lambda: log_of(feed).stop.rows > 1000)
        disk.fails = full(3)
        for _ in range(3):
            with pytest.raises(ub.StreamError, match=r"can't be written to the row log .*No space left"):
                train_all(feed, seen)
        assert len(seen) >= 1000
        disk.fails = None
        seen += counted(train(feed, 2000))
        assert seen == [*range(len(seen))]
        feed.save(tmp_path)
        seen += counted(train(feed, 3))
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        del seen[-12:]
        seen += counted(train(feed, 3000))
    assert seen == [*range(len(seen))]


def test_a_checkpoint_that_can_not_be_synced_is_no_checkpoint_and_the_next_one_is(tmp_path: Path) -> None:
    meter = Meter()
    disk = Disk()
    with ub.Feed(meter.stream(), runtime=disk) as feed:
        feed.load(tmp_path)
        train(feed, 2)
        disk.fails = never(os.fsync)
        with pytest.raises((ub.CheckpointError, OSError)):
            feed.save(tmp_path)
        disk.fails = None
        train(feed, 2)
        feed.save(tmp_path)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 2000)) == [*range(16, 8016)]


def test_a_checkpoint_is_written_in_another_thread_while_rows_come(tmp_path: Path) -> None:
    meter = Meter()
    seen: list[int] = []
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        for _ in range(10):
            seen += counted(train(feed, 300))
            pending = feed.save(tmp_path, wait=False, keep=2)
            seen += counted(train(feed, 100))
            pending.wait()
        at = feed.steps - 100
        log = log_of(feed)
        assert log.start <= Offset(4 * at) <= log.synced
    assert seen == [*range(len(seen))]
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        assert feed.steps == at
        assert counted(train(feed, 3000)) == [*range(4 * at, 4 * at + 12_000)]


def test_the_older_of_two_feeds_of_one_run_gives_way_in_a_sentence(tmp_path: Path) -> None:
    meter = Meter()
    older = ub.Feed(meter.stream())
    older.load(tmp_path)
    train(older, 2)
    older.save(tmp_path)
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        with pytest.raises(ub.StreamError, match="Another feed of this process goes on with the row log"):
            train(older, 100_000)
        assert counted(train(feed, 2))[:8] == [*range(8, 16)]
        older.close()
        feed.save(tmp_path)


# ---- a bound ----


@pytest.mark.parametrize("directory", [True, False])
def test_reading_waits_where_the_log_is_full_until_rows_are_let_go(
    directory: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Meter().stream(size=5000, batch=1000, log=ub.LogOptions(max_bytes=500_000))

    def said() -> int:
        return sum("500,000 bytes that max_bytes allows" in r.getMessage() for r in caplog.records)

    seen: list[int] = []
    with ub.Feed(stream) as feed:
        if directory:
            feed.load(tmp_path)
        assert feed.available()
        wait_until(lambda: said() == 1)
        for _ in range(20):
            seen += counted(train(feed, 10))
            if directory:
                feed.save(tmp_path, keep=1)
                assert sum(p.stat().st_size for p in tmp_path.rglob("*.log")) <= 500_000
        assert seen == [*range(200_000)]
    assert said() == 1


def test_a_bound_is_a_positive_number_and_what_overflows_has_one() -> None:
    with pytest.raises(ValueError, match=r"LogOptions\(max_bytes=n\)"):
        ub.LogOptions(max_bytes=0)
    with pytest.raises(ValueError, match=r"overflow='drop'.*'block' or 'drop_oldest'"):
        ub.LogOptions(max_bytes=5, overflow="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give max_bytes="):
        ub.LogOptions(overflow="drop_oldest")


# A block of the meter is 400 bytes of rows, and about 470 in a file.
@pytest.mark.parametrize("directory", [True, False])
@pytest.mark.parametrize("stages", ["", "prefetch", "shuffle"])
def test_where_the_bound_holds_too_little_training_hears_how_much_is_needed_and_goes_on_after_a_save(
    stages: str, directory: bool, tmp_path: Path
) -> None:
    def stream(most: int) -> ub.Stream:
        made = Meter().stream(size=50, batch=None, log=ub.LogOptions(max_bytes=most))
        made = made.shuffle(100) if stages == "shuffle" else made
        return made.batch(20).prefetch(3) if stages == "prefetch" else made.batch(20)

    needed, seen, stops = 3000, [], 0
    for _ in range(6):
        run = tmp_path / f"{needed}"
        seen, stops = [], 0
        with ub.Feed(stream(needed)) as feed:
            if directory:
                feed.load(run)
            feed.releases.hold()  # a position was taken: nothing goes before a checkpoint
            while len(seen) < 500:
                try:
                    seen += counted(train(feed, 1))
                except ub.StreamError as error:
                    stops += 1
                    text = str(error)
                    assert f"max_bytes allows {needed:,}" in text
                    assert "while training waits, no checkpoint comes that lets rows go" in text
                    (more,) = re.findall(r"LogOptions\(max_bytes=(\d+)\)", text)
                    assert int(more) > needed
                    if stops < 100 and stages != "shuffle":
                        feed.save(run, keep=1)
                    else:
                        break
        if len(seen) >= 500 and not stops:
            break
        if stages != "shuffle":
            assert len(seen) >= 500
        needed = int(more)
    assert not stops
    assert needed > 3000
    assert stages == "shuffle" or seen[:500] == [*range(500)]


@pytest.mark.parametrize("ahead", [0, 1, 8])
@pytest.mark.parametrize("wait", [True, False])
def test_a_bound_that_holds_enough_stops_nobody_though_stages_work_ahead(
    wait: bool, ahead: int, tmp_path: Path
) -> None:
    made = Meter().stream(size=50, batch=None, log=ub.LogOptions(max_bytes=9000)).buffer(100).batch(20)
    seen: list[int] = []
    with ub.Feed(made.prefetch(ahead) if ahead else made) as feed:
        feed.load(tmp_path)
        for _ in range(25):
            seen += counted(train(feed, 10))
            feed.save(tmp_path, keep=1, wait=wait)
    assert seen == [*range(5000)]


@pytest.mark.parametrize("directory", [True, False])
def test_a_checkpoint_lets_go_of_rows_though_many_came_before_the_first_was_asked_for(
    directory: bool, tmp_path: Path
) -> None:
    # All that the bound allows is there, in small blocks, before any is pulled.
    made = Meter().stream(size=50, batch=None, log=ub.LogOptions(max_bytes=9000)).batch(50)
    with ub.Feed(made) as feed:
        if directory:
            feed.load(tmp_path)
        (node,) = feed.opened.sources
        assert node.await_open()
        wait_until(lambda: node.log.size > 8000)
        train(feed, 4)
        feed.save(tmp_path, keep=1)
        assert node.log.start.rows >= 100


def test_a_bound_on_the_rows_in_memory_stops_nobody_whose_rows_go_once_they_are_trained() -> None:
    for ahead in (0, 4):
        made = Meter().stream(size=50, batch=None, log=ub.LogOptions(max_bytes=500)).batch(20)
        with ub.Feed(made.prefetch(ahead) if ahead else made) as feed:
            assert counted(train(feed, 500)) == [*range(10_000)]


class Burst(Meter):
    """A meter that gives so many blocks at once, whoever waits for them, and then one each time that it is told to."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.more = threading.Semaphore(0)
        self.given = threading.Event()

    def stream(self, size: int = 50, batch: int | None = 20, **given: Any) -> ub.Stream:
        def burst(past: Any) -> Iterator[Any]:
            first = past.rows
            while True:
                if first >= size * self.blocks:
                    self.given.set()
                    self.more.acquire()
                yield np.arange(first, first + size)
                first += size

        made = ub.from_generator(burst, log=ub.LogOptions(max_bytes=8000, overflow="drop_oldest"), **given)
        return made if batch is None else made.batch(batch)


@pytest.mark.parametrize("directory", [True, False])
def test_what_is_dropped_is_what_nobody_had_and_all_else_is_trained_once(directory: bool, tmp_path: Path) -> None:
    source = Burst(400)
    with ub.Feed(source.stream(), runtime=QUICK) as feed:
        if directory:
            feed.load(tmp_path)
        seen = counted(train(feed, 2))
        assert source.given.wait(60)
        wait_until(lambda: feed.stats.fetched == 20_000)
        seen += counted(train(feed, 1))
        while seen[-1] < 19_960:
            seen += counted(train(feed, 1))
        assert seen == sorted({*seen})
        missing = [*({*range(seen[-1])} - {*seen})]
        assert feed.stats.dropped == len(missing) > 15_000
        assert feed.stats.missed == 0
        feed.close()
        source.more.release(10)


def test_dropped_rows_are_the_same_ones_after_a_kill_and_what_was_handed_on_comes_again(tmp_path: Path) -> None:
    source = Burst(400)
    whole = lambda: source.stream(batch=None).shuffle(70, seed=3).batch(20)  # noqa: E731
    with ub.Feed(whole(), runtime=QUICK) as feed:
        feed.load(tmp_path)
        train(feed, 2)
        feed.save(tmp_path, keep=1)
        train(feed, 1)
        assert source.given.wait(60)
        wait_until(lambda: feed.stats.fetched == 20_000)
        after = train(feed, 8)
        dropped = feed.stats.dropped
        left_alone(feed)
        source.more.release(10)
    assert dropped > 10_000
    source = Burst(400)
    with ub.Feed(whole(), runtime=QUICK) as feed:
        feed.load(tmp_path)
        assert feed.stats.dropped == dropped
        # The one batch that was trained after the checkpoint, and lost with the kill, comes again; so do the others.
        assert train(feed, 9)[1:] == after
        left_alone(feed)
        source.more.release(10)


def test_a_full_disk_drops_nothing(tmp_path: Path) -> None:
    source, disk = Burst(400), Disk()
    with ub.Feed(source.stream(), runtime=disk) as feed:
        feed.load(tmp_path)
        seen = counted(train(feed, 1))
        wait_until(lambda: feed.stats.dropped > 100)
        disk.fails = full(3)
        with pytest.raises(ub.StreamError, match=r"can't be written to the row log .*No space left"):
            train_all(feed, seen)
        dropped = feed.stats.dropped
        assert len({*seen}) == len(seen)
        assert len({*range(seen[-1] + 1)} - {*seen}) <= dropped
        disk.fails = None
        while seen[-1] < 19_960:
            try:
                seen += counted(train(feed, 1))
            except ub.StreamError:  # the disk refused a second time, or all rows of the full log were handed on
                feed.save(tmp_path, keep=1)
        assert seen == sorted({*seen})
        assert feed.stats.dropped == len({*range(seen[-1])} - {*seen})
        feed.close()
        source.more.release(10)


def test_a_source_that_could_go_back_is_put_behind_a_log(tmp_path: Path) -> None:
    calls: list[int] = []

    def numbers(start: int = 0) -> Iterator[Any]:
        calls.append(start)
        for i in itertools.count(start, 4):
            yield np.arange(i, i + 4)

    stream = ub.from_generator(numbers, log=ub.LogOptions()).batch(4)
    with ub.Feed(stream) as feed:
        feed.load(tmp_path)
        train(feed, 3)
        feed.save(tmp_path)
        held = log_of(feed).stop.rows
    with ub.Feed(stream) as feed:
        feed.load(tmp_path)
        assert counted(train(feed, 3000)) == [*range(12, 12_012)]
    assert calls[0] == 0
    assert calls[1] >= held  # only what was never read


# ---- origin.json ----


def test_origins_are_all_there_or_none_of_them(tmp_path: Path) -> None:
    disk = Disk()
    first = {"a": SourceOrigin({"topic": "é"}, {"p": [1, 2]}), "b": SourceOrigin(None, None, "00ff")}
    write_origin(tmp_path, first, disk)
    assert read_origin(tmp_path, disk) == first
    second = {"a": SourceOrigin("other")}
    for number in itertools.count():
        disk.fails = FailsAt(number + 1)
        try:
            write_origin(tmp_path, second, disk)
        except OSError:
            disk.fails = None
            assert read_origin(tmp_path, disk) in (first, second)
            assert [p.name for p in tmp_path.iterdir()] == ["origin.json"]
        else:
            break
    assert number > 3
    assert read_origin(tmp_path, disk) == second


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "sources": {"a": {"x": 1}}}', '{"format": "x"}', "\0\0"]
)
def test_origins_that_are_damaged_are_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text(text)
    with pytest.raises(ub.CheckpointError, match=r"origin\.json is damaged"):
        read_origin(tmp_path, Disk())


def test_origins_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text('{"format": 2, "sources": {}}')
    with pytest.raises(ub.CheckpointError, match="has format 2, and this version of unbounded reads up to 1"):
        read_origin(tmp_path, Disk())


def test_there_are_no_origins_where_nothing_was_written(tmp_path: Path) -> None:
    assert read_origin(tmp_path / "none", Disk()) is None


def test_what_is_set_aside_gets_the_first_name_that_is_free(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / f"{number}").touch()
        assert set_aside(tmp_path / "log", Disk()) == tmp_path / f"log.old-{number}"
        assert (tmp_path / f"log.old-{number}" / f"{number}").exists()


def test_the_origin_is_on_the_disk_before_the_first_row_is_handed_on(tmp_path: Path) -> None:
    meter = Meter()
    with ub.Feed(meter.stream()) as feed:
        feed.load(tmp_path)
        (origin,) = (read_origin(tmp_path / "log" / "feed", Disk()) or {}).values()
        assert origin.log == log_of(feed).id
        assert log_of(feed).stop == Offset(0)


def test_a_directory_that_can_not_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def read_only(function: Any, *args: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    with ub.Feed(Meter().stream()) as feed:
        with all_changes(read_only), pytest.raises(ub.CheckpointError, match="Read-only file system"):
            feed.load(tmp_path / "new")
        assert counted(train(feed, 2)) == [*range(8)]

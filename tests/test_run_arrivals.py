"""The arrival log of a run in its directory: begun with it, moved with it, and never mixed with another's."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arrival_trainer
import unbounded as ub
from arrival_trainer import CHANCE, Topic
from helpers import train
from intercepted_files import all_changes
from test_record_log import Disk, full, never
from unbounded.core.decisions import DecidedRange
from unbounded.core.runtime import SYSTEM
from unbounded.feed.run_logs import RunLogs
from unbounded.sources.arrival_file import ArrivalFile

pytestmark = pytest.mark.usefixtures("no_threads_left")
Batches = list[list[int]]


@pytest.fixture(autouse=True)
def _chance() -> None:
    """Which partition has rows is chance: it goes on from one life to the next, as the world does."""
    CHANCE.seed(11)


def stream(batch: int = 20) -> ub.Stream:
    """A topic whose partitions have rows in an order that is another one each time."""
    return ub.from_source(Topic()).batch(batch)


def live(directory: Path, steps: int, *, save: bool = False, **given: Any) -> Batches:
    """A process that goes on with a run, and trains on so many batches. It saves them, or is killed."""
    with ub.Feed(stream(), **given) as feed:
        feed.load(directory)
        found = train(feed, steps)
        if save:
            feed.save(directory)
    return found


def train_until_refused(feed: ub.Feed, seen: Batches) -> None:
    """Train on all that comes until an error is raised."""
    while True:
        seen += train(feed, 1)


def file_of(directory: Path, name: str = "feed") -> Path:
    """The directory of its arrival log."""
    return directory / "log" / name / "arrival_log"


def decided(path: Path) -> dict[str, list[DecidedRange]]:
    """What a log holds, by node."""
    file = ArrivalFile(path, SYSTEM)
    try:
        found: dict[str, list[DecidedRange]] = {}
        for _, entries in file.read(file.start)[0]:
            for name, ranges in entries.items():
                found.setdefault(name, []).extend(ranges)
        return found
    finally:
        file.close()


# ---- a run goes on ----


def test_without_its_log_a_run_reads_in_another_order(tmp_path: Path) -> None:
    """Else what follows would show nothing."""
    first = live(tmp_path, 40)
    shutil.rmtree(file_of(tmp_path))
    assert live(tmp_path, 40) != first


def test_killed_before_its_first_checkpoint_a_run_reads_again_in_the_order_in_which_it_had_read(tmp_path: Path) -> None:
    first = live(tmp_path, 40)
    second = live(tmp_path, 70)
    assert second[:40] == first
    assert live(tmp_path, 70) == second


def test_killed_after_a_checkpoint_a_run_reads_what_it_had_trained_since(tmp_path: Path) -> None:
    live(tmp_path, 10, save=True)
    first = live(tmp_path, 50)
    assert live(tmp_path, 50) == first
    assert live(tmp_path, 30, save=True) == first[:30]
    assert live(tmp_path, 20) == first[30:]


def test_an_older_checkpoint_goes_on_as_the_run_did(tmp_path: Path) -> None:
    legs = [live(tmp_path, 15, save=True) for _ in range(3)]
    newest = max(p for p in tmp_path.iterdir() if (p / "manifest.json").exists())
    shutil.rmtree(newest)
    assert live(tmp_path, 15) == legs[2]
    (older, *_) = sorted(p for p in tmp_path.iterdir() if (p / "manifest.json").exists())
    for path in tmp_path.iterdir():
        if (path / "manifest.json").exists() and path != older:
            shutil.rmtree(path)
    assert live(tmp_path, 30) == [*legs[1], *legs[2]]


def test_what_was_decided_before_the_directory_was_known_is_spilled_into_it(tmp_path: Path) -> None:
    with ub.Feed(stream()) as feed:
        train(feed, 10)
        assert feed.opened.arrivals.file is None
        feed.save(tmp_path)
        after = train(feed, 25)
    assert live(tmp_path, 25) == after


def test_a_checkpoint_holds_a_place_in_the_log_and_not_what_was_decided(tmp_path: Path) -> None:
    sizes = []
    with ub.Feed(stream()) as feed:
        feed.load(tmp_path)
        for _ in range(3):
            train(feed, 200)
            path = Path(feed.save(tmp_path, keep=9))
            info = json.loads((path / "manifest.json").read_text())["info"]["feed"]
            assert set(info["arrivals"]) == {"log", "start", "stop"}
            sizes.append(len(json.dumps(info["arrivals"])))
    assert max(sizes) - min(sizes) < 10


def test_a_run_that_was_copied_goes_on_there_and_both_by_themselves(tmp_path: Path) -> None:
    live(tmp_path / "a", 10, save=True)
    first = live(tmp_path / "a", 30)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = [live(tmp_path / name, 80) for name in "ab"]
    assert found[0][:30] == found[1][:30] == first
    assert found[0] != found[1]
    for name, batches in zip("ab", found, strict=True):
        assert live(tmp_path / name, 80) == batches


def test_a_second_directory_carries_what_it_needs_and_a_run_goes_on_there(tmp_path: Path) -> None:
    with ub.Feed(stream()) as feed:
        feed.load(tmp_path / "first")
        train(feed, 10)
        feed.save(tmp_path / "first")
        train(feed, 5)
        feed.save(tmp_path / "second")
        after = train(feed, 1)
    shutil.rmtree(tmp_path / "first")
    assert not file_of(tmp_path / "second").exists()
    found = live(tmp_path / "second", 40)
    assert found[0] == after[0]  # the rest, which lay in the first directory alone, is gone with it
    assert live(tmp_path / "second", 40) == found
    live(tmp_path / "second", 5, save=True)
    assert live(tmp_path / "second", 35) == found[5:]


def test_a_state_has_what_was_decided_wherever_it_lies(tmp_path: Path) -> None:
    states = []
    with ub.Feed(stream()) as feed:
        feed.releases.hold()
        train(feed, 4)
        states.append(json.loads(json.dumps(feed.state_dict())))
        first = train(feed, 10)
        feed.save(tmp_path)
        states.append({**states[0], "arrivals": json.loads(json.dumps(feed.state_dict()))["arrivals"]})
        # Of the same run, and in the same process: decided as it was, up to now.
        feed.load_state_dict(states[0])
        assert train(feed, 10) == first
    for state, known in zip(states, (0, 10), strict=True):
        with ub.Feed(stream()) as feed:
            feed.load_state_dict(state)
            found = train(feed, 10)
            assert found[:known] == first[:known]
            feed.save(tmp_path / f"{known}")
            after = train(feed, 10)
        assert live(tmp_path / f"{known}", 10) == after


def test_a_state_that_is_older_than_what_was_let_go_of_is_gone_on_with() -> None:
    with ub.Feed(ub.from_source(Topic()).batch(20).prefetch(2)) as feed:
        train(feed, 3)
        state = json.loads(json.dumps(feed.state_dict()))
        first = train(feed, 1)
        train(feed, 300)
        for _ in range(3):
            feed.load_state_dict(state)
            assert train(feed, 1) == first
            train(feed, 30)


# ---- whose it is ----


def test_the_log_of_another_stream_is_set_aside_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live(tmp_path, 5)
    kept = decided(file_of(tmp_path))
    for number in (1, 2):
        caplog.clear()
        with ub.Feed(stream(10 + number)) as feed:
            feed.load(tmp_path)
            train(feed, 5)
        (said,) = [r.getMessage() for r in caplog.records]
        assert "is of another stream or run. It was set aside" in said
        assert f"arrival_log.old-{number}" in said
    assert decided(file_of(tmp_path).with_name("arrival_log.old-1")) == kept


def test_a_run_does_not_go_on_beside_the_log_of_another_or_without_its_own(tmp_path: Path) -> None:
    for name in "ab":
        live(tmp_path / name, 200, save=True)
    shutil.rmtree(file_of(tmp_path / "a"))
    with ub.Feed(stream()) as feed, pytest.raises(ub.DataLoss, match=r"needs records 0 to .* has records 0 to 0"):
        feed.load(tmp_path / "a")
    shutil.rmtree(file_of(tmp_path / "a"))
    live(tmp_path / "b", 100, save=True)
    shutil.copytree(file_of(tmp_path / "b"), file_of(tmp_path / "a"))
    with ub.Feed(stream()) as feed, pytest.raises(ub.DataLoss, match="is another run's"):
        feed.load(tmp_path / "a")


def test_a_state_of_another_run_leaves_the_file_which_is_then_set_aside(tmp_path: Path) -> None:
    with ub.Feed(stream()) as feed:
        train(feed, 3)
        state = json.loads(json.dumps(feed.state_dict()))
    with ub.Feed(stream()) as feed:
        feed.load(tmp_path)
        train(feed, 10)
        feed.save(tmp_path)
        feed.load_state_dict(state)
        assert feed.opened.arrivals.file is None
        feed.save(tmp_path)
        after = train(feed, 20)
    assert live(tmp_path, 20) == after
    assert file_of(tmp_path).with_name("arrival_log.old-1").exists()


def test_two_processes_do_not_write_one_log(tmp_path: Path) -> None:
    with ub.Feed(stream()) as feed:
        feed.load(tmp_path)
        train(feed, 2)
        code = (
            "import sys, unbounded as ub; sys.path.insert(0, sys.argv[2])\n"
            "from test_run_arrivals import stream\n"
            "try: ub.Feed(stream()).load(sys.argv[1])\n"
            "except ub.CheckpointError as error: print(error)\n"
        )
        here = str(Path(__file__).parent)
        arguments = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), here]
        said = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        assert f"its arrival log can't be opened: the process {os.getpid()} writes to it" in said


def test_the_older_of_two_feeds_of_one_run_gives_way_in_a_sentence(tmp_path: Path) -> None:
    older = ub.Feed(stream())
    older.load(tmp_path)
    train(older, 2)
    with ub.Feed(stream()) as feed:
        feed.load(tmp_path)
        with pytest.raises(ub.StreamError, match=r"to the arrival log in .*another feed of this process goes on with"):
            train(older, 100_000)
        first = train(feed, 30)
        with pytest.raises(ub.StreamError):
            train(older, 1)
        older.close()
    assert live(tmp_path, 30) == first


def test_two_feeds_and_one_for_validation_have_a_log_each(tmp_path: Path) -> None:
    names = ("feed", "feed-1", "feed-2")
    seen: dict[str, Batches] = {}
    for steps in (60, 90):
        feeds = {name: ub.Feed(stream()) for name in names}
        for name, feed in feeds.items():
            RunLogs(feed, tmp_path, name).begin()
        for name, feed in feeds.items():
            found = train(feed, steps)
            assert found[:60] == seen.setdefault(name, found)
            feed.close()
    assert len({str(batches) for batches in seen.values()}) == 3
    assert all(decided(file_of(tmp_path, name)) for name in names)


def test_a_stream_that_decides_nothing_by_what_has_arrived_has_no_arrival_log(tmp_path: Path) -> None:
    with ub.Feed(ub.from_arrays(np.arange(100)).shuffle(9).batch(3)) as feed:
        feed.load(tmp_path)
        train(feed, 3)
        path = Path(feed.save(tmp_path))
    assert not file_of(tmp_path).exists()
    state = json.loads((path / "manifest.json").read_text())["info"]["feed"]["arrivals"]
    assert state["nodes"] == {}


def test_an_input_of_a_mix_does_not_take_the_name_of_the_log() -> None:
    for name in ("arrival_log", "origin.json"):
        with pytest.raises(ValueError, match="would have the name of the run's own"):
            ub.mix({name: ub.from_arrays(np.arange(3)), "b": ub.from_arrays(np.arange(3))})


# ---- what the disk does ----


def test_what_is_handed_on_is_in_the_log_before(tmp_path: Path) -> None:
    def sensor(start: int = 0) -> Iterator[Any]:
        for row in itertools.count(start, 7):
            yield np.arange(row, row + 7)

    mixed = ub.mix({"topic": ub.from_source(Topic()), "s": ub.from_generator(sensor)}, on_silence="leave_out")
    with ub.Feed(mixed.buffer(100_000, overflow="drop_oldest").batch(500)) as feed:
        feed.load(tmp_path)
        for number, _ in enumerate(itertools.islice(feed.batches(), 30), 1):
            feed.trained()
            shutil.copytree(file_of(tmp_path), tmp_path / f"{number}")
            found = decided(tmp_path / f"{number}")
            assert found["3.buffer"][-1].stop >= 500 * number
            assert found["2.mix"][-1].stop * 1024 >= 500 * number
            assert found["0.source"][-1].stop >= 250 * number - 1024


def test_reads_of_one_row_at_a_time_are_not_synced_one_by_one(tmp_path: Path) -> None:
    syncs = itertools.count()

    class Single(Topic):
        def open(self) -> Any:
            reader = super().open()
            CHANCE.choice = lambda of: 1 if isinstance(of, tuple) else of[int(CHANCE.random() * len(of))]  # type: ignore[method-assign,assignment]
            return reader

    disk = Disk(lambda function, *_: next(syncs) if function is os.fsync else None)
    try:
        with ub.Feed(ub.from_source(Single()).batch(100), runtime=disk) as feed:
            feed.load(tmp_path)
            before = next(syncs)
            found = train(feed, 50)
    finally:
        del CHANCE.choice
    assert sorted(len(batch) for batch in found)[0] == 100
    assert next(syncs) - before < 100
    (ranges,) = decided(file_of(tmp_path)).values()
    assert len(ranges) > 1000


def test_on_a_full_disk_what_is_decided_is_handed_on_then_it_raises_and_asking_again_goes_on(tmp_path: Path) -> None:
    disk = Disk()
    seen: Batches = []
    with ub.Feed(stream(), runtime=disk) as feed:
        feed.load(tmp_path)
        seen += train(feed, 5)
        disk.fails = full(3)
        for _ in range(3):
            with pytest.raises(ub.StreamError, match=r"can't be written to the arrival log in .*No space left"):
                train_until_refused(feed, seen)
        disk.fails = None
        seen += train(feed, 30)
    rows = [row for batch in seen for row in batch]
    assert len(set(rows)) == len(rows)
    for kind in (1, 2):
        ours = [row % arrival_trainer.TOPIC for row in rows if row // arrival_trainer.TOPIC == kind]
        assert ours == [*range(len(ours))], "a row is missing, or out of order"
    assert live(tmp_path, len(seen)) == seen


@pytest.mark.parametrize("on_silence", [True, False])
def test_where_a_mix_or_a_buffer_can_not_write_its_decision_the_pull_raises_and_stays_where_it_was(
    on_silence: bool, tmp_path: Path
) -> None:
    def numbers(start: int = 0) -> Iterator[Any]:
        for row in itertools.count(start, 64):
            yield np.arange(row, row + 64)

    def made() -> ub.Stream:
        if on_silence:
            return ub.mix([ub.from_generator(numbers)] * 2, on_silence="leave_out", patience=60.0).batch(64)
        return ub.from_generator(numbers).buffer(10**6, overflow="drop_oldest").batch(64)

    disk = Disk()
    seen: Batches = []
    with ub.Feed(made(), runtime=disk) as feed:
        feed.load(tmp_path)
        seen += train(feed, 5)
        disk.fails = full(3)
        for _ in range(3):
            with pytest.raises(ub.StreamError, match="to the arrival log in"):
                train_until_refused(feed, seen)
        disk.fails = None
        seen += train(feed, 200)
    with ub.Feed(made()) as feed:
        assert train(feed, len(seen)) == seen


def test_a_checkpoint_whose_log_can_not_be_synced_is_none_and_the_next_one_is(tmp_path: Path) -> None:
    disk = Disk()
    with ub.Feed(stream(), runtime=disk) as feed:
        feed.load(tmp_path)
        train(feed, 5)
        disk.fails = never(os.fsync)
        with pytest.raises((ub.CheckpointError, OSError)):
            feed.save(tmp_path)
        disk.fails = None
        train(feed, 5)
        feed.save(tmp_path)
        after = train(feed, 20)
    assert live(tmp_path, 20) == after


def test_a_directory_that_can_not_be_written_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def read_only(function: Any, *args: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    with ub.Feed(stream()) as feed:
        with all_changes(read_only), pytest.raises(ub.CheckpointError, match="arrival log can't be opened: Read-only"):
            feed.load(tmp_path / "new")
        train(feed, 3)
        feed.load(tmp_path / "new")  # what was decided is spilled
        assert feed.opened.arrivals.file is not None
        train(feed, 3)


def test_a_disk_that_is_full_when_decisions_are_spilled_leaves_nothing_behind_and_the_run_at_work(
    tmp_path: Path,
) -> None:
    disk = Disk()
    with ub.Feed(stream(), runtime=disk) as feed:
        train(feed, 10)
        for allowed in (0, 1, 2):
            disk.fails = full(5, writes=allowed)
            with pytest.raises(ub.CheckpointError, match="No space left"):
                feed.save(tmp_path)
            disk.fails = None
            train(feed, 2)
        feed.save(tmp_path)
        after = train(feed, 20)
    assert live(tmp_path, 20) == after


def test_a_log_whose_end_was_torn_goes_on_from_what_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    live(tmp_path, 10, save=True)
    first = live(tmp_path, 500)
    (file,) = file_of(tmp_path).glob("*.log")
    file.write_bytes(file.read_bytes()[:-3])
    second = live(tmp_path, 500)
    assert second[:100] == first[:100]
    assert "no whole record" in caplog.text
    assert live(tmp_path, 500) == second


def test_a_log_that_is_damaged_where_a_checkpoint_needs_it_is_refused(tmp_path: Path) -> None:
    live(tmp_path, 50)
    live(tmp_path, 50, save=True)
    (file,) = file_of(tmp_path).glob("*.log")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    with ub.Feed(stream()) as feed, pytest.raises(ub.DataLoss, match="arrival_log"):
        feed.load(tmp_path)


def test_segments_go_when_no_checkpoint_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(ArrivalFile):
        def __init__(self, directory: Path, runtime: Any) -> None:
            super().__init__(directory, runtime, segment_bytes=1000)

    monkeypatch.setattr("unbounded.feed.run_arrivals.ArrivalFile", Small)
    monkeypatch.setattr("unbounded.core.arrival_log._MARK", 4)
    most = 0
    for _ in range(3):
        with ub.Feed(stream()) as feed:
            feed.load(tmp_path)
            for _ in range(40):
                train(feed, 20)
                feed.save(tmp_path, keep=2)
                most = max(most, len([*file_of(tmp_path).glob("*.log")]))
            after = train(feed, 30)
            assert feed.opened.arrivals.first_record > 20
            held = len(feed.opened.arrivals.decisions("0.source").between(0, 10**9))
        assert live(tmp_path, 30) == after
    assert most < 20
    assert held < 1000
    assert decided(file_of(tmp_path))["0.source"][0].first > 0
    shutil.rmtree(max(p for p in tmp_path.iterdir() if (p / "manifest.json").exists()))
    assert live(tmp_path, 50)[20:] == after  # the older one's segments are there

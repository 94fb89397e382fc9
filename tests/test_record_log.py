"""A log of records is whole up to its end, for any failure of the disk and any kill."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from intercepted_files import InterceptedFiles
from unbounded.core.block import Offset
from unbounded.core.files import Files
from unbounded.core.node import DataLoss
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.sources.record_log import Full, RecordLog
from unbounded.testing import Faults, Simulation


class Quick(Files):
    """Files that are not waited for: for tests in which no power fails."""

    def fsync(self, fd: int) -> None:
        pass


class QuickDisk(Runtime):
    files = Quick()


QUICK = QuickDisk()


class Disk(Runtime):
    """A machine on which `fails(function, arguments)` says which file calls fail, and how."""

    def __init__(self, fails: Callable[..., Any] | None = None) -> None:
        self.fails = fails
        self.files = InterceptedFiles(self._call)

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        if self.fails is not None:
            self.fails(function, *args)
        return function(*args)


class FailsAt:
    """Raises EIO at one file call, counted from 1. `calls` says how many there were."""

    def __init__(self, number: int) -> None:
        self.number, self.calls = number, 0

    def __call__(self, function: Any, *args: Any) -> None:
        self.calls += 1
        if self.calls == self.number:
            raise OSError(errno.EIO, "Input/output error")


class CopiedAt:
    """Copies a directory before one file call, counted from 0: what the next process finds if this one is killed there.
    `calls` says how many there were."""

    def __init__(self, number: int, path: Path, to: Path) -> None:
        self.number, self.path, self.to, self.calls = number, path, to, 0

    def __call__(self, function: Any, *args: Any) -> None:
        if self.calls == self.number:
            shutil.copytree(self.path, self.to)
        self.calls += 1


def torn_writes(rng: random.Random, share: float) -> Callable[..., Any]:
    """A disk on which a share of the calls fails, and such a write has written a part, perhaps nothing."""

    def fails(function: Any, *args: Any) -> None:
        if rng.random() < share:
            if function is os.write:
                os.write(args[0], args[1][: rng.randint(0, max(0, len(args[1]) - 1))])
            raise OSError(errno.EIO, "Input/output error")

    return fails


def full(after: int = 0, *, also: Any = None, writes: int = 0) -> Callable[..., Any]:
    """A disk that takes so many writes, and then so many bytes of each."""
    left = itertools.count(-writes)

    def fails(function: Any, *args: Any) -> None:
        if function is os.write and next(left) >= 0:
            os.write(args[0], args[1][:after])
            raise OSError(errno.ENOSPC, "No space left on device")
        if function is also:
            raise OSError(errno.EIO, "Input/output error")

    return fails


def never(function: Any, error: int = errno.EIO) -> Callable[..., Any]:
    """A disk on which one call fails each time."""

    def fails(asked: Any, *_: Any) -> None:
        if asked is function:
            raise OSError(error, os.strerror(error))

    return fails


def add(log: RecordLog, *numbers: int) -> None:
    """Append a record of one row for each number."""
    for number in numbers:
        log.append(1, 0, b"meta", [memoryview(b"%d" % number)])


def held(log: RecordLog, at: int = 0) -> list[int]:
    """The numbers in the log, from a row on."""
    with log.reading:
        return [int(bytes(record.data)) for record in log.records(Offset(at))]


def reopened(path: Path) -> list[int]:
    """What the next process finds."""
    log = RecordLog(path, QUICK)
    try:
        return held(log, log.start.rows)
    finally:
        log.close()


def after_kill(log: RecordLog, to: Path) -> list[int]:
    """What a process would find if this one were killed now."""
    shutil.copytree(log.directory, to)
    return reopened(to)


def test_what_was_appended_is_read_in_order_and_by_the_next_process(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM)
    assert held(log) == []
    add(log, *range(10))
    assert (log.start, log.stop, held(log)) == (Offset(0), Offset(10), [*range(10)])
    assert held(log, 7) == [7, 8, 9]
    name = log.id
    log.close()
    after = RecordLog(tmp_path / "log", SYSTEM)
    assert (after.id, after.start, after.stop, held(after)) == (name, Offset(0), Offset(10), [*range(10)])
    add(after, 10)
    assert held(after) == [*range(11)]
    after.close()


def test_a_log_that_is_cut_at_any_byte_ends_with_the_last_whole_record(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", QUICK)
    ends = []
    for number in range(6):
        add(log, number)
        ends.append((tmp_path / "log" / "000000000000.log").stat().st_size)
    log.close()
    whole = (tmp_path / "log" / "000000000000.log").read_bytes()
    for size in range(len(whole)):
        path = tmp_path / "torn"
        path.mkdir()
        (path / "000000000000.log").write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)
        log = RecordLog(path, QUICK)
        assert held(log) == [*range(kept)], size
        add(log, 100)
        log.close()
        assert reopened(path) == [*range(kept), 100], size
        shutil.rmtree(path)


def test_zeros_after_a_power_cut_are_no_records(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM)
    add(log, 1, 2)
    log.close()
    with (tmp_path / "log" / "000000000000.log").open("ab") as file:
        file.write(bytes(10_000))
    assert reopened(tmp_path / "log") == [1, 2]


def test_a_bit_that_flips_anywhere_ends_the_log_there_or_is_data_loss(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", QUICK, segment_bytes=200)
    add(log, *range(12))
    log.sync()
    add(log, *range(12, 15))
    log.close()
    files = sorted((tmp_path / "log").glob("*.log"))
    assert len(files) >= 3
    for file in files:
        whole = file.read_bytes()
        for bit in range(len(whole) * 8):
            if bit % 8 != bit // 8 % 8:
                continue
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            path = tmp_path / "flipped"
            shutil.copytree(tmp_path / "log", path)
            (path / file.name).write_bytes(flipped)
            log = RecordLog(path, QUICK)
            try:
                found = held(log, log.start.rows)
                # What is given is what was written, and what is not given is outside of the log.
                assert found == [*range(log.start.rows, log.stop.rows)], (file.name, bit)
                assert len(found) < 15
            except DataLoss:
                assert file != files[-1]
            finally:
                log.close()
            shutil.rmtree(path)


def test_what_can_not_be_read_is_set_aside_and_nothing_is_written_over_it(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(12))
    log.close()
    last = sorted((tmp_path / "log").glob("*.log"))[-1]
    damaged = b"\xff" + last.read_bytes()[1:]
    last.write_bytes(damaged)
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, 100)
    log.close()
    assert last.with_name(last.name + ".cut").read_bytes() == damaged


def test_a_segment_that_is_missing_in_the_middle_is_data_loss_where_it_is_needed(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(6))
    log.sync()
    add(log, *range(6, 20))
    log.sync()
    add(log, *range(20, 24))
    log.close()
    first, second, *_ = sorted((tmp_path / "log").glob("*.log"))
    second.unlink()
    log = RecordLog(tmp_path / "log", SYSTEM)
    with pytest.raises(DataLoss, match=f"{first.name} is damaged: record .* is not what was written"):
        held(log)
    assert held(log, 20) == [20, 21, 22, 23]
    log.close()


def test_a_segment_that_was_not_on_the_disk_when_the_power_failed_ends_the_log(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(3))
    log.sync()
    add(log, *range(3, 20))  # several segments more, none of them synced
    log.close()
    files = sorted((tmp_path / "log").glob("*.log"))
    files[1].write_bytes(files[1].read_bytes()[:-1])
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    found = held(log)
    assert 3 <= len(found) < 19
    assert found == [*range(len(found))]
    add(log, 100)
    log.close()
    assert reopened(tmp_path / "log") == [*found, 100]


def test_segments_of_two_logs_are_not_read_as_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        log = RecordLog(tmp_path / name, SYSTEM, segment_bytes=200)
        add(log, *range(12))
        log.close()
    last = sorted((tmp_path / "b").glob("*.log"))[-1]
    shutil.copy(last, tmp_path / "a" / last.name)
    with pytest.raises(DataLoss, match="are of two logs"):
        RecordLog(tmp_path / "a", SYSTEM)


def test_a_copied_directory_goes_on_by_itself(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM)
    add(log, 0, 1)
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    copy = RecordLog(tmp_path / "copy", SYSTEM)
    add(copy, 10)
    add(log, 2)
    assert (held(log), held(copy), copy.id) == ([0, 1, 2], [0, 1, 10], log.id)
    log.close()
    copy.close()


def test_released_segments_go_and_offsets_stay(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(20))
    log.release(Offset(11))
    assert 5 < log.start.rows <= 11
    assert held(log, 11) == [*range(11, 20)]
    start = log.start
    log.close()
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    assert (log.start, log.stop) == (start, Offset(20))
    log.release(Offset(20))
    add(log, 20)
    assert held(log, 20) == [20]
    log.close()


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux tells them")
def test_no_file_of_what_was_released_stays_open(tmp_path: Path) -> None:
    before = open_files()
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    for number in range(200):
        add(log, number)
        log.release(Offset(number))
        if number % 50 == 0:
            log.sync()
    log.sync()
    assert open_files() - before <= 3
    log.close()
    assert open_files() == before


class Unsure(Quick):
    """Files of a disk that does not say whether a lock is there."""

    fails = False

    def stat(self, path: Path) -> os.stat_result:
        if self.fails and path.name == ".lock":
            raise OSError(errno.EIO, "Input/output error")
        return super().stat(path)


def test_a_disk_that_does_not_answer_is_no_directory_that_was_removed(tmp_path: Path) -> None:
    class Machine(Runtime):
        files = Unsure()

    log = RecordLog(tmp_path / "log", Machine(), segment_bytes=200)
    add(log, *range(100))
    log.sync()  # what it has of full segments is in closed files from now on
    add(log, 100)
    Machine.files.fails = True
    with pytest.raises(OSError, match="Input/output error"):
        log.sync()
    Machine.files.fails = False
    log.sync()
    assert held(log) == [*range(101)]
    log.close()
    with ub.Feed(ub.from_arrays(np.arange(10)).batch(2), runtime=Machine()) as feed:
        feed.save(tmp_path / "run")
        Machine.files.fails = True
        with pytest.raises(ub.CheckpointError, match="Input/output error"):
            feed.save(tmp_path / "run")
        Machine.files.fails = False
        feed.save(tmp_path / "run")
    assert ub.saved_steps(tmp_path / "run") == [0]


def test_a_log_does_not_trust_the_syncs_of_a_process_that_may_have_been_killed_when_one_had_failed() -> None:
    # The kernel drops what it could not write, reads it from memory as before, and says nothing at the next sync.
    path = Path("/simulated/log")
    found: list[list[int]] = []

    def killed() -> None:
        log = RecordLog(path, simulation)
        add(log, 1, 2, 3)
        with suppress(OSError, DataLoss):
            log.sync()

    def opened(sync: bool) -> None:
        log = RecordLog(path, simulation)
        found.append(held(log))
        if sync:
            log.sync()
        log.close()

    for seed in range(60):
        simulation = Simulation(seed, Faults(kills=40, power_cuts=0.0, lost_syncs=0.7))
        simulation.run(killed)
        simulation.faults = Faults()
        simulation.run(lambda: opened(sync=True))
        simulation.cut_power()
        simulation.run(lambda: opened(sync=False))
        assert found[-1] == found[-2], seed
    assert [1, 2, 3] in found


def test_what_could_not_be_written_again_when_a_log_was_opened_is_written_to_a_new_segment(tmp_path: Path) -> None:
    log = RecordLog(tmp_path, SYSTEM)
    add(log, 1, 2, 3)
    log.close()

    def refused(function: Any, *args: Any) -> None:
        if function is os.pwrite and len(args[1]) > 20:  # not the lock's
            raise OSError(errno.EIO, "Input/output error")

    log = RecordLog(tmp_path, Disk(refused))
    log.sync()
    assert held(log) == [1, 2, 3]
    assert [path.name for path in tmp_path.glob("*.log")] == ["000000000000-1.log"]
    log.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux tells them")
def test_a_log_of_many_segments_has_few_files_open(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(2):
        log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
        if log.stop == Offset(0):
            add(log, *range(300))
        log.sync()
        assert len([*log.directory.glob("*.log")]) > 50
        for at in (0, 250, 100, 299, 0):
            assert held(log, at) == [*range(at, 300)]
            assert open_files() - before <= 12
        log.close()
        assert open_files() == before


def test_of_a_directory_that_is_removed_what_is_not_open_is_gone_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(300))
    log.sync()
    shutil.rmtree(tmp_path / "log")
    with pytest.raises(DataLoss, match=r"000000000000\.log is missing"):
        held(log)
    add(log, 300)
    log.sync()
    start = log.start.rows
    assert f"{start} rows that no open file has. The log begins with row {start} now" in caplog.text
    assert held(log, start) == [*range(start, 301)]
    log.close()
    assert reopened(tmp_path / "log") == [*range(start, 301)]


# ---- a disk that refuses ----


@pytest.mark.parametrize("after", [0, 1, 30, 44])
@pytest.mark.parametrize("also", [None, os.ftruncate])
@pytest.mark.parametrize("before", [0, 3])
def test_a_full_disk_leaves_nothing_of_a_record_and_the_next_one_is_whole(
    before: int, also: Any, after: int, tmp_path: Path
) -> None:
    disk = Disk()
    log = RecordLog(tmp_path / "log", disk)
    add(log, *range(before))
    for attempt in range(2):
        disk.fails = full(after, also=also)
        with pytest.raises(OSError, match="No space left"):
            add(log, 100)
        disk.fails = None
        assert held(log) == [*range(before + attempt)]
        assert after_kill(log, tmp_path / f"killed-{attempt}") == [*range(before + attempt)]
        add(log, before + attempt)
    log.sync()
    assert held(log) == [*range(before + 2)]
    log.close()
    assert reopened(tmp_path / "log") == [*range(before + 2)]


def test_any_file_call_that_fails_once_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    tried = 0
    for number in range(200):
        fails = FailsAt(number)
        disk = Disk(fails)
        path = tmp_path / f"{number}"
        kept: list[int] = []
        try:
            log = RecordLog(path, disk, segment_bytes=120)
        except OSError:
            log = RecordLog(path, disk, segment_bytes=120)
        for i in range(12):
            try:
                add(log, i)
                kept.append(i)
                if i % 3 == 2:
                    log.sync()
                if i == 8:
                    log.release(Offset(2))
            except OSError:
                tried += 1
        assert held(log, log.start.rows) == kept[log.start.rows :], number
        found = after_kill(log, tmp_path / f"{number}-killed")
        assert found == kept[-len(found) :], number
        assert len(found) >= len(kept) - 4
        log.close()
        if fails.calls < number:
            break
    assert tried > 10
    assert number < 199


def test_a_sync_that_failed_is_written_again_into_a_new_segment(tmp_path: Path) -> None:
    disk = Disk()
    log = RecordLog(tmp_path / "log", disk)
    add(log, 0, 1, 2)
    log.sync()
    add(log, 3, 4)
    synced: list[int] = []

    def once(function: Any, *args: Any) -> None:
        if function is os.fsync:
            synced.append(os.fstat(args[0]).st_ino)
            if len(synced) == 1:
                raise OSError(errno.EIO, "Input/output error")

    disk.fails = once
    log.sync()
    disk.fails = None
    assert log.synced == Offset(5)
    assert len({*synced}) == len(synced)  # no file was asked a second time
    assert sorted(p.name for p in log.directory.glob("*.log")) == ["000000000000.log", "000000000003-1.log"]
    add(log, 5)
    assert held(log) == [*range(6)]
    assert held(log, 4) == [4, 5]
    log.close()
    assert reopened(tmp_path / "log") == [*range(6)]


def test_a_sync_that_fails_again_loses_nothing_and_is_made_up_for_later(tmp_path: Path) -> None:
    disk = Disk()
    log = RecordLog(tmp_path / "log", disk)
    add(log, 0, 1)
    log.sync()
    add(log, 2, 3)
    for number, trouble in enumerate((never(os.fsync), full(20), never(os.fsync), never(os.replace), full(0))):
        disk.fails = never(os.fsync) if number == 0 else trouble
        with pytest.raises(OSError, match=r"error|space"):
            log.sync()
        disk.fails = None
        assert log.synced == Offset(2)
        add(log, 4 + number)
        assert held(log) == [*range(5 + number)]
        assert after_kill(log, tmp_path / f"killed-{number}") == [*range(5 + number)]
    log.sync()
    assert log.synced == log.stop == Offset(9)
    assert held(log, 3) == [*range(3, 9)]
    log.close()
    assert reopened(tmp_path / "log") == [*range(9)]


def test_killed_at_any_file_call_of_a_sync_that_writes_again_the_next_process_has_all(tmp_path: Path) -> None:
    seen = 0
    for stop in range(100):
        disk = Disk()
        path = tmp_path / f"{stop}"
        log = RecordLog(path, disk, segment_bytes=150)
        add(log, *range(4))
        log.sync()
        add(log, *range(4, 12))
        killed = CopiedAt(stop, path, tmp_path / f"{stop}-killed")
        refused = FailsAt(1)  # the sync

        def fails(*call: Any, killed: CopiedAt = killed, refused: FailsAt = refused) -> None:
            killed(*call)
            refused(*call)

        disk.fails = fails
        log.sync()
        disk.fails = None
        log.close()
        if killed.calls <= stop:
            break
        seen += 1
        assert reopened(tmp_path / f"{stop}-killed") == [*range(12)], stop
        left = [p.name for p in (tmp_path / f"{stop}-killed").iterdir()]
        assert not [name for name in left if name.endswith((".new", ".cut"))]
    assert seen > 10


def test_records_that_a_failed_sync_has_lost_are_data_loss(tmp_path: Path) -> None:
    disk = Disk()
    log = RecordLog(tmp_path / "log", disk)
    add(log, 0, 1)
    log.sync()
    add(log, 2, 3)
    file = tmp_path / "log" / "000000000000.log"
    size = file.stat().st_size

    def loses(function: Any, *args: Any) -> None:
        if function is os.fsync:
            with file.open("r+b") as opened:
                opened.seek(size - 30)
                opened.write(bytes(30))
            disk.fails = None
            raise OSError(errno.EIO, "Input/output error")

    disk.fails = loses
    with pytest.raises(DataLoss, match=r"can't sync .* and records that were written there can't be read back"):
        log.sync()
    log.close()


def test_a_directory_that_is_removed_under_it_is_made_again_with_all_that_it_had(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, segment_bytes=200)
    add(log, *range(12))
    log.sync()
    log.release(Offset(5))
    start = log.start.rows
    shutil.rmtree(tmp_path / "log")
    add(log, 12)
    log.sync()
    assert held(log, start) == [*range(start, 13)]
    with pytest.raises(BlockingIOError):
        other_process(tmp_path / "log")
    log.close()
    assert reopened(tmp_path / "log") == [*range(start, 13)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_can_not_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        RecordLog(tmp_path / "log", SYSTEM)


def test_a_read_only_file_system_is_an_error_at_once_and_lets_go_of_the_lock(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM)
    add(log, 0)
    log.close()
    with (tmp_path / "log" / "000000000000.log").open("ab") as file:
        file.write(b"torn")
    with pytest.raises(OSError, match="Read-only"):
        RecordLog(tmp_path / "log", Disk(never(os.ftruncate, errno.EROFS)))
    other_process(tmp_path / "log")


# ---- who writes ----


def other_process(path: Path) -> None:
    """Open a log in another process; raises BlockingIOError as it would."""
    code = (
        "import sys; from pathlib import Path; from unbounded.sources.record_log import RecordLog;"
        "from unbounded.core.runtime import SYSTEM\n"
        "try: RecordLog(Path(sys.argv[1]), SYSTEM)\n"
        "except BlockingIOError: sys.exit(7)"
    )
    code = subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode
    if code == 7:
        raise BlockingIOError
    assert code == 0


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM)
    add(log, 0)
    with pytest.raises(BlockingIOError):
        other_process(tmp_path / "log")
    log.close()
    other_process(tmp_path / "log")


def test_in_one_process_the_older_gives_way(tmp_path: Path) -> None:
    older = RecordLog(tmp_path / "log", SYSTEM)
    add(older, 0, 1)
    (tmp_path / "link").symlink_to(tmp_path / "log")
    log = RecordLog(tmp_path / "link", SYSTEM)
    for action in (lambda: add(older, 2), older.sync, lambda: held(older)):
        with pytest.raises(OSError, match="another feed of this process goes on with it"):
            action()
    add(log, 2)
    older.close()
    with pytest.raises(BlockingIOError):
        other_process(tmp_path / "log")
    assert held(log) == [0, 1, 2]
    log.close()


# ---- a bound ----


def test_a_log_with_a_bound_is_full_until_something_is_let_go(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, max_bytes=2000)
    add(log, *range(16))
    with pytest.raises(Full, match="2,000 bytes that max_bytes allows"):
        add(log, *range(16, 100))
    number = log.stop.rows
    for _ in range(100):
        log.release(Offset(number))
        add(log, number)
        number += 1
        assert sum(p.stat().st_size for p in log.directory.glob("*.log")) <= 2000
    log.close()


def test_a_record_with_which_the_bound_is_passed_is_taken_where_it_is_said_to_be_and_none_after_it(
    tmp_path: Path,
) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, max_bytes=2000)
    with pytest.raises(Full):
        add(log, *range(100))
    log.append(1, 0, b"", [memoryview(bytes(500))], beyond=True)
    assert 2000 < log.size < 2700
    with pytest.raises(Full):
        log.append(1, 0, b"", [memoryview(bytes(1))], beyond=True)
    log.close()


def test_a_record_larger_than_the_bound_is_taken_where_it_is_alone(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "log", SYSTEM, max_bytes=1000)
    for row in range(5):
        log.append(1, 0, b"", [memoryview(bytes(3000))])
        with pytest.raises(Full):
            log.append(1, 0, b"", [memoryview(bytes(3000))])
        log.release(Offset(row + 1))
    log.close()


# ---- rows that are dropped ----


def droppable(path: Path, runtime: Runtime = QUICK, *, max_bytes: int = 2000) -> RecordLog:
    """A log with a bound, as full as it may be."""
    log = RecordLog(path, runtime, max_bytes=max_bytes)
    with pytest.raises(Full):
        add(log, *range(1000))
    return log


def found(log: RecordLog, at: int = 0) -> list[int | tuple[int, int]]:
    """The numbers in a log, and the rows that were dropped as (from, to)."""
    with log.reading:
        return [
            (record.first.rows, record.end.rows) if record.is_gap else int(bytes(record.data))
            for record in log.records(Offset(at))
        ]


def drop(log: RecordLog, since: int, size: int = 60) -> int:
    """Drop rows from `since` on; what the log says then is how many these were."""
    return log.drop(Offset(since), size, lambda rows: b"%d dropped" % rows)


def test_the_oldest_records_from_a_row_on_are_dropped_and_a_gap_takes_their_place(tmp_path: Path) -> None:
    log = droppable(tmp_path / "log")
    stop = log.stop.rows
    assert drop(log, stop) == 0
    rows = drop(log, 5)
    assert 0 < rows < 10
    kept = found(log)
    gap = next(each for each in kept if isinstance(each, tuple))
    assert gap[0] >= 5
    assert gap[1] - gap[0] == rows
    assert kept == [*range(gap[0]), gap, *range(gap[1], stop)]
    assert found(log, gap[0] - 2) == kept[gap[0] - 2 :]
    assert found(log, gap[1]) == [*range(gap[1], stop)]
    add(log, stop)
    assert log.stop == Offset(stop + 1)
    log.sync()
    log.close()
    log = RecordLog(tmp_path / "log", QUICK)
    assert found(log) == [*kept, stop]
    assert log.last is not None
    assert log.last.data == b"%d" % stop
    log.close()


def test_gaps_that_touch_are_one_until_they_are_handed_on(tmp_path: Path) -> None:
    log = droppable(tmp_path / "log")
    dropped, number = 0, log.stop.rows
    for _ in range(200):
        try:
            add(log, number)
            number += 1
        except Full:
            dropped += drop(log, 5)
            assert log.size <= 2000
    assert dropped > 100
    (gap,) = [each for each in found(log) if isinstance(each, tuple)]
    assert gap[1] - gap[0] == dropped
    assert len([*log.directory.glob("*.gap")]) == 1
    # The gap was handed on: what is dropped next is another one.
    while True:
        try:
            add(log, number)
            number += 1
        except Full:
            break
    more = drop(log, gap[1])
    assert more
    assert [each for each in found(log) if isinstance(each, tuple)] == [gap, (gap[1], gap[1] + more)]
    expected = found(log)
    log.close()
    log = RecordLog(tmp_path / "log", QUICK)
    assert found(log) == expected
    log.release(Offset(gap[1] + more))
    assert found(log, gap[1] + more) == [*range(gap[1] + more, number)]
    log.close()


def test_dropped_up_to_its_end_a_log_goes_on_with_the_next_number(tmp_path: Path) -> None:
    log = droppable(tmp_path / "log")
    stop = log.stop.rows
    rows = next(rows for size in range(2000, 0, -20) if (rows := drop(log, 5, size)))
    (first,) = [each for each in found(log) if isinstance(each, tuple)]
    assert first == (stop - rows, stop)
    for _ in range(2):
        assert log.stop == Offset(stop)
        log.close()
        log = RecordLog(tmp_path / "log", QUICK, max_bytes=2000)
        assert log.last is not None
        assert log.last.meta == b"%d dropped" % (stop - first[0])
    add(log, stop)
    expected = [*range(first[0]), first, stop]
    assert found(log) == expected
    log.close()
    log = RecordLog(tmp_path / "log", QUICK)
    assert found(log) == expected
    log.close()


def test_what_a_gap_says_is_the_newest_until_a_record_follows(tmp_path: Path) -> None:
    log = droppable(tmp_path / "log")
    stop = log.stop.rows
    rows = drop(log, 5)
    log.close()
    log = RecordLog(tmp_path / "log", QUICK, max_bytes=2000)
    assert log.last is not None
    assert log.last.meta == b"%d dropped" % rows
    add(log, stop)
    log.close()
    log = RecordLog(tmp_path / "log", QUICK)
    assert log.last is not None
    assert log.last.meta == b"meta"
    log.close()


def test_a_drop_for_which_there_is_no_room_even_so_drops_nothing(tmp_path: Path) -> None:
    log = droppable(tmp_path / "log")
    before = found(log)
    assert drop(log, log.stop.rows - 3) == 0
    assert drop(log, 0, 5000) == 0
    assert found(log) == before
    log.close()


def test_killed_at_any_file_call_of_a_drop_it_was_made_or_not_and_says_which(tmp_path: Path) -> None:
    seen = set()
    for stop in range(100):
        disk = Disk()
        path = tmp_path / f"{stop}"
        log = droppable(path, disk)
        before, end = found(log), log.stop
        first = drop(log, 5)
        add(log, end.rows)
        once = found(log)
        disk.fails = killed = CopiedAt(stop, path, tmp_path / f"{stop}-killed")
        second = drop(log, 5, 300)
        disk.fails = None
        twice = found(log)
        log.close()
        if killed.calls <= stop:
            break
        log = RecordLog(tmp_path / f"{stop}-killed", QUICK)
        now = found(log)
        assert now in (once, twice), stop
        assert log.last is not None
        assert log.last.meta == (b"meta" if now == once else b"%d dropped" % second)
        assert log.stop == Offset(end.rows + 1)
        seen.add(now == twice)
        left = [p.name for p in (tmp_path / f"{stop}-killed").iterdir()]
        assert not [name for name in left if name.endswith((".new", ".cut"))]
        assert sum(name.endswith(".gap") for name in left) == 1
        log.close()
        assert first
        assert before
    assert seen == {True, False}


def test_any_file_call_of_a_drop_that_fails_leaves_all_or_the_gap(tmp_path: Path) -> None:
    for number in range(1, 100):
        disk = Disk()
        path = tmp_path / f"{number}"
        log = droppable(path, disk)
        before = found(log)
        disk.fails = fails = FailsAt(number)
        try:
            rows = drop(log, 5)
        except OSError:
            rows = 0
        disk.fails = None
        now = found(log)
        assert (now == before) == (rows == 0)
        assert after_kill_found(log, tmp_path / f"{number}-killed") == now
        log.release(Offset(0))
        assert drop(log, 5)
        log.sync()
        expected = found(log)
        log.close()
        assert after_kill_found(log, tmp_path / f"{number}-after") == expected
        if fails.calls < number:
            break
    assert number > 8


def after_kill_found(log: RecordLog, to: Path) -> list[int | tuple[int, int]]:
    """As `after_kill`, with gaps."""
    shutil.copytree(log.directory, to)
    after = RecordLog(to, QUICK)
    try:
        return found(after)
    finally:
        after.close()


def test_a_gap_is_written_again_where_a_sync_fails(tmp_path: Path) -> None:
    disk = Disk()
    log = droppable(tmp_path / "log", disk)
    rows = drop(log, 5)
    add(log, log.stop.rows)
    expected, synced = found(log), []

    def once(function: Any, *args: Any) -> None:
        if function is os.fsync and not synced:
            synced.append(1)
            raise OSError(errno.EIO, "Input/output error")

    disk.fails = once
    log.sync()
    disk.fails = None
    assert found(log) == expected
    assert not [*log.directory.glob("*.gap")]
    add(log, log.stop.rows)
    for _ in range(40):
        try:
            add(log, log.stop.rows)
        except Full:
            more = drop(log, 5, 1400)
            break
    (gap,) = [each for each in found(log) if isinstance(each, tuple)] or [(0, 0)]
    assert more == 0 or gap[1] - gap[0] == rows + more
    expected = found(log)
    log.close()
    log = RecordLog(tmp_path / "log", QUICK)
    assert found(log) == expected
    log.close()

"""The record log on a failing disk, and in simulated crashes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from unbounded.core.block import Block, Offset
from unbounded.core.files import Files
from unbounded.core.runtime import Runtime
from unbounded.sources.record_log import RecordLog
from unbounded.sources.row_log import RowLog
from unbounded.testing import Faults, Simulation

pytestmark = pytest.mark.usefixtures("one_core")

DIRECTORY = Path("/simulated/log")


def numbers(log: RecordLog, at: int = 0) -> list[int]:
    """What the log holds from a row on; each record is one row, its number."""
    with log.reading:
        return [int(record.meta) for record in log.records(Offset(at))]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "unbounded")


def append(log: RecordLog, number: int) -> None:
    log.append(1, 0, b"%d" % number, [])


class _HalfWritten(Files):
    """A disk that fills up in the middle of a write."""

    def tear(self, log: RecordLog) -> None:
        """Half of a record is written, and then there is no room."""
        whole = super().writev

        def half(fd: int, parts: list[bytes]) -> int:
            self.writev = self.refuse  # type: ignore[method-assign]
            return whole(fd, [bytes(parts[0])[:10]])

        self.writev = half  # type: ignore[method-assign,assignment]
        with pytest.raises(OSError, match="No space left"):
            append(log, 99)
        del self.writev

    def refuse(self, fd: int, parts: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_record_follows_where_a_torn_one_was_cut_off(tmp_path: Path) -> None:
    runtime = Runtime()
    runtime.files = files = _HalfWritten()
    log = RecordLog(tmp_path / "log", runtime)
    append(log, 0)
    files.tear(log)
    append(log, 1)
    assert numbers(log) == [0, 1]
    log.close()
    again = RecordLog(tmp_path / "log", Runtime())
    assert numbers(again) == [0, 1]
    again.close()


def test_readers_see_one_log_while_a_refused_sync_writes_it_again() -> None:
    for seed in range(60):
        simulation = Simulation(seed, Faults(lost_syncs=0.4))
        read: list[int] = []

        def process(simulation: Simulation = simulation, read: list[int] = read) -> None:
            log = RecordLog(DIRECTORY, simulation, segment_bytes=300)

            def write() -> None:
                for number in range(30):
                    before = log.stop
                    assert before == Offset(number)  # it never goes back
                    append(log, number)

            def sync() -> None:
                for _ in range(10):
                    try:
                        log.sync()
                    except OSError:
                        pass

            threads = [simulation.thread(write, "writer"), simulation.thread(sync, "syncer")]
            for thread in threads:
                thread.start()
            while len(read) < 30:
                read += numbers(log, len(read))
                simulation.sleep(0.001)
            for thread in threads:
                thread.join()

        assert simulation.run(process)
        assert read == list(range(30))


@pytest.mark.parametrize("power_cuts", [0.0, 1.0])
def test_whatever_the_disk_refuses_what_was_synced_outlives_a_loss_of_power_and_all_of_it_a_kill(
    power_cuts: float,
) -> None:
    for seed in range(100):
        simulation = Simulation(seed, Faults(kills=100, power_cuts=power_cuts, lost_syncs=0.4, errors=0.02))
        written, synced = [0], [0]

        def process(
            simulation: Simulation = simulation, written: list[int] = written, synced: list[int] = synced
        ) -> None:
            log = RecordLog(DIRECTORY, simulation, segment_bytes=300)
            written[0] = log.stop.rows
            for _ in range(200):
                try:
                    append(log, written[0])
                    written[0] += 1
                    if written[0] % 3 == 0:
                        log.sync()
                        synced[0] = written[0]
                except OSError:
                    pass

        for _ in range(5):
            simulation.faults = Faults(kills=100, power_cuts=power_cuts, lost_syncs=0.4, errors=0.02)
            try:
                simulation.run(process)
            except OSError:
                continue  # it could not be opened
            simulation.faults = Faults()
            least = synced[0] if power_cuts else written[0]
            found: list[int] = []
            assert simulation.run(lambda: found.extend(numbers(RecordLog(DIRECTORY, simulation))))  # noqa: B023
            # The record at which it was killed may be there.
            assert found == list(range(len(found)))
            assert len(found) >= least, f"seed {seed}"
            synced[0] = min(synced[0], len(found))


def test_a_directory_that_a_killed_process_made_is_put_on_the_disk_by_the_next_one() -> None:
    lost = 0
    for seed in range(40):
        simulation = Simulation(seed, Faults(kills=4, power_cuts=0.0))
        lost += not simulation.run(lambda s=simulation: s.files.make_directory(DIRECTORY))  # type: ignore[misc]
        simulation.faults = Faults()
        assert simulation.run(lambda s=simulation: s.files.make_directory(DIRECTORY))  # type: ignore[misc]
        simulation.cut_power()
        assert simulation.files.is_directory(DIRECTORY)
    assert lost


def test_what_rows_are_made_of_is_on_the_disk_before_them_though_a_killed_process_wrote_it() -> None:
    rows = Block(np.arange(3), 3, None, np.zeros(3))
    for seed in range(60):
        simulation = Simulation(seed, Faults(kills=20, power_cuts=0.0))

        def write(simulation: Simulation = simulation) -> None:
            log = RowLog(DIRECTORY, simulation)
            log.append(rows)
            log.sync()

        simulation.run(write)
        simulation.faults = Faults()
        assert simulation.run(write)
        simulation.cut_power()
        found: list[int] = []

        def read(simulation: Simulation = simulation, found: list[int] = found) -> None:
            log = RowLog(DIRECTORY, simulation)
            while (piece := log.read(Offset(len(found)))) is not None:
                found.extend(piece[0].rows.tolist())

        assert simulation.run(read)
        assert found in ([0, 1, 2], [0, 1, 2] * 2)

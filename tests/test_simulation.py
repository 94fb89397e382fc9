"""The simulated machine, and training under its schedules, faults and crashes."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.simulated import walk

from unbounded.simulation.disk import Disk, File, Folder
from unbounded.testing import Faults, Simulation

pytestmark = pytest.mark.usefixtures("one_core", "no_log")

SEEDS = int(os.environ.get("SIMULATED_SEEDS", "200"))
FIRST = int(os.environ.get("SIMULATED_FIRST", "0"))
GROUPS = 20
ROOT = Path("/simulated")


@pytest.mark.parametrize("group", range(GROUPS))
def test_whatever_the_schedule_and_the_faults_the_model_is_trained_as_without_them(group: int) -> None:
    for seed in range(FIRST + group, FIRST + SEEDS, GROUPS):
        walk(seed)


# -- schedules ---------------------------------------------------------------------------------------------------------


def _race(seed: int) -> tuple[list[str], str]:
    simulation = Simulation(seed)
    said: list[str] = []

    def process() -> None:
        lock = simulation.lock()

        def say(name: str) -> None:
            for _ in range(3):
                with lock:
                    said.append(name)

        threads = [simulation.thread(lambda name=name: say(name), name) for name in "abc"]  # type: ignore[misc]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert simulation.run(process)
    return said, simulation.trace


def test_a_seed_gives_one_schedule_and_others_give_others() -> None:
    runs = [_race(seed) for seed in range(20)]
    assert runs == [_race(seed) for seed in range(20)]
    assert len({"".join(said) for said, _ in runs}) > 10
    assert len({trace for _, trace in runs}) == 20


def test_walks_are_the_same_again_and_in_other_processes() -> None:
    seeds = range(16, 24)  # of each kind

    def run(hashes: str) -> list[str]:
        command = [sys.executable, "-m", "tests.simulated", str(seeds[0]), str(len(seeds))]
        path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
        env = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": path}
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        return [line.rpartition("trace ")[2] for line in out.splitlines() if "trace" in line]

    walks = [walk(seed) for seed in seeds]
    traces = [each.simulation.trace for each in walks]
    for seed, first in reversed([*zip(seeds, walks, strict=True)]):  # whatever came before
        again = walk(seed)
        assert first.simulation.trace == again.simulation.trace, seed
        assert first.events == again.events, seed
    for hashes in ("1", "2"):
        assert run(hashes) == traces


def test_threads_that_wait_for_each_other_are_named_with_what_they_wait_for() -> None:
    def process(simulation: Simulation) -> None:
        one, other = simulation.lock(), simulation.lock()

        def backwards() -> None:
            with other:
                simulation.switch()
                with one:
                    pass

        thread = simulation.thread(backwards, "backwards")
        with one:
            thread.start()
            simulation.sleep(1.0)
            with other:
                pass

    simulation = Simulation(0)
    with pytest.raises(
        AssertionError, match=r"Each thread waits for another: main .* holds; backwards .* main holds\."
    ):
        simulation.run(lambda: process(simulation))


def test_time_moves_when_all_wait() -> None:
    simulation = Simulation(0)
    seen: list[float] = []

    def process() -> None:
        event, begun = simulation.event(), simulation.monotonic()
        assert not event.wait(3600.0)
        seen.append(simulation.monotonic() - begun)

    assert simulation.run(process)
    assert 3600 <= seen[0] < 3601


def test_what_a_thread_raises_fails_the_run() -> None:
    simulation = Simulation(0)

    def process() -> None:
        thread = simulation.thread(lambda: 1 / 0, "divides")
        thread.start()
        thread.join()

    with pytest.raises(AssertionError, match="The thread divides raised ZeroDivisionError"):
        simulation.run(process)


def test_a_race_on_what_no_lock_guards_is_found_line_by_line() -> None:
    def lost(seed: int, lines: tuple[str, ...]) -> bool:
        simulation = Simulation(seed, lines=lines)
        count = 0

        def process() -> None:
            def add() -> None:
                nonlocal count
                before = count
                count = before + 1

            threads = [simulation.thread(add, "adds") for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        simulation.run(process)
        return count < 2

    assert not any(lost(seed, ()) for seed in range(50))
    assert any(lost(seed, ("tests/test_simulation.py",)) for seed in range(50))


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_a_killed_process_stops_at_any_switch_and_the_next_one_has_its_files() -> None:
    counts: set[int] = set()
    for seed in range(30):
        simulation = Simulation(seed, Faults(kills=30, power_cuts=0.0))
        written: list[int] = []

        def process(simulation: Simulation = simulation, written: list[int] = written) -> None:
            fd = simulation.files.open_log(Path("/log"))
            for number in range(50):
                assert simulation.files.write(fd, bytes([number])) == 1
                written.append(number)

        if simulation.run(process):
            continue
        content = simulation.files.open_read(Path("/log")).read() if written else b""
        # The write at which it was killed may have been made.
        assert content in (bytes(written), bytes([*written, len(written)]))
        counts.add(len(written))
    assert len(counts) > 5


@pytest.mark.parametrize(("synced", "named"), [(True, True), (True, False), (False, True)])
def test_a_loss_of_power_leaves_what_was_synced_and_any_part_of_the_rest(synced: bool, named: bool) -> None:
    found: set[bytes | None] = set()
    for seed in range(60):
        simulation = Simulation(seed)

        def process(files: Any, synced: bool = synced, named: bool = named) -> None:
            fd = files.create(Path("/file"))
            files.write(fd, b"a" * 2000)
            if synced:
                files.fsync(fd)
            if named:
                files.sync_directory(Path("/"))

        assert simulation.run(lambda simulation=simulation, process=process: process(simulation.files))  # type: ignore[misc]
        simulation.cut_power()
        try:
            found.add(simulation.files.open_read(Path("/file")).read())
        except FileNotFoundError:
            found.add(None)
    whole = b"a" * 2000
    if synced:
        assert found == ({whole} if named else {whole, None})
    else:
        assert None not in found
        assert len(found) > 3
        assert {b"", whole, bytes(2000)} <= found


def test_a_rename_that_was_not_synced_may_be_undone_by_a_loss_of_power_and_is_never_half_done() -> None:
    outcomes = set()
    for seed in range(40):
        rng, root, disk = random.Random(seed), Folder(1), Disk()
        old, new = disk.new_file(), disk.new_file()
        root.put({"name": old})
        root.put({"beside": new})
        root.sync()
        root.put({"beside": None, "name": new})
        root.crash(rng)
        outcomes.add((root.names.get("name") is new, "beside" in root.names))
    assert outcomes == {(True, False), (False, True)}


def test_after_a_failed_fsync_the_next_one_does_not_bring_back_what_the_disk_refused() -> None:
    losses = 0
    for seed in range(40):
        file = File(1)
        file.write(b"a" * 512, 0)
        file.lose(random.Random(seed))
        file.sync()
        assert bytes(file.content) == b"a" * 512  # as the kernel shows it
        file.crash(random.Random(seed))
        losses += bytes(file.content) != b"a" * 512
    assert 0 < losses < 40


@pytest.mark.parametrize(
    "call",
    [
        lambda files: files.create(ROOT),
        lambda files: files.mkdir(ROOT),
        lambda files: files.list(Path("/")),
        lambda files: files.stat(Path("/")),
        lambda files: files.sync_directory(Path("/")),
        lambda files: files.write(files.open_log(ROOT), b"some"),
    ],
)
def test_a_file_call_fails_as_often_as_it_is_to(call: Callable[[Any], object]) -> None:
    codes = set()
    for seed in range(60):
        simulation = Simulation(seed, Faults(errors=0.3))
        try:
            simulation.run(lambda simulation=simulation: call(simulation.files))  # type: ignore[misc]
        except OSError as error:
            codes.add(error.errno)
    assert codes
    assert codes <= {errno.EIO, errno.ENOSPC}


def test_a_lock_on_a_file_goes_with_its_process() -> None:
    simulation = Simulation(0)

    def process() -> None:
        assert simulation.files.lock(simulation.files.open_write(Path("/lock")))

    assert simulation.run(process)
    assert simulation.run(process)

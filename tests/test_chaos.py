"""Training that is killed again and again ends where training that was left alone ends, to the bit.

A real `fit` runs in a process of its own (chaos_trainer.py), and this one kills it: at random moments of training,
and at random calls to the disk inside a checkpoint's write. CHAOS_KILLS says how often in all. The counts are shown
at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chaos_trainer as trainer
from chaos_trainer import FINISHED, PHASES, SAVING, Board
from unbounded.core.runtime import SYSTEM
from unbounded.sources.row_log import RowLog

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
PATIENCE = 60.0  # seconds, for anything that a process is waited for

# Of each 20 kills, so many go to a source on a backend.
SHARES = {
    ("jax", "arrays"): 5,
    ("jax", "start"): 3,
    ("jax", "state"): 3,
    ("jax", "mix"): 2,
    ("jax", "keyed"): 2,
    ("torch", "arrays"): 2,
    ("tensorflow", "start"): 2,
    ("jax", "once"): 3,
    ("jax", "numbered"): 4,
}


def share(backend: str, source: str) -> int:
    """How many of all kills are this one's: the shares of any number add up to it."""
    upto, before = 0, 0
    for key, part in SHARES.items():
        before, upto = upto, upto + part
        if key == (backend, source):
            break
    total = sum(SHARES.values())
    return max(1, KILLS * upto // total - KILLS * before // total)


# -- what happened -----------------------------------------------------------------------------------------------


@dataclass
class Counters:
    """Counts over all tests of this file."""

    phases: Counter[str] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)
    moving: int = 0
    again: int = 0
    early: int = 0
    lives: int = 0
    steps: int = 0
    steps_again: int = 0
    checkpoints: int = 0
    missing: int = 0
    stops: int = 0
    slowest_stop: float = 0.0

    def lines(self) -> list[str]:
        """The counts in words."""
        kills = sum(self.phases.values())
        phases = ", ".join(f"{n} {phase}" for phase, n in sorted(self.phases.items()))
        by = ", ".join(f"{n} {name}" for name, n in self.by.items())
        return [
            f"kills: {kills} ({phases}); {by}",
            f"{self.moving} of them of a process at work, the others of one that stood still where it was to be killed",
            f"inside a write, at {len(self.calls)} different calls to the disk; "
            f"{self.again} lives began where the one before had, which was killed before a new checkpoint; "
            f"{self.early} more lives were killed before a first step, or soon after it",
            f"{self.lives} lives, {self.steps} steps, {self.steps_again} of them trained again by a next life; "
            f"{self.checkpoints} checkpoints taken up",
            f"a source that can't go back: {self.missing} rows, about to be yielded, missing after kills; "
            f"{self.stops} clean stops, the slowest {self.slowest_stop:.2f} s",
        ]


@pytest.fixture(scope="module")
def counters(request: pytest.FixtureRequest) -> Iterator[Counters]:
    made = Counters()
    yield made
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            for line in made.lines():
                reporter.write_line(line)


# -- processes ---------------------------------------------------------------------------------------------------


class Forks:
    """A process that has imported a backend, and forks for each life."""

    def __init__(self, backend: str, cache: Path) -> None:
        made = {
            "KERAS_BACKEND": backend,
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Each life compiles the same functions; finding them compiled makes it three times as short.
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self._process = subprocess.Popen(
            [sys.executable, trainer.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **made},
        )
        self._pid: int | None = None  # of the life under way
        self._heard()

    def begin(self, life: dict[str, Any]) -> int:
        """Begin a life; returns its process id."""
        assert self._process.stdin is not None
        self._end_life()
        self._process.stdin.write(json.dumps(life) + "\n")
        self._process.stdin.flush()
        self._pid = int(self._heard()["pid"])
        return self._pid

    def _end_life(self) -> None:
        """A test that failed may have left one."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.ended()

    def is_over(self) -> bool:
        """Whether the life has ended."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def ended(self) -> int:
        """Wait for the life's end; returns its exit code, or minus the signal that ended it."""
        status = int(self._heard()["status"])
        self._pid = None
        return status

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"The process that forks has ended, with code {self._process.wait()}."
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._end_life()
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory in memory, where there is such: what a kill can do is the same, and a disk's syncs take long."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def forks(place: Path) -> Iterator[Callable[[str], Forks]]:
    made: dict[str, Forks] = {}

    def of(backend: str) -> Forks:
        if backend not in made:
            made[backend] = Forks(backend, place / "compiled")
        return made[backend]

    yield of
    for one in made.values():
        one.close()


class Tickets:
    """Hands out each id once, to whoever asks, a random number of them at a time.

    It takes its time, so that whoever asks is waiting for an answer at most moments.
    """

    def __init__(self, path: Path, ids: int, most: int, seed: int) -> None:
        self.path = str(path)
        self.handed = 0
        self._ids, self._most = ids, most
        self._rng = random.Random(seed)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(line,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, line: socket.socket) -> None:
        with line:
            try:
                while line.recv(1):
                    with self._lock:
                        count = self._rng.randint(1, self._most)
                        if self.handed + count > self._ids:
                            return  # more than any run of ours needs: the trainer sees the line cut
                        first, self.handed = self.handed, self.handed + count
                    time.sleep(0.002)
                    line.sendall(struct.pack("<qq", first, count))
            except OSError:  # killed
                return

    def close(self) -> None:
        """Hand out no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


# -- runs --------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """When and how a life is to be ended. Steps are those that are new in this life."""

    after: int  # steps
    wait: float = 0.0  # seconds, after that
    gate: int = -1  # steps after which it stands still, should the kill be late
    hold_call: int = -1  # stand still at this call of a checkpoint's write
    hold_half: bool = False
    end: signal.Signals = signal.SIGKILL


class Run:
    """One run of training: lives that go on with one another in one directory."""

    def __init__(self, forks: Forks, place: Path, name: str, *, source: str, **life: Any) -> None:
        self._forks = forks
        self._folder = place / name
        self._folder.mkdir()
        self.board = Board(self._folder / "board")
        self.directory = self._folder / "checkpoints"
        self._life = {
            "board": str(self._folder / "board"),
            "directory": str(self.directory),
            "result": str(self._folder / "result.npz"),
            "log": str(self._folder / "log"),
            "source": source,
            "replay": True,
            "ids": 64,
            # Of one size for all runs, so that their models are compiled once.
            "room": steps_for(max(KILLS, 20)) * trainer.BATCH,
            **life,
        }
        self.counters = Counters()
        self._may_resume: set[int] = {0}
        self._began: int | None = None

    def log(self) -> str:
        """What the lives have said."""
        path = self._folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def _begin(self, plan: Plan | None) -> int:
        board = self.board
        for name in trainer.FIELDS:
            board[name] = -1
        board["phase"] = board["held"] = board["calls"] = board["steps"] = 0
        if plan is not None:
            board["hold_call"], board["hold_half"] = plan.hold_call, plan.hold_half
            board["from_step"], board["gate"] = plan.after, plan.gate
        self.counters.lives += 1
        return self._forks.begin(self._life)

    def _await(self, what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what} did not come within {PATIENCE} s: {self._words()}\n{self.log()}"
            assert self._is_over() or not self._forks.is_over(), (
                f"The life ended before {what} came: {self._words()}\n{self.log()}"
            )
            time.sleep(0.0002)

    def _words(self) -> str:
        return json.dumps({name: self.board[name] for name in trainer.FIELDS})

    def _took_up(self) -> None:
        """The life went on where a checkpoint was whole: the last that was written, or the one under way."""
        board = self.board
        resumed = board["resumed"]
        assert resumed in self._may_resume, (
            f"The life went on at step {resumed}; the checkpoints that may be there: {sorted(self._may_resume)}."
        )
        if self._began is not None:
            self.counters.checkpoints += resumed > 0
            self.counters.again += resumed == self._began
        self._began = resumed

    def _after(self) -> None:
        """What the next life may go on from."""
        board = self.board
        self._may_resume = {board["saved"] if board["saved"] >= 0 else board["resumed"]}
        if board["saving"] >= 0:
            self._may_resume.add(board["saving"])
        self.counters.steps += board["steps"] - board["resumed"]

    def live_and_be_ended(self, plan: Plan) -> None:
        """One life, to its end by a signal; it has trained at least one new step by then."""
        board = self.board
        pid = self._begin(plan)
        self._await("The first step", lambda: board["resumed"] >= 0 or self._is_over())
        self._took_up()
        if plan.hold_call >= 0:
            self._await("A checkpoint's write", lambda: bool(board["held"]) or self._is_over())
        else:
            self._await(
                f"Step {plan.after} of this life",
                lambda: board["steps"] - board["resumed"] >= plan.after or self._is_over(),
            )
            until = time.perf_counter() + plan.wait
            while time.perf_counter() < until:
                pass
        begun = time.monotonic()
        os.kill(pid, plan.end)
        status = self._forks.ended()
        took = time.monotonic() - begun
        new = board["steps"] - board["resumed"]
        if plan.end is signal.SIGKILL:
            assert status == -signal.SIGKILL, f"It ended with {status}: {self._words()}\n{self.log()}"
            assert new >= 1, f"A kill counts after a new step alone: {self._words()}"
            phase = board["phase"]
            self.counters.phases[PHASES[phase]] += 1
            self.counters.moving += not board["held"]
            if phase == SAVING:
                self.counters.calls[board["calls"]] += 1
            self._after()
        else:
            assert status == 0, f"It ended with {status}: {self._words()}\n{self.log()}"
            assert (board["saving"], board["saved"]) == (-1, board["steps"]), (
                f"A clean stop saves the last step that was trained: {self._words()}"
            )
            self.counters.stops += 1
            self.counters.slowest_stop = max(self.counters.slowest_stop, took)
            self._after()

    def live_and_be_killed_early(self, wait: float) -> None:
        """One life that is killed while it takes the run up, or soon after; it counts as none of the kills."""
        pid = self._begin(Plan(1, gate=2))
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        status = self._forks.ended()
        assert status == -signal.SIGKILL, f"It ended with {status}: {self._words()}\n{self.log()}"
        self.counters.early += 1
        if self.board["resumed"] >= 0:
            self._took_up()
            self._after()

    def _is_over(self) -> bool:
        return self.board["phase"] == FINISHED

    def live_to_the_end(self) -> dict[str, np.ndarray]:
        """One life that is left alone; what the model has become."""
        self._begin(None)
        status = self._forks.ended()
        assert status == 0, f"It ended with {status}: {self._words()}\n{self.log()}"
        self._took_up()
        self._after()
        self.counters.steps_again = self.counters.steps - self._life["steps"]
        with np.load(self._life["result"]) as found:
            return {name: found[name] for name in found.files}

    def forget(self) -> None:
        """Remove its files."""
        shutil.rmtree(self._folder)


def plans(kills: int, seed: int) -> Iterator[Plan]:
    """A quarter inside a checkpoint's write, a quarter before a new checkpoint, the rest at any moment."""
    rng = random.Random(seed)
    for i in range(kills):
        if i % 4 == 0:
            # 14 calls write a checkpoint and remove one; 0 is before the first and 15 after the last.
            yield Plan(rng.randint(1, 9), hold_call=rng.randrange(16), hold_half=rng.random() < 0.5)
        elif i % 4 == 2:
            yield Plan(1, rng.uniform(0, 0.003), gate=trainer.EVERY - 1)
        else:
            after = rng.randint(1, 9)
            yield Plan(after, rng.uniform(0, 0.004), gate=after + 4)


def steps_for(kills: int) -> int:
    """So many that they are not over before the last kill: a life trains some 13 new steps at most."""
    return trainer.EPOCH * (2 + -(-kills * 13 // trainer.EPOCH))


def add(counters: Counters, name: str, run: Run) -> None:
    """Put a run's counts to those of all."""
    mine = run.counters
    for counted in ("phases", "calls"):
        getattr(counters, counted).update(getattr(mine, counted))
    if kills := sum(mine.phases.values()):
        counters.by[name] += kills
    for number in ("moving", "again", "early", "lives", "steps", "steps_again", "checkpoints", "stops"):
        setattr(counters, number, getattr(counters, number) + getattr(mine, number))
    counters.slowest_stop = max(counters.slowest_stop, mine.slowest_stop)


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], but: tuple[str, ...] = ()) -> None:
    """Bit for bit."""
    assert found.keys() == wanted.keys()
    at = next((i for i, (a, b) in enumerate(zip(found["order"], wanted["order"], strict=False)) if a != b), None)
    differ = [
        name
        for name in wanted
        if name not in but
        and (found[name].shape != wanted[name].shape or found[name].tobytes() != wanted[name].tobytes())
    ]
    assert not differ, (
        f"Not as in the run that was left alone: {differ}. Ids: {found['order'].size} for {wanted['order'].size}, "
        f"the first that differs at row {at}. Steps, rows, fetched: {found['stats'].tolist()} for "
        f"{wanted['stats'].tolist()}."
    )


# -- the promises ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "source"), [key for key in SHARES if key[1] != "once"])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_left_alone(
    backend: str, source: str, forks: Callable[[str], Forks], place: Path, counters: Counters
) -> None:
    kills = share(backend, source)
    name = f"{backend}-{source}"
    steps = steps_for(kills)
    alone = Run(forks(backend), place, f"{name}-alone", source=source, steps=steps)
    wanted = alone.live_to_the_end()
    run = Run(forks(backend), place, name, source=source, steps=steps)
    rng = random.Random(kills)
    for i, plan in enumerate(plans(kills, seed=list(SHARES).index((backend, source)))):
        run.live_and_be_ended(plan)
        if i % 5 == 3:
            run.live_and_be_killed_early(rng.uniform(0, 1))
    found = run.live_to_the_end()
    add(counters, name, run)
    # What was read ahead when training ended is the threads' affair.
    found["stats"][2] = wanted["stats"][2] = 0
    assert_same(found, wanted)
    assert found["stats"].tolist() == [steps, steps * trainer.BATCH, 0]
    assert int(found["iterations"]) == steps
    phases = run.counters.phases
    assert sum(phases.values()) == kills
    assert 4 * phases[PHASES[SAVING]] >= kills
    if kills > 3:
        assert run.counters.again >= 1, "No two resumes began at the same checkpoint."
    alone.forget()
    run.forget()


def test_clean_stops_lose_nothing_of_a_source_that_cannot_go_back(
    forks: Callable[[str], Forks], place: Path, counters: Counters
) -> None:
    stops = max(4, KILLS // 5)
    steps = steps_for(stops)
    ids = 2000 + steps * trainer.BATCH
    results = []
    rng = random.Random(77)
    for name, ends in (("stopped-alone", 0), ("stopped", stops)):
        tickets = Tickets(place / f"{name}.socket", ids, most=7, seed=ends)
        run = Run(forks("jax"), place, name, source="once", steps=steps, ids=ids, counter=tickets.path)
        for _ in range(ends):
            after = rng.randint(1, 9)
            run.live_and_be_ended(Plan(after, rng.uniform(0, 0.004), gate=after + 4, end=signal.SIGTERM))
        results.append(run.live_to_the_end())
        tickets.close()
    wanted, found = results
    add(counters, "stopped", run)
    found["stats"][2] = wanted["stats"][2] = 0
    assert_same(found, wanted)
    assert found["stats"].tolist() == [steps, steps * trainer.BATCH, 0]
    assert run.counters.stops == stops
    assert run.counters.steps == steps, "A clean stop trains no step again."


def test_of_a_source_that_cannot_go_back_a_kill_trains_no_row_twice_and_loses_none_that_it_had_yielded(
    forks: Callable[[str], Forks], place: Path, counters: Counters
) -> None:
    """Handed out = trained + in the row log, but for what sat in the generator itself.

    That is at most one block for each kill: the ids that were answered and had not been yielded.
    """
    kills, most = max(3, share("jax", "once")), 5
    steps = steps_for(kills)
    ids = 2000 + steps * trainer.BATCH + 500 * kills
    tickets = Tickets(place / "once.socket", ids, most=most, seed=3)
    life = {"steps": steps, "ids": ids, "counter": tickets.path, "replay": False}
    run = Run(forks("jax"), place, "once", source="once", **life)
    before_a_checkpoint = Plan(1, gate=2)
    for plan in [before_a_checkpoint, before_a_checkpoint, *plans(kills - 2, seed=3)]:
        run.live_and_be_ended(plan)
    found = run.live_to_the_end()
    tickets.close()
    add(counters, "jax-once", run)

    order, counts = found["order"], found["counts"]
    twice = np.flatnonzero(counts > 1).tolist()
    assert not twice, f"Trained on twice: {twice}."
    assert order.size == steps * trainer.BATCH
    assert np.array_equal(np.sort(order), np.flatnonzero(counts))
    missing = set(range(tickets.handed)) - set(order.tolist()) - set(kept(run.directory))
    counters.missing += len(missing)
    assert len(missing) <= most * kills, (
        f"{len(missing)} rows are missing, in {kills} kills of a generator that holds up to {most} rows."
    )


def kept(directory: Path) -> list[int]:
    """The ids of the rows in the row log."""
    log = RowLog(directory / "log" / "feed" / "source", SYSTEM)
    ids, at = [], log.start
    while (found := log.read(at)) is not None:
        block, at = found
        ids += [int(i) for i in block.rows[0][:, 0]] if block.count else []
    log.close()
    return ids


def test_the_kills_are_as_many_as_were_asked_for_and_a_quarter_inside_a_write(counters: Counters) -> None:
    kills = sum(counters.phases.values())
    if len(counters.by) < len(SHARES):
        pytest.skip("Only some of the tests above have run.")
    assert kills >= KILLS
    assert 4 * counters.phases[PHASES[SAVING]] >= kills

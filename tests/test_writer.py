"""A checkpoint that is written while training goes on is of the moment at which it was taken, and nothing is lost where
it can't be written.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import WriteGate, once, table, train
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.store.checkpoints import CheckpointError, Checkpoints
from unbounded.store.writer import Pending, Writer

WAIT = 10.0  # seconds; generous, and never waited for where all is well


def numbers(directory: Path) -> list[int]:
    return [saved.number for saved in Checkpoints(directory).all()]


@pytest.mark.parametrize(
    "stream", [lambda: table().shuffle(20).batch(4).prefetch(2), lambda: ub.from_generator(once).batch(4)]
)
def test_what_is_trained_meanwhile_is_not_in_the_checkpoint(
    stream: Callable[[], ub.Stream], write_gate: WriteGate, tmp_path: Path
) -> None:
    weights = np.zeros(4)
    with ub.Feed(stream()) as feed:
        train(feed, 5)
        saving = feed.save(tmp_path, state={"weights": weights, "log": [1]}, wait=False)
        assert write_gate.reached.wait(WAIT)
        assert not saving.done
        weights += 1
        seen = [feed.peek()]
        following = train(feed, 7)
        write_gate.open.set()
        assert saving.wait() == tmp_path / "step-000000000005"
        assert write_gate.threads == ["unbounded-writer"]
    with ub.Feed(stream()) as feed:
        state = feed.load(tmp_path)
        assert state["weights"].tolist() == [0, 0, 0, 0]
        assert feed.steps == 5
        if feed.stream.guarantee == "exact":
            assert train(feed, 7) == following
    assert len(seen) == 1


def jax_training() -> tuple[Any, Callable[[Any], Any]]:
    jax = pytest.importorskip("jax")
    step = jax.jit(lambda weights: weights + 1, donate_argnums=0)  # which writes to the memory that it is given
    return jax.numpy.zeros(100_000), step


def torch_training() -> tuple[Any, Callable[[Any], Any]]:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(300, 300)
    with torch.no_grad():
        layer.weight.zero_()

    def step(weights: Any) -> Any:
        with torch.no_grad():
            weights += 1
        return weights

    return layer.weight.detach(), step


@pytest.mark.parametrize("training", [jax_training, torch_training])
def test_frameworks_that_train_in_place_change_nothing_of_a_checkpoint(
    training: Callable[[], tuple[Any, Callable[[Any], Any]]], write_gate: WriteGate, tmp_path: Path
) -> None:
    weights, step = training()
    with ub.Feed(table().batch(4)) as feed:
        train(feed, 1)
        saving = feed.save(tmp_path, state={"model": [{"w": weights}]}, wait=False)
        for _ in range(3):
            weights = step(weights)
        write_gate.open.set()
        saving.wait()
        saved = Checkpoints(tmp_path).newest()
        assert saved is not None
        back = saved.read_state()["model"][0]["w"]
        assert type(back).__module__.startswith(type(weights).__module__.split(".")[0])
        assert float(abs(back).max()) == 0
        assert float(weights.min()) == 3


def test_a_state_that_cannot_be_saved_is_refused_at_once(write_gate: WriteGate, tmp_path: Path) -> None:
    with ub.Feed(table().batch(4)) as feed:
        train(feed, 1)
        with pytest.raises(TypeError, match=r"state\['model'\] is of type object"):
            feed.save(tmp_path, state={"model": object()}, wait=False)
        assert not write_gate.reached.is_set()


def test_closing_waits_for_what_is_written(write_gate: WriteGate, tmp_path: Path) -> None:
    with ub.Feed(ub.from_generator(once).batch(4)) as feed:
        train(feed, 3)
        feed.save(tmp_path, wait=False)
        assert write_gate.reached.wait(WAIT)
        threading.Timer(0.05, write_gate.open.set).start()
    assert numbers(tmp_path) == [3]


def test_the_next_save_waits_for_the_one_before(write_gate: WriteGate, tmp_path: Path) -> None:
    with ub.Feed(table().batch(4)) as feed:
        for step in range(1, 4):
            train(feed, 1)
            threading.Timer(0.02, write_gate.open.set).start()
            feed.save(tmp_path, wait=step == 3)
        assert numbers(tmp_path) == [1, 2, 3]
    assert write_gate.threads == ["unbounded-writer", "unbounded-writer", "MainThread"]


@pytest.mark.parametrize("then", ["save", "save without waiting", "load", "close", "wait"])
def test_a_failure_is_raised_once_by_what_comes_next_and_the_older_one_is_whole(
    then: str, write_gate: WriteGate, tmp_path: Path
) -> None:
    write_gate.open.set()
    feed = ub.Feed(ub.from_generator(once).batch(4))
    train(feed, 2)
    feed.save(tmp_path)
    write_gate.failure = CheckpointError("Step 4 was not saved: No space left on device.")
    train(feed, 2)
    pending = feed.save(tmp_path, wait=False)
    following = train(feed, 3)
    asked: dict[str, Callable[[], Any]] = {
        "save": lambda: feed.save(tmp_path),
        "save without waiting": lambda: feed.save(tmp_path, wait=False),
        "load": lambda: feed.load(tmp_path),
        "close": feed.close,
        "wait": pending.wait,
    }
    with pytest.raises(CheckpointError, match="Step 4 was not saved"):
        asked[then]()
    assert numbers(tmp_path) == [2]
    assert feed.closed is (then == "close")
    if then != "close":
        feed.save(tmp_path)
        assert numbers(tmp_path) == [2, 7]
        feed.close()
    assert len(following) == 3


def test_rows_that_the_older_checkpoint_needs_stay_where_the_newer_one_failed(
    write_gate: WriteGate, tmp_path: Path
) -> None:
    write_gate.open.set()
    with ub.Feed(ub.from_generator(once).batch(4)) as feed:
        train(feed, 2)
        feed.save(tmp_path, keep=1)
        write_gate.failure = CheckpointError("It was not saved.")
        following = train(feed, 3)
        pending = feed.save(tmp_path, keep=1, wait=False)
        with pytest.raises(CheckpointError):
            pending.wait()
        following += train(feed, 3)
        feed.load(tmp_path)
        assert train(feed, 6) == following


def test_an_error_in_the_block_is_raised_and_what_could_not_be_written_is_said(
    write_gate: WriteGate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_gate.open.set()
    write_gate.failure = CheckpointError("Step 1 was not saved.")
    feed = ub.Feed(table().batch(4))
    train(feed, 1)
    feed.save(tmp_path, wait=False)
    with pytest.raises(ZeroDivisionError), feed:
        raise ZeroDivisionError
    assert feed.closed
    assert "Step 1 was not saved." in caplog.text


SCRIPT = """
import sys, numpy as np, unbounded as ub
feed = ub.Feed(ub.from_arrays(np.arange(100)).batch(4))
next(iter(feed.batches())); feed.trained()
feed.save(sys.argv[1], state=np.zeros(3_000_000), wait=False)
{end}
"""


@pytest.mark.parametrize(("end", "status"), [("", 0), ("sys.exit(3)", 3), ("raise KeyboardInterrupt", 1)])
def test_a_process_that_ends_writes_its_checkpoint_to_the_end(end: str, status: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end=end), str(tmp_path)], capture_output=True)
    assert done.returncode == status
    saved = Checkpoints(tmp_path).newest()
    assert saved is not None
    assert saved.read_state().shape == (3_000_000,)


def test_what_a_process_could_not_write_is_said_when_it_ends(tmp_path: Path) -> None:
    end = "import unbounded.store.writer as w; w.Writer(ub.core.runtime.SYSTEM).begin(lambda: 1 / 0)"
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end=end), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "A checkpoint could not be written: division by zero" in done.stderr


def test_a_system_without_a_thread_left_is_an_error_at_once_and_the_next_one_is_written() -> None:
    class Full(Runtime):
        def thread(self, target: Callable[[], object], name: str) -> Any:
            thread = super().thread(target, name)
            if not room:
                thread.start = lambda: _raise(RuntimeError("can't start new thread"))  # type: ignore[method-assign]
            return thread

    room: list[int] = []
    writer = Writer(Full())
    with pytest.raises(RuntimeError, match="can't start new thread"):
        writer.begin(lambda: 1)
    assert not writer.busy
    room.append(1)
    assert writer.begin(lambda: 2).wait() == 2


def _raise(error: Exception) -> Any:
    raise error


def test_an_interrupt_ends_the_wait_and_not_the_write() -> None:
    waits, open_, writer = threading.Event(), threading.Event(), Writer(SYSTEM)

    def work() -> bool:
        assert waits.wait(WAIT)
        os.kill(os.getpid(), signal.SIGINT)
        return open_.wait(WAIT)

    def wait() -> None:
        waits.set()
        writer.finish()

    pending = writer.begin(work)
    with pytest.raises(KeyboardInterrupt):
        wait()
    assert writer.busy
    open_.set()
    writer.finish()
    assert pending.wait() is True


FORK = """
import os, threading
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.store.writer import Writer
open_, writer = threading.Event(), Writer(SYSTEM)
pending = writer.begin(lambda: open_.wait(60))
child = os.fork()
if child == 0:
    assert not writer.busy
    writer.finish()
    raise SystemExit(5)  # and the interpreter ends, which waits for nothing either
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
open_.set()
print(pending.wait())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_forked_child_does_not_wait_for_its_parents_writer() -> None:
    # In a process of its own: this one may have threads of frameworks, which warn of forks.
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["5", "True"], done.stderr


def test_a_pending_one_keeps_nothing_of_what_it_wrote() -> None:
    import gc
    import weakref

    class Big:
        pass

    big = Big()
    pending: Pending[int] = Pending(lambda kept=big: 1, SYSTEM)  # type: ignore[misc]
    gone = weakref.ref(big)
    del big
    pending.start()
    assert pending.wait() == 1
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all threads of a process have one priority")
def test_training_comes_before_the_writer_on_a_busy_machine() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    assert Writer(SYSTEM).begin(priority).wait() == min(19, before + 10)
    assert priority() == before

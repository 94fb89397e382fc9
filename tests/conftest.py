"""What all tests share: hypothesis always tries the same examples, unless STATE_WALKS asks for more; a core test leaves
no thread behind, signals are those of a shell in the foreground, and the garbage collector passes over what is there.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from helpers import WriteGate

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests that need it say so themselves
    pass
else:
    settings.register_profile(
        "same", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    # `make chaos` looks for new failures, which are printed with what reproduces them.
    settings.register_profile("new", settings.get_profile("same"), derandomize=False, print_blob=True)
    settings.load_profile("new" if "STATE_WALKS" in os.environ else "same")

# A job in a shell's background ignores SIGINT, and so would this process and all that it starts: tests that send one
# would wait for ever. With a handler here, a child begins with the system's default, and Python puts in its own.
if threading.current_thread() is threading.main_thread():
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="module", autouse=True)
def garbage_of_this_module_alone() -> None:
    """Keeps what was there before, such as frameworks, out of collections: each would pass over a million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fails the test where a thread of ours is still alive after it."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("unbounded")]
    for thread in left:
        thread.join(30.0)
    assert not [t.name for t in left if t.is_alive()]


@pytest.fixture
def no_log() -> Iterator[None]:
    """The library's warnings are not shown: simulated faults make many."""
    log = logging.getLogger("unbounded")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(before)


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Keeps this process on one core. Of a simulation's threads one runs at a time: each switch between two cores would
    wake the other one first, and wait for it. The garbage collector passes over what is there already."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        os.sched_setaffinity(0, {sorted(cores)[worker % len(cores)]})
    yield
    if cores:
        os.sched_setaffinity(0, cores)


@pytest.fixture
def write_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteGate]:
    """Makes writing checkpoints wait; opened at the end of the test."""
    gate = WriteGate(monkeypatch)
    yield gate
    gate.open.set()

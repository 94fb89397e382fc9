"""Writer: writes checkpoints in a thread of their own, one at a time, while training goes on.

Its work must own all data that it writes: the model, the random states and the positions change while it is written.
What is written, and where, is left to the callers.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from unbounded.core.runtime import Runtime

_log = logging.getLogger("unbounded")

T = TypeVar("T")

_LOOK = 0.2  # seconds

# Writes whose outcome nobody has asked for yet. This also keeps them, and their data, alive until they are done.
_open: set[Pending[object]] = set()


class Pending(Generic[T]):
    """A checkpoint that is being written.

    Example:
        >>> import tempfile, numpy as np, unbounded as ub
        >>> folder = tempfile.mkdtemp()
        >>> with ub.Feed(ub.from_arrays(np.arange(100)).batch(8)) as feed:
        ...     saving = feed.save(folder, state={"weights": np.zeros(3)}, wait=False)
        ...     path = saving.wait()  # a path: the checkpoint is on the disk
        >>> path.name
        'step-000000000000'
    """

    def __init__(self, work: Callable[[], T], runtime: Runtime) -> None:
        self._work: Callable[[], T] | None = work
        self._result: T | None = None
        self._error: BaseException | None = None
        # A signal handler may raise in the waiting thread at any line. If it raises inside Thread.join or is_alive,
        # CPython 3.11 takes the thread for ended; inside Event.wait, it can leave the event's lock held. So completion
        # is a flag, and the waiting thread is woken by a bare lock that is held until the end.
        self.done = False
        """True when the write has ended, by success or failure."""
        self._latch = runtime.lock()
        self._latch.acquire()
        self._runtime = runtime
        self._process = runtime.process()
        self.heard = False
        """True when `wait` has reported the outcome."""
        # A daemon: the interpreter waits for it in `_finish`, where Ctrl-C can end the wait.
        self._thread = runtime.thread(self._run, "unbounded-writer")

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system can't start a thread; nothing is written.
        """
        _open.add(cast("Pending[object]", self))
        try:
            self._thread.start()
        except RuntimeError:
            # After any other exception, such as an interrupt, the thread may be running.
            self.done = self.heard = True
            _open.discard(cast("Pending[object]", self))
            raise

    def _run(self) -> None:
        work, self._work = self._work, None  # its data is freed when it is done, not with this object
        assert work is not None
        # Where all cores are at work, a step of training would wait for what is written.
        self._runtime.give_way()
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
        self.done = True
        self._latch.release()

    def wait(self) -> T:
        """Wait until it is on the disk; return the checkpoint's path, as `feed.save` does.

        Raises:
            CheckpointError: it could not be written. Earlier checkpoints are unchanged.
        """
        if self.forked:
            raise RuntimeError("The process was forked while a checkpoint was written: its parent writes it.")
        while not self.done:
            # In slices: a signal that the kernel delivers to another thread does not end this wait.
            if self._latch.acquire(timeout=_LOOK):
                self._latch.release()
        self.heard = True
        _open.discard(cast("Pending[object]", self))
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    @property
    def forked(self) -> bool:
        """True in a process forked from the one that writes: threads do not exist in the child."""
        return not self.done and self._process != self._runtime.process()


class Writer:
    """Writes one checkpoint at a time.

    A failure is raised once, in the training thread: by the first following call of `check`, `finish` or `begin`,
    unless `Pending.wait` has raised it before.

    Args:
        runtime: of the feed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pending: Pending[object] | None = None

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._pending is not None and not self._pending.done and not self._pending.forked

    def begin(self, work: Callable[[], T]) -> Pending[T]:
        """Write a checkpoint, after the one that is being written.

        Args:
            work: called in another thread to write it.
        """
        self.finish()
        pending = Pending(work, self._runtime)
        # Before the start: an interrupt during it must not leave a running thread that nobody knows of.
        self._pending = cast(Pending[object], pending)
        pending.start()
        return pending

    def check(self) -> None:
        """Raise the error of the last write, if there is one; don't wait."""
        if self._pending is not None and self._pending.done:
            self.finish()

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and raise its error, if there is one."""
        pending = self._pending
        if pending is not None and not pending.heard and not pending.forked:
            try:
                pending.wait()
            finally:
                # Only if the wait was not interrupted.
                if pending.heard:
                    self._pending = None
        else:
            self._pending = None


def _finish() -> None:
    """At the interpreter's exit: wait for the checkpoint that is being written, and log a failure."""
    for pending in list(_open):
        try:
            if not pending.forked:
                pending.wait()
        except Exception as error:
            _log.error("A checkpoint could not be written: %s", error)


atexit.register(_finish)

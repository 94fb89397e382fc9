"""Writer: checkpoints written in a thread of their own, one at a time, while training goes on.

What it is given to do must own all that it needs: the model, the random states and the positions have moved on by the
time at which it is done. What a checkpoint is, and where it goes, is left to others.
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

# Those whose outcome nobody has asked for: also what keeps them, and what they write, until they are done.
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
        # A signal's handler may raise in the thread that waits, at any line. In the middle of joining a thread, or of
        # asking whether it is alive, that makes CPython 3.11 take it for ended; in the middle of waiting for an event,
        # it can leave the event's lock held. So the truth is a flag; a bare lock, held until the end, wakes who waits.
        self.done = False
        """Whether it is over, well or not."""
        self._latch = runtime.lock()
        self._latch.acquire()
        self._runtime = runtime
        self._process = runtime.process()
        self.heard = False
        """Whether `wait` has said what became of it."""
        # A daemon: the interpreter waits for it in `_finish`, where Ctrl-C can end the wait, and not for ever.
        self._thread = runtime.thread(self._run, "unbounded-writer")

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the system has no thread left, and nothing is written.
        """
        _open.add(cast("Pending[object]", self))
        try:
            self._thread.start()
        except RuntimeError:
            # After anything else, such as an interrupt, it may be at work.
            self.done = self.heard = True
            _open.discard(cast("Pending[object]", self))
            raise

    def _run(self) -> None:
        work, self._work = self._work, None  # what it holds goes with it, not with this object
        assert work is not None
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
        self.done = True
        self._latch.release()

    def wait(self) -> T:
        """Until it is on the disk; gives what `feed.save` gives, the checkpoint's path.

        Raises:
            CheckpointError: it could not be written. What was there before is still there, whole.
        """
        if self.forked:
            raise RuntimeError("The process was forked while a checkpoint was written: its parent writes it.")
        while not self.done:
            # Not for ever: a signal that the kernel hands to another thread wakes nobody here.
            if self._latch.acquire(timeout=_LOOK):
                self._latch.release()
        self.heard = True
        _open.discard(cast("Pending[object]", self))
        if self._error is not None:
            raise self._error
        return cast(T, self._result)

    @property
    def forked(self) -> bool:
        """Whether it belongs to the process from which this one was forked: threads don't come along."""
        return not self.done and self._process != self._runtime.process()


class Writer:
    """Writes one checkpoint at a time.

    A failure is raised once, by the first of `check`, `finish` and `begin` that comes after it, unless `Pending.wait`
    has raised it before: in the thread that trains, at a moment that it chooses.

    Args:
        runtime: of the feed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pending: Pending[object] | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._pending is not None and not self._pending.done and not self._pending.forked

    def begin(self, work: Callable[[], T]) -> Pending[T]:
        """Write one, after the one that is being written.

        Args:
            work: writes it, in another thread.
        """
        self.finish()
        pending = Pending(work, self._runtime)
        # Before it begins: an interrupt in the middle of that must not leave one at work of which nobody knows.
        self._pending = cast(Pending[object], pending)
        pending.start()
        return pending

    def check(self) -> None:
        """Raise what went wrong with the one that was written last, and don't wait for it."""
        if self._pending is not None and self._pending.done:
            self.finish()

    def finish(self) -> None:
        """Wait for the one that is being written, and raise what went wrong with it."""
        pending = self._pending
        if pending is not None and not pending.heard and not pending.forked:
            try:
                pending.wait()
            finally:
                # Not where the wait was interrupted.
                if pending.heard:
                    self._pending = None
        else:
            self._pending = None


def _finish() -> None:
    """The interpreter ends: what is being written is written to its end, and a failure is told at least here."""
    for pending in list(_open):
        try:
            if not pending.forked:
                pending.wait()
        except Exception as error:
            _log.error("A checkpoint could not be written: %s", error)


atexit.register(_finish)

"""Pump: the one thread-and-queue of (rows, mark), behind `prefetch`, `buffer` and `map(workers=…)`.

Threads pull from upstream in turn, do their work on what they pulled, and queue it in the order in which it
was pulled, each block with the upstream's mark right after it. The mark of the whole is that of the last
block which was handed on: what is queued was never given to anyone, and comes again after a crash.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from unbounded._block import Block, Run
from unbounded._node import EndOfStream, Mark, Node, Over

_SLICE = 0.05  # seconds: how often a thread that waits for data looks whether it is to stop
_JOIN = 1.0  # seconds: how long closing waits for a thread that sits in somebody else's code


Entry: TypeAlias = tuple[Any, Mark, BaseException | None]
"""A block and the upstream's mark after it; or an error, of the upstream (without a block) or of the work on
a block."""

_RETRY = RuntimeError("to be tried again")


class Pump(Over):
    """A node that works ahead in threads of its own, until `full` says that enough is queued.

    Thread hand-overs cost tens of microseconds each: so what is queued is whatever blocks the upstream gives,
    and once the queue is full the threads sleep until half of it is gone.
    """

    def __init__(self, upstream: Node, *, work: Callable[[Any], Any] | None = None, threads: int = 1) -> None:
        self._upstream = upstream
        self._work = work
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._reading = threading.Lock()  # held while the upstream is used
        self._state = threading.Condition()  # guards all below
        self._begin()

    def _begin(self) -> None:
        self._mark: Mark = self._upstream.mark()
        self._ready: dict[int, Entry] = {}
        self._pulled = 0  # blocks that threads have pulled
        self._given = 0  # blocks that were handed on
        self._ahead = 0  # what is queued, in the unit of `size`
        self._asleep = False
        self._stop = False
        self._over = False  # nothing more will be pulled: the end, or an error
        self._released: Mark | None = None

    # -- what a kind of pump decides
    # -------------------------------------------------------------------------------

    def size(self, block: Block | Run) -> int:
        """How much of the room a block takes."""
        return 1

    def room(self) -> int:
        """How much may be queued: when it is reached, threads rest until half of it is gone."""
        return 2 * self._count

    def admit(self) -> None:
        """Called, with the state guarded, when a block was pulled and is about to be queued."""

    # -- the consumer's side
    # -----------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next block that a thread has ready; waits for it, `timeout` seconds at most."""
        if not self._threads:
            self._launch()
        with self._state:
            if self._given not in self._ready and not self._state.wait_for(lambda: self._given in self._ready, timeout):
                return None
            block, mark, error = self._ready[self._given]
            if error is not None:
                block = self._fail(block, mark, error)
            del self._ready[self._given]
            self._given += 1
            self._mark = mark
            self._ahead -= self.size(block)
            if self._asleep and self._ahead <= self.room() // 2:
                self._asleep = False
                self._state.notify_all()
            return block  # type: ignore[no-any-return]

    def _fail(self, block: Any, mark: Mark, error: BaseException) -> Any:
        """Tell of an error, so that the next pull goes on where this one stood."""
        if block is not None:
            # The work failed. It is done again in the consumer's own thread.
            assert self._work is not None
            if error is not _RETRY:
                self._ready[self._given] = (block, mark, _RETRY)
                raise error
            return self._work(block)
        if isinstance(error, EndOfStream):
            raise error
        # The upstream failed, and stands where it stood: it is asked again.
        del self._ready[self._given]
        self._given += 1
        self._over = False
        self._state.notify_all()
        raise error

    def mark(self) -> Mark:
        """The upstream's, right after the last block that was handed on."""
        return self._mark

    def restore(self, mark: Mark) -> None:
        """Throw away what is queued, and begin again from there."""
        self._halt(None)
        self._upstream.restore(mark)
        self._begin()

    def release(self, mark: Mark) -> None:
        """Passed on by the thread that uses the upstream, before its next pull."""
        with self._state:
            self._released = mark

    def close(self) -> None:
        """End the threads and close the upstream."""
        self._halt(_JOIN)
        self._upstream.close()

    def recall(self, journal: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._halt(None)
        self._upstream.recall(journal)

    # -- the threads' side -------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        self._threads = [
            threading.Thread(target=self._run, name=f"unbounded-{type(self).__name__.lower()}", daemon=True)
            for _ in range(self._count)
        ]
        for thread in self._threads:
            thread.start()

    def _halt(self, timeout: float | None) -> None:
        with self._state:
            self._stop = True
            self._state.notify_all()
        for thread in self._threads:
            thread.join(timeout)
        self._threads = []

    def _run(self) -> None:
        while True:
            if not self._await_room():
                return
            with self._reading:
                if not self._has_room():
                    continue  # another thread took it
                number = self._pulled
                made = self._pull()
                if made is None:
                    continue
                self._pulled += 1
                block, mark, error = made
                self._over = error is not None
                if block is not None:
                    with self._state:
                        self._ahead += self.size(block)
                        self.admit()
            if self._work is not None and block is not None:
                try:
                    block = self._work(block)
                except BaseException as failure:
                    error = failure
            with self._state:
                self._ready[number] = (block, mark, error)
                self._state.notify_all()

    def _has_room(self) -> bool:
        with self._state:
            return not (self._stop or self._over or self._asleep) and self._ahead < self.room()

    def _await_room(self) -> bool:
        """Wait until there is room; False when this thread is to end."""
        with self._state:
            while not self._stop:
                if not (self._over or self._asleep):
                    if self._ahead < self.room():
                        return True
                    self._asleep = True
                self._state.wait()
            return False

    def _pull(self) -> Entry | None:
        released, self._released = self._released, None
        try:
            if released is not None:
                self._upstream.release(released)
            block = self._upstream.pull(_SLICE)
            return None if block is None else (block, self._upstream.mark(), None)
        except BaseException as error:
            return None, self._mark, error


class Workers(Pump):
    """`map(fn, workers=n)`: n threads that call a function, in the order of the blocks."""

    def __init__(self, upstream: Node, fn: Callable[[Any], Any], workers: int) -> None:
        super().__init__(upstream, work=fn, threads=workers)


class Ahead(Pump):
    """`prefetch(n)`: n batches, or the next block where that holds more."""

    def __init__(self, upstream: Node, batches: int) -> None:
        super().__init__(upstream)
        self._batches = batches

    def size(self, block: Block | Run) -> int:
        """A run counts its batches; a source's own block is one batch."""
        return block.count if isinstance(block, Run) else 1

    def room(self) -> int:
        """As many as were asked for."""
        return self._batches

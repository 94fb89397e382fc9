"""Prefetcher: threads that read ahead into a queue, behind `prefetch`, `buffer` and `map(workers=…)`.

The threads pull from upstream in turn, process what they pulled, and queue the blocks in the order of the pulls, each
with the upstream's cursor after it. The Prefetcher's cursor is that of the last block that it returned: queued blocks
were returned to nobody, and are read again after a crash.

No call waits for a thread that is inside user code. The threads form a pool. A restore retires the pool: its threads
end at their next check, and a new pool starts at the restored cursor. The upstream is used by one pool thread at a
time, or by the consumer while no thread uses it. What the consumer wants of the upstream (restore, close) is
queued as a request, and carried out by the next user of the upstream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from unbounded.core.block import Block, Run
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, EndOfStream, Node, Over
from unbounded.core.runtime import Runtime, Thread
from unbounded.core.turn import Turn

_SLICE = 0.05  # seconds: how often a waiting thread checks whether its pool is retired
_GRACE = 0.2  # seconds: how long a restore waits for the upstream before it leaves its request to the threads
_JOIN = 1.0  # seconds: how long `close` waits for a thread that is inside user code


Entry: TypeAlias = tuple[Any, Cursor, BaseException | None]
"""A block and the upstream's cursor after it; or an error, from the upstream (without a block) or from the work on a
block."""

_RETRY = RuntimeError("to be tried again")
_CLOSE = object()


class Prefetcher(Over):
    """A node that reads ahead in threads of its own, until the queue holds `room`.

    Passing a block between threads costs tens of microseconds. So the queue holds the upstream's blocks as they are,
    and once it is full the threads sleep until half of it is taken.
    """

    def __init__(
        self, upstream: Node, runtime: Runtime, *, work: Callable[[Any], Any] | None = None, threads: int = 1
    ) -> None:
        super().__init__(upstream)
        self._runtime = runtime
        self._work = work
        self._count = threads
        self._threads: list[Thread] = []
        self._turn = Turn(runtime)
        self._lock = runtime.lock()  # guards all attributes below
        self._state = runtime.condition(self._lock)
        self._pool: object | None = None  # the current pool; threads of any other pool end
        self._user: int | None = None  # the id of the thread that uses the upstream
        self._requests: dict[str, Callable[[], None]] = {}  # carried out in this order
        self._released: Cursor | None = None
        self._begin(upstream.cursor())

    def _begin(self, cursor: Cursor) -> None:
        self._pool = None
        self._cursor = cursor
        self._ready: dict[int, Entry] = {}
        self._pulled = 0  # blocks that threads have pulled
        self._given = 0  # blocks that `pull` has returned
        self._ahead = 0  # the size of the queue, in the unit of `size`
        self._asleep = False
        self._over = False  # True after the end or an error: no thread pulls any more

    # -- overridden by subclasses --------------------------------------------------------------------------------------

    def size(self, block: Block | Run) -> int:
        """The part of `room` that a block takes."""
        return 1

    def room(self) -> int:
        """The size at which the queue is full."""
        return 2 * self._count

    def admit(self) -> None:
        """Called, with the lock held, when a block was pulled and is about to be queued."""

    # -- the consumer's side -------------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next queued block; waits for one, `timeout` seconds at most."""
        if self._pool is None:
            self._launch()
        if self._turn.is_due():
            return None
        entry = self._next(timeout)
        if entry is None:
            return None
        block, cursor, error = entry
        if error is not None:
            # The work on this block failed before. Retry it in the consumer's thread, without the lock.
            assert self._work is not None
            block = self._work(block)
            self._hand_on(block, cursor)
        return block  # type: ignore[no-any-return]

    @locked
    def _next(self, timeout: float | None) -> Entry | None:
        """The next queued block or error; None if there is none in time."""
        if self._given not in self._ready and not self._state.wait_for(lambda: self._given in self._ready, timeout):
            return None
        block, cursor, error = self._ready[self._given]
        if error is None:
            self._take(block, cursor)
        elif block is not None:
            if error is not _RETRY:
                self._ready[self._given] = (block, cursor, _RETRY)
                raise error
        elif isinstance(error, EndOfStream):
            raise error
        else:
            # The upstream failed and left its cursor unchanged: retry the pull.
            del self._ready[self._given]
            self._given += 1
            self._over = False
            self._state.notify_all()
            raise error
        return block, cursor, error

    def _take(self, block: Any, cursor: Cursor) -> None:
        del self._ready[self._given]
        self._given += 1
        self._cursor = cursor
        self._ahead -= self.size(block)
        if self._asleep and self._ahead <= self.room() // 2:
            self._asleep = False
            self._state.notify_all()

    @locked
    def _hand_on(self, block: Any, cursor: Cursor) -> None:
        self._take(block, cursor)

    def cursor(self) -> Cursor:
        """The upstream's cursor after the last block that was returned."""
        return self._cursor

    def restore(self, cursor: Cursor) -> None:
        """Drop the queue, and start again at `cursor`."""
        self._request("restore", lambda: self._rewind(cursor), cursor)
        self._serve_now(_GRACE)

    def _rewind(self, cursor: Cursor) -> None:
        """Restore the upstream; called by the thread that uses it."""
        self._upstream.restore(cursor)

    @locked
    def _request(self, kind: str, action: Callable[[], None], cursor: Cursor | None = None) -> None:
        """Retire the pool, and queue a request that is carried out before the next pull."""
        self._requests.pop(kind, None)  # a newer request of this kind replaces it, at the end of the queue
        self._requests[kind] = action
        self._begin(self._cursor if cursor is None else cursor)
        self._state.notify_all()

    @locked
    def release(self, cursor: Cursor) -> None:
        """Deferred: the thread that uses the upstream passes it on before its next pull."""
        self._released = cursor

    def close(self) -> None:
        """End the threads and close the upstream; a thread inside the upstream closes it when it leaves."""
        self._request("close", self._upstream.close)
        self._serve_now(_JOIN)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN)

    # -- who uses the upstream -----------------------------------------------------------------------------------------

    def _serve_now(self, timeout: float) -> None:
        """Carry out the requests if the upstream is free within `timeout`; otherwise its user does when it leaves."""
        if self._occupy(timeout):
            try:
                self._serve()
            finally:
                # A signal handler may raise before this line. The upstream then stays marked as used by this thread.
                # That is safe: this thread may enter again, and its next call, a restore, comes before any other use.
                self._leave()

    @locked
    def _occupy(self, timeout: float) -> bool:
        mine = self._runtime.ident()
        if not self._state.wait_for(lambda: self._user in (None, mine), timeout):
            return False
        self._user = mine
        return True

    @locked
    def _leave(self) -> None:
        self._user = None
        self._state.notify_all()

    def _serve(self) -> None:
        """Carry out the requests, oldest first. A failed request stays queued: without it, rows would be wrong."""
        while (found := self._next_request()) is not None:
            kind, request = found
            request()
            self._done(kind, request)

    @locked
    def _next_request(self) -> tuple[str, Callable[[], None]] | None:
        if "close" in self._requests:
            request = self._requests["close"]
            self._requests.clear()
            return "close", request
        return next(iter(self._requests.items()), None)

    @locked
    def _done(self, kind: str, request: Callable[[], None]) -> None:
        if self._requests.get(kind) is request:
            del self._requests[kind]

    # -- the threads' side ---------------------------------------------------------------------------------------------

    @locked
    def _launch(self) -> None:
        pool = object()
        self._threads = [t for t in self._threads if t.is_alive()]
        for _ in range(self._count):
            name = f"unbounded-{type(self).__name__.strip('_').removesuffix('Node').lower()}"
            thread = self._runtime.thread(lambda: self._run(pool), name)
            self._threads.append(thread)
            thread.start()
        # Last: if the launch was interrupted, the threads that did start find that their pool is not current, and end.
        self._pool = pool

    def _run(self, pool: object) -> None:
        while self._enter(pool):
            made = self._read(pool)
            if made is None:
                continue
            number, (block, cursor, error) = made
            if self._work is not None and block is not None:
                try:
                    block = self._work(block)
                except BaseException as failure:
                    error = failure
            self._queue(pool, number, (block, cursor, error))

    @locked
    def _enter(self, pool: object) -> bool:
        """Wait until there is room and the upstream is free, then take it; False if this thread is to end."""
        while self._pool is pool:
            if not (self._over or self._asleep):
                if self._ahead >= self.room():
                    self._asleep = True
                elif self._user is None:
                    self._user = self._runtime.ident()
                    return True
            self._state.wait()
        return False

    def _read(self, pool: object) -> tuple[int, Entry] | None:
        """Pull a block and leave the upstream; return the block with its number, or None if there is none yet."""
        try:
            self._serve()
            # A thread of a retired pool only carries out requests: a block that it pulled would be lost.
            entry = self._pull() if self._pool is pool else None
        except BaseException as error:
            entry = (None, self._cursor, error)
        while (made := self._settle(pool, entry)) is _CLOSE:
            self._serve()
        return made  # type: ignore[no-any-return]

    @locked
    def _settle(self, pool: object, entry: Entry | None) -> Any:
        """Leave the upstream, and number what was pulled; `_CLOSE` if the upstream is to be closed first."""
        retired = self._pool is not pool
        if retired and "close" in self._requests:
            return _CLOSE
        self._user = None
        self._state.notify_all()
        if retired or entry is None:
            return None
        number = self._pulled
        self._pulled += 1
        block, _, error = entry
        self._over = error is not None
        if block is not None:
            self._ahead += self.size(block)
            self.admit()
        return number, entry

    @locked
    def _queue(self, pool: object, number: int, entry: Entry) -> None:
        if self._pool is pool:
            self._ready[number] = entry
            self._state.notify_all()

    def _pull(self) -> Entry | None:
        released = self._released_cursor()
        if released is not None:
            self._upstream.release(released)
        block = self._upstream.pull(_SLICE)
        return None if block is None else (block, self._upstream.cursor(), None)

    @locked
    def _released_cursor(self) -> Cursor | None:
        released, self._released = self._released, None
        return released

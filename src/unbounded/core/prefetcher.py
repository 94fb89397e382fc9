"""Prefetcher: the one thread-and-queue of (rows, cursor), behind `prefetch`, `buffer` and `map(workers=…)`.

Threads pull from upstream in turn, do their work on what they pulled, and queue it in the order in which it
was pulled, each block with the upstream's cursor right after it. The cursor of the whole is that of the last
block which was handed on: what is queued was never given to anyone, and comes again after a crash.

Nobody waits for a thread that is inside the user's code. The threads form a pool. A restore retires the pool: its
threads end as soon as they look, and a new pool begins where the restore says. The upstream is used by one thread at a
time, or by the consumer while no thread uses it. What the consumer wants of the upstream (restore, restore_arrivals,
close) is a request, carried out by whoever uses the upstream next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from unbounded.core.block import Block, Run
from unbounded.core.locked import locked
from unbounded.core.node import Cursor, EndOfStream, Node, Over
from unbounded.core.runtime import Runtime, Thread
from unbounded.core.turn import Turn

_SLICE = 0.05  # seconds: how often a thread that waits for data looks whether it is to stop
_GRACE = 0.2  # seconds: how long a restore waits for the upstream to come free before it leaves it to the threads
_JOIN = 1.0  # seconds: how long closing waits for a thread that sits in somebody else's code


Entry: TypeAlias = tuple[Any, Cursor, BaseException | None]
"""A block and the upstream's cursor after it; or an error, of the upstream (without a block) or of the work on
a block."""

_RETRY = RuntimeError("to be tried again")
_CLOSE = object()


class Prefetcher(Over):
    """A node that works ahead in threads of its own, until as much is queued as `room` says.

    Thread hand-overs cost tens of microseconds each: so what is queued is whatever blocks the upstream gives,
    and once the queue is full the threads sleep until half of it is gone.
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
        self._lock = runtime.lock()  # guards all below
        self._state = runtime.condition(self._lock)
        self._pool: object | None = None  # the pool whose threads go on; those of any other end
        self._user: int | None = None  # the thread that uses the upstream
        self._requests: dict[str, Callable[[], None]] = {}  # in the order in which they are carried out
        self._released: Cursor | None = None
        self._begin(upstream.cursor())

    def _begin(self, cursor: Cursor) -> None:
        self._pool = None
        self._cursor = cursor
        self._ready: dict[int, Entry] = {}
        self._pulled = 0  # blocks that threads have pulled
        self._given = 0  # blocks that were handed on
        self._ahead = 0  # what is queued, in the unit of `size`
        self._asleep = False
        self._over = False  # nothing more will be pulled: the end, or an error

    # -- what a kind of prefetcher decides -----------------------------------------------------------------------------

    def size(self, block: Block | Run) -> int:
        """How much of the room a block takes."""
        return 1

    def room(self) -> int:
        """How much may be queued: when it is reached, threads rest until half of it is gone."""
        return 2 * self._count

    def admit(self) -> None:
        """Called, with the lock held, when a block was pulled and is about to be queued."""

    # -- the consumer's side
    # -----------------------------------------------------------------------------------------

    def pull(self, timeout: float | None) -> Block | Run | None:
        """The next block that a thread has ready; waits for it, `timeout` seconds at most."""
        if self._pool is None:
            self._launch()
        if self._turn.is_due():
            return None
        entry = self._next(timeout)
        if entry is None:
            return None
        block, cursor, error = entry
        if error is not None:
            # The work failed before. It is done again in the consumer's own thread, and without the lock.
            assert self._work is not None
            block = self._work(block)
            self._hand_on(block, cursor)
        return block  # type: ignore[no-any-return]

    @locked
    def _next(self, timeout: float | None) -> Entry | None:
        """The next block, handed on unless its work must be done again; None where there is none in time."""
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
            # The upstream failed, and stands where it stood: it is asked again.
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
        """The upstream's, right after the last block that was handed on."""
        return self._cursor

    def restore(self, cursor: Cursor) -> None:
        """Throw away what is queued, and begin again from there."""
        self._request("restore", lambda: self._rewind(cursor), cursor)
        self._serve_now(_GRACE)

    def _rewind(self, cursor: Cursor) -> None:
        """Restore the upstream: called by the thread that uses it."""
        self._upstream.restore(cursor)

    @locked
    def _request(self, kind: str, action: Callable[[], None], cursor: Cursor | None = None) -> None:
        """Retire the pool, and have something done with the upstream before it is pulled again."""
        self._requests.pop(kind, None)  # a newer one takes its place, and is the last to be carried out
        self._requests[kind] = action
        self._begin(self._cursor if cursor is None else cursor)
        self._state.notify_all()

    @locked
    def release(self, cursor: Cursor) -> None:
        """Passed on by the thread that uses the upstream, before its next pull."""
        self._released = cursor

    def close(self) -> None:
        """End the threads and close the upstream; a thread that uses it still closes it when it leaves."""
        self._request("close", self._upstream.close)
        self._serve_now(_JOIN)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN)

    def _recall_inputs(self, arrivals: Sequence[Mapping[str, Any]]) -> None:
        self._request("restore_arrivals", lambda: self._upstream.restore_arrivals(*arrivals))
        self._serve_now(_GRACE)

    # -- who uses the upstream ---------------------------------------------------------------------------------------

    def _serve_now(self, timeout: float) -> None:
        """Do what was requested, if the upstream comes free in time; else its user does so when it leaves."""
        if self._occupy(timeout):
            try:
                self._serve()
            finally:
                # Were this line never reached, the upstream would still be taken for this thread's, which may
                # come again, and must before any other: what interrupted it begins with a restore.
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
        """Carry out the requests, oldest first. One that fails stays: without it, rows would come from elsewhere."""
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

    # -- the threads' side -------------------------------------------------------------------------------------------

    @locked
    def _launch(self) -> None:
        pool = object()
        self._threads = [t for t in self._threads if t.is_alive()]
        for _ in range(self._count):
            name = f"unbounded-{type(self).__name__.strip('_').removesuffix('Node').lower()}"
            thread = self._runtime.thread(lambda: self._run(pool), name)
            self._threads.append(thread)
            thread.start()
        # Last: where the launch was interrupted, threads that did start find that they are of no pool, and end.
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
        """Wait until there is room and the upstream is free, and use it; False when this thread is to end."""
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
        """Pull a block, with its number; None where there is none yet. Lets go of the upstream."""
        try:
            self._serve()
            # A thread of a retired pool carries out requests for those after it: what it pulled would be lost to them.
            entry = self._pull() if self._pool is pool else None
        except BaseException as error:
            entry = (None, self._cursor, error)
        while (made := self._settle(pool, entry)) is _CLOSE:
            self._serve()
        return made  # type: ignore[no-any-return]

    @locked
    def _settle(self, pool: object, entry: Entry | None) -> Any:
        """Let go of the upstream, and number what was pulled; `_CLOSE` where the upstream is to be closed first."""
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

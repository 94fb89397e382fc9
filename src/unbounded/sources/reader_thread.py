"""ReaderThread: a reader in a thread of its own: opened, read, woken, closed, and opened again after transient errors.

The thread makes all calls to the reader except `wake`, as the protocol demands. Subclasses take the rows: `Replayed`
queues them, `Logged` writes them to the row log.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from unbounded.core import user_code
from unbounded.core.block import Block
from unbounded.core.locked import locked
from unbounded.core.node import EndOfStream
from unbounded.core.runtime import Runtime
from unbounded.sources.as_block import AsBlock
from unbounded.sources.reader import JSON, Opening, Reader, Source, open_reader

_log = logging.getLogger("unbounded")

_SLICE = 0.05  # seconds: the timeout of reads without `wake`, after which the thread checks whether it is to stop
_LONG_SLICE = 1.0  # seconds: the timeout of reads with `wake`
_BACK_OFF = (0.1, 30.0)  # seconds: the first and the longest delay after a failure; it doubles each time
_JOIN = 1.0  # seconds: how long `close` waits for a thread that is inside the reader
# Not retried before the first successful read: the path is probably wrong.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class ReaderThread:
    """The thread side of a node over a reader. `_lock` guards what the thread and the node share.

    Args:
        source: the source.
        runtime: threads, locks and clock.
        as_block: makes blocks of what the reader returns.
    """

    def __init__(self, source: Source, runtime: Runtime, as_block: AsBlock) -> None:
        self._source = source
        self._runtime = runtime
        self._as_block = as_block
        self._transient = (OSError, *getattr(source, "transient", ()))
        self._lock = runtime.lock()
        self._state = runtime.condition(self._lock)
        self._thread: Any = None
        self._token: object | None = None  # identifies the current thread; any other thread ends
        self._reader: Reader | None = None
        self._generation = 0  # counts seeks: a block that was read before the last seek is dropped
        self._seek: JSON = None  # the position to seek to, now or after the next opening
        self._to_seek = False
        self._requests: deque[Callable[[Reader], None]] = deque()
        self._error: BaseException | None = None
        self._opening_position: JSON = None
        self._is_open = False
        self._retries = 0
        self._has_read = False
        self._failed = False  # True after the last reader has failed
        self._kept_in: Path | None = None  # the source's directory in the run's
        self._settle: Callable[[JSON], JSON] | None = None  # of the last reader, also after it was closed

    # -- overridden by subclasses --------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """True if more may be read; called with the lock held."""
        raise NotImplementedError

    def _accept(self, block: Block, position: JSON, generation: int) -> None:
        """Take a block, in the reader's thread, without the lock; `position` is the reader's position after it."""
        raise NotImplementedError

    def _opening(self) -> Opening:
        """The argument of the source's `open`; called with the lock held."""
        return Opening(runtime=self._runtime)

    def _wrapped(self, reader: Reader) -> Reader:
        """The reader, or a wrapper of it."""
        return reader

    def _reopened(self) -> None:
        """Called after a failed reader was opened again, in the reader's thread, without the lock."""

    def _after_read(self, reader: Reader, *, nothing: bool) -> None:
        """Called in the reader's thread after each read; `nothing` is True if it returned no rows."""

    # -- the thread's side ---------------------------------------------------------------------------------------------

    def _run(self, token: object) -> None:
        reader: Reader | None = None
        failures = 0
        try:
            while (turn := self._await_turn(token)) is not None:
                generation, seek, position = turn
                try:
                    if reader is None:
                        reader = self._open(token)
                        if self._failed:
                            self._failed = False
                            self._reopened()
                    elif seek:
                        user_code.call(reader.seek, position)
                    if self._requests:
                        self._carry_out(reader)
                        continue  # there may be no room for more rows
                    asked = self._runtime.monotonic()
                    rows = self._read(reader)
                    after = None if rows is None else self._ask_position(reader)
                except EndOfStream as end:
                    self._fail(token, end)
                    return
                except Exception as error:
                    self._abandon(reader)
                    reader, self._failed = None, True
                    if not self._passes(error):
                        self._fail(token, error)
                        return
                    failures += 1
                    self._back_off(token, error, failures)
                    continue
                if rows is None:
                    # `read` may return None before its timeout: wait for the rest of it here.
                    self._rest(token, generation, _SLICE - (self._runtime.monotonic() - asked))
                else:
                    failures = 0
                    self._has_read = True
                    self._accept(self._as_block(rows), after, generation)
                self._after_read(reader, nothing=rows is None)
            if reader is not None:
                self._carry_out(reader)  # such as the commit of a checkpoint that was saved before it was closed
        except BaseException as error:
            self._fail(token, error)
        finally:
            self._abandon(reader)

    @locked
    def _await_turn(self, token: object) -> tuple[int, bool, JSON] | None:
        """Wait until more may be read, or something is requested; return the generation, and whether and where to seek.
        None if this thread is to end."""
        while self._token is token and not (self._requests or self._has_room()):
            self._state.wait()
        if self._token is not token:
            return None
        seek, self._to_seek = self._to_seek, False
        return self._generation, seek, self._seek

    def _open(self, token: object) -> Reader:
        reader: Reader = user_code.call(open_reader, self._source, self._opening_now())
        try:
            reader = self._wrapped(reader)
            if self._kept_in is not None:
                _keep_in(reader, self._kept_in)
            if self._seek is not None and self._source.replayable:
                user_code.call(reader.seek, self._seek)
            position = self._ask_position(reader)
        except BaseException:
            self._abandon(reader)
            raise
        self._opened(token, reader, position)
        return reader

    @locked
    def _opening_now(self) -> Opening:
        return self._opening()

    @locked
    def _opened(self, token: object, reader: Reader, position: JSON) -> None:
        if self._token is token:
            self._reader = reader
            self._settle = getattr(reader, "settled", None)
        if not self._is_open:
            self._opening_position, self._is_open = position, True
            if self._seek is None:
                # Kept from now on: after a failure, an opening position such as "the newest row" would be another one.
                self._seek = position
            self._state.notify_all()

    def _ask_position(self, reader: Reader) -> JSON:
        return user_code.call(reader.position)

    def _read(self, reader: Reader) -> Any:
        return user_code.call(reader.read, _LONG_SLICE if hasattr(reader, "wake") else _SLICE)

    def _carry_out(self, reader: Reader) -> None:
        while (request := self._next_request()) is not None:
            request(reader)

    @locked
    def _next_request(self) -> Callable[[Reader], None] | None:
        return self._requests.popleft() if self._requests else None

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, _LASTING) and not self._has_read:
            return False
        return isinstance(error, self._transient)

    def _back_off(self, token: object, error: Exception, failures: int) -> None:
        self._retries += 1
        first, most = _BACK_OFF
        seconds = min(most, first * 2 ** (failures - 1))
        if failures == 1:
            _log.warning(
                "%s failed: %s: %s. It is opened again, the first time after %.1f s, until it works.",
                self._as_block.name,
                type(error).__name__,
                error,
                seconds,
            )
        self._rest(token, None, seconds)

    def _rest(self, token: object, generation: int | None, seconds: float) -> None:
        if seconds > 0:
            self._wait(token, generation, seconds)

    @locked
    def _wait(self, token: object, generation: int | None, seconds: float) -> None:
        self._state.wait_for(
            lambda: self._token is not token or self._requests or generation not in (None, self._generation), seconds
        )

    def _abandon(self, reader: Reader | None) -> None:
        """Close the reader, ignoring its errors: an earlier error matters more."""
        self._forget_reader()
        if reader is not None:
            with suppress(Exception):
                user_code.call(reader.close)

    @locked
    def _forget_reader(self) -> None:
        self._reader = None

    @locked
    def _fail(self, token: object, error: BaseException) -> None:
        if self._token is token:
            self._error = error
            self._state.notify_all()

    # -- the node's side -----------------------------------------------------------------------------------------------

    @locked
    def _launch(self) -> None:
        """Start the thread, unless it runs."""
        if self._token is not None:
            return
        token = object()
        self._error = None
        self._thread = self._runtime.thread(lambda: self._run(token), name="unbounded-reader")
        self._thread.start()
        # Last: if the launch is interrupted, a thread that did start finds that its token is not current, and ends. It
        # checks with the lock held, which this thread holds until then.
        self._token = token

    def await_open(self) -> bool:
        """Open the source if it is not open, and wait briefly; return True if it is open.

        Raises:
            Exception: any error of the source.
        """
        self._launch()
        return self._await_opening()

    @locked
    def _await_opening(self) -> bool:
        self._state.wait_for(lambda: self._is_open or self._error is not None, _SLICE)
        if not self._is_open:
            error = self._taken_error()
            if error is not None:
                raise error
        return self._is_open

    def keep_in(self, directory: Path) -> None:
        """Let the reader keep what it can make again in a directory, unless it has one already."""
        if self._kept_in is None:
            self._request(lambda reader: _keep_in(reader, directory))
            self._kept_in = directory

    @property
    def opening_position(self) -> JSON:
        """The position at which the source begins; None before it is open."""
        return self._opening_position

    def _taken_error(self) -> BaseException | None:
        """The error that ended the thread, so that the next pull starts a new one and retries. The declared end is
        final. Called with the lock held."""
        error = self._error
        if error is not None and not isinstance(error, EndOfStream):
            # In this order: if interrupted in between, the next pull still starts a thread.
            self._token = None
            self._error = None
        return error

    def _go_to(self, position: JSON) -> None:
        """Seek to another position; called with the lock held."""
        self._generation += 1
        self._seek, self._to_seek = position, True
        if isinstance(self._error, EndOfStream):
            self._token = None  # the thread has ended at the declared end
            self._error = None
        self._wake()

    @locked
    def _request(self, action: Callable[[Reader], None]) -> None:
        """Run an action on the reader in its thread, between two reads."""
        self._requests.append(action)
        self._wake()

    def _wake(self) -> None:
        """Wake the thread, whatever it waits for; called with the lock held."""
        self._state.notify_all()
        wake = getattr(self._reader, "wake", None)
        if wake is not None:
            with suppress(Exception):
                wake()

    def _stop(self) -> None:
        """End the thread; one inside the reader ends when it leaves."""
        self._retire()
        thread = self._thread
        if thread is not None and thread.ident is not None:
            thread.join(_JOIN)

    @locked
    def _retire(self) -> None:
        self._token = None
        self._wake()


def _keep_in(reader: Reader, directory: Path) -> None:
    if hasattr(reader, "keep_in"):
        user_code.call(reader.keep_in, directory)

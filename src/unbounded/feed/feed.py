"""Feed: batches of a stream for one trainer, which tells which of them it was trained on.

A feed counts the batches that it handed out, and those that the trainer confirmed. Its position is that of the first
batch that was not trained on; batches that were handed out and not confirmed are in doubt, and come again after a
restart.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unbounded import torch
from unbounded.core import show, trees
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.node import Cursor
from unbounded.core.pages import join_pages, split_pages
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.core.words import FEED, checked, unknown
from unbounded.feed import describe, sharing, validate
from unbounded.feed.delivery import OnNan
from unbounded.feed.epoch import Epoch
from unbounded.feed.excluded import plain, record_of
from unbounded.feed.in_flight import Count
from unbounded.feed.loops import Loops
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee
from unbounded.store.manifest import CheckpointError
from unbounded.stream import Stream

_log = logging.getLogger("unbounded")

FORMAT = 1


class Feed(Loops):
    """Batches for one trainer, and the count of those that were trained on.

    Requesting the next batch, or the end of the epoch, confirms the previous batch as trained on. If that is wrong
    (gradients are accumulated over several batches), use `confirm="manual"` and call `trained()`.

    Args:
        stream: the stream. Columns of text, times and objects are handed out as they are.
        epoch: the length of an epoch. None leaves it to the trainer.
        require: the weakest acceptable guarantee: "exact", "at_least_once" or "at_most_once".
        confirm: "auto" or "manual".
        on_nan: "raise" refuses a batch with a NaN or an infinity; "pass" hands it out, and counts its bad rows; "skip"
            leaves such rows out before `batch`, counts them, and warns of the first (`NonFiniteRows`): batches keep
            their size. Values that a function makes non-finite after `batch` are refused. A run that "raise" has ended
            can be resumed with "skip".
        runtime: clock, threads and files; tests pass one whose clock they move.

    Raises:
        ValueError: the stream's guarantee is weaker than required, or the epoch counts passes and the stream has none.

    >>> import numpy as np, unbounded as ub
    >>> feed = ub.Feed(ub.from_arrays(np.arange(10), shuffle=False).batch(4), epoch=ub.Epoch(steps=2))
    >>> for epoch in feed.epochs(2):
    ...     for batch in epoch:
    ...         print(epoch.number, batch)
    0 [0 1 2 3]
    0 [4 5 6 7]
    1 [8 9 0 1]
    1 [2 3 4 5]
    >>> print(feed.position)
    pass 2, row 6 of 10
    >>> feed.close()
    """

    @checked(
        "ub.Feed(stream, epoch=…)",
        "Only the stream is given by its place: ub.Feed(stream, epoch=ub.Epoch(steps=1000)).",
    )
    def __init__(
        self,
        stream: Stream,
        *,
        epoch: Epoch | None = None,
        require: Guarantee | None = None,
        confirm: Literal["auto", "manual"] = "auto",
        on_nan: OnNan = "raise",
        runtime: Runtime = SYSTEM,
    ) -> None:
        if not isinstance(stream, Stream):
            raise TypeError(
                f"Feed() was given {type(stream).__name__}. Expected a stream, such as ub.from_arrays(…).batch(32)."
            )
        if confirm not in ("auto", "manual"):
            raise ValueError(f"Feed(confirm={confirm!r}): expected 'auto' or 'manual'.")
        if on_nan not in ("raise", "pass", "skip"):
            raise ValueError(f"Feed(on_nan={on_nan!r}): expected 'raise', 'pass' or 'skip'.")
        if require is not None and require not in WEAKEST_FIRST:
            raise ValueError(
                f"Feed(require={require!r}): expected {', '.join(map(repr, WEAKEST_FIRST))}, or None for whatever the "
                "stream promises."
            )
        if not isinstance(runtime, Runtime):
            raise TypeError(f"Feed(runtime={runtime!r}): expected a runtime, such as ub.testing.Clock().")
        if require is not None and WEAKEST_FIRST.index(stream.guarantee) < WEAKEST_FIRST.index(require):
            raise ValueError(
                f"Feed(require={require!r}): the stream promises {stream.guarantee!r}. "
                f"{describe.weakest(stream)} Choose a replayable source, or require less."
            )
        self._as_given = stream  # without the stage that leaves out non-finite rows
        if on_nan == "skip":
            stream = validate.skipping(stream)
        stream.check_gives_rows()
        torch.register(Feed)
        super().__init__(stream, epoch, confirm, on_nan, runtime)
        if stream.batch_size is None and stream.repeats and stream.sources[0].rows_per_pass() is not None:
            _log.warning(
                "%r has no .batch(): each batch is a block of rows as the source hands them out, some thousand rows. "
                ".batch(n) makes batches of one size.",
                stream,
            )
        self.directories: Any = None  # where it is saved and loaded, once it is: `directories.Directories`
        # Closes the nodes of a feed that was garbage-collected. In a thread of its own: the collector may run at any
        # line, in a thread that holds a lock that closing takes.
        self._dropped = weakref.finalize(self, runtime.detach, self._opened.close)
        self._dropped.atexit = False  # its threads are daemons
        sharing.opened(self)

    def sharing(self) -> list[Feed]:
        """The other open feeds that read the same function that can't seek: each calls it anew, and if all calls read
        from one queue, each feed gets a part of the rows only.

        >>> import numpy as np, unbounded as ub
        >>> def sensor():
        ...     while True:
        ...         yield np.zeros(8)
        >>> stream = ub.from_generator(sensor).batch(4)
        >>> with ub.Feed(stream) as training, ub.Feed(stream) as validation:
        ...     validation.sharing() == [training]
        True
        """
        return sharing.others(self)

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The position of training, as plain data: dicts, lists, numbers and strings.

        It contains the rows of sources that can't seek that were read and not trained on. Inside a loop over the feed
        itself (`for batch in feed`) that has a length, the call confirms the current batch as trained on, as with the
        data loaders of torch, Lightning and Accelerate.
        """
        from unbounded.feed import snapshot

        loop = self._loop
        if loop is not None and loop.whole_epoch and loop.state == "live" and self._auto and self.length is not None:
            # Without a length, a trainer requests one batch ahead to detect the end: that one is not trained on.
            self.trained()
        arrivals = to_plain(self._opened.arrivals.state())
        return {**self.plain_state(), "arrivals": arrivals, "rows": to_plain(snapshot.rows_of(self))}

    def plain_state(self, pages: dict[str, Tree] | None = None) -> dict[str, Any]:
        """`state_dict` without the content of the logs: rows of sources that can't seek, and decisions that depended on
        arrival.

        Args:
            pages: receives the pages of keyed stages by id, to which the state then refers; None leaves them in the
                state.
        """
        self.check_usable()
        self._count_bad()
        cursor = self._cursor()
        if pages is not None:
            cursor, found = split_pages(cursor)
            pages.update(found)
        return {
            "format": FORMAT,
            "fingerprint": self.stream.fingerprint,
            "stream": to_plain(self.stream.identity()),
            "position": to_plain(cursor),
            "count": self.count.state(),
            "epoch": self.progress.state(),
            "counters": self.counters.state(),
            "on_nan": self.on_nan,
            **({"excluded": self.excluded} if self.excluded else {}),
        }

    def rows_at(self, step: int, *, source: str | None = None) -> NDArray[np.int64]:
        """The rows of a source that batch number `step` has: see `Stream.rows_at`."""
        return self.stream.rows_at(step, source=source)

    def load_state_dict(self, state: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Restore a position: the next batch is the first that was not trained on then.

        Args:
            state: a result of `state_dict`, also after a conversion to JSON and back.
            accept_changes: True to resume although the state belongs to a different stream.

        Raises:
            ValueError: the state has a newer format, or belongs to another stream.
        """
        self.check_usable()
        describe.check_whole(state)
        self.restore_state(state, from_plain(state.get("rows", {})), accept_changes=accept_changes)

    get_state = state_dict
    """`state_dict` under the name that Grain's iterators use."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """`load_state_dict` under the name that Grain's iterators use."""
        self.load_state_dict(state)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A feed can't be copied or sent to another process: it has threads, and a batch can be trained on by one "
            "trainer only. Send the stream, and make a feed of it there; with a DataLoader, use num_workers=0: "
            ".prefetch(n) and .map(fn, workers=n) work ahead in threads."
        )

    def restore_state(
        self,
        state: Mapping[str, Any],
        rows: Mapping[str, Any],
        *,
        decided: Callable[[], None] | None = None,
        load_page: Callable[[str], Tree] | None = None,
        accept_changes: bool = False,
    ) -> None:
        """`load_state_dict`, with the rows of sources that can't seek as an argument, by source name.

        Args:
            decided: restores the arrival log; None if its content is in the state.
            load_page: returns the pages to which the state refers, by id; None if they are in the state.
        """
        from unbounded.feed import snapshot

        self.check_usable()
        # on_nan="raise" has let no bad row pass: leaving bad rows out changes nothing up to that position.
        stream = self._as_given if self.on_nan == "skip" and _was_raising(state) else self.stream
        describe.check_state(stream, state, FORMAT, accept_changes=accept_changes)
        cursor = from_plain(state["position"])
        if load_page is not None:
            cursor = join_pages(cursor, load_page)
        try:
            if decided is None:
                self._opened.arrivals.restore(from_plain(state["arrivals"]))
            else:
                decided()
            snapshot.put_rows(self, rows)
            self.go_to(state, cursor)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The state's position does not fit {self.stream!r}: it is of a stream with other stages or another "
                "kind of source. Begin a new run, in another directory."
            ) from error

    def go_to(self, state: Mapping[str, Any], cursor: Cursor) -> None:
        """Restore a position of this feed, from which its sources can read on."""
        self._begin()
        for rows in self._opened.new_rows:
            rows.forget_all()
        self._reader.restore(cursor, Count.of(state["count"]))
        self._handed = self._fetched = self._trained = self._since = self.count.steps
        self.progress.restore(state["epoch"])
        self.excluded = record_of(state, self._trained, plain(self._excluded))
        self.counters.begin(state["counters"])

    @checked("feed.save(directory, state=…)", "The state is named: feed.save(directory, state={'model': …}).")
    def save(self, directory: Any, *, state: Tree = None, keep: int = 3, wait: bool = True, local: Any = None) -> Any:
        """Write a checkpoint: the position and `state`, in one atomic cut.

        After an error of the source or of a function in the stream, all earlier batches are trained on and confirmed:
        `except Exception: feed.save(…); raise` around the loop saves all of that training. After an error in the loop's
        body its batch is not confirmed: call `feed.trained()` or `feed.rewind()` first.

        Args:
            directory: the directory of this run's checkpoints, and of no other run's: a path, or a URL that fsspec
                knows ("s3://bucket/run"; extra `remote`). Checkpoints of another run there are neither superseded nor
                removed.
            state: what else is to be saved at this moment, such as the `state_dict()` of model and optimizer: dicts,
                lists and tuples of arrays (NumPy, JAX, PyTorch) and plain data.
            keep: how many checkpoints of this run to keep, the newest.
            wait: True returns when the checkpoint is on the disk. False copies `state` now, and writes it in a thread
                while training goes on. The copy takes as much memory as `state`; the next copy reuses it. One
                checkpoint is written at a time: the next call waits for the last one.
            local: for a URL, a directory on this machine for the logs of sources that can't seek, which are copied to
                the URL with each checkpoint, and fetched from it if they are missing; None for one under
                `~/.cache/unbounded` (`XDG_CACHE_HOME`) that depends on the URL.

        Returns:
            The new checkpoint's path. With `wait=False` a `Pending`, whose `wait()` returns the path.

        Raises:
            StreamError: a batch was handed out and not confirmed: whether `state` has its update is unknown.
            CheckpointError: it could not be written, or the newest checkpoint there is of a run that this one did not
                resume; earlier checkpoints are unchanged. A failure in the thread of `wait=False` is raised by the next
                `save`, `load` or `close`.
            ValueError: the directory is a URL, and fsspec is not installed or does not know its scheme.
        """
        from unbounded.feed import directories

        return directories.save(self, directory, state, keep, wait=wait, local=local)

    @checked("feed.load(directory)")
    def load(self, directory: Any, *, accept_changes: bool = False, local: Any = None) -> Any:
        """Restore the position of the newest checkpoint in `directory`, and return its `state`; None if there is no
        checkpoint.

        >>> import tempfile, numpy as np, unbounded as ub
        >>> stream = ub.from_arrays(np.arange(100)).batch(8)
        >>> folder = tempfile.mkdtemp()
        >>> with ub.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     for epoch in feed.epochs(1):
        ...         seen = len(list(epoch))
        ...     path = feed.save(folder, state={"weights": np.zeros(3)})
        >>> with ub.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     state = feed.load(folder)
        ...     print(feed.steps, state["weights"])
        5 [0. 0. 0.]
        """
        from unbounded.feed import directories

        return directories.load_newest(self, directory, accept_changes=accept_changes, local=local)

    # -- closing and display -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for the checkpoint that is being written, then end the threads and close the sources. A second call does
        nothing.

        Raises:
            CheckpointError: a checkpoint of `save(…, wait=False)` could not be written. The feed is closed
                nevertheless.
        """
        if not self._closed:
            try:
                self.writer.finish()  # it reads from the source
            finally:
                self._close()

    def _close(self) -> None:
        self._last_counts = self._opened.top.counts()
        self._closed = True
        sharing.closed(self)
        self._loop = None
        self._sure = 0
        self._dropped.detach()
        self._opened.close()
        if self._weights is not None:
            self._weights.close()
        if self.directories is not None:
            self.directories.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CheckpointError as failure:
            if error is None:
                raise
            # What ends the block matters more than what could not be written.
            _log.error("%s", failure)

    def __array__(self, *args: Any, **given: Any) -> Any:
        # Keras's fit asks whatever it does not know for an array.
        raise TypeError(
            "This feed is for a loop of your own. Keras takes one of its kind: "
            "model.fit(ub.keras.Feed(stream, ub.Epoch(steps=1000)))."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"Feed has no {name!r}.", name=name, obj=self)
        text = unknown("Feed", name, FEED, dir(type(self)))
        if name not in FEED and hasattr(Stream, name):
            text = f"Feed has no {name!r}. That belongs to the stream: write it before the feed is made."
        raise AttributeError(text, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<Feed of {self.stream!r}: {'closed' if self._closed else self.position}>"

    def _repr_html_(self) -> str:
        stats, length = self.stats, self.length
        epoch = "none" if self.epoch is None else f"{self.epoch!r}"
        figures = [
            ("feed", "closed" if self._closed else f"at {self.position}"),
            ("epoch", f"{epoch}, number {self.epoch_number}" + ("" if length is None else f", {length:,} batches")),
            ("trained", str(stats)),
            ("out, not confirmed", f"{self.outstanding:,} batches"),
            ("waited", f"{stats.waiting:.0%} of the time" + (f". {self.waiting_for}" if self.waiting_for else "")),
        ]
        if self._reader.flights:
            size = sum(trees.row_bytes(flight.run.items[0]) * flight.run.total for flight in self._reader.flights)
            figures.append(
                ("at hand", f"{sum(flight.run.count for flight in self._reader.flights):,} batches, {show.size(size)}")
            )
        return show.feed(figures, self.stream._repr_html_())


def _was_raising(state: Any) -> bool:
    """Whether a state is of a feed that refused batches with a NaN."""
    return isinstance(state, Mapping) and state.get("on_nan") == "raise"

"""Feed: a stream at work for one trainer. It hands out batches, and knows which of them were trained on.

Two step numbers say it all: up to which batch it handed out, and up to which the trainer says that it
trained. A position is where the second one points; what lies between the two is in doubt, and comes again
after a restart.
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
from unbounded.core.input_buffer import addresses
from unbounded.core.node import Cursor
from unbounded.core.pages import join_pages, split_pages
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.core.trees import Tree
from unbounded.core.words import FEED, checked, unknown
from unbounded.feed import describe, sharing, validate
from unbounded.feed.at_hand import OnNan
from unbounded.feed.epoch import Epoch
from unbounded.feed.excluded import plain, record_of
from unbounded.feed.in_flight import Count
from unbounded.feed.loops import Loops
from unbounded.stages.stage import WEAKEST_FIRST, Guarantee
from unbounded.store.manifest import CheckpointError
from unbounded.store.writer import Writer
from unbounded.stream import Stream

_log = logging.getLogger("unbounded")

FORMAT = 1


class Feed(Loops):
    """Batches for one trainer, and the knowledge of which of them were trained on.

    Asking for the next batch, or ending the epoch, says that the previous batch is trained. Where that is not
    so (gradients that are accumulated over several batches), `confirm="manual"` leaves saying it to
    `trained()`.

    Args:
        stream: what to feed. Columns of text are handed out as they are; Python objects are refused at the first
            batch.
        epoch: how much progress an epoch is. None leaves it to a trainer that knows.
        require: the weakest guarantee that will do: "exact", "at_least_once" or "at_most_once".
        confirm: "auto" or "manual".
        on_nan: "raise" refuses a batch with a NaN or an infinity in it; "pass" hands it out, and counts its bad
            rows; "skip" leaves such rows out right before `batch`, counts them, and warns of the first
            (`NonFiniteRows`): batches keep their size. What a function makes non-finite after `batch` is refused. A
            run that "raise" ended goes on with "skip" from its checkpoint.
        runtime: the time and the rest; tests pass one whose clock they move.

    Raises:
        ValueError: where the stream promises less than is required, or has no passes and the epoch counts
            them.

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
                f"{describe.weakest(stream)} Choose a source that can go back, or require less."
            )
        self._as_given = stream  # without the stage that leaves rows out
        if on_nan == "skip":
            stream = validate.skipping(stream)
        stream.check_gives_rows()
        torch.register(Feed)
        super().__init__(stream, epoch, confirm, on_nan, runtime)
        if stream.batch_size is None and stream.repeats:
            _log.warning(
                "%r has no .batch(): each batch is a block of rows as the source hands them out, some thousand rows. "
                ".batch(n) makes batches of one size.",
                stream,
            )
        self.directories: Any = None  # where it is saved and loaded, once it is: `directories.Directories`
        self.writer = Writer(runtime)
        """Writes its checkpoints, one at a time."""
        # Closes the nodes of a feed that was garbage-collected. In a thread of its own: the collector may run at any
        # line, in a thread that holds a lock that closing takes.
        self._dropped = weakref.finalize(self, runtime.detach, self._top.close)
        self._dropped.atexit = False  # then its threads end anyway
        sharing.opened(self)

    def sharing(self) -> list[Feed]:
        """The other open feeds that read the same function, of those that can't go back: each calls it anew, and where
        both calls draw from one queue, each feed gets a part of its rows only.

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
        """Where training stands, as plain data: dicts, lists, numbers and strings.

        Of a source that can't go back, the rows that were read and not trained on are in it. In the body of a loop
        over the feed itself (`for batch in feed`) that has a length, asking for it says that the batch at hand is
        trained, as the data loaders of torch, Lightning and Accelerate have it.
        """
        from unbounded.feed import snapshot

        loop = self._loop
        if loop is not None and loop.whole_epoch and loop.state == "live" and self._auto and self.length is not None:
            # Without a length, a trainer takes one batch ahead to see the end coming: that one is not trained.
            self.trained()
        return {**self.plain_state(), "rows": to_plain(snapshot.rows_of(self))}

    def plain_state(self, pages: dict[str, Tree] | None = None) -> dict[str, Any]:
        """`state_dict` without the rows of sources that can't go back.

        Args:
            pages: is filled with the pages of keyed stages, by their ids, and the state refers to them; None leaves
                them in it.
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
            "on_nan": self._on_nan,
            **({"excluded": self.excluded} if self.excluded else {}),
            "arrivals": to_plain(self._top.arrivals()),
        }

    def rows_at(self, step: int, *, source: str | None = None) -> NDArray[np.int64]:
        """Which rows of a source batch number `step` has: see `Stream.rows_at`."""
        return self.stream.rows_at(step, source=source)

    def load_state_dict(self, state: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Go to where `state_dict` was taken: the next batch is the first that had not been trained on then.

        Args:
            state: what `state_dict` gave, or what JSON made of it.
            accept_changes: go on though the stream is not the one that the state is of.

        Raises:
            ValueError: for a newer format, or the state of another stream.
        """
        self.check_usable()
        describe.check_whole(state)
        self.restore_state(state, from_plain(state.get("rows", {})), accept_changes=accept_changes)

    get_state = state_dict
    """The same under the name that Grain's iterators have."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """`load_state_dict` under the name that Grain's iterators have."""
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
        load_page: Callable[[str], Tree] | None = None,
        accept_changes: bool = False,
    ) -> None:
        """`load_state_dict`, with the rows of sources that can't go back beside it: by the source's name.

        Args:
            load_page: gives the pages that the state refers to; None where they are in it.
        """
        from unbounded.feed import snapshot

        self.check_usable()
        # Up to where on_nan="raise" had come each row was finite: leaving out others changes none of them.
        stream = self._as_given if self._on_nan == "skip" and _was_raising(state) else self.stream
        describe.check_state(stream, state, FORMAT, accept_changes=accept_changes)
        cursor = from_plain(state["position"])
        if load_page is not None:
            cursor = join_pages(cursor, load_page)
        try:
            self._top.restore_arrivals(from_plain(state["arrivals"]))
            snapshot.put_rows(self, rows)
            self.go_to(state, cursor)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The state's position does not fit {self.stream!r}: it is of a stream with other stages or another "
                "kind of source. Begin a new run, in another directory."
            ) from error

    def go_to(self, state: Mapping[str, Any], cursor: Cursor) -> None:
        """Go to a position of this very feed, whose source still has, or can read again, what follows."""
        self._begin()
        for rows in self._opened.new_rows:
            rows.forget_all()
        self._held.restore(*addresses(cursor))
        self._tail = Count.of(state["count"])
        self._handed = self._fetched = self._trained = self._since = self._tail.steps
        self.progress.restore(state["epoch"])
        self.excluded = record_of(state, self._tail.steps, plain(self._excluded))
        self.counters.begin(state["counters"])

    @checked("feed.save(directory, state=…)", "The state is named: feed.save(directory, state={'model': …}).")
    def save(self, directory: Any, *, state: Tree = None, keep: int = 3, wait: bool = True, local: Any = None) -> Any:
        """Write a checkpoint: the position and `state`, in one atomic cut.

        After an error of the source, or of a function in the stream, all batches that came before it are trained and
        confirmed: `except Exception: feed.save(…); raise` around the loop loses none of that training. After an error
        in the loop's own body its batch is still out: say `feed.trained()` or `feed.rewind()` first.

        Args:
            directory: where this run's checkpoints are, and no other run's: a path, or a URL that fsspec knows
                ("s3://bucket/run"; extra `remote`). What another run wrote there is neither superseded nor removed.
            state: what else belongs to the moment, such as the model's and the optimizer's `state_dict()`:
                dicts, lists and tuples of arrays (NumPy's, JAX's, PyTorch's) and plain data.
            keep: how many checkpoints of this run are kept, the newest.
            wait: True returns when the checkpoint is on the disk. False copies `state` as it is now, and writes it in a
                thread while training goes on; the copy takes as much memory as `state`, and the next one its place.
                One checkpoint is written at a time: the next call waits for the one before.
            local: for a URL, a directory on this machine for the logs of a source that can't go back, which are copied
                to the URL with each checkpoint, and fetched from it where they are missing; None for one under
                `~/.cache/unbounded` (`XDG_CACHE_HOME`), which the URL decides.

        Returns:
            The new checkpoint's path. With `wait=False` a `Pending`, whose `wait()` gives it.

        Raises:
            StreamError: while a batch is out and not confirmed: whether its update is in `state` can't be
                known.
            CheckpointError: it could not be written, or the newest checkpoint there is of a run that this one did not
                go on from; what was there is still there, whole.
                What went wrong in the thread of `wait=False` is raised by the next `save`, `load` or `close`.
            ValueError: the directory is a URL, and fsspec is not installed or does not know its scheme.
        """
        from unbounded.feed import directories

        return directories.save(self, directory, state, keep, wait=wait, local=local)

    @checked("feed.load(directory)")
    def load(self, directory: Any, *, accept_changes: bool = False, local: Any = None) -> Any:
        """Go to where the newest checkpoint in `directory` was saved, and give its `state`; None where there
        is none.

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

    # -- the end, and how it is shown --------------------------------------------------------------------------------

    def close(self) -> None:
        """End its threads and let go of the source, after the checkpoint that is being written. A second time does
        nothing.

        Raises:
            CheckpointError: a checkpoint that `save(…, wait=False)` left to a thread could not be written. The feed is
                closed all the same.
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
        self._top.close()
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
        if self._flights:
            size = sum(trees.row_bytes(flight.run.items[0]) * flight.run.total for flight in self._flights)
            figures.append(
                ("at hand", f"{sum(flight.run.count for flight in self._flights):,} batches, {show.size(size)}")
            )
        return show.feed(figures, self.stream._repr_html_())


def _was_raising(state: Any) -> bool:
    """Whether a state is of a feed that refused batches with a NaN."""
    return isinstance(state, Mapping) and state.get("on_nan") == "raise"

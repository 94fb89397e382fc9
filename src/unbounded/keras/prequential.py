"""Prequential: a Keras callback that tests each new row before it is trained on (Dawid 1984; Gama, Sebastião, Rodrigues
2013, "On evaluating stream learning algorithms").

A row is tested right before the first step whose batches may contain it, with the weights after the step before. That
step follows from the stream alone: each batch has the number of source rows that had been read when its rows' places
were final (`Block.seen`); rows up to there that were not tested yet are tested then, in order, in chunks. So
predictions do not depend on how far a prefetch thread has read ahead, and a run that was killed and resumed has the
same predictions as one that was not: its state is a few numbers besides the metrics.

Rows come from a tap in the stream (`unbounded.stages.tap`), and are predicted in the training thread, by the model's
public methods, in `on_train_batch_begin`: at that event the model has its variables on each backend. How they are
predicted and judged is in `_row_tests.py`; this file decides when.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from unbounded.core import check
from unbounded.core.trees import Tree
from unbounded.core.warn import warn
from unbounded.keras import _metrics
from unbounded.keras._fit import Fit
from unbounded.keras._keras_feed import Feed
from unbounded.keras._row_tests import Results, tests_of
from unbounded.keras._running import Running
from unbounded.store.paths import local_path
from unbounded.store.table import Table

_CHUNK = 32

OnPredictions = Callable[[Any, Tree, Tree], object]


class Prequential(keras.callbacks.Callback):  # type: ignore[misc]
    """Tests each new row of a feed before it is trained on.

    The rows are those of the stream before `shuffle` and `replay`: each is tested once, in order of arrival, changed by
    the later stages that change single rows. Random changes (`random_map`) are left out, and a function after `batch`
    receives chunks of rows in place of batches. Rows that `exclude` names are not tested.

    At the end of each epoch the metrics are in its logs, for `History` and other callbacks: `prequential_mae` over all
    rows that were tested, and `prequential_mae_last` over the newest `last` of them.

    With `Checkpoint` in the same `fit`, each row tested is in `prequential.npy` in its directory, which `numpy.load`
    reads: columns `row` (its number in the source, from 0), `step` (steps trained before it was tested), `prediction`
    and `target`, as in `prediction.a` for a model with several outputs. A resume truncates it to the checkpoint. For a
    remote directory there is none, unless `table` is a path.

    Of rows that wait for their labels in a `join`, each is predicted when it comes, and judged when its label comes:
    then it counts in the metrics and is written, with another column `judged` (steps trained before that). A row
    without a label is not judged; `unlabelled` counts those that were given up. Rows are numbered as they come to the
    join.

    Args:
        feed: the feed that `fit` trains on. Make the callback before its first batch is read; otherwise that is read
            again.
        metrics: Keras metrics, their names, or functions of targets and predictions that return one number for each
            row; for a model with several outputs a dict of such lists, by output. Each gets the targets of rows, the
            predictions, and the weights if the batches have some. Metrics of their own: not those of `compile`.
        last: the number of newest rows for the second result of each metric.
        source: for a feed over a mix, the name of the input stream whose rows are tested; for a join in it, that
            of its rows.
        on_predictions: called with the numbers of rows (int64, [rows]), the rows before `shuffle` and `replay`, and
            their predictions.
        prepare: converts rows at that place to the form of batches, instead of the stages after it: for streams with
            other stages there.
        table: True to write the rows tested; or the path of the file, also for a `fit` without `Checkpoint`. If a new
            run finds rows of another one there, it renames that file.
        chunk: the most rows predicted at once; None for the size of a batch. Smaller chunks are padded to a power of
            two.

    Rows that the feed refuses or leaves out, since they are not finite (`on_nan`), are not tested.

    Raises:
        ValueError: what a metric means is not clear; or a stage after `shuffle`, `replay` or a mix makes rows that are
            not known before they come out.

    Example:
        >>> import keras, numpy as np, unbounded as ub
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> x = np.random.default_rng(0).random((100, 3), "float32")
        >>> stream = ub.from_arrays((x, x.sum(1, keepdims=True))).shuffle(50).batch(10)
        >>> with ub.keras.Feed(stream, epoch=ub.Epoch(steps=10)) as feed:
        ...     tested = ub.keras.Prequential(feed, metrics=["mae"], last=20)
        ...     history = model.fit(feed, epochs=2, verbose=0, callbacks=[tested])
        ...     print(tested.rows, sorted(name for name in history.history if "mae" in name))
        200 ['prequential_mae', 'prequential_mae_last']
    """

    def __init__(
        self,
        feed: Feed,
        metrics: Sequence[Any] | Mapping[Any, Any] = (),
        *,
        last: int = 1000,
        source: str | None = None,
        on_predictions: OnPredictions | None = None,
        prepare: Callable[[Tree], Tree] | None = None,
        table: bool | str | os.PathLike[str] = True,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(feed, Feed):
            raise TypeError(f"Prequential() was given {type(feed).__name__}. Expected the ub.keras.Feed of fit.")
        if not isinstance(table, bool | str | os.PathLike) or table == "":
            raise TypeError(f"Prequential(table={table!r}): expected True, False, or the path of a file.")
        self._feed = feed
        self._results = Results(Running(metrics, check.positive(last, "Prequential(last=n)")), on_predictions)
        chunk = feed.stream.batch_size or _CHUNK if chunk is None else chunk
        self._tests = tests_of(feed.core, source, prepare, self._results, check.positive(chunk, "Prequential(chunk=n)"))
        self._wanted_table = table if isinstance(table, bool) else local_path(table)
        # The rows that batches before this one may contain were tested, or are not to be.
        self._tested_before = 0
        self._has_begun = False  # True once a step was announced in the current fit
        self._base = 0  # steps trained before the epoch from which Keras counts its steps

    # -- the user's methods ------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """The number of rows tested; for a join, of those whose labels have come."""
        return self._results.running.rows

    @property
    def waiting(self) -> int:
        """For a join, the number of rows that were predicted and whose labels may still come."""
        return self._tests.waiting

    @property
    def unlabelled(self) -> int:
        """For a join, the number of rows that were predicted and got no label in time, or were left out later."""
        return self._tests.unlabelled

    def results(self) -> dict[str, float]:
        """The metrics over all rows tested, and over the last ones, under their names in the logs."""
        return {f"prequential_{name}": value for name, value in self._results.running.results().items()}

    # -- callback events ---------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """A `fit` begins."""
        fit = self._feed.fit
        if fit is None or not fit.is_of(self.model):
            raise ValueError(
                "Prequential(feed) and fit were given different feeds. Give both the same: model.fit(feed, "
                "callbacks=[ub.keras.Prequential(feed, …)])."
            )
        if fit.in_threads:
            raise ValueError(
                "A strategy of TensorFlow's takes batches in threads, ahead of what is trained: which weights a row "
                "would be tested with can't be known. Train without a strategy, or without Prequential."
            )
        _metrics.refuse_shared(self._results.running.metrics, self.model)
        self._has_begun = False
        self._choose_table(fit)

    def _choose_table(self, fit: Fit) -> None:
        path, results = self._wanted_table, self._results
        if path is True:
            run = self._feed.run if fit.directed else None
            path = run / "prequential.npy" if isinstance(run, Path) else False
        if isinstance(path, Path):
            if path in fit.written:
                raise ValueError(
                    f"Two Prequentials of this fit would write {path}. Give one of them another table: "
                    "Prequential(table=path); or none: table=False."
                )
            fit.written.add(path)
        if results.table is None or results.table.path != path:
            self._close_table()
            results.table = Table(path, runtime=self._feed.core.runtime) if isinstance(path, Path) else None
            results.written = 0  # a resume restores it

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keras counts its steps from here."""
        self._base = self._feed.core.steps

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Test the rows that this step's batches may contain and earlier steps' could not."""
        fit, core = self._feed.fit, self._feed.core
        assert fit is not None
        # With a director, steps are counted when they end, and `batch` includes those of an earlier fit.
        start = core.steps if fit.directed else self._base + batch
        stop = start + fit.multiple
        if core.handed + core.ready < stop:
            fit.fetch(stop - core.handed)
        stop = min(stop, core.handed + core.ready)
        if stop <= start:
            return
        tests, upto = self._tests, max(core.seen_at(each) for each in range(start, stop))
        if not self._has_begun:
            self._begin()
        if start > self._tested_before:
            # Steps were trained without this callback: of the rows up to here, they may have contained any.
            tests.upto = max(tests.upto, upto)
        if upto > tests.upto:
            # Not `self.model`, for which Keras puts all values back into the variables on JAX.
            tests.test(fit.model, start, upto)
        self._tested_before = stop

    def _begin(self) -> None:
        """The first step of a fit: the restored state is complete."""
        self._has_begun = True
        results = self._results
        if results.table is not None:
            if not results.written and isinstance(self._wanted_table, Path):
                aside = results.table.set_aside()
                if aside is not None:
                    warn(f"{results.table.path} had rows of another run. It was renamed to {aside.name}.")
            results.table.cut(results.written)
            results.written = len(results.table)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the metrics to the epoch's logs."""
        if logs is not None:
            logs.update(self.results())

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """A `fit` ends."""
        self._close_table()

    def _close_table(self) -> None:
        if self._results.table is not None:
            self._results.table.close()

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """The state at this moment, for a checkpoint: the rows tested, the metrics, and the length of the table."""
        results = self._results
        if results.table is not None:
            results.table.sync()
        return {
            "tested_before": self._tested_before,
            "tests": self._tests.state(),
            "running": results.running.state(),
            "written": results.written,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the table is truncated to it when training begins."""
        self._tested_before = int(state["tested_before"])
        self._tests.restore(state["tests"])
        self._results.running.restore(state["running"])
        self._results.written = int(state["written"])

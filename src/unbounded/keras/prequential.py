"""Prequential: a Keras callback that tests each new row before it is trained on (Dawid 1984; Gama, Sebastião, Rodrigues
2013, "On evaluating stream learning algorithms").

A row is tested right before the first step whose batches may contain it, with the weights after the step before. That
step follows from the stream alone: each batch has the number of source rows that had been read when its rows' places
were final (`Block.seen`); rows up to there that were not tested yet are tested then, in order, in chunks. So
predictions do not depend on how far a prefetch thread has read ahead, and a run that was killed and resumed has the
same predictions as one that was not: its state is one number, the rows tested, besides the metrics and the length of
the table.

Rows come from a tap in the stream (`unbounded.stages.tap`), and are predicted in the training thread, by the model's
public `predict_on_batch`, in `on_train_batch_begin`: at that event the model has its variables on each backend.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unbounded.core import check, trees
from unbounded.core.trees import Tree
from unbounded.feed.new_labels import NewLabels, NewLabelsOf
from unbounded.feed.new_rows import NewRowsOf, source_of
from unbounded.feed.predictions import WaitingPredictions
from unbounded.keras._keras_feed import Feed
from unbounded.keras._predicting import ModelPredictions
from unbounded.keras._running import Running
from unbounded.keras._tested_rows import table_rows
from unbounded.stages.join import Join
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
        metrics: Keras metrics or their names, for models with one output: each gets the targets of rows, the
            predictions, and the weights if the batches have some.
        last: the number of newest rows for the second result of each metric.
        source: for a feed over a mix, the name of the input stream whose rows are tested; for a join in it, that
            of its rows.
        on_predictions: called with the numbers of rows (int64, [rows]), the rows before `shuffle` and `replay`, and
            their predictions.
        prepare: converts rows at that place to the form of batches, instead of the stages after it: for streams with
            other stages there.
        table: True to write the rows tested; or the path of the file, also for a `fit` without `Checkpoint`.
        chunk: the most rows predicted at once; None for the size of a batch. Smaller chunks are padded to a power of
            two.

    Raises:
        ValueError: a stage after `shuffle`, `replay` or a mix makes rows that are not known before they come out.

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
        metrics: Sequence[Any] = (),
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
        if isinstance(metrics, str) or not isinstance(metrics, Sequence):
            raise TypeError(f"Prequential(metrics={metrics!r}): expected a list of metrics, such as ['mae'].")
        self._feed = feed
        self._running = Running(metrics, check.positive(last, "Prequential(last=n)"))
        self._on_predictions = on_predictions
        self._chunk = check.positive(chunk or feed.stream.batch_size or _CHUNK, "Prequential(chunk=n)")
        source = source_of(feed.core, source)
        joined = isinstance(feed.stream.tested(source).head, Join)
        self._predictions = ModelPredictions()
        self._new = (NewLabelsOf if joined else NewRowsOf)(feed.core, source, prepare)
        self._waiting = WaitingPredictions()
        self._next_row = 0  # of a join, the first row that was not predicted
        self._unlabelled = 0
        self._wants_table = table
        self._table: Table | None = None
        # Rows of the source that were tested, or came before this callback; for a join, the pairs that it returned.
        self._upto = 0
        self._knows = False  # True once that number is known
        self._begun = False  # True once a step was announced in the current fit
        self._base = 0  # steps trained before the epoch from which Keras counts its steps

    # -- the user's methods ------------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """The number of rows tested; for a join, of those whose labels have come."""
        return self._running.rows

    @property
    def waiting(self) -> int:
        """For a join, the number of rows that were predicted and whose labels may still come."""
        return len(self._waiting)

    @property
    def unlabelled(self) -> int:
        """For a join, the number of rows that were predicted and got no label in time, or were left out later."""
        return self._unlabelled

    def results(self) -> dict[str, float]:
        """The metrics over all rows tested, and over the last ones, under their names in the logs."""
        return {f"prequential_{name}": value for name, value in self._running.results().items()}

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
        self._begun = False
        path: Path | None = None
        if self._wants_table is True:
            run = self._feed.run if fit.directed else None
            path = run / "prequential.npy" if isinstance(run, Path) else None
        elif self._wants_table:
            path = Path(os.fspath(self._wants_table))
        if path is None or self._table is None or self._table.path != path:
            self._close_table()
            self._table = None if path is None else Table(path, runtime=self._feed.core.runtime)

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
        upto = max(core.seen_at(each) for each in range(start, stop))
        if not self._begun:
            self._begin(start, upto)
        if upto > self._upto:
            self._test(start, upto)

    def _begin(self, step: int, upto: int) -> None:
        """The first step of a fit: the restored state is complete."""
        self._begun = True
        if not self._knows:
            # The run began without this callback: earlier rows may have been trained on.
            self._upto, self._knows = upto if step else 0, True
        if self._table is not None:
            self._table.cut(self._running.rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the metrics to the epoch's logs."""
        if logs is not None:
            logs.update(self.results())

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """A `fit` ends."""
        self._close_table()

    def _close_table(self) -> None:
        if self._table is not None:
            self._table.close()

    # -- testing -----------------------------------------------------------------------------------------------------

    def _test(self, step: int, upto: int) -> None:
        if isinstance(self._new, NewLabelsOf):
            self._test_and_judge(self._new.between(self._upto, upto), step)
        elif (new := self._new.between(self._upto, upto)) is not None:
            for numbers, came, rows in self._chunks(new):
                predictions = self._predict(rows, len(numbers))
                tested = {"row": numbers, "step": np.full(len(numbers), step)}
                self._count(tested, predictions, rows)
                # Before anything of the user's may fail: these were tested, once.
                self._upto = int(numbers[-1]) + 1
                self._tell(numbers, came, predictions)
        self._upto = upto

    def _test_and_judge(self, new: NewLabels, step: int) -> None:
        """Predict rows that came, and judge those whose labels came."""
        waiting = self._waiting
        if new.came is not None:
            for numbers, times, came, rows in self._chunks(new.came):
                if numbers[-1] < self._next_row:
                    continue  # in a step that failed after it
                made = self._predict(rows, len(numbers))
                steps = np.full(len(numbers), step)
                waiting.add({"number": numbers, "time": times, "step": steps, "prediction": made})
                self._next_row = int(numbers[-1]) + 1
                self._tell(numbers, came, made)
        if new.labelled is not None:
            for pairs, numbers, rows in self._chunks(new.labelled):
                # Of a run that was begun without this callback, some were never predicted.
                places, found = waiting.find(numbers)
                if found is not None:
                    judged = np.full(len(places), step)
                    tested = {"row": found["number"], "step": found["step"], "judged": judged}
                    self._count(tested, found["prediction"], trees.gather(rows, places))
                    waiting.remove(numbers)
                self._upto = int(pairs[-1])
        self._unlabelled += waiting.forget_before(new.expired)

    def _chunks(self, rows: Any) -> Iterator[Any]:
        """Some of the rows after the other."""
        for at in range(0, len(rows.numbers), self._chunk):
            yield (trees.cut(each, at, at + self._chunk) for each in rows)

    def _tell(self, numbers: Any, came: Tree, predictions: Tree) -> None:
        if self._on_predictions is not None:
            self._on_predictions(numbers, came, predictions)

    def _count(self, tested: dict[str, Any], predictions: Tree, rows: Tree) -> None:
        """Write down rows whose targets are known, and count them."""
        _, y, weight = keras.utils.unpack_x_y_sample_weight(rows)
        if y is None and self._running.metrics:
            raise ValueError(
                "Prequential(metrics=…) was given metrics, and the rows have no targets. Give batches of (x, y), or "
                "metrics of your own in on_predictions."
            )
        if self._table is not None:
            self._table.append(table_rows(tested, predictions, y))
        self._running.add(_arrays(y), predictions, weight, len(tested["row"]))

    def _predict(self, rows: Tree, count: int) -> Tree:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(rows)
        # Few shapes, for backends that compile each; each row's prediction is independent of the others.
        full = min(self._chunk, 1 << (count - 1).bit_length())
        if full > count:
            x = trees.map_leaves(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], full - count, axis=0)]), x)
        made = self._predictions.of(self.model, x)
        return made if full == count else trees.cut(made, 0, count)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """The state at this moment, for a checkpoint: the number of rows tested, and the metrics."""
        if self._table is not None:
            self._table.sync()
        state = {"upto": self._upto, "knows": self._knows, "running": self._running.state()}
        if isinstance(self._new, NewLabelsOf):
            state["labels"] = {
                "next_row": self._next_row,
                "unlabelled": self._unlabelled,
                "waiting": self._waiting.state(),
            }
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the table is truncated to it."""
        self._upto, self._knows = int(state["upto"]), bool(state["knows"])
        self._running.restore(state["running"])
        if "labels" in state:
            labels = state["labels"]
            self._next_row, self._unlabelled = int(labels["next_row"]), int(labels["unlabelled"])
            self._waiting.restore(labels["waiting"])


def _arrays(tree: Tree) -> Tree:
    return None if tree is None else trees.map_leaves(np.asarray, tree)

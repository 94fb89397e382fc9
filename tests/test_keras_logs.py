"""A feed and validation feeds whose sources can't go back keep their logs in one directory, each its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from test_keras_checkpoint import At, stop
from unbounded.keras import Checkpoint, Feed

pytestmark = [pytest.mark.filterwarnings(km.KERAS_NOISE), pytest.mark.usefixtures("no_threads_left")]


def sensor(first: int) -> Callable[..., Iterator[Any]]:
    """A function that can't go back: it goes on with the rows after those that were read of it."""

    def read(past: Any) -> Iterator[Any]:
        row = first + past.rows
        while True:
            ids = np.arange(row, row + 3, dtype=np.float32)
            yield np.stack([ids, np.sin(ids), np.cos(ids)], axis=1), ids[:, None] % 7
            row += 3

    return read


def fit(directory: Path, *extra: Any) -> Any:
    """A `fit` with all objects new, as another process has it."""
    model = km.recording_model(ids=1000, records_rounds=True, built=True)
    streams = [ub.from_generator(sensor(first)).shuffle(10).batch(4) for first in (0, 300, 600)]
    with (
        Feed(streams[0], ub.Epoch(steps=5)) as feed,
        Feed(streams[1], ub.Epoch(steps=3), validation="next") as following,
        Feed(streams[2], ub.Epoch(steps=2), validation="same") as same,
    ):
        checkpoint = Checkpoint([feed, following, same], directory, every=2)
        model.fit(feed, epochs=4, verbose=0, validation_data=following, callbacks=[checkpoint, *extra])
        model.evaluate(same, verbose=0)
    return model


def test_each_feed_goes_on_from_its_own_log_wherever_a_fit_is_stopped(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    assert len(km.trained_ids(whole)) == 80
    assert len(km.evaluated_ids(whole)) == 4 * 12 + 8
    run = tmp_path / "stopped"
    fit(run, At(3, do=stop))
    fit(run, At(test_batch=2, do=stop))
    assert sorted(path.name for path in (run / "log").iterdir()) == ["feed", "feed-1", "feed-2"]
    fit(run, At(7, do=stop))
    # An older checkpoint is chosen: what all of the feeds read after it comes again from their logs.
    newest = sorted(path for path in run.iterdir() if path.name.startswith("step-"))[-1]
    shutil.rmtree(newest)
    again = fit(run)
    assert km.trained_ids(again) == km.trained_ids(whole)
    # The round that was stopped after two batches is begun again with its first row.
    assert km.evaluated_ids(again) == km.evaluated_ids(whole)[:8] + km.evaluated_ids(whole)
    dense = [model.layers[-1].get_weights() for model in (again, whole)]
    assert all(np.array_equal(a, b) for a, b in zip(*dense, strict=True))

"""A fit on a mix: epochs by the passes of one source, checkpoints, and logs for each source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_models as km
import unbounded as ub
from test_keras_checkpoint import At, stop
from unbounded.keras import Checkpoint, Feed
from unbounded.store.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


def mixed() -> ub.Stream:
    old, new = ub.from_arrays(km.rows(40), seed=5), ub.from_arrays(km.rows(60, start=40), seed=6).shuffle(20)
    return ub.mix({"old": old, "new": new}, weights={"old": 1, "new": 3}).shuffle(16).batch(4).prefetch(2)


def fit(directory: Path, *extra: Any, every: Any = None) -> tuple[Any, Any]:
    model = km.ready_model(ids=100)
    with Feed(mixed(), ub.Epoch(passes={"old": 0.5})) as feed:
        checkpoint = Checkpoint(feed, directory, every, wait=True, keep=20)
        model.fit(feed, epochs=4, verbose=0, callbacks=[checkpoint, *extra])
        return model, feed.core.stats


def test_a_fit_of_passes_over_one_source_is_stopped_anywhere_and_ends_the_same(tmp_path: Path) -> None:
    whole, stats = fit(tmp_path / "whole")
    ids = np.array(km.trained_ids(whole))
    assert (ids < 40).sum() == stats.inputs["old"].rows
    assert 80 <= stats.inputs["old"].rows < 84  # the batch that reaches the second pass's end ends the epoch
    assert stats.inputs["new"].passes == stats.inputs["new"].rows / 60
    for _ in range(3):
        fit(tmp_path / "stopped", At(7, do=stop))
    model, again = fit(tmp_path / "stopped")
    assert km.trained_ids(model) == ids.tolist()
    assert again.inputs == stats.inputs
    assert model.history.history["rows/old"] == whole.history.history["rows/old"]
    assert sum(model.history.history["rows/old"]) == stats.inputs["old"].rows


def test_a_checkpoint_is_due_by_the_passes_of_one_source(tmp_path: Path) -> None:
    fit(tmp_path, every=ub.Epoch(passes={"old": 0.25}))
    assert len(Checkpoints(tmp_path).all()) == 8


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (ub.Epoch(passes={"unknown": 1}), "names 'unknown'. Expected a source of the mix: 'old', 'new'"),
        (ub.Epoch(passes=1), "a mix has none of its own. Count those of its sources"),
    ],
)
def test_a_checkpoint_that_would_never_be_due_is_refused(every: Any, said: str, tmp_path: Path) -> None:
    with Feed(mixed(), ub.Epoch(steps=3)) as feed, pytest.raises(ValueError, match=said):
        Checkpoint(feed, tmp_path, every)

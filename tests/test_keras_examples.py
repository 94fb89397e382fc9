"""The numbered examples run, and print what they should; the others are recipes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import keras_models as km

pytestmark = [
    pytest.mark.filterwarnings(km.KERAS_NOISE),
    pytest.mark.slow,
    pytest.mark.skipif(km.BACKEND == "torch", reason="thousands of steps, which torch takes long for"),
]

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]_*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_two_epochs_of_a_thousand_steps(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runpy.run_path(str(path))
    assert run["history"].epoch == [0, 1]
    assert int(run["model"].optimizer.iterations) == 2000
    assert run["history"].history["loss"][1] < run["history"].history["loss"][0]
    out = capsys.readouterr().out
    assert "1000/1000" in out
    assert "trained on 2,000 batches × 32 = 64,000 rows" in out


def test_there_are_three() -> None:
    assert [path.stem for path in EXAMPLES] == ["1_generator", "2_buffer", "3_preprocess"]

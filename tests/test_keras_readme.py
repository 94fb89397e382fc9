"""The code of the pages with Keras runs, README.md with a tenth of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_models as km
from code_blocks import PAGES, has_keras, run_page

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


@pytest.mark.parametrize("page", [page for page in PAGES if has_keras(page) and page != "README.md"])
def test_the_code_of_a_page_runs_from_top_to_bottom(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, capsys, {"__name__": page})


def test_the_readme_trains_ten_epochs_and_prints_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    names: dict[str, Any] = {
        "print": lambda *values: printed.append(" ".join(map(str, values))),
        "read": lambda n: np.zeros((n, 3)),
        "label": np.zeros,
        "train_step": lambda x, y: None,
        "weights": lambda: {"w": np.zeros(2)},
    }
    assert "print(feed.position)  # pass 33, row 0 of 10,000\n" in PAGES["README.md"]  # of 10,000 steps
    # The loop's epochs are of a minute each.
    run_page("README.md", capsys, names, {"steps=1000)": "steps=100)", "ub.Epoch(seconds=60)": "ub.Epoch(steps=5)"})
    assert printed[0] == "pass 4, row 2,000 of 10,000"
    assert printed[1:] == ["5 batches × 32 = 160 rows"] * 10
    assert names["readings"]().__next__().keys() == {"temp", "load"}
    names["feed"].close()

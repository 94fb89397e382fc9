"""The code block of README.md that trains with Keras runs, with a tenth of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keras_models as km
from test_readme import readme_blocks

pytestmark = pytest.mark.filterwarnings(km.KERAS_NOISE)


def test_the_block_with_keras_trains_ten_epochs_and_prints_its_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in readme_blocks() if "keras.Sequential" in block]
    names: dict[str, Any] = {}
    assert "steps=1000" in block
    assert block.endswith("# pass 33, row 0 of 10,000\n")  # of 10,000 steps
    exec(block.replace("steps=1000", "steps=100"), names)
    assert capsys.readouterr().out.endswith("pass 4, row 2,000 of 10,000\n")
    names["feed"].close()

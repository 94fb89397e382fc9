"""The names in README.md, CONTRIBUTING.md and docs/ exist, and the README's loop resumes; test_code_blocks.py and
test_keras_readme.py run all code of the pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from file_map import ROOT

TOP = ROOT.parent.parent
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)

pytestmark = pytest.mark.usefixtures("no_threads_left")


def readme_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (TOP / "README.md").read_text(), re.S | re.M)


def test_the_loop_without_keras_trains_saves_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in readme_blocks() if "train_step(x, y)" in block]
    (seconds,) = re.findall(r"ub\.Epoch\(seconds=\d+\)", block)  # ten minutes: the test takes steps instead
    steps: list[Any] = []
    names: dict[str, Any] = {
        "ub": ub,
        "read": lambda n: np.zeros((n, 3)),
        "label": np.zeros,
        "train_step": lambda x, y: steps.append((x.shape, y.shape)),
        "weights": lambda: {"w": np.full(2, len(steps))},
    }
    exec(block.replace(seconds, "ub.Epoch(steps=5)"), names)
    assert steps == [((32, 3), (32,))] * 50
    assert names["state"] is None
    with pytest.warns(ub.RunFinished):  # typed again: the run has its ten epochs
        exec(block.replace(seconds, "ub.Epoch(steps=5)"), names)
    assert names["state"]["model"]["w"].tolist() == [50, 50]


def test_names_of_the_library_in_the_pages_exist() -> None:
    keras = re.findall(r"\"(\w+)\"", (ROOT / "keras" / "__init__.py").read_text().split("__all__", 1)[1])
    for name in set(re.findall(r"\bub((?:\.[A-Za-z_]\w*)+)", TEXT)):
        first, *rest = name.strip(".").split(".")
        if first == "keras":
            assert not rest or rest[0] in keras, f"ub{name}"
            continue
        value = getattr(ub, first)
        for part in rest:
            value = getattr(value, part)


def test_stages_in_the_readme_are_methods_of_a_stream() -> None:
    table = (TOP / "README.md").read_text().split("## What you have", 1)[1].split("\n## ", 1)[0]
    for name in set(re.findall(r"`\.(\w+)\(", table)):
        assert callable(getattr(ub.Stream, name)), name


def test_make_targets_extras_and_options_in_the_pages_exist() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (TOP / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:`|^)make (\w[\w-]*)", TEXT, re.M)) <= set(targets)
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", TEXT)) <= set(extras)
    app = (ROOT / "cli" / "_app.py").read_text()
    for option in set(re.findall(r"`(--[a-z-]+)", TEXT)):
        assert option in app or option.removeprefix("--no").strip("-").replace("-", "_") in app, option

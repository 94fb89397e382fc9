"""Errors if Keras or its backend is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_models as km


def failure(*missing: str, backend: str = "") -> str:
    """The last line that a process without these packages ends with."""
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import unbounded as ub; ub.keras.Feed"
    env = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": os.devnull}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.any_backend
@pytest.mark.slow
def test_a_missing_backend_is_named_with_those_that_are_installed() -> None:
    line = failure("tensorflow")
    assert line.startswith(
        "ModuleNotFoundError: Keras is to run on tensorflow, which is not installed (KERAS_BACKEND is not"
    )
    assert "Installed: jax" in line
    assert 'os.environ["KERAS_BACKEND"] = "jax"' in line


@pytest.mark.any_backend
@pytest.mark.slow
def test_a_backend_that_was_asked_for_and_is_missing_is_named() -> None:
    line = failure("tensorflow", "torch", "jax", backend=km.BACKEND)
    assert (
        f"Keras is to run on {km.BACKEND}, which is not installed (KERAS_BACKEND is {km.BACKEND!r}), and neither"
        in line
    )


@pytest.mark.any_backend
@pytest.mark.slow
def test_without_keras_the_extras_are_named() -> None:
    assert "ub.keras needs Keras, which is not installed" in failure("keras")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_importing_it_starts_no_backend_whose_threads_a_fork_would_not_survive() -> None:
    script = (
        "import os, keras\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "import unbounded.keras\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"

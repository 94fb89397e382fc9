"""The recipes in examples/ train; one that is stopped and run again ends with the weights of one that was not.

An error ends it in the middle of an epoch. Where the program saves by itself this leaves what SIGKILL would leave;
`Checkpoint` saves first, and what SIGKILL leaves there is tested by test_chaos.py.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import compiled_once, installed
from unbounded.feed.loops import Loops

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    pytest.mark.filterwarnings("ignore"),  # what these libraries warn of is theirs
    pytest.mark.slow,
]

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass(frozen=True)
class Recipe:
    """A program, and the libraries that it needs. The test runs it with epochs of 20 steps in place of 100."""

    name: str
    needs: tuple[str, ...]
    steps: int = 100
    """Of the whole run."""
    stop: int = 46
    """The step at which it is stopped."""
    exact: bool = True
    """False if the source goes on with other rows than it would have given."""


RECIPES = [
    Recipe("keras_parquet", ("keras", "jax", "pyarrow")),
    Recipe("hf_text", ("keras", "jax", "datasets")),
    Recipe("tf_data", ("keras", "jax", "tensorflow"), exact=False),
    Recipe("folder_of_images", ("keras", "jax", "PIL")),
    Recipe("sensors_with_gaps", ("keras", "jax", "pyarrow")),
    Recipe("class_imbalance", ("keras", "jax")),
    Recipe("validation_split", ("keras", "jax")),
    Recipe("old_and_new", ("keras", "jax")),
    Recipe("torch_loop", ("torch",)),
    Recipe("jax_loop", ("jax",)),
    Recipe("lightning_loop", ("torch", "lightning")),
    Recipe("accelerate_loop", ("torch", "accelerate", "torchdata")),
    Recipe("hf_trainer", ("torch", "transformers", "datasets"), steps=100, stop=57),
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each program is run four times: its steps are compiled once."""
    with compiled_once(tmp_path_factory.mktemp("compiled")):
        yield


class Stopped(BaseException):
    """Ends a program at a step of its training, whatever it catches."""


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Has the program of this process stopped when it asks for the batch after so many."""
    hand_out: Callable[..., Iterator[Any]] = Loops._hand_out
    handed = 0

    def counted(feed: Loops, loop: Any) -> Iterator[Any]:
        nonlocal handed
        for batch in hand_out(feed, loop):
            if handed == step:
                raise Stopped
            handed += 1
            yield batch

    patch.setattr(Loops, "_hand_out", counted)
    if (keras := sys.modules.get("keras")) is not None:
        fit = keras.Model.fit

        class Stop(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.begun = 0

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if self.begun == step:
                    raise Stopped
                self.begun += 1

        def stopped_fit(model: Any, *args: Any, callbacks: Any, **given: Any) -> Any:
            return fit(model, *args, callbacks=[*callbacks, Stop()], **given)

        patch.setattr(keras.Model, "fit", stopped_fit)


@contextlib.contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """PyTorch with a seed, and one thread: for tiny tensors several would wait for each other on a busy machine."""
    import torch

    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(recipe: Recipe, folder: Path, patch: pytest.MonkeyPatch, seed: int) -> dict[str, Any]:
    """Runs the program in a directory: the data and the runs that it finds there are its own."""
    folder.mkdir(exist_ok=True)
    patch.chdir(folder)
    if "keras" in recipe.needs:
        import keras

        keras.utils.set_random_seed(seed)
    path = EXAMPLES / f"{recipe.name}.py"
    names: dict[str, Any] = {"__name__": "__main__"}
    with one_thread(seed) if "torch" in recipe.needs else contextlib.nullcontext():
        exec(compile(path.read_text().replace("ub.Epoch(steps=100)", "ub.Epoch(steps=20)"), path, "exec"), names)
    return names


def weights(names: dict[str, Any]) -> list[Any]:
    """What the program has trained."""
    if "parameters" in names:
        return [np.asarray(leaf) for leaf in names["parameters"].values()]
    model = names["model"]
    if hasattr(model, "state_dict"):
        return [tensor.numpy() for tensor in model.state_dict().values()]
    return list(model.get_weights())


def steps(names: dict[str, Any]) -> int:
    """The steps of the run, also those of an earlier process. A trainer that counts batches does not confirm its last
    one: no further batch is requested."""
    trainer = names.get("trainer")
    if trainer is None:
        return int(names["feed"].steps)
    return int(trainer.global_step if hasattr(trainer, "global_step") else trainer.state.global_step)


@pytest.mark.parametrize(
    "recipe", [pytest.param(recipe, id=recipe.name, marks=installed(*recipe.needs)) for recipe in RECIPES]
)
def test_a_recipe_that_is_stopped_and_run_again_ends_as_one_that_is_not(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recipe, tmp_path / "whole", monkeypatch, seed=0)
    assert steps(whole) == recipe.steps
    with pytest.MonkeyPatch.context() as patch:
        stop_at(recipe.stop, patch)
        with pytest.raises(Stopped):
            run(recipe, tmp_path / "stopped", monkeypatch, seed=0)
    # Weights that are not the first run's: they must come from its checkpoint.
    again = run(recipe, tmp_path / "stopped", monkeypatch, seed=1)
    assert steps(again) == recipe.steps
    if recipe.exact:
        for got, expected in zip(weights(again), weights(whole), strict=True):
            assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()
    finished = run(recipe, tmp_path / "stopped", monkeypatch, seed=2)
    assert steps(finished) == recipe.steps


def test_each_example_is_run_by_a_test() -> None:
    numbered = {"1_generator", "2_buffer", "3_preprocess"}  # by test_keras_examples.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {recipe.name for recipe in RECIPES} | numbered

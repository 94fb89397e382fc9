"""ModelPredictions: predictions by a model in its present state, in the middle of a `fit`.

`predict_on_batch` on JAX takes the model's state out of its variables and puts it back, which costs a tiny model more
than the prediction itself. There the model's own `predict_step` is compiled as a function of the variables' values.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree
from unbounded.keras import internals
from unbounded.keras._variables import read

_SEED = "seed_generator_state"  # the name of the variable of a `keras.random.SeedGenerator`


class ModelPredictions:
    """Predicts batches, and compiles again where the model was compiled again."""

    def __init__(self) -> None:
        self._made_for: Any = None  # the model's function for training: `compile` makes another one
        self._compiled: Any = None
        self._seeds: list[Any] = []

    def of(self, model: Any, x: Tree) -> Tree:
        """What a model predicts.

        Args:
            model: no step is at work.
            x: a tree of arrays, [rows, …].

        Returns:
            A tree of arrays, [rows, …].
        """
        if self._made_for is None or self._made_for is not model.train_function:
            self._made_for, self._compiled = model.train_function, _compiled(model)
            self._seeds = [v for v in model.non_trainable_variables if v.path.endswith(_SEED)]
        if self._compiled is None:
            return trees.map_leaves(np.asarray, self._predicted(model, x))
        values = internals.values_in_loop(model)
        if values is None:  # the first step of an epoch, or another callback has asked for the model
            variables = model.trainable_variables, model.non_trainable_variables
            values = [v.value for v in variables[0]], [v.value for v in variables[1]]
        return trees.map_leaves(np.asarray, self._compiled(*values, x))

    def _predicted(self, model: Any, x: Tree) -> Any:
        """What `predict_on_batch` gives; training draws the same random numbers afterwards as without it."""
        torch = keras.backend.backend() == "torch"
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
        generator = internals.global_seed_generator()
        seeds = self._seeds if generator is None else [*self._seeds, generator.state]
        before = [np.array(read(seed)) for seed in seeds]
        was_training = torch and model.training
        if was_training:
            # Layers that look at the flag of torch, which Keras sets for an epoch, must not train here.
            model.eval()
        try:
            return model.predict_on_batch(x)
        finally:
            if was_training:
                model.train()
            for seed, value in zip(seeds, before, strict=True):
                if not np.array_equal(read(seed), value):
                    seed.assign(value)


def _compiled(model: Any) -> Any:
    """The model's `predict_step` as a compiled function; None where `predict_on_batch` is to be called."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return None
    if not model.built or model.run_eagerly or not model.jit_compile:
        return None
    import jax

    def predict(trainable: Any, others: Any, x: Any) -> Any:
        # State that predicting changes, such as that of a random layer, stays as it is.
        return model.predict_step((trainable, others), (x,))[0]

    return jax.jit(predict)

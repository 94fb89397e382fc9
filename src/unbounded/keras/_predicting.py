"""ModelPredictions: predictions by a model in its present state, in the middle of a `fit`.

`predict_on_batch` on JAX puts back the model's state after each call, which costs a tiny model more than the prediction
itself. There the model's own `predict_step` is compiled as a function of its variables, and nothing is put back.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from unbounded.core import trees
from unbounded.core.trees import Tree


class ModelPredictions:
    """Predicts batches, and compiles again where the model was compiled again."""

    def __init__(self) -> None:
        self._made_for: Any = None  # the model's function for training: `compile` makes another one
        self._compiled: Any = None
        self._variables: Any = None  # to find them takes Keras longer than to read them

    def begin(self) -> None:
        """A `fit` begins: the model may have other variables."""
        self._variables = None

    def of(self, model: Any, x: Tree) -> Tree:
        """What a model predicts.

        Args:
            model: its variables hold their values: that of a callback, and not that of a step at work.
            x: a tree of arrays, [rows, …].

        Returns:
            A tree of arrays, [rows, …].
        """
        if self._made_for is None or self._made_for is not model.train_function:
            self._made_for, self._compiled = model.train_function, _compiled(model)
        if self._compiled is None:
            return trees.map_leaves(np.asarray, _predicted(model, x))
        if self._variables is None:
            self._variables = [list(each) for each in (model.trainable_variables, model.non_trainable_variables)]
        values = [[variable.value for variable in each] for each in self._variables]
        return trees.map_leaves(np.asarray, self._compiled(*values, x))


def _predicted(model: Any, x: Tree) -> Any:
    if keras.backend.backend() != "torch" or not model.training:
        return model.predict_on_batch(x)
    # Layers that look at the flag of torch, which Keras sets for an epoch, must not train here.
    model.eval()
    try:
        return model.predict_on_batch(x)
    finally:
        model.train()


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

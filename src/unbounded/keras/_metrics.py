"""Metrics of `Prequential`: from what the user gave, one Keras metric for each, with its name and its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from unbounded.core.trees import Tree

# Strings for which `compile` chooses by the shapes of targets and predictions.
_AMBIGUOUS = {
    "accuracy": ("binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy"),
    "crossentropy": ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"),
}
_AMBIGUOUS |= {"acc": _AMBIGUOUS["accuracy"], "ce": _AMBIGUOUS["crossentropy"]}


class OutputMetric(NamedTuple):
    """A metric of one of a model's outputs.

    Args:
        output: the output's key; None for a model with one output.
        name: in the logs, without what `Prequential` puts around it.
        metric: the Keras metric.
    """

    output: Any
    name: str
    metric: Any

    def update(self, y: Tree, predictions: Tree, weight: Any) -> None:
        """Add rows to the metric."""
        if self.output is not None:
            y, predictions = y[self.output], predictions[self.output]
            weight = weight.get(self.output) if isinstance(weight, Mapping) else weight
        self.metric.update_state(y, predictions, **({} if weight is None else {"sample_weight": weight}))

    def results(self) -> dict[str, float]:
        """By name; a metric may have several results."""
        result = self.metric.result()
        several = result if isinstance(result, Mapping) else {"": result}
        names = [key if self.output is None or not key else f"{self.output}_{key}" for key in several]
        return {
            name or self.name: float(keras.ops.convert_to_numpy(value))
            for name, value in zip(names, several.values(), strict=True)
        }

    def check(self, y: Tree, predictions: Tree, weight: Any) -> None:
        """Raise ValueError if it can't be computed of such rows; the metric is reset."""
        outputs = _outputs(predictions)
        if self.output is None and outputs:
            raise ValueError(
                f"Prequential(metrics=[{self.name!r}, …]): the model has several outputs. Expected the metrics of each "
                f"by its name: metrics={{{outputs[0]!r}: [{self.name!r}]}}."
            )
        if self.output is not None and (self.output not in outputs or self.output not in _outputs(y)):
            raise ValueError(
                f"Prequential(metrics={{{self.output!r}: …}}): the model's outputs are {outputs or 'one'}, and the "
                f"targets {_outputs(y) or 'one'}. Expected a list of metrics for one output, or the names of outputs "
                "that have targets."
            )
        try:
            self.update(y, predictions, weight)
        except Exception as error:
            raise ValueError(
                f"Prequential(metrics=…): {self.name!r} can't be computed of these targets and predictions: {error}"
            ) from error
        finally:
            self.metric.reset_state()


def metrics_of(given: Any) -> list[OutputMetric]:
    """The user's metrics.

    Raises:
        TypeError: they are no metrics.
        ValueError: what is meant is not clear.
    """
    if isinstance(given, str) or not isinstance(given, Sequence | Mapping):
        raise TypeError(f"Prequential(metrics={given!r}): expected a list of metrics, such as ['mae'].")
    if isinstance(given, Mapping):
        found = [_metric(each, output) for output, several in given.items() for each in _listed(several)]
    else:
        found = [_metric(each, None) for each in given]
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"Prequential(metrics=…) was given {names.count(name)} metrics with the name {name!r}. Expected a name "
                "for each: keras.metrics.…(name=…)."
            )
    return found


def _listed(given: Any) -> Iterator[Any]:
    yield from given if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _metric(given: Any, output: Any) -> OutputMetric:
    if isinstance(given, str) and given in _AMBIGUOUS:
        raise ValueError(
            f"Prequential(metrics=[{given!r}]): which one is meant depends on the targets. Expected one of "
            f"{', '.join(map(repr, _AMBIGUOUS[given]))}."
        )
    if isinstance(given, keras.losses.Loss):
        raise TypeError(
            f"Prequential(metrics=[{type(given).__name__}(…)]): that is a loss. Expected a metric, or its name."
        )
    found = given if isinstance(given, keras.metrics.Metric) else keras.metrics.get(given)
    if not isinstance(found, keras.metrics.Metric):
        function = getattr(found, "func", found)  # of a functools.partial
        found = keras.metrics.MeanMetricWrapper(_by_row(found), name=getattr(function, "__name__", "metric"))
    name = given if isinstance(given, str) else found.name
    return OutputMetric(output, name if output is None else f"{output}_{name}", found)


def _by_row(function: Any) -> Any:
    """A metric function whose result is checked to be one number for each row, whose mean is the metric."""

    def by_row(y: Any, predictions: Any) -> Any:
        result = function(y, predictions)
        if not keras.ops.shape(result):
            raise ValueError(
                "the function returned one number for all rows. Expected one for each: such as "
                "keras.ops.mean(error, axis=-1)."
            )
        return result

    return by_row


def _outputs(tree: Tree) -> list[Any]:
    """The keys of several outputs; empty for one."""
    if isinstance(tree, Mapping):
        return list(tree)
    return list(range(len(tree))) if isinstance(tree, tuple | list) else []


def refuse_shared(metrics: Sequence[OutputMetric], model: Any) -> None:
    """Raise ValueError if a metric is the model's, too: an epoch of `fit` resets it. On TensorFlow those of
    `compile` are built in the first step of all, and are known in a later `fit` only."""
    own = {id(variable) for variable in model.metrics_variables}
    for each in metrics:
        if any(id(variable) in own for variable in each.metric.variables):
            raise ValueError(
                f"Prequential(metrics=…) and compile(metrics=…) were given the same object {each.name!r}, and each "
                "would count the other's rows. Make one for each."
            )

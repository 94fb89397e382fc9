"""Checks of the dtypes of batches before the first step: what is no number and no bool is refused, by its column.

Text, times and objects travel through a stream, and a model has no use for them. TensorFlow alone has text, for models
with a layer that takes it.
"""

from __future__ import annotations

from typing import Any

import keras

from unbounded.core import ragged, trees
from unbounded.core.trees import RowsError, Tree
from unbounded.stages.map import Columns, Map, MapRows
from unbounded.stages.random_map import RandomMap
from unbounded.stream import Stream

_TEXT_LAYERS = (keras.layers.StringLookup, keras.layers.TextVectorization, keras.layers.Hashing)
_NUMBERS = "biufc"


def check_leaves(batch: Tree, stream: Stream, model: Any, doing: str) -> None:
    """Raise RowsError if a leaf of a batch is no number and no bool.

    Args:
        batch: a batch of the stream.
        stream: the stream, which tells the names of columns.
        model: the model; on TensorFlow, text is allowed if it may take text.
        doing: what Keras does, such as "fit".
    """
    for path, leaf in trees.leaves(batch):
        kind = leaf.dtype.kind
        # Numbers of ml_dtypes, such as bfloat16, have the kind V.
        if kind in _NUMBERS or (kind == "V" and leaf.dtype.isbuiltin == 2):
            continue
        if kind in "US" and keras.backend.backend() == "tensorflow" and _may_take_text(model):
            continue
        column = _column_at(stream, path)
        shown = trees.name(path) if column is None else f"the column {column!r}"
        if ragged.is_ragged(leaf):
            name = repr("name" if column is None else column)
            raise RowsError(f"{doing} was given batches in which {shown} has {_ragged_remedy(name, leaf)}")
        raise RowsError(
            f"{doing} was given batches in which {shown} is {_KINDS.get(kind, 'neither number nor bool')} "
            f"({leaf.dtype}), and a model on {keras.backend.backend()} takes numbers and bools. "
            f"{_remedy(kind, 'name' if column is None else column)}"
        )


_KINDS = {"M": "times", "m": "durations", "S": "text", "U": "text", "O": "Python objects"}


def _remedy(kind: str, column: Any) -> str:
    leave_out = "or leave it out, with .columns(x=…, y=…)"
    if kind in "US":
        return (
            f"Make codes of it before .batch(), with .encode({column!r}, vocabulary=[…]) or .encode({column!r}, "
            f"hash=1000); {leave_out}."
        )
    if kind == "M":
        return (
            f"Leave it out, with .columns(x=…, y=…): .time({column!r}) before that keeps it as the time of a row. Or "
            "make numbers of it, with .map(fn)."
        )
    return f"Make numbers of it, with .map(fn); {leave_out}."


def _ragged_remedy(name: str, leaf: Any) -> str:
    if isinstance(leaf.flat[0], bytes):
        return (
            f"bytes, and a model takes numbers. Decode them before .batch(): .images({name}, size) for encoded images, "
            "or .map(fn); or leave it out, with .columns(x=…, y=…)."
        )
    return (
        "rows of several lengths, and a model takes arrays. Write .pad(length) before .batch(n), or .batch(n, "
        "bucket=[32, 64, 128]), which puts rows of about one length together; or leave it out, with .columns(x=…, y=…)."
    )


def _may_take_text(model: Any) -> bool:
    """True if a layer of the model takes text, or if code of the user decides what its layers get."""
    if not type(model).__module__.startswith("keras."):
        return True
    waiting = list(getattr(model, "layers", ()))
    while waiting:
        layer = waiting.pop()
        if isinstance(layer, _TEXT_LAYERS) or not type(layer).__module__.startswith("keras."):
            return True
        if isinstance(layer, keras.layers.InputLayer) and "string" in str(layer.dtype):
            return True
        waiting += getattr(layer, "layers", ())
    return False


def _column_at(stream: Stream, path: str) -> Any:
    """The name of the column that a leaf of a batch is; None if a function may have changed the structure since."""
    for stage in reversed(stream.stages):
        if isinstance(stage, Map | MapRows | RandomMap):
            break
        if isinstance(stage, Columns):
            return stage.column_at(path)
    last = path.rpartition("[")[2]
    return last[1:-2] if last[:1] in ("'", '"') else None

"""What Keras doesn't tell a data adapter, read off its call stack: who asks, and what else was given.

An adapter is asked for batches with no word on whether they are for training, evaluating or a mere look at their
shapes, and `y`, `class_weight` or `steps_per_epoch` beside it are dropped in silence. The names of Keras's own
functions and of a few of their variables say it all. Nothing else in this package looks at frames, but for
`callback_list`; where a name is missing, the answer is None and the feed takes the plain road.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

Verb = Literal["fit", "evaluate", "predict", "build"]

_VERBS: dict[str, Verb] = {
    "fit": "fit",
    "evaluate": "evaluate",
    "predict": "predict",
    "_symbolic_build": "build",
    "_maybe_symbolic_build": "build",
}
_DEEPEST = 40


@dataclass(frozen=True)
class Caller:
    """The call of a model's method that led here.

    `callbacks`, `epoch` and `epochs` are those of `fit`, as far as it has got; `begun` says that its own iterator is
    there already, so that any other which it makes is for validation; `adapter` is what that one reads from.
    """

    verb: Verb
    model: Any
    callbacks: Any = None
    epoch: int | None = None
    epochs: int | None = None
    begun: bool = False
    adapter: Any = None


@dataclass(frozen=True)
class Beside:
    """What was given beside the feed, and the iterator of Keras that was made for it."""

    iterator: Any
    steps: int | None
    steps_per_execution: int
    others: dict[str, Any]


def caller() -> Caller | None:
    """Who asks; the nearest of `fit`, `evaluate`, `predict` and the look at one batch that builds a model."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return None
        verb = _VERBS.get(frame.f_code.co_name)
        if verb is not None and frame.f_globals.get("__name__", "").startswith("keras."):
            known = frame.f_locals
            return Caller(
                verb,
                known.get("self"),
                known.get("callbacks"),
                known.get("epoch"),
                known.get("epochs"),
                known.get("epoch_iterator") is not None,
                getattr(known.get("epoch_iterator"), "data_adapter", None),
            )
        frame = frame.f_back
    return None


def callbacks() -> list[Any]:
    """The callbacks of the `fit` that asks, before it has told any of them that training begins."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEEPEST):
        if frame is None:
            return []
        if frame.f_code.co_name == "fit" and frame.f_globals.get("__name__", "").startswith("keras."):
            given = frame.f_locals.get("callbacks")
            given = getattr(given, "callbacks", given)  # a CallbackList
            return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
        frame = frame.f_back
    return []


def beside() -> Beside | None:
    """What came with the feed; only while Keras makes its iterator, which is when it asks for `num_batches`."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(4):
        if frame is None:
            return None
        known = frame.f_locals
        if frame.f_code.co_name == "__init__" and "steps_per_execution" in known and "class_weight" in known:
            others = {
                name: known[name]
                for name in ("y", "sample_weight", "class_weight", "batch_size")
                if known.get(name) is not None
            }
            return Beside(known["self"], known.get("steps_per_epoch"), known["steps_per_execution"], others)
        frame = frame.f_back
    return None


def iterator() -> Any | None:
    """Keras's iterator that is asking; None where it is none of Keras's."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(6):
        if frame is None:
            return None
        owner = frame.f_locals.get("self")
        if hasattr(owner, "data_adapter") and hasattr(owner, "steps_per_execution"):
            return owner
        frame = frame.f_back
    return None


def looks_ahead() -> bool:
    """Whether the next batch is asked for before the last one is trained, as Keras does on JAX's accelerators."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code.co_name == "_one_batch_ahead_iterator":
            return True
        frame = frame.f_back
    return False


def is_fitting(adapter: object) -> bool:
    """Whether a `fit` reads from this adapter now: further up the stack, or in another thread."""
    tops = {**sys._current_frames(), threading.get_ident(): sys._getframe(1)}
    # This function's own frame must not be among them: it would hold itself, and all frames above it.
    for top in tops.values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "fit":
                iterator = frame.f_locals.get("epoch_iterator")
                if iterator is not None and getattr(iterator, "data_adapter", None) is adapter:
                    return True
            frame = frame.f_back
    return False

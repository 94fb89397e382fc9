"""All uses of private names of Keras.

Keras has no public interface for a data source with callbacks of its own. These private names are used, here only:

- `DataAdapter`, instances of which `fit` accepts as data;
- `EpochIterator`: its constructor's arguments (role, `class_weight`, `y`, …), read while it is made;
- `CallbackList`, a public class, found in a callback's `set_params`, and nowhere else; its `_async_train`,
  `_async_test` and `_async_predict` tell which events it sends from a thread of its own;
- `Trainer._initial_epoch`, `Trainer._symbolic_build` and, on JAX, `Trainer._jax_state` and
  `Trainer._jax_state_synced`;
- `Optimizer._trainable_variables`, by which a model's own optimizers are saved and restored;
- the global seed generator, which has no public name.

Each is probed when this module is imported. A Keras that lacks one is refused by one error, since a feed that only
seems to work would lose data silently.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Literal

import keras
import numpy as np

OLDEST = "3.11"
"""The oldest version of Keras that is tested; the newest is the one installed with the extras."""

Role = Literal["fit", "validation", "evaluate", "predict"]


class UnsupportedKeras(ImportError):
    """This version of Keras lacks a private name that a feed needs."""


try:
    from keras.src.random import seed_generator as _seeds
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter as _DataAdapter
    from keras.src.trainers.epoch_iterator import EpochIterator
except ImportError as missing:
    raise UnsupportedKeras(
        f"Keras {keras.__version__} keeps {missing.name or 'its DataAdapter'} where unbounded does not find it. "
        f"unbounded is tested on Keras {OLDEST} to 3.15: pip install 'keras>={OLDEST}'."
    ) from missing

DataAdapter: Any = _DataAdapter
_MADE: CodeType = EpochIterator.__init__.__code__
_SEED_GENERATOR = "global_seed_generator"  # Keras up to 3.12 has no constant for this name
_ASYNC = ("_async_train", "_async_test", "_async_predict")
_ROLES: dict[str, Role] = {"fit": "fit", "evaluate": "evaluate", "predict": "predict"}


@dataclass(frozen=True)
class Making:
    """The arguments with which Keras makes an iterator.

    Attributes:
        iterator: the iterator, whose constructor is running.
        role: its purpose. "validation" is a round within `fit`.
        model: the model whose method makes it.
        callbacks: the `callbacks` argument of `fit`, of any type.
        steps: `steps_per_epoch`, `validation_steps` or `steps`; None if not given.
        steps_per_execution: the steps that Keras runs in one call.
        others: the arguments besides the data, by name.
    """

    iterator: Any
    role: Role
    model: Any
    callbacks: Any
    steps: int | None
    steps_per_execution: int
    others: dict[str, Any]


def making() -> Making | None:
    """The arguments of the `EpochIterator` that is being made.

    Call it in the data adapter's `num_batches`, which is the last call of that constructor; None if another function
    calls that.
    """
    frame: FrameType | None = sys._getframe(2)  # this function, `num_batches`, the constructor
    if frame is None or frame.f_code is not _MADE:
        return None
    given = frame.f_locals
    maker = frame.f_back
    while maker is not None and maker.f_code.co_name == "__init__":  # a subclass's constructor
        maker = maker.f_back
    role = None if maker is None else _ROLES.get(maker.f_code.co_name)
    if maker is None or role is None:
        raise UnsupportedKeras(
            f"Keras {keras.__version__} reads a feed in a way that unbounded does not know. Give the feed to fit, "
            "evaluate or predict."
        )
    around = maker.f_locals
    if role == "fit" and "epoch_iterator" in around:
        role = "validation"
    names = ("y", "sample_weight", "class_weight", "batch_size")
    return Making(
        iterator=given["self"],
        role=role,
        model=around["self"],
        callbacks=around.get("callbacks"),
        steps=given["steps_per_epoch"],
        steps_per_execution=given["steps_per_execution"],
        others={name: given[name] for name in names if given.get(name) is not None},
    )


def adopt(iterator: Any, adapter: Any) -> None:
    """Make one of Keras's iterators read from its own adapter, which ends each epoch itself.

    Keras would keep one iterator of batches over all epochs, take the first epoch's length for that of all, and warn of
    missing data when an epoch ends.
    """

    def ended() -> None:
        iterator._num_batches = None

    iterator.data_adapter = adapter
    iterator.steps_per_epoch = None
    iterator._interrupted_warning = ended
    if _is_jax_on_cpu():
        # Keras 3.14 takes one batch ahead here, which is useless on a CPU: a step would wait for a row that it does not
        # need.
        iterator._get_iterator = adapter.get_jax_iterator


def _is_jax_on_cpu() -> bool:
    """True if batches are neither sent to a device nor divided among several."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return False
    import jax

    return bool(jax.default_backend() == "cpu")


def set_length(iterator: Any, steps: int | None) -> None:
    """Set the number of steps of the iteration that begins now; None if only its end will tell."""
    iterator._num_batches = steps


def callback_list() -> Any | None:
    """The calling `CallbackList`, if called in a callback's `set_params`; None for any other caller."""
    owner = sys._getframe(2).f_locals.get("self")  # this function, `set_params`, the list's own `set_params`
    return owner if isinstance(owner, keras.callbacks.CallbackList) else None


def tell_in_turn(found: Any) -> None:
    """Make a `CallbackList` call its callbacks for each event in the training thread, before the next event.

    Keras sends the ends of steps from a thread if no callback needs them at once. It decides that when the list is
    made, and looks at each callback only if it is given a list or tuple; not for a single callback or a dict.
    """
    for name in _ASYNC:
        setattr(found, name, False)


def is_fitting(frame: FrameType | None, callback: object) -> bool:
    """True if the frame that a signal has interrupted is inside a `fit` with `callback` in its list.

    Args:
        frame: the argument of the signal's handler.
    """
    while frame is not None:
        if frame.f_code.co_name == "fit":
            found = frame.f_locals.get("callbacks")
            if isinstance(found, keras.callbacks.CallbackList) and callback in found.callbacks:
                return True
        frame = frame.f_back
    return False


def begin_at_epoch(model: Any, epoch: int | None) -> None:
    """Make the `fit` that begins start with this epoch; None or 0 leaves it to `initial_epoch`."""
    model._initial_epoch = epoch or None


def build(model: Any, batch: Any) -> None:
    """Make the variables that Keras would make in the first step, from one batch's structure, shapes and dtypes."""
    model._symbolic_build(data_batch=batch)


def reattach(model: Any) -> None:
    """Put the variables back into a model: on JAX they are in the training loop while it runs."""
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def is_attached(model: Any) -> bool:
    """True if a model's variables can be read now without disturbing a running loop."""
    return keras.backend.backend() != "jax" or not getattr(model, "_jax_state", None)


def values_in_loop(model: Any) -> tuple[list[Any], list[Any]] | None:
    """In a `fit` on JAX, the values of a model's trainable and other variables after the last step, without putting
    them back into the variables, which costs a tiny model more than a step; None if the variables have their values."""
    state = getattr(model, "_jax_state", None)
    if not state or getattr(model, "_jax_state_synced", True):
        return None
    # Keras wraps lists that it keeps, and JAX takes such a wrapper for one value.
    return list(state["trainable_variables"]), list(state["non_trainable_variables"])


def global_seed_generator(*, make: bool = False) -> Any:
    """Keras's global seed generator; None if it was not made yet, unless `make`."""
    if make:
        return _seeds.global_seed_generator()
    return _seeds.global_state.get_global_attribute(_SEED_GENERATOR)


def trained_by(optimizer: Any) -> list[Any]:
    """The variables that an optimizer was built with, in its order; empty if it is not built."""
    return list(optimizer._trainable_variables)


class _Constant(DataAdapter):  # type: ignore[misc]
    """Counts the batches that are requested."""

    builtin_prefetch = True  # as for a feed's adapters
    num_batches = batch_size = partial_batch_size = None
    has_partial_batch = False

    def __init__(self) -> None:
        self.asked = 0

    def _batches(self) -> Any:
        while True:
            self.asked += 1
            yield (np.zeros((1, 1), np.float32),)

    get_numpy_iterator = get_jax_iterator = get_torch_dataloader = _batches


def taken_ahead(iterator: Any) -> int:
    """The number of batches that a Keras iterator takes before it yields the first: on JAX, to send them to a device.

    It is measured with an iterator of the same class over constants, so that no version has to be known.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None or _is_jax_on_cpu():
        return 0
    constant = _Constant()
    for _, _, batches in type(iterator)(constant):
        next(batches)
        break
    return constant.asked - 1


def _probe() -> None:
    """Raise UnsupportedKeras if Keras lacks a name that the functions above need."""
    missing = []
    seen: list[Any] = []

    class ProbeAdapter(DataAdapter):  # type: ignore[misc]
        @property
        def num_batches(self) -> None:
            frame = sys._getframe(1)
            names = ("self", "y", "sample_weight", "class_weight", "steps_per_epoch", "steps_per_execution")
            seen.append(frame.f_code is _MADE and all(name in frame.f_locals for name in names))
            return None

    class Listening(keras.callbacks.Callback):  # type: ignore[misc]
        def set_params(self, params: Any) -> None:
            seen.append(callback_list())

    feed = ProbeAdapter()
    iterator = EpochIterator(feed)
    if seen != [True] or getattr(iterator, "data_adapter", None) is not feed:
        missing.append("EpochIterator's arguments")
    if not hasattr(iterator, "_interrupted_warning") or not hasattr(iterator, "_num_batches"):
        missing.append("EpochIterator's counting")
    found = keras.callbacks.CallbackList([Listening()], epochs=1)
    if seen[1:] != [found]:
        missing.append("CallbackList.set_params")
    if any(not isinstance(getattr(found, name, None), bool) for name in _ASYNC):
        missing.append("CallbackList._async_train and its like")
    # On the class: making a model would start the backend, with threads that do not survive a fork.
    fit = inspect.unwrap(keras.Model.fit)
    if "_initial_epoch" not in fit.__code__.co_names or not hasattr(keras.Model, "_symbolic_build"):
        missing.append("Trainer._initial_epoch or _symbolic_build")
    if "_trainable_variables" not in inspect.unwrap(keras.optimizers.Optimizer.build).__code__.co_names:
        missing.append("Optimizer._trainable_variables")
    if not hasattr(_seeds, "global_seed_generator") or not hasattr(_seeds, "global_state"):
        missing.append("the global seed generator")
    if missing:
        raise UnsupportedKeras(
            f"Keras {keras.__version__} lacks what a feed needs: {', '.join(missing)}. unbounded is tested on Keras "
            f"{OLDEST} to 3.15: pip install 'keras>={OLDEST}'."
        )


_probe()

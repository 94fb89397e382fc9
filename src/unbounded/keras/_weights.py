"""load_model_state: loads a checkpoint's weights into a model for inference."""

from __future__ import annotations

import os
from typing import Any

from unbounded.keras import _model_state
from unbounded.store.choosing import ReadOnly
from unbounded.store.manifest import CheckpointError


def load_model_state(directory: str | os.PathLike[str], model: Any) -> int:
    """Load the weights of a run's newest checkpoint into a model, without resuming the run.

    This includes running statistics, seed generators and PyTorch's buffers, not the optimizer, metrics and the position
    in the data. The run may be training: nothing in its directory is changed or locked.

    Args:
        directory: of checkpoints that `ub.keras.Checkpoint` wrote.
        model: a model of the same architecture, compiled or not, built or not.

    Returns:
        The number of steps that the weights were trained for.

    Raises:
        CheckpointError: there is no readable checkpoint, or none of a Keras run.
        ValueError: the model differs; the message names the first variable that does.

    Warns:
        DamagedCheckpoint: the newest checkpoint is damaged, and an older one was taken.

    Example:
        >>> import keras, numpy as np, tempfile, unbounded as ub
        >>> def make():
        ...     return keras.Sequential([keras.layers.Dense(1)])
        >>> model, folder = make(), tempfile.mkdtemp()
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> stream = ub.from_arrays((np.ones((10, 3)), np.ones((10, 1)))).batch(4)
        >>> with ub.keras.Feed(stream, epoch=ub.Epoch(steps=5)) as feed:
        ...     history = model.fit(feed, verbose=0, callbacks=[ub.keras.Checkpoint(feed, folder)])
        >>> served = make()
        >>> load_model_state(folder, served)
        5
        >>> bool((served.get_weights()[0] == model.get_weights()[0]).all())
        True
    """
    checkpoints = ReadOnly(directory)
    try:
        found = checkpoints.read_newest(only=[("model", part) for part in _model_state.FOR_INFERENCE])
    except CheckpointError:
        for saved in checkpoints.all()[-1:]:
            if "keras" not in saved.info:
                raise CheckpointError(
                    f"{saved.path} was not written by ub.keras.Checkpoint, and holds no weights of a Keras model. What "
                    "a core feed saved is read by feed.load(directory)."
                ) from None
        raise
    if found is None:
        raise CheckpointError(
            f"There is no checkpoint in {os.fspath(directory)!r}. Expected the directory of a run that "
            "ub.keras.Checkpoint(feed, directory) has saved at least once."
        )
    saved, state = found
    _model_state.restore_variables(model, state["model"])
    return saved.number

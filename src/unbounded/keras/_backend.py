"""Imports Keras, with an error that says what to do if Keras or its backend is not installed.

All other modules of this package import it first. Keras chooses its backend when it is imported, by KERAS_BACKEND or
~/.keras/keras.json, and takes TensorFlow if neither is set, whatever is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os

BACKENDS = ("jax", "torch", "tensorflow")


def import_keras() -> None:
    """Import Keras.

    Raises:
        ModuleNotFoundError: Keras or its backend is missing; the message names the backends that are installed.
    """
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing != "keras" and missing not in BACKENDS:
            raise
        raise ModuleNotFoundError(_sentence(missing), name=error.name) from error


def _sentence(missing: str) -> str:
    if missing == "keras":
        return (
            "ub.keras needs Keras, which is not installed. Install it with the framework that it is to run on: "
            "pip install 'unbounded[jax]', or [torch], or [tensorflow]."
        )
    asked = os.environ.get("KERAS_BACKEND")
    why = f"KERAS_BACKEND is {asked!r}" if asked else "KERAS_BACKEND is not set, and Keras's own choice is that"
    installed = [name for name in BACKENDS if name != missing and importlib.util.find_spec(name) is not None]
    if not installed:
        return (
            f"Keras is to run on {missing}, which is not installed ({why}), and neither is another backend: "
            f"pip install 'unbounded[jax]', and set KERAS_BACKEND=jax; or 'unbounded[{missing}]'."
        )
    return (
        f"Keras is to run on {missing}, which is not installed ({why}). Installed: {', '.join(installed)}. Set it "
        "before Keras is first imported (a notebook has to be restarted): "
        f'os.environ["KERAS_BACKEND"] = "{installed[0]}".'
    )


import_keras()

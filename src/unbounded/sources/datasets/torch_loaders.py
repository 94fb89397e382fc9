"""Data loaders of PyTorch: copies that draw from generators of their own, and start no process by a fork.

A loader draws a seed for its workers, and a sampler its order, from PyTorch's global generator where they have none.
Dropout draws from it, too, in another thread: reading would change the training.
"""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np

from unbounded.core.permutation import seeds_of


def refuse_forks(loader: Any) -> None:
    """Raise ValueError if the loader's workers would be forked: threads of JAX, TensorFlow and this library hold locks,
    which a forked process has locked for ever."""
    if not getattr(loader, "num_workers", 0):
        return
    context = getattr(loader, "multiprocessing_context", None)
    if context is not None:
        method = context.get_start_method()
    else:
        processes = sys.modules["torch"].multiprocessing
        # `get_context` would choose a method for the whole program.
        method = processes.get_start_method(allow_none=True) or processes.get_all_start_methods()[0]
    if method == "fork":
        raise ValueError(
            f"from_dataset() was given a {type(loader).__name__} with num_workers={loader.num_workers}, which forks "
            "this process: a fork hangs where threads of JAX, TensorFlow or a feed hold locks. Use num_workers=0 and "
            '.prefetch(4), which reads ahead in a thread; or multiprocessing_context="spawn".'
        )


def own_copy(loader: Any, seed: int, number: int) -> Any:
    """A copy of a loader that was not read, for pass `number`: it has samplers and generators of its own, and shares
    all else.

    In pass 0 generators are as the user made them. In a later one they have a seed of their own, so that each pass has
    another order. Where there is none, it is one with `seed`.
    """
    parts = vars(loader)
    copied = {"sampler", "batch_sampler", "generator"}
    if hasattr(loader.dataset, "load_state_dict"):
        copied.add("dataset")
    shared = [part for name, part in parts.items() if name not in copied] + shared_parts(loader.dataset)
    own = copy.deepcopy(loader, {id(part): part for part in shared})
    generators = sys.modules["torch"].Generator
    seen: list[int] = []
    for part in (own, *_samplers(own)):
        if not hasattr(part, "generator"):
            continue
        if part.generator is None:
            part.generator = generators().manual_seed(_seed(seed, number))
        elif number and id(part.generator) not in seen:
            part.generator.manual_seed(_seed(part.generator.initial_seed(), number))
        seen.append(id(part.generator))
    return own


def shared_parts(dataset: Any) -> list[Any]:
    """The parts of a data set that its copies share: of one of Hugging Face the cache of file systems, to which a copy
    in another thread would add one while it is copied."""
    return [part for name, part in getattr(dataset, "__dict__", {}).items() if name.endswith("__hffs_cache")]


def _seed(seed: int, number: int) -> int:
    return int(seeds_of((seed, number)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _samplers(loader: Any) -> list[Any]:
    found = []
    for part in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        while part is not None and part not in found:
            found.append(part)
            part = getattr(part, "sampler", None)
    return found

"""Arrays that a user function keeps are copied before a stage holds them or they are handed out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from unbounded.stages.owned_rows import owned


def _filled_again() -> Callable[[Any], Any]:
    """A function that returns one memory for each shape, filled again at each call."""
    memory: dict[Any, Any] = {}

    def fn(rows: Any) -> Any:
        kept = memory.setdefault(rows.shape, np.empty(rows.shape))
        np.copyto(kept, rows)
        return kept

    return fn


def _dict_filled_again() -> Callable[[Any], Any]:
    memory: dict[Any, Any] = {}

    def fn(rows: Any) -> Any:
        kept = memory.setdefault(rows.shape, {"x": np.empty(rows.shape)})
        np.copyto(kept["x"], rows)
        return kept

    return fn


STREAMS: dict[str, Callable[[ub.Stream, Callable[[Any], Any]], ub.Stream]] = {
    "map": lambda stream, fn: stream.map(fn).batch(4),
    "map after batch": lambda stream, fn: stream.batch(4).map(fn),
    "map in a worker": lambda stream, fn: stream.batch(4).map(fn, workers=1),
    "map after batch and prefetch": lambda stream, fn: stream.batch(4).map(fn).prefetch(3),
    "random_map": lambda stream, fn: stream.random_map(lambda rows, rng: fn(rows), group=3).batch(4),
    "random_map after batch": lambda stream, fn: stream.batch(4).random_map(lambda rows, rng: fn(rows)),
    "map_rows": lambda stream, fn: stream.map_rows(lambda row: fn(np.asarray(row))).batch(4),
}


@pytest.mark.parametrize("make", [_filled_again, _dict_filled_again])
@pytest.mark.parametrize("words", STREAMS)
def test_a_function_may_return_one_memory_again_and_again(words: str, make: Callable[[], Any]) -> None:
    stream = STREAMS[words](ub.from_arrays(np.arange(10.0), shuffle=False), make())
    with ub.Feed(stream, epoch=ub.Epoch(steps=7)) as feed:
        batches = [batch["x"] if isinstance(batch, dict) else batch for batch in feed]
    assert np.concatenate(batches).tolist() == [i % 10 for i in range(28)]


def test_what_a_trainer_does_to_a_batch_does_not_reach_a_table_that_a_function_gives_out() -> None:
    table = np.arange(100.0)
    stream = ub.from_arrays(np.arange(10.0)).batch(5).map(lambda rows: (rows * 1, table[: len(rows)]))
    with ub.Feed(stream, epoch=ub.Epoch(steps=4)) as feed:
        for rows, part in feed:
            assert part.tolist() == [0, 1, 2, 3, 4]
            part *= 0
            rows *= 0
    assert table.tolist() == list(range(100))


def test_only_what_somebody_else_refers_to_is_copied() -> None:
    given, kept = np.arange(6.0), np.zeros(6)
    made = [(given[:3], given * 2, np.zeros(4)[:3], kept, kept[:2], {"x": kept.reshape(2, 3)}, None)]
    result = owned(made, given)
    same = [np.shares_memory(a, b) for a, b in zip(made[0][:5], result[:5], strict=True)]
    assert same == [True, True, True, False, False]
    assert not np.shares_memory(result[5]["x"], kept)

"""Streams of simulated walks whose every batch is known beforehand: stages over sources that can go back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from tests.helpers import from_start

import unbounded as ub

Touch: TypeAlias = Callable[[Any], Any]
"""A function of the user's, which may fail and takes its time."""

_TABLES = ("table", "join")
_STAGES = ("map", "map", "shuffle", "filter", "replay", "windows", "buffer", "random_map", "prefetch", "normalize")


@dataclass
class Plan:
    """What a walk is made of.

    Args:
        words: of the stream, for messages.
        stream: makes it.
        steps: how far to train.
        excluded: makes it without some rows; None where all of them weigh.
        without: the numbers of these rows, which are in the column `id` of its batches.
    """

    words: str
    stream: Callable[[Touch], ub.Stream]
    steps: int
    excluded: Callable[[Touch], ub.Stream] | None = None
    without: tuple[int, ...] = ()


def records(start: int = 0) -> Iterator[Any]:
    """Rows with an id, a key and a float, from any row on; keys come and go."""
    while True:
        n = start % 7 + 1
        ids = np.arange(start, start + n)
        yield {"id": ids, "k": ids * 7919 % 11 + ids // 50 % 3, "x": np.sin(ids) * 5 + ids / 10}
        start += n


def judgements(start: int = 0) -> Iterator[Any]:
    """A label for each row of `records`, within tens in another order; each tenth is of no row."""
    while True:
        n = start % 4 + 1
        number = np.arange(start, start + n)
        ids = number // 10 * 10 + number * 3 % 10
        yield {"id": np.where(number % 10 == 4, -1 - number, ids), "y": number * 1.0}
        start += n


def plan(rng: random.Random) -> Plan:
    """A stream of some stages, chosen by chance."""
    rows, seed = rng.randint(5, 400), rng.randint(0, 9)
    source = rng.choice(("arrays", "arrays in order", "generator", "mix", "table", "table", "join"))
    within = rng.choice((15, 100))
    words: list[str] = []
    stages: list[Callable[[ub.Stream, Touch], ub.Stream]] = []
    for _ in range(rng.randint(0, 4)):
        choice = rng.choice(_STAGES)
        stage = _stage(choice, rng, source in _TABLES, is_mixed=source == "mix")
        once = choice in ("windows", "normalize")
        if stage is None or (once and any("windows" in word or word.startswith(choice) for word in words)):
            continue
        words.append(stage[0])
        stages.append(stage[1])
    size, ahead = rng.randint(1, 20), rng.randint(0, 6)
    words.append(f"batch({size})")
    stages.append(lambda s, f: s.batch(size))
    if ahead:
        words.append(f"prefetch({ahead})")
        stages.append(lambda s, f: s.prefetch(ahead))

    without: list[int] = []
    if source.startswith("arrays") and not any("filter" in word for word in words) and rng.random() < 0.5:
        without = sorted(rng.sample(range(rows), rng.randint(1, rows)))
        # How many rows of a pass come out of `replay` is not known: `exclude` is refused where that decides.
        repeated = [word for word in words if word.startswith(("replay", "shuffle", "windows"))]
        if any(word.startswith("replay") for word in repeated[:-1]):
            without = []
    if without:
        words.append(f"exclude({len(without)} rows)")

    def make(touch: Touch) -> ub.Stream:
        stream = _source("numbered " * bool(without) + source, rows, seed, within, touch)
        for stage in stages:
            stream = stage(stream, touch)
        return stream

    def excluded(touch: Touch) -> ub.Stream:
        return make(touch).exclude(without)

    return Plan(
        f"{source}({rows}).{'.'.join(words)}", make, rng.randint(5, 40), excluded if without else None, tuple(without)
    )


def _source(source: str, rows: int, seed: int, within: int, touch: Touch) -> ub.Stream:
    if source == "generator":
        return ub.from_generator(from_start)
    if source == "table":
        return ub.from_generator(records)
    if source == "join":
        labels = ub.from_generator(judgements).map(touch, workers=seed % 3)
        unmatched: Any = "keep" if seed % 2 else "drop"
        return ub.from_generator(records).join(labels, on="id", within=within, unmatched=unmatched)
    numbers = np.arange(rows)
    arrays: Any = {"id": numbers, "x": numbers * 1.0} if source.startswith("numbered") else numbers
    stream = ub.from_arrays(arrays, shuffle=not source.endswith("in order"), seed=seed)
    if source == "mix":
        others = ub.from_generator(from_start).prefetch(2)
        return ub.mix([stream.map(touch), others], weights=[1, 1 + seed], seed=seed)
    return stream


def _stage(
    choice: str, rng: random.Random, is_table: bool, *, is_mixed: bool
) -> tuple[str, Callable[[ub.Stream, Touch], ub.Stream]] | None:
    """A stage as a word and what puts it after a stream; None where it can't stand there."""
    n, workers, expire = rng.randint(1, 60), rng.randint(0, 3), rng.choice((None, 20, 100))
    if choice == "map":
        return f"map(workers={workers})", lambda s, f: s.map(lambda a: _changed(f(a), 2), workers=workers)
    if choice == "shuffle":
        return f"shuffle({n})", lambda s, f: s.shuffle(n)
    if choice == "filter":
        return "filter(…)", lambda s, f: s.filter(lambda a: _numbers(f(a)).reshape(len(_numbers(a)), -1)[:, 0] % 3 > 0)
    if choice == "replay":
        return f"replay({n}, 2)", lambda s, f: s.replay(n, reuse=2)
    if choice == "buffer":
        return f"buffer({n})", lambda s, f: s.buffer(n)
    if choice == "random_map":
        return "random_map", lambda s, f: s.random_map(
            lambda a, r: _changed(f(a), 1, r.integers(0, 5, _numbers(a).shape))
        )
    if choice == "windows" and is_table:
        return f"windows(3, by=k, expire={expire})", lambda s, f: s.windows(3, by="k", expire=expire)
    if choice == "normalize" and is_table:
        by = rng.choice((None, "k"))
        if by is None:
            return "normalize(x)", lambda s, f: s.normalize("x")
        return f"normalize(x, by=k, expire={expire})", lambda s, f: s.normalize("x", by="k", expire=expire)
    if choice == "windows" and not is_mixed:
        return "windows(3)", lambda s, f: s.windows(3)
    return None


def _numbers(rows: Any) -> Any:
    return rows["id"] if isinstance(rows, dict) else rows


def _changed(rows: Any, factor: int, more: Any = 0) -> Any:
    if isinstance(rows, dict):
        return {**rows, "x": rows["x"] * factor + more}
    return rows * factor + more

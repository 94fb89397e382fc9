"""Simulated walks over tables with gaps: the stages that fill, drop, encode and window them, over kills and faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from tests.simulated import Walk
from tests.simulated_plans import Plan, Touch, records

import unbounded as ub

Stage = Callable[[ub.Stream, Touch], ub.Stream]


def gaps(rows: Any) -> Any:
    """Rows of `records`, or windows of them, with missing values, text, times, and keys of single rows."""
    first = rows["id"].reshape(len(rows["id"]), -1)[:, 0]
    return {
        **rows,
        "x": np.where(rows["id"] % 5 < 2, np.nan, rows["x"]),
        "text": np.where(first % 4 == 1, "", first.astype(str)),
        "at": first // 30 * 600 + first,
        "key": first % 7,
    }


def numbers(rows: Any) -> Any:
    """The columns with which the next stage begins."""
    return {name: rows[name] for name in ("id", "k", "x")}


def _stage(rng: random.Random) -> tuple[str, Stage]:
    expire, n = rng.choice((None, 10, 100)), rng.randint(1, 30)
    by = rng.choice((None, "key"))
    return rng.choice(
        (
            ("shuffle", lambda s, f: s.shuffle(n)),
            ("map", lambda s, f: s.map(lambda rows: numbers(f(rows)), workers=n % 3)),
            ("fill(last, by)", lambda s, f: s.map(gaps).fill("last", by="key", expire=expire).fill(0.0).map(numbers)),
            ("fill(last)", lambda s, f: s.map(gaps).fill({"x": "last"}).fill(0.0).map(numbers)),
            ("drop_missing", lambda s, f: s.map(gaps).drop_missing(["x", "text"]).map(numbers)),
            (
                "encode",
                lambda s, f: (
                    s.map(gaps).encode("text", hash=50).fill(0.0).map(lambda r: numbers({**r, "k": r["text"]}))
                ),
            ),
            (
                f"windows(2, max_gap, by={by})",
                lambda s, f: s.map(gaps).fill(0.0).time("at").windows(2, by=by, max_gap=200).map(numbers),
            ),
        )
    )


class TableWalk(Walk):
    """A walk over a table that can be read again from any row."""

    def make_plan(self) -> Plan:
        """The stream: one to four stages."""
        rng = self.rng
        stages = [_stage(rng) for _ in range(rng.randint(1, 4))]
        size, ahead = rng.randint(1, 12), rng.randint(0, 4)

        def make(touch: Touch) -> ub.Stream:
            stream = ub.from_generator(records)
            for _, stage in stages:
                stream = stage(stream, touch)
            stream = stream.batch(size)
            return stream.prefetch(ahead) if ahead else stream

        return Plan(f"table.{'.'.join(word for word, _ in stages)}.batch({size})", make, rng.randint(5, 40))

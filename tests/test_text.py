"""Columns of text: strings of any length pass every stage, a checkpoint and a resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


def name(i: int) -> str:
    return "é" * (i % 7) + f"id{i}"


def rows(start: int = 0) -> Iterator[Any]:
    """Blocks of changing length, whose text is as wide as the longest in each."""
    while True:
        n = start % 5 + 1
        ids = np.arange(start, start + n)
        yield {"id": ids, "name": np.array([name(i) for i in ids]), "raw": np.array([b"x" * (i % 9) for i in ids])}
        start += n


def singles(start: int = 0) -> Iterator[Any]:
    while True:
        yield {"id": start, "name": name(start), "raw": b"x" * (start % 9)}
        start += 1


class Kept:
    def __init__(self) -> None:
        self.i = 0

    def __iter__(self) -> Kept:
        return self

    def __next__(self) -> Any:
        made = next(rows(self.i))
        self.i += len(made["id"])
        return made

    def state_dict(self) -> Any:
        return {"i": self.i}

    def load_state_dict(self, state: Any) -> None:
        self.i = state["i"]


SOURCES = {
    "start": lambda: ub.from_generator(rows),
    "state": lambda: ub.from_generator(Kept),
    "live": lambda: ub.from_generator(lambda: rows()),
    "samples": lambda: ub.from_samples(singles),
    "live samples": lambda: ub.from_samples(lambda: singles()),
}
STAGES = {
    "batch": lambda s: s.batch(4),
    "shuffle": lambda s: s.shuffle(9).batch(4),
    "replay": lambda s: s.replay(12, reuse=2).batch(4),
    "filter": lambda s: s.filter(lambda r: r["id"] % 3 > 0).batch(4),
    "map": lambda s: s.map(lambda r: r, workers=2).batch(4).map(lambda r: r).prefetch(2),
    "map_rows": lambda s: s.map_rows(lambda r: r).batch(4),
    "random_map": lambda s: s.random_map(lambda r, rng: r, group=3).batch(4),
    "take": lambda s: s.take(50).batch(4),
    "buffer": lambda s: s.buffer(9).batch(4),
    "no batch": lambda s: s,
}


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("source", list(SOURCES))
def test_text_of_any_length_travels(source: str, stage: str) -> None:
    for batch in first(STAGES[stage](SOURCES[source]()), 12):
        assert batch["name"].tolist() == [name(i) for i in batch["id"]]
        assert batch["raw"].tolist() == [b"x" * (i % 9) for i in batch["id"]]


@pytest.mark.parametrize("stage", ["batch", "shuffle", "replay", "filter", "random_map", "map"])
@pytest.mark.parametrize("source", ["start", "state", "live"])
def test_text_resumes(source: str, stage: str) -> None:
    assert_resumes(STAGES[stage](SOURCES[source]()), 6)


def test_text_may_be_a_key_whatever_its_length() -> None:
    def keyed(start: int = 0) -> Iterator[Any]:
        for made in rows(start):
            yield {"x": made["id"].astype(float), "k": np.array(["key" * (i % 3 + 1) for i in made["id"]])}

    for batch in first(ub.from_generator(keyed).windows(3, by="k").batch(4), 6):
        assert (batch["k"] == batch["k"][:, :1]).all()
        assert (np.diff(batch["x"], axis=1) == 3).all()
    assert len(first(ub.from_generator(keyed).normalize("x", by="k").batch(4), 6)) == 6


def test_text_that_is_left_out_may_be_anything() -> None:
    batches = first(ub.from_generator(rows).columns("id").batch(4), 10)
    assert np.concatenate(batches).tolist() == list(range(40))


@pytest.mark.parametrize("in_json", [True, False])
def test_text_that_was_read_and_not_trained_on_travels_with_the_state(in_json: bool, tmp_path: Path) -> None:
    stream = ub.from_generator(lambda: rows()).batch(4)
    with ub.Feed(stream) as feed:
        batches = feed.batches()
        expected = [next(batches)["name"].tolist() for _ in range(6)]
        batches.close()
        assert feed.rewind() == 1
        state = json.loads(json.dumps(feed.state_dict()))
        feed.save(tmp_path)
    with ub.Feed(stream) as feed:
        if in_json:
            feed.load_state_dict(state)
        else:
            feed.load(tmp_path)
        assert next(feed.batches())["name"].tolist() == expected[5]


def test_text_in_place_of_numbers_is_still_refused_and_the_advice_can_be_typed() -> None:
    def wrong(start: int = 0) -> Iterator[Any]:
        yield np.array(["a", "bb"])
        yield np.array([1, 2])

    with (
        ub.Feed(ub.from_generator(wrong).batch(4)) as feed,
        pytest.raises(ub.RowsError, match=r"is now int64 and was <U2\. Yield one dtype: \.astype\('str'\)"),
    ):
        next(feed.batches())

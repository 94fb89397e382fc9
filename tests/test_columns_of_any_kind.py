"""Text, times, durations, integers and bools pass every stage, the row log, checkpoints, mix, join and replay."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")

START = np.datetime64("2026-01-01T00:00:00", "us")


def table(ids: Any) -> dict[str, Any]:
    """Rows whose values follow from their ids."""
    ids = np.asarray(ids)
    return {
        "id": ids,
        "k": np.array([f"k{i % 3}" for i in ids.tolist()]),
        "text": np.array(["é" * (i % 7) + f"{i}" if i % 5 else "" for i in ids.tolist()]),
        "at": np.where(ids % 4 == 3, np.datetime64("NaT", "us"), START + ids * 1_000_000),
        "took": ids.astype("m8[ms]"),
        "small": (ids % 100).astype(np.uint8),
        "yes": ids % 2 == 0,
        "pair": np.stack([ids, -ids], axis=1).astype(np.int16),
    }


def check(batch: Any) -> None:
    """Each column has the values that its ids imply, and its dtype."""
    ids = batch["id"]
    expected = table(ids.ravel())
    for name in batch:
        want = expected[name].reshape(*ids.shape, *expected[name].shape[1:])
        assert batch[name].dtype.kind == want.dtype.kind, name
        assert batch[name].dtype.kind == "U" or batch[name].dtype == want.dtype, name
        assert batch[name].shape == want.shape, name
        assert batch[name].astype(str).tolist() == want.astype(str).tolist(), name


def blocks(start: int = 0) -> Iterator[Any]:
    while True:
        count = start % 5 + 1
        yield table(np.arange(start, start + count))
        start += count


def singles(start: int = 0) -> Iterator[Any]:
    for i in itertools.count(start):
        yield {name: column[0] for name, column in table([i]).items()}


SOURCES: dict[str, Callable[[], ub.Stream]] = {
    "arrays": lambda: ub.from_arrays(table(np.arange(60)), seed=1),
    "seeking": lambda: ub.from_generator(blocks),
    "row log": lambda: ub.from_generator(lambda: blocks()),
    "single rows in the row log": lambda: ub.from_samples(lambda: singles()),
}
STAGES: dict[str, Callable[[ub.Stream], ub.Stream]] = {
    "map": lambda s: s.map(lambda r: r, workers=2),
    "map_rows": lambda s: s.map_rows(lambda r: r),
    "random_map": lambda s: s.random_map(lambda r, rng: r, group=3),
    "filter": lambda s: s.filter(lambda r: r["yes"]),
    "shuffle": lambda s: s.shuffle(9),
    "buffer": lambda s: s.buffer(9),
    "replay": lambda s: s.replay(12, reuse=2),
    "windows": lambda s: s.windows(3),
    "keyed windows": lambda s: s.windows(3, by="k"),
    "keyed normalize": lambda s: s.map(lambda r: {**r, "x": r["id"] / 7}).normalize("x", by="k").map(_without_x),
    "drop_missing": lambda s: s.drop_missing(["text", "at"]),
    "encode": lambda s: s.map(lambda r: {**r, "x": r["text"]}).encode("x", hash=9).map(_without_x),
    "keyed fill": lambda s: s.map(lambda r: {**r, "x": r["text"]}).fill({"x": "last"}, by="k").map(_without_x),
    "mix": lambda s: ub.mix([s, ub.from_generator(blocks)], weights=[3, 1]),
    "join": lambda s: s.join(_labels(), on="id", within=50, unmatched="keep").map(_labelled),
}


def _without_x(rows: Any) -> Any:
    return {name: column for name, column in rows.items() if name != "x"}


def _labels() -> ub.Stream:
    def labels(start: int = 0) -> Iterator[Any]:
        for i in itertools.count(start):
            made = table([i * 2])
            yield {"id": made["id"], "word": made["text"], "when": made["at"]}

    return ub.from_generator(labels)


def _labelled(rows: Any) -> Any:
    ids = rows["id"]
    assert rows["word"].dtype.kind == "U"
    assert rows["when"].dtype.kind == "M"
    even = ids % 2 == 0
    assert rows["word"][even].tolist() == table(ids)["text"][even].tolist()
    assert rows["when"][even].astype(str).tolist() == table(ids)["at"][even].astype(str).tolist()
    return {name: column for name, column in rows.items() if name not in ("word", "when")}


@pytest.mark.parametrize("stage", list(STAGES))
@pytest.mark.parametrize("source", list(SOURCES))
def test_columns_of_any_kind_pass_a_stage(source: str, stage: str) -> None:
    for batch in first(STAGES[stage](SOURCES[source]()).batch(4), 9):
        check(batch)


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "join"])
@pytest.mark.parametrize("source", ["seeking", "row log"])
def test_they_resume(source: str, stage: str) -> None:
    assert_resumes(STAGES[stage](SOURCES[source]()).batch(4), 5)


@pytest.mark.parametrize("stage", ["shuffle", "keyed windows", "keyed fill", "mix", "replay"])
@pytest.mark.parametrize("in_json", [True, False])
def test_they_are_in_checkpoints_and_states(stage: str, in_json: bool, tmp_path: Path) -> None:
    stream = STAGES[stage](SOURCES["row log"]()).batch(4)
    with ub.Feed(stream) as feed:
        batches = feed.batches()
        expected = [next(batches)["id"].tolist() for _ in range(6)]
        batches.close()
        feed.rewind()
        state = json.loads(json.dumps(feed.state_dict()))
        feed.save(tmp_path)
    with ub.Feed(stream) as feed:
        if in_json:
            feed.load_state_dict(state)
        else:
            feed.load(tmp_path)
        batch = next(feed.batches())
        check(batch)
        assert batch["id"].tolist() == expected[5]


@pytest.mark.parametrize("values", [[b"a", None], ["a", None], [None, 1.5], [np.zeros(2), None]])
def test_objects_of_several_kinds_reach_a_loop_of_ones_own(values: list[Any]) -> None:
    column = np.empty(len(values), object)
    column[:] = values
    (batch,) = first(ub.from_arrays({"x": column}, shuffle=False).shuffle(1).batch(2), 1)
    assert [type(value) for value in batch["x"]] == [type(value) for value in values]


def test_a_row_without_a_label_has_a_missing_one_of_the_labels_dtype() -> None:
    rows = ub.from_arrays({"id": np.arange(6)}, shuffle=False, passes=1)
    labels = {"id": np.arange(0, 6, 2), "word": np.array(["a", "bb", "c"]), "when": START + np.arange(3)}
    joined = rows.join(ub.from_arrays(labels, shuffle=False, passes=1), on="id", within=10, unmatched="keep")
    (batch,) = first(joined.batch(6), 1)
    order = np.argsort(batch["id"])
    assert batch["word"][order].tolist() == ["a", "", "bb", "", "c", ""]
    assert np.isnat(batch["when"][order]).tolist() == [False, True] * 3

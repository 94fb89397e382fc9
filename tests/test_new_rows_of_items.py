"""New rows before they are trained on, of streams with ragged rows, images, parts of a split and balanced classes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import installed
from test_images import _encoded
from unbounded.feed.new_rows import NewRowsOf

pytestmark = pytest.mark.usefixtures("no_threads_left")


def _tested(stream: ub.Stream, steps: int) -> tuple[list[int], list[Any], list[Any]]:
    """The numbers of the rows that are tested, what they are then, and the batches."""
    numbers: list[int] = []
    tested, trained = [], []
    with ub.Feed(stream, confirm="manual") as feed:
        new, upto = NewRowsOf(feed, "source"), 0
        for step in range(steps):
            feed.fetch(1)
            seen = feed.seen_at(step)
            if seen > upto and (rows := new.between(upto, seen)) is not None:
                numbers += rows.numbers.tolist()
                tested.append(rows.rows)
            upto = max(upto, seen)
            trained.append(feed.take())
            feed.trained()
    return numbers, tested, trained


def _words(i: int) -> list[int]:
    return [i] * (i % 4 + 1)


SOURCE = {"id": np.arange(300), "x": ub.ragged([_words(i) for i in range(300)])}


@pytest.mark.parametrize(
    "words",
    [
        lambda s: s.pad(4).shuffle(20).batch(5),
        lambda s: s.shuffle(20).pad(4).batch(5),
        lambda s: s.shuffle(20).batch(5, bucket=[2, 4]),
        lambda s: s.map(lambda rows: {**rows, "y": rows["id"] % 5}).balance("y", rows=30).pad(4).batch(5),
    ],
)
def test_each_row_is_tested_once_and_padded_as_it_is_trained_on(words: Any) -> None:
    numbers, tested, _ = _tested(words(ub.from_arrays(SOURCE, shuffle=False)), 40)
    assert numbers == list(range(numbers[-1] + 1))
    assert all(rows["x"].shape == (len(rows["id"]), 4) for rows in tested)
    assert [i for rows in tested for i in rows["id"].tolist()] == numbers


def test_rows_of_the_other_part_of_a_split_are_not_tested() -> None:
    part = ub.from_arrays({"id": np.arange(300)}, shuffle=False).shuffle(20).split(0.5)[0]
    numbers, _, trained = _tested(part.batch(4), 20)
    assert {i for batch in trained for i in batch["id"].tolist()} <= {*numbers}
    whole = {i for batch in itertools.islice(ub.Feed(part.batch(1)).batches(), 150) for i in batch["id"].tolist()}
    assert {*numbers} <= whole


@installed("PIL")
def test_images_are_decoded_for_the_test() -> None:
    rows = {"id": np.arange(100), "image": ub.ragged([_encoded(i) for i in range(100)])}
    rows["image"][17] = b"broken"
    stream = ub.from_arrays(rows, shuffle=False).shuffle(10).images("image", 4, on_bad="skip").batch(5)
    numbers, tested, _ = _tested(stream, 12)
    assert numbers == [i for i in range(numbers[-1] + 1) if i != 17]
    assert all((rows["image"][:, 0, 0, 0] == rows["id"]).all() for rows in tested)


def test_rows_without_numbers_of_their_own_are_refused() -> None:
    base = ub.from_arrays({"id": np.arange(9)})
    for stream in (base.flat_map(lambda row: [row]).batch(2), base.shuffle(3).flat_map(lambda row: [row]).batch(2)):
        with ub.Feed(stream) as feed, pytest.raises(ValueError, match=r"flat_map\(\) makes several rows"):
            NewRowsOf(feed, "source")

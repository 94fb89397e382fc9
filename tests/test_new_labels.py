"""Of a join, rows as they come and labels as they come: the same over restarts, and whatever was read ahead."""

import json

import numpy as np
import pytest

import unbounded as ub
from late_labels import STREAMS, joined, target
from unbounded.core.packing import pack, unpack
from unbounded.feed.new_labels import NewLabelsOf
from unbounded.feed.predictions import WaitingPredictions

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Judge:
    """What a test before training keeps, with the step for a prediction."""

    def __init__(self):
        self.upto = self.next_row = self.unlabelled = 0
        self.waiting = WaitingPredictions()
        self.predicted, self.table = [], []

    def step(self, feed, new, step):
        feed.fetch(1)
        upto = feed.seen_at(step)
        if upto <= self.upto:
            return
        came, labelled, expired = new.between(self.upto, upto)
        if came is not None:
            assert (came.came["id"] == came.numbers).all()
            assert came.numbers[0] >= self.next_row
            self.next_row = int(came.numbers[-1]) + 1
            made = np.full(len(came.numbers), step)
            self.waiting.add({"number": came.numbers, "time": came.times, "prediction": made})
            self.predicted += [(number, step) for number in came.numbers.tolist()]
        if labelled is not None:
            _, found = self.waiting.find(labelled.numbers)
            assert (found["number"] == labelled.numbers).all()  # each was predicted before
            assert (labelled.rows[1] == target(labelled.numbers)).all()
            rows = zip(found["number"].tolist(), found["prediction"].tolist(), strict=True)
            self.table += [(number, predicted, step) for number, predicted in rows]
            self.waiting.remove(labelled.numbers)
        self.unlabelled += self.waiting.forget_before(expired)
        self.upto = upto

    def state(self):
        waiting = pack({"rows": self.waiting.state()})
        return [self.upto, self.next_row, self.unlabelled, waiting, list(self.predicted), list(self.table)]

    def restore(self, state):
        self.upto, self.next_row, self.unlabelled, waiting, predicted, table = state
        self.waiting = WaitingPredictions(unpack(*waiting)["rows"])
        self.predicted, self.table = list(predicted), list(table)

    def figures(self):
        return self.predicted, self.table, self.unlabelled, len(self.waiting)


def judged(stream, steps, kills, every):
    """A run of so many steps that is killed before some of them, and goes on from its newest checkpoint."""
    kept = None
    for stop in (*kills, steps):
        with ub.Feed(stream, confirm="manual") as feed:
            new, here = NewLabelsOf(feed, next(iter(stream.leaves))), Judge()
            if kept is not None:
                feed.load_state_dict(json.loads(kept[0]))
                here.restore(kept[1])
            for step in range(feed.steps, stop):
                here.step(feed, new, step)
                feed.take()
                feed.trained()
                if (step + 1) % every == 0:
                    kept = json.dumps(feed.state_dict()), here.state()
    return here.figures()


@pytest.mark.parametrize("name", STREAMS)
def test_a_run_that_was_killed_is_the_run_that_was_not(name):
    stream = STREAMS[name]()
    whole = judged(stream, 24, (), 3)
    assert len(whole[1]) > 20
    assert judged(stream, 24, (2, 7, 8, 17), 3) == whole
    assert judged(stream.prefetch(9), 24, (5, 14), 3) == whole


def test_rows_of_one_input_of_a_mix_are_known_where_a_block_has_none_of_them():
    old = ub.from_arrays((np.zeros((50, 3), "float32"), np.zeros((50, 1), "float32")), seed=3)
    mixed = ub.mix({"old": old, "new": joined().columns("x", "y")}, weights={"old": 40, "new": 1}).batch(8)
    for stream in (mixed, mixed.before_batch().shuffle(16).batch(8), mixed.before_batch().replay(30, reuse=2).batch(8)):
        with ub.Feed(stream, confirm="manual") as feed:
            new, here = NewLabelsOf(feed, "new/rows"), Judge()
            for step in range(120):
                here.step(feed, new, step)
                feed.take()
                feed.trained()
        assert len(here.table) > 5

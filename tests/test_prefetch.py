"""prefetch and buffer: queues filled by a thread; drops are counted, and become gaps."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Steps, blocks, first_ids, from_start, ids, table, train_all, wait_until
from unbounded.core.block import Boundary
from unbounded.core.node import EndOfStream, Over
from unbounded.core.trees import Tree
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize(
    "words", [lambda s: s.batch(7).prefetch(3), lambda s: s.buffer(5).batch(7), lambda s: s.buffer(500).batch(7)]
)
def test_the_order_is_that_without_it_and_it_resumes(words: Any) -> None:
    assert first_ids(words(table(100, seed=1)), 40) == first_ids(table(100, seed=1).batch(7), 40)
    assert_resumes(words(table(100)), 12)


def test_a_batch_in_the_queue_is_not_lost_by_a_crash() -> None:
    stream = table(100).batch(4).prefetch(16)
    with ub.Feed(stream) as feed:
        batches = feed.batches()
        seen = [ids(next(batches)) for _ in range(5)]
        wait_until(lambda: feed._opened.top._ahead >= 16)  # type: ignore[attr-defined]
        state = feed.state_dict()
        batches.close()
    with ub.Feed(stream) as feed:
        feed.load_state_dict(state)
        assert ids(next(feed.batches())) == seen[4]  # it was out, and not confirmed


def test_at_least_as_many_batches_as_asked_for_wait_and_not_many_more() -> None:
    made = []

    def note(rows: Tree) -> Tree:
        made.append(len(rows))
        return rows

    blocks = ub.from_generator(lambda: (np.arange(4) for _ in itertools.count())).batch(2).map(note).prefetch(5)
    with ub.Feed(blocks) as feed:
        next(feed.batches())
        wait_until(lambda: len(made) >= 6)
        assert len(made) <= 24  # blocks of the source are joined up to eight batches


def test_neither_prefetch_nor_a_buffer_that_blocks_moves_a_row_or_the_fingerprint() -> None:
    plain = table(100).shuffle(30).batch(8)
    ahead = table(100).buffer(20).shuffle(30).buffer(7).batch(8).prefetch(3)
    assert plain.fingerprint == ahead.fingerprint
    assert first_ids(plain, 20) == first_ids(ahead, 20)
    assert plain.fingerprint != table(100).buffer(20, overflow="drop_oldest").shuffle(30).batch(8).fingerprint


def test_an_error_comes_where_its_rows_would_have_and_the_next_pull_goes_on() -> None:
    failed: list[int] = []

    def once(rows: Tree) -> Tree:
        if 20 in rows and not failed:
            failed.append(1)
            raise OSError("once")
        return rows

    seen: list[int] = []
    with ub.Feed(ub.from_arrays(np.arange(40), shuffle=False, passes=1).batch(4).map(once).prefetch(3)) as feed:
        with pytest.raises(OSError, match="once"):
            train_all(feed, seen)
        feed.trained()
        for batch in feed.batches():
            seen += batch.tolist()
    assert seen == list(range(40))


# -- drop_oldest ---------------------------------------------------------------------------------------------------


class Dropping:
    """A feed over a buffer that drops, with a source that the test steps."""

    def __init__(self, rows: int = 6, words: Any = lambda s: s.batch(1), **given: Any) -> None:
        self.steps = Steps()
        self.rows = rows
        self.stream = words(self.steps.stream(**given).buffer(rows, overflow="drop_oldest"))
        self.number = 0
        self.blocks = 0
        self.feed = ub.Feed(self.stream)
        self.feed.releases.hold()  # positions stay good until the test says otherwise

    def start(self) -> None:
        assert self.feed._reader.read() is None

    def give(self, rows: int, size: int = 2) -> None:
        """Rows arrive, and are in the buffer."""
        for first in range(self.number, self.number + rows, size):
            self.steps.give(np.arange(first, first + size))
            self.blocks += 1
        self.number += rows
        self.steps.await_taken(self.blocks)
        wait_until(lambda: self._buffer._row == self.number)

    @property
    def _buffer(self) -> Any:
        return self.buffers[0]

    @property
    def buffers(self) -> list[Any]:
        """The nodes that drop, the last of the stream first."""
        found, node = [], self.feed._opened.top
        while isinstance(node, Over):
            found += [node] if type(node).__name__ == "_DroppingNode" else []
            (node,) = node.inputs
        return found

    def take(self, steps: int) -> list[int]:
        out: list[int] = []
        for batch in itertools.islice(self.feed.batches(), steps):
            self.feed.trained()
            out += batch.tolist()
        return out

    def close(self) -> None:
        self.steps.end()
        self.feed.close()


def test_rows_that_do_not_fit_drop_the_oldest_and_are_counted() -> None:
    run = Dropping(6)
    run.start()
    run.give(20)
    assert run.feed.stats.dropped == 14
    assert run.take(6) == [14, 15, 16, 17, 18, 19]
    run.give(4)
    assert run.take(4) == [20, 21, 22, 23]
    assert run.feed.stats.dropped == 14
    assert run.feed.stats.logs()["dropped"] == 14.0
    assert run.stream.guarantee == "at_most_once"
    run.close()


def pulled(node: Any) -> Any:
    """The next block: a node may have nothing, to let its feed look whether to stop."""
    while (block := node.pull(10.0)) is None:
        pass
    return block


def test_a_consumer_that_is_slower_than_the_source_gets_rows_after_each_gap() -> None:
    run = Dropping(6)
    run.start()
    run.give(8)
    got = []
    for _ in range(8):
        block = pulled(run.buffers[0])
        got.append([] if block.boundary else block.rows.tolist())
        run.give(8)  # all that is queued would make room for these
    assert [len(rows) for rows in got] == [0, 2] * 4
    numbers = [row for rows in got for row in rows]
    assert numbers == sorted(numbers)
    # What it gets is counted, and in the log: the same comes again. What it did not get is decided anew.
    state = run.feed.state_dict()["arrivals"]
    dropped = numbers[-1] + 1 - len(numbers)
    assert run.feed.stats.dropped > dropped
    run.buffers[0].restore(run.buffers[0].cursor())
    assert run.feed.stats.dropped == dropped
    assert state == run.feed.state_dict()["arrivals"]
    run.close()


def test_what_a_slow_consumer_got_comes_again_after_a_restore() -> None:
    run = Dropping(6, lambda s: s)
    run.start()
    buffer = run.buffers[0]
    begun, seen = buffer.cursor(), []
    for _ in range(8):
        run.give(8)
        block = pulled(buffer)
        seen.append((block.rows.tolist() if block.count else [], block.boundary))
    buffer.restore(begun)
    again = []
    while len([row for rows, _ in again for row in rows]) < len([row for rows, _ in seen for row in rows]):
        block = pulled(buffer)
        again.append((block.rows.tolist() if block.count else [], block.boundary))
    assert [row for rows, _ in again for row in rows] == [row for rows, _ in seen for row in rows]
    missed = [sum(boundary.missed for _, boundary in each if boundary) for each in (seen, again)]
    assert missed[0] == missed[1]
    run.close()


def test_a_gap_stands_where_the_rows_were() -> None:
    run = Dropping(6, lambda s: s.windows(2).batch(1))
    run.start()
    run.give(6)
    wide = run.take(5)
    run.give(10)
    wide += run.take(5)
    # 0-5 come, 6-9 are dropped, 10-15 come: no window holds 5 and 10.
    assert wide == [[i, i + 1] for i in (0, 1, 2, 3, 4, 10, 11, 12, 13, 14)]
    run.close()


def test_a_restore_gives_exactly_the_logged_past_and_then_lives_on() -> None:
    run = Dropping(6)
    run.start()
    states, seen, counts = [run.feed.state_dict()], [], [0]

    def train(steps: int) -> None:
        for _ in range(steps):
            seen.extend(run.take(1))
            states.append(json.loads(json.dumps(run.feed.state_dict())))
            counts.append(run.feed.stats.dropped)

    run.give(4)
    train(3)
    run.give(16)
    train(4)
    run.give(2)
    train(2)
    run.give(8)
    train(3)
    end = run.feed.stats.dropped
    expected = [0, 1, 2]
    assert seen[:3] == expected
    assert seen == sorted(set(seen))
    assert end > 0
    for step in range(len(states) - 1, -1, -1):
        # What was decided since a state was taken is decided so again. A crash is tried below.
        run.feed.load_state_dict(states[step])
        assert run.take(len(seen) - step) == seen[step:], step
        wait_until(lambda: run.feed.stats.dropped == end)
    before = run.feed.stats.dropped
    run.give(20)
    assert run.feed.stats.dropped > before
    rest = run.take(4)
    assert rest == sorted(rest)
    assert rest[0] > seen[-1]
    run.close()


def test_a_new_process_drops_what_was_dropped_and_no_settled_row_a_second_time() -> None:
    run = Dropping(6)
    run.start()
    run.give(20)  # 0-13 go
    seen = run.take(2)
    run.give(6)  # more go, after those that were handed on
    state = run.feed.state_dict()
    seen_after = run.take(3)
    late = run.feed.state_dict()
    run.close()

    for start, arrivals, settled in ((state, state, []), (state, late, seen_after)):
        again = Dropping(6)
        again.feed.load_state_dict({**start, "arrivals": arrivals["arrivals"]})
        again.feed._reader.read()
        # As fast as the source is: rows whose fate is settled wait for the trainer, however many come.
        for first in range(26, 66, 2):
            again.steps.give(np.arange(first, first + 2))
        wait_until(lambda: again.steps.taken > 3)  # noqa: B023
        got = again.take(len(settled) + 1)
        assert got[: len(settled)] == settled
        assert got[0] > seen[-1]
        assert len(set(got)) == len(got)
        again.close()


def test_the_log_of_drops_is_let_go_with_what_was_trained() -> None:
    run = Dropping(4)
    run.feed.releases._holding = False
    run.start()
    for _ in range(30):
        run.give(12)
        assert len(run.take(3)) == 3
    assert len(run._buffer._decisions.between(0, 10**6)) <= 4
    assert len(json.dumps(run.feed.state_dict()["arrivals"])) < 1000
    run.close()


def test_a_pass_that_ended_among_dropped_rows_is_counted() -> None:
    stop = threading.Event()

    def some() -> Any:
        for i in range(8):
            stop.wait(0.001)
            yield np.arange(2 * i, 2 * i + 2)

    stream = ub.from_generator(some, passes=3).buffer(4, overflow="drop_oldest")
    opened = stream.open()
    kinds: list[Boundary] = []
    rows = 0
    (buffer,) = opened.top.inputs  # type: ignore[attr-defined]
    buffer._launch()
    wait_until(lambda: buffer._row == 48 and buffer._over)
    try:
        while True:
            block = opened.top.pull(1.0)
            assert block is not None
            rows += block.count
            kinds += [block.boundary] if block.boundary else []
    except EndOfStream:
        pass
    finally:
        opened.top.close()
    assert 4 <= rows <= 8
    assert kinds[-1].kind == "pass"
    assert sum(b.missed for b in kinds) + rows == 48


def test_two_buffers_that_drop_each_have_their_own_log() -> None:
    run = Dropping(6, lambda s: s.map(lambda r: r).buffer(4, overflow="drop_oldest").batch(1))
    node, _ = run.buffers
    node._decisions.note(0, 3, "kept")
    node._decisions.note(3, 5, "dropped")
    state = run.feed.state_dict()
    again = Dropping(6, lambda s: s.map(lambda r: r).buffer(4, overflow="drop_oldest").batch(1))
    again.feed.load_state_dict(state)
    outer, inner = again.buffers
    assert outer._log.decisions.between(0, 9) == [(0, 3, "kept"), (3, 5, "dropped")]
    assert inner._log.decisions.between(0, 9) == []
    run.close()
    again.close()


def test_a_buffer_that_drops_resumes_over_a_source_that_can_go_back() -> None:
    # Nothing is dropped where the trainer asks for one row after the other faster than the source gives them.
    stream = table(60).buffer(10_000_000, overflow="drop_oldest").batch(7)
    assert_resumes(stream, 8)


def test_drops_are_the_same_after_a_restore_wherever_the_source_cuts_its_blocks() -> None:
    rng = np.random.default_rng(5)
    stream = ub.from_arrays(np.arange(100), shuffle=False, passes=2)
    log = [(5, 12), (30, 31), (95, 103), (150, 200)]
    expected: list[Any] | None = None
    for _ in range(20):
        opened = stream.buffer(1000, overflow="drop_oldest").open(block_rows=int(rng.integers(1, 40)))
        node: Any = opened.top
        decisions = opened.arrivals.decisions("1.buffer")
        for low, high in log:
            decisions.note(decisions.stop, low, "kept")
            decisions.note(low, high, "dropped")
        node.restore({"inputs": [{"row": 0}], "own": {"row": 0, "over": 0, "dropped": 0}})
        found: list[Any] = []
        cursors = []
        try:
            while True:
                cursors.append((node.cursor(), len(found)))
                block = node.pull(1.0)
                if block is not None:
                    found += block.rows.tolist() if block.count else []
                    found += [block.boundary] if block.boundary else []
        except EndOfStream:
            pass
        assert expected is None or found == expected
        expected = found
        cursor, at = cursors[int(rng.integers(len(cursors)))]
        node.restore(cursor)
        rest: list[Any] = []
        try:
            while True:
                block = node.pull(1.0)
                if block is not None:
                    rest += block.rows.tolist() if block.count else []
                    rest += [block.boundary] if block.boundary else []
        except EndOfStream:
            pass
        assert rest == found[at:]
        opened.top.close()
    assert expected is not None
    assert expected[5] == Boundary("gap", 7)
    assert Boundary("pass", 8) in expected
    assert expected[-1] == Boundary("pass", 50)


def test_blocks_of_a_buffer_that_blocks_wait() -> None:
    assert sum(b.count for b in blocks(table(100, passes=2).buffer(10))) == 200


@pytest.mark.parametrize("grade", ["start", "state", "live"])
def test_closing_a_feed_whose_generator_blocks_ends_it_when_it_comes_back(
    grade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbounded.core.prefetcher._JOIN", 0.05)
    monkeypatch.setattr("unbounded.sources.reader_thread._JOIN", 0.05)
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Blocks:
        def __init__(self, start: int = 0) -> None:
            self.i = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            self.i += 1
            if self.i == 3:
                inside.set()
                go_on.wait(60)
            return np.arange(4)

        def close(self) -> None:
            closed.set()

    class Kept(Blocks):
        def state_dict(self) -> Any:
            return {"i": self.i}

        def load_state_dict(self, state: Any) -> None:
            self.i = state["i"]

    def generator(start: int = 0) -> Any:
        try:
            yield from Blocks()
        finally:
            closed.set()

    fn: Any = {"start": generator, "state": lambda: Kept(), "live": lambda: Blocks()}[grade]
    with ub.Feed(ub.from_generator(fn).batch(4).prefetch(8)) as feed:
        next(feed.batches())
        assert inside.wait(60)
    assert not closed.is_set()
    go_on.set()
    assert closed.wait(60)


@pytest.mark.parametrize(
    "words", [lambda s: s.map(lambda r: r, workers=2), lambda s: s.buffer(50), lambda s: s.prefetch(3)]
)
def test_a_filter_behind_a_thread_that_keeps_nothing_leaves_the_feed_to_look(words: Any) -> None:
    stream = words(ub.from_generator(from_start)).filter(lambda r: r < 0).batch(2)
    with ub.Feed(stream) as feed:
        for _ in range(3):
            assert feed._reader.read() is None

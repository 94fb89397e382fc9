"""Sources of a user: the protocol is read, resumed, retried and acknowledged."""

from __future__ import annotations

import itertools
import json
import queue
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import CountingReader, train, wait_until
from unbounded.testing import assert_reads, assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Table:
    """The rows of an SQLite table, by their ids."""

    replayable = True

    def __init__(self, path: Path, rows: int = 50) -> None:
        self.path, self.rows = path, rows

    def identity(self) -> Any:
        return {"table": "readings"}

    def open(self) -> ub.Reader:
        return TableReader(self.path, self.rows)


class TableReader:
    def __init__(self, path: Path, rows: int) -> None:
        self.db, self.at, self.rows = sqlite3.connect(path), 0, rows

    def position(self) -> Any:
        return self.at

    def seek(self, position: Any) -> None:
        self.at = position

    def read(self, timeout: float) -> Any:
        query = "select id, value from readings where id > ? order by id limit ?"
        found = self.db.execute(query, (self.at, self.rows)).fetchall()
        if not found:
            return None
        self.at = found[-1][0]
        return {"id": np.array([row[0] for row in found]), "value": np.array([row[1] for row in found])}

    def close(self) -> None:
        self.db.close()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "readings.db"
    with sqlite3.connect(path) as db:
        db.execute("create table readings (id integer primary key, value real)")
        db.executemany("insert into readings values (?, ?)", [(3 * i, i / 2) for i in range(1, 1001)])
    db.close()
    return path


def numbers(batch: Any) -> list[int]:
    return batch["id"].tolist()  # type: ignore[no-any-return]


def test_a_table_of_a_database_is_a_source_in_twenty_lines(table: Path, tmp_path: Path) -> None:
    assert_reads(Table(table))
    stream = ub.from_source(Table(table)).shuffle(60).batch(7)
    assert_resumes(stream, 12)
    assert stream.guarantee == "exact"
    assert repr(stream) == "from_source(Table).shuffle(60).batch(7)"
    with ub.Feed(stream) as feed:
        expected = [numbers(b) for b in itertools.islice(feed.batches(), 40)]
    seen: list[Any] = []
    for steps in (9, 0, 17, 14):
        with ub.Feed(stream, require="exact") as feed:
            feed.load(tmp_path / "run")
            for batch in itertools.islice(feed.batches(), steps):
                seen.append(numbers(batch))
                feed.trained()
            feed.save(tmp_path / "run")
    assert seen == expected


def test_rows_that_come_later_are_waited_for(table: Path) -> None:
    with ub.Feed(ub.from_source(Table(table)).batch(500)) as feed:
        batches = feed.batches()
        assert [numbers(next(batches))[0] for _ in range(2)] == [3, 1503]

        def insert() -> None:
            with sqlite3.connect(table) as db:
                db.executemany("insert into readings values (?, ?)", [(10_000 + i, 0.0) for i in range(500)])
            db.close()

        threading.Timer(0.1, insert).start()
        assert numbers(next(batches))[0] == 10_000
        batches.close()  # type: ignore[attr-defined]


class Topic:
    """A topic with partitions: what a read gives is of whichever partition chance says, as from a broker."""

    replayable = True
    partitions = True

    def __init__(self, seed: int, rows: int = 400, wake: bool = False) -> None:
        self.random, self.rows = random.Random(seed), rows
        self.committed: list[Any] = []

    def identity(self) -> Any:
        return {"topic": "readings"}

    def open(self) -> ub.Reader:
        return TopicReader(self)


class TopicReader:
    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.at = {"a": 0, "b": 0, "c": 0}

    def position(self) -> Any:
        return dict(self.at)

    def seek(self, position: Any) -> None:
        self.at = dict(position)

    def read(self, timeout: float, only: Any = None) -> Any:
        topic = self.topic
        left = [p for p in ([only] if only else self.at) if self.at[p] < topic.rows]
        if not left:
            return None
        which = topic.random.choice(left)
        first, stop = self.at[which], min(topic.rows, self.at[which] + topic.random.randint(1, 40))
        self.at[which] = stop
        return ub.Rows({"id": np.arange(first, stop) + 1000 * "abc".index(which)}, partition=which)

    def commit(self, trained: Any, needed: Any) -> None:
        self.topic.committed.append((trained, needed))

    def close(self) -> None:
        pass


def test_partitions_come_again_in_the_order_in_which_they_were_read() -> None:
    assert_reads(Topic(0))
    for resumed_at, words in itertools.product((1, 3, 11), (lambda s: s, lambda s: s.shuffle(100))):
        stream = words(ub.from_source(Topic(1))).batch(20)
        with ub.Feed(stream) as feed:
            feed.releases.hold()
            before = [numbers(b) for b in itertools.islice(feed.batches(), resumed_at)]
            feed.trained()
            state = json.loads(json.dumps(feed.state_dict()))
            # What its buffers hold was read already; from there on arrival decides anew.
            known = [numbers(b) for b in itertools.islice(feed.batches(), 1)]
        with ub.Feed(words(ub.from_source(Topic(2))).batch(20)) as feed:
            feed.load_state_dict(state)
            rest = [numbers(b) for b in itertools.islice(feed.batches(), 60 - resumed_at)]
        ids = [i for batch in before + rest for i in batch]
        assert sorted(ids) == sorted({1000 * p + i for p in range(3) for i in range(400)})
        assert len(known) == 1


def test_a_topic_resumes_twice_in_a_row_each_row_once_and_hears_what_is_saved(tmp_path: Path) -> None:
    topic = Topic(3)
    seen: list[int] = []
    for steps in (5, 0, 9, 2, 14, 10, 20):
        with ub.Feed(ub.from_source(topic).shuffle(60).batch(20)) as feed:
            feed.load(tmp_path)
            for batch in itertools.islice(feed.batches(), steps):
                seen += numbers(batch)
                feed.trained()
            feed.save(tmp_path, keep=2)
            wait_until(lambda steps=steps: bool(topic.committed) or steps < 20)  # type: ignore[misc]
    assert sorted(seen) == sorted({1000 * p + i for p in range(3) for i in range(400)})
    assert topic.committed
    trained, needed = topic.committed[-1]
    assert all(needed[p] <= trained[p] for p in "abc")


class Seams(Topic):
    """A topic of which each partition has a boundary after each 50 rows. Chance decides whether it comes with the row
    before it, or by a later read, when rows of other partitions may have come."""

    def open(self) -> ub.Reader:
        return SeamsReader(self)


class SeamsReader(TopicReader):
    def __init__(self, topic: Topic) -> None:
        super().__init__(topic)
        self.at = {p: [0, 0] for p in "abc"}  # type: ignore[misc, assignment]  # rows, and boundaries

    def position(self) -> Any:
        return {p: [*at] for p, at in self.at.items()}  # type: ignore[attr-defined]

    def seek(self, position: Any) -> None:
        self.at = {p: [*at] for p, at in position.items()}

    def read(self, timeout: float, only: Any = None) -> Any:
        chance = self.topic.random
        which = only or chance.choice("abc")
        at: Any = self.at[which]
        first, edge = at[0], 50 * (at[1] + 1)
        stop = min(edge, first + chance.randint(1, 40))
        seam = stop == edge and (first == edge or chance.random() < 0.5)
        self.at[which] = [stop, at[1] + seam]  # type: ignore[assignment]
        rows = None if first == stop else {"id": np.arange(first, stop) + 1000 * "abc".index(which)}
        return ub.Rows(rows, ub.Boundary("gap", missed=1) if seam else None, partition=which)


@pytest.mark.parametrize("seed", range(4))
def test_boundaries_of_partitions_come_again_between_the_same_rows(seed: int, tmp_path: Path) -> None:
    def stream(seed: int) -> ub.Stream:
        return ub.from_source(Seams(seed)).shuffle(120).batch(10)

    assert_reads(Seams(seed))
    ids: list[int] = []
    for life in range(4):
        with ub.Feed(stream(seed + 10 * life)) as feed:  # it ends without a save, as by a kill
            feed.load(tmp_path)
            feed.save(tmp_path)
            trained = 10 * feed.steps
            for batch in itertools.islice(feed.batches(), 25):
                known = ids[trained : trained + 10]
                assert numbers(batch)[: len(known)] == known
                ids[trained : trained + 10] = numbers(batch)
                trained += 10
                feed.trained()
                if feed.steps % 25 == 7:
                    feed.save(tmp_path)
    assert len(set(ids)) == len(ids)


def test_a_source_that_does_not_repeat_its_boundaries_is_refused(tmp_path: Path) -> None:
    class Forgetful(SeamsReader):
        def read(self, timeout: float, only: Any = None) -> Any:
            found = super().read(timeout, only)
            return found if only is None or found.rows is None else ub.Rows(found.rows, partition=only)

    class Source(Seams):
        def open(self) -> ub.Reader:
            return Forgetful(self)

    with ub.Feed(ub.from_source(Source(0)).shuffle(120).batch(10)) as feed:
        feed.load(tmp_path)
        feed.save(tmp_path)
        feed.trained() if [b for b in itertools.islice(feed.batches(), 30)] else None
    with ub.Feed(ub.from_source(Source(1)).shuffle(120).batch(10)) as feed:
        feed.load(tmp_path)
        with pytest.raises(ub.StreamError, match="returned rows where it had returned a boundary"):
            list(itertools.islice(feed.batches(), 30))


class Pushed:
    """Messages that are pushed at us once, and again where they were not acknowledged: as MQTT does."""

    replayable = False
    redelivers = True

    def __init__(self) -> None:
        self.messages: queue.Queue[int] = queue.Queue()
        self.acknowledged: list[int] = []
        self.log_sizes: list[int] = []
        self.directory: Path | None = None

    def identity(self) -> Any:
        return {"topic": "plant/#"}

    def open(self) -> ub.Reader:
        return PushedReader(self)


class PushedReader:
    def __init__(self, source: Pushed) -> None:
        self.source, self.at = source, 0
        self.woken = threading.Event()

    def position(self) -> Any:
        return self.at

    def seek(self, position: Any) -> None:
        raise AssertionError("it can't go back")

    def read(self, timeout: float) -> Any:
        while not self.woken.is_set() and timeout > 0:
            try:
                message = self.source.messages.get(timeout=min(timeout, 0.01))
            except queue.Empty:
                timeout -= 0.01
                continue
            self.at = message + 1
            return {"id": np.array([message])}
        self.woken.clear()
        return None

    def wake(self) -> None:
        self.woken.set()

    def logged(self, position: Any) -> None:
        if self.source.directory is not None:
            files = self.source.directory.rglob("*.log")
            self.source.log_sizes.append(sum(file.stat().st_size for file in files))
        self.source.acknowledged.append(position)

    def close(self) -> None:
        pass


def test_a_source_that_is_acknowledged_hears_so_once_its_rows_are_on_the_disk(tmp_path: Path) -> None:
    source = Pushed()
    for i in range(10):
        source.messages.put(i)
    assert_reads(source)
    source = Pushed()
    source.directory = tmp_path
    stream = ub.from_source(source).batch(2)
    assert stream.guarantee == "at_least_once"
    with ub.Feed(stream) as feed:
        feed.load(tmp_path)
        for i in range(10):
            source.messages.put(i)
        assert [numbers(b) for b in itertools.islice(feed.batches(), 5)] == [[i, i + 1] for i in range(0, 10, 2)]
        wait_until(lambda: bool(source.acknowledged) and source.acknowledged[-1] == 10)
    assert source.log_sizes[-1] > 10 * 8
    with ub.Feed(stream) as feed:
        # It was not saved: it begins again with the first row, which nobody sends a second time.
        feed.load(tmp_path)
        assert numbers(next(feed.batches())) == [0, 1]


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda r: setattr(r, "seek", lambda position: None), r"seek\(.*\) led to"),
        (lambda r: setattr(r, "position", lambda: (r.at,)), "JSON gives"),
        (lambda r: setattr(r, "position", lambda: 7), r"position\(\) is unchanged"),
    ],
)
def test_a_reader_that_does_not_keep_the_protocol_is_told_what_it_lacks(
    table: Path, break_it: Any, sentence: str
) -> None:
    class Broken(Table):
        def open(self) -> ub.Reader:
            reader = super().open()
            break_it(reader)
            return reader

    with pytest.raises(AssertionError, match=sentence):
        assert_reads(Broken(table))


def test_a_state_that_lacks_what_is_in_a_buffer_is_found_out() -> None:
    class Shuffled:
        """Holds back some rows, which its state does not have."""

        def __init__(self) -> None:
            self.next, self.held = 0, list[int]()

        def __iter__(self) -> Any:
            while True:
                while len(self.held) < 20:
                    self.held.append(self.next)
                    self.next += 1
                yield np.array([self.held.pop(7 * self.next % 20)])

        def state_dict(self) -> Any:
            return {"next": self.next}

        def load_state_dict(self, state: Any) -> None:
            self.next = state["next"]

    stream = ub.from_generator(Shuffled).batch(2)
    with pytest.raises(AssertionError):
        assert_reads(stream.sources[0].source)
    with pytest.raises(AssertionError):
        assert_resumes(stream, 10)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (object(), "lacks open, identity, replayable"),
        (Table, "was given the class Table. Give an instance"),
        (
            type("Odd", (), {"replayable": True, "open": lambda s: None, "identity": lambda s: {1: 2}})(),
            "JSON can hold",
        ),
    ],
)
def test_what_is_no_source_is_refused_in_a_sentence(source: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        ub.from_source(source)


def test_our_own_sources_keep_the_protocol() -> None:
    def start(start: int = 0) -> Any:
        for i in itertools.count(start):
            yield np.array([i])

    class State:
        def __init__(self) -> None:
            self.next = 0

        def __iter__(self) -> Any:
            while True:
                self.next += 1
                yield np.arange(self.next, self.next + 3)

        def state_dict(self) -> Any:
            return {"next": self.next}

        def load_state_dict(self, state: Any) -> None:
            self.next = state["next"]

    streams = [
        ub.from_arrays(np.arange(17)),
        ub.from_arrays(np.arange(17), shuffle=False, passes=2),
        ub.from_generator(start),
        ub.from_generator(State),
        ub.from_generator(lambda: iter([np.arange(3)]), passes=4),
    ]
    for stream in streams:
        assert_reads(stream.sources[0].source)


def test_a_reader_that_fails_in_passing_is_opened_again_where_it_stood(table: Path) -> None:
    failures = iter([ConnectionError("the network")])

    class Flaky(Table):
        def open(self) -> ub.Reader:
            reader = super().open()
            read = reader.read

            def failing(timeout: float) -> Any:
                if reader.position() >= 300 and (error := next(failures, None)):
                    raise error
                return read(timeout)

            reader.read = failing  # type: ignore[method-assign]
            return reader

    with ub.Feed(ub.from_source(Flaky(table)).batch(10)) as feed:
        seen = [i for b in itertools.islice(feed.batches(), 60) for i in numbers(b)]
        assert feed.stats.retries == 1
    assert seen == [3 * i for i in range(1, 601)]


def test_training_by_a_table_and_a_feed_helper_agree(table: Path) -> None:
    with ub.Feed(ub.from_source(Table(table)).map(lambda rows: rows["id"]).batch(3)) as feed:
        assert train(feed, 2) == [[3, 6, 9], [12, 15, 18]]


def test_a_source_that_can_go_to_any_row_at_once_is_looked_up() -> None:
    class Numbers:
        replayable = True

        def identity(self) -> Any:
            return "numbers"

        def open(self) -> ub.Reader:
            return CountingReader(0, rows=5)

        def position_at(self, row: int) -> Any:
            return row

    assert ub.from_source(Numbers()).batch(3).batch_at(1000).tolist() == [3000, 3001, 3002]

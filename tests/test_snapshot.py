"""Feed.save and load: one atomic checkpoint for any framework, with the rows that can't be read again."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import Counter, Steps, from_start, once, table, train, wait_until
from intercepted_files import all_changes
from test_directories import Other
from unbounded.store.checkpoints import CheckpointError, Checkpoints

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.mark.parametrize(
    "stream",
    [
        table(100).shuffle(30).batch(7),
        table(100).replay(30).batch(7).prefetch(3),
        ub.from_generator(from_start).shuffle(20).batch(4),
        ub.from_generator(Counter).shuffle(20).batch(4),
    ],
    ids=["arrays", "replay", "start", "state"],
)
def test_a_saved_run_goes_on_exactly_twice_in_a_row(stream: ub.Stream, tmp_path: Path) -> None:
    with ub.Feed(stream) as feed:
        expected = train(feed, 30)
    seen: list[Any] = []
    for steps in (7, 5, 0, 11, 7):
        with ub.Feed(stream) as feed:
            state = feed.load(tmp_path)
            assert (state is None) == (not seen)
            if state is not None:
                assert state["w"].tolist() == [len(seen)]
            seen += train(feed, steps)
            feed.save(tmp_path, state={"w": np.array([len(seen)])})
    assert seen == expected


def live(numbers: Any, size: int = 3) -> ub.Stream:
    """A counter that hands out each id once, whatever the process; it can't go back."""

    def sensor() -> Any:
        while True:
            yield np.array([next(numbers) for _ in range(size)])

    return ub.from_generator(sensor)


@pytest.mark.parametrize(
    "words", [lambda s: s.batch(4), lambda s: s.shuffle(20).batch(4).prefetch(2), lambda s: s.windows(3).batch(2)]
)
def test_rows_of_a_source_that_cannot_go_back_are_in_the_row_log(words: Any, tmp_path: Path) -> None:
    with ub.Feed(words(live(itertools.count()))) as feed:
        expected = train(feed, 60)
    numbers = itertools.count()
    seen: list[Any] = []
    for steps in (5, 0, 13, 1, 20, 21):
        with ub.Feed(words(live(numbers))) as feed:
            feed.load(tmp_path)
            seen += train(feed, steps)
            feed.save(tmp_path)
    assert seen == expected


def test_a_position_with_no_row_left_goes_on_with_the_next_one(tmp_path: Path) -> None:
    steps = Steps()
    steps.give(np.arange(4))
    with ub.Feed(steps.stream().batch(4)) as feed:
        train(feed, 1)
        steps.await_taken(1)
        feed.save(tmp_path)
        steps.end()
    after = Steps()
    after.give(np.arange(4, 8))
    with ub.Feed(after.stream().batch(4)) as feed:
        feed.load(tmp_path)
        assert train(feed, 1) == [[4, 5, 6, 7]]
        assert feed.stats.fetched == 8
        feed.save(tmp_path)
        after.end()
    assert feed.position.rows == 8


def test_the_source_keeps_the_rows_of_the_oldest_kept_checkpoint(tmp_path: Path) -> None:
    with ub.Feed(ub.from_generator(once).batch(3)) as feed:
        train(feed, 10)
        states = []
        for _ in range(4):
            feed.save(tmp_path, keep=3)
            states.append(feed.state_dict())
            train(feed, 100)
        assert feed.opened.sources[0].log.start.rows <= 30 + 300 + 3  # type: ignore[attr-defined]
        # Going back to the oldest that is kept, in the same process.
        feed.load_state_dict(states[1])
        assert train(feed, 1) == [[330, 331, 332]]


def test_keep_says_how_many_there_are(tmp_path: Path) -> None:
    with ub.Feed(table(100).batch(4)) as feed:
        for _ in range(5):
            train(feed, 2)
            path = feed.save(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("step")) == [
        "step-000000000008",
        "step-000000000010",
    ]
    assert path.name == "step-000000000010"


def test_a_save_with_a_batch_out_is_refused(tmp_path: Path) -> None:
    with ub.Feed(table(100).batch(4), epoch=ub.Epoch(steps=5)) as feed:
        for run in feed.epochs(1):
            for i, _ in enumerate(run):
                if i == 2:
                    with pytest.raises(ub.StreamError, match=r"out and not confirmed.*feed\.trained\(\)"):
                        feed.save(tmp_path)
                    feed.trained()
                    feed.save(tmp_path)
        assert feed.steps == 5
    with ub.Feed(table(100).batch(4)) as feed:
        feed.load(tmp_path)
        assert feed.steps == 3


def test_an_epoch_goes_on_in_its_middle(tmp_path: Path) -> None:
    stream, epoch = table(100).batch(4), ub.Epoch(steps=10)
    with ub.Feed(stream, epoch=epoch) as feed:
        for run in feed.epochs(2):
            for _ in run:
                if feed.steps == 13:
                    feed.trained()
                    feed.save(tmp_path)
    with ub.Feed(stream, epoch=epoch) as feed:
        feed.load(tmp_path)
        found = [(run.number, len(list(run))) for run in feed.epochs(3)]
    assert found == [(1, 6), (2, 10)]


def test_the_checkpoint_of_another_stream_is_refused_in_words_and_changes_can_be_accepted(tmp_path: Path) -> None:
    with ub.Feed(table(100).batch(4)) as feed:
        train(feed, 3)
        feed.save(tmp_path, state={"w": np.ones(2)})
    with ub.Feed(table(100, seed=5).batch(4)) as feed:
        with pytest.raises(ValueError, match=r"another stream: from_arrays\(seed\) was 0 and is 5"):
            feed.load(tmp_path)
        with pytest.warns(UserWarning, match=r"from_arrays\(seed\) was 0 and is 5"):
            state = feed.load(tmp_path, accept_changes=True)
        assert state["w"].tolist() == [1, 1]
        assert feed.steps == 3


def test_an_empty_directory_is_a_new_run(tmp_path: Path) -> None:
    with ub.Feed(table(100).batch(4)) as feed:
        assert feed.load(tmp_path / "new") is None
        assert feed.steps == 0


SCRIPT = """
    import itertools, os, sys, threading
    import numpy as np, unbounded as ub

    directory, counter, read, train, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]

    def sensor():
        # Each id is handed out once, whatever the process, and then it is quiet.
        for _ in range(read):
            with open(counter, "r+") as file:
                number = int(file.read() or 0)
                file.seek(0)
                file.write(str(number + 1))
            yield np.array([number])
        quiet.set()
        threading.Event().wait()

    quiet = threading.Event()
    feed = ub.Feed(ub.from_generator(sensor).batch(1))
    feed.load(directory)
    for batch in itertools.islice(feed.batches(), train):
        feed.trained()
        print("id", batch[0])
    assert quiet.wait(60)
    if last == "saved":
        feed.save(directory)
    sys.stdout.flush()
    os._exit(9)
"""


def killed(directory: Path, counter: Path, *, read: int, train: int, last: str) -> list[int]:
    """The ids that a run has trained on which was killed in the end, once `read` more were read."""
    given = [str(directory), str(counter), str(read), str(train), last]
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *given], capture_output=True, text=True, timeout=600
    )
    assert out.returncode == 9, out.stderr
    return [int(line.split()[1]) for line in out.stdout.splitlines()]


@pytest.mark.slow
def test_after_a_kill_no_row_that_was_read_is_lost_or_trained_on_twice(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("")
    run = tmp_path / "run"
    # Before its first checkpoint, a run begins again with the first row.
    assert killed(run, counter, read=3, train=2, last="killed") == [0, 1]
    assert killed(run, counter, read=5, train=5, last="saved") == [0, 1, 2, 3, 4]
    # What was trained after the last checkpoint is not in the model that goes on: it comes again.
    assert killed(run, counter, read=2, train=4, last="killed") == [5, 6, 7, 8]
    assert killed(run, counter, read=3, train=5, last="saved") == [5, 6, 7, 8, 9]
    assert killed(run, counter, read=1, train=4, last="killed") == [10, 11, 12, 13]


def test_a_feed_that_was_forgotten_gives_way_to_the_next_one_with_all_that_it_had_read(tmp_path: Path) -> None:
    steps = Steps()
    steps.give(*(np.array([i]) for i in range(10)))
    forgotten = ub.Feed(steps.stream().batch(1))
    assert [b for [b] in train(forgotten, 4)] == [0, 1, 2, 3]
    forgotten.save(tmp_path)
    assert [b for [b] in train(forgotten, 1)] == [4]
    steps.give(*(np.array([i]) for i in range(10, 17)))
    wait_until(lambda: forgotten.opened.sources[0].log.stop.rows == 17)  # type: ignore[attr-defined]
    after = Steps()
    after.give(*(np.array([i]) for i in range(17, 20)))
    with ub.Feed(after.stream().batch(1)) as feed:
        feed.load(tmp_path)
        assert [b for [b] in train(feed, 16)] == list(range(4, 20))
        # The one that was forgotten has read on, and has nowhere to keep it.
        steps.give(np.array([99]))
        with pytest.raises(ub.StreamError, match="Another feed of this process goes on with the row log"):
            train(forgotten, 13)
        after.end()
    steps.end()
    forgotten.close()


def test_a_second_feed_at_work_does_not_take_the_row_log_of_the_first(tmp_path: Path) -> None:
    with at_work(6) as (first, _), at_work(4) as (second, _):
        assert train(first, 1) == [[0]]
        assert first.load(tmp_path) is None
        train(second, 1)
        with pytest.raises(CheckpointError, match="Another feed of this process keeps the rows of its source in"):
            second.save(tmp_path)
        second.save(tmp_path / "second")
        assert train(first, 2) == [[1], [2]]
        first.save(tmp_path)
        with pytest.raises(CheckpointError, match="of another run"):
            second.save(tmp_path)


def test_loading_into_a_feed_that_reads_already_leaves_the_run_and_its_log_as_they_are(tmp_path: Path) -> None:
    with at_work(6) as (feed, _):
        train(feed, 2)
        feed.save(tmp_path)
    with at_work(3) as (late, _):
        with pytest.raises(ub.StreamError, match="is being read already"):
            late.load(tmp_path)
        assert train(late, 1) == [[0]]
    after = Steps()
    with ub.Feed(after.stream().batch(1)) as feed:
        feed.load(tmp_path)
        assert train(feed, 4) == [[2], [3], [4], [5]]
        after.end()


def test_a_read_only_directory_leaves_the_run_at_work(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("")
        bad = tmp_path / "file" / "run"  # root writes anywhere, but not into a file
    else:
        bad = tmp_path / "closed"
        bad.mkdir(mode=0o500)
    with ub.Feed(table(100).batch(4)) as feed:
        train(feed, 2)
        with pytest.raises(CheckpointError, match="Nothing can be saved in"):
            feed.save(bad)
        assert len(train(feed, 2)) == 2


def test_a_run_saved_after_an_epochs_last_batch_goes_on_with_the_next_epoch(tmp_path: Path) -> None:
    def lengths(epochs: int) -> list[tuple[int, int]]:
        seen = []
        with ub.Feed(table().batch(4), epoch=ub.Epoch(steps=5)) as feed:
            feed.load(tmp_path)
            for epoch in feed.epochs(epochs):
                seen.append((epoch.number, len(list(epoch))))
                feed.save(tmp_path)
        return seen

    assert lengths(2) == [(0, 5), (1, 5)]
    assert lengths(4) == [(2, 5), (3, 5)]
    with pytest.warns(ub.RunFinished, match="has trained 4 epochs already"):
        assert lengths(4) == []


@contextlib.contextmanager
def at_work(rows: int) -> Iterator[tuple[ub.Feed, Steps]]:
    """A feed of a source that can't go back, of which so many rows were read."""
    steps = Steps()
    steps.give(*(np.array([i]) for i in range(rows)))
    with ub.Feed(steps.stream().batch(1)) as feed:
        feed.available()
        wait_until(lambda: feed.opened.sources[0].log.stop.rows == rows)  # type: ignore[attr-defined]
        yield feed, steps
        steps.end()


def test_a_directory_that_was_removed_is_written_again_rows_and_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with at_work(8) as (feed, steps):
        assert train(feed, 2) == [[0], [1]]
        feed.save(run)
        shutil.rmtree(run)
        assert train(feed, 1) == [[2]]
        feed.save(run)
        steps.give(np.array([8]))
        wait_until(lambda: feed.opened.sources[0].log.stop.rows == 9)  # type: ignore[attr-defined]
    after = Steps()
    with ub.Feed(after.stream().batch(1)) as feed:
        feed.load(run)
        assert train(feed, 6) == [[3], [4], [5], [6], [7], [8]]
        after.end()


@pytest.mark.parametrize("place", ["source", "map"])
def test_what_was_trained_before_the_source_failed_is_saved_where_the_loop_asks_for_it(
    place: str, tmp_path: Path
) -> None:
    def numbers(start: int = 0) -> Iterator[Any]:
        for i in itertools.count(start):
            if place == "source" and i == broken[0]:
                raise OSError("the sensor is gone")
            yield np.array([i])

    def checked(rows: Any) -> Any:
        if place == "map" and broken[0] in rows:
            raise OSError("the sensor is gone")
        return rows

    broken, seen = [7], list[Any]()
    for _ in range(2):
        with ub.Feed(ub.from_generator(numbers).map(checked).batch(2), epoch=ub.Epoch(steps=5)) as feed:
            weights = feed.load(tmp_path) or 0
            assert weights == len(seen)
            try:
                for epoch in feed.epochs(2):
                    for batch in epoch:
                        seen.append(batch.tolist())
            except OSError:
                feed.save(tmp_path, state=len(seen))
        broken[0] = -1
    assert seen == [[i, i + 1] for i in range(0, 20, 2)]


def test_a_directory_that_cannot_be_used_is_refused_in_a_sentence_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with at_work(6) as (feed, _):
        train(feed, 2)
        for bad in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(CheckpointError, match=r"^Nothing can be saved in .*file.*[Nn]ot a directory"):
                feed.save(bad)
            with pytest.raises(CheckpointError, match=r"could not be read in .*file.*: Not a directory"):
                feed.load(bad)
        feed.save(tmp_path / "run")
        assert train(feed, 1) == [[2]]
    assert (tmp_path / "file").read_text() == "mine"
    after = Steps()
    with ub.Feed(after.stream().batch(1)) as feed:
        feed.load(tmp_path / "run")
        assert train(feed, 1) == [[2]]
        after.end()


def test_a_directory_that_another_process_writes_to_is_refused_and_the_feed_goes_on(tmp_path: Path) -> None:
    with Other(tmp_path, "checkpoints.prepare(); print('ready')") as other:
        assert other.line() == "ready"
        with at_work(6) as (feed, _):
            train(feed, 2)
            with pytest.raises(CheckpointError, match=rf"the process {other.process.pid} writes to it; stop that one"):
                feed.save(tmp_path)
            feed.save(tmp_path / "mine")
            assert train(feed, 1) == [[2]]
    assert [saved.number for saved in Checkpoints(tmp_path / "mine").all()] == [2]


def test_a_disk_that_fails_at_any_call_of_a_save_loses_no_row(tmp_path: Path) -> None:
    class Failing:
        def __init__(self, at: int) -> None:
            self.at, self.calls, self.on = at, 0, True

        def call(self, function: Any, *args: Any) -> Any:
            self.calls += self.on
            if self.on and self.calls > self.at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

    for at in itertools.count():
        run = tmp_path / str(at)
        with at_work(6) as (feed, steps):
            train(feed, 1)
            feed.save(run)
            train(feed, 1)
            steps.give(np.array([6]))
            wait_until(lambda feed=feed: feed.opened.sources[0].log.stop.rows == 7)  # type: ignore[misc]
            failing = Failing(at)
            with all_changes(failing.call), warnings.catch_warnings(record=True):
                with contextlib.suppress(CheckpointError):
                    feed.save(run)
                failing.on = False
                assert train(feed, 1) == [[2]]
                feed.save(run)
        after = Steps()
        with ub.Feed(after.stream().batch(1)) as feed:
            feed.load(run)
            assert train(feed, 4) == [[3], [4], [5], [6]]
            after.end()
        if failing.calls <= at:
            break
    assert at > 9

"""The origin of a run's sources is on the disk before the first row, and logs of other sources are set aside."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import CountingReader, Steps, train, wait_until
from intercepted_files import all_changes
from unbounded.core.runtime import SYSTEM
from unbounded.store.checkpoints import CheckpointError
from unbounded.store.origin import SourceOrigin, read_origin, set_aside, write_origin

pytestmark = pytest.mark.usefixtures("no_threads_left")

FIRST = {"topic": SourceOrigin({"topic": "a"}, {"0": 17}), "sensor": SourceOrigin(["é"], None, "0" * 32)}
SECOND = {"topic": SourceOrigin({"topic": "b"}, {"0": 99})}


def test_origins_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_origin(tmp_path / "run", SYSTEM) is None
    write_origin(tmp_path / "run", FIRST, SYSTEM)
    assert read_origin(tmp_path / "run", SYSTEM) == FIRST
    write_origin(tmp_path / "run", SECOND, SYSTEM)
    assert read_origin(tmp_path / "run", SYSTEM) == SECOND
    assert os.listdir(tmp_path / "run") == ["origin.json"]


def test_a_disk_that_fails_at_any_call_leaves_the_origins_from_before_or_the_new_ones(tmp_path: Path) -> None:
    calls = 0

    def count(function: Callable[..., Any], *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return function(*args)

    write_origin(tmp_path, FIRST, SYSTEM)
    with all_changes(count):
        write_origin(tmp_path, FIRST, SYSTEM)
    assert calls >= 5  # a new file, written, synced and renamed; and its directory synced
    for failing in range(calls):
        write_origin(tmp_path, FIRST, SYSTEM)
        left = failing

        def fail(function: Callable[..., Any], *args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                if function is os.write:
                    function(args[0], args[1][:9])  # a part of it, for whoever does not look
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args)

        with all_changes(fail), pytest.raises(OSError, match="No space left"):
            write_origin(tmp_path, SECOND, SYSTEM)
        assert read_origin(tmp_path, SYSTEM) == (SECOND if failing == calls - 1 else FIRST)
        assert os.listdir(tmp_path) == ["origin.json"]


def test_the_new_name_comes_after_what_it_names_is_on_the_disk(tmp_path: Path) -> None:
    order = []

    def note(function: Callable[..., Any], *args: Any) -> Any:
        order.append(function)
        return function(*args)

    with all_changes(note):
        write_origin(tmp_path, FIRST, SYSTEM)
    at = order.index(os.replace)
    assert order[at - 1] is os.fsync
    assert order[at + 1] is os.fsync  # of the directory


DAMAGED = [
    b"",
    b"{",
    b"\0" * 80,
    b"\xff\xfe",
    b"[]",
    b"null",
    b'{"format": 1}',
    b'{"format": "1", "sources": {}}',
    b'{"format": 1, "sources": []}',
    b'{"format": 1, "sources": {"a": 3}}',
    b'{"format": 1, "sources": {"a": {"place": 1}}}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_origins_are_told_with_the_file_and_what_to_do(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_bytes(text)
    with pytest.raises(
        CheckpointError, match=r"origin\.json is damaged.*Move .* away to begin anew, or put back a copy"
    ):
        read_origin(tmp_path, SYSTEM)
    assert (tmp_path / "origin.json").read_bytes() == text


def test_origins_that_are_cut_short_anywhere_are_damaged_and_never_others(tmp_path: Path) -> None:
    write_origin(tmp_path, FIRST, SYSTEM)
    whole = (tmp_path / "origin.json").read_bytes()
    for size in range(len(whole.rstrip())):
        (tmp_path / "origin.json").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="is damaged"):
            read_origin(tmp_path, SYSTEM)


def test_origins_of_a_newer_format_ask_for_a_newer_version(tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text('{"format": 2, "begun": {}}')
    with pytest.raises(CheckpointError, match="has format 2, and this version of unbounded reads up to 1"):
        read_origin(tmp_path, SYSTEM)


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / "rows").write_text(str(number))
        assert set_aside(tmp_path / "log", SYSTEM) == tmp_path / f"log.old-{number}"
    assert [(tmp_path / f"log.old-{number}" / "rows").read_text() for number in (1, 2, 3)] == ["1", "2", "3"]


# -- in a run ----------------------------------------------------------------------------------------------------------


class Newest:
    """A source that can go back, and begins with the newest row there is."""

    replayable = True

    def __init__(self, newest: int) -> None:
        self.newest = newest

    def identity(self) -> Any:
        return "newest"

    def open(self) -> Any:
        return CountingReader(self.newest)


def test_a_run_that_ended_before_its_first_checkpoint_begins_again_with_the_very_row(tmp_path: Path) -> None:
    with ub.Feed(ub.from_source(Newest(100)).batch(1)) as feed:
        feed.load(tmp_path)
        assert [b for [b] in train(feed, 3)] == [100, 101, 102]
    # "The newest row" is another one by now.
    with ub.Feed(ub.from_source(Newest(5_000)).batch(1)) as feed:
        feed.load(tmp_path)
        assert [b for [b] in train(feed, 3)] == [100, 101, 102]
        feed.save(tmp_path)
    with ub.Feed(ub.from_source(Newest(9_000)).batch(1)) as feed:
        feed.load(tmp_path)
        assert [b for [b] in train(feed, 2)] == [103, 104]


def test_a_cursor_from_before_the_source_was_opened_leads_to_the_row_at_which_it_was(tmp_path: Path) -> None:
    def stream(newest: int) -> ub.Stream:
        return ub.from_source(Newest(newest)).buffer(5).shuffle(10).batch(3)

    seen: list[int] = []
    for newest in (100, 5_000):
        with ub.Feed(stream(newest)) as feed:
            feed.load(tmp_path)
            seen += [row for batch in train(feed, 2) for row in batch]  # rows from the first on are held back
            feed.save(tmp_path)
            state = feed.state_dict()
    with ub.Feed(stream(9_000)) as feed:
        feed.load_state_dict(state)
        seen += [row for batch in train(feed, 6) for row in batch]
    assert sorted(seen) == list(range(100, 130))


def test_nothing_is_read_on_in_a_directory_whose_origins_are_damaged(tmp_path: Path) -> None:
    with ub.Feed(ub.from_source(Newest(100)).batch(1)) as feed:
        feed.load(tmp_path)
        train(feed, 1)
    [origin] = tmp_path.rglob("origin.json")
    origin.write_bytes(origin.read_bytes()[:40])
    with ub.Feed(ub.from_source(Newest(100)).batch(1)) as feed, pytest.raises(CheckpointError, match="is damaged"):
        feed.load(tmp_path)


def test_rows_of_another_source_are_set_aside_said_and_not_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps()
    steps.give(*(np.array([i]) for i in range(5)))
    with ub.Feed(steps.stream().batch(1)) as feed:
        feed.load(tmp_path)
        train(feed, 5)
        steps.end()
    before = _files(tmp_path)

    def other() -> Iterator[Any]:
        for row in range(100, 110):
            yield np.array([row])

    with ub.Feed(ub.from_generator(other).batch(1)) as feed, caplog.at_level(logging.WARNING, "unbounded"):
        feed.load(tmp_path)
        assert [b for [b] in train(feed, 3)] == [100, 101, 102]
    assert "is another source's. It was set aside, as" in caplog.text
    [aside] = [path for path in tmp_path.rglob("*.old-1")]
    kept = _files(aside)
    assert kept
    assert all(content == before[name] for name, content in kept.items() if name.endswith(".log"))
    assert any(name.endswith(".log") for name in kept)


class Down(Newest):
    """A source that can't be reached before a test says so: `open` waits, as a broker's client does."""

    def __init__(self) -> None:
        super().__init__(100)
        self.asked, self.up = threading.Event(), threading.Event()

    def open(self) -> Any:
        self.asked.set()
        self.up.wait()
        return super().open()


@pytest.mark.parametrize("word", ["load", "save"])
def test_waiting_for_a_source_that_is_down_is_said_once_and_ends_when_the_feed_is_interrupted(
    word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, clock = Down(), ub.testing.Clock()
    with ub.Feed(ub.from_source(source).batch(1), runtime=clock) as feed, caplog.at_level("WARNING", "unbounded"):
        raised: list[BaseException] = []

        def call() -> None:
            try:
                getattr(feed, word)(tmp_path)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        assert source.asked.wait(10)
        clock.advance(10.0)
        wait_until(lambda: "Nothing for 10 seconds from Down: waiting." in caplog.text)
        clock.advance(50.0)
        feed.interrupt()
        thread.join(10)
        assert not thread.is_alive()
        [error] = raised
        assert isinstance(error, ub.StreamError)
        assert "was interrupted while Down was being opened" in str(error)
        assert caplog.text.count("waiting.") == 1
        assert not list(tmp_path.rglob("origin.json"))
        feed.resume()
        source.up.set()
        feed.load(tmp_path)
        assert list(tmp_path.rglob("origin.json"))
        assert [b for [b] in train(feed, 2)] == [100, 101]


def test_waiting_for_a_source_that_is_down_ends_when_the_feed_is_closed(tmp_path: Path) -> None:
    source = Down()
    feed = ub.Feed(ub.from_source(source).batch(1))
    raised: list[BaseException] = []

    def call() -> None:
        try:
            feed.load(tmp_path)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert source.asked.wait(10)
    feed.close()  # which waits a second for the thread that opens
    thread.join(10)
    source.up.set()
    [error] = raised
    assert isinstance(error, ub.StreamError)
    assert "closed" in str(error)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}

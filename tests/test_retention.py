"""The warning of a run that would have to go back more than half of its source's retention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import train

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Topic:
    """Rows 0, 1, 2, …, one each second since 1,000, as a broker keeps them."""

    replayable = True

    def __init__(self, retention: Any = None) -> None:
        self.retention = retention

    def identity(self) -> Any:
        return "topic"

    def open(self) -> Any:
        return _TopicReader()


class _TopicReader:
    at = 0

    def position(self) -> Any:
        return self.at

    def seek(self, position: Any) -> None:
        self.at = position

    def read(self, timeout: float) -> Any:
        row, self.at = self.at, self.at + 1
        return ub.Rows(np.array([row]), times=np.array([1000.0 + row]))

    def close(self) -> None:
        pass


def feed_of(retention: Any, words: Any = lambda stream: stream.batch(1), start: float = 1000.0) -> ub.Feed:
    return ub.Feed(words(ub.from_source(Topic(retention))), runtime=ub.testing.Clock(start))


def test_a_checkpoint_that_lies_too_many_rows_back_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with feed_of(ub.Retention(rows=40)) as feed, caplog.at_level("WARNING", "unbounded"):
        feed.load(tmp_path)
        train(feed, 5)
        feed.save(tmp_path, keep=1)
        train(feed, 20)
        assert not caplog.text
        train(feed, 10)
        assert caplog.text.count("needs them from row 5 on: that is 21 rows") == 1
        assert "Topic keeps rows for 40 rows" in caplog.text
        assert len(caplog.records) == 1
        feed.save(tmp_path, keep=1)
        train(feed, 19)
        assert len(caplog.records) == 1
        train(feed, 5)
        assert len(caplog.records) == 2


def test_what_a_checkpoint_needs_grows_old_while_nothing_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with feed_of(ub.Retention(seconds=100)) as feed, caplog.at_level("WARNING", "unbounded"):
        feed.load(tmp_path)
        train(feed, 5)
        feed.save(tmp_path, keep=1)
        feed.runtime.advance(50)
        train(feed, 1)
        assert not caplog.text
        feed.runtime.advance(5)
        train(feed, 2)
        assert "keeps rows for 100 seconds" in caplog.text
        assert len(caplog.records) == 1


def test_a_run_that_goes_on_knows_how_old_its_position_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with feed_of(ub.Retention(seconds=100)) as feed:
        train(feed, 5)
        feed.save(tmp_path)
    with feed_of(ub.Retention(seconds=100), start=1060.0) as feed, caplog.at_level("WARNING", "unbounded"):
        feed.load(tmp_path)
        train(feed, 1)
        assert "needs them from row 5 on" in caplog.text
        assert "56 seconds back" in caplog.text


def test_without_checkpoints_what_was_trained_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    with feed_of(ub.Retention(rows=40, seconds=100)) as feed, caplog.at_level("WARNING", "unbounded"):
        for _ in range(20):
            feed.runtime.advance(10)
            train(feed, 10)
        assert not caplog.text


def test_the_position_names_how_old_its_oldest_cursor_is() -> None:
    with feed_of(None, lambda stream: stream.shuffle(8).batch(1)) as feed:
        train(feed, 12)
        feed.runtime.advance(57)
        assert str(feed.position) == "row 12, to be read again from row 8 of the source, which came 50 seconds ago"


def test_a_retention_is_checked_when_the_stream_is_written() -> None:
    with pytest.raises(TypeError, match=r"Topic\.retention is 3600\. Expected ub\.Retention"):
        ub.from_source(Topic(3600))
    with pytest.raises(ValueError, match="neither rows= nor seconds="):
        ub.Retention()
    with pytest.raises(ValueError, match=r"seconds=-1\): expected a number above 0"):
        ub.Retention(seconds=-1)

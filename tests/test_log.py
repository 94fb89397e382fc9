"""A log is cut back to what a checkpoint knows of."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import pytest

from unbounded import _log
from unbounded._log import Log


def test_records_come_back_in_order(tmp_path: Path) -> None:
    with Log(tmp_path / "new" / "scores.jsonl") as log:
        log.append({"row": 10**20, "score": math.inf}, [1, (2, None)])
        log.append("é")
        assert list(log.read()) == [{"row": 10**20, "score": math.inf}, [1, (2, None)], "é"]
        assert len(log.path.read_text().splitlines()) == 3


def test_what_came_after_the_checkpoint_is_cut_and_made_again(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        assert log.tell() == 0
        log.append(1)
        length = log.tell()
        log.append(2)
    with Log(tmp_path / "log") as log:  # the next process
        log.cut(length)
        log.append(2)
        assert list(log.read()) == [1, 2]
        log.cut(0)
        assert list(log.read()) == []


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append(1)
        with log.path.open("a") as file:
            file.write('{"row": 1')
        assert list(log.read()) == [1]


def test_lost_lines_are_told(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append(1)
        length = log.tell()
        log.path.write_text("")
        with pytest.warns(UserWarning, match="has 0 bytes, and had 2 when the checkpoint was written"):
            log.cut(length)


def test_what_is_no_plain_data_is_refused_and_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        with pytest.raises(TypeError, match=r"record\['x'\] is of type object"):
            log.append(1, {"x": object()})
        assert list(log.read()) == []


def test_a_closed_log_is_not_written_to(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.close()
    log.close()
    with pytest.raises(ValueError, match="was closed; open it again"):
        log.append(1)


def test_the_examples_run() -> None:
    assert doctest.testmod(_log).failed == 0

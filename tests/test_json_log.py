"""A log of JSON lines is truncated to its length at the checkpoint."""

from __future__ import annotations

import doctest
import errno
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intercepted_files import all_changes
from unbounded.store import json_log
from unbounded.store.checkpoints import CheckpointError
from unbounded.store.json_log import Log, read_records


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
    assert doctest.testmod(json_log).failed == 0


# ---- what a kill, a loss of power or a full disk leaves ----

TORN = {
    "half a line": b'{"kind": "rea',
    "half a character": '{"name": "é'.encode()[:-1],
    "one character": b"{",
    "a number whose end is not known": b"12",
    "zeros": b"\0" * 5_000,
    "zeros with a line end": b"\0" * 100 + b"\n",
    "zeros in a line": b'{"kind": "\0\0\0\0"}\n',
    "zeros in lines": b"\0\0\n" * 40_000 + b"\0",
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
@pytest.mark.parametrize("before", [0, 3])
def test_a_torn_end_is_cut_off_before_the_next_record(before: int, torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Log(path) as log:
        log.append(*range(before))
        whole = log.tell()
    with path.open("ab") as file:
        file.write(torn)
    for number in (10, 11):  # the run after the crash, and the one after that
        with Log(path) as log:
            assert log.tell() >= whole
            log.append(number)
    with Log(path) as log:
        assert list(log.read()) == [*range(before), 10, 11]
    assert path.read_bytes().endswith(b"10\n11\n")


def test_a_torn_end_is_cut_off_where_the_checkpoint_notes_a_longer_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Log(path) as log:
        log.append(1, 22222)
        length = log.tell()
    path.write_bytes(b"1\n222\0\0")
    with Log(path) as log:
        with pytest.warns(UserWarning, match="has 2 bytes, and had 8 when the checkpoint was written: lines are lost"):
            log.cut(length)
        log.append(3)
        assert list(log.read()) == [1, 3]


def test_a_cut_into_a_line_leaves_no_half_of_it(tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append(1, 22222)
        with pytest.warns(UserWarning, match="has 2 bytes, and had 5"):
            log.cut(5)
        log.append(3)
        assert list(log.read()) == [1, 3]


def test_damage_in_the_middle_is_passed_over_and_told_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'1\n{"a": {"b": 2}\n\0\0\0\0\n\xff\xfe\n"\\u00"\n2\n')
    with Log(path) as log:
        with pytest.warns(UserWarning, match="4 of the lines in .*log are no records.*passed over") as told:
            assert list(log.read()) == [1, 2]
        assert len(told) == 1
        log.append(3)
    with pytest.warns(UserWarning, match="4 of the lines"):
        assert list(read_records(path)) == [1, 2, 3]


def test_a_file_that_is_being_written_is_read_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Log(path) as writer:
        writer.append(1)
        with path.open("ab") as file:
            file.write(b'{"half": ')  # a write that the kernel has taken a part of
        with Log(path) as reader:
            assert list(reader.read()) == [1]
        assert list(read_records(path)) == [1]
        assert path.read_bytes() == b'1\n{"half": '
        with path.open("ab") as file:
            file.write(b"2}\n")
        assert list(writer.read()) == [1, {"half": 2}]


def test_a_log_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none")) == []


@pytest.mark.parametrize("text", ["a letter to somebody", "Dear all,\nhello\nbye", "# notes\n\nno end"])
def test_a_text_that_is_no_log_is_not_cut(text: str, tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text(text)
    with Log(path) as log, pytest.raises(CheckpointError, match="letter is no log of records: it begins with"):
        log.append(1)
    assert path.read_text() == text


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_full_disk_leaves_no_half_of_a_record_and_the_next_one_is_whole(after: int, tmp_path: Path) -> None:
    with Log(tmp_path / "log") as log:
        log.append(1)

        def full(function: Callable[..., Any], *args: Any) -> Any:
            if function is not os.write:
                return function(*args)
            if len(args[1]) > after:
                function(args[0], args[1][:after])
            raise OSError(errno.ENOSPC, "No space left on device")

        says = pytest.raises(CheckpointError, match=r"was not written in .*log: No space left.*before it are whole")
        with all_changes(full), says:
            log.append({"row": 2}, {"row": 3})
        log.append(4)
        assert list(log.read()) == [1, 4]


def test_a_path_that_cannot_be_written_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "file" / "log", "it is a file, not a directory")):
        with pytest.raises(CheckpointError, match=f"could not be opened in .*: {why}"):
            Log(path)


def test_a_log_that_was_removed_is_told_and_begun_anew(tmp_path: Path) -> None:
    with Log(tmp_path / "run" / "log") as log:
        log.append(1)
        shutil.rmtree(tmp_path / "run")
        with pytest.warns(UserWarning, match="was removed or replaced.*its lines so far are lost"):
            log.append(2)
        log.append(3)
        assert log.tell() == 4
        assert list(log.read()) == [2, 3]

"""The arrival log in memory and its file: what was noted is found again, in order, and nothing else."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from test_record_log import QUICK, Disk, full
from unbounded.core.arrival_log import ArrivalLog, Entries
from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.decisions import DecidedRange, Decisions
from unbounded.core.node import StreamError
from unbounded.core.runtime import SYSTEM
from unbounded.sources.arrival_file import ArrivalFile


class Kept:
    """A file of the arrival log, in a list."""

    id, where = "0" * 32, "a list"

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.released = 0
        self.full = False

    def append(self, entries: Entries) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        self.records.append({name: list(each) for name, each in entries.items()})
        return len(self.records)

    def release(self, records: int) -> None:
        self.released = records

    def close(self) -> None:
        pass


def expected(ordinals: dict[int, Any]) -> list[DecidedRange]:
    """The ranges of one decision each."""
    found: list[DecidedRange] = []
    for ordinal, decision in ordinals.items():
        if found and found[-1].stop == ordinal and found[-1].decision == decision:
            found[-1] = found[-1]._replace(stop=ordinal + 1)
        else:
            found.append(DecidedRange(ordinal, ordinal + 1, decision))
    return found


def test_ranges_are_found_by_any_of_their_ordinals_until_they_are_let_go_of() -> None:
    rng = random.Random(3)
    for _ in range(20):
        decisions, known = Decisions(SYSTEM), dict[int, Any]()
        at = released = 0
        for _ in range(400):
            first = at + rng.choice((0, 0, 0, 2))
            at = first + rng.randint(1, 5)
            decision = rng.choice(("a", "b", 7, (1, 2)))
            decisions.note(first, at, decision)
            known.update(dict.fromkeys(range(first, at), decision))
            if rng.random() < 0.1:
                released = rng.randint(released, at)
                decisions.release(released)
            ask = rng.randint(released, at + 3)
            found = decisions.at(ask)
            assert (None if found is None else found.decision) == known.get(ask)
            assert found is None or found.first <= ask < found.stop
        assert decisions.stop == at
        kept = {ordinal: known[ordinal] for ordinal in known if ordinal >= released}
        found_all = decisions.between(released, at)
        assert {i: each.decision for each in found_all for i in range(max(released, each.first), each.stop)} == kept
        again = Decisions(SYSTEM)
        again.extend(from_plain(json.loads(json.dumps(to_plain(decisions.state())))))
        assert again.between(released, at) == found_all
        again.extend(decisions.state())  # what is known is not taken up twice
        assert again.between(0, at) == decisions.between(0, at)


def test_what_is_decided_stays_though_it_is_noted_again() -> None:
    decisions = Decisions(SYSTEM)
    decisions.note(0, 5, "a")
    decisions.note(2, 7, "b")
    decisions.note(1, 3, "c")
    assert decisions.between(0, 9) == [(0, 5, "a"), (5, 7, "b")]


def test_a_row_at_a_time_of_one_partition_is_one_range_and_a_decision_may_stay_apart() -> None:
    decisions = Decisions(SYSTEM, apart=("gap",))
    for row in range(1000):
        decisions.note(row, row + 1, "a")
    for row in range(1000, 1003):
        decisions.note(row, row + 1, "gap")
    assert decisions.between(0, 2000) == [(0, 1000, "a"), *((row, row + 1, "gap") for row in (1000, 1001, 1002))]
    state = decisions.state()
    again = Decisions(SYSTEM, apart=("gap",))
    again.extend(state)
    assert again.between(0, 2000) == decisions.between(0, 2000)


def test_what_several_nodes_noted_goes_into_one_record_and_once() -> None:
    log, file = ArrivalLog(SYSTEM), Kept()
    a, b = log.of("a"), log.of("b")
    a.decisions.note(0, 3, "x")
    log.move(file)
    assert file.records == [{"a": [(0, 3, "x")]}]
    a.decisions.note(3, 4, "x")
    b.decisions.note(7, 9, (1,))
    b.write()
    a.write()
    b.write()
    assert file.records[1:] == [{"a": [(3, 4, "x")], "b": [(7, 9, (1,))]}]


def test_what_could_not_be_written_is_written_by_the_next_attempt() -> None:
    log, file = ArrivalLog(SYSTEM), Kept()
    a = log.of("a")
    log.move(file)
    file.full = True
    for row in range(3):
        a.decisions.note(row, row + 1, row)
        with pytest.raises(StreamError, match=r"the arrival log in a list: No space left.*Once there is room"):
            a.write()
    file.full = False
    a.write()
    assert file.records == [{"a": [(0, 1, 0), (1, 2, 1), (2, 3, 2)]}]


def test_records_are_let_go_of_when_all_nodes_have_let_go_of_what_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbounded.core.arrival_log._MARK", 1)
    log, file = ArrivalLog(SYSTEM), Kept()
    a, b = log.of("a"), log.of("b")
    log.move(file)
    for number in range(10):
        a.decisions.note(number, number + 1, number)
        b.decisions.note(10 * number, 10 * number + 10, number)
        a.write()
    a.release(5)
    assert file.released == 0
    b.release(39)
    assert file.released == log.first_record == 3
    b.release(90)
    assert file.released == 5
    a.release(10)
    assert file.released == 9


def test_a_file_gives_back_what_was_appended_and_its_stream(tmp_path: Path) -> None:
    file = ArrivalFile(tmp_path / "log", SYSTEM)
    file.begin("ab" * 16, "stream")
    entries = {
        "0.source": [DecidedRange(0, 3, "é"), DecidedRange(3, 5, 7)],
        "2.mix": [DecidedRange(1, 2, (0, 2)), DecidedRange(2, 9, ())],
    }
    assert file.append(entries) == 2
    assert file.append({"0.source": [DecidedRange(5, 6, None)]}) == 3
    file.close()
    again = ArrivalFile(tmp_path / "log", SYSTEM)
    assert (again.id, again.start, again.stop) == ("ab" * 16, 0, 3)
    assert again.read(0) == ([(2, entries), (3, {"0.source": [(5, 6, None)]})], "stream")
    assert again.read(2) == ([(3, {"0.source": [(5, 6, None)]})], None)
    again.close()


def test_a_kill_at_any_byte_leaves_a_beginning_of_what_was_appended(tmp_path: Path) -> None:
    file = ArrivalFile(tmp_path / "log", QUICK)
    file.begin("ab" * 16, "stream")
    for number in range(4):
        file.append({"0.source": [DecidedRange(number, number + 1, "a")]})
    file.close()
    (path,) = (tmp_path / "log").glob("*.log")
    whole = path.read_bytes()
    lengths = set()
    for size in range(len(whole)):
        torn = tmp_path / "torn"
        shutil.copytree(tmp_path / "log", torn)
        (torn / path.name).write_bytes(whole[:size])
        again = ArrivalFile(torn, QUICK)
        records, _ = again.read(0)
        assert [entries["0.source"][0].first for _, entries in records] == [*range(len(records))]
        lengths.add(len(records))
        again.close()
        shutil.rmtree(torn)
    assert lengths == {0, 1, 2, 3}


def test_a_disk_that_refuses_a_write_or_a_sync_loses_nothing_of_it(tmp_path: Path) -> None:
    disk = Disk()
    file = ArrivalFile(tmp_path / "log", disk)
    file.begin("ab" * 16, "stream")
    refused = 0
    for number in range(12):
        disk.fails = full(7) if number % 3 == 1 else None
        entries = {"0.source": [DecidedRange(number, number + 1, "a")]}
        try:
            file.append(entries)
        except OSError:
            refused += 1
            disk.fails = None
            file.append(entries)
        left = [number % 3 == 2]

        def fails(function: Any, *_: Any, left: list[bool] = left) -> None:
            if function is os.fsync and left[0]:
                left[0] = False
                raise OSError(5, "Input/output error")

        disk.fails = fails
        file.sync()  # the second attempt is into a new segment
    assert refused == 4
    file.close()
    again = ArrivalFile(tmp_path / "log", SYSTEM)
    assert [entries["0.source"][0].first for _, entries in again.read(0)[0]] == [*range(12)]
    again.close()


def test_a_log_that_was_begun_and_has_no_record_is_begun_anew(tmp_path: Path) -> None:
    for number in range(3):
        file = ArrivalFile(tmp_path / "log", SYSTEM, segment_bytes=200)
        assert file.stop == 0
        file.begin(f"{number:032x}", "stream")
        if number < 2:
            file.close()
            (path,) = (tmp_path / "log").glob("*.log")
            path.write_bytes(path.read_bytes()[:-3])  # killed while the first record was written
    for row in range(20):
        file.append({"0.source": [DecidedRange(row, row + 1, row)]})
    file.close()
    again = ArrivalFile(tmp_path / "log", SYSTEM)
    assert again.id == f"{2:032x}"
    assert len(again.read(0)[0]) == 20
    again.close()


def test_an_interrupt_at_any_line_of_an_append_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    """As a signal's handler raises it in the thread that pulls."""
    rooms = ("core/arrival_log.py", "core/decisions.py", "sources/arrival_file.py")

    def decide(node: Any, at_line: int) -> int:
        """Decide for one row more, with an interrupt at a line; gives how many lines there were."""
        lines = 0

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal lines
            if not frame.f_code.co_filename.endswith(rooms):
                return None
            if event == "line":
                lines += 1
                if lines == at_line:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            node.decisions.note(node.decisions.stop, node.decisions.stop + 1, node.decisions.stop % 3)
            node.write()
            node.release(node.decisions.stop - 2)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        return lines

    number = itertools.count(1)
    log, file = ArrivalLog(SYSTEM), ArrivalFile(tmp_path / "log", QUICK)
    node = log.of("a")
    file.begin(log.id, "stream")
    log.move(file)
    while (at := next(number)) <= decide(node, at):
        node.write()  # the next attempt
    assert at > 40
    rows = node.decisions.stop
    node.write()
    log.close()
    again, file = ArrivalLog(SYSTEM), ArrivalFile(tmp_path / "log", SYSTEM)
    node = again.of("a")
    again.go_on(file, 0, file.read(0)[0], at_start=True)
    assert [node.decisions.at(row).decision for row in range(rows)] == [row % 3 for row in range(rows)]  # type: ignore[union-attr]
    assert node.decisions.stop == rows
    again.close()

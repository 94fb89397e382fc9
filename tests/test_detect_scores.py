"""Scores and alarms in files: each reading is there once after any cut, and each key has a scorer of its own."""

import csv
import doctest
import itertools
import json

import numpy as np
import pytest

from helpers import installed
from unbounded.detect import _alarm_file
from unbounded.detect._alarm_file import HEAD, AlarmFile
from unbounded.detect._columns import Column
from unbounded.detect._keyed_scores import KeyedScorers
from unbounded.detect._record import RecordedAlarm
from unbounded.detect._score import Scorer
from unbounded.detect._score_files import ScoreFiles

arrow = installed("pyarrow")


def add(scores, *rows, key=None):
    row = np.array(rows)
    scores.add(row, row * 0.5, row / 10, None if key is None else np.array([key] * len(row)))


def written(folder):
    import pyarrow.parquet as pq

    return pq.read_table(folder / "scores.parquet")


@arrow
def test_scores_are_one_table_in_parts(tmp_path):
    scores = ScoreFiles(tmp_path, "utc", rows=3)
    for row in range(8):
        add(scores, row)
        if row == 4:
            scores.write()
    scores.write()
    table = written(tmp_path)
    assert table.column("row").to_pylist() == list(range(8))
    assert table.column("score").to_numpy().tolist() == pytest.approx([row / 10 for row in range(8)])
    assert table.column("time").to_numpy().astype("datetime64[ms]").astype(int).tolist() == [
        500 * row for row in range(8)
    ]
    assert sorted(path.name for path in scores.folder.iterdir()) == [f"part-00000{n}.parquet" for n in (1, 2, 3)]


@arrow
@pytest.mark.parametrize(("axis", "names"), [("row", ["row", "score"]), ("seconds", ["row", "time", "score"])])
def test_times_are_of_the_run_s_kind(tmp_path, axis, names):
    scores = ScoreFiles(tmp_path, axis)
    add(scores, 3, 4)
    scores.write()
    assert written(tmp_path).column_names == names


@arrow
@pytest.mark.parametrize(("saved", "more"), [*itertools.product(range(1, 8), (0, 1, 2, 5))])
def test_a_resume_cuts_scores_back_to_the_checkpoint_whatever_was_written_since(tmp_path, saved, more):
    scores = ScoreFiles(tmp_path, "date", keyed=True, rows=3)
    for row in range(saved):
        add(scores, row, key="a")
    state = json.loads(json.dumps(scores.state_dict()))
    for row in range(saved, saved + more):
        add(scores, row, key="b")
    scores.write()  # the process is killed here
    scores = ScoreFiles(tmp_path, "date", keyed=True, rows=3)
    scores.load_state_dict(state)
    assert written(tmp_path).column("row").to_pylist() == list(range(saved))
    for row in range(saved, 9):
        add(scores, row, key="c")
    scores.write()
    table = written(tmp_path)
    assert table.column("row").to_pylist() == list(range(9))
    assert table.column("key").to_pylist() == ["a"] * saved + ["c"] * (9 - saved)
    assert table.column("time").to_pylist()[8].isoformat() == "1970-01-01T00:00:04+00:00"


@arrow
def test_an_older_checkpoint_cuts_scores_back_further(tmp_path):
    scores = ScoreFiles(tmp_path, "row", rows=3)
    add(scores, 0, 1)
    state = scores.state_dict()
    add(scores, *range(2, 10))
    scores.state_dict()
    scores = ScoreFiles(tmp_path, "row", rows=3)
    scores.load_state_dict(state)
    assert written(tmp_path).column("row").to_pylist() == [0, 1]


@arrow
def test_a_run_without_a_checkpoint_begins_without_scores(tmp_path):
    scores = ScoreFiles(tmp_path, "row", rows=3)
    add(scores, *range(7))
    scores.write()
    ScoreFiles(tmp_path, "row", rows=3).begin()
    assert list(scores.folder.iterdir()) == []


@arrow
def test_scores_that_were_lost_are_said(tmp_path):
    said = []
    scores = ScoreFiles(tmp_path, "row", say=said.append)
    add(scores, 0, 1, 2)
    state = scores.state_dict()
    next(scores.folder.iterdir()).write_bytes(b"no parquet")
    ScoreFiles(tmp_path, "row", say=said.append).load_state_dict(state)
    assert len(said) == 1
    assert "had 3 scores at the checkpoint and has 0" in said[0]


@arrow
def test_the_oldest_parts_are_removed_at_a_limit_and_that_is_said_once(tmp_path):
    said = []
    scores = ScoreFiles(tmp_path, "row", rows=100, kept=3_000, say=said.append)
    add(scores, *range(2_000))
    scores.write()
    assert sum(path.stat().st_size for path in scores.folder.iterdir()) < 6_000
    assert written(tmp_path).column("row").to_pylist()[-1] == 1_999
    assert len(said) == 1


def alarm(row, key=""):
    return RecordedAlarm(row * 1.0, key, "flow, in", "sudden", 6.0, 1e-6, 12.5, row, 'flow, "in" +12.5')


def lines(folder):
    found = []
    for path in [*sorted(folder.glob("alarms-*.csv")), folder / "alarms.csv"]:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        assert tuple(rows[0]) == HEAD
        found += rows[1:]
    return found


def test_alarms_are_csv_that_any_reader_takes(tmp_path):
    alarms = AlarmFile(tmp_path, "utc")
    alarms.begin()
    alarms.add(alarm(7, key="p,1"))
    alarms.close()
    (row,) = lines(tmp_path)
    assert dict(zip(HEAD, row, strict=True)) == {
        "time": "1970-01-01T00:00:07",
        "key": "p,1",
        "column": "flow, in",
        "cause": "sudden",
        "score": "6.000",
        "tail": "1e-06",
        "change": "12.5",
        "row": "7",
        "words": 'flow, "in" +12.5',
    }


@pytest.mark.parametrize(("saved", "more"), [*itertools.product(range(8), (0, 1, 2, 5))])
def test_a_resume_cuts_alarms_back_to_the_checkpoint(tmp_path, saved, more):
    size = 300  # four alarms in a file
    alarms = AlarmFile(tmp_path, "row", size=size)
    alarms.begin()
    for row in range(saved):
        alarms.add(alarm(row))
    state = json.loads(json.dumps(alarms.state_dict()))
    for row in range(saved, saved + more):
        alarms.add(alarm(row))
    alarms.close()
    for _ in range(2):  # the first resume may be killed as well
        alarms = AlarmFile(tmp_path, "row", size=size)
        alarms.load_state_dict(state)
        alarms.close()
    assert [int(row[7]) for row in lines(tmp_path)] == list(range(saved))
    alarms = AlarmFile(tmp_path, "row", size=size)
    alarms.load_state_dict(state)
    alarms.add(*map(alarm, range(saved, 12)))
    alarms.close()
    assert [int(row[7]) for row in lines(tmp_path)] == list(range(12))
    assert len(list(tmp_path.glob("alarms-*.csv"))) >= 2


def test_a_run_without_a_checkpoint_begins_without_alarms(tmp_path):
    alarms = AlarmFile(tmp_path, "row", size=200)
    alarms.begin()
    alarms.add(*map(alarm, range(9)))
    alarms.close()
    again = AlarmFile(tmp_path, "row")
    again.begin()
    again.close()
    assert lines(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["alarms.csv"]


def test_files_of_somebody_else_are_left_as_they_are(tmp_path):
    (tmp_path / "alarms.csv").write_text("when,what\n1,fire\n")
    with pytest.raises(ValueError, match="is not of a run: it begins with 'when,what'"):
        AlarmFile(tmp_path, "row").begin()
    (tmp_path / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="is a file, and not of a run"):
        ScoreFiles(tmp_path, "row").begin()
    assert (tmp_path / "alarms.csv").read_text() == "when,what\n1,fire\n"


def make():
    return Scorer([Column("a"), Column("b")], warm_up=100)


def keyed_rows(rows=1_200, keys=3):
    rng = np.random.default_rng(0)
    key = np.array([f"pump {n}" for n in rng.integers(keys, size=rows)])
    values = rng.normal(size=(rows, 2))
    values[900:, 1] += 40 * (key[900:] == "pump 1")
    row = np.arange(rows)
    return key, row, row * 1.0, values, values, np.zeros((rows, 2))


def scored(scorers, given, cuts):
    found, alarms, at = [], [], 0
    for count in cuts:
        score, more = scorers.score(*(part[at : at + count] for part in given))
        found.append(score)
        alarms += more
        at += count
    return np.concatenate(found), alarms


def test_each_key_is_scored_as_if_it_were_alone():
    given = keyed_rows()
    score, alarms = scored(KeyedScorers(make), given, [7, 93, 500, 600])
    for name in np.unique(given[0]):
        part = given[0] == name
        alone = make().score(*(each[part] for each in given[1:]))
        np.testing.assert_array_equal(score[part], alone.score)
        assert [alarm for key, _, alarm in alarms if key == name] == list(alone.alarms)
    first = next((key, row) for key, row, alarm in alarms if alarm.column == "b" and abs(alarm.change) > 30)
    assert first[0] == "pump 1"
    assert first[1] == np.flatnonzero((given[0] == "pump 1") & (given[1] >= 900))[0]


def test_the_scores_of_keys_do_not_change_with_a_restart():
    given = keyed_rows()
    expected, alarms = scored(KeyedScorers(make), given, [1_200])
    found, again, at = [], [], 0
    scorers = KeyedScorers(make)
    for count in (1, 99, 400, 300, 400):
        score, more = scorers.score(*(part[at : at + count] for part in given))
        found.append(score)
        again += more
        at += count
        state = scorers.state_dict()
        scorers = KeyedScorers(make)
        scorers.load_state_dict(state)
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert again == alarms
    assert scorers.rows == 1_200
    assert scorers.last == 1_199


def test_a_key_that_is_silent_for_long_is_forgotten():
    key, *given = keyed_rows()
    key[600:] = "pump 2"
    scorers = KeyedScorers(make, expire=300)
    scored(scorers, (key, *given), [100] * 12)
    assert scorers.keys == ("pump 2",)


def test_readings_without_keys_are_one_series():
    _, *given = keyed_rows()
    score, _ = KeyedScorers(make).score(None, *given)
    np.testing.assert_array_equal(score, make().score(*given).score)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(_alarm_file).failed == 0

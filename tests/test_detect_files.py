"""Files of readings: which columns are read, what is a time, and that a resume goes on at the very row."""

import datetime
import doctest
import json

import numpy as np
import pytest

import unbounded as ub
from helpers import installed
from unbounded.detect import _file_times
from unbounded.detect._file_columns import Choice, columns_of
from unbounded.detect._file_readings import FileReadings
from unbounded.detect._readings import SourceError, readings

pytestmark = installed("pyarrow", "fsspec")

PLANT = """\
timestamp,flow,count,pump,on
2024-05-01 10:00:00,1.5,7,b,true
2024-05-01 10:05:00,,8,a,false
2024-05-01 10:10:00,2.5,,b,true
"""
BEGIN = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC).timestamp()


@pytest.fixture
def plant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plant.csv").write_text(PLANT)
    return tmp_path


def rows_of(path, passes=1, **choice):
    """All rows of files."""
    found = []
    with ub.Feed(readings(str(path), choice=Choice(**choice), passes=passes).stream, on_nan="pass") as feed:
        for block in feed.batches():
            found.append(block)
    return {name: np.concatenate([block[name] for block in found]) for name in found[0]}


def test_numbers_are_columns_a_gap_is_nan_and_text_is_said_to_be_left_out(plant):
    where = readings("plant.csv")
    assert [column.name for column in where.columns] == ["flow", "count", "on"]
    assert (where.axis, where.keyed, where.live) == ("utc", False, False)
    said = []
    where.remarks.listen(said.append)
    assert said == ["Left out, since they are no numbers: pump. (A key is named by --by.)"]
    rows = rows_of("plant.csv")
    np.testing.assert_array_equal(rows["values"], [[1.5, 7, 1], [np.nan, 8, 0], [2.5, np.nan, 1]])
    assert rows["row"].tolist() == [0, 1, 2]
    assert (rows["time"] - BEGIN).tolist() == [0, 300, 600]


def test_a_key_and_columns_are_chosen_by_name(plant):
    where = readings("plant.csv", choice=Choice(columns=("count",), by="pump"))
    assert where.keyed
    rows = rows_of("plant.csv", columns=("count",), by="pump")
    assert rows["key"].tolist() == ["b", "a", "b"]
    np.testing.assert_array_equal(rows["values"], [[7], [8], [np.nan]])
    assert rows_of("plant.csv", columns=("flow",), by="on")["key"].tolist() == ["true", "false", "true"]
    # A row without a key is of the key "".
    assert rows_of("plant.csv", columns=("flow",), by="count")["key"].tolist() == ["7", "8", ""]


def test_a_file_without_times_has_the_numbers_of_its_rows(tmp_path):
    (tmp_path / "a.csv").write_text("x\n5\n6\n")
    where = readings(str(tmp_path / "a.csv"))
    said = []
    where.remarks.listen(said.append)
    assert where.axis == "row"
    assert said == ["No column of times was found (--time names one): rows are numbered."]
    assert rows_of(tmp_path / "a.csv")["time"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "cells", "form"),
    [
        ("when", ["1.5.2024 10:00", "1.5.2024 10:05"], "%d.%m.%Y %H:%M"),
        ("Date", ["2024-05-01T10:00:00Z", "2024-05-01T12:05:00+02:00"], None),
        ("ts", [f"{BEGIN:.0f}", f"{BEGIN + 300:.0f}"], None),
        ("time", [f"{BEGIN:.0f}000", f"{BEGIN + 300:.0f}000"], None),
        ("date", ["2024-05-01 10:00", "2024-05-01 10:05"], None),
    ],
)
def test_times_are_read_as_they_are_written(tmp_path, name, cells, form):
    (tmp_path / "a.csv").write_text(f"x,{name}\n1,{cells[0]}\n2,{cells[1]}\n3,\n")
    choice = {"time": name, "time_format": form} if form else {}
    rows = rows_of(tmp_path / "a.csv", **choice)
    assert (rows["time"] - BEGIN).tolist()[:2] == [0, 300]
    assert np.isnan(rows["time"][2])


def test_numbers_with_a_form_are_times_of_that_form(tmp_path):
    (tmp_path / "a.csv").write_text("day,x\n20240501,1\n20240502,2\n")
    rows = rows_of(tmp_path / "a.csv", time="day", time_format="%Y%m%d")
    assert (rows["time"] - BEGIN + 36_000).tolist() == [0, 86_400]


def test_a_column_of_a_usual_name_that_holds_no_times_is_no_time(tmp_path):
    (tmp_path / "a.csv").write_text("x,date,moment\n1,soon,2024-05-01 10:00:00\n")
    assert columns_of(str(tmp_path / "a.csv"), Choice()).time == "moment"
    (tmp_path / "b.csv").write_text("x,date\n1,soon\n")
    assert columns_of(str(tmp_path / "b.csv"), Choice()).time is None


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl", "tsv", "csv.gz"])
def test_formats_give_the_same_rows(plant, form):
    import gzip

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.feather
    import pyarrow.parquet

    table = pa.csv.read_csv("plant.csv")
    if form == "parquet":
        pa.parquet.write_table(table, "a.parquet")
    elif form == "arrow":
        pa.feather.write_feather(table, "a.arrow", compression="uncompressed")
    elif form == "jsonl":
        rows = [{**row, "timestamp": str(row["timestamp"])} for row in table.to_pylist()]
        (plant / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "tsv":
        (plant / "a.tsv").write_text(PLANT.replace(",", "\t"))
    else:
        (plant / "a.csv.gz").write_bytes(gzip.compress(PLANT.encode()))
    expected, found = rows_of("plant.csv", by="pump"), rows_of(f"a.{form}", by="pump")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_series_goes_on_in_the_next_file_and_ends_with_a_pass(plant):
    (plant / "more.csv").write_text(PLANT.replace("2024-05-01", "2024-05-02"))
    # Each file has three rows: windows of four span both, and none spans the end of a pass.
    where = readings("*.csv", passes=2)
    with ub.Feed(where.stream.windows(4).batch(1), on_nan="pass") as feed:
        last = [int(batch["row"][0, -1]) for batch in feed.batches()]
    assert last == [3, 4, 5, 9, 10, 11]
    assert rows_of("*.csv", passes=2)["row"].tolist() == list(range(12))


def test_a_source_of_files_keeps_the_protocol_and_resumes_at_each_step(plant):
    (plant / "more.csv").write_text(PLANT)
    chosen = columns_of("*.csv", Choice(by="pump"))
    ub.testing.assert_reads(FileReadings("*.csv", chosen, passes=3))
    stream = ub.from_source(FileReadings("*.csv", chosen, passes=3))
    ub.testing.assert_resumes(stream.map(lambda rows: rows["row"]).batch(2), steps=9)


def numbers_of(where, state=None):
    """The numbers of the rows that are still to come, in batches, and the state after them."""
    with ub.Feed(where.stream.map(lambda rows: rows["row"]).batch(3)) as feed:
        if state is not None:
            feed.load_state_dict(state, accept_changes=True)
        return [batch.tolist() for batch in feed.batches()], feed.state_dict()


def test_rows_that_are_appended_are_read_by_a_later_process(plant):
    batches, state = numbers_of(readings("plant.csv"))
    assert batches == [[0, 1, 2]]
    assert numbers_of(readings("plant.csv"), state)[0] == []
    with (plant / "plant.csv").open("a") as file:
        file.write(PLANT.partition("\n")[2])
    batches, again = numbers_of(readings("plant.csv"), state)
    assert batches == [[3, 4, 5]]
    assert numbers_of(readings("plant.csv"), again)[0] == []
    (plant / "quant.csv").write_text(PLANT)
    assert numbers_of(readings("*.csv"), again)[0] == [[6, 7, 8]]
    # A further pass has all rows.
    assert numbers_of(readings("plant.csv", passes=2), again)[0] == [[6, 7, 8], [9, 10, 11]]


def test_a_file_that_grew_and_is_another_is_refused(plant):
    _, state = numbers_of(readings("plant.csv"))
    (plant / "plant.csv").write_text(PLANT.replace("2.5,,b", "2.6,,b") + PLANT.partition("\n")[2])
    with pytest.raises(ub.StreamError, match=r"plant.csv has changed: row 3 is not what it was"):
        numbers_of(readings("plant.csv"), state)
    (plant / "plant.csv").write_text(PLANT.partition("\n")[0] + "\n2024-05-01 10:00:00," + "1" * 200 + ",7,b,true\n")
    with pytest.raises(ub.StreamError, match=r"plant.csv has fewer rows than when it was read: 2 are gone"):
        numbers_of(readings("plant.csv"), state)


@pytest.mark.parametrize(
    ("source", "choice", "words"),
    [
        ("nothing.csv", {}, "There is no file nothing.csv. A source is machine:"),
        ("n*.csv", {}, "No file matches n"),
        (".", {}, "is a directory without a file of readings"),
        ("notes.txt", {}, "notes.txt is no file of readings that is known here: CSV"),
        ("text.csv", {}, r"no column of numbers besides the time and the key: a \(text\)"),
        ("broken.parquet", {}, "broken.parquet can't be read as parquet: Parquet magic bytes not found"),
        ("head.csv", {}, "has a header and no row"),
        ("german.csv", {}, r"german.csv begins with 'a;b': commas are expected between columns"),
        ("empty.csv", {}, "empty.csv can't be read as csv"),
        ("plant.csv", {"time": "timestmp"}, "--time timestmp: plant.csv has no such column. Did you mean timestamp?"),
        ("plant.csv", {"by": "Pump"}, "--by Pump: .* Did you mean pump?"),
        ("plant.csv", {"columns": ("flw",)}, "--columns flw: .* Did you mean flow?"),
        ("plant.csv", {"columns": ("pump",)}, "--columns pump: this column of plant.csv is text.*: flow, count, on"),
        ("plant.csv", {"columns": ("flow",), "by": "flow"}, "--columns flow: this column is the key already"),
        ("plant.csv", {"time": "pump"}, "--time pump: this column of plant.csv has 'b', and a number of seconds"),
        ("plant.csv", {"time": "pump", "time_format": "%Y"}, "--time-format '%Y' does not fit"),
        ("text.csv", {"time_format": "%Y"}, "has no column of times: name one by --time"),
        ("magic://a/b.csv", {}, "magic://a/b.csv can't be opened: Protocol not known"),
        ("machine:", {"by": "cpu"}, "--by is of files, and machine: is none"),
        ("lab.py:sensor", {"time": "t"}, "--time is of files, and lab.py:sensor is none"),
    ],
)
def test_what_can_t_be_read_is_a_sentence(plant, source, choice, words):
    (plant / "deep").mkdir()
    (plant / "notes.txt").write_text("words")
    (plant / "text.csv").write_text("a,b\nx,y\n")
    (plant / "german.csv").write_text("a;b\n1,5;2\n")
    (plant / "head.csv").write_text("a,b\n")
    (plant / "empty.csv").write_text("")
    (plant / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SourceError, match=words) as caught:
        readings(str(plant / "deep") if source == "." else source, choice=Choice(**choice))
    assert "\n" not in str(caught.value)


def test_a_function_in_a_module_is_found_and_what_is_not_there_is_said(plant, monkeypatch):
    monkeypatch.syspath_prepend(str(plant))
    (plant / "lab_of_tests").mkdir()
    (plant / "lab_of_tests" / "sensors.py").write_text("def boiler():\n    while True:\n        yield {'a': 1.0}\n")
    assert readings("lab_of_tests.sensors:boiler").columns[0].name == "a"
    with pytest.raises(SourceError, match=r"There is no function 'cellar' in .*It has: boiler"):
        readings("lab_of_tests.sensors:cellar")
    with pytest.raises(SourceError, match=r"There is no module lab_of_tests.others"):
        readings("lab_of_tests.others:boiler")
    (plant / "lab_of_tests" / "needs.py").write_text("import a_module_that_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        readings("lab_of_tests.needs:boiler")


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(_file_times).failed == 0

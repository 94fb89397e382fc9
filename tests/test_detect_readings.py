"""The sources of the detector's readings: named in the command, numbered over restarts, refused with a message."""

import datetime
import decimal
import doctest
import itertools
import textwrap

import numpy as np
import pytest

import unbounded as ub
from unbounded.detect import _form, _yielded
from unbounded.detect._columns import VITALS, Column
from unbounded.detect._form import Arrivals, numbered
from unbounded.detect._readings import SourceEnded, SourceError, readings, vitals
from unbounded.detect._yielded import read_block


@pytest.fixture
def file(tmp_path):
    """Writes a Python file, and gives the name of one of its functions as a source."""

    def write(code, name="sensor"):
        path = tmp_path / "sensors.py"
        path.write_text(textwrap.dedent(code))
        return f"{path}:{name}"

    return write


def first_rows(where, rows):
    """The first rows of a source, taken as a feed hands them out."""
    with ub.Feed(where.stream.batch(rows), epoch=ub.Epoch(steps=1), on_nan="pass") as feed:
        return next(iter(next(feed.epochs(1))))


FROM_START = """
    import numpy as np

    def sensor(start=0):
        while True:
            at = np.arange(start, start + 3)
            yield {"temperature": at / 10, "pressure": list(at * 2)}
            start += 3
"""


def test_a_function_s_columns_are_laid_side_by_side_and_its_rows_numbered(file):
    where = readings(file(FROM_START))
    assert [column.name for column in where.columns] == ["temperature", "pressure"]
    rows = first_rows(where, 5)
    assert rows["row"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(rows["values"], [[i / 10, 2 * i] for i in range(5)])
    assert where.stream.guarantee == "exact"


def test_a_function_that_begins_anywhere_is_asked_for_no_row_twice(file):
    where = readings(file(FROM_START))
    with ub.Feed(where.stream.batch(4), epoch=ub.Epoch(steps=3)) as feed:
        for _ in next(feed.epochs(1)):
            pass
        state = feed.state_dict()
    with ub.Feed(where.stream.batch(4), epoch=ub.Epoch(steps=3)) as feed:
        feed.load_state_dict(state)
        batches = (batch for epoch in feed.epochs(2) for batch in epoch)
        assert next(batches)["row"].tolist() == [12, 13, 14, 15]
        batches.close()


def test_a_plain_generator_loses_nothing_by_being_looked_at_and_its_numbers_grow_over_a_restart(file):
    source = file(
        """
        import itertools

        def sensor():
            for i in itertools.count():
                yield {"temperature": [i, i + 0.5]}
        """
    )
    where = readings(source)
    rows = first_rows(where, 6)
    assert rows["values"][:, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert (np.diff(rows["row"]) > 0).all()
    again = first_rows(readings(source), 6)
    assert again["row"][0] > rows["row"][-1]
    assert abs(again["time"][0] - again["row"][0] / 1e6) < 1e-3
    assert where.stream.guarantee == "at_most_once"


def test_an_iterator_that_can_be_put_back_is_put_back_with_its_numbers(file):
    where = readings(
        file(
            """
            class Counter:
                def __init__(self):
                    self.i = 0

                def __iter__(self):
                    return self

                def __next__(self):
                    self.i += 1
                    return {"temperature": [float(self.i)]}

                def state_dict(self):
                    return {"i": self.i}

                def load_state_dict(self, state):
                    self.i = state["i"]

            def sensor():
                return Counter()
            """
        )
    )
    with ub.Feed(where.stream.batch(4), epoch=ub.Epoch(steps=2)) as feed:
        for _ in next(feed.epochs(1)):
            pass
        state = feed.state_dict()
    with ub.Feed(where.stream.batch(4), epoch=ub.Epoch(steps=2)) as feed:
        feed.load_state_dict(state)
        batches = (batch for epoch in feed.epochs(2) for batch in epoch)
        rows = next(batches)
        batches.close()
    assert rows["row"].tolist() == [8, 9, 10, 11]
    assert rows["values"][:, 0].tolist() == [9, 10, 11, 12]


def test_a_time_that_is_given_is_kept_and_a_date_becomes_seconds(file):
    where = readings(
        file(
            """
            import numpy as np

            def sensor(start=0):
                while True:
                    yield {"time": np.array(["1970-01-01T00:01:00"], "datetime64[s]"), "temperature": [21.5]}
            """
        )
    )
    assert [column.name for column in where.columns] == ["temperature"]
    assert first_rows(where, 2)["time"].tolist() == [60.0, 60.0]


def test_the_vitals_come_in_the_detector_s_form():
    rows = {column.name: np.arange(3, dtype="f4") for column in VITALS} | {"time": np.array([1.0, 1.1, 1.2])}
    out = vitals(rows)
    assert out["values"].shape == (3, len(VITALS))
    assert out["row"].tolist() == [1_000_000, 1_100_000, 1_200_000]


def test_this_computer_is_a_source():
    where = readings("machine:")
    assert where.columns == VITALS
    assert "machine" in repr(where.stream)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("kafka://host/topic", "kafka:// is not there yet.*FILE.py:FUNCTION"),
        ("readings.csv", "There is no file readings.csv"),
        ("sensors", "no file sensors. A source is machine:"),
        ("nowhere.py:sensor", "no file nowhere.py"),
        ("nowhere.py", "Name the function"),
    ],
)
def test_a_source_that_is_not_there_says_what_works_instead(source, words):
    with pytest.raises(SourceError, match=words):
        readings(source)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("yield [1, 2]", "yielded list"),
        ("yield (1, 2)", "yielded tuple: \\(1, 2\\)"),
        ("yield 20.1", "yielded float: 20.1"),
        ("yield {}", "yielded an empty dict"),
        ("yield {'name': ['a']}", "column 'name' holds 'a', which is no number"),
        ("yield {'image': [[1.0, 2.0]]}", "one-dimensional"),
        ("yield {'a': [[1.0], [1.0, 2.0]]}", "one-dimensional"),
        ("yield {'a': [1, 2, 3], 'b': [1, 2]}", "'a' has 3 rows and 'b' has 2"),
        ("yield {'time': [1.0]}", "no column of readings"),
        ("yield from ()", "yielded nothing"),
        ("yield {'a': []}", "yielded nothing"),
        ("return {'a': 1.0}", r"returned dict(.|\n)*yield"),
        ("return None", "returned NoneType"),
    ],
)
def test_a_function_that_yields_no_columns_of_numbers_is_refused_in_words(file, body, words):
    with pytest.raises(SourceError, match=words):
        readings(file(f"def sensor():\n    {body}\n"))


def test_a_function_that_is_not_in_the_file_is_missed_with_those_that_are(file):
    with pytest.raises(SourceError, match=r"no function 'boiler'.*It has: sensor\."):
        readings(file(FROM_START, "boiler"))


def test_a_column_that_is_missing_for_long_is_named_and_ends_the_run(file):
    where = readings(
        file(
            """
            def sensor(start=0):
                while True:
                    yield {"a": [1.0], "b": [2.0]} if start == 0 else {"a": [1.0]}
                    start += 1
            """
        )
    )
    assert np.isnan(first_rows(where, 4)["values"][:, 1]).tolist() == [False, True, True, True]
    with pytest.raises(SourceError, match="without the column 'b'"):
        first_rows(where, 200)


def test_columns_are_known_by_name_in_any_order_and_new_ones_are_left_out(file):
    where = readings(
        file(
            """
            def sensor():
                yield {"a": 1, "b": 2}
                yield {"b": 20, "a": 10}
                yield {"new": 7, "b": 200, "a": 100}
            """
        )
    )
    said = []
    where.remarks.listen(said.append)
    assert first_rows(where, 3)["values"].tolist() == [[1, 2], [10, 20], [100, 200]]
    assert said == ["The column 'new' came later than the first and is left out."]


def test_a_dropout_is_a_missing_value_and_is_said_once(file):
    where = readings(
        file(
            """
            def sensor():
                yield {"a": 1.0, "b": 2.0}
                for cell in (None, "ERR", float("inf"), "7.5"):
                    yield {"a": 1.0, "b": cell}
                yield {"a": 1.0}
                yield {"a": 1.0, "b": 3.0}
            """
        )
    )
    said = []
    where.remarks.listen(said.append)
    values = first_rows(where, 7)["values"][:, 1]
    np.testing.assert_array_equal(values, [2.0, np.nan, np.nan, np.inf, 7.5, np.nan, 3.0])
    assert len(said) == 2
    assert "'b' held 'ERR'" in said[0]
    assert "without the column 'b'" in said[1]


def test_text_beside_numbers_is_left_out_and_named(file):
    where = readings(file("def sensor():\n    while True:\n        yield {'room': 'cellar', 'temperature': 20.1}\n"))
    said = []
    where.remarks.listen(said.append)
    assert [column.name for column in where.columns] == ["temperature"]
    first_rows(where, 3)
    assert said == ["The column 'room' holds no number ('cellar') and is left out."]


def test_the_end_of_a_generator_is_told_from_a_fault(file):
    for body in ("", "start=0"):
        where = readings(file(f"def sensor({body}):\n    for i in range(3):\n        yield {{'a': i}}\n"))
        with pytest.raises(SourceEnded, match="ended after 3 readings"):
            first_rows(where, 4)


LINES = """
    class Lines:
        opened = closed = 0

        def __init__(self):
            Lines.opened += 1
            self.i = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.i += 1
            return {"a": self.i, "opened": Lines.opened, "closed": Lines.closed}

        def close(self):
            Lines.closed += 1

    class State(Lines):
        def state_dict(self):
            return {"i": self.i}

        def load_state_dict(self, state):
            self.i = state["i"]

    def returned():
        return Lines()
"""


@pytest.mark.parametrize("name", ["Lines", "State", "returned"])
def test_what_a_function_returns_is_opened_once(file, name):
    rows = first_rows(readings(file(LINES, name)), 4)["values"]
    assert rows.tolist() == [[1, 1, 0], [2, 1, 0], [3, 1, 0], [4, 1, 0]]


def test_a_function_that_begins_anywhere_is_closed_where_it_was_only_looked_at(file):
    where = readings(
        file(
            """
            closed = 0

            def sensor(start=0):
                global closed
                try:
                    while True:
                        yield {"a": start, "closed": closed}
                        start += 1
                finally:
                    closed += 1
            """
        )
    )
    assert first_rows(where, 2)["values"].tolist() == [[0, 1], [1, 1]]


def test_a_function_that_returns_a_list_gives_its_rows(file):
    where = readings(file("def sensor():\n    return [{'a': i} for i in range(9)]\n"))
    assert first_rows(where, 4)["values"][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("code", "name", "words"),
    [
        ("async def sensor():\n    yield {'a': 1}\n", "sensor", "asynchronous"),
        ("def sensor(port):\n    yield {'a': 1}\n", "sensor", "requires port"),
        ("def sensor():\n    yield {'a': 1}\n\ngen = sensor()\n", "gen", "gen in .* is generator.*It has: sensor"),
    ],
)
def test_a_function_that_cannot_be_called_for_readings_is_refused_in_words(file, code, name, words):
    with pytest.raises(SourceError, match=words):
        readings(file(code, name))


def test_the_columns_of_a_run_that_goes_on_need_no_first_reading(file):
    source = file("def sensor():\n    1 / 0\n    yield {}\n")
    where = readings(source, known=(Column("a"),), axis="date")
    assert where.columns == (Column("a"),)


def test_rows_of_a_chunk_are_spread_over_the_time_since_the_one_before():
    arrivals = Arrivals(100.0)
    assert arrivals.times(4, now=102.0).tolist() == [100.5, 101.0, 101.5, 102.0]
    assert arrivals.times(2, now=103.0).tolist() == [102.5, 103.0]
    # A pause before a chunk stays one: its rows are not spread over an hour.
    later = arrivals.times(2, now=3_703.0)
    assert later[-1] == 3_703.0
    assert later[0] > 3_700.0
    # A clock that was set back: times never fall.
    assert arrivals.times(2, now=50.0).tolist() == [3_703.0, 3_703.0]


def test_one_time_for_a_chunk_is_that_of_its_last_row(file):
    where = readings(
        file("def sensor():\n    for i in range(5):\n        yield {'time': 100.0 + 2 * i, 'a': [1, 2, 3, 4]}\n")
    )
    time = first_rows(where, 12)["time"]
    assert time.tolist() == [100.0] * 4 + [100.5, 101.0, 101.5, 102.0, 102.5, 103.0, 103.5, 104.0]
    back = readings(
        file("def sensor():\n    for t in (9.0, 5.0, 6.0):\n        yield {'time': t, 'a': [1, 2]}\n", "sensor")
    )
    assert first_rows(back, 6)["time"].tolist() == [9, 9, 5, 5, 6, 6]


def test_numbers_of_rows_rise_where_the_clock_stands_still_or_falls():
    assert numbered(np.array([1e-6, 1e-6, 5e-6, 5e-6]), last=0).tolist() == [1, 2, 5, 6]
    assert numbered(np.array([1e-6, 9e-6]), last=20).tolist() == [21, 22]


@pytest.mark.parametrize(
    ("time", "axis"),
    [("1.7e9 + i", "date"), ("float(i)", "seconds"), ("np.datetime64(i, 's') + np.timedelta64(20_000, 'D')", "date")],
)
def test_what_a_time_is_taken_for_is_known_from_the_first(file, time, axis):
    body = f"import numpy as np\n\ndef sensor():\n    for i in range(9):\n        yield {{'time': {time}, 'a': i}}\n"
    assert readings(file(body)).axis == axis


def test_what_can_be_read_again_has_rows_and_no_times(file):
    where = readings(file(FROM_START))
    assert where.axis == "row"
    assert first_rows(where, 3)["time"].tolist() == [0, 1, 2]


def test_numbers_never_fall_however_fast_readings_come(file):
    rows = first_rows(readings(file("def sensor():\n    while True:\n        yield {'a': [0.0] * 50}\n")), 5_000)
    assert all(later > earlier for earlier, later in itertools.pairwise(rows["row"].tolist()))


@pytest.mark.parametrize(
    "cell",
    [
        21,
        21.0,
        np.float32(21),
        np.int64(21),
        np.array(21.0),
        [21],
        (21.0,),
        np.array([21], "u1"),
        "21",
        decimal.Decimal(21),
        datetime.timedelta(seconds=21),
        np.timedelta64(21, "s"),
    ],
)
def test_a_number_may_be_given_in_many_ways(cell):
    yielded = read_block({"a": cell}, "lab.py:sensor")
    assert yielded.rows == 1
    assert yielded.numbers["a"].tolist() == [21.0]
    assert yielded.numbers["a"].dtype == np.float64


def test_a_single_number_beside_several_rows_is_the_same_in_each():
    yielded = read_block({"room": 4, "a": [1, 2, 3], "on": True}, "lab.py:sensor")
    assert yielded.rows == 3
    assert yielded.numbers["room"].tolist() == [4, 4, 4]
    assert yielded.numbers["on"].tolist() == [1, 1, 1]


def test_missing_values_are_nan():
    masked = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    yielded = read_block({"a": [None, 1], "b": masked, "c": None, "d": [1.0, "x"]}, "lab.py:sensor")
    for name in "abd":
        assert np.isnan(yielded.numbers[name]).sum() == 1
    assert np.isnan(yielded.numbers["c"]).all()
    assert yielded.unreadable == {"d": "'x'"}


@pytest.mark.parametrize(
    "time",
    [
        1_700_000_000,
        1_700_000_000_000,
        1_700_000_000_000_000,
        1_700_000_000_000_000_000,
        datetime.datetime.fromtimestamp(1_700_000_000),
        datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC),
        np.datetime64(1_700_000_000, "s"),
        "2023-11-14T22:13:20+00:00",
    ],
)
def test_a_time_may_be_given_in_many_ways(time):
    assert read_block({"time": time, "a": 1}, "lab.py:sensor").time == pytest.approx([1.7e9])
    assert read_block({"time": [time, time], "a": [1, 2]}, "lab.py:sensor").time == pytest.approx([1.7e9, 1.7e9])


@pytest.mark.parametrize("time", [None, "soon", np.datetime64("NaT"), float("nan")])
def test_a_time_that_is_none_is_nan(time):
    assert np.isnan(read_block({"time": time, "a": 1}, "lab.py:sensor").time).all()


@pytest.mark.parametrize("module", [_form, _yielded])
def test_the_examples_in_the_docstrings_run(module):
    assert doctest.testmod(module).failed == 0

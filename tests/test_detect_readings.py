"""Where the detector's readings come from: named in a word, numbered for good, refused in words."""

import itertools
import textwrap

import numpy as np
import pytest

import unbounded as ub
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import SourceError, readings, vitals


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
    with ub.Feed(where.stream.batch(rows), epoch=ub.Epoch(steps=1)) as feed:
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
        ("readings.csv", r"not there yet(.|\n)*genfromtxt\(\"readings.csv\""),
        ("sensors", "no source that is known"),
        ("nowhere.py:sensor", "no file nowhere.py"),
        ("nowhere.py", "Name the function"),
    ],
)
def test_a_source_that_is_not_there_says_what_works_instead(source, words):
    with pytest.raises(SourceError, match=words):
        readings(source)


def test_the_loop_that_is_proposed_for_a_csv_file_works(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "readings.csv").write_text("temperature,pressure\n21.5,1000\n22.5,1001\n")
    with pytest.raises(SourceError) as caught:
        readings("readings.csv")
    rows = first_rows(readings(file(str(caught.value).split("\n\n", 1)[1], "rows")), 5)
    assert rows["values"][:, 0].tolist() == [21.5, 22.5, 21.5, 22.5, 21.5]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("yield [1, 2]", "yielded list"),
        ("yield {'name': ['a']}", "column 'name' as <U1"),
        ("yield {'image': [[1.0, 2.0]]}", "one-dimensional"),
        ("yield {'time': [1.0]}", "no column of readings"),
        ("yield from ()", "yielded nothing"),
    ],
)
def test_a_function_that_yields_no_columns_of_numbers_is_refused_in_words(file, body, words):
    with pytest.raises(SourceError, match=words):
        readings(file(f"def sensor():\n    {body}\n"))


def test_a_function_that_is_not_in_the_file_is_missed_with_those_that_are(file):
    with pytest.raises(SourceError, match=r"no function 'boiler'.*It has: sensor\."):
        readings(file(FROM_START, "boiler"))


def test_a_column_that_goes_missing_later_is_named(file):
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
    with pytest.raises(SourceError, match="without the column 'b'"):
        first_rows(where, 4)


def test_numbers_never_fall_however_fast_readings_come(file):
    rows = first_rows(readings(file("def sensor():\n    while True:\n        yield {'a': [0.0] * 50}\n")), 5_000)
    assert all(later > earlier for earlier, later in itertools.pairwise(rows["row"].tolist()))

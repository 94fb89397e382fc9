"""Table: rows in one growing .npy file, truncated by a resume, and readable after any kill."""

import numpy as np
import pytest

from unbounded.store.checkpoints import CheckpointError
from unbounded.store.table import Table

DTYPE = np.dtype([("row", "<i8"), ("score", "<f4", (2,))])


def rows(start, stop):
    out = np.zeros(stop - start, DTYPE)
    out["row"] = np.arange(start, stop)
    return out


def test_rows_that_were_added_are_what_numpy_reads(tmp_path):
    table = Table(tmp_path / "runs" / "t.npy")
    for start in range(0, 100, 10):
        table.append(rows(start, start + 10))
        assert np.load(table.path)["row"].tolist() == list(range(start + 10))
    assert len(table) == 100
    table.close()


def test_one_that_is_there_is_cut_back_and_continued(tmp_path):
    path = tmp_path / "t.npy"
    table = Table(path)
    table.append(rows(0, 50))
    table.close()
    again = Table(path)
    again.cut(20)
    assert np.load(path)["row"].tolist() == list(range(20))
    again.append(rows(20, 25))
    assert np.load(path)["row"].tolist() == list(range(25))
    again.close()


@pytest.mark.parametrize("left", [0, 5, 12, 60])
def test_what_a_kill_left_of_a_first_header_is_begun_anew(tmp_path, left):
    path = tmp_path / "t.npy"
    table = Table(path)
    table.append(rows(0, 3))
    table.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    again = Table(path)
    again.cut(0)
    again.append(rows(0, 4))
    assert np.load(path)["row"].tolist() == [0, 1, 2, 3]
    again.close()


def test_rows_that_the_header_counts_and_the_disk_has_lost_are_said(tmp_path):
    path = tmp_path / "t.npy"
    table = Table(path)
    table.append(rows(0, 10))
    table.close()
    path.write_bytes(path.read_bytes()[:-30])
    again = Table(path)
    with pytest.warns(UserWarning, match="has 8 rows, and had 10"):
        again.cut(10)
    again.append(rows(8, 9))
    assert np.load(path)["row"].tolist() == list(range(9))
    again.close()


def test_rows_behind_those_that_the_header_counts_are_written_over(tmp_path):
    path = tmp_path / "t.npy"
    table = Table(path)
    table.append(rows(0, 10))
    table.close()
    with path.open("ab") as file:
        file.write(b"half a row")
    again = Table(path)
    again.cut(10)
    again.append(rows(10, 12))
    assert np.load(path)["row"].tolist() == list(range(12))
    again.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "t.npy"
    path.write_text("what somebody wrote")
    with pytest.raises(CheckpointError, match="is no table"):
        Table(path).append(rows(0, 1))
    assert path.read_text() == "what somebody wrote"


def test_rows_of_other_columns_are_refused(tmp_path):
    table = Table(tmp_path / "t.npy")
    table.append(rows(0, 2))
    with pytest.raises(CheckpointError, match="has the columns"):
        table.append(np.zeros(1, [("row", "<i8")]))
    assert len(np.load(table.path)) == 2
    table.close()

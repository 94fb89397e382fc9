"""Rows: trees of arrays are counted, cut, joined and checked leaf by leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from unbounded.core import finite_rows, row_spec, trees
from unbounded.core.trees import RowsError


class Pair(NamedTuple):
    x: Any
    y: Any


TREE = {
    "a": np.arange(6),
    "b": (np.arange(12.0).reshape(6, 2), [np.arange(6) % 2 == 0]),
    "c": Pair(np.arange(6), np.zeros(6)),
}


def test_a_cut_and_a_join_give_the_tree_back_with_its_structure() -> None:
    again = trees.join([trees.cut(TREE, 0, 2), trees.cut(TREE, 2, 6)])
    assert isinstance(again["c"], Pair)
    assert isinstance(again["b"][1], list)
    for (path, leaf), (path2, leaf2) in zip(trees.leaves(again), trees.leaves(TREE), strict=True):
        assert path == path2
        assert leaf.tolist() == leaf2.tolist()


def test_cutting_all_at_once_is_cutting_one_by_one() -> None:
    for tree in (TREE, np.asfortranarray(np.arange(12).reshape(6, 2)), np.arange(12)[::2]):
        for i, piece in enumerate(trees.cut_all(tree, 2)):
            expected = dict(trees.leaves(trees.cut(tree, 2 * i, 2 * i + 2)))
            assert {p: v.tolist() for p, v in trees.leaves(piece)} == {p: v.tolist() for p, v in expected.items()}
    assert isinstance(trees.cut_all(TREE, 3)[0]["c"], Pair)


def test_a_gather_takes_an_index_or_a_mask_and_copies() -> None:
    index = trees.gather(TREE, np.array([5, 0]))
    assert index["a"].tolist() == [5, 0]
    mask = trees.gather(TREE, TREE["a"] > 3)
    assert mask["a"].tolist() == [4, 5]
    assert not np.shares_memory(index["a"], TREE["a"])


@pytest.mark.parametrize("dtype", ["f4", "i8", "?", "U3", "S5", "M8[s]", "c16", "f2", "i4,f8"])
def test_gathered_and_joined_rows_begin_on_a_boundary_of_64_bytes(dtype: str) -> None:
    for shape in ((5,), (5, 3), (5, 0), (5, 2, 7)):
        rows = np.zeros(shape, dtype)
        if dtype == "f4":
            rows[...] = np.arange(rows.size).reshape(shape)
        for made, expected in (
            (trees.gather(rows, np.array([4, 0, 4])), rows[[4, 0, 4]]),
            (trees.join([rows[:2], rows[3:]]), np.concatenate([rows[:2], rows[3:]])),
        ):
            assert made.dtype == rows.dtype
            assert made.tolist() == expected.tolist()
            assert made.ctypes.data % 64 == 0
            assert made.flags.writeable
            assert made.flags.c_contiguous
            assert not np.shares_memory(made, rows)


def test_a_copy_shares_no_memory_and_lies_on_a_boundary_where_it_is_large() -> None:
    large = np.arange(30_000.0).reshape(100, 300)
    for leaf in (large, large.T, large[::2, 1:], np.arange(3), [1, 2], 5.0, np.array(["a", None], object)):
        made = trees.copied(leaf)
        assert made.tolist() == np.asarray(leaf).tolist()
        assert made.flags.c_contiguous
        assert made.flags.writeable
        assert not np.shares_memory(made, np.asarray(leaf))
        assert made.nbytes < 20_000 or made.ctypes.data % 64 == 0


def test_rows_that_lie_anyhow_are_gathered_all_the_same() -> None:
    table = np.arange(60.0).reshape(6, 10)
    packed = np.zeros(6, np.dtype([("a", "i1"), ("b", "f8")]))  # "b" lies on no boundary of 8 bytes
    packed["b"] = np.arange(6)
    named = np.array([{"a": 1}, "b", None, 3, 4, 5], object)
    odd = [np.asfortranarray(table), table[:, ::2], table[::-1], packed["b"], named, table.astype(">f8")]
    for rows in (*odd, np.broadcast_to(np.arange(3), (6, 3)), np.ma.masked_array(table, table > 7)):
        index = np.array([5, 1, 1])
        made = trees.gather(rows, index)
        assert type(made) is type(rows)
        assert made.dtype == rows.dtype
        assert made.tolist() == rows[index].tolist()
        assert trees.gather(rows, np.arange(6) < 0).tolist() == []


def test_parts_of_other_widths_are_joined_in_the_wider() -> None:
    assert trees.join([np.array(["a"]), np.array(["bcd"])]).tolist() == ["a", "bcd"]


def test_rows_are_counted_at_any_leaf() -> None:
    assert trees.count(TREE) == 6
    assert trees.count_checked(TREE, "rows") == 6
    assert trees.row_bytes({"a": np.zeros((3, 2)), "b": np.zeros(3, np.int8)}) == 17


def test_a_memmap_stays_one(tmp_path: Any) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (5,))
    assert trees.as_rows({"x": mapped}, "rows")["x"] is mapped


def test_the_first_value_that_is_not_finite_is_found_by_leaf_and_row() -> None:
    rows = {"a": np.arange(4), "x": np.zeros((4, 2), np.float32)}
    assert finite_rows.first_non_finite(rows) is None
    rows["x"][2, 1] = -np.inf
    assert finite_rows.first_non_finite(rows) == ("['x']", 2)
    # A sum that overflows is no bad value.
    assert finite_rows.first_non_finite(np.full(4, 1e308)) is None
    assert finite_rows.first_non_finite({"a": np.zeros((0, 3)), "b": np.zeros((3, 0)), "c": np.zeros(0)}) is None


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "c8", "c16", "g"])
def test_a_value_that_is_not_finite_is_found_in_every_dtype_and_layout(dtype: str) -> None:
    for shape in ((5_000,), (5_000, 2), (5_000, 3, 1, 2)):
        for bad in (0, 2_500, 4_999):
            rows = np.full(shape, 6e4, dtype)  # half floats: their sum overflows
            for view in (rows, np.asfortranarray(rows), rows[::-1], rows[1:-1]):
                assert finite_rows.first_non_finite(view) is None
            rows[bad] = -np.inf
            assert finite_rows.first_non_finite({"x": np.asfortranarray(rows)}) == ("['x']", bad)
            assert finite_rows.first_non_finite(rows[::-1]) == ("", 4_999 - bad)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, r"leaf \['x'\] has 3 rows and leaf \['y'\] has 4"),
        (np.float64(3), "the array has no rows"),
        ({"x": np.zeros(3), "y": 5.0}, r"leaf \['y'\] has no rows .*ub\.from_samples"),
        ({}, "it contains no array"),
    ],
)
def test_what_is_no_rows_is_refused_by_leaf(rows: Any, sentence: str) -> None:
    with pytest.raises(RowsError, match=sentence):
        trees.as_rows(rows, "rows")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"x": np.zeros((2, 3))}, r"row 7: leaf \['y'\] is missing"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(2, int), "z": np.zeros(2)}, r"leaf \['z'\] is new"),
        (
            {"x": np.zeros((2, 3), np.float32), "y": np.zeros(2, int)},
            r"leaf \['x'\] is now float32 and was float64.*astype",
        ),
        ({"x": np.zeros((2, 4)), "y": np.zeros(2, int)}, r"leaf \['x'\] has rows of shape \(4,\) and they had \(3,\)"),
    ],
)
def test_rows_that_change_name_the_leaf(rows: Any, sentence: str) -> None:
    spec = row_spec.spec({"x": np.zeros((5, 3)), "y": np.zeros(5, int)})
    with pytest.raises(RowsError, match=sentence):
        row_spec.check_same(spec, rows, "row 7")


def test_joined_rows_keep_the_byte_order_of_their_parts() -> None:
    parts = [np.arange(2, dtype=">i4"), np.arange(2, dtype=">i4")]
    assert trees.join(parts).dtype.str == trees.join(parts[:1]).dtype.str == ">i4"

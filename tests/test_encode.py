"""encode: codes of text and whole numbers, by a vocabulary and by a hash that never changes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first
from unbounded.core.stable_hash import hashes
from unbounded.testing import assert_resumes

pytestmark = pytest.mark.usefixtures("no_threads_left")

ROOMS = ["kitchen", "hall", "attic"]
_ALL = (1 << 64) - 1


def coded(column: Any, *args: Any, **given: Any) -> Any:
    rows = {"c": np.asarray(column)}
    (batch,) = first(ub.from_arrays(rows, shuffle=False).encode("c", *args, **given).batch(len(rows["c"])), 1)
    assert batch["c"].dtype == np.int64
    return batch["c"].tolist()


def test_a_code_is_the_place_in_the_vocabulary_and_that_of_any_other_value_the_one_after_the_last() -> None:
    assert coded(["hall", "", "attic", "cellar", "hall"], ROOMS) == [1, 3, 2, 3, 1]
    assert coded([30, 10, -1, 2**40], [10, 2**40, 30]) == [2, 0, 3, 1]
    assert coded(np.array([30, 10, 11], np.uint8), [10, 20, 30]) == [2, 0, 3]
    assert coded([b"hall", b"no"], ROOMS) == [1, 3]
    assert coded(np.array(["hall", "no"], object), np.array(ROOMS)) == [1, 3]
    assert coded(["é", "ß" * 40, "日本"], ["日本", "é"]) == [1, 2, 0]


def test_windows_and_whole_columns_of_them_are_encoded() -> None:
    rows = {"c": np.array([["a", "b"], ["b", "c"], ["a", "a"]]), "i": np.arange(3)}
    stream = ub.from_arrays(rows, shuffle=False).windows(2).encode("c", ["a", "b"])
    (batch,) = first(stream.batch(2), 1)
    assert batch["c"].tolist() == [[[0, 1], [1, 2]], [[1, 2], [0, 0]]]


def test_words_that_hash_alike_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import unbounded.stages.encode as module

    monkeypatch.setattr(module, "hashes", lambda column: np.zeros(column.shape, np.uint64))
    assert coded(["hall", "attic", "no"], ROOMS) == [1, 2, 3]


def test_a_word_that_hashes_like_another_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    import unbounded.stages.encode as module

    monkeypatch.setattr(module, "hashes", lambda column: np.zeros(column.shape, np.uint64))
    assert coded(["hall", "attic", "no"], ["hall"]) == [0, 1, 1]


def by_hand(value: Any) -> int:
    """The hash, by the words of its module, one value after the other."""

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _ALL
        return z ^ (z >> 31)

    gamma = 0x9E3779B97F4A7C15
    if isinstance(value, int):
        return mixed((value + gamma) & _ALL)
    keys = [mixed((i + 1) * gamma & _ALL) | 1 for i in range(len(value))]
    return mixed(sum(key * ord(each) for key, each in zip(keys, value, strict=True)) & _ALL)


def test_the_hash_is_what_its_page_says() -> None:
    words = ["", "a", "b", "ab", "ba", "kitchen", "é日本\U0001f600", "x" * 500]
    assert hashes(np.array(words)).tolist() == [by_hand(word) for word in words]
    numbers = [0, 1, -1, 7, 2**62, -(2**63)]
    assert hashes(np.array(numbers)).tolist() == [by_hand(number) for number in numbers]
    # From the papers' reference code, and for ever: models were trained on these.
    assert hashes(np.array([0])).tolist() == [0xE220A8397B1DCDAF]
    assert hashes(np.array(["kitchen"])).tolist() == [8634211340397072715]


def test_equal_values_hash_alike_whatever_their_dtype_and_the_rows_around_them() -> None:
    for kind in ("i1", "u1", ">i4", "i8", "u8"):
        assert hashes(np.array([5], kind)).tolist() == [by_hand(5)]
    assert hashes(np.array([True])).tolist() == [by_hand(1)]
    assert hashes(np.array(["ab", "x" * 99]))[0] == hashes(np.array(["ab"]))[0]
    assert hashes(np.array([b"ab", b"\xc3\xa9"])).tolist() == [by_hand("ab"), by_hand("é")]
    assert hashes(np.array(["ab", "c"]).astype(">U7")).tolist() == [by_hand("ab"), by_hand("c")]
    assert hashes(np.array([["ab", "c"]])[:, ::-1]).tolist() == [[by_hand("c"), by_hand("ab")]]
    assert hashes(np.array([], "U5")).tolist() == []


def test_another_process_with_another_seed_of_hashes_gives_the_same_codes() -> None:
    script = "import numpy as np; from unbounded.core.stable_hash import hashes; print(hashes(np.array(['a', 'b'])))"
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_hashed_codes_are_spread_evenly() -> None:
    for column in (np.arange(100_000), np.array([f"user-{i}" for i in range(100_000)])):
        codes = np.array(coded(column, hash=50))
        counts = np.bincount(codes, minlength=50)
        assert len(counts) == 50
        # The 99.99 % point of chi-square with 49 degrees of freedom.
        assert ((counts - 2000) ** 2 / 2000).sum() < 94


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({}, ValueError, r"neither of vocabulary= and hash=.*\.encode\('c', hash=1000\)"),
        ({"vocabulary": ["a"], "hash": 3}, ValueError, "both of vocabulary= and hash="),
        ({"vocabulary": "abc"}, TypeError, r"vocabulary='abc'.*list of texts"),
        ({"vocabulary": []}, ValueError, "has no word"),
        ({"vocabulary": ["a", "b", "a"]}, ValueError, "has 'a' twice"),
        ({"vocabulary": ["a", 1]}, TypeError, "has 1 beside 'a'"),
        ({"vocabulary": [1.5]}, TypeError, "has 1.5 beside"),
        ({"hash": 0}, ValueError, r"encode\(hash=n\) was given 0"),
        ({"hash": 3, "unknown": "raise"}, ValueError, "no value is unknown"),
        ({"vocabulary": ["a"], "unknown": "no"}, ValueError, "expected 'last' or 'raise'"),
    ],
)
def test_arguments_that_make_no_codes_are_refused(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        ub.from_arrays({"c": np.arange(3)}).encode("c", **given)


@pytest.mark.parametrize(
    ("column", "given", "words"),
    [
        (np.zeros(3), {"hash": 5}, r"encode\('c'\) was given float64.*astype\('int64'\)"),
        (np.zeros(3, "M8[s]"), {"hash": 5}, r"was given datetime64\[s\]"),
        (np.arange(3), {"vocabulary": ["a"]}, r"vocabulary of text, and the column is whole numbers \(int64\)"),
        (np.array(["a"] * 3), {"vocabulary": [1]}, "vocabulary of whole numbers, and the column is text"),
        (np.array([b"a", b"\xff"]), {"hash": 5}, r"bytes that are no text in UTF-8: b'\\xff'"),
        (np.array(["a", "bb"]), {"vocabulary": ["a"], "unknown": "raise"}, "was given 'bb', which is not in .* of 1"),
        (np.array([1, 2]), {"vocabulary": [1], "unknown": "raise"}, "was given 2, which is not in"),
    ],
)
def test_columns_that_have_no_codes_are_refused(column: Any, given: Any, words: str) -> None:
    with pytest.raises(ub.RowsError, match=words):
        coded(column, **given)


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ub.RowsError, match=r"encode\('d'\) was given rows without that column.*the rows have 'c'"):
        ub.from_arrays({"c": np.arange(3)}).encode("d", hash=3).batch(2).peek()


def test_it_resumes_and_its_batches_can_be_looked_up() -> None:
    rows = {"c": np.array([f"w{i % 17}" for i in range(100)]), "id": np.arange(100)}
    stream = ub.from_arrays(rows, seed=1).encode("c", [f"w{i}" for i in range(10)]).shuffle(20).batch(7)
    assert_resumes(stream, 12)
    batch = stream.batch_at(33)
    assert batch["c"].tolist() == [min(i % 17, 10) for i in batch["id"].tolist()]
    assert stream.rows_at(33).tolist() == batch["id"].tolist()


def test_the_vocabulary_is_part_of_the_fingerprint_and_not_of_each_checkpoint() -> None:
    source = ub.from_arrays({"c": np.array(["a", "b"])})
    words = [f"w{i}" for i in range(10_000)]
    one, other = source.encode("c", words), source.encode("c", [*words[1:], words[0]])
    assert one.fingerprint != other.fingerprint
    assert len(str(one.identity())) < 1000
    assert repr(one).endswith(".encode('c', vocabulary=['w0', 'w1', 'w2', '…'])")
    assert repr(source.encode("c", ["a"], unknown="raise").encode("c", hash=5)).endswith(
        ".encode('c', vocabulary=['a'], unknown='raise').encode('c', hash=5)"
    )


@pytest.mark.parametrize("vocabulary", [{"a", "b"}, frozenset("ab"), {"a": 1, "b": 0}])
def test_a_vocabulary_without_an_order_is_refused(vocabulary: Any) -> None:
    with pytest.raises(TypeError, match=r"Expected a list: the code of a value is its place"):
        ub.from_arrays({"x": np.array(["a", "b"])}).encode("x", vocabulary)

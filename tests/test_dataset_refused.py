"""What from_dataset refuses: objects that are no data sets and wrong arguments, each with what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import table

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Squares:
    """A data set, of which the class is given."""


NO_DATA_SETS: dict[str, tuple[Any, str]] = {
    "a path": ("data.csv", r"was given a str .*Rows of files are ub\.from_files\(path\)"),
    "a path object": (Path("x.h5"), r"Open another file first, .* h5py\.File\(path\)"),
    "a generator": ((i for i in range(3)), r"was given a generator .*ub\.from_samples\(fn\)"),
    "a function": (lambda: 3, r"was given a function .*ub\.from_generator\(fn\)"),
    "an iterator": (iter([1]), r"was given a list_iterator.*iterated over again and again.*ub\.from_samples"),
    "a class": (Squares, r"was given the class Squares .*Give an instance: Squares\(…\)"),
    "columns": ({"x": np.zeros(3)}, r"was given a dict .*ub\.from_arrays\(\{'x': x, 'y': y\}\)"),
    "a tuple": ((np.zeros(3), np.zeros(3)), r"ub\.from_arrays\(\(x, y\)\)"),
    "a stream": (ub.from_arrays(np.zeros(3)), "was given a Stream .*its methods are the stages"),
    "a number": (3, r"was given a int .*Expected an object with len and \[i\]"),
    "None": (None, r"Expected an object with len and \[i\]"),
    "a single value": (np.zeros(()), r"rows are ub\.from_arrays\(x\)"),
    "an object": (object(), r"was given a object\. Expected a data set: an object with len and \[i\]"),
}


@pytest.mark.parametrize("what", NO_DATA_SETS)
def test_what_is_no_data_set_is_told_with_what_to_write(what: str) -> None:
    given, sentence = NO_DATA_SETS[what]
    with pytest.raises(TypeError, match=sentence):
        ub.from_dataset(given)


def test_a_feed_in_place_of_a_data_set_is_told() -> None:
    with ub.Feed(table().batch(2)) as feed, pytest.raises(TypeError, match=r"was given a Feed .*fed from a stream"):
        ub.from_dataset(feed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shuffle": 1}, r"from_dataset\(shuffle=1\): expected True or False"),
        ({"batched": "yes"}, r"from_dataset\(batched='yes'\): expected True or False"),
        ({"passes": 0}, r"from_dataset\(passes=n\) was given 0"),
        ({"seed": -1}, r"from_dataset\(seed=n\) was given -1"),
        ({"batch_size": 3}, r"from_dataset\(.*called with other arguments"),
    ],
)
def test_wrong_arguments_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ub.from_dataset([1, 2], **given)
    with pytest.raises(ValueError, match="was given an empty list"):
        ub.from_dataset([])

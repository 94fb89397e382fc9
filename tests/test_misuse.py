"""Methods used twice, in the wrong order or for the wrong purpose: an error, or the intended result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first

pytestmark = pytest.mark.usefixtures("no_threads_left")


def test_masked_values_are_refused_and_not_trained_on() -> None:
    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    said = r"shape \(3,\) has 1 masked values \(numpy\.ma\).*\.filled\(np\.nan\)"
    with pytest.raises(ub.RowsError, match=said):
        ub.from_arrays(masked)
    with pytest.raises(ub.RowsError, match=said):
        first(ub.from_generator(lambda: iter([masked])).batch(1), 1)
    with pytest.raises(ub.RowsError, match="masked values"):
        first(ub.from_samples(lambda: iter([{"x": np.ma.masked}])).batch(1), 1)
    [whole] = first(ub.from_arrays(np.ma.array([1.0, 2.0]), shuffle=False).batch(2), 1)
    assert type(whole) is np.ndarray


def test_a_list_of_numbers_is_told_to_be_a_tree() -> None:
    with pytest.raises(
        ub.RowsError, match=r"leaf \['x'\]\[0\] has no rows.*A list is a tree of arrays: rows are np\.array"
    ):
        first(ub.from_generator(lambda: iter([{"x": [1, 2]}])).batch(1), 1)


def test_rows_that_are_not_there_are_not_excluded() -> None:
    stream = ub.from_arrays((np.arange(20), np.arange(20)))
    for rows, named in (([500], "500"), (range(10, 21), "20")):
        with pytest.raises(ValueError, match=rf"names row {named}, and the source has 20 rows, numbered from 0"):
            stream.exclude(rows)
    mixed = ub.mix({"a": stream, "b": ub.from_arrays((np.arange(600), np.arange(600)))})
    mixed.exclude([500], source="b")
    with pytest.raises(ValueError, match="names row 500"):
        mixed.exclude([500], source="a")


def test_generators_without_a_name_are_told_with_code_that_runs() -> None:
    with pytest.raises(TypeError, match=r"generator expression.*lambda: \(… for … in …\)"):
        ub.from_generator(np.zeros(1) for _ in range(3))
    with pytest.raises(TypeError, match=r"lambda: fn\(x=…\)"):
        ub.from_generator(lambda x: iter([x]))


def test_asynchronous_functions_are_told_what_to_write() -> None:
    async def generator() -> Any:
        yield np.zeros(1)

    async def coroutine() -> Any:
        return np.zeros(1)

    for fn in (generator, coroutine):
        with pytest.raises(TypeError, match=r"which is asynchronous, and nothing awaits it here.*asyncio\.Runner"):
            first(ub.from_generator(fn).batch(1), 1)


def test_one_sensor_twice_in_a_mix_is_said(caplog: pytest.LogCaptureFixture) -> None:
    def sensor() -> Iterator[Any]:
        while True:
            yield np.zeros(4)

    stream = ub.from_generator(sensor)
    with caplog.at_level("WARNING", "unbounded"):
        first(ub.mix([stream, stream]).batch(4), 2)
    assert caplog.text.count("is read twice by one feed") == 1

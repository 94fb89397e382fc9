"""A reading of this computer's vitals agrees with the operating system's counters."""

import doctest
import time
from dataclasses import replace

import numpy as np
import pytest

from unbounded.sources import vitals
from unbounded.sources.vitals import COLUMNS, read_counters, read_vitals


def test_the_first_reading_has_no_row_because_a_difference_needs_two_looks():
    columns, counters = read_vitals(None, clock=lambda: 5.0)
    assert list(columns) == ["time", *COLUMNS]
    assert all(column.shape == (0,) for column in columns.values())
    assert counters.time == 5.0


def test_rates_are_the_counters_differences_by_the_clock():
    now = read_counters(100.0)
    before = replace(
        now,
        time=99.5,
        cpu_busy=now.cpu_busy - 0.25,
        cpu_all=now.cpu_all - 1.0,
        disk_written=now.disk_written - 5_000,
        net_received=now.net_received - 10_000,
    )
    columns, _ = read_vitals(before, clock=lambda: 100.0)
    assert columns["time"].dtype == np.float64
    assert columns["time"][0] == 100.0
    assert all(columns[name].dtype == np.float32 and columns[name].shape == (1,) for name in COLUMNS)
    # The counters went on between the two looks, so the true rates are at least those of the difference.
    assert columns["disk_write"][0] >= 10_000
    assert columns["net_in"][0] >= 20_000
    assert 20 <= columns["cpu"][0] <= 60
    assert 0 < columns["memory"][0] <= 100
    assert columns["load"][0] >= 0


def test_a_busy_process_is_seen():
    _, counters = read_vitals(None)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass
    columns, _ = read_vitals(counters)
    import psutil

    assert columns["cpu"][0] > 50 / psutil.cpu_count()


def test_counters_that_went_back_give_zero_and_not_a_negative_rate():
    now = read_counters(1.0)
    columns, _ = read_vitals(replace(now, time=0.0, net_sent=now.net_sent + 10**9), clock=lambda: 1.0)
    assert columns["net_out"][0] == 0


def test_a_clock_that_was_set_back_gives_no_row_and_the_next_reading_goes_on():
    counters = read_counters(1_000.0)
    columns, counters = read_vitals(counters, clock=lambda: 400.0)
    assert len(columns["time"]) == 0
    columns, _ = read_vitals(counters, clock=lambda: 400.1)
    assert columns["time"].tolist() == [400.1]


def test_a_span_without_a_tick_is_no_division_by_zero():
    now = read_counters(0.0)
    columns, _ = read_vitals(replace(now, cpu_all=now.cpu_all + 10**6), clock=lambda: 0.1)
    assert columns["cpu"][0] == 0


def test_without_psutil_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ModuleNotFoundError, match=r"unbounded\[machine\]"):
        read_vitals(None)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(vitals).failed == 0

"""`unbounded simulate`: a plant whose faults are known, decided by a seed."""

import csv
import doctest

import numpy as np
import pytest

from helpers import installed
from unbounded.detect import _plant
from unbounded.detect._plant import KINDS, plant


def test_a_seed_decides_the_plant():
    one, again, other = (plant(sensors=3, days=5, every=300, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.values, again.values)
    assert one.faults == again.faults
    assert (one.values != other.values).all()


def test_another_sensor_changes_none_of_the_others():
    few, more = (plant(sensors=n, days=5, every=300) for n in (2, 9))
    np.testing.assert_array_equal(more.values[:, :2], few.values)
    assert more.names[8] == "temperature_2"


def test_faults_come_after_the_first_fifth_and_are_of_every_kind():
    made = plant(sensors=20, days=40, every=600)
    assert {fault.kind for fault in made.faults} == set(KINDS)
    assert all(0.2 * len(made.values) <= fault.first <= fault.last < len(made.values) for fault in made.faults)
    for fault in made.faults:
        part = made.values[fault.first : fault.last + 1, fault.sensor]
        if fault.kind == "stuck":
            assert np.ptp(part) == 0
        if fault.kind == "spike":
            before = made.values[fault.first - 6 : fault.first, fault.sensor]
            assert np.abs(part - before.mean()).min() > 3 * np.std(made.values[: fault.first, fault.sensor])


def test_a_sensor_has_a_cycle_of_a_day():
    value = plant(sensors=1, days=20, every=600).values[:, 0]
    day = 144
    value = value[: len(value) // day * day].reshape(-1, day)
    assert np.std(np.median(value, axis=0)) > 0.5 * np.std(value - np.median(value, axis=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sensors": 0}, "at least 1 sensor"),
        ({"days": 0.01}, "at least 100 are expected"),
        ({"days": float("nan")}, "more than 0 days"),
        ({"every": 0.001}, "at most 20,000,000"),
        ({"seed": -1}, "a seed of 0 or more"),
    ],
)
def test_impossible_plants_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        plant(**options)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(_plant).failed == 0


@pytest.fixture
def command():
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from unbounded.cli._app import app

    return lambda *arguments: CliRunner().invoke(app, ["simulate", *map(str, arguments)])


@installed("typer")
def test_the_command_writes_readings_and_faults_that_a_csv_reader_reads(command, tmp_path):
    path = tmp_path / "plant.csv"
    result = command(path, "--sensors", 2, "--days", 10, "--every", "10min", "--seed", 3)
    assert result.exit_code == 0
    assert "1,440 readings of 2 sensors" in result.output
    with path.open() as file:
        rows = list(csv.DictReader(file))
    made = plant(sensors=2, days=10, every=600, seed=3)
    assert [row["time"] for row in rows[:2]] == ["2024-01-01 00:00:00", "2024-01-01 00:10:00"]
    np.testing.assert_allclose([float(row["pressure"]) for row in rows], made.values[:, 1], rtol=1e-5)
    with (tmp_path / "plant.faults.csv").open() as file:
        faults = list(csv.DictReader(file))
    assert [(fault["column"], fault["kind"]) for fault in faults] == [
        (made.names[fault.sensor], fault.kind) for fault in made.faults
    ]
    assert all(made.moment(fault.first) == row["start"] for fault, row in zip(made.faults, faults, strict=True))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["plant.csv", "plant.faults.csv"]


@installed("typer")
def test_a_file_that_exists_is_replaced_only_if_asked(command, tmp_path):
    beside = tmp_path / "plant.faults.csv"
    beside.write_text("mine")
    small = ("--sensors", 1, "--days", 2, "--every", "10min")
    result = command(tmp_path / "plant.csv", *small)
    assert result.exit_code == 2
    assert "--force" in result.output
    assert beside.read_text() == "mine"
    assert not (tmp_path / "plant.csv").exists()
    assert command(tmp_path / "plant.csv", *small, "--force").exit_code == 0
    assert beside.read_text().startswith("start,end,column,kind\n")


@installed("typer")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plant.txt"], "does not end with .csv"),
        (["plant.csv", "--every", "soon"], "'soon' is no time between readings"),
        (["plant.csv", "--every", "1.2.3s"], "no time between readings"),
        (["plant.csv", "--days", "0"], "more than 0 days"),
        (["none/plant.csv"], "none is no directory"),
    ],
)
def test_what_can_t_be_simulated_is_said_in_a_sentence(command, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())

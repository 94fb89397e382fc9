"""Stages of tables under thousands of schedules, with faults and kills: what is trained is what it would be without."""

from __future__ import annotations

import os

import pytest
from tests.simulated_tables import TableWalk

pytestmark = pytest.mark.usefixtures("one_core", "no_log")

SEEDS = int(os.environ.get("SIMULATED_SEEDS", "200")) // 8
FIRST = int(os.environ.get("SIMULATED_FIRST", "0"))


@pytest.mark.parametrize("group", range(5))
def test_a_table_is_trained_on_as_without_kills_and_faults(group: int) -> None:
    for seed in range(FIRST + group, FIRST + SEEDS, 5):
        found = TableWalk(seed)
        try:
            found.run()
        except Exception as error:
            raise AssertionError(f"Seed {seed} of {found.plan.words}: {type(error).__name__}: {error}") from error

"""The arrival log: what was decided by what had arrived is decided so again, whatever ended the process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import arrival_trainer
from unbounded.core.runtime import SYSTEM
from unbounded.sources.arrival_file import ArrivalFile

KILLS = int(os.environ.get("ARRIVAL_KILLS", "6"))


# ---- a process that is killed ----


def live_and_be_killed(directory: Path, every: int, steps: int) -> dict[int, str]:
    """A process, killed when it was handed so many batches; these, by their numbers."""
    arguments = [sys.executable, "-W", "ignore", arrival_trainer.__file__, str(directory), str(every)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == steps:
                process.kill()
    assert len(lines) >= steps, "it has ended by itself"
    if not lines[-1].endswith("\n"):
        lines.pop()
    return {int(number): rows for number, rows in (line.split(" ", 1) for line in lines)}


@pytest.mark.parametrize("every", [100_000, 40])
def test_a_run_that_is_killed_is_handed_the_batches_that_it_was_trained_on(every: int, tmp_path: Path) -> None:
    """`every` 100,000: it is always killed before its first checkpoint."""
    rng = random.Random(every)
    seen: dict[int, str] = {}
    again = 0
    for life in range(KILLS):
        # The first one lives until rows were dropped, however fast its steps are.
        found = live_and_be_killed(tmp_path, every, rng.randint(30, 250) if life else 250)
        again += sum(step in seen for step in found)
        for step, rows in found.items():
            assert seen.setdefault(step, rows) == rows, f"batch {step} is another one than before the kill"
    assert again > KILLS
    rows = [int(row) for line in seen.values() for row in line.split()]
    assert len(set(rows)) == len(rows), "a row came twice"
    file = ArrivalFile(tmp_path / "log" / "feed" / "arrival_log", SYSTEM)
    decided = {each.decision for _, entries in file.read(file.start)[0] for part in entries.values() for each in part}
    file.close()
    assert decided >= {"a", "b", "kept", "dropped", ()}
    assert any(isinstance(each, tuple) and each for each in decided), "no input was left out"

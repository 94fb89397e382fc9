"""TrainOptions: what a user has typed after `unbounded train`, and the name of a run's directory."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass, field
from pathlib import Path

from unbounded.detect._readings import Choice
from unbounded.detect._training import Plan


@dataclass(frozen=True)
class TrainOptions:
    """What a user has typed.

    Args:
        source: the source's name in the command.
        given: the run's directory; None for one named by the source.
        plan: the parameters of training.
        choice: the columns of files.
        passes: over files; None for ever.
        rate: readings a second, for `machine:`.
        show: the kind of display.
        report: True to write a report.
        accept_changes: resume although the source has changed since the run began.
        on_alarm: a shell command.
    """

    source: str
    given: Path | None
    plan: Plan
    choice: Choice = field(default_factory=Choice)
    passes: int | None = 1
    rate: float = 10.0
    show: str = "auto"
    report: bool = True
    accept_changes: bool = False
    on_alarm: str | None = None

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.given or Path("runs") / name_of(self.source)


def name_of(source: str) -> str:
    """The name of the directory for a source: `machine`, or that of the function or the files.

    Args:
        source: the source's name in the command.

    Returns:
        Letters, digits and dashes.

    Example:
        >>> name_of("machine:"), name_of("lab/sensors.py:boiler"), name_of("data/2024/*.csv")
        ('machine', 'sensors-boiler', '2024')
    """
    path, _, name = source.rpartition(":")
    if "/" in name or (not path and name):  # files, with or without a scheme
        parts = [part for part in name.split("/") if part.strip(".~")]
        plain = [part for part in parts if not set(part) & set("*?[")]
        text = plain[-1] if plain else "files"
        text = text.split(".")[0] or text
    else:
        text = "-".join(part for part in (Path(path).stem if path.endswith(".py") else path, name) if part)
    return "".join(letter if letter.isalnum() else "-" for letter in text).strip("-") or f"run-{clock.time():.0f}"

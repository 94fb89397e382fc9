"""Alarm and Scored: what the scorer returns for a block of readings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unbounded.detect._looks import Cause


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    ``row`` counts the scored readings, from 0; ``change`` is in the column's unit: relative to the median of the last
    hundred readings, or to what is usual at that time of the week; ``record`` is True if the cause is "extreme".

    ``cause`` is one of:

    - "sudden": one reading is far from the model's prediction, or from the readings just before it;
    - "lasting": the mean of the last 4, 16 or 64 readings is far from the mean before;
    - "season": one reading is far from what is usual at that time of the day or of the week;
    - "variation": the readings vary much more than before, or much less, as those of a stuck sensor;
    - "extreme": the reading is beyond all before it, and not surprising otherwise.

    ``tail`` is the tail probability: how often a reading is as surprising, for any look and column. ``contributions``
    are the names of the columns that were surprising at that reading, the most surprising one, ``column``, first.
    """

    row: int
    time: float
    column: str
    change: float
    score: float
    record: bool
    words: str
    cause: Cause = "sudden"
    tail: float = 1.0
    contributions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """The result for a block of readings: a score for each, [rows], and the alarms, in order."""

    score: np.ndarray
    alarms: tuple[Alarm, ...]

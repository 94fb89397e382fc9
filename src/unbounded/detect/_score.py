"""Scorer: how surprising a reading is, and when to raise an alarm.

Each column has several looks (`_looks.py`); the tail probability of each size is that of its own recent sizes
(`_tail.py`), so one threshold, the accepted rate of false alarms, serves all looks and columns. `_threshold.py` raises
it where there are more surprises than that, and `_events.py` chooses one alarm for an event. A rule beside it needs no
model: a reading beyond all earlier ones. Input and output are NumPy arrays; the state is plain data of bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.detect._alarm import Alarm, Scored
from unbounded.detect._columns import Column
from unbounded.detect._events import Events
from unbounded.detect._judge import CHUNK, EXPONENT, Judge
from unbounded.detect._looks import CAUSES, LASTING, LOOKS, Cause

__all__ = ["Alarm", "Scored", "Scorer"]

RECENT = 100
MANY = 1_000
FIRST = 208  # readings from which the scales are set, if the warm-up is long enough


class Scorer:
    """Turns readings and the predictions of a model into scores and alarms, reading by reading, in bounded memory.

    A score of 3 means that one reading in 10**3 is as surprising. An alarm is raised if the score exceeds that of the
    accepted false alarms, and the change is at least the column's ``least``. Of readings that come seldom more may be
    false: where ``weekly`` allows more than ``false_alarms``, all scores are higher by the ratio's logarithm.

    Args:
        columns: the columns, in order.
        false_alarms: the probability of a false alarm for each reading.
        weekly: the false alarms in a week of the readings' times, if they are more than ``false_alarms`` allows; at
            most one in 200 readings.
        warm_up: readings before the first alarm.
        refractory: readings for which a column stays silent after an alarm, and for which it must not have been
            surprising before one; a lasting change is told sooner if only a single reading was told before.
        memory: readings over which the usual size of a look is learned.
        record: how far beyond all readings so far a reading raises an alarm by itself, as a fraction of their range;
            from the thousandth reading on. With n columns, 1 + ln(n) times as far.

    Raises:
        ValueError: there is no column, or a number is out of its range.

    Example:
        >>> scorer = Scorer([Column("cpu", "%", least=10.0)], warm_up=200)
        >>> rng = np.random.default_rng(0)
        >>> cpu = 20 + rng.normal(size=(300, 1))
        >>> cpu[250:] += 50
        >>> row = np.arange(300)
        >>> scored = scorer.score(row, row / 10, cpu, cpu - 20, np.zeros((300, 1)))
        >>> scored.alarms[0].row, scored.alarms[0].words
        (250, 'cpu +50 points')
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        false_alarms: float = 1e-4,
        weekly: float = 1.0,
        warm_up: int = 300,
        refractory: int = 100,
        memory: int = 10_000,
        record: float = 0.05,
    ) -> None:
        if not columns:
            raise ValueError("Scorer was given no column: a reading needs one or more to be scored.")
        if not 0 < false_alarms < 0.1:
            raise ValueError(
                f"Scorer(false_alarms={false_alarms}) is no rate of false alarms for each reading: it lies "
                "between 0 and 0.1, such as 1e-4 for one in 10,000 readings."
            )
        if not 0 <= weekly < np.inf:
            raise ValueError(
                f"Scorer(weekly={weekly}) is no number of false alarms in a week: it is 0 or more, such as 1.0, or 0 "
                "to accept only those of false_alarms."
            )
        if warm_up < CHUNK or refractory < 0 or memory < RECENT or record < 0:
            raise ValueError(
                f"Scorer(warm_up={warm_up}, refractory={refractory}, memory={memory}, record={record}): "
                f"warm_up is at least {CHUNK} readings, memory at least {RECENT}, the others at least 0."
            )
        self.columns = tuple(columns)
        self.threshold = -float(np.log10(false_alarms))
        self.warm_up, self.refractory, self.record = warm_up, refractory, record
        width = len(self.columns)
        self.rows = 0
        self.last = -1
        self.alarms = 0
        # The scales are set within the first half of the warm-up.
        first = min(FIRST, max(CHUNK, warm_up // 2 // CHUNK * CHUNK))
        self._judge = Judge(self.columns, first, false_alarms, weekly, memory)
        self._least = np.array([column.least for column in self.columns])
        self._history = np.zeros((0, width))  # the last hundred readings
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._events = Events(np.append(LASTING, 1.0), width, refractory)
        self._pass_over_until = 0

    def score(
        self, row: np.ndarray, time: np.ndarray, values: np.ndarray, normal: np.ndarray, expected: np.ndarray
    ) -> Scored:
        """Score the next readings.

        Args:
            row: numbers of the readings, strictly increasing, int64, [rows].
            time: when they were taken, in seconds, [rows].
            values: the readings in their own units, [rows, columns].
            normal: the readings on the model's scale, [rows, columns].
            expected: the model's predictions of them, made before it was trained on them, [rows, columns].

        Returns:
            A score for each reading, and the alarms. Readings with a number not above the last one's were scored
            before: they get a score of NaN, as do those that were passed over.

        Raises:
            ValueError: the shapes do not fit the columns.
        """
        row, time = np.asarray(row, dtype=np.int64), np.asarray(time, dtype=np.float64)
        values, normal, expected = (np.asarray(v, dtype=np.float64) for v in (values, normal, expected))
        shape = (len(row), len(self.columns))
        if time.shape != row.shape or any(v.shape != shape for v in (values, normal, expected)):
            raise ValueError(
                f"Scorer.score was given row {row.shape}, time {time.shape}, values {values.shape}, "
                f"normal {normal.shape} and expected {expected.shape}: it expects [rows] twice, and "
                f"[rows, {len(self.columns)}] three times."
            )
        score = np.full(len(time), np.nan)
        alarms: list[Alarm] = []
        error = np.clip(np.where(np.isfinite(values), np.nan_to_num(normal - expected), 0.0), -1e6, 1e6)
        rows = np.flatnonzero(row > np.maximum.accumulate(np.concatenate([[self.last], row]))[:-1])
        at = 0
        while at < len(rows):
            # What is usual is learned at fixed ordinals, for any cut into blocks.
            count = CHUNK - self.rows % CHUNK
            passed_over = self.rows < self._pass_over_until
            part = rows[at : at + (min(count, self._pass_over_until - self.rows) if passed_over else count)]
            at += len(part)
            if not passed_over:
                score[part] = self._chunk(time[part], values[part], error[part], alarms)
            self._count(len(part), int(row[part[-1]]))
        return Scored(score, tuple(alarms))

    def pass_over(self, readings: int) -> None:
        """Skip the next readings, and begin anew after them: no score, no alarm, nothing learned.

        Used for the load that this process causes when it starts, and for readings before a pause.

        Args:
            readings: the number to skip.
        """
        self._pass_over_until = self.rows + readings
        self._history = self._history[:0]
        self._judge.begin_anew()

    def _count(self, readings: int, last: int) -> None:
        """Count readings, the last of which has number `last`."""
        self.rows += readings
        self.last = last
        if self.rows % CHUNK == 0:
            self._judge.learn()

    def _chunk(self, time: np.ndarray, values: np.ndarray, error: np.ndarray, alarms: list[Alarm]) -> np.ndarray:
        values, history = _joined(self._history, values)
        score = np.zeros(len(time))
        if (looked := self._judge.look(time, values, error)) is not None:
            excess, changes = looked
            y, record, begins = self._judge.scales.to(values), self._records(values), {}
            for row in np.flatnonzero((excess > 0).any(axis=(1, 2)) | record.any(axis=1)).tolist():
                recent = history[: len(history) - len(values) + row + 1][-RECENT:]
                by = self._changes(y[row], changes[row], recent)
                excess[row][(np.abs(by[:-1]) < self._least) | (by[:-1] == 0)] = -self._judge.rate
                record[row] &= np.abs(by[-1]) >= self._least
                if (idle := self._judge.scales.idle).any():
                    # Without a scale, only the first change is told.
                    moving = idle & (len(recent) > 1) & (recent[:-1] != recent[0]).any(axis=0)
                    excess[row][:, moving] = -self._judge.rate
                    record[row] &= ~moving
                begins[row] = self._raise(row, float(time[row]), excess[row], record[row], changes[row], by, alarms)
            self._judge.correct(excess, begins)
            score = self._scores(excess).max(axis=(1, 2))
        self._history = history[-RECENT:]
        self._low = np.minimum(self._low, values.min(axis=0))
        self._high = np.maximum(self._high, values.max(axis=0))
        return score

    def _scores(self, excess: np.ndarray) -> np.ndarray:
        """Excesses over the thresholds, as scores that are at the threshold where the excess is 0."""
        # A slow look has a lower threshold, and below it the score of a fast one, stretched.
        lower = EXPONENT * np.log10(LASTING)[:, None]
        reach = np.maximum(self.threshold - lower, 0.5)
        below = np.maximum(excess + reach, 0.0) * self.threshold / reach
        scores: np.ndarray = np.where(excess > 0, excess + self.threshold, np.minimum(below, self.threshold))
        return scores

    def _changes(self, y: np.ndarray, changes: np.ndarray, recent: np.ndarray) -> np.ndarray:
        """The changes in the columns' units, of each look and of an extreme, [looks + 1, columns]."""
        middle = np.median(recent, axis=0)
        by = np.empty((LOOKS + 1, len(self.columns)))
        by[-1] = recent[-1] - middle
        now = np.array([self._judge.scales.back(one, i) for i, one in enumerate(y.tolist())])
        for look, cause in enumerate(CAUSES):
            if cause == "sudden":
                by[look] = by[-1]
                continue
            before = [self._judge.scales.back(one, i) for i, one in enumerate((y - changes[look]).tolist())]
            by[look] = now - before
            if cause == "lasting":
                seen = np.median(recent[-5:], axis=0) - middle
                by[look] = np.where((np.abs(seen) > np.abs(by[look])) & (changes[look] != 0), seen, by[look])
        # An idle column has no scale yet.
        return np.where(self._judge.scales.idle, by[-1], by)

    def _raise(
        self,
        row: int,
        time: float,
        excess: np.ndarray,
        record: np.ndarray,
        changes: np.ndarray,
        by: np.ndarray,
        alarms: list[Alarm],
    ) -> np.ndarray:
        """Raise the alarm of one row, if it is due; return the mask of looks with which an event begins."""
        ordinal = self.rows + row
        index, begins = self._events.step(
            ordinal, np.concatenate([excess, np.where(record, 1e-9, -1.0)[None]]), ordinal >= self.warm_up
        )
        if index is None:
            return begins[:-1]
        look = int(np.argmax(excess[:, index]))
        extreme = excess[look, index] <= 0
        cause: Cause = "extreme" if extreme else CAUSES[look]
        looks = self._judge.looks
        unused = cause == "season" and looks is not None and not looks.season.used[index]
        if unused or (self._judge.scales.idle[index] and not extreme):
            cause = "sudden"
        column, change = self.columns[index], float(by[-1 if extreme else look, index])
        words = column.change(change)
        if cause == "variation":
            words = f"{column.name} varies {'more' if changes[look, index] > 0 else 'less'} than before"
        worst = excess.max(axis=0)
        order = sorted(np.flatnonzero((worst > 0) | record).tolist(), key=lambda i: (i != index, -worst[i]))
        self.alarms += 1
        alarms.append(
            Alarm(
                row=ordinal,
                time=time,
                column=column.name,
                change=change,
                score=max(0.0, float(worst[index]) + self.threshold),
                record=bool(extreme),
                words=words,
                cause=cause,
                tail=float(min(1.0, 10.0 ** -(worst[index] + self._judge.rate))),
                contributions=tuple(self.columns[i].name for i in order),
            )
        )
        return begins[:-1]

    def _records(self, values: np.ndarray) -> np.ndarray:
        """The mask of readings beyond all before them, by the fraction of their range, [rows, columns]."""
        # Among few readings many are records.
        if not self.record or self.rows < MANY:
            return np.zeros(values.shape, dtype=bool)
        low = np.minimum.accumulate(np.concatenate([self._low[None], values]))[:-1]
        high = np.maximum.accumulate(np.concatenate([self._high[None], values]))[:-1]
        now, low, high = (self._judge.scales.to(v) for v in (values, low, high))
        # The more columns, the more records: the excess of one over the others is about exponential.
        margin = self.record * (1.0 + np.log(len(self.columns))) * (high - low)
        beyond: np.ndarray = ((now < low - margin) | (now > high + margin)) & (margin > 0)
        return beyond

    def state_dict(self) -> dict[str, Any]:
        """The scorer's state, as plain numbers and small arrays.

        Returns:
            A new dict, to be given to ``load_state_dict`` of a scorer with the same columns.
        """
        return {
            "columns": [column.name for column in self.columns],
            "rows": self.rows,
            "last": self.last,
            "alarms": self.alarms,
            "judge": self._judge.state_dict(),
            "events": self._events.state_dict(),
            "history": self._history.copy(),
            "low": self._low.copy(),
            "high": self._high.copy(),
            "pass_over_until": self._pass_over_until,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from ``state_dict``.

        Raises:
            ValueError: it is the state of other columns, or of an earlier version's scorer.
        """
        names, width = [column.name for column in self.columns], len(self.columns)
        if list(state["columns"]) != names:
            raise ValueError(
                f"The scorer's state is of the columns {list(state['columns'])}, but the readings have "
                f"{names}: go on with the same columns, or start a new run in another directory."
            )
        if "judge" not in state:
            raise ValueError(
                "The scorer's state was saved by an earlier version of unbounded, whose detector judged readings "
                "otherwise: start a new run in another directory."
            )
        self.rows, self.last, self.alarms = (int(state[key]) for key in ("rows", "last", "alarms"))
        self._judge.load_state_dict(state["judge"])
        self._events.load_state_dict(state["events"])
        self._history = np.array(state["history"], dtype=np.float64).reshape(-1, width)
        self._low, self._high = (np.array(state[key], dtype=np.float64) for key in ("low", "high"))
        self._pass_over_until = int(state["pass_over_until"])


def _joined(before: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows with missing values replaced by the previous reading, and the history that ends with them."""
    history = np.concatenate([before, rows])
    for row, index in np.argwhere(~np.isfinite(history)):
        history[row, index] = history[row - 1, index] if row else 0.0
    return history[len(before) :], history

"""Scorer: how surprising a reading is, and when to raise an alarm.

Two sizes are computed for each column: the distance of the reading from the model's prediction, and the distance of the
median of the last twenty readings from that of the last hundred, which detects a lasting change once the model has
adapted to it. Each is compared with its usual size, so one threshold, the accepted rate of false alarms, serves all
columns. A third rule needs no model: a reading beyond all earlier ones. Input and output are NumPy arrays; the state is
small plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unbounded.detect._columns import Column, scaled
from unbounded.detect._usual import Usual

LOOKS = 2
CHUNK = 16
LATELY = 19
RECENT = 100
MANY = 1_000


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm.

    ``row`` counts the scored readings, from 0; ``change`` is relative to the median of the last hundred readings, in
    the column's unit; ``record`` is True if the reading was beyond all before it, and not surprising otherwise.
    ``cause`` is "sudden" (far from the prediction), "lasting" (the level has moved) or "extreme" (beyond all readings
    before); ``tail`` is the probability of a reading as surprising.
    """

    row: int
    time: float
    column: str
    change: float
    score: float
    record: bool
    words: str
    cause: str = "sudden"
    tail: float = float("nan")


@dataclass(frozen=True, slots=True)
class Scored:
    """The result for a block of readings: a score for each, [rows], and the alarms, in order."""

    score: np.ndarray
    alarms: tuple[Alarm, ...]


class Scorer:
    """Turns the errors of a model into scores and alarms, reading by reading, in bounded memory.

    A score of 3 means that one reading in 10**3 is as surprising. An alarm is raised if the score exceeds that of the
    accepted false alarms, and the change is at least the column's ``least``.

    Args:
        columns: the columns, in order.
        false_alarms: the probability of a false alarm for each reading.
        warm_up: readings before the first alarm.
        refractory: readings for which a column stays silent after an alarm; a lasting change is told sooner if only a
            single reading was told before.
        memory: readings over which the usual size of an error is learned.
        record: how far beyond all readings so far a reading raises an alarm by itself, as a fraction of their range;
            from the thousandth reading on.

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
        warm_up: int = 300,
        refractory: int = 100,
        memory: int = 3_000,
        record: float = 0.05,
    ) -> None:
        if not columns:
            raise ValueError("Scorer was given no column: a reading needs one or more to be scored.")
        if not 0 < false_alarms < 0.1:
            raise ValueError(
                f"Scorer(false_alarms={false_alarms}) is no rate of false alarms for each reading: it lies "
                "between 0 and 0.1, such as 1e-4 for one in 10,000 readings."
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
        self._usual = Usual((LOOKS, width), memory)
        self._values = np.zeros((0, width))
        self._normal = np.zeros((0, width))
        self._low, self._high = np.full(width, np.inf), np.full(width, -np.inf)
        self._silent_until = np.zeros((LOOKS, width), dtype=np.int64)
        self._told = np.full(width, -RECENT)
        self._pass_over_until = 0
        # Sizes and weights of the readings since the last ordinal at which usual sizes were learned.
        self._pending = np.zeros((2, LOOKS, 0, width))

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
        rows = np.flatnonzero(row > np.maximum.accumulate(np.concatenate([[self.last], row]))[:-1])
        at = 0
        while at < len(rows):
            # Usual sizes are learned at fixed ordinals, for any cut into blocks.
            count = CHUNK - self.rows % CHUNK
            passed_over = self.rows < self._pass_over_until
            part = rows[at : at + (min(count, self._pass_over_until - self.rows) if passed_over else count)]
            at += len(part)
            if not passed_over:
                score[part] = self._chunk(time[part], values[part], normal[part], expected[part], alarms)
            self._count(len(part), int(row[part[-1]]))
        return Scored(score, tuple(alarms))

    def pass_over(self, readings: int) -> None:
        """Skip the next readings, and begin anew after them: no score, no alarm, nothing learned.

        Used for the load that this process causes when it starts, and for readings before a pause.

        Args:
            readings: the number to skip.
        """
        self._pass_over_until = self.rows + readings
        self._values, self._normal = self._values[:0], self._normal[:0]

    def _count(self, readings: int, last: int) -> None:
        """Count readings, the last of which has number `last`."""
        self.rows += readings
        self.last = last
        if self.rows % CHUNK == 0 and self._pending.shape[2]:
            size, weight = self._pending
            self._usual.learn(size, weight, seen=self.rows)
            self._pending = self._pending[:, :, :0]

    def _chunk(
        self,
        time: np.ndarray,
        values: np.ndarray,
        normal: np.ndarray,
        expected: np.ndarray,
        alarms: list[Alarm],
    ) -> np.ndarray:
        values, history = _joined(self._values, values)
        normal, level = _joined(self._normal, normal)
        size = np.stack([np.abs(np.nan_to_num(normal - expected)), np.abs(_moves(level, len(time))[1])])
        change = _moves(history, len(time))
        worth = np.abs(change[:LOOKS]) >= np.array([column.least for column in self.columns])
        # More comparisons for each reading find more that is rare: correct for their number.
        rarity = self._usual.rarity(size) - np.log10(LOOKS * len(self.columns))
        surprise = np.where(worth, np.maximum(rarity, 0.0), 0.0)
        record = self._records(values) & worth[0]
        score: np.ndarray = surprise.max(axis=(0, 2))
        for row in np.flatnonzero((score > self.threshold) | record.any(axis=1)):
            self._raise(int(row), float(time[row]), surprise[:, row], record[row], change[:, row], alarms)
        # A surprising reading is learned slowly: it becomes usual only if it lasts.
        seen = np.stack([size, np.where(surprise > self.threshold, 0.1, 1.0)])
        self._pending = np.concatenate([self._pending, seen], axis=2)
        self._values, self._normal = history[-RECENT:], level[-RECENT:]
        self._low = np.minimum(self._low, values.min(axis=0))
        self._high = np.maximum(self._high, values.max(axis=0))
        return score

    def _raise(
        self,
        row: int,
        time: float,
        surprise: np.ndarray,
        record: np.ndarray,
        change: np.ndarray,
        alarms: list[Alarm],
    ) -> None:
        """Raise the alarms of one row, the most surprising column first."""
        ordinal = self.rows + row
        for index in np.argsort(-surprise.max(axis=0), kind="stable"):
            over = surprise[:, index] > self.threshold
            sudden, lasting = (over | [record[index], False]) & (ordinal >= self._silent_until[:, index])
            if ordinal < self.warm_up or not (sudden or lasting):
                continue
            self._silent_until[1, index] = ordinal + self.refractory if lasting else 0
            if lasting and not sudden and ordinal - self._told[index] <= LATELY:
                # A lasting change was told by its first reading. An older burst does not suppress it.
                continue
            self._silent_until[0, index] = ordinal + self.refractory
            self._told[index] = ordinal
            self.alarms += 1
            by = float(change[0 if sudden else 2, index])
            alarms.append(
                Alarm(
                    row=ordinal,
                    time=time,
                    column=self.columns[index].name,
                    change=by,
                    score=float(surprise[:, index].max()),
                    record=not over.any(),
                    words=self.columns[index].change(by),
                    cause="extreme" if not over.any() else "sudden" if over[0] else "lasting",
                    tail=float(10.0 ** -surprise[:, index].max()),
                )
            )

    def _records(self, values: np.ndarray) -> np.ndarray:
        """The mask of readings beyond all before them, by the fraction of their range, [rows, columns]."""
        # Among few readings many are records.
        if not self.record or self.rows < MANY:
            return np.zeros(values.shape, dtype=bool)
        low = np.minimum.accumulate(np.concatenate([self._low[None], values]))[:-1]
        high = np.maximum.accumulate(np.concatenate([self._high[None], values]))[:-1]
        now, low, high = (scaled(self.columns, v) for v in (values, low, high))
        margin = self.record * (high - low)
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
            "usual": self._usual.weights.copy(),
            "values": self._values.copy(),
            "normal": self._normal.copy(),
            "low": self._low.copy(),
            "high": self._high.copy(),
            "silent_until": self._silent_until.copy(),
            "told": self._told.copy(),
            "pass_over_until": self._pass_over_until,
            "pending": self._pending.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: from ``state_dict``.

        Raises:
            ValueError: it is the state of other columns.
        """
        names = [column.name for column in self.columns]
        if list(state["columns"]) != names:
            raise ValueError(
                f"The scorer's state is of the columns {list(state['columns'])}, but the readings have "
                f"{names}: go on with the same columns, or start a new run in another directory."
            )
        self.rows, self.last, self.alarms = (int(state[key]) for key in ("rows", "last", "alarms"))
        self._usual.weights = np.array(state["usual"], dtype=np.float64)
        self._values, self._normal = (
            np.array(state[key], dtype=np.float64).reshape(-1, len(names)) for key in ("values", "normal")
        )
        self._low, self._high = (np.array(state[key], dtype=np.float64) for key in ("low", "high"))
        self._silent_until = np.array(state["silent_until"], dtype=np.int64)
        self._told = np.array(state["told"], dtype=np.int64)
        self._pass_over_until = int(state["pass_over_until"])
        self._pending = np.array(state["pending"], dtype=np.float64).reshape(2, LOOKS, -1, len(names))


def _joined(before: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows with missing values replaced by the previous reading, and the history that ends with them."""
    history = np.concatenate([before, rows])
    for row, index in np.argwhere(~np.isfinite(history)):
        history[row, index] = history[row - 1, index] if row else 0.0
    return history[len(before) :], history


def _moves(history: np.ndarray, rows: int) -> np.ndarray:
    """For each of the last rows, the distances of the row, of the median of twenty and of the median of five from the
    median of the hundred: [3, rows, columns], signed.
    """
    # Before the first reading there is more of the first reading: nothing has moved yet.
    ahead = np.repeat(history[:1], max(0, RECENT + rows - 1 - len(history)), axis=0)
    spans = np.lib.stride_tricks.sliding_window_view(np.concatenate([ahead, history]), RECENT, axis=0)[-rows:]
    latest = np.stack([spans[..., -1], *(np.median(spans[..., -n:], axis=-1) for n in (LATELY, 5))])
    moves: np.ndarray = latest - np.median(spans, axis=-1)
    return moves

"""Watch: a Keras callback that records and tells events, and scores each new window before it is trained on.

`ub.keras.Prequential` predicts each window once, before it is trained on, and passes the prediction to `score`. A
function in the stream (`hand_out`) receives each batch, and counts its rows. A resume truncates the record to the
checkpoint.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

import unbounded as ub
from unbounded.detect import _record
from unbounded.detect._alarm_file import AlarmFile, written
from unbounded.detect._bins import EpochBins, ReadingBins
from unbounded.detect._intake import Intake
from unbounded.detect._keyed_scores import KeyedScorers
from unbounded.detect._readings import Readings
from unbounded.detect._record import RecordedAlarm, Start, Trained
from unbounded.detect._score_files import ScoreFiles
from unbounded.detect._status_file import StatusFile
from unbounded.detect._trained import Counter

Event = dict[str, Any]
LATELY = 600


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Scores readings, records events, and tells them to the display.

    `Checkpoint` saves its state by `get_state` and `set_state`.

    Args:
        readings: what is scored.
        scorers: the scorers of its keys.
        directory: for `run.jsonl`, `scores.parquet`, `alarms.csv` and `status.json`.
        epoch: the length of an epoch.
        tell: receives events: dicts whose `event` is `reading`, `begin`, `alarm`, `step`, `epoch`, ….
        settling: readings after each start that are not judged.
        kept: the bytes of scores that are kept; None for all.
        last_epoch: the epoch after which it ends `fit`; None leaves that to `fit`.
    """

    def __init__(
        self,
        readings: Readings,
        scorers: KeyedScorers,
        directory: Path,
        *,
        epoch: ub.Epoch,
        tell: Callable[[Event], None],
        settling: int = 0,
        kept: int | None = None,
        last_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self._source, self._columns, self._axis = readings.name, readings.columns, readings.axis
        self._keyed = readings.keyed
        self._scorer, self._tell, self._settling = scorers, tell, settling
        self._last_epoch = last_epoch
        columns = readings.columns
        self._log = ub.Log(directory / _record.FILE)
        self._scores = ScoreFiles(
            directory,
            readings.axis,
            keyed=readings.keyed,
            kept=kept,
            say=lambda words: tell({"event": "say", "words": words}),
        )
        self._alarms = AlarmFile(directory, readings.axis)
        self._status = StatusFile(directory, readings, epoch)
        self._feed: Any = None
        self._begun = False  # True once something was written in this process
        self.intake = Intake(columns, tell, live=readings.live)
        """The functions of the stream's first stages, with their counts."""
        self._counter = Counter()
        self._readings, self._epochs = ReadingBins(len(columns)), EpochBins()
        self._errors = np.zeros(2)  # recent errors of the model and of persistence
        self._epoch_sums = np.zeros(3)  # the same in the current epoch, and the number of readings
        self._restored = False
        self._epoch = (-1, 0)  # (its number, the step before its first)
        self._before = ub.Stats()

    # -- in the stream -------------------------------------------------------------------------------------------

    def hand_out(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Count a batch, and return the windows of `x`, which the model takes.

        Args:
            batch: windows of rows from the intake, each [rows, length, …].

        Returns:
            [rows, length, columns].
        """
        self._counter.hand_out(batch["row"][:, -1])
        return batch["x"]

    # -- callback events -----------------------------------------------------------------------------------------

    def attach(self, feed: Any) -> None:
        """Set the feed, whose stats are shown.

        Args:
            feed: an `unbounded.keras.Feed`.
        """
        self._feed = feed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Before the first epoch, the restored state is complete."""
        if not self._begun:
            if not self._restored:
                # In this order: what is no file of a run is noticed before any is changed.
                self._alarms.begin()
                self._scores.begin()
                self._log.cut(0)
            if self._settling:
                # Skip the load that importing and compiling frameworks causes.
                self._scorer.pass_over(self._settling)
            self._begun = True
            steps, position = self._feed.steps, f"row {self._feed.position.rows + 1:,}"
            start = Start(
                clock.time(),
                self._source,
                steps,
                position,
                self._columns,
                self._scorer.threshold,
                self._axis,
                self._keyed,
            )
            self._log.append(_record.as_line(start))
            self._status.begin()
            self._tell(
                {
                    "event": "begin",
                    "step": steps,
                    "position": position,
                    "readings": self._scorer.rows,
                    "columns": [[column.name, column.unit] for column in self._columns],
                    "threshold": self._scorer.threshold,
                    "iterations": int(self.model.optimizer.iterations.value),
                }
            )
        self._before = self._feed.stats
        if epoch != self._epoch[0]:
            self._epoch = (epoch, self._before.steps)
        self._status.begin_epoch(epoch, self._before)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Record the rows of a step, and tell it."""
        step = int(self.model.optimizer.iterations.value)
        stats: ub.Stats = self._feed.stats
        self._counter.train(step, stats, self.intake.skipped)
        if self._counter.due:
            self._log.append(_record.as_line(self._counter.total))
        recent = stats.since(self._before)
        logs = logs or {}
        self._status.step(stats, self.intake.readings, self._scorer.rows, self.intake.skipped)
        self._tell(
            {
                "event": "step",
                "step": step,
                "epoch": self._epoch[0],
                "in_epoch": step - self._epoch[1],
                "share": self._status.share,
                "rate": self._status.rate,
                "rows": stats.rows,
                "skipped": sum(self.intake.skipped.values()),
                "readings": stats.fetched,
                "scored": self._scorer.rows,
                "reuse": stats.rows / self._scorer.rows if self._scorer.rows else None,
                "loss": float(logs.get("loss", np.nan)),
                "persistence": float(logs.get("persistence", np.nan)),
                "better": self._better(),
                "age": (recent.age if recent.age is not None else stats.age) if self.intake.live else None,
                "waiting": recent.waiting,
                "missed": stats.missed,
            }
        )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Record the epoch's metrics."""
        figures = {name: float(value) for name, value in (logs or {}).items() if np.isfinite(float(value))}
        step = int(self.model.optimizer.iterations.value)
        sums, self._epoch_sums = self._epoch_sums, np.zeros(3)
        self._log.append(*self._epochs.add(epoch + 1, step, clock.time(), figures, sums.tolist()))
        self._tell({"event": "epoch", "epoch": epoch, "step": step, **figures})
        if self._last_epoch is not None and epoch + 1 >= self._last_epoch:
            self.model.stop_training = True

    @property
    def has_begun(self) -> bool:
        """True once an epoch has begun in this process."""
        return self._begun

    @property
    def trained(self) -> Trained:
        """The totals of training."""
        return self._counter.total

    def close(self) -> None:
        """Write the open bins, which a resume truncates and makes anew; close the file."""
        if self._begun or self._restored:
            held = [*self._readings.rest(), *self._epochs.rest(), _record.as_line(self._counter.total)]
            self._log.append(*held)
        if self._begun:
            self._scores.write()
            self._status.write("ended")
        self._alarms.close()
        self._log.close()

    # -- in the checkpoint ---------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """The state at this moment.

        Returns:
            Plain data and small arrays.
        """
        return {
            "scorer": self._scorer.state_dict(),
            "length": self._log.tell(),
            "scores": self._scores.state_dict(),
            "alarms": self._alarms.state_dict(),
            "status": self._status.state_dict(),
            "errors": self._errors.copy(),
            "epoch": list(self._epoch),
            "epoch_sums": self._epoch_sums.copy(),
            "intake": self.intake.state_dict(),
            "trained": self._counter.state_dict(),
            "readings": self._readings.state_dict(),
            "epochs": self._epochs.state_dict(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the record is truncated to it.

        Args:
            state: from `get_state`.
        """
        if self._begun:
            return  # an epoch that resumes in its middle is restored twice, and has begun in between
        self._scorer.load_state_dict(state["scorer"])
        self._log.cut(int(state["length"]))
        self._scores.load_state_dict(state["scores"])
        self._alarms.load_state_dict(state["alarms"])
        self._status.load_state_dict(state["status"])
        self._errors = np.array(state["errors"], dtype=np.float64)
        self._epoch = (int(state["epoch"][0]), int(state["epoch"][1]))
        self._epoch_sums = np.array(state["epoch_sums"], dtype=np.float64)
        self.intake.load_state_dict(state["intake"])
        self._counter.load_state_dict(state["trained"], self.intake.skipped)
        self._readings.load_state_dict(state["readings"])
        self._epochs.load_state_dict(state["epochs"])
        self._restored = True

    # -- scoring -------------------------------------------------------------------------------------------------

    def _better(self) -> float | None:
        error, last = self._errors
        return 1.0 - float(error / last) if last > 0 else None

    def score(self, numbers: np.ndarray, windows: Mapping[str, np.ndarray], expected: np.ndarray) -> None:
        """Score the next windows, for `Prequential`.

        Args:
            numbers: of their last rows in the source, [windows].
            windows: rows from the intake, each [windows, length, …].
            expected: the model's predictions of their last rows before training on them, [windows, columns].
        """
        row, time, values = (windows[name][:, -1] for name in ("row", "time", "values"))
        key, x = windows["key"][:, -1] if "key" in windows else None, windows["x"]
        now = x[:, -1]
        score, alarms = self._scorer.score(key, row, time, values, now, expected)
        error = np.mean((now - expected) ** 2, axis=-1)
        last = np.mean((now - x[:, -2]) ** 2, axis=-1)
        for both in zip(error, last, strict=True):
            self._errors += (np.array(both) - self._errors) / LATELY
        self._epoch_sums += [error.sum(), last.sum(), len(error)]
        if records := self._readings.add(time, values, score, error, last):
            self._log.append(*records)
        self._scores.add(row, time, score, key)
        self._status.scored(int(row[-1]), float(time[-1]))
        self._tell({"event": "score", "score": float(score[-1]), "scored": self._scorer.rows})
        if not self.intake.live:
            known = {"values": values[-1].tolist(), "time": float(time[-1]), "readings": self._scorer.rows}
            self._tell({"event": "reading", **known})
        for name, number, alarm in alarms:
            recorded = RecordedAlarm.of(alarm, name, number)
            record = _record.as_line(recorded)
            self._log.append(record)
            self._alarms.add(recorded)
            self._status.alarm(recorded)
            self._tell({**record, "event": "alarm", "at": written(alarm.time, self._axis)})

"""Training of the detector: the stream, the model and the callbacks, and one call of `fit`.

The frameworks are imported when training begins, so that the command can show its first reading before.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unbounded as ub
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import Readings, SourceEnded
from unbounded.detect._status_file import read_status

if TYPE_CHECKING:
    from unbounded.detect._watch import Watch

ENDLESS = 2**30
CHECKPOINTS = "checkpoints"
BATCH, LARGE_BATCH = 32, 256  # windows: for readings as they are taken, and for those that are there already
SETTLING = 50  # readings after a start, during which the starting process disturbs its own computer's vitals


@dataclass(frozen=True)
class Plan:
    """The parameters of training; a run keeps those that it began with.

    Args:
        epoch: the length of an epoch.
        epochs: the epoch, counted over all starts, after which training ends; ``None`` for never.
        length: readings in a window.
        capacity: windows in the replay buffer.
        reuse: the mean number of times that each window is trained on.
        batch: windows in a batch; None for one that suits the source.
        every: steps between two checkpoints; None leaves it to `save_after`.
        save_after: seconds between two checkpoints.
        warm_up: readings before the first alarm.
        false_alarms: the accepted fraction of readings with a false alarm.
        kept: the bytes of scores that are kept; None for all.
        learning_rate: Adam's.
    """

    epoch: ub.Epoch = field(default_factory=lambda: ub.Epoch(steps=50))
    epochs: int | None = None
    length: int = 32
    capacity: int = 1_000
    reuse: float = 16.0
    batch: int | None = None
    every: int | None = None
    save_after: float = 5.0
    warm_up: int = 300
    false_alarms: float = 1e-4
    learning_rate: float = 1e-2
    kept: int | None = None

    @property
    def readings_before_a_step(self) -> int:
        """The least number of readings before the first batch is full."""
        return self.length + math.ceil((self.batch or BATCH) / self.reuse) - 1

    @property
    def steps(self) -> int | None:
        """The step after which training ends, if that is known before."""
        only = self.epoch == ub.Epoch(steps=self.epoch.steps) if self.epoch.steps else False
        return self.epochs * self.epoch.steps if only and self.epochs and self.epoch.steps else None


def epoch_of(steps: int | None, rows: int | None, seconds: float | None) -> ub.Epoch:
    """The length of an epoch; 50 steps, if no measure is given."""
    if steps is rows is seconds is None:
        steps = 50
    return ub.Epoch(steps=steps, rows=rows, seconds=seconds)


def stream_of(readings: Readings, plan: Plan, watch: Watch) -> Any:
    """The stream from the readings to the batches.

    Args:
        readings: the readings.
        plan: the sizes.
        watch: reads and counts along the way.

    Returns:
        A stream of batches of windows, [batch, length, columns].
    """
    by = "key" if readings.keyed else None
    # A step has a cost of its own: of readings that are not waited for, a batch takes many at once.
    batch = plan.batch or (BATCH if readings.live else LARGE_BATCH)
    return (
        readings.stream.map(watch.intake.read)
        .filter(watch.intake.usable)
        .normalize("x", by=by)
        .windows(plan.length, by=by)
        .replay(plan.capacity, reuse=plan.reuse)
        .batch(batch)
        .map(watch.hand_out)
    )


@dataclass(frozen=True)
class End:
    """How a training ended.

    Args:
        step: the last step, counted over all starts.
        readings: the number of readings, over all starts.
        by: the signal that ended it, "SIGINT" or "SIGTERM"; "source" if the readings ended; None after the last epoch.
        steps: the steps of this start.
    """

    step: int
    readings: int
    by: str | None = None
    steps: int = 0


def train(
    readings: Readings,
    directory: Path,
    plan: Plan | None = None,
    *,
    tell: Callable[[dict[str, Any]], None],
    accept_changes: bool = False,
) -> End:
    """Train the detector until its last step, forever, until the source ends, or until a signal; resume an earlier
    run.

    Args:
        readings: the readings.
        directory: for checkpoints, `run.jsonl` and the report.
        plan: the parameters.
        tell: receives events; see `Watch`.
        accept_changes: resume although the source or the detector has changed since the run began.

    Returns:
        How it ended.

    Raises:
        ModuleNotFoundError: Keras, or its backend, is not installed.
    """
    plan = plan or Plan()
    if importlib.util.find_spec("pyarrow") is None:
        raise ModuleNotFoundError(
            "Scores are written by pyarrow, which is not installed: pip install 'unbounded[demo]'.", name="pyarrow"
        )
    tell({"event": "loading"})
    more = ENDLESS + int((read_status(directory) or {}).get("starts", 0))
    end, epochs = _fit(readings, directory, plan, plan.epochs or more, tell, accept_changes)
    if plan.epochs and epochs < plan.epochs and end.by is None and not end.steps:
        # A run whose source had ended goes on only if more epochs are asked for than then.
        end, _ = _fit(readings, directory, plan, more, tell, accept_changes)
    tell({"event": "end", "step": end.step, "readings": end.readings, "iterations": end.step, "by": end.by})
    return end


def _fit(
    readings: Readings,
    directory: Path,
    plan: Plan,
    epochs: int,
    tell: Callable[[dict[str, Any]], None],
    accept_changes: bool,
) -> tuple[End, int]:
    """One call of `fit`.

    Returns:
        How it ended, and the epochs of the run so far.
    """
    import keras

    from unbounded.detect._keyed_scores import KeyedScorers
    from unbounded.detect._predictor import Predictor
    from unbounded.detect._score import Scorer
    from unbounded.detect._watch import Watch

    done = steps_done(directory)
    keras.utils.set_random_seed(0)
    scorers = KeyedScorers(lambda: Scorer(readings.columns, warm_up=plan.warm_up, false_alarms=plan.false_alarms))
    directory.mkdir(parents=True, exist_ok=True)
    settling = SETTLING if readings.columns == VITALS else 0
    last = plan.epochs if plan.epochs is not None and epochs > plan.epochs else None
    watch = Watch(
        readings, scorers, directory, epoch=plan.epoch, tell=tell, settling=settling, kept=plan.kept, last_epoch=last
    )
    model = Predictor(plan.length, len(readings.columns))
    model.compile(keras.optimizers.Adam(plan.learning_rate, global_clipnorm=1.0))
    model.optimizer.build(model.trainable_variables)
    by: str | None = None
    try:
        with ub.keras.Feed(stream_of(readings, plan, watch), epoch=plan.epoch) as feed:
            watch.attach(feed)
            # Whole batches are counted when they are handed out; windows that are tested are not.
            tested = ub.keras.Prequential(
                feed, on_predictions=watch.score, prepare=lambda windows: windows["x"], table=False
            )
            every = plan.every or ub.Epoch(seconds=plan.save_after)
            saved_in = directory / CHECKPOINTS
            checkpoint = ub.keras.Checkpoint(feed, saved_in, every=every, accept_changes=accept_changes)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ub.RunFinished)
                    model.fit(feed, epochs=epochs, callbacks=[tested, watch, checkpoint], verbose=0)
                by = checkpoint.stopped_by
                if by is None and watch.has_begun and feed.epoch_number < (plan.epochs or epochs):
                    by = "source"
            except SourceEnded:
                by = "source"
            except ub.StreamError as error:
                # Fewer readings than a window: the command says it in its own words.
                if "ended without a row" not in str(error):
                    raise
                by = "source"
        step = watch.trained.step or done
        return End(step, watch.intake.readings, by, step - done), feed.epoch_number
    finally:
        watch.close()


def steps_done(directory: Path) -> int:
    """The number of steps of the run's newest checkpoint.

    Args:
        directory: the run's.

    Returns:
        The number; 0 where there is none.
    """
    return max(ub.saved_steps(directory / CHECKPOINTS), default=0)


def has_checkpoint(directory: Path) -> bool:
    """True if there is a run to resume.

    Args:
        directory: the run's.
    """
    return bool(ub.saved_steps(directory / CHECKPOINTS))

"""Training of the detector: the stream, the model and the callbacks, and one call of `fit`.

The frameworks are imported when training begins, so that the command can show its first reading before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import unbounded as ub
from unbounded.detect._columns import VITALS
from unbounded.detect._readings import Readings, SourceEnded

if TYPE_CHECKING:
    from unbounded.detect._watch import Watch

ENDLESS = 2**31 - 1
CHECKPOINTS = "checkpoints"
SETTLING = 50  # readings after a start, during which the starting process disturbs its own computer's vitals


@dataclass(frozen=True)
class Plan:
    """The parameters of training; a run keeps those that it began with.

    Args:
        steps: the step, counted over all starts, after which training ends; ``None`` for never.
        epoch: steps in an epoch.
        length: readings in a window.
        capacity: windows in the replay buffer.
        reuse: the mean number of times that each window is trained on.
        batch: windows in a batch.
        every: steps between two checkpoints; None leaves it to `save_after`.
        save_after: seconds between two checkpoints.
        warm_up: readings before the first alarm.
        false_alarms: the accepted fraction of readings with a false alarm.
        learning_rate: Adam's.
    """

    steps: int | None = None
    epoch: int = 50
    length: int = 32
    capacity: int = 1_000
    reuse: float = 16.0
    batch: int = 32
    every: int | None = None
    save_after: float = 5.0
    warm_up: int = 300
    false_alarms: float = 1e-4
    learning_rate: float = 1e-2

    @property
    def readings_before_a_step(self) -> int:
        """The least number of readings before the first batch is full."""
        return self.length + math.ceil(self.batch / self.reuse) - 1


def stream_of(readings: Readings, plan: Plan, watch: Watch) -> Any:
    """The stream from the readings to the batches.

    Args:
        readings: the readings.
        plan: the sizes.
        watch: reads and counts along the way.

    Returns:
        A stream of batches of windows, [batch, length, columns].
    """
    return (
        readings.stream.map(watch.intake.read)
        .filter(watch.intake.usable)
        .normalize("x")
        .windows(plan.length)
        .replay(plan.capacity, reuse=plan.reuse)
        .batch(plan.batch)
        .map(watch.hand_out)
    )


@dataclass(frozen=True)
class End:
    """How a training ended.

    Args:
        step: the last step, counted over all starts.
        readings: the number of readings, over all starts.
        by: the signal that ended it, "SIGINT" or "SIGTERM"; "source" if the readings ended; None after the last step.
    """

    step: int
    readings: int
    by: str | None = None


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
    done = steps_done(directory)
    if plan.steps is not None and done >= plan.steps:
        tell({"event": "done", "step": done})
        return End(done, 0)
    tell({"event": "loading"})
    import keras

    from unbounded.detect._predictor import Predictor
    from unbounded.detect._score import Scorer
    from unbounded.detect._watch import Watch

    keras.utils.set_random_seed(0)
    scorer = Scorer(readings.columns, warm_up=plan.warm_up, false_alarms=plan.false_alarms)
    directory.mkdir(parents=True, exist_ok=True)
    watch = Watch(
        readings.name,
        readings.columns,
        scorer,
        directory,
        tell=tell,
        axis=readings.axis,
        stop_at=plan.steps,
        settling=SETTLING if readings.columns == VITALS else 0,
    )
    model = Predictor(plan.length, len(readings.columns))
    model.compile(keras.optimizers.Adam(plan.learning_rate, global_clipnorm=1.0))
    model.optimizer.build(model.trainable_variables)
    by: str | None = None
    try:
        with ub.keras.Feed(stream_of(readings, plan, watch), epoch=ub.Epoch(steps=plan.epoch)) as feed:
            watch.attach(feed)
            # Whole batches are counted when they are handed out; windows that are tested are not.
            tested = ub.keras.Prequential(
                feed, on_predictions=watch.score, prepare=lambda windows: windows["x"], table=False
            )
            every = plan.every or ub.Epoch(seconds=plan.save_after)
            saved_in = directory / CHECKPOINTS
            checkpoint = ub.keras.Checkpoint(feed, saved_in, every=every, accept_changes=accept_changes)
            # As many epochs as possible: a run that has ended can be resumed with more steps.
            epochs = ENDLESS if plan.steps is None else plan.steps
            try:
                model.fit(feed, epochs=epochs, callbacks=[tested, watch, checkpoint], verbose=0)
                by = checkpoint.stopped_by
            except SourceEnded:
                by = "source"
        end = End(watch.trained.step or done, watch.intake.readings, by)
        tell({"event": "end", "step": end.step, "readings": end.readings, "iterations": watch.trained.step, "by": by})
        return end
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

"""The feed as a public `PyDataset`, for a Keras that keeps its `DataAdapter` where this package can't find it.

A `PyDataset` is asked for batch number i, ahead of time, and by nobody in particular. What can be kept is kept: the
order, the checkpoint of what was trained, a restart at the first batch that was not. What is lost is said once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import keras

from unbounded._clock import SYSTEM, Clock
from unbounded._epoch import Epoch
from unbounded._feed import Feed as CoreFeed
from unbounded._feed import OnNan
from unbounded._node import StreamError
from unbounded._rows import Tree
from unbounded._stream import Stream
from unbounded.keras import _asked
from unbounded.keras._face import Face
from unbounded.keras._fitting import Fitting
from unbounded.keras._rounds import Rounds
from unbounded.stages._base import Guarantee

_LOST = (
    "Lost are: epochs by rows, passes or seconds (give fit the steps_per_epoch), a restart in the middle of an epoch "
    '(a resumed epoch has all its steps), each_round="same", interrupting a wait for data, and, without Checkpoint, '
    "the few batches that Keras looks at ahead of time."
)


class Degraded(UserWarning):
    """The feed serves as a PyDataset, and can do less."""


class PyDatasetFeed(Face, keras.utils.PyDataset):  # type: ignore[misc]
    """Takes the place of `unbounded.keras.Feed`, and can do less: a warning says what."""

    def __init__(
        self,
        stream: Stream,
        epoch: Epoch | None = None,
        *,
        each_round: Literal["same", "next"] = "next",
        require: Guarantee | None = None,
        on_nan: OnNan = "raise",
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        if each_round != "next":
            raise ValueError('Without Keras\'s DataAdapter a feed knows no rounds: use each_round="next".')
        if epoch is not None and (epoch.steps is None or epoch != Epoch(steps=epoch.steps)):
            raise ValueError(
                f"Without Keras's DataAdapter an epoch is a number of steps, and {epoch!r} is not. Use "
                "Epoch(steps=…), and the same number as fit's steps_per_epoch=."
            )
        warnings.warn(
            f"Keras {keras.__version__} keeps its DataAdapter where unbounded doesn't find it, so this feed is a "
            f"PyDataset. {_LOST}",
            Degraded,
            stacklevel=2,
        )
        self.core = CoreFeed(stream, require=require, confirm="manual", on_nan=on_nan, clock=clock)
        self.fitting: _PlainFitting = _PlainFitting(self.core)
        self._lock = threading.Lock()
        self._batches: Iterator[Tree] | None = None
        self._iterating = False

    def on_epoch_begin(self) -> None:
        """From now on a batch that is asked for is more than a look."""
        self._iterating = True

    @property
    def num_batches(self) -> None:
        """It never ends, as far as Keras is told."""
        return None

    def __getitem__(self, index: int) -> Any:
        """The next batch; `index` says only that Keras wants one."""
        with self._lock:
            if self._batches is None or self.fitting.rewound:
                self._batches, self.fitting.rewound = self.core.batches(), False
            for batch in self._batches:
                if self._iterating and self.fitting.counting is None and self.core.outstanding > 1:
                    self.core.trained(1)
                return batch
        raise StreamError("The stream has come to its declared end. Give fit fewer steps, or declare more passes.")

    @property
    def rounds(self) -> Rounds:
        """There are none."""
        raise StreamError("Without Keras's DataAdapter the position of a validation feed can't be saved.")

    def interrupt(self) -> None:
        """A wait for data can't be interrupted here: Keras would take the end of data for an error."""


class _PlainFitting(Fitting):
    """Without a word from Keras: an epoch is over when the callbacks hear of it."""

    def __init__(self, core: CoreFeed) -> None:
        super().__init__(core)
        self.rewound = False

    def moved(self) -> None:
        """What Keras has taken ahead of training comes again."""
        self.core.rewind()
        self.rewound = True

    def close_epoch(self) -> None:
        """Count an epoch; batches that were taken ahead stay on their way to the model."""
        core = self.core
        self.last_epoch = core.epoch_stats
        out = core.outstanding
        core.end_epoch()
        core.hand_on(out)

    def stop_at_the_end(self, who: _asked.Caller | None) -> bool:
        """It can't be known in time."""
        return False

"""What every feed for Keras says and does for its user by way of the core feed, whatever Keras takes it for."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unbounded._describe import Position
from unbounded._feed import Feed as CoreFeed
from unbounded._stats import Stats
from unbounded._stream import Stream

if TYPE_CHECKING:
    from unbounded.keras._fitting import Fitting


class Face:
    """A feed for Keras, as its user sees it. `core` is the feed underneath, `fitting` the training side of it."""

    core: CoreFeed
    fitting: Fitting

    @property
    def stream(self) -> Stream:
        """What it feeds."""
        return self.core.stream

    @property
    def epoch_number(self) -> int:
        """The number of the epoch at hand, from 0, counted from the run's beginning."""
        return self.core.epoch_number

    @property
    def steps(self) -> int:
        """How many batches were trained on, from the run's beginning."""
        return self.core.steps

    @property
    def position(self) -> Position:
        """Where training stands: it reads in words, and has `steps`, `rows` and `passes`."""
        return self.core.position

    @property
    def stats(self) -> Stats:
        """What happened from the run's beginning."""
        return self.core.stats

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, as plain data; for whoever keeps the model's state by other means."""
        return self.core.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, accept_changes: bool = False) -> None:
        """Go to where `state_dict` was taken."""
        self.core.load_state_dict(state, accept_changes=accept_changes)
        self.fitting.moved()

    def close(self) -> None:
        """End its threads and let go of the source. A second time does nothing."""
        self.core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

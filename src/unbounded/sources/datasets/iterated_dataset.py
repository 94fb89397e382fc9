"""IteratedDataset: a data set that is iterated over: by its state where it has one, else with the row log behind it.

The rules are those of `Generator`, of which it is a kind: its function begins a new iteration. A data set ends, and
begins again with the next pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from unbounded.core.cursor import from_plain, to_plain
from unbounded.core.node import CannotTell, StreamError
from unbounded.core.runtime import Runtime
from unbounded.core.trees import Tree
from unbounded.sources.datasets.tensors import to_numpy
from unbounded.sources.generator import Generator, Grade
from unbounded.sources.iteration import Form, Made
from unbounded.sources.reader import JSON
from unbounded.sources.untrusted_states import refuse_untrusted


@dataclass(frozen=True)
class IteratedDataset(Generator):
    """See `unbounded.from_dataset`; for data sets that are iterated over.

    Args:
        fn: takes the number of a pass, and returns what is iterated over in it: an object of this module.
        passes: the number of passes before a declared end; None for no end.
        single: True if an item is one row, False if it is a batch.
        ragged: the columns that have rows of several lengths.
        kind: the name of the data set's class.
        state: True if what is iterated over has a state.
    """

    kind: str = ""
    state: bool = False
    has_passes = True
    starts_over = True

    def __post_init__(self) -> None:
        """What is checked of a user's function was checked of the data set."""

    @property
    def word(self) -> str:
        return "from_dataset"

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"from_dataset({self.kind})"

    @property
    def grade(self) -> Grade:
        return "state" if self.state else "live"

    @property
    def any_thread(self) -> bool:
        """False: it may read from a disk, so that it is read in a thread of its own."""
        return False

    @property
    def takes_past(self) -> bool:
        return False

    @property
    def returned(self) -> str:
        return "from_dataset() was given"

    def refuse_untrusted(self, made: Made) -> None:
        if isinstance(made.value, IteratedByState):
            refuse_untrusted(made.value.dataset, self.returned)

    def form(self, runtime: Runtime) -> Form:
        return Form(self.word, self.title, self.single, runtime, self.ragged)

    def identity(self) -> JSON:
        """Its class, and how it is read: its rows are not known beforehand."""
        return {"kind": self.kind, "batched": not self.single, "state": self.state, "passes": self.passes}

    def arguments(self) -> dict[str, Any]:
        return {"": self.kind, **({} if self.passes is None else {"passes": self.passes})}

    def position_at(self, row: int) -> JSON:
        raise CannotTell(f"{self.title} can't go to a row without running up to it: a {self.kind} has no random access")

    def row_after(self, row: int, after: int) -> int:
        raise CannotTell(f"{self.title} does not know its rows beforehand")

    def check_end(self, rows: int, in_pass: int) -> None:
        """Raise StreamError for a pass without a row: the next ones would have none, too."""
        if not in_pass:
            raise StreamError(
                f"{self.title} ended without a row. Expected at least one in each pass: look at what its filters "
                "leave. A data set over an iterator that was read can't be read again."
            )


class Iterated:
    """A data set in one pass, whose items are converted to NumPy.

    Args:
        dataset: what is iterated over.
        what: its name in errors.
        begin: returns its iterator.
    """

    resumes = False
    """True if it has a state."""

    def __init__(self, dataset: Any, what: str, begin: Callable[[], Iterator[Any]] | None = None) -> None:
        self.dataset = dataset
        self._what = what
        self._begin = begin or (lambda: iter(dataset))

    def __iter__(self) -> Iterator[Tree]:
        # Begun at once: what the iterator consists of tells whether its state can be trusted.
        try:
            values = self._begin()
        except OSError as error:
            if self._may_pass(error):
                raise
            raise self._lasting(error) from error
        return self._converted(values)

    def _converted(self, values: Iterator[Any]) -> Iterator[Tree]:
        what = f"An item of {self._what}"  # without its number, which is not known after a resume
        try:
            for value in values:
                yield to_numpy(value, what)
        except OSError as error:
            if self._may_pass(error):
                raise
            raise self._lasting(error) from error
        finally:
            close = getattr(values, "close", None)
            if close is not None and values is not self.dataset:
                close()

    def _may_pass(self, error: OSError) -> bool:
        """True if the rows after an OSError, which counts as transient, can be read again. A missing file would be
        tried again for ever, and without a state the rows of the pass would come again from its beginning."""
        return self.resumes and isinstance(error, ConnectionError | TimeoutError)

    def _lasting(self, error: OSError) -> StreamError:
        return StreamError(f"{self._what} raised {type(error).__name__}: {error}")


class IteratedByState(Iterated):
    """The same of a data set with `state_dict` and `load_state_dict`."""

    resumes = True
    _state: Any = None

    def __init__(self, dataset: Any, what: str) -> None:
        super().__init__(dataset, what, self._restored)

    def _restored(self) -> Iterator[Any]:
        # A data loader or a data set takes the state for the iterator that it makes next. An iterator takes it for
        # itself, after `iter`, which may reset it.
        is_iterator = isinstance(self.dataset, Iterator)
        if self._state is not None and not is_iterator:
            self.dataset.load_state_dict(from_plain(self._state))
        values: Iterator[Any] = iter(self.dataset)
        if self._state is not None and is_iterator:
            self.dataset.load_state_dict(from_plain(self._state))
        return values

    def state_dict(self) -> Any:
        state = self.dataset.state_dict()
        try:
            return to_plain(state)  # torchdata's has tensors, and a position is JSON
        except TypeError:
            return state  # it is refused where it is used

    def load_state_dict(self, state: Any) -> None:
        self._state = state


class IteratedByGrain(Iterated):
    """The same of a data set whose iterators have `get_state` and `set_state`, as those of Grain.

    Args:
        dataset: the data set, or such an iterator.
        what: its name in errors.
        begin: for an iterator, the state to begin with.
        readers: for an iterator, a list of its readers, of which the last one owns it.
    """

    resumes = True

    def __init__(self, dataset: Any, what: str, begin: Any, readers: list[Any]) -> None:
        super().__init__(dataset, what, self._restored)
        self._state = begin
        self._readers = readers
        self._iterator: Any = None

    def _restored(self) -> Iterator[Any]:
        self._readers[:] = [self]
        self._iterator = iter(self.dataset)
        if self._state is not None:
            self._iterator.set_state(self._state.encode() if isinstance(self._state, str) else self._state)
        return self._owned(self._iterator)

    def _owned(self, values: Iterator[Any]) -> Iterator[Any]:
        is_given = values is self.dataset
        try:
            for value in values:
                if is_given:
                    self._check_owner()  # it may have been moved while it was asked
                yield value
                if is_given:
                    self._check_owner()
        finally:
            if not is_given and hasattr(values, "close"):
                values.close()

    def _check_owner(self) -> None:
        if self._readers != [self]:
            raise StreamError(
                "from_dataset() was given an iterator, and another feed, or a look at the stream, has moved it: it has "
                "one state for all who read it. Give the data set that it was made of."
            )

    def state_dict(self) -> Any:
        state = self._iterator.get_state()
        return state.decode() if isinstance(state, bytes) else state

    def load_state_dict(self, state: Any) -> None:
        self._state = state

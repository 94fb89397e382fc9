"""Checks of a feed: epochs that its stream can't count, and non-finite values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from unbounded.core import finite_rows, trees
from unbounded.core.node import StreamError, empty_stream
from unbounded.feed import describe
from unbounded.feed.epoch import Epoch
from unbounded.feed.in_flight import InFlight
from unbounded.stream import Stream


def bad_rows(flight: InFlight) -> dict[int, int]:
    """By step, the number of rows with a NaN or an infinity, for batches that have some."""
    run = flight.run
    if not any(finite_rows.first_non_finite(part) for part in run.parts):
        return {}
    counts = enumerate(map(finite_rows.non_finite_rows, run.items), flight.before.steps)
    return {step: rows for step, rows in counts if rows}


def passes_of(stream: Stream, epoch: Epoch) -> None:
    """Raise ValueError if an epoch counts passes that the stream, or one of its sources, does not have."""
    passes = epoch.passes
    if isinstance(passes, Mapping):
        _passes_of_inputs(stream, epoch, passes)
    elif passes is not None and stream.rows_per_pass is None:
        if stream.branches:
            name = next(iter(stream.leaves))
            raise ValueError(
                f"{epoch!r} counts passes of the stream, and a mix has none of its own. Count those of its "
                f"sources: passes={{{name!r}: {passes}}}."
            )
        if not stream.has_passes:
            raise ValueError(f"{epoch!r} counts passes, and {stream!r} has none. Use steps=, rows= or seconds=.")
        if passes != int(passes):
            raise ValueError(f"{epoch!r}: how many rows a pass has is not known beforehand here. Use whole passes.")


def _passes_of_inputs(stream: Stream, epoch: Epoch, asked: Mapping[str, float]) -> None:
    known = stream.input_passes()
    if not known:
        raise ValueError(f"{epoch!r} names sources, and {stream!r} is no mix. Use passes=1, without a name.")
    for name, passes in asked.items():
        if name not in known:
            raise ValueError(f"{epoch!r} names {name!r}. Expected a source of the mix: {', '.join(map(repr, known))}.")
        if not stream.leaves[name].has_passes:
            raise ValueError(f"{epoch!r} counts passes of {name!r}, which has none. Use steps=, rows= or seconds=.")
        if known[name] is None and passes != int(passes):
            raise ValueError(f"{epoch!r}: how many rows a pass of {name!r} has is not known here. Use whole passes.")


def skipping(stream: Stream) -> Stream:
    """The same stream without rows that have a NaN or an infinity; a warning names the first of them."""
    before = stream.before_batch()
    return stream.finite(lambda ordinal: describe.row_address(before, ordinal))


def empty(stream: Stream) -> StreamError:
    """The error for a stream that reached its declared end without a batch."""
    return empty_stream(repr(stream))


def non_finite(stream: Stream, flight: InFlight, step: int, *, skipping: bool = False) -> NoReturn:
    """Raise ValueError for batch number `step`, which has a non-finite value.

    `skipping`: rows that were not finite before `batch` were left out.
    """
    index = step - flight.before.steps
    bad = finite_rows.first_non_finite(flight.run.items[index])
    assert bad is not None
    path, row = bad
    number = flight.before.rows + index * flight.run.size + row
    where = describe.address(stream, step, row)
    what_to_do = (
        "It was finite before .batch(), where on_nan='skip' leaves rows out: a function after .batch() has made it. "
        "Put the function before .batch(), or correct its result."
        if skipping
        else "Feed(on_nan='skip') leaves such rows out, and continues from here; or fill them in with .fill(), leave "
        "them out with .drop_missing(), change them with .map(), or allow them: Feed(on_nan='pass')."
    )
    raise ValueError(
        f"{trees.name(path)} has a NaN or an infinity in row {row} of batch {step:,} (row {number:,} of the "
        f"run{where}). Nothing was trained on it. {what_to_do}"
    )

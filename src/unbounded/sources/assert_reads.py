"""`assert_reads`: asserts that a source implements the protocol of `Source` and `Reader`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from unbounded.core import trees
from unbounded.core.block import Block
from unbounded.core.node import EndOfStream
from unbounded.core.runtime import SYSTEM, Runtime
from unbounded.sources.as_block import AsBlock
from unbounded.sources.reader import JSON, Opening, Reader, Rows, Source, check_source, open_reader

_PATIENCE = 10.0  # seconds within which a read(0.05), or a read that was woken, must return


class _Forced(Runtime):
    """A runtime that has a state taken at every position: states taken rarely could hide that they are incomplete."""

    every_state = True


class _Seen(NamedTuple):
    position: JSON  # before the block
    block: Block
    partition: Any


def assert_reads(source: Source, blocks: int = 20) -> None:
    """Assert that a source implements the protocol of `Source` and `Reader`.

    It is opened several times, and `blocks` blocks are read. From each position, converted to JSON and back, a new
    reader must give the rows that followed. A source that is not `replayable` is opened once and not sought.

    Args:
        source: the source to test, with rows available; fewer than `blocks` blocks are enough.
        blocks: how many blocks to read.

    Raises:
        AssertionError: the message names the method, and what was expected of it.

    >>> import numpy as np, unbounded as ub
    >>> ub.testing.assert_reads(ub.from_arrays(np.arange(50)).sources[0].source, blocks=5)
    """
    try:
        check_source(source)
    except TypeError as error:
        raise AssertionError(str(error)) from error
    with _opened(source) as reader:
        _json(reader.position(), "position() before the first read")
        if source.replayable:
            same = reader.position()
            assert same == reader.position(), "position() changed without a read"
        seen = _read(source, reader, blocks)
        assert seen, f"{type(source).__name__} gave no block. Test it where it has rows to read."
        end = reader.position()
        _late_boundaries(seen, end)
        _acknowledge(reader, seen, end, source)
    if source.replayable:
        _seeks(source, seen, end)
        if getattr(source, "partitions", False):
            _one_by_one(source, seen)
    _wakes(source, seen)


@contextmanager
def _opened(source: Source) -> Iterator[Reader]:
    reader = open_reader(source, Opening(runtime=_Forced()))
    try:
        yield reader
    finally:
        reader.close()


def _json(position: Any, what: str) -> JSON:
    try:
        back = json.loads(json.dumps(position, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} gave {position!r}, which JSON can't hold: {error}.") from error
    assert back == position, f"{what} gave {position!r}, and JSON gives {back!r} back. Use lists and string keys."
    return back


def _read(
    source: Source, reader: Reader, blocks: int, read: Callable[[], Any] | None = None, *, most: float = 2.0
) -> list[_Seen]:
    """Up to `blocks` blocks; fewer if the source has none for `most` seconds."""
    as_block = AsBlock(type(source).__name__, SYSTEM)
    read = read or (lambda: reader.read(0.05))
    seen: list[_Seen] = []
    begun = SYSTEM.monotonic()
    while len(seen) < blocks:
        position = _json(reader.position(), "position()")
        asked = SYSTEM.monotonic()
        try:
            given = read()
        except EndOfStream:
            break
        took = SYSTEM.monotonic() - asked
        if given is None:
            assert took < _PATIENCE, f"read(0.05) took {took:.1f} s to return None."
            assert reader.position() == position, "read() returned None, and position() has changed."
            if SYSTEM.monotonic() - begun > most:
                break
            SYSTEM.event().wait(0.01)
            continue
        begun = SYSTEM.monotonic()
        block = as_block(given)
        partition = given.partition if isinstance(given, Rows) else None
        if source.replayable and block.count:
            assert reader.position() != position, f"read() returned {block.count} rows, and position() is unchanged."
        seen.append(_Seen(position, _copied(block), partition))
    return seen


def _copied(block: Block) -> Block:
    return block.with_rows(trees.map_leaves(np.copy, block.rows)) if block.count else block


def _late_boundaries(seen: list[_Seen], end: JSON) -> None:
    """Assert that a boundary without rows changes the position."""
    for i, (position, block, _) in enumerate(seen):
        after = seen[i + 1].position if i + 1 < len(seen) else end
        if block.boundary is not None and not block.count and position is not None:
            assert after != position, f"A boundary came at position {position!r} and did not change it."


def _acknowledge(reader: Reader, seen: list[_Seen], end: JSON, source: Source) -> None:
    logged, commit = getattr(reader, "logged", None), getattr(reader, "commit", None)
    if logged is not None:
        logged(end)
    if commit is not None and source.replayable:
        commit(end, seen[0].position)
    assert reader.position() == end, "logged() or commit() has changed position()."


def _seeks(source: Source, seen: list[_Seen], end: JSON) -> None:
    """Assert that the same rows follow after a seek to each position, and to the first by the reader that has read."""
    with _opened(source) as reader:
        for i in [*range(len(seen)), 0]:
            reader.seek(_json(seen[i].position, "position()"))
            assert reader.position() == seen[i].position, f"seek({seen[i].position!r}) led to {reader.position()!r}."
            _same(_read(source, reader, 3), seen[i:], f"seek({seen[i].position!r})")
    for i in range(0, len(seen), max(1, len(seen) // 5)):
        with _opened(source) as fresh:
            fresh.seek(_json(seen[i].position, "position()"))
            _same(_read(source, fresh, 3), seen[i:], f"a new reader's seek({seen[i].position!r})")


def _same(got: list[_Seen], expected: list[_Seen], what: str) -> None:
    """Assert that the rows are equal, however they are cut into blocks; for partitions, the rows of each."""
    for partition in {each.partition for each in [*got, *expected]}:
        ours = _rows(got, partition)
        theirs = _rows(expected, partition)
        many = min(len(ours), len(theirs))
        assert many or not theirs or partition is not None, f"After {what} no rows came; before, there were some."
        assert ours[:many] == theirs[:many], f"After {what} other rows came than before."


def _rows(seen: list[_Seen], partition: Any) -> list[bytes]:
    rows: list[bytes] = []
    for _, block, whose in seen:
        if whose == partition and block.count:
            leaves = [leaf for _, leaf in trees.leaves(block.rows)]
            rows += [b"".join(np.ascontiguousarray(leaf[i]).tobytes() for leaf in leaves) for i in range(block.count)]
    return rows


def _one_by_one(source: Source, seen: list[_Seen]) -> None:
    """Assert that each partition can be read alone, from the beginning."""
    for partition in {each.partition for each in seen}:
        assert partition is not None, "A source with partitions gave rows without Rows(partition=…)."
        with _opened(source) as reader:
            reader.seek(seen[0].position)
            read = lambda reader=reader, partition=partition: reader.read(0.05, only=partition)  # noqa: E731
            alone = _read(source, reader, len(seen), read)
        others = {each.partition for each in alone} - {partition}
        assert not others, f"read(only={partition!r}) gave rows of {others}."
        _same(alone, [each for each in seen if each.partition == partition], f"read(only={partition!r})")


def _wakes(source: Source, seen: list[_Seen]) -> None:
    """Assert that `wake`, from another thread, ends a read that waits, and that the reader can be closed then."""
    reader = open_reader(source, Opening(runtime=_Forced()))
    wake = getattr(reader, "wake", None)
    if wake is not None:
        done = SYSTEM.event()

        def read_all() -> None:
            try:
                # Up to a read that waits; the bound is for sources that always have rows.
                for _ in range(100 * len(seen)):
                    if reader.read(60.0) is None:
                        break
            except EndOfStream:
                pass
            finally:
                done.set()

        SYSTEM.thread(read_all, "unbounded-assert-reads").start()
        until = SYSTEM.monotonic() + _PATIENCE
        while not done.wait(0.05):
            wake()
            assert SYSTEM.monotonic() < until, "wake() did not end a read(60) that was waiting."
    reader.close()

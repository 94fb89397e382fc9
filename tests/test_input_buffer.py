"""InputBuffer: the rows held, and where to read them again, for any cut into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbounded.core.block import Block, Boundary, Offset
from unbounded.core.input_buffer import LIMIT, InputBuffer

Item = int | str


class Upstream:
    """Some rows and breaks, cut at random; its cursor is where it stands among them."""

    def __init__(self, items: list[Item], rng: np.random.Generator) -> None:
        self.items, self.rng, self.at, self.oldest = items, rng, 0, 0

    def pull(self, timeout: float | None) -> Any:
        if self.rng.random() < 0.1:
            return None
        rows: list[int] = []
        while self.at < len(self.items) and len(rows) < self.rng.integers(1, 6):
            item = self.items[self.at]
            self.at += 1
            if isinstance(item, str):
                return Block(np.array(rows) if rows else None, len(rows), Boundary(item))
            rows.append(item)
            # A break may be noticed late: then it comes alone.
            if self.at < len(self.items) and isinstance(self.items[self.at], str) and self.rng.random() < 0.5:
                break
        return Block(np.array(rows), len(rows)) if rows else None

    def cursor(self) -> Any:
        return {"at": self.at}

    def restore(self, cursor: Any) -> None:
        assert cursor["at"] >= self.oldest, "it was released"
        self.at = cursor["at"]

    def release(self, cursor: Any) -> None:
        self.oldest = cursor["at"]


def content(block: Block) -> list[Item]:
    return (block.rows.tolist() if block.count else []) + ([block.boundary.kind] if block.boundary else [])


def drain(held: Any, upstream: Upstream) -> list[Item]:
    out: list[Item] = []
    while upstream.at < len(upstream.items):
        block = held.read(0)
        out += content(block) if block is not None else []
    return out


@given(st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=12), st.integers(0, 10**6))
@settings(max_examples=60)
def test_reading_again_from_any_address_gives_what_followed_whatever_the_cut(
    shape: list[int | None], seed: int
) -> None:
    items: list[Item] = []
    for n in shape:
        items += ["gap"] if n is None else range(len(items), len(items) + n)
    rng = np.random.default_rng(seed)
    upstream = Upstream(items, rng)
    held: InputBuffer[Block] = InputBuffer(upstream)  # type: ignore[arg-type]
    seen: list[Item] = []
    points = [(Offset(0), 0)]
    while upstream.at < len(items):
        block = held.read(0)
        if block is not None:
            seen += content(block)
            points.append((held.tail, len(seen)))
            if block.count > 1:
                points.append((Offset(held.tail.rows - 1), len(seen) - 1 - (block.boundary is not None)))
    for at, place in points:
        address = held.address(at)
        other = Upstream(items, np.random.default_rng(seed + 1))
        again: InputBuffer[Block] = InputBuffer(other)  # type: ignore[arg-type]
        again.restore(address)
        # A position taken right after the restore, before anything was read, is as good.
        assert again.address(Offset(0)) == address
        assert drain(again, other) == items[place:]


def test_the_number_of_cursors_is_bounded_and_reading_again_costs_little_more_than_what_is_held() -> None:
    upstream = Upstream(list(range(100_000)), np.random.default_rng(0))
    held: InputBuffer[Block] = InputBuffer(upstream)  # type: ignore[arg-type]
    worst = 0
    while upstream.at < 90_000:
        if not held.pull(0):
            continue
        if held.count > 10_000:
            held.drop(100)
            held.keep(held.head)
        address = held.address(held.head)
        worst = max(worst, address.rows)
        assert len(held._cursors) <= LIMIT + 1
    assert worst < 1500


def test_peek_stops_at_the_first_break_and_brings_it_along() -> None:
    upstream = Upstream([0, 1, 2, "gap", 3, 4, "pass", 5], np.random.default_rng(3))
    held: InputBuffer[Block] = InputBuffer(upstream)  # type: ignore[arg-type]
    while upstream.at < 8:
        held.pull(0)
    assert (held.run, held.closed) == (3, True)
    assert content(held.peek(2)) == [0, 1]
    assert content(held.pop(3)) == [0, 1, 2, "gap"]
    assert (held.run, held.closed) == (2, True)
    assert content(held.pop(1)) == [3]
    assert content(held.pop(1)) == [4, "pass"]
    assert (held.run, held.closed, held.count) == (1, False, 1)


def test_what_is_no_longer_kept_is_released() -> None:
    upstream = Upstream(list(range(1000)), np.random.default_rng(1))
    held: InputBuffer[Block] = InputBuffer(upstream)  # type: ignore[arg-type]
    while upstream.at < 900:
        held.pull(0)
        while held.count > 20:
            held.drop(5)
        held.keep(held.head)
        upstream.release(held.address(held.head).cursor)
    assert 700 < upstream.oldest <= held.head.rows
    with pytest.raises(AssertionError, match="released"):
        upstream.restore({"at": 0})

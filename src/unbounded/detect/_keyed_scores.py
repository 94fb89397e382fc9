"""KeyedScorers: a scorer for each key, such as each machine of a plant. Keys that are silent for long are forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unbounded.detect._score import Alarm, Scorer

EXPIRE = 100_000  # scored readings of all keys, as in the stream's stages


class KeyedScorers:
    """Scores the readings of several keys, each by a scorer of its own.

    Args:
        make: makes a scorer.
        expire: the scored readings of all keys after which a silent key is forgotten; it begins anew if it comes again.
    """

    def __init__(self, make: Callable[[], Scorer], *, expire: int = EXPIRE) -> None:
        self._make, self._expire = make, expire
        self.threshold = make().threshold
        """The score above which there is an alarm."""
        self.rows = 0
        """The number of readings scored, of all keys."""
        self.last = -1
        """The number of the newest reading scored."""
        # By key, in the order of their last readings, with the ordinal after these.
        self._scorers: dict[str, tuple[Scorer, int]] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are known, the one that was silent for longest first."""
        return tuple(self._scorers)

    def score(
        self,
        key: np.ndarray | None,
        row: np.ndarray,
        time: np.ndarray,
        values: np.ndarray,
        normal: np.ndarray,
        expected: np.ndarray,
    ) -> tuple[np.ndarray, list[tuple[str, int, Alarm]]]:
        """Score the next readings.

        Args:
            key: of each reading, text, [rows]; None if there is one key only.
            row: see `Scorer.score`, also of the rest.
            time: [rows].
            values: [rows, columns].
            normal: [rows, columns].
            expected: [rows, columns].

        Returns:
            The score of each reading, [rows], and the alarms with the keys and numbers of their readings, in their
            order.
        """
        score = np.full(len(row), np.nan)
        alarms: list[tuple[int, str, Alarm]] = []
        begun = self.rows
        for name, part in _parts(key, len(row)):
            scorer = self._scorers.pop(name)[0] if name in self._scorers else self._make()
            before = scorer.rows
            scored = scorer.score(row[part], time[part], values[part], normal[part], expected[part])
            score[part] = scored.score
            # The row of an alarm counts the scorer's readings.
            alarms += [(int(part[min(max(a.row - before, 0), len(part) - 1)]), name, a) for a in scored.alarms]
            self._scorers[name] = scorer, begun + int(part[-1]) + 1
        self.rows += len(row)
        self.last = int(row[-1]) if len(row) else self.last
        self._forget()
        alarms.sort(key=lambda alarm: alarm[0])
        return score, [(name, int(row[place]), alarm) for place, name, alarm in alarms]

    def pass_over(self, readings: int) -> None:
        """Skip the next readings; see `Scorer.pass_over`."""
        if not self._scorers:
            self._scorers[""] = self._make(), 0
        for scorer, _ in self._scorers.values():
            scorer.pass_over(readings)

    def _forget(self) -> None:
        due = [name for name, (_, last) in self._scorers.items() if self.rows - last > self._expire]
        for name in due:
            del self._scorers[name]

    def state_dict(self) -> dict[str, Any]:
        """The scorers' states. Arrays of one kind are joined: thousands of small ones would take long to write."""
        states = [scorer.state_dict() for scorer, _ in self._scorers.values()]
        return {
            "rows": self.rows,
            "newest": self.last,
            "keys": list(self._scorers),
            "last": np.array([last for _, last in self._scorers.values()], dtype=np.int64),
            "states": _stacked(states) if states else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved states.

        Args:
            state: from `state_dict`.

        Raises:
            ValueError: they are of other columns.
        """
        scorers: dict[str, tuple[Scorer, int]] = {}
        states = _unstacked(state["states"]) if state["keys"] else []
        for name, last, one in zip(state["keys"], np.asarray(state["last"]).tolist(), states, strict=True):
            scorer = self._make()
            scorer.load_state_dict(one)
            scorers[str(name)] = scorer, int(last)
        self.rows, self.last, self._scorers = int(state["rows"]), int(state["newest"]), scorers


def _parts(key: np.ndarray | None, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """The places of each key's readings, in order of the keys' last readings."""
    if key is None:
        if rows:
            yield "", np.arange(rows)
        return
    names, of = np.unique(key, return_inverse=True)
    order = np.argsort(of, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(of, minlength=len(names)))[:-1])
    for number in sorted(range(len(names)), key=lambda number: int(parts[number][-1])):
        yield str(names[number]), parts[number]


def _stacked(states: Sequence[Any]) -> Any:
    """Trees of one form as one tree, whose leaves hold those of all: arrays one after the other, with their shapes."""
    first = states[0]
    if all(isinstance(state, Mapping) and list(state) == list(first) for state in states):
        return {"tree": {name: _stacked([state[name] for state in states]) for name in first}}
    kinds = {(state.dtype, state.ndim) if isinstance(state, np.ndarray) else None for state in states}
    if len(kinds) == 1 and None not in kinds:
        shapes = np.array([state.shape for state in states], dtype=np.int64).reshape(len(states), first.ndim)
        return {"shapes": shapes, "values": np.concatenate([state.ravel() for state in states])}
    return {"each": list(states)}


def _unstacked(stacked: Mapping[str, Any]) -> list[Any]:
    """The trees of `_stacked`."""
    if "tree" in stacked:
        names = list(stacked["tree"])
        return [
            dict(zip(names, leaves, strict=True))
            for leaves in zip(*map(_unstacked, stacked["tree"].values()), strict=True)
        ]
    if "each" in stacked:
        return list(stacked["each"])
    shapes = np.asarray(stacked["shapes"])
    ends = np.cumsum(shapes.prod(axis=1, dtype=np.int64))
    parts = np.split(np.asarray(stacked["values"]), ends[:-1])
    return [part.reshape(tuple(shape)) for part, shape in zip(parts, shapes.tolist(), strict=True)]

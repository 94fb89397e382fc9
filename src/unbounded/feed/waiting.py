"""Waiting: says what a feed waits for, once it has waited for some seconds, and again at growing intervals.

It goes to `logging.getLogger("unbounded")` at level WARNING, which Python prints to stderr where nobody has set up
logging.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from unbounded.core.runtime import Runtime

_log = logging.getLogger("unbounded")
# Stages that take in rows and may give none.
_HOLDING = frozenset({"filter", "on_nan", "shuffle", "windows", "random_map", "replay", "batch"})
_FIRST = 5.0  # seconds without a batch after which it is said


class Waiting:
    """One feed's wait for its next batch.

    Args:
        parts: the word of the source and of each stage, and each as the user wrote it.
        counts: what the running nodes count, as `Node.counts` gives it.
        runtime: the feed's.
    """

    def __init__(
        self, parts: Sequence[tuple[str, str]], counts: Callable[[], Mapping[str, int]], runtime: Runtime
    ) -> None:
        self._parts = parts
        self._counts = counts
        self._runtime = runtime
        self.end()

    def end(self) -> None:
        """A batch has come, or the end."""
        self.sentence: str | None = None
        """What is waited for, in words; None while the wait is short."""
        self._waited = 0.0
        self._asked = 0.0
        self._due = _FIRST
        self._before: Mapping[str, int] | None = None

    def begin(self) -> None:
        """The feed asks for a batch."""
        self._asked = self._runtime.monotonic()

    def look(self) -> None:
        """There is nothing yet."""
        now = self._runtime.monotonic()
        self._waited += now - self._asked
        self._asked = now
        if self._before is None:
            self._before = self._counts()
        if self._waited >= self._due:
            while self._due <= self._waited:
                self._due *= 2
            self.sentence = self._words(self._before, self._counts())
            _log.warning("%s", self.sentence)

    def _words(self, before: Mapping[str, int], now: Mapping[str, int]) -> str:
        source = self._parts[0][1]
        rows = now.get("fetched", 0) - before.get("fetched", 0)
        text = f"Waiting for a batch for {self._waited:,.0f} seconds: "
        if not rows:
            return text + f"{source} has given no row in this time."
        text += f"{source} has given {rows:,} rows in this time, and none of them completed a batch."
        bad = now.get("bad", 0) - before.get("bad", 0)
        if bad:
            text += f" {bad:,} rows have a NaN or an infinity."
        holding = [f".{text}" for word, text in self._parts[1:] if word in _HOLDING]
        if holding:
            text += f" Rows are held back or left out by {', '.join(holding)}."
        return text

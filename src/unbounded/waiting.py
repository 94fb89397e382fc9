"""Waiting: logs what a feed waits for, once, when it has waited for some seconds, and again when a batch has come.

It logs to "unbounded" at level WARNING, which Python prints to stderr if logging is not configured.
"""

from __future__ import annotations

import logging

from unbounded.chain import Chain
from unbounded.core.runtime import Runtime
from unbounded.core.show import words
from unbounded.opened import Opened
from unbounded.stages.stage import Stage

_log = logging.getLogger("unbounded")
# Stages that may return no row for many input rows.
_HOLDING = frozenset({"filter", "drop_missing", "on_nan", "shuffle", "windows", "random_map", "replay", "batch"})
LONG = 10.0
"""Seconds without a batch before it is logged."""


def waiting_sentence(name: str, seconds: float) -> str:
    """The message about a source that returns nothing."""
    return f"Nothing for {seconds:,.0f} seconds from {name}: waiting."


class Waiting:
    """One feed's wait for its next batch.

    Args:
        stream: the feed's stream.
        opened: its running nodes.
        runtime: the feed's.
    """

    def __init__(self, stream: Chain, opened: Opened, runtime: Runtime) -> None:
        self._sources = dict(zip(stream.leaves, (source.name for source in stream.sources), strict=True))
        self._stages = [(part.word, words(part)) for part in stream.all_parts if isinstance(part, Stage)]
        self._opened = opened
        self._runtime = runtime
        self._begin()

    def end(self) -> None:
        """A batch has come, or the end."""
        if self.sentence is not None:
            _log.warning("Batches come again, after %s seconds.", f"{self._waited:,.0f}")
        self._begin()

    def _begin(self) -> None:
        self.sentence: str | None = None
        """What the feed waits for, in words; None while the wait is short."""
        self._waited = 0.0
        self._asked = 0.0
        self._before: tuple[list[int], int] | None = None

    def begin(self) -> None:
        """The feed asks for a batch."""
        self._asked = self._runtime.monotonic()

    def look(self) -> None:
        """Called when there is nothing yet."""
        now = self._runtime.monotonic()
        self._waited += now - self._asked
        self._asked = now
        if self._before is None:
            self._before = self._counts()
        if self._waited >= LONG:
            said = self.sentence is not None
            self.sentence = self._words(self._before, self._counts())
            if not said:
                _log.warning("%s", self.sentence)

    def _counts(self) -> tuple[list[int], int]:
        """The rows that each source has given, and the number of rows with non-finite values."""
        fetched = [source.counts().get("fetched", 0) for source in self._opened.sources]
        return fetched, self._opened.top.counts().get("bad", 0)

    def _words(self, before: tuple[list[int], int], now: tuple[list[int], int]) -> str:
        given = [after - then for then, after in zip(before[0], now[0], strict=True)]
        seconds = f"{self._waited:,.0f} seconds"
        silent = [self._named(name) for name, rows in zip(self._sources, given, strict=True) if not rows]
        if silent:
            # While a mix waits for an input, it does not pull the others.
            waited = self._opened.waited_for()
            silent = [self._named(name) for name in self._sources if name in waited] or silent
            return waiting_sentence(" and ".join(silent), self._waited)
        rows = " and ".join(
            f"{self._named(name)} has given {each:,} rows" for name, each in zip(self._sources, given, strict=True)
        )
        text = f"No batch for {seconds}: {rows} in this time, and none of them completed a batch."
        bad = now[1] - before[1]
        if bad:
            text += f" {bad:,} rows have a NaN or an infinity."
        holding = [f".{text}" for word, text in self._stages if word in _HOLDING]
        if holding:
            text += f" Rows are held back or left out by {', '.join(holding)}."
        return text

    def _named(self, name: str) -> str:
        """A source's constructor, with the source's name if there are several."""
        text = self._sources[name]
        return text if len(self._sources) == 1 else f"{text} ({name!r})"

"""Which open feeds read one function that can't go back: as where training and validation are given one sensor."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from unbounded.core.node import StreamError
from unbounded.core.show import words
from unbounded.sources.source import SourcePart

if TYPE_CHECKING:
    from unbounded.feed.at_hand import AtHand

_log = logging.getLogger("unbounded")
# The open feeds, by their ids. Not a WeakSet: the collector changes one at any line, in any thread. What was dropped
# and never closed is left out by whoever looks, and let go of when the next feed is made.
_OPEN: dict[int, weakref.ref[AtHand]] = {}


def opened(feed: AtHand) -> None:
    """A feed was made."""
    for key in [key for key, ref in list(_OPEN.items()) if ref() is None]:
        _OPEN.pop(key, None)
    _OPEN[id(feed)] = weakref.ref(feed)


def closed(feed: AtHand) -> None:
    """A feed was closed."""
    _OPEN.pop(id(feed), None)


def others(feed: AtHand) -> list[Any]:
    """The other open feeds that call the same function."""
    found = [ref() for ref in list(_OPEN.values())]
    return [other for other in found if other is not None and other is not feed and _shared(feed, other)]


def refuse_round(training: AtHand, word: str) -> None:
    """Raise StreamError where a round is to read a source that can't go back, which a feed is trained on."""
    live = _live(training)
    if live:
        name = live[0].name
        raise StreamError(
            f"{word} was given a feed that is trained on, and {name} can't go back: the round would read rows of it "
            "that training then never sees. Two ways work: give it a feed of rows that are set apart, such as "
            "ub.keras.Feed(ub.from_arrays(…)); or judge each row right before it is trained on, with "
            "ub.keras.Prequential."
        )


def reads(feed: AtHand) -> None:
    """A loop over a feed begins: where it shares a source, that is said, once for each feed."""
    if feed.sharing_said:
        return
    feed.sharing_said = True
    for other in others(feed)[:1]:
        _log.warning(
            "%s is read by two feeds at once, and can't go back: each calls it anew. Where both calls draw from one "
            "queue, each feed gets a part of its rows only, and what one reads is never trained on by the other.",
            words(_shared(feed, other)[0]),
        )


def _shared(feed: AtHand, other: AtHand) -> list[Any]:
    """The sources of a feed that can't go back and that another feed reads, too."""
    theirs = [id(_read(source)) for source in _live(other)]
    return [source for source in _live(feed) if id(_read(source)) in theirs]


def _live(feed: AtHand) -> list[SourcePart]:
    return [source for source in feed.stream.sources if source.guarantee != "exact"]


def _read(part: SourcePart) -> Any:
    # A function is told by itself; any other source by its description.
    return getattr(part.source, "fn", part.source)

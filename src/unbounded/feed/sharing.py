"""Detection of open feeds that read the same function that can't seek, as if training and validation share a sensor."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from unbounded.core.node import StreamError
from unbounded.core.show import words
from unbounded.sources.source import SourcePart

if TYPE_CHECKING:
    from unbounded.feed.delivery import Delivery

_log = logging.getLogger("unbounded")
# The open feeds by id. Not a WeakSet: the garbage collector changes one at any line, in any thread. Feeds that were
# collected without being closed are skipped by readers, and removed when the next feed is made.
_OPEN: dict[int, weakref.ref[Delivery]] = {}


def opened(feed: Delivery) -> None:
    """Register a new feed."""
    for key in [key for key, ref in list(_OPEN.items()) if ref() is None]:
        _OPEN.pop(key, None)
    _OPEN[id(feed)] = weakref.ref(feed)


def closed(feed: Delivery) -> None:
    """Forget a closed feed."""
    _OPEN.pop(id(feed), None)


def others(feed: Delivery) -> list[Any]:
    """The other open feeds that call the same function."""
    found = [ref() for ref in list(_OPEN.values())]
    return [other for other in found if other is not None and other is not feed and _shared(feed, other)]


def refuse_round(training: Delivery, word: str) -> None:
    """Raise StreamError if a round (validation, predict) would read a training feed's source that can't seek."""
    live = _live(training)
    if live:
        name = live[0].name
        raise StreamError(
            f"{word} was given a feed that is trained on, and {name} can't seek: the round would read rows of it "
            "that training then never sees. Two ways work: give it a feed of rows that are set apart, such as "
            "ub.keras.Feed(ub.from_arrays(…)); or judge each row right before it is trained on, with "
            "ub.keras.Prequential."
        )


def reads(feed: Delivery) -> None:
    """Check a feed whose loop begins: a shared source is logged, once for each feed."""
    if feed.sharing_said:
        return
    feed.sharing_said = True
    live = [id(_read(source)) for source in _live(feed)]
    for source in _live(feed):
        if live.count(id(_read(source))) > 1:
            _log.warning(
                "%s is read twice by one feed, and can't go back: it is called anew for each. Where both calls draw "
                "from one queue, each gets a part of its rows only. Expected each source once.",
                words(source),
            )
            break
    for other in others(feed)[:1]:
        _log.warning(
            "%s is read by two feeds at once, and can't seek: each calls it anew. Where both calls draw from one "
            "queue, each feed gets a part of its rows only, and what one reads is never trained on by the other.",
            words(_shared(feed, other)[0]),
        )


def _shared(feed: Delivery, other: Delivery) -> list[Any]:
    """The sources of a feed that can't seek and that another feed reads, too."""
    theirs = [id(_read(source)) for source in _live(other)]
    return [source for source in _live(feed) if id(_read(source)) in theirs]


def _live(feed: Delivery) -> list[SourcePart]:
    return [source for source in feed.stream.sources if source.guarantee != "exact"]


def _read(part: SourcePart) -> Any:
    # A function is recognised by itself, any other source by its description.
    return getattr(part.source, "fn", part.source)

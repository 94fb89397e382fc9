"""Which open feeds read one function that can't go back: as where training and validation are given one sensor."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from unbounded.core.show import words
from unbounded.sources.generator import Generate

if TYPE_CHECKING:
    from unbounded.feed.at_hand import AtHand

_log = logging.getLogger("unbounded")
_OPEN: weakref.WeakSet[AtHand] = weakref.WeakSet()
_READ: weakref.WeakSet[AtHand] = weakref.WeakSet()  # feeds that were checked for a shared source


def opened(feed: AtHand) -> None:
    """A feed was made."""
    _OPEN.add(feed)


def others(feed: AtHand) -> list[Any]:
    """The other open feeds that call the same function."""
    fn = _live_function(feed)
    if fn is None:
        return []
    return [other for other in list(_OPEN) if other is not feed and not other.closed and _live_function(other) is fn]


def reads(feed: AtHand) -> None:
    """A loop over a feed begins: where it shares its source, that is said, once for each feed."""
    if feed in _READ:
        return
    _READ.add(feed)
    if others(feed):
        _log.warning(
            "%s is read by two feeds at once, and can't go back: each calls it anew. Where both calls draw from one "
            "queue, each feed gets a part of its rows only, and what one reads is never trained on by the other.",
            words(feed.stream.parts[0]),
        )


def _live_function(feed: AtHand) -> Any:
    source = feed.stream.parts[0]
    return source.fn if isinstance(source, Generate) and source.guarantee != "exact" else None

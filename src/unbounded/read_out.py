"""The batches of a stream from its beginning, for a look at it, and for code that iterates, such as `adapt` of Keras.

Nothing is trained on here: there is no position and no log. A feed has these.
"""

from __future__ import annotations

from collections.abc import Generator

from unbounded.chain import Chain
from unbounded.core.block import Run
from unbounded.core.node import EndOfStream, empty_stream
from unbounded.core.runtime import SYSTEM
from unbounded.core.trees import Tree
from unbounded.waiting import Waiting


def batches_of(stream: Chain) -> Generator[Tree, None, None]:
    """The batches up to the declared end, if there is one; without `batch`, the source's blocks.

    Raises:
        StreamError: it has no row before its end, or gives none of the rows that it repeats.
    """
    stream.check_gives_rows()
    opened = stream.open()
    waiting = Waiting(stream, opened, SYSTEM)
    waiting.begin()
    given, passes = False, 0
    try:
        while True:
            block = opened.top.pull(0.05)
            if block is not None and block.count:
                waiting.end()
                given, passes = True, 0
                yield from block.items if isinstance(block, Run) else [block.rows]
                waiting.begin()
                continue
            waiting.look()
            passes += 1 if block is not None and block.boundary is not None and block.boundary.kind == "pass" else 0
            if passes > 1 and waiting.sentence:
                stream.refuse_without_batches(passes)
    except EndOfStream:
        if not given:
            raise empty_stream(repr(stream)) from None
    finally:
        opened.top.close()

"""Images: a column of encoded images, or of paths of image files, becomes one of arrays; threads decode them.

Blocks are cut into pieces of a few images: decoded, thousands of rows would need gigabytes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np

from unbounded.core import check, ragged, trees
from unbounded.core.block import Block, Run
from unbounded.core.input_buffer import Address, InputBuffer, compose_held
from unbounded.core.node import CannotTell, Context, Cursor, Node
from unbounded.core.prefetcher import Prefetcher
from unbounded.core.runtime import Runtime
from unbounded.core.trees import RowsError, Tree
from unbounded.stages.image_decoder import Fit, ImageDecoder, decoded_all
from unbounded.stages.stage import Holding, Stage, Through

OnBad: TypeAlias = Literal["raise", "skip"]

_PIECE_ROWS, _PIECE_BYTES = 64, 1 << 23  # of decoded images

_log = logging.getLogger("unbounded")


@dataclass(frozen=True)
class Images(Stage):
    """See `Stream.images`."""

    column: str | int
    size: Any
    channels: int = 3
    workers: int = 2
    fit: Fit = "crop"
    on_bad: OnBad = "raise"
    word: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        if not isinstance(self.column, (str, int)) or isinstance(self.column, bool):
            raise TypeError(f"images(column={self.column!r}): expected a column's name, or its position in a tuple.")
        several = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
        if len(several) != 2:
            raise ValueError(f"images(size={self.size!r}): expected a number of pixels, or (height, width).")
        object.__setattr__(self, "size", tuple(check.positive(part, "images(size)") for part in several))
        if self.channels not in (1, 3, 4):
            raise ValueError(f"images(channels={self.channels!r}): expected 1 (grey), 3 (RGB) or 4 (RGBA).")
        object.__setattr__(self, "workers", check.positive(self.workers, "images(workers=n)"))
        if self.fit not in ("crop", "stretch"):
            raise ValueError(f"images(fit={self.fit!r}): expected 'crop' or 'stretch'.")
        if self.on_bad not in ("raise", "skip"):
            raise ValueError(f"images(on_bad={self.on_bad!r}): expected 'raise' or 'skip'.")

    def identity(self) -> dict[str, Any]:
        return {name: value for name, value in super().identity().items() if name != "workers"}

    def rows_per_pass(self, rows: int | None) -> int | None:
        return rows if self.on_bad == "raise" else None

    def open(self, upstream: Node, context: Context) -> Node:
        work = _Work(self, ImageDecoder(self.size, self.channels, self.fit))
        decoding = _Decoding(_PieceNode(upstream, work.rows), context.runtime, work, self.workers)
        return decoding if self.on_bad == "raise" else _WithoutBroken(decoding)

    def at_once(self) -> Through:
        """A node whose `apply` decodes the images of a block in the thread that calls it."""
        return _DecodedAtOnce(_Work(self, ImageDecoder(self.size, self.channels, self.fit)), self.on_bad == "skip")

    def cursor_at(self, ordinal: int, upstream: Callable[[int], Cursor], rows: int | None, place: int) -> Cursor:
        self._refuse_skipping()
        return compose_held([Address(upstream(ordinal))], {"seen": ordinal})

    def ordinal_of(self, ordinal: int, rows: int | None, place: int) -> int:
        self._refuse_skipping()
        return ordinal

    def _refuse_skipping(self) -> None:
        if self.on_bad == "skip":
            raise CannotTell("which rows images(on_bad='skip') leaves out is not known before they are decoded")


class _PieceNode(Holding):
    """Cuts blocks into pieces, each with the ordinals of its rows."""

    def __init__(self, upstream: Node, rows: int) -> None:
        super().__init__(upstream)
        self._rows = rows
        self._begin(0)

    def _begin(self, seen: int) -> None:
        self._held: InputBuffer[Block] = InputBuffer(self._upstream)
        self._seen = seen

    def pull(self, timeout: float | None) -> Block | None:
        held = self._held
        if not held.blocks and not held.pull(timeout):
            return None
        out = held.pop(min(self._rows, held.run))
        held.keep(held.head)
        first, self._seen = self._seen, self._seen + out.count
        return out.with_rows((out.rows, np.arange(first, first + out.count))) if out.count else out

    def own(self) -> Mapping[str, Any]:
        return {"seen": self._seen}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._begin(own["seen"])


class _Decoding(Prefetcher):
    """Threads that decode pieces; the order of pieces is kept."""

    def __init__(self, upstream: Node, runtime: Runtime, work: _Work, threads: int) -> None:
        super().__init__(upstream, runtime, work=work, threads=threads)


class _Work:
    """Decodes the images of one piece."""

    def __init__(self, images: Images, decoder: ImageDecoder) -> None:
        self._images = images
        self._decoder = decoder
        self.rows = max(1, min(_PIECE_ROWS, _PIECE_BYTES // math.prod(decoder.shape)))
        """The rows of a piece."""

    def __call__(self, block: Block) -> Block:
        if not block.count:
            return block
        (rows, ordinals), images = block.rows, self._images
        given = self._column(rows)
        out = trees.empty((block.count, *self._decoder.shape), np.dtype(np.uint8))
        broken = decoded_all(self._decoder, given, out)
        if broken and images.on_bad == "raise":
            at, why = next(iter(broken.items()))
            name = "" if isinstance(given[at], bytes) else f", {given[at]!r},"
            raise RowsError(
                f"images({images.column!r}): row {int(ordinals[at]):,} of the stream{name} is no image that Pillow can "
                f"read: {why}. Expected a whole image file, as bytes or by its path: images(…, on_bad='skip') leaves "
                "out such rows, and counts them."
            )
        made = _with_column(rows, images.column, out)
        if images.on_bad == "raise":
            return block.with_rows(made)
        for at, why in broken.items():
            _log.info("Row %d of the stream is left out, since it is no image: %s", int(ordinals[at]), why)
        is_whole = np.ones(block.count, bool)
        is_whole[list(broken)] = False
        return block.with_rows((made, is_whole))

    def _column(self, rows: Tree) -> list[Any]:
        column = self._images.column
        parts = rows if isinstance(rows, dict) else dict(enumerate(rows)) if isinstance(rows, tuple) else {}
        if column not in parts:
            raise RowsError(f"images({column!r}): there is no such column; the rows have {trees.columns(rows)}.")
        leaf = parts[column]
        is_bytes = ragged.is_ragged(leaf) and type(leaf.flat[0]) is bytes
        is_text = leaf.dtype.kind == "U" or (leaf.dtype == object and isinstance(leaf.flat[0], str))
        if leaf.ndim != 1 or not (is_bytes or is_text or leaf.dtype.kind == "S"):
            raise RowsError(
                f"images({column!r}): it is {leaf.dtype} of shape {leaf.shape}. Expected bytes of encoded images (see "
                "ub.ragged), or the paths of image files, as text."
            )
        values: list[Any] = leaf.tolist()
        return values


class _DecodedAtOnce(Through):
    def __init__(self, work: _Work, skips: bool) -> None:
        super().__init__(cast(Node, None))  # it never pulls
        self._work = work
        self._skips = skips

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        ordinals = np.arange(block.count) if block.seen is None else block.seen - 1
        made = self._work(block.with_rows((block.rows, ordinals)))
        if not self._skips:
            return made
        rows, is_whole = made.rows
        return made.with_rows(rows).only(is_whole)


class _WithoutBroken(Through):
    """Leaves out rows without an image, and counts them."""

    def __init__(self, upstream: Node) -> None:
        super().__init__(upstream)
        self._broken = 0

    def apply(self, block: Block | Run) -> Block | None:
        assert isinstance(block, Block)
        rows, is_whole = block.rows
        self._broken += block.count - int(is_whole.sum())
        whole = block.with_rows(rows)
        return whole if is_whole.all() else whole.only(is_whole)

    def own(self) -> Mapping[str, Any]:
        return {"broken": self._broken}

    def take_up(self, own: Mapping[str, Any]) -> None:
        self._broken = own["broken"]

    def counts(self) -> dict[str, int]:
        counts = super().counts()
        return {**counts, "broken": counts.get("broken", 0) + self._broken}


def _with_column(rows: Tree, column: Any, made: Any) -> Tree:
    if isinstance(rows, dict):
        return {name: made if name == column else part for name, part in rows.items()}
    parts = [made if at == column else part for at, part in enumerate(rows)]
    return type(rows)(*parts) if hasattr(rows, "_fields") else tuple(parts)

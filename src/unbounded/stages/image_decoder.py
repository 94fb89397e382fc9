"""ImageDecoder: encoded images, or files of them, as arrays of one size, by Pillow.

Decoding and resizing release Python's lock, so that threads work at the same time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Fit: TypeAlias = Literal["crop", "stretch"]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_BROKEN = (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError)
"""Pillow's readers raise each of these for bytes that are cut or changed."""
_ORIENTATION = 0x0112  # of Exif
_TRANSPOSED = 5  # from this orientation on, width and height change places


class BrokenImage(ValueError):
    """Bytes that are no image which Pillow can read; the message says why."""


class ImageDecoder:
    """Makes arrays of shape (height, width, channels), uint8.

    Args:
        size: height and width.
        channels: 1, 3 or 4: grey, RGB, RGBA.
        fit: how an image of another aspect ratio is made to fit.
    """

    def __init__(self, size: tuple[int, int], channels: int, fit: Fit) -> None:
        try:
            import PIL.Image
            import PIL.ImageOps
        except ImportError:
            raise ImportError(
                "images() needs Pillow, which is not installed: pip install 'unbounded[images]'."
            ) from None
        self._pillow: Any = PIL.Image
        self._upright: Any = PIL.ImageOps.exif_transpose
        self._height, self._width = size
        self._mode = _MODES[channels]
        self._crops = fit == "crop"
        self.shape = (*size, channels)
        """The shape of an image."""

    def decode(self, image: bytes | str, out: NDArray[np.uint8]) -> None:
        """Write an image, encoded or in a file, to an array of that shape.

        Raises:
            BrokenImage: it is none.
            OSError: a file can't be read.
        """
        pillow = self._pillow
        try:
            with pillow.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                found = self._upright_image(opened)
                box = self._box(*found.size)
                # Bilinear, with all pixels of the box: Pillow's filter is as wide as the image is made smaller.
                size = (self._width, self._height)
                made = found.resize(size, pillow.Resampling.BILINEAR, box=box, reducing_gap=2.0)
                out[...] = np.asarray(made).reshape(out.shape)
        except OSError as error:
            if error.errno is not None:  # of the file system: such a file may be whole
                raise
            raise BrokenImage(str(error)) from error
        except (*_BROKEN, pillow.DecompressionBombError) as error:
            raise BrokenImage(f"{type(error).__name__}: {error}") from error

    def _upright_image(self, opened: Any) -> Any:
        orientation = opened.getexif().get(_ORIENTATION, 1)
        size = (self._width, self._height)
        if opened.format == "JPEG":
            # The decoder makes it 2, 4 or 8 times smaller at once where it stays as large as it is needed.
            opened.draft(self._mode if self._mode == "L" else "RGB", size[::-1] if orientation >= _TRANSPOSED else size)
        if orientation != 1:
            opened = self._upright(opened)
        if opened.mode.startswith("I"):  # 16 bits: Pillow would cut values at 255
            values = np.asarray(opened).astype(np.int64)
            opened = self._pillow.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
        if opened.mode == "P" and "transparency" in opened.info:
            opened = opened.convert("RGBA")
        return opened if opened.mode == self._mode else opened.convert(self._mode)

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that becomes the result."""
        if not self._crops:
            return (0, 0, width, height)
        scale = min(width / self._width, height / self._height)
        across, down = (width - self._width * scale) / 2, (height - self._height * scale) / 2
        return (across, down, width - across, height - down)


def decoded_all(decoder: ImageDecoder, images: Sequence[Any], out: NDArray[np.uint8]) -> dict[int, str]:
    """Decode images to the rows of `out`; for each that is broken, its number and why."""
    broken: dict[int, str] = {}
    for at, image in enumerate(images):
        try:
            decoder.decode(image, out[at])
        except BrokenImage as error:
            broken[at] = str(error)
    return broken

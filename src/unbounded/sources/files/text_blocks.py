"""TextBlocks: a text file in blocks of whole lines, of some MiB each, plain or compressed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

from unbounded.core.node import StreamError
from unbounded.sources.files.file_paths import FoundFile
from unbounded.sources.files.file_pieces import reading
from unbounded.sources.files.records import Records

BLOCK_BYTES = 1 << 22
"""A block has at most so many bytes; more only if a line has more."""
_MOST_BYTES = 1 << 28

CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4", ".br": "brotli"}
"""The codecs of compressed files, by suffix."""


def codec_of(name: str) -> str | None:
    """The codec of a file with this name; None if it is not compressed."""
    return CODECS.get(posixpath.splitext(name.lower())[1])


class LineBlock(NamedTuple):
    """A block of lines.

    Args:
        data: the bytes, with the line ends.
        line: the number of the first line in the file, from 1.
        after: the offset and the line number of the next block; None at the end of the file.
    """

    data: bytes
    line: int
    after: list[int] | None


class TextBlocks:
    """An open text file.

    Args:
        file: its name, and the size up to which it is read.
        source: a `pyarrow.NativeFile`.
        records: where its records end.
    """

    def __init__(self, file: FoundFile, source: Any, records: Records) -> None:
        self._file = file
        self.records = records
        """Where its records end."""
        codec = codec_of(file.name)
        self._bytes: _Plain | _Compressed = (
            _Plain(source, file.size) if codec is None else _Compressed(file, source, codec)
        )

    def read(self, offset: int, line: int) -> LineBlock:
        """The block at an offset, which is the beginning of line number `line`."""
        data = b""
        while True:
            part = self._bytes.read(offset + len(data), BLOCK_BYTES)
            data = data + part if data else part
            if len(part) < BLOCK_BYTES:
                return LineBlock(data, line, None)
            end = self.records.last_end(data)
            if end:
                data = data[:end]
                return LineBlock(data, line, [offset + end, line + data.count(b"\n")])
            if len(data) > _MOST_BYTES:
                raise StreamError(
                    f"{self._file.name!r} has no line end in {len(data):,} bytes from line {line:,} on. "
                    "Expected lines of text: give format= if it is something else."
                )

    def all(self, offset: int, line: int) -> Iterator[tuple[list[int], LineBlock]]:
        """All blocks from an offset on, each with the place of its beginning."""
        place: list[int] | None = [offset, line]
        while place is not None:
            block = self.read(*place)
            yield place, block
            place = block.after

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()


class _Plain:
    """Bytes of a file, up to the size that it had when the pass began."""

    def __init__(self, source: Any, size: int) -> None:
        self._source, self._size = source, size

    def read(self, offset: int, most: int) -> bytes:
        self._source.seek(offset)
        data: bytes = self._source.read(max(0, min(most, self._size - offset)))
        return data

    def close(self) -> None:
        self._source.close()


class _Unclosed:
    """A file that stays open: Arrow closes the file under a stream that it forgets."""

    closed = False

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, most: int) -> bytes:
        data: bytes = self._source.read(most)
        return data

    def close(self) -> None:
        """No-op."""


class _Compressed:
    """Decompressed bytes, which are read forwards: going back begins at the beginning of the file."""

    def __init__(self, file: FoundFile, source: Any, codec: str) -> None:
        self._file, self._source, self._codec = file, source, codec
        self._stream: Any = None
        self._end = 0  # the offset of the stream
        self._last = b""  # the last bytes of the stream before it

    def read(self, offset: int, most: int) -> bytes:
        with reading(self._file, f"the {self._codec} data"):
            return self._read(offset, most)

    def _read(self, offset: int, most: int) -> bytes:
        import pyarrow as pa

        if self._stream is None or offset < self._end - len(self._last):
            self._source.seek(0)
            self._stream = pa.CompressedInputStream(pa.PythonFile(_Unclosed(self._source), "r"), self._codec)
            self._end, self._last = 0, b""
        while self._end < offset:
            self._last = self._stream.read(min(BLOCK_BYTES, offset - self._end))
            if not self._last:
                return b""
            self._end += len(self._last)
        parts = [self._last[len(self._last) - (self._end - offset) :]] if self._end > offset else []
        have = len(parts[0]) if parts else 0
        while have < most:
            part = self._stream.read(most - have)
            if not part:
                break
            parts.append(part)
            have += len(part)
            self._end += len(part)
        self._last = b"".join(parts)
        return self._last[:most]

    def close(self) -> None:
        self._source.close()

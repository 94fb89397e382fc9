"""`.npz` files, written and read sequentially, each byte once.

A file is an uncompressed zip archive: a member `tree.json` of text, and the arrays as members `0.npy`, `1.npy`, ….
`np.load` reads it. A zip archive has its directory at the end. To read and hash a file in one pass nevertheless, each
member's local header contains the number of bytes that follow, in an extra field of this library.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from unbounded.core.leaf import Array

TEXT = "tree.json"

_PIECE = 1 << 20  # bytes hashed and written at a time: fits into a processor's cache
_EXTRA = struct.Struct("<HHQ")
_SIZED = 0x6275  # "ub": the id of the extra field with a member's size
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_DESCRIPTOR = 24  # bytes after a member's content: its checksum, and its size twice in 8 bytes each


class Malformed(ValueError):
    """A file is not an archive that `write` made."""


def write(file: BinaryIO, text: str, arrays: Sequence[Array]) -> None:
    """Write an archive.

    Args:
        file: open for writing bytes; it need not be seekable.
        text: the content of `tree.json`.
        arrays: of dtypes that NumPy can write without pickling.
    """
    with zipfile.ZipFile(cast(Any, Forward(file)), "w") as members:
        _write(members, TEXT, [memoryview(text.encode("ascii"))])
        for index, array in enumerate(arrays):
            _write(members, f"{index}.npy", _parts(array))


def _write(members: zipfile.ZipFile, name: str, parts: Sequence[memoryview]) -> None:
    info = zipfile.ZipInfo(name)  # its date is constant: equal trees give equal bytes
    info.extra = _EXTRA.pack(_SIZED, 8, sum(part.nbytes for part in parts))
    with members.open(info, "w", force_zip64=True) as member:
        for part in parts:
            for start in range(0, part.nbytes, _PIECE):
                member.write(part[start : start + _PIECE])


def _parts(array: Array) -> list[memoryview]:
    """The content of an array's `.npy` file: the header, then the array's own memory if that is contiguous."""
    head = io.BytesIO()
    if array.dtype.names is not None:
        # Field names that are not Latin-1 need a newer header version, which `write_array` chooses.
        np.lib.format.write_array(head, array, allow_pickle=False)
        return [memoryview(head.getvalue())]
    data = array.T if array.flags.f_contiguous and not array.flags.c_contiguous else np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    parts = [memoryview(head.getvalue())]
    if array.nbytes:
        parts.append(memoryview(cast(Any, data.reshape(-1).view(np.uint8))))
    return parts


class Forward:
    """A file without `seek`, for which `zipfile` always writes each member's size after its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes, /) -> int:
        """Write."""
        return self._file.write(data)

    def flush(self) -> None:
        """No-op: nothing is buffered."""


class NpzReader:
    """Reads a file once, sequentially, and hashes it.

    Args:
        file: open for reading bytes; it need not be seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes read so far."""

    def read(self, n: int) -> bytes:
        """The next n bytes; fewer at the end."""
        parts = []
        while n:
            part = self._file.read(n)
            if not part:
                break
            self._hash.update(part)
            self.size += len(part)
            n -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def exactly(self, n: int) -> bytes:
        """The next n bytes; raises Malformed if there are fewer."""
        data = self.read(n)
        if len(data) < n:
            raise Malformed(f"it ends after {self.size:,} bytes")
        return data

    def pass_over(self, n: int) -> None:
        """Skip n bytes."""
        while n > 0:
            n -= len(self.exactly(min(n, _PIECE)))

    def to_the_end(self) -> str:
        """Read the rest; return the SHA-256 of the whole file."""
        while self.read(_PIECE):
            pass
        return self._hash.hexdigest()


class _Member:
    """The bytes of one member of the archive, as a file for NumPy."""

    def __init__(self, reader: NpzReader, size: int) -> None:
        self._reader = reader
        self.left = size

    def read(self, n: int = -1) -> bytes:
        """The next n bytes; fewer at the member's end."""
        n = self.left if n < 0 else min(n, self.left)
        self.left -= n
        return self._reader.exactly(n)


def read(reader: NpzReader, choose: Callable[[str], Iterable[int]]) -> tuple[str, dict[int, Array]]:
    """Read an archive up to its last array; the caller reads the rest by `NpzReader.to_the_end`.

    The content is unverified: callers compare the file's checksum before they use what is returned.

    Args:
        reader: at the beginning of the file.
        choose: given the text, returns the numbers of the arrays to read; the others are skipped.

    Raises:
        Malformed: the file is not an archive that `write` made.
    """
    text = _text(reader)
    wanted = set(choose(text))
    arrays: dict[int, Array] = {}
    while wanted and (member := _next(reader)) is not None:
        name, size = member
        index = int(name.removesuffix(".npy"))
        content = _Member(reader, size)
        if index in wanted:
            wanted.discard(index)
            # NumPy limits a header's length since parsing untrusted headers can be slow; this file is our own.
            arrays[index] = np.lib.format.read_array(content, allow_pickle=False, max_header_size=1 << 24)
        reader.pass_over(content.left + _DESCRIPTOR)
    if wanted:
        raise Malformed(f"it has no array {min(wanted)}")
    return text, arrays


def _text(reader: NpzReader) -> str:
    member = _next(reader)
    if member is None or member[0] != TEXT:
        raise Malformed(f"it does not begin with {TEXT}")
    text = reader.exactly(member[1]).decode("ascii")
    reader.pass_over(_DESCRIPTOR)
    return text


def _next(reader: NpzReader) -> tuple[str, int] | None:
    """The name and size of the next member; None after the last."""
    head: tuple[Any, ...] = _LOCAL.unpack(reader.exactly(_LOCAL.size))
    if head[0] != b"PK\3\4":
        return None
    name = reader.exactly(head[-2]).decode("ascii")
    extra = reader.exactly(head[-1])
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _SIZED and length == 8:
            return name, _EXTRA.unpack_from(extra)[2]
        extra = extra[4 + length :]
    raise Malformed(f"its member {name} has no size in its header")

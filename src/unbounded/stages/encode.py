"""Encode: text or whole numbers of a column as codes, by a vocabulary or by a hash that stays the same for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from unbounded.core import check, ragged
from unbounded.core.block import Block, Run
from unbounded.core.node import Context, Node
from unbounded.core.stable_hash import HASHED, hashes
from unbounded.core.trees import Array, RowsError
from unbounded.stages.named_columns import check_name, column_of, decoded, with_columns
from unbounded.stages.stage import OneToOne, Through

Unknown: TypeAlias = Literal["last", "raise"]

_SHOWN = 4  # words of a vocabulary that a stream shows


@dataclass(frozen=True)
class Encode(OneToOne):
    """See `Stream.encode`."""

    column: str
    vocabulary: Any = None
    hash: int | None = None
    unknown: Unknown = "last"
    word = "encode"

    def __post_init__(self) -> None:
        check_name(self.column, "encode(column)")
        if (self.vocabulary is None) == (self.hash is None):
            given = "neither" if self.hash is None else "both"
            raise ValueError(
                f"encode({self.column!r}) was given {given} of vocabulary= and hash=. Expected one of them: "
                f'.encode({self.column!r}, vocabulary=["a", "b"]), or .encode({self.column!r}, hash=1000).'
            )
        if self.unknown not in ("last", "raise"):
            raise ValueError(f"encode(unknown={self.unknown!r}): expected 'last' or 'raise'.")
        if self.hash is not None:
            object.__setattr__(self, "hash", check.positive(self.hash, "encode(hash=n)"))
            if self.unknown != "last":
                raise ValueError(
                    "encode(unknown=…) was given beside hash=, to which no value is unknown. Leave it out."
                )
            return
        if isinstance(self.vocabulary, set | frozenset | Mapping):
            raise TypeError(
                f"encode({self.column!r}) was given a vocabulary that is a {type(self.vocabulary).__name__}. Expected "
                "a list: the code of a value is its place, and a set has another order in each process."
            )
        object.__setattr__(self, "vocabulary", _as_words(self.vocabulary))

    def arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = {"": repr(self.column)}
        if self.vocabulary is not None:
            few = len(self.vocabulary) <= _SHOWN
            given["vocabulary"] = list(self.vocabulary) if few else [*self.vocabulary[: _SHOWN - 1], "…"]
        if self.hash is not None:
            given["hash"] = self.hash
        return given if self.unknown == "last" else {**given, "unknown": self.unknown}

    def identity(self) -> dict[str, Any]:
        # A checksum in place of a vocabulary, which may be larger than all else in a checkpoint.
        words = None
        if self.vocabulary is not None:
            text = json.dumps(self.vocabulary, ensure_ascii=True).encode()
            words = [len(self.vocabulary), hashlib.blake2b(text, digest_size=8).hexdigest()]
        return {"column": self.column, "vocabulary": words, "hash": self.hash, "unknown": self.unknown}

    def open(self, upstream: Node, context: Context) -> Node:
        return _EncodeNode(upstream, self)


def _as_words(vocabulary: Any) -> tuple[str, ...] | tuple[int, ...]:
    """A vocabulary as a tuple of texts or of whole numbers."""
    expected = 'Expected a list of texts or of whole numbers, each once, such as ["kitchen", "hall"].'
    if isinstance(vocabulary, (str, bytes)) or not isinstance(vocabulary, Iterable):
        raise TypeError(f"encode(vocabulary={vocabulary!r}): {expected}")
    words = vocabulary.tolist() if isinstance(vocabulary, np.ndarray) else list(vocabulary)
    words = [word.item() if isinstance(word, np.generic) else word for word in words]
    if not words:
        raise ValueError(f"encode(vocabulary=[]) has no word. {expected}")
    kinds = {str if isinstance(word, str) else int if type(word) is int else None for word in words}
    if len(kinds) != 1 or None in kinds:
        odd = next((word for word in words if type(word) is not type(words[0]) or type(word) not in (str, int)), None)
        raise TypeError(f"encode(vocabulary=[…]) has {odd!r} beside {words[0]!r}. {expected}")
    if len(set(words)) < len(words):
        seen: set[Any] = set()
        double = next(word for word in words if word in seen or seen.add(word))  # type: ignore[func-returns-value]
        raise ValueError(f"encode(vocabulary=[…]) has {double!r} twice, and its code is its place. {expected}")
    return tuple(words)


class _Vocabulary:
    """Finds the places of values in a vocabulary: by their hashes, and by a comparison with the word found there.

    The first bits of a hash lead to one word, which is nearly always the right one; the others are searched for.
    """

    def __init__(self, words: tuple[Any, ...]) -> None:
        self._words: Array = np.array(words)
        found = hashes(self._words)
        self._order = np.argsort(found, kind="stable")
        self._hashes = found[self._order]
        bits = (4 * len(words) - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._first = np.zeros(1 << bits, np.int64)
        self._first[(found >> self._shift).astype(np.int64)] = np.arange(len(words))
        # Two words of one hash, of some 2**32 words. Then all are looked up in a dict.
        self._dict = {word: place for place, word in enumerate(words)} if len(np.unique(found)) < len(words) else None

    @property
    def is_text(self) -> bool:
        """True for words, False for whole numbers."""
        return self._words.dtype.kind == "U"

    def codes(self, column: Array) -> Array:
        """The place of each value; the number of words for an unknown one."""
        count = len(self._words)
        if self._dict is not None:
            get = self._dict.get
            flat = [get(value, count) for value in column.ravel().tolist()]
            return np.array(flat, np.int64).reshape(column.shape)
        found = hashes(column)
        codes = self._first[(found >> self._shift).astype(np.int64)]
        others = self._words[codes] != column
        if others.any():
            at = np.minimum(np.searchsorted(self._hashes, found[others]), count - 1)
            better = self._order[at]
            codes[others] = np.where(self._words[better] == column[others], better, count)
        return codes


class _EncodeNode(Through):
    def __init__(self, upstream: Node, encode: Encode) -> None:
        super().__init__(upstream)
        self._encode = encode
        self._what = f"encode({encode.column!r})"
        self._vocabulary = None if encode.vocabulary is None else _Vocabulary(encode.vocabulary)

    def apply(self, block: Block | Run) -> Block:
        assert isinstance(block, Block)
        column = column_of(block.rows, self._encode.column, self._what)
        codes = self._of_ragged(column) if ragged.is_ragged(column) else self._codes(self._text(column))
        return block.with_rows(with_columns(block.rows, {self._encode.column: codes}))

    def _of_ragged(self, column: Array) -> Array:
        """The codes of rows of several lengths, such as the words of texts."""
        try:
            values, lengths = ragged.values_and_lengths(column)
        except ragged.NotRagged as error:
            raise RowsError(f"{self._what}: the column {error}. Expected rows of text or of whole numbers.") from None
        if isinstance(values, bytes):
            raise RowsError(f"{self._what} was given bytes. Expected text or whole numbers: .map() can decode them.")
        codes = self._codes(self._text(values)) if len(values) else np.zeros(0, np.int64)
        return ragged.cut(codes, lengths)

    def _text(self, column: Array) -> Array:
        kind = column.dtype.kind
        if kind == "O" and all(type(value) is str for value in column.ravel().tolist()):
            return column.astype(np.str_)
        if kind == "S":
            return decoded(column, self._what)
        if kind not in HASHED:
            raise RowsError(
                f"{self._what} was given {column.dtype}. Expected text or whole numbers: .map() can make them, such as "
                ".astype('int64')."
            )
        return column

    def _codes(self, column: Array) -> Array:
        if self._vocabulary is None:
            assert self._encode.hash is not None
            return (hashes(column) % np.uint64(self._encode.hash)).astype(np.int64)
        if self._vocabulary.is_text != (column.dtype.kind == "U"):
            words, given = ("text", "whole numbers") if self._vocabulary.is_text else ("whole numbers", "text")
            raise RowsError(
                f"{self._what} has a vocabulary of {words}, and the column is {given} ({column.dtype}). Expected both "
                "of one kind."
            )
        codes = self._vocabulary.codes(column)
        if self._encode.unknown == "raise":
            unknown = codes == len(self._encode.vocabulary)
            if unknown.any():
                raise RowsError(
                    f"{self._what} was given {column[unknown][0].item()!r}, which is not in its vocabulary of "
                    f"{len(self._encode.vocabulary):,}. Add it at the end, or leave out unknown='raise': unknown "
                    f"values then have the code {len(self._encode.vocabulary):,}."
                )
        return codes

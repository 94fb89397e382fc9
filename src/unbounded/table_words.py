"""TableWords: the methods of a stream for tables of text, times and missing values: `encode`, `fill`, `drop_missing`
and `time`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unbounded.core.words import checked
from unbounded.stages.drop_missing import DropMissing
from unbounded.stages.encode import Encode, Unknown
from unbounded.stages.event_time import Time
from unbounded.stages.fill import Fill
from unbounded.stages.keys import EXPIRE
from unbounded.stages.stage import Stage

if TYPE_CHECKING:
    from unbounded.stream import Stream


class TableWords:
    """A part of `Stream`: methods that make numbers of what tables have."""

    if TYPE_CHECKING:

        def _then(self, stage: Stage) -> Stream: ...

    @checked(".encode(column, vocabulary=None, hash=None, unknown='last')")
    def encode(
        self,
        column: str,
        vocabulary: Sequence[Any] | None = None,
        *,
        hash: int | None = None,
        unknown: Unknown = "last",
    ) -> Stream:
        """Replace the text or the whole numbers of a column by int64 codes.

        Args:
            column: the name of a column of text or whole numbers, of shape (rows, …); its codes have the same shape.
            vocabulary: the texts or whole numbers that are known, each once. The code of a value is its place in this
                list; that of any other value, and so of a missing text, "", is `len(vocabulary)`. So there are
                `len(vocabulary) + 1` codes.
            hash: in place of a vocabulary: the number of codes. A value's code is its hash modulo this number. The hash
                is the same for ever, on each machine; several values may share a code.
            unknown: "raise" makes a value that is not in the vocabulary an error.

        Raises:
            ValueError: neither or both of `vocabulary` and `hash` were given, or a word is there twice.
            RowsError: in a loop, for a column that is neither text nor whole numbers.

        >>> import numpy as np, unbounded as ub
        >>> table = {"room": np.array(["hall", "kitchen", "attic"]), "user": np.array([17, 4, 17])}
        >>> stream = ub.from_arrays(table, shuffle=False).encode("room", ["kitchen", "hall"]).encode("user", hash=100)
        >>> stream.batch(3).peek()
        {'room': array([1, 0, 2]), 'user': array([79, 78, 79])}
        """
        return self._then(Encode(column, vocabulary, hash, unknown))

    @checked(".fill(value, by=None)")
    def fill(self, value: Any, *, by: str | None = None, expire: int | None = EXPIRE) -> Stream:
        """Put values in the place of missing ones: NaN among floats, NaT among times, "" among text.

        Args:
            value: a constant, which goes into all columns of its kind (a number into floats, a text into text, a time
                into times); "last", for the last value that was there before, in all columns that may have missing
                values; or a dict of names of columns and these. With "last" a row at the beginning, at the end of a
                pass or a gap has none before it: what stays missing there is counted in `stats.unfilled`, by rows.
            by: with "last", the name of a column: the last value is that of the same key. Each key's last row is then a
                part of the position.
            expire: with `by`, the rows of the whole stream after which a silent key is forgotten; if it comes again, it
                has no last value. Forgotten keys are counted in `stats.expired`. None keeps keys forever: if new keys
                keep coming, memory and checkpoints then grow without end.

        Raises:
            TypeError: a value is no number, text or time.
            RowsError: in a loop, for a column that is not there, or of another kind than its constant.

        >>> import numpy as np, unbounded as ub
        >>> table = {"id": np.array([1, 2, 1, 2]), "temp": np.array([20.5, 18.0, np.nan, np.nan])}
        >>> ub.from_arrays(table, shuffle=False).fill("last", by="id").batch(4).peek()["temp"]
        array([20.5, 18. , 20.5, 18. ])
        >>> ub.from_arrays(table, shuffle=False).fill({"temp": 0.0}).batch(4).peek()["temp"]
        array([20.5, 18. ,  0. ,  0. ])
        """
        return self._then(Fill(dict(value) if isinstance(value, Mapping) else value, by, expire))

    @checked(".drop_missing(columns=None)", 'Several columns are one list: .drop_missing(["a", "b"]).')
    def drop_missing(self, columns: str | Sequence[str] | None = None) -> Stream:
        """Leave out rows in which a value is missing: NaN among floats, NaT among times, "" among text.

        Rows that were left out are counted in `stats.left_out`.

        Args:
            columns: the name of the column in which no value may be missing, or a list of names. None: all columns,
                those of text too.

        >>> import numpy as np, unbounded as ub
        >>> table = {"id": np.arange(3), "x": np.array([0.5, np.nan, 2.5]), "room": np.array(["a", "b", ""])}
        >>> ub.from_arrays(table, shuffle=False, passes=1).drop_missing("x").batch(2).peek()["id"]
        array([0, 2])
        """
        return self._then(DropMissing(columns))

    @checked(".time(column, format=None)")
    def time(self, column: str, format: str | None = None) -> Stream:
        """Declare a column to be the event time of rows, and convert it to datetime64[us].

        The age of rows (`stats.age`) and `windows(max_gap=)` count by it, from this stage on. Without it, a row's time
        is that of its arrival.

        Args:
            column: the name of a column of shape (rows,): text, numbers since 1970, or datetime64. A time with a zone
                is converted to UTC; one without a zone is taken for UTC.
            format: for text, its form, as of `datetime.strptime`, such as "%d.%m.%Y %H:%M"; None for ISO 8601, such as
                "2026-01-31T12:00:00". For numbers, their unit: "s", "ms", "us" or "ns"; None for seconds.

        Raises:
            RowsError: in a loop, for a value that is missing or is no time; it names the row.

        >>> import numpy as np, unbounded as ub
        >>> table = {"at": np.array(["31.01.2026 12:00", "31.01.2026 12:05"]), "x": np.zeros(2)}
        >>> ub.from_arrays(table, shuffle=False).time("at", "%d.%m.%Y %H:%M").batch(1).peek()["at"]
        array(['2026-01-31T12:00:00.000000'], dtype='datetime64[us]')
        """
        return self._then(Time(column, format))

"""ItemWords: the methods of a stream for rows that are items: texts of several lengths, images, records of many rows.

Most of this file is docstrings: an example and the arguments of each method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from unbounded.core import check
from unbounded.core.trees import Tree
from unbounded.core.words import checked
from unbounded.stages.balance import Balance
from unbounded.stages.fill import Fill
from unbounded.stages.flat_map import FlatMap
from unbounded.stages.image_decoder import Fit
from unbounded.stages.images import Images, OnBad
from unbounded.stages.normalize import Normalize
from unbounded.stages.pad import Pad
from unbounded.stages.random_map import RandomMap
from unbounded.stages.split import Split
from unbounded.stages.stage import Stage
from unbounded.stages.windows import Windows

if TYPE_CHECKING:
    from unbounded.stream import Stream


class ItemWords:
    """A part of `Stream`: methods for rows of several lengths, images, records of many rows, and classes."""

    if TYPE_CHECKING:

        @property
        def all_parts(self) -> list[Any]: ...

        def _then(self, stage: Stage) -> Stream: ...

    @checked(".balance(by, rows=10_000, repeats=20, seed=0)")
    def balance(self, by: str, *, rows: int = 10_000, repeats: int = 20, seed: int = 0) -> Stream:
        """Equal shares of the classes of a column, in a random order: for a model that would otherwise learn to ignore
        rare ones.

        Each `rows` consecutive rows are a group, and as many rows come out of it. All classes in the group have equal
        shares. A class with fewer rows has each of them, several times, all equally often; of a class with more, a
        random part is left out, which differs from group to group and from pass to pass. So no row of a rare class is
        lost, and memory holds one group. A class without rows in a group has no share there. The end of a pass closes a
        group. A live stream waits until a group is full.

        Place it after `split`, so that validation has the true shares; and note that predicted probabilities are then
        those of balanced classes.

        Args:
            by: the name of the column of classes: whole numbers, text, or other values that repeat.
            rows: in a group: many times the rows between two of the rarest class.
            repeats: how often a row comes at most. A class that is so rare has a smaller share, since a model would
                learn its few rows by heart; the others share the rest.
            seed: of the choices and the order, together with the stage's place in the stream and the group's number.

        >>> import numpy as np, unbounded as ub
        >>> labels = (np.arange(1000) % 20 == 0).astype(int)
        >>> batch = ub.from_arrays({"x": np.arange(1000), "label": labels}).balance(by="label").batch(1000).peek()
        >>> np.bincount(batch["label"]), len(np.unique(batch["x"][batch["label"] == 1]))
        (array([500, 500]), 50)
        """
        return self._then(Balance(by, rows, repeats, seed))

    @checked(".flat_map(fn)")
    def flat_map(self, fn: Callable[[Tree], Any]) -> Stream:
        """Make any number of rows of each record: the windows of a recording, the sentences of a text.

        A resume calls the function again for the record at which it continues, and for no other one.

        Args:
            fn: receives one record, a tree of arrays of shape (…) without the first dimension. A generator function
                yields single rows, each such a tree; a list contains single rows, too. An array, or a dict or tuple of
                arrays that share their first dimension, are all rows of the record together. Each record may have
                another number of rows, and none at all: []. All rows have the same structure, dtypes and shapes. It
                must be pure: it is called again for a record after a resume.

        A generator is asked for some hundred rows at a time, so that a record of a million rows needs no memory for
        them. The end of a pass comes after the rows of its last record.

        Raises:
            RowsError: in training, if rows are not of the form of the first ones.

        >>> import numpy as np, unbounded as ub
        >>> def words(record):
        ...     for word in str(record["text"]).split():
        ...         yield {"id": record["id"], "letters": len(word)}
        >>> records = {"id": np.arange(3), "text": np.array(["to be or", "", "not to be"])}
        >>> ub.from_arrays(records, shuffle=False).flat_map(words).batch(5).peek()
        {'id': array([0, 0, 0, 2, 2]), 'letters': array([2, 2, 2, 3, 2])}
        """
        return self._then(FlatMap(fn))

    @checked(".images(column, size, channels=3, workers=2, fit='crop', on_bad='raise')")
    def images(
        self,
        column: str | int,
        size: int | tuple[int, int],
        *,
        channels: int = 3,
        workers: int = 2,
        fit: Fit = "crop",
        on_bad: OnBad = "raise",
    ) -> Stream:
        """Decode images in threads: a column of encoded images, or of paths, becomes uint8 of shape (rows, height,
        width, channels). Needs Pillow: `pip install 'unbounded[images]'`.

        Place it after `shuffle` and `replay`, which then hold encoded images, a tenth of the size. Images are resized
        by Pillow's bilinear filter, which averages where it makes them smaller, and turned upright as their Exif
        orientation says. JPEGs much larger than `size` are decoded at 1/2, 1/4 or 1/8, which is several times faster.

        Args:
            column: the name of a column, or its position in a tuple: bytes (JPEG, PNG, WebP and what else Pillow
                reads), or the paths of files, as text.
            size: of the result: pixels, or (height, width).
            channels: 3 for RGB, 1 for grey, 4 for RGBA.
            workers: threads that decode, each some images at a time. The order is kept.
            fit: "crop" keeps the aspect ratio and cuts off what is too wide or too high, on both sides alike; "stretch"
                keeps all of the image, and changes its aspect ratio.
            on_bad: what to do with a broken image: "raise" an error that names the row, or "skip" the row, which is
                counted in `stats.broken`. A file that can't be read is an error in any case.

        Raises:
            RowsError: in training, for a broken image, or a column of something else.
            ImportError: when the stream is opened, without Pillow.

        >>> import io, numpy as np, unbounded as ub
        >>> from PIL import Image
        >>> def png(grey):
        ...     file = io.BytesIO()
        ...     Image.new("L", (40, 30), grey).save(file, "png")
        ...     return file.getvalue()
        >>> rows = {"image": ub.ragged([png(10), png(200)]), "label": np.arange(2)}
        >>> batch = ub.from_arrays(rows, shuffle=False).images("image", size=8).batch(2).peek()
        >>> batch["image"].shape, batch["image"][:, 0, 0, 0]
        ((2, 8, 8, 3), array([ 10, 200], dtype=uint8))
        """
        return self._then(Images(column, size, channels, workers, fit, on_bad))

    @checked(".pad(length, columns=None, value=0, lengths=None, truncate=False)")
    def pad(
        self,
        length: int,
        columns: str | int | Sequence[str | int] | None = None,
        *,
        value: Any = 0,
        lengths: str | None = None,
        truncate: bool = False,
    ) -> Stream:
        """Make rows of several lengths one length: a ragged column becomes an array of shape (rows, length, …).

        Args:
            length: of each row from here on.
            columns: the name of a column, or several names; positions in a tuple. None: all ragged columns of arrays.
            value: what stands behind shorter rows; behind text it is "".
            lengths: the name of a new column: the length that each row had, at most `length`, int64 of shape (rows,).
                A mask for the loss is `np.arange(length) < rows["length"][:, None]`, in a `map`.
            truncate: True cuts rows that are longer, and counts them in `stats.cut`; False raises an error for them.

        Raises:
            RowsError: in training, for a row that is longer, or if there is no such column.

        >>> import numpy as np, unbounded as ub
        >>> tokens = ub.ragged([[5, 3], [7, 8, 9, 10], [1]])
        >>> stream = ub.from_arrays({"tokens": tokens}, shuffle=False).pad(3, lengths="length", truncate=True)
        >>> stream.batch(3).peek()
        {'tokens': array([[5, 3, 0],
               [7, 8, 9],
               [1, 0, 0]]), 'length': array([2, 3, 1])}
        """
        return self._then(Pad(length, columns, value, lengths, truncate))

    @checked(".split(share, by=None, seed=0)")
    def split(self, share: float, *, by: str | Sequence[str] | None = None, seed: int = 0) -> tuple[Stream, Stream]:
        """Two streams, such as one for training and one for validation: each row is in exactly one of them, for ever.

        A row's part follows from a hash of its values, not from its place: it is the same in each pass and order, after
        each resume and on each machine. Rows that are equal are in the same part; so are keys that are equal with `by`.
        Equal numbers have one hash whatever their dtype is, and so has equal text. All missing values are equal.

        Each of the two streams reads the source for itself, and leaves out the rows of the other part. A function that
        can't seek is therefore called by each, which is logged: neither stream has a row that belongs to the other, but
        a row that a device sends once is lost if it comes to the wrong one. For such a source, test each row before it
        is trained on: `keras.Prequential`.

        Args:
            share: the share of all different rows, or of all keys, in the first stream: between 0 and 1.
            by: the name of a column, or several names: rows with equal values there are in one part, as those of one
                user or machine should be. None: all columns count.
            seed: other seeds give other splits. The parts of a split can be split again.

        Returns:
            The stream with `share` of the rows, and the stream with the rest.

        Raises:
            ValueError: the share is not between 0 and 1; or, without `by`, the stream has a stage that gives a row
                other values each time, or `windows`, which share rows.

        >>> import numpy as np, unbounded as ub
        >>> stream = ub.from_arrays({"user": np.arange(1000) % 50, "x": np.arange(1000.0)})
        >>> parts = stream.split(0.8, by="user")
        >>> training, validation = (set(part.batch(1000).peek()["user"].tolist()) for part in parts)
        >>> len(training), len(validation), training & validation
        (45, 5, set())
        """
        expected = f"a number between 0 and 1, such as 0.9. It was given {share!r}"
        check.above_zero(share, "split(share)", expected)
        if share >= 1:
            raise ValueError(f"split(share): expected {expected}.")
        names = None if by is None else (by,) if isinstance(by, str) else _names(by)
        if names is None:
            _refuse_changing(self.all_parts)
        number = sum(isinstance(part, Split) for part in self.all_parts)
        seed = check.seed(seed, "split(seed=n)")
        return (
            self._then(Split(float(share), "first", names, seed, number)),
            self._then(Split(float(share), "rest", names, seed, number)),
        )


def _names(by: Any) -> tuple[str, ...]:
    names = tuple(by) if isinstance(by, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"split(by={by!r}): expected the name of a column, or a list of names.")
    return names


def _refuse_changing(parts: Sequence[Any]) -> None:
    """Raise ValueError if rows have other values each time, or share values with other rows."""
    for part in parts:
        if isinstance(part, RandomMap | Normalize) or (isinstance(part, Fill) and part.carries):
            raise ValueError(
                f".split() stands after .{part.word}(), which gives a row other values each time, and its part follows "
                f"from its values. Put .{part.word}() after .split(), or name a column that stays as it is: by='id'."
            )
        if isinstance(part, Windows):
            raise ValueError(
                ".split() stands after .windows(), which share rows: the validation would have rows that are trained "
                "on. Write .split(0.9, by='machine') before .windows(length, by='machine')."
            )

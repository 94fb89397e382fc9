"""Names from other libraries, and what to write here instead.

A call with wrong arguments and an unknown method or attribute raise an error with this advice, instead of a bare
TypeError or AttributeError.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SOURCES = (
    "A stream begins with its source: ub.from_arrays((x, y)), ub.from_dataset(dataset), ub.from_generator(fn) or "
    "ub.from_samples(fn)."
)
_FEED = "That belongs to a feed, a stream at work: feed = ub.Feed(stream, epoch=ub.Epoch(steps=1000))"

STREAM = {
    "repeat": "Rows repeat by themselves, for ever. For an end, give the source passes=n, or write .take(rows).",
    "cache": (
        "ub.from_arrays keeps its rows in memory; for rows that are costly to make, .replay(capacity) uses each again."
    ),
    "zip": "Rows are one tree: ub.from_arrays((x, y)), or a generator that yields a tuple or a dict.",
    "zip_with": "Rows are one tree: ub.from_arrays((x, y)), or a generator that yields a tuple or a dict.",
    "interleave": "Streams are mixed by ub.mix({'a': one, 'b': other}).",
    "concatenate": "Several sources can't be joined yet: yield from them in one generator, ub.from_generator(fn).",
    "mix": "Streams are mixed by ub.mix({'a': one, 'b': other}).",
    "padded_batch": "Write .pad(length).batch(n), or .batch(n, bucket=[32, 64, 128]).",
    "ragged_batch": "Rows of a batch have one shape: write .pad(length).batch(n), or .batch(n, bucket=[32, 64, 128]).",
    "bucket_by_sequence_length": "Write .batch(n, bucket=[32, 64, 128]).",
    "unbatch": "A generator may yield any number of rows at a time: leave the batches to .batch(n).",
    "rebatch": "A generator may yield any number of rows at a time: .batch(n) cuts them anew.",
    "shard": "Give each process a stream of its own share: ub.from_arrays(x[rank::n]).",
    "enumerate": "A feed counts: for step, batch in enumerate(feed, feed.steps).",
    "with_options": "There are no options: .prefetch(n) and .map(fn, workers=n) work ahead.",
    "skip": "Leave the rows out of the source (x[n:]), or by .filter(fn).",
    "as_numpy_iterator": "Batches are NumPy's: for batch in ub.Feed(stream).batches().",
    "make_one_shot_iterator": "Batches come from a feed: for batch in ub.Feed(stream).batches().",
    "to_iter_dataset": "Batches come from a feed: for batch in ub.Feed(stream).batches().",
    "flatmap": "Write .flat_map(fn), where fn yields the rows of one record.",
    "rejection_resample": "Write .balance(by='label').",
    "oversample": "Write .balance(by='label').",
    "undersample": "Write .balance(by='label').",
    "explode": "Write .flat_map(fn), where fn yields the rows of one record.",
    "train_test_split": "Write training, validation = stream.split(0.9).",
    "random_split": "Write training, validation = stream.split(0.9).",
    "partition": "Write training, validation = stream.split(0.9).",
    "apply": "Call the function with the stream: fn(stream).",
    "take_while": "Write .filter(fn) for rows, or .take(rows) for an end.",
    "window": "Write .windows(length, stride=1).",
    "sliding_window": "Write .windows(length, stride=1).",
    "group_by_window": "Write .windows(length, by='column').",
    "select": "Write .columns(x='a', y='b').",
    "select_columns": "Write .columns(x='a', y='b'), or .map(lambda rows: {'a': rows['a']}).",
    "with_columns": "Write .map(lambda rows: {**rows, 'new': …}).",
    "augment": "Write .random_map(lambda rows, rng: …).",
    "random_mapping": "Write .random_map(lambda rows, rng: …).",
    "map_with_index": "A row's number can be a column of its own: ub.from_arrays({'x': x, 'row': np.arange(len(x))}).",
    "seed": "Each stage that draws has its own: .shuffle(rows, seed=0), ub.from_arrays(x, seed=0).",
    "standardize": "Write .normalize('column').",
    "scale": "Write .normalize('column').",
    "dropna": "Write .drop_missing('column'), or ub.Feed(stream, on_nan='skip').",
    "drop_nulls": "Write .drop_missing('column').",
    "fillna": "Write .fill(0.0), .fill({'column': 'none'}), or .fill('last').",
    "fill_null": "Write .fill(0.0), .fill({'column': 'none'}), or .fill('last').",
    "ffill": "Write .fill('last'), or .fill('last', by='key').",
    "forward_fill": "Write .fill('last'), or .fill('last', by='key').",
    "interpolate": "A stream does not know the next value: .fill('last') carries the last one on.",
    "to_datetime": "Write .time('column', '%d.%m.%Y %H:%M').",
    "with_timestamps": "Write .time('column'), which declares the event time of rows.",
    "assign_timestamps": "Write .time('column'), which declares the event time of rows.",
    "factorize": "Write .encode('column', vocabulary=[…]), or .encode('column', hash=1000).",
    "class_encode_column": "Write .encode('column', vocabulary=[…]).",
    "lookup": "Write .encode('column', vocabulary=[…]), or .encode('column', hash=1000).",
    "to_numpy": "stream.take(n).read() gives the first n rows as arrays.",
    "to_arrays": "stream.take(n).read() gives the first n rows as arrays.",
    "collect": "stream.take(n).read() gives the first n rows as arrays.",
    "element_spec": "stream.shapes() shows the shapes and dtypes of a batch.",
    "shape": (
        "stream.shapes() shows the shapes and dtypes of a batch. Keras takes a feed of it: "
        "model.fit(ub.keras.Feed(stream, ub.Epoch(steps=1000)))."
    ),
    "cardinality": "stream.rows_per_pass says how many rows a pass has.",
    "fit": "Write model.fit(ub.keras.Feed(stream, epoch=ub.Epoch(steps=1000)), epochs=10).",
    **{
        name: f"{_FEED}."
        for name in ("batches", "epochs", "save", "load", "state_dict", "load_state_dict", "stats", "close", "steps")
    },
}

FEED = {
    "fit": "Keras's fit is the model's: model.fit(ub.keras.Feed(stream, epoch=…), epochs=10).",
    "shape": (
        "feed.stream.shapes() shows the shapes and dtypes of a batch. Keras takes a feed of its kind: "
        "model.fit(ub.keras.Feed(stream, ub.Epoch(steps=1000)))."
    ),
    "next": "Batches come from a loop: for batch in feed; or next(iter(feed)).",
    "as_numpy_iterator": "Batches are NumPy's: for batch in feed.",
    "dataset": "feed.stream is what it feeds.",
    "reset": "A feed goes on. For the stream's beginning, make a new one: ub.Feed(feed.stream, epoch=…).",
    "set_epoch": "Each pass has an order of its own already; feed.epoch_number counts the epochs.",
    "step": "feed.steps counts the batches that were trained on.",
    "stop": "epoch.stop() and feed.leave_epoch() leave the epoch; feed.interrupt() ends the loop.",
    "shutdown": "Write feed.close().",
}

PACKAGE = {
    "arrays": "Write ub.from_arrays((x, y)).",
    "generate": "Write ub.from_generator(fn).",
    "samples": "Write ub.from_samples(fn).",
    "machine": "Write ub.from_machine().",
    "from_tensor_slices": "Write ub.from_arrays((x, y)).",
    "dataset": "Write ub.from_dataset(dataset).",
    "image_dataset_from_directory": "Write ub.from_files('photos/*/*.jpg').images('path', size=224).",
    "ImageFolder": "Write ub.from_files('photos/*/*.jpg').images('path', size=224).",
    "from_images": "Write ub.from_files('photos/*/*.jpg').images('path', size=224).",
    "from_parquet": "Write ub.from_files('data/*.parquet').",
    "from_csv": "Write ub.from_files('data/*.csv').",
    "read_csv": "Write ub.from_files('data/*.csv').",
    "read_parquet": "Write ub.from_files('data/*.parquet').",
    "Dataset": _SOURCES,
    "IterableDataset": _SOURCES,
    "DataLoader": "Write ub.Feed(stream, epoch=ub.Epoch(steps=1000)), or ub.keras.Feed for Keras.",
    "Checkpoint": "Write ub.keras.Checkpoint(feed, directory) for Keras, or feed.save(directory, state=…).",
    "normalize": "Write stream.normalize('column').",
    "batch": "Write stream.batch(32).",
    "split": "Write stream.split(0.9), which gives two streams.",
    "shuffle": "Write stream.shuffle(10_000).",
}

# Argument names of other libraries, under the name that they have here.
_ARGUMENTS = {
    "batch_size": "rows",
    "n": "rows",
    "buffer_size": "rows",
    "count": "rows",
    "size": "rows",
    "window_size": "length",
    "shift": "stride",
    "step": "stride",
    "key": "by",
    "vocab": "vocabulary",
    "num_buckets": "hash",
    "num_bins": "hash",
    "fmt": "format",
    "gap": "max_gap",
    "map_func": "fn",
    "func": "fn",
    "function": "fn",
    "predicate": "fn",
    "num_parallel_calls": "workers",
    "num_workers": "workers",
    "random_state": "seed",
    "weight": "sample_weight",
    "weights": "sample_weight",
    "targets": "y",
    "labels": "y",
    "epochs": "n",
}


def unknown(owner: str, name: str, hints: dict[str, str], known: Iterable[str]) -> str:
    """The message for an unknown attribute.

    Args:
        owner: what has no such attribute, in words.
        name: the attribute.
        hints: for names from other libraries, what to write here.
        known: the names of existing attributes.
    """
    text = f"{owner} has no {name!r}."
    if name in hints:
        return f"{text} {hints[name]}"
    close = difflib.get_close_matches(name, list(known), 1)
    return f"{text} Did you mean {close[0]!r}?" if close else text


def checked(written: str, hint: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: a call with wrong arguments raises a TypeError with advice.

    Args:
        written: the call as a user writes it, such as ".batch(rows)".
        hint: what to write instead if too many arguments were given.
    """

    def wrap(fn: Callable[P, R]) -> Callable[P, R]:
        explain = _explain

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return fn(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                    raise  # the function itself raised it
                explain(fn, written, hint, args, kwargs)
                raise

        # With the globals of the wrapped function's module: doctest skips functions of other modules.
        named = types.FunctionType(call.__code__, fn.__globals__, fn.__name__, None, call.__closure__)
        return functools.update_wrapper(named, fn)

    return wrap


def _most_positional(signature: inspect.Signature) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in signature.parameters.values())


def _explain(fn: Callable[..., Any], written: str, hint: str, args: Any, kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(fn)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        text = f"{written} was called with other arguments: {error}."
        given = {*signature.bind_partial(*args[: _most_positional(signature)]).arguments, *kwargs}
        for name in kwargs:
            if name not in signature.parameters:
                meant = _ARGUMENTS.get(name)
                if meant in signature.parameters and meant not in given:
                    text += f" Its {name} is called {meant} here."
        many = "positional" in str(error)
        raise TypeError(f"{text} {hint}" if hint and many else text) from None

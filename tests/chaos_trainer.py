"""The training process that test_chaos.py kills: one life after the other, each in a process of its own.

Importing a framework takes seconds and a life a fraction of one. So this process imports everything once, touches
no device, and forks for each life; the fork trains until it is done, is told to stop, or is killed. What it is
doing stands in a few numbers of shared memory, which outlive it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import unbounded as ub
from intercepted_files import intercept

FIELDS = (
    "phase",  # of PHASES
    "resumed",  # the step at which this life took the run up; -1 before it has
    "steps",  # trained on, as the feed counts them
    "saved",  # the step of the newest checkpoint that was written to its end; -1 for none
    "saving",  # the step of the one that is being written; -1 for none
    "calls",  # calls to the disk in that one so far
    "held",  # 1: it stands still, and waits to be killed
    "hold_call",  # set by the parent: stand still at this call of a checkpoint's write; -1 for never
    "hold_half",  # set by the parent: if that call writes bytes, write half of them first
    "from_step",  # set by the parent: …of the first checkpoint of this many new steps
    "gate",  # set by the parent: stand still after this many new steps; -1 for never
)
PHASES = ("starting", "training", "inside a checkpoint's write", "finished")
STARTING, TRAINING, SAVING, FINISHED = range(4)

BATCH = 4
EPOCH = 10
EVERY = 3
COLUMNS = 3


class Board:
    """A few numbers in a file that two processes have in their memory."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b" if path.exists() else "w+b") as file:
            file.truncate(8 * len(FIELDS))
            self._memory = mmap.mmap(file.fileno(), 8 * len(FIELDS))

    def __getitem__(self, field: str) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * FIELDS.index(field))[0])

    def __setitem__(self, field: str, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * FIELDS.index(field), value)


# -- the data ----------------------------------------------------------------------------------------------------


def rows(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first column is their number."""
    ids = np.arange(first, first + count)
    x = np.stack([ids, np.sin(ids), np.cos(ids * 0.3)], 1).astype(np.float32)
    return x, np.cos(ids * 0.7).astype(np.float32)[:, None]


class Numbers:
    """Rows for ever, from an iterator that can say where it stands: the ids 0 … n − 1 again and again."""

    def __init__(self, ids: int) -> None:
        self._ids = ids
        self._next = 0

    def __iter__(self) -> Numbers:
        return self

    def __next__(self) -> Any:
        first, self._next = self._next, self._next + 1 + self._next % 7
        return wrapped(first, self._next - first, self._ids)

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._next = state["next"]


def wrapped(first: int, count: int, ids: int) -> Any:
    """Rows `first` … of those that repeat after `ids`."""
    x, y = rows(0, ids)
    at = np.arange(first, first + count) % ids
    return x[at], y[at]


def source(kind: str, ids: int, counter: str | None) -> ub.Stream:
    """The source of a run."""
    if kind == "arrays":
        return ub.from_arrays(rows(0, ids), seed=5)
    if kind == "start":

        def from_start(start: int = 0) -> Iterator[Any]:
            while True:
                yield wrapped(start, 1 + start % 7, ids)
                start += 1 + start % 7

        return ub.from_generator(from_start)
    if kind == "mix":
        sources = {"old": source("arrays", ids, counter), "new": source("start", ids, counter)}
        return ub.mix(sources, weights={"old": 1, "new": 3}, seed=4)
    if kind == "keyed":
        return keyed(ids)
    if kind == "state":
        return ub.from_generator(lambda: Numbers(ids))

    if kind == "numbered":

        def numbered(past: Any) -> Iterator[Any]:
            """It can't go back, and numbers its rows on from those that were read of it."""
            first = past.rows
            while True:
                yield wrapped(first, 1 + first % 7, ids)
                first += 1 + first % 7

        return ub.from_generator(numbered)

    def once() -> Iterator[Any]:
        """Asks the parent for ids; each is handed out once, whatever becomes of it."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(counter))
            while True:
                line.sendall(b"?")
                first, count = struct.unpack("<qq", line.recv(16, socket.MSG_WAITALL))
                yield rows(first, count)

    return ub.from_generator(once)


def keyed(ids: int) -> ub.Stream:
    """All keyed stages: rows whose labels come later, normalised and in windows by key."""
    x, y = rows(0, ids)
    table = {"id": np.arange(ids), "key": np.arange(ids) % 7, "x": x, "s": x[:, 1]}

    def later(start: int = 0) -> Iterator[Any]:
        while True:
            at = np.arange(start - 9, start - 9 + 1 + start % 7) % ids
            yield {"id": at, "y": y[at]}
            start += len(at)

    def last(windows: Any) -> Any:
        moved = windows["x"][:, -1].copy()
        moved[:, 1] = windows["s"].sum(axis=1)
        return moved, windows["y"][:, -1]

    joined = ub.from_arrays(table, shuffle=False).join(ub.from_generator(later), on="id", within=20)
    return joined.normalize("s", by="key").windows(3, by="key").map(last)


def noise(batch: Any, rng: np.random.Generator) -> Any:
    """Augmentation: all but the id moves."""
    x, y = batch
    moved = x + rng.normal(0, 0.1, x.shape).astype(np.float32)
    moved[:, 0] = x[:, 0]
    return moved, y


def stream(life: dict[str, Any]) -> ub.Stream:
    """Everything that holds rows back, one after the other."""
    made = source(life["source"], life["ids"], life.get("counter")).random_map(noise, seed=1)
    made = made.shuffle(30, seed=2)
    if life["replay"]:
        made = made.replay(40, reuse=2.0)
    return made.batch(BATCH).prefetch(4)


# -- a life ------------------------------------------------------------------------------------------------------


def live(life: dict[str, Any]) -> None:
    """Train from where the run stands to its end, and write down what the model has become."""
    import keras

    import keras_models as km

    class Scaled(keras.layers.Layer):  # type: ignore[misc]
        """Small numbers of large ids. (Keras's own such layer looks for TensorFlow on every backend.)"""

        def call(self, x: Any) -> Any:
            return x / life["ids"]

    board = Board(Path(life["board"]))
    keras.utils.set_random_seed(0)
    layers = [km.Recorder(life["ids"], life["room"]), Scaled(), keras.layers.Dense(4, "tanh")]
    layers += [keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((COLUMNS,)), *layers])
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="mse")
    made = stream(life)
    with ub.keras.Feed(made, epoch=ub.Epoch(steps=EPOCH)) as feed:

        class Told(keras.callbacks.Callback):  # type: ignore[misc]
            """Says which step was trained, and goes no further than it may."""

            def __init__(self) -> None:
                super().__init__()
                self.since_held = 0  # steps trained while a checkpoint's write stands still

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                if board["resumed"] < 0:
                    board["resumed"] = board["steps"] = feed.steps
                    board["phase"] = TRAINING

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                board["steps"] = feed.steps
                if 0 <= board["gate"] <= feed.steps - board["resumed"]:
                    stand_still(board, lambda: feed.core.interrupted)
                self.since_held += board["held"]
                if self.since_held > 3:
                    stand_still(board)

        saver = ub.keras.Checkpoint(feed, life["directory"], every=EVERY, keep=2)
        write = saver._saving._write

        def told(cut: Any) -> None:
            """Says when a checkpoint is written: in a thread, while training goes on."""
            board["calls"], board["saving"], board["phase"] = 0, cut.step, SAVING
            write(cut)
            if is_meant(board):  # it had fewer calls than that
                stand_still(board)
            board["saved"], board["saving"], board["phase"] = cut.step, -1, TRAINING

        saver._saving._write = told  # type: ignore[method-assign]
        callbacks = [
            keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.7, patience=1, min_delta=0.1),
            Told(),
            saver,
        ]
        intercept(door(board))
        history = model.fit(feed, epochs=life["steps"] // EPOCH, verbose=0, callbacks=callbacks)
        board["phase"] = FINISHED
        if saver.stopped_by is not None:
            return
        stats = feed.stats
        variables: dict[str, Any] = {f"variable {i}": value for i, value in enumerate(km.weights(model))}
        np.savez(
            life["result"],
            order=np.array(km.trained_ids(model)),
            counts=np.array(km.trained_counts(model)),
            loss=np.array(history.history["loss"][-1:]),
            stats=np.array([stats.steps, stats.rows, stats.fetched]),
            iterations=np.array(int(model.optimizer.iterations)),
            **variables,
        )


def is_meant(board: Board) -> bool:
    """Whether this is a checkpoint in which to stand still."""
    return board["hold_call"] >= 0 and board["saving"] - board["resumed"] >= board["from_step"]


def door(board: Board) -> Callable[..., Any]:
    """What all calls to the disk go through, so that one can stand still in the middle of a checkpoint."""

    def call(function: Callable[..., Any], *args: Any) -> Any:
        if board["phase"] == SAVING and is_meant(board) and board["calls"] == board["hold_call"]:
            if board["hold_half"] and function is os.write:
                os.write(args[0], args[1][: len(args[1]) // 2])
            stand_still(board)
        result = function(*args)
        board["calls"] += 1
        return result

    return call


def stand_still(board: Board, told_to_stop: Callable[[], bool] = lambda: False) -> None:
    """Wait to be killed, or to be told to stop."""
    board["held"] = 1
    parent = os.getppid()
    while not told_to_stop():
        time.sleep(0.005)
        if os.getppid() != parent:  # its death is the end of the test
            os._exit(3)


# -- the process that forks --------------------------------------------------------------------------------------


def main() -> None:
    """For each line of JSON on stdin, a life: its process id goes to stdout, and then how it ended."""
    if os.environ["KERAS_BACKEND"] != "tensorflow":
        # Keras looks whether it is there, which takes each life some seconds where it is.
        sys.modules["tensorflow"] = None  # type: ignore[assignment]
    import keras_models  # noqa: F401
    import unbounded.keras  # noqa: F401

    # JAX says that its threads and forks don't go together. It has none yet: nothing was computed.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
    gc.freeze()  # else a collection in a life would copy all of this
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(run(life))
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        have_ready(Path(life["log"] + ".modules"))
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


def have_ready(names: Path) -> None:
    """Import what a life had to import, so that the next need not."""
    if names.exists():
        for name in json.loads(names.read_text()):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        names.unlink()


def run(life: dict[str, Any]) -> int:
    """One life, in the forked process; what it has to say goes to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fd = os.open(life["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    known = set(sys.modules)
    try:
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")
        live(life)
        Path(life["log"] + ".modules").write_text(json.dumps(sorted(set(sys.modules) - known)))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main()

"""A writer that dies at any moment, and a computer that loses power, leave the old checkpoint or the new one.

A process that is killed loses nothing that it gave to the kernel: for that, a child dies at each of its
calls. A computer that loses power may lose all that was not synced, in any order: for that, the calls are
played to a model of a disk, too, which says what may be left after each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intercepted_files import all_changes, intercept
from unbounded.core.runtime import SYSTEM
from unbounded.store.checkpoints import CheckpointError, Checkpoints, DamagedError

KEEP = 2


def state(number: int) -> dict[str, Any]:
    return {"w": np.full(50, number, np.float32), "step": number}


def write(checkpoints: Checkpoints, number: int, text: str = "old") -> None:
    segment = checkpoints.add_segment(f"rows-{number}", {"x": np.arange(number)})
    checkpoints.write(number, {**state(number), "text": text}, {"text": text}, segments=[segment])


def assert_whole(saved: Any) -> None:
    back = saved.read_state()
    assert back["step"] == saved.number
    assert back["text"] == saved.info["text"]
    assert np.array_equal(back["w"], state(saved.number)["w"])
    assert saved.read_segment(f"rows-{saved.number}")["x"].size == saved.number


# What is there before, what is written, and what may be found after: (number, text), None for no checkpoint.
SCENARIOS: dict[str, tuple[list[int], int, list[tuple[int, str] | None]]] = {
    "the first": ([], 1, [None, (1, "new")]),
    "one more": ([1], 2, [(1, "old"), (2, "new")]),
    "one more than is kept": ([1, 2], 3, [(2, "old"), (3, "new")]),
    "the same again": ([1, 2], 2, [(2, "old"), (2, "new")]),
    "one from before": ([2, 3], 1, [(3, "old"), (1, "new")]),
}
scenarios = pytest.mark.parametrize("name", SCENARIOS)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory in memory, where there is such: a disk's syncs would take most of the time here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


def begin(path: Path, name: str) -> None:
    with Checkpoints(path, keep=KEEP) as checkpoints:
        for number in SCENARIOS[name][0]:
            write(checkpoints, number)


def find(path: Path, name: str) -> tuple[int, str] | None:
    """What is found there (damage warns, which is an error here); as many as were promised are whole."""
    before, _, outcomes = SCENARIOS[name]
    saved = Checkpoints(path).newest()
    found = None if saved is None else (saved.number, saved.info["text"])
    assert found in outcomes
    whole = []
    for other in Checkpoints(path).all():
        # One that is no longer kept may be half removed when power is lost.
        with contextlib.suppress(DamagedError):
            other.check()
            assert_whole(other)
            whole.append(other)
    assert len(whole) >= min(KEEP, len(before))
    return found


def assert_goes_on(path: Path) -> None:
    """The next writer leaves nothing but what is kept."""
    with Checkpoints(path, keep=KEEP) as checkpoints:
        write(checkpoints, 10)
        write(checkpoints, 11)
        for saved in checkpoints.all():
            assert_whole(saved)
    assert sorted(entry.name[:4] for entry in path.iterdir()) == [".loc", "segm", "step", "step"]
    assert sorted(entry.name[:8] for entry in (path / "segments").iterdir()) == ["rows-10-", "rows-11-"]


# ---- a process that is killed ----


BEFORE, IS_WRITE, WHOLE = 9, 10, 0  # how a writer ended: before a call, before a write, or not at all


def die_at_each_call(base: Path, name: str) -> None:
    """Fork a writer again and again; each dies before a later call, and half through it if that is a write. (To die
    after a call is to die before the next one.)"""
    for last in range(1000):
        status = _written_until(base, base.parent / f"{last}", name, last, half=False)
        if status == WHOLE:
            shutil.rmtree(base.parent / f"{last}")
            print(last)
            return
        if status == IS_WRITE:
            assert _written_until(base, base.parent / f"{last}-half", name, last, half=True) == IS_WRITE


def _written_until(base: Path, path: Path, name: str, last: int, *, half: bool) -> int:
    """Fork a writer that dies at a call; how it ended."""
    if base.exists():
        shutil.copytree(base, path)
    child = os.fork()
    if child == 0:
        calls = iter(range(1000))

        def call(function: Callable[..., Any], *args: Any) -> Any:
            if next(calls) == last:
                if half:
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os._exit(IS_WRITE if function is os.write else BEFORE)
            return function(*args)

        intercept(call)
        write(Checkpoints(path, keep=KEEP), SCENARIOS[name][1], "new")
        os._exit(WHOLE)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (BEFORE, IS_WRITE, WHOLE)
    return status


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@scenarios
def test_a_writer_killed_at_any_call_leaves_the_old_or_the_new_one(name: str, place: Path) -> None:
    if SCENARIOS[name][0]:
        begin(place / "base", name)
    # In a process of its own: this one may have threads of frameworks, which no fork outlives.
    given = [sys.executable, __file__, str(place / "base"), name]
    calls = int(subprocess.check_output(given, text=True))
    found = []
    halves = [place / f"{last}-half" for last in range(calls)]
    for path in [*(place / f"{last}" for last in range(calls)), *(half for half in halves if half.exists())]:
        found.append(find(path, name) if path.exists() else None)
        assert_goes_on(path)
    # Not all of one kind: the crash came before the new one was there, and after.
    assert set(found) == set(SCENARIOS[name][2])
    assert calls > 9
    assert any(half.exists() for half in halves)


# ---- a disk that refuses ----


@pytest.mark.parametrize("for_good", [False, True])
@scenarios
def test_a_disk_that_fails_at_any_call_leaves_the_old_or_the_new_one(name: str, for_good: bool, place: Path) -> None:
    for failing in range(1000):
        path = place / str(failing)
        begin(path, name)
        calls = 0

        def call(function: Callable[..., Any], *args: Any, failing: int = failing) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 == failing or (for_good and calls > failing):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*args)

        checkpoints = Checkpoints(path, keep=KEEP)
        with all_changes(call):
            problem: Exception | None = None
            try:
                write(checkpoints, SCENARIOS[name][1], "new")
            except (CheckpointError, UserWarning) as error:
                problem = error
        found = find(path, name)
        assert (problem is None) == (calls <= failing)
        if isinstance(problem, CheckpointError):
            assert "No space left on device" in str(problem)
            assert isinstance(problem.__cause__, OSError)
            assert for_good or not [*path.glob(".tmp-*"), *path.glob("segments/.tmp-*")]
        elif problem is not None:  # the new one is there; an old one could not be removed
            assert "could not be removed: No space left" in str(problem)
            assert found == SCENARIOS[name][2][1]
        write(checkpoints, 9)
        checkpoints.close()
        assert_goes_on(path)
        if calls <= failing:
            break
    assert failing > 9


# ---- a computer that loses its power ----


class Node:
    """A file (content) or a directory (names): as the kernel sees it now, and as it is on the disk."""

    def __init__(self, content: bytes | dict[str, Node]) -> None:
        self.now = content
        self.disk: Any = content.copy() if isinstance(content, dict) else content
        self.unsynced: list[dict[str, Node | None]] = []  # of a directory: names changed together, in order


class ModelDisk:
    """What may be left of a directory after a loss of power, given the calls that changed it.

    Whatever was not synced is lost or not, as a random choice says: each change of a directory's names, and a
    file's content, of which a part may be left. A file's sync says nothing of its name.
    """

    def __init__(self, root: Path, skip_sync: int | None = None) -> None:
        self.root = root
        self.top = self.load(root) if root.exists() else Node({})
        self.open: dict[int, Node] = {}
        self.skip_sync = skip_sync
        self.syncs = 0

    def load(self, path: Path) -> Node:
        if path.is_dir():
            return Node({entry.name: self.load(entry) for entry in path.iterdir()})
        return Node(path.read_bytes())

    def find(self, path: Path) -> Node:
        node = self.top
        for name in path.relative_to(self.root).parts:
            node = node.now[name]  # type: ignore[index, assignment, call-overload]
        return node

    def change(self, folder: Path, names: dict[str, Node | None]) -> None:
        node = self.find(folder)
        assert isinstance(node.now, dict)
        for name, inside in names.items():
            if inside is None:
                del node.now[name]
            else:
                node.now[name] = inside
        node.unsynced.append(names)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        folder = None if isinstance(args[0], int) else Path(args[0]).parent
        known = folder is not None and (folder == self.root or self.root in folder.parents)
        if function is os.fsync:
            path = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
            self.syncs += 1
            if self.syncs - 1 != self.skip_sync and (path == self.root or self.root in path.parents):
                self.sync(self.find(path))
        elif function in (os.unlink, os.rmdir) and known:
            self.change(folder, {args[0].name: None})  # type: ignore[arg-type]
        elif function is os.replace:
            node = self.find(args[0])
            assert folder == args[1].parent
            self.change(args[0].parent, {args[0].name: None, args[1].name: node})
        elif function is os.mkdir and known:
            self.change(folder, {args[0].name: Node({})})  # type: ignore[arg-type]
        done = function(*args)
        if function is os.open:
            assert folder is not None
            there = self.find(folder).now
            assert isinstance(there, dict)
            if args[0].name not in there:
                self.change(folder, {args[0].name: Node(b"")})
                self.find(args[0]).disk = b""
            self.open[done] = self.find(args[0])
        elif function is os.write:
            self.open[args[0]].now += bytes(args[1][:done])  # type: ignore[operator]
        return done

    def sync(self, node: Node) -> None:
        node.unsynced.clear()
        node.disk = node.now.copy() if isinstance(node.now, dict) else node.now

    def lose_power(self, target: Path, rng: random.Random, luck: float) -> None:
        """Write what is left to a directory; what was not synced is there with a chance of `luck`."""

        def leave(node: Node, path: Path) -> None:
            if not isinstance(node.now, dict):
                whole = rng.random() < luck
                kept = node.now if whole else node.disk or node.now[: rng.randrange(len(node.now) + 1) // 2]
                path.write_bytes(kept)
                return
            names = dict(node.disk)
            for change in node.unsynced:
                if rng.random() < luck:
                    for name, inside in change.items():
                        names.pop(name, None) if inside is None else names.update({name: inside})
            path.mkdir(parents=True)
            for name, inside in names.items():
                leave(inside, path / name)

        leave(self.top, target)


def images(place: Path, name: str, skip_sync: int | None = None) -> Iterator[tuple[Path, bool]]:
    """What may be left at any moment of a write, and whether the write had returned."""
    rng = random.Random(0)
    path = (place / "run").resolve()
    begin(path, name)
    model = ModelDisk(path, skip_sync)
    made: list[Path] = []

    def leave() -> None:
        for luck in (0.0, 1.0, 0.5, 0.5, 0.2, 0.8):
            made.append(place / f"image-{len(made)}")
            model.lose_power(made[-1], rng, luck)

    def call(function: Callable[..., Any], *args: Any) -> Any:
        leave()
        return model.call(function, *args)

    with all_changes(call):
        # Its directories are on the disk: that they are is another promise, of `Files.make_directory`.
        SYSTEM.files._on_disk |= {path, path / "segments", *path.parents}
        write(Checkpoints(path, keep=KEEP), SCENARIOS[name][1], "new")
    leave()
    for i, image in enumerate(made):
        yield image, i >= len(made) - 6


def promise(name: str, images: Iterable[tuple[Path, bool]]) -> None:
    found = set()
    for image, is_done in images:
        found.add(find(image, name))
        if is_done:  # what was said to be saved is saved
            assert find(image, name) == SCENARIOS[name][2][1]
        shutil.rmtree(image)
    assert found == set(SCENARIOS[name][2])


linux = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="this system doesn't say what a file is")


@linux
@scenarios
def test_a_loss_of_power_at_any_call_leaves_the_old_or_the_new_one(name: str, place: Path) -> None:
    promise(name, images(place, name))


@linux
def test_no_sync_is_one_too_many(place: Path) -> None:
    # Each of them left out must break the promise above; so must each that is forgotten.
    name = "one more"
    for skipped in range(6):
        with pytest.raises((AssertionError, UserWarning, CheckpointError)):
            promise(name, images(place / str(skipped), name, skipped))
    promise(name, images(place / "all", name, 6))  # there are no more than these six


if __name__ == "__main__":
    die_at_each_call(Path(sys.argv[1]), sys.argv[2])

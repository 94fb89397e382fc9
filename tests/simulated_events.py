"""What may happen to a run in a simulated walk: saves, stops, feeds beside it, and what people do to its directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import unbounded as ub

if TYPE_CHECKING:
    from tests.simulated import Walk


def during(walk: Walk, feed: ub.Feed) -> bool:
    """Something that happens between two batches, now and then; says whether the loop is over with it."""
    chance = walk.rng.random()
    for share, event in _EVENTS:
        chance -= share
        if chance < 0:
            walk.events.append(event.__name__.strip("_"))
            return bool(event(walk, feed))
    return False


def _save(walk: Walk, feed: ub.Feed) -> None:
    walk.save(feed, walk.directory, wait=walk.rng.random() < 0.5)


def _save_elsewhere(walk: Walk, feed: ub.Feed) -> None:
    # Of each feed its own: one that begins anew, after another was forgotten, is refused where that one has saved.
    place = f"elsewhere-{walk.lives}-{walk.events.count('forget')}"
    walk.save(feed, walk.directory.parent / place, wait=True)


def _load_state(walk: Walk, feed: ub.Feed) -> bool:
    feed.load_state_dict(feed.state_dict())
    return True


def _rewind(walk: Walk, feed: ub.Feed) -> bool:
    feed.rewind()
    return True


def _pause(walk: Walk, feed: ub.Feed) -> None:
    walk.simulation.sleep(walk.rng.random() * 10)


def _interrupt(walk: Walk, feed: ub.Feed) -> bool:
    stopper = walk.simulation.thread(feed.interrupt, "stopper")
    stopper.start()
    try:
        for batch in feed.batches():
            walk.train(feed, batch)
            if walk.done:
                break
    finally:
        stopper.join()
        feed.resume()
    return True


def _forget(walk: Walk, feed: ub.Feed) -> bool:
    """The feed is forgotten, unclosed, and another one goes on, as where a cell of a notebook is run again."""
    walk.forgets = not walk.pending
    return walk.forgets


def _remove_directory(walk: Walk, feed: ub.Feed) -> None:
    """Somebody removes the directory under a run at work. What it saves next is whole again."""
    if not walk.pending:
        walk.simulation.remove(walk.directory)
        walk.go_to(walk.directory, {})
        walk.wiped()


def _intrude(walk: Walk, feed: ub.Feed) -> None:
    """A feed of another run would save to the directory, which is refused."""
    if walk.pending or not walk.durable:
        return
    before = _kept(walk)
    stream = ub.from_generator(_other) if walk.rng.random() < 0.5 else ub.from_arrays(np.arange(7))
    with ub.Feed(stream.batch(2), runtime=walk.simulation) as other:
        next(iter(other.batches()))
        other.trained()
        try:
            other.save(walk.directory, state={"steps": 0, "trained": np.array([-1])})
        except ub.CheckpointError:
            pass
        else:
            raise AssertionError("another run's checkpoint was written into the directory of this one")
    found = _kept(walk)
    assert found == before, f"a save that was refused has left {found} where {before} was"


def _kept(walk: Walk) -> list[str]:
    """What the directory holds, but for what a killed writer left."""
    return [name for name in walk.simulation.names(walk.directory) if not name.startswith(".tmp")]


def _other() -> Iterator[Any]:
    while True:
        yield np.full(3, -5)


_EVENTS: list[tuple[float, Callable[[Walk, ub.Feed], bool | None]]] = [
    (0.2, _save),
    (0.04, _load_state),
    (0.02, _rewind),
    (0.02, _pause),
    (0.02, _interrupt),
    (0.015, _forget),
    (0.005, _remove_directory),
    (0.015, _intrude),
    (0.015, _save_elsewhere),
]


def between(walk: Walk) -> None:
    """Something that happens between two processes, now and then."""
    chance = walk.rng.random()
    there = walk.simulation.names(walk.directory)
    if chance < 0.04:
        walk.simulation.remove(walk.directory)
        walk.go_to(walk.directory, {})
        walk.wiped()
        walk.events.append("removed")
    elif chance < 0.12 and there:
        copy = walk.directory.parent / f"copy-{walk.lives}"
        walk.simulation.copy(walk.directory, copy)
        if walk.rng.random() < 0.5:
            walk.simulation.remove(walk.directory)
        walk.go_to(copy, walk.on_disk)
        walk.events.append("copied")
    elif chance < 0.22:
        _go_back(walk, there)
    elif chance < 0.5 and walk.elsewhere is not None:
        directory, step, cut = walk.elsewhere
        walk.go_to(directory, {step: cut})
        walk.moved(cut)
        walk.events.append("moved")


def _go_back(walk: Walk, there: list[str]) -> None:
    """Somebody removes the checkpoints after an older one."""
    names = sorted((name for name in there if name.startswith("step-")), key=lambda name: (name[18:], name))
    # Of more than two that are kept, the oldest may be on its way out.
    known = [int(name[5:17]) for name in names[-2:-1]]
    steps = [step for step in known if step in walk.on_disk and names.count(f"step-{step:012d}")]
    if not steps:
        return
    step = walk.rng.choice(steps)
    for name in there:
        if name.startswith("step-") and name != f"step-{step:012d}":
            walk.simulation.remove(walk.directory / name)
    walk.go_to(walk.directory, {step: walk.on_disk[step]})
    walk.events.append(f"back to step {step}")

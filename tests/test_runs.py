"""A directory holds one run: checkpoints of another run are neither removed nor superseded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import once, table, train
from unbounded.store.checkpoints import CheckpointError, Checkpoints, DamagedCheckpoint

pytestmark = pytest.mark.usefixtures("no_threads_left")


def run(directory: Path, *steps: int, load: bool = True, keep: int = 3, stream: ub.Stream | None = None) -> None:
    """A process's life: it trains and saves again and again."""
    with ub.Feed(stream or table(100).batch(4)) as feed:
        if load:
            feed.load(directory)
        for more in steps:
            train(feed, more)
            feed.save(directory, state={"steps": feed.steps}, keep=keep)


def content(directory: Path) -> dict[str, str]:
    """Each file below a directory and a checksum of it; the lock says who wrote last, and is left out."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def numbers(directory: Path) -> list[int]:
    return [saved.number for saved in Checkpoints(directory).all()]


@pytest.mark.parametrize("stream", [table(100).batch(4), ub.from_generator(once).batch(4)], ids=["arrays", "live"])
def test_a_run_that_forgot_to_load_leaves_the_old_one_as_it_was(stream: ub.Stream, tmp_path: Path) -> None:
    run(tmp_path, 5, 5, 5, stream=stream)
    before = content(tmp_path)
    with ub.Feed(stream) as feed:
        for _ in range(3):
            train(feed, 1)
            with pytest.raises(CheckpointError, match=r"holds step-0*15 of another run.*feed\.load\(.*another dir"):
                feed.save(tmp_path, keep=1)
        assert content(tmp_path) == before
        feed.save(tmp_path / "other")
        assert len(train(feed, 2)) == 2
    assert numbers(tmp_path) == [5, 10, 15]
    with ub.Feed(stream) as feed:
        assert feed.load(tmp_path) == {"steps": 15}


def test_a_run_keeps_its_id_over_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        run(tmp_path, 5)
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("step-*/manifest.json")]
    assert len({manifest["run"] for manifest in manifests}) == 1
    assert len(manifests) == 3
    run(tmp_path / "other", 5)
    other = json.loads((tmp_path / "other" / "step-000000000005" / "manifest.json").read_text())
    assert other["run"] != manifests[0]["run"]


def test_a_load_that_was_refused_is_none(tmp_path: Path) -> None:
    run(tmp_path, 5)
    with ub.Feed(table(100, seed=5).batch(4)) as feed:
        with pytest.raises(ValueError, match="another stream"):
            feed.load(tmp_path)
        with pytest.raises(CheckpointError, match="of another run"):
            feed.save(tmp_path)
        with pytest.warns(UserWarning, match="another stream"):
            feed.load(tmp_path, accept_changes=True)
        train(feed, 1)
        feed.save(tmp_path)
    assert numbers(tmp_path) == [5, 6]


def test_of_two_runs_in_one_directory_neither_loses_a_checkpoint_to_the_other(tmp_path: Path) -> None:
    run(tmp_path / "a", 10, 10, 10)
    run(tmp_path / "b", 5, 5, stream=ub.from_generator(once).batch(4))
    for path in (tmp_path / "b").glob("step-*"):  # as two runs left them before they were told apart
        path.rename(tmp_path / "a" / f"{path.name}.1")
    shutil.copytree(tmp_path / "b" / "log", tmp_path / "a" / "log")
    run(tmp_path / "a", 5, 5, 5, keep=2, stream=ub.from_generator(once).batch(4))
    assert numbers(tmp_path / "a") == [10, 20, 30, 20, 25]
    for saved in Checkpoints(tmp_path / "a").all():
        saved.check()


def test_a_damaged_newest_is_not_swapped_for_another_runs_without_a_word(tmp_path: Path) -> None:
    run(tmp_path / "a", 10)
    run(tmp_path / "b", 5)
    (tmp_path / "b" / "step-000000000005").rename(tmp_path / "a" / "step-000000000005.1")
    (tmp_path / "a" / "step-000000000005.1" / "state.npz").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint, match=r"Going on from .*0010 instead, which another run wrote"):
        run(tmp_path / "a", 5)
    assert numbers(tmp_path / "a") == [10, 5, 15]


def test_one_feed_saves_to_several_directories_in_turn(tmp_path: Path) -> None:
    last, best = tmp_path / "last", tmp_path / "best"

    def life(number: int) -> None:
        with ub.Feed(ub.from_generator(once).batch(4)) as feed:
            feed.load(last)
            for directory in (last, best, last, best):
                train(feed, 2)
                feed.save(directory, keep=1)
            assert feed.steps == 6 * number + 2

    for number in (1, 2, 3):
        life(number)
    assert (numbers(last), numbers(best)) == ([18], [20])


def test_of_two_processes_that_took_up_a_run_the_second_to_save_is_told(tmp_path: Path) -> None:
    run(tmp_path, 5)
    with ub.Feed(table(100).batch(4)) as slow:
        slow.load(tmp_path)
        train(slow, 1)
        run(tmp_path, 5)  # lets go of the directory at its end
        before = content(tmp_path)
        with pytest.raises(
            CheckpointError, match=r"Another process or feed wrote step-0*10 .*Nothing was saved.*load it again"
        ):
            slow.save(tmp_path)
        assert content(tmp_path) == before


def test_a_copied_run_goes_on_in_both_places(tmp_path: Path) -> None:
    run(tmp_path / "a", 5, 5)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    run(tmp_path / "a", 5, keep=1)
    run(tmp_path / "b", 7, keep=1)
    assert (numbers(tmp_path / "a"), numbers(tmp_path / "b")) == ([15], [17])


def test_an_empty_directory_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run(tmp_path / "run", 5, load=False)
    run(tmp_path / "new", 5, load=False)
    assert numbers(tmp_path / "run") == numbers(tmp_path / "new") == [5]


def test_a_store_without_a_run_writes_for_the_newest_ones(tmp_path: Path) -> None:
    run(tmp_path, 5, 5)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.write(11, {"w": np.ones(1)}, {})
    (only,) = Checkpoints(tmp_path).all()
    assert only.number == 11


def test_a_manifest_that_cannot_be_read_is_removed_in_time_where_it_can_be_no_other_runs(tmp_path: Path) -> None:
    run(tmp_path, 5, 5)
    (tmp_path / "step-000000000010" / "manifest.json").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint):
        run(tmp_path, 1, 1, keep=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000000000006.1", "step-000000000007.1"]


def test_another_runs_unreadable_manifest_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path / "a", 10, 10)
    run(tmp_path / "b", 5)
    (tmp_path / "b" / "step-000000000005").rename(tmp_path / "a" / "step-000000000005.1")
    (tmp_path / "a" / "step-000000000010" / "manifest.json").write_bytes(b"")
    run(tmp_path / "a", 1, 1, keep=1)
    left: Any = sorted(path.name for path in (tmp_path / "a").glob("step-*"))
    assert left == ["step-000000000007.1", "step-000000000010", "step-000000000020"]


def test_a_run_from_before_runs_had_ids_is_gone_on_with(tmp_path: Path) -> None:
    run(tmp_path, 5, 5)
    for path in tmp_path.glob("step-*/manifest.json"):
        rest = path.read_bytes().split(b"\n", 1)[1]
        rest = b"\n".join(line for line in rest.split(b"\n") if not line.startswith(b' "run"'))
        path.write_bytes(b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest)
    run(tmp_path, 5, 5, keep=2)
    assert numbers(tmp_path) == [15, 20]


@pytest.mark.parametrize(
    ("info", "by"), [({"keras": {}, "feeds": []}, r"ub\.keras\.Checkpoint"), ({}, "something else")]
)
def test_a_checkpoint_that_is_no_feeds_is_refused_in_words(info: Any, by: str, tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.write(3, {}, info)
    with ub.Feed(table(100).batch(4)) as feed:
        with pytest.raises(CheckpointError, match=rf"step-0*3 was written by {by}"):
            feed.load(tmp_path)
        with pytest.raises(CheckpointError, match="of another run"):
            feed.save(tmp_path)
        train(feed, 1)
        feed.save(tmp_path / "mine")


def test_a_state_that_cannot_be_read_leaves_the_feed_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 5)

    def fails(*_: Any, **__: Any) -> Any:
        raise ImportError("the state holds arrays of a framework that is not there")

    with ub.Feed(table(100).batch(4)) as feed:
        with monkeypatch.context() as patch:
            patch.setattr("unbounded.core.packing.Unread.tree", fails)
            with pytest.raises(ImportError):
                feed.load(tmp_path)
        assert feed.steps == 0
        feed.load(tmp_path)
        assert feed.steps == 5

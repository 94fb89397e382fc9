"""A directory of checkpoints: which are kept, which damage is detected, and the errors."""

from __future__ import annotations

import doctest
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intercepted_files import InterceptedFiles, all_changes
from test_directories import Other
from unbounded.core.files import Files
from unbounded.core.runtime import Runtime
from unbounded.store import checkpoints
from unbounded.store.checkpoints import CheckpointError, Checkpoints, DamagedCheckpoint, DamagedError
from unbounded.store.directory import Directory, write_file
from unbounded.store.saved import open_saved


def state(number: int) -> dict[str, Any]:
    return {"w": np.full(300, number, np.float32), "step": number}


def save(checkpoints: Checkpoints, *numbers: int) -> None:
    for number in numbers:
        checkpoints.write(number, state(number), {"epoch": number})


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name not in (".lock", "segments"))


def segment_files(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "segments").iterdir())


def read(checkpoints: Checkpoints) -> int:
    """The newest one's number, after a look at all that it holds."""
    saved = checkpoints.newest()
    assert saved is not None
    back = saved.read_state()
    assert back["step"] == saved.number
    assert saved.info == {"epoch": saved.number}
    assert np.array_equal(back["w"], state(saved.number)["w"])
    return saved.number


def test_an_empty_or_absent_directory_has_no_checkpoint_and_is_left_alone(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).newest() is None
    assert Checkpoints(tmp_path / "absent").newest() is None
    assert Checkpoints(tmp_path / "absent").all() == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read_by_another_process(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "runs" / "first") as checkpoints:
        path = checkpoints.write(412, {"w": np.arange(3)}, {"loss": float("nan"), "mark": (1, 2)})
    assert path.name == "step-000000000412"
    assert sorted(entry.name for entry in path.iterdir()) == ["manifest.json", "state.npz"]
    code = (
        "import sys; from unbounded.store.checkpoints import Checkpoints; "
        "saved = Checkpoints(sys.argv[1]).newest(); "
        "print(saved.number, saved.info, saved.read_state(), 'jax' in sys.modules, 'torch' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", code, str(path.parent)], text=True)
    assert out.strip() == "412 {'loss': nan, 'mark': (1, 2)} {'w': array([0, 1, 2])} False False"


def test_a_manifest_is_json_that_says_what_wrote_it(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).write(1, state(1), {"epoch": 1})
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert set(manifest["wrote"]) == {"unbounded", "numpy", "python"}
    assert manifest["info"] == {"epoch": 1}
    assert manifest["files"]["state.npz"][0] == (path / "state.npz").stat().st_size


def test_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 0, 5, 10, 20)
    assert names(tmp_path) == ["step-000000000010", "step-000000000020"]
    assert [saved.number for saved in checkpoints.all()] == [10, 20]
    assert read(checkpoints) == 20


def test_numbers_beyond_the_zeros_still_sort(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 10**12 - 1, 10**12, 10**30)
    assert [saved.number for saved in checkpoints.all()] == [10**12, 10**30]
    assert read(checkpoints) == 10**30


def test_the_same_number_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 4, 8)
    for text in ("once", "twice"):
        checkpoints.write(8, {}, {"text": text})
        saved = checkpoints.newest()
        assert saved is not None
        assert saved.info == {"text": text}
        assert [other.number for other in checkpoints.all()] == [4, 8]


def test_a_run_that_went_back_is_the_newest_and_its_old_future_goes_in_time(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    save(checkpoints, 100, 110, 120)
    for number in (102, 112, 122):
        save(checkpoints, number)
        assert read(checkpoints) == number
    assert [saved.number for saved in checkpoints.all()] == [102, 112, 122]
    assert names(tmp_path)[0] == "step-000000000102.1"


@pytest.mark.parametrize("keep", [0, -1, True, 2.0])
def test_a_number_to_keep_that_is_none_is_refused(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        Checkpoints(tmp_path, keep=keep)


@pytest.mark.parametrize("number", [-1, 1.0, True, "4"])
def test_a_number_that_is_none_is_refused(number: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Checkpoints(tmp_path).write(number, {}, {})


def test_what_cannot_be_saved_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['w'\]"):
        Checkpoints(tmp_path).write(1, {"w": object()}, {})
    with pytest.raises(TypeError, match=r"info\['w'\]"):
        Checkpoints(tmp_path).write(1, {}, {"w": np.ones(1)})
    assert list(tmp_path.iterdir()) == []


# ---- damage ----


def copies(tmp_path: Path) -> tuple[Path, Callable[[], Path]]:
    """A directory with the checkpoints 1 and 2, the latter with a segment, and what makes copies of it."""
    whole = tmp_path / "whole"
    with Checkpoints(whole) as checkpoints:
        save(checkpoints, 1)
        segment = checkpoints.add_segment("rows", {"x": np.arange(100)})
        checkpoints.write(2, state(2), {"epoch": 2}, segments=[segment])
    count = iter(range(10**6))

    def copy() -> Path:
        return Path(shutil.copytree(whole, tmp_path / str(next(count))))

    return whole, copy


def files_of_the_newest(path: Path) -> list[Path]:
    newest = path / "step-000000000002"
    return [newest / "manifest.json", newest / "state.npz", *(path / "segments").iterdir()]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_truncated_lengthened_or_missing_file_is_noticed(index: int, tmp_path: Path) -> None:
    whole, copy = copies(tmp_path)
    size = files_of_the_newest(whole)[index].stat().st_size
    for length in (None, 0, 1, size // 3, size // 2, size - 1, size + 1):
        path = copy()
        file = files_of_the_newest(path)[index]
        if length is None:
            file.unlink()
        else:
            os.truncate(file, length)
        with pytest.warns(DamagedCheckpoint, match=rf"{re.escape(str(file))} is .*Going on from .*0001") as told:
            assert read(Checkpoints(path)) == 1
        if length is None or index > 0:
            why = "is missing" if length is None else f"it has {length:,} bytes, and {size:,} were written"
            assert why in str(told[0].message)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_flipped_bit_is_noticed_wherever_it_is(index: int, tmp_path: Path) -> None:
    _, copy = copies(tmp_path)
    path = copy()
    file = files_of_the_newest(path)[index]
    good = file.read_bytes()
    for offset in sorted({*range(0, len(good), 17), *range(100), len(good) - 1}):
        bad = bytearray(good)
        bad[offset] ^= 1 << offset % 8
        file.write_bytes(bad)
        with pytest.warns(DamagedCheckpoint, match=re.escape(str(file))):
            assert read(Checkpoints(path)) == 1
    file.write_bytes(good)
    assert read(Checkpoints(path)) == 2


def test_damage_to_all_of_them_is_an_error_that_names_each(tmp_path: Path) -> None:
    _, copy = copies(tmp_path)
    path = copy()
    for number in (1, 2):
        (path / f"step-{number:012}" / "state.npz").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is whole.*0002.*0001.*Put back a copy"):
        Checkpoints(path).newest()


def test_a_damaged_file_is_not_read_as_if_it_were_whole(tmp_path: Path) -> None:
    _, copy = copies(tmp_path)
    path = copy()
    saved = Checkpoints(path).newest()
    assert saved is not None
    for file in files_of_the_newest(path):
        file.write_bytes(b"x" * file.stat().st_size)
    for reading in (saved.read_state, saved.check, lambda: saved.read_segment("rows")):
        with pytest.raises(DamagedError, match="checksum"):
            reading()


def test_a_damaged_one_does_not_count_among_those_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 1, 2)
    (tmp_path / "step-000000000002" / "state.npz").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint):
        assert read(checkpoints) == 1
    save(checkpoints, 3)
    assert [saved.number for saved in checkpoints.all()] == [1, 2, 3]
    save(checkpoints, 4)
    assert [saved.number for saved in checkpoints.all()] == [3, 4]


def test_after_a_fall_back_the_next_one_is_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10, 20)
    (tmp_path / "step-000000000020" / "state.npz").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint):
        assert read(Checkpoints(tmp_path)) == 10
    save(checkpoints, 15)
    assert read(Checkpoints(tmp_path)) == 15
    save(checkpoints, 20)
    assert read(Checkpoints(tmp_path)) == 20


def test_a_damaged_one_that_was_moved_away_is_written_anew(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1, 2)
    (tmp_path / "step-000000000002" / "state.npz").write_bytes(b"")
    with pytest.raises(CheckpointError):
        checkpoints.newest()
    shutil.move(tmp_path / "step-000000000002", tmp_path / "damaged")
    save(checkpoints, 2, 3)
    assert [saved.number for saved in checkpoints.all()] == [3]


def newer(path: Path) -> None:
    """Make a checkpoint of format 2 of a checkpoint, as a later version would write it."""
    import hashlib

    file = path / "manifest.json"
    first, rest = file.read_bytes().split(b"\n", 1)
    rest = rest.replace(b'"format": 1', b'"format": 2')
    file.write_bytes(b'{"sha256": "%s",\n' % hashlib.sha256(rest).hexdigest().encode() + rest)
    assert first != file.read_bytes().split(b"\n", 1)[0]


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 2)
    newer(tmp_path / "step-000000000002")
    for go_on in (Checkpoints(tmp_path).newest, Checkpoints(tmp_path).prepare, Checkpoints(tmp_path).all):
        with pytest.raises(CheckpointError, match=r"format 2, .* reads format 1\. Update it \(pip install"):
            go_on()
    with pytest.raises(CheckpointError, match="format 2"):
        save(Checkpoints(tmp_path, keep=1), 3)
    assert names(tmp_path) == ["step-000000000001", "step-000000000002"]


# ---- a part of a state, for a model that is only used ----


def test_a_part_of_a_state_is_read_without_the_rest(tmp_path: Path) -> None:
    tree = {"model": {"w": np.arange(3), "slots": {"m": np.ones(2)}}, "other": [np.zeros(4)], "step": 7}
    with Checkpoints(tmp_path) as checkpoints:
        path = checkpoints.write(1, tree, {})
    saved = checkpoints.newest()
    assert saved is not None
    assert str(saved.read_state(only=("model",))) == str({"model": tree["model"]})
    assert str(saved.read_state(only=[("model", "w"), "step"])) == str({"model": {"w": np.arange(3)}, "step": 7})
    assert str(saved.read_state(only=[("model", "w"), ("model", "slots")])) == str({"model": tree["model"]})
    assert saved.read_state(only=[]) == {}
    for path_in, there in ((("weights",), "'model', 'other', 'step'"), ([("model", "v")], "'w', 'slots'")):
        with pytest.raises(CheckpointError, match=rf"has no part \(.*; there is {there}"):
            saved.read_state(only=path_in)
    with pytest.raises(CheckpointError, match="there is no dict of names"):
        saved.read_state(only=[("step", "x")])
    assert path == saved.path


def test_the_arrays_of_other_parts_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.write(1, {"a": np.ones(3), "b": np.ones(5), "c": [np.ones(7)]}, {})
    read: list[Any] = []
    original = np.lib.format.read_array

    def note(*args: Any, **given: Any) -> Any:
        array = original(*args, **given)
        read.append(array.shape)
        return array

    monkeypatch.setattr("numpy.lib.format.read_array", note)
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.read_state(only=["b"])["b"].size == 5
    assert read == [(5,)]


def test_a_model_is_read_beside_its_trainer_though_rows_are_damaged(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        segment = checkpoints.add_segment("rows", {"x": np.arange(3)})
        checkpoints.write(1, {"model": state(1)}, {}, segments=[segment])
        (tmp_path / "segments" / segment.file).unlink()
        with Other(tmp_path, "print(checkpoints.read_newest(only=['model'])[1]['model']['step'])") as other:
            assert other.line() == "1"  # the lock is held here
        before = sorted(tmp_path.rglob("*"))
        found = Checkpoints(tmp_path).read_newest(only=["model"])
        assert found is not None
        assert (found[0].number, found[1]["model"]["step"]) == (1, 1)
        assert sorted(tmp_path.rglob("*")) == before
    assert Checkpoints(tmp_path / "none").read_newest() is None


def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 2)
    (tmp_path / "step-000000000002" / "state.npz").write_bytes(b"")
    with pytest.warns(DamagedCheckpoint, match="Going on from .*0001"):
        found = checkpoints.read_newest()
    assert found is not None
    assert found[1]["step"] == 1


def test_each_file_is_read_once_where_a_run_goes_on(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as writer:
        segments = [writer.add_segment(name, {"x": np.arange(9)}) for name in ("a", "b")]
        writer.write(1, state(1), {}, segments=segments)
    read: list[str] = []

    class Noting(Files):
        def open_read(self, path: Path) -> Any:
            read.append(path.name)
            return super().open_read(path)

    runtime = Runtime()
    runtime.files = Noting()
    saved = Checkpoints(tmp_path, runtime=runtime).fetch_newest()
    assert saved is not None
    assert saved.read_state()["step"] == 1
    assert [saved.read_segment(name)["x"].size for name in ("a", "b")] == [9, 9]
    assert read == ["manifest.json", "state.npz", *(segment.file for segment in segments)]
    # Nothing of it is kept: what is asked for again is read again.
    assert saved.read_state()["step"] == 1
    assert read[4:] == ["state.npz"]


def test_a_file_that_changes_after_it_was_checked_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    saved = checkpoints.newest()
    assert saved is not None
    file = tmp_path / saved.name / "state.npz"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DamagedError, match="checksum"):
        saved.read_state()


# ---- segments ----


def test_a_segment_lives_as_long_as_a_kept_checkpoint_lists_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    a = checkpoints.add_segment("a", {"x": np.arange(3), "file": np.ones(2)})
    b = checkpoints.add_segment("b", {"x": np.arange(4)})
    checkpoints.write(1, {}, {}, segments=[a])
    checkpoints.write(2, {}, {}, segments=[a, b])
    checkpoints.write(3, {}, {}, segments=[b])
    assert segment_files(tmp_path) == [a.file, b.file]
    checkpoints.write(4, {}, {}, segments=[b])
    assert segment_files(tmp_path) == [b.file]
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.segments == (b,)
    assert saved.read_segment("b")["x"].tolist() == [0, 1, 2, 3]
    with pytest.raises(CheckpointError, match="lists no segment 'a'; it lists b"):
        saved.read_segment("a")


def test_a_segment_yet_to_be_listed_outlives_the_checkpoints_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    early = checkpoints.add_segment("early", {"x": np.arange(3)})
    save(checkpoints, 1, 2)
    other = Checkpoints(tmp_path, keep=1)  # as a cell that is run again makes one
    save(other, 3)
    other.write(4, {}, {}, segments=[early])
    assert Checkpoints(tmp_path).newest().read_segment("early")["x"].tolist() == [0, 1, 2]  # type: ignore[union-attr]


def test_the_next_process_goes_on_listing_the_segments_that_it_found(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        a = checkpoints.add_segment("a", {"x": np.arange(3)})
        checkpoints.write(1, {}, {}, segments=[a])
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        saved = checkpoints.newest()
        assert saved is not None
        b = checkpoints.add_segment("b", {"x": np.arange(3, 5)})
        checkpoints.write(2, {}, {}, segments=[*saved.segments, b])
        saved = checkpoints.newest()
        assert saved is not None
        assert [saved.read_segment(name)["x"].tolist() for name in "ab"] == [[0, 1, 2], [3, 4]]


def test_a_segment_of_the_same_name_and_other_rows_harms_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {}, {}, segments=[checkpoints.add_segment("a", {"x": np.arange(3)})])
    checkpoints.write(2, {}, {}, segments=[checkpoints.add_segment("a", {"x": np.arange(5)})])
    assert [saved.read_segment("a")["x"].size for saved in checkpoints.all()] == [3, 5]


def test_the_same_segment_twice_is_one_file(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    first = checkpoints.add_segment("a", {"x": np.arange(3)})
    assert checkpoints.add_segment("a", {"x": np.arange(3)}) == first
    assert segment_files(tmp_path) == [first.file]


def test_what_a_killed_writer_left_goes_at_the_next_write(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        listed = checkpoints.add_segment("listed", {"x": np.arange(3)})
        checkpoints.add_segment("orphan", {"x": np.arange(4)})
        checkpoints.write(1, {}, {}, segments=[listed])
    unfinished = tmp_path / ".tmp-step-000000000002-1-1"
    unfinished.mkdir()
    (unfinished / "state.npz").write_bytes(b"x")
    (tmp_path / "segments" / ".tmp-1-1").write_bytes(b"x")
    assert Checkpoints(tmp_path).newest() is not None
    assert unfinished.exists()  # reading changes nothing
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.prepare()
        assert names(tmp_path) == ["step-000000000001"]
        assert segment_files(tmp_path) == [listed.file]


def test_segments_stay_while_a_manifest_that_may_list_them_is_damaged(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.write(1, {}, {}, segments=[checkpoints.add_segment("a", {"x": np.arange(3)})])
    manifest = tmp_path / "step-000000000001" / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(b"")
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.prepare()
    manifest.write_bytes(text)
    assert Checkpoints(tmp_path).newest() is not None


def test_a_segment_that_is_gone_cannot_be_listed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    segment = checkpoints.add_segment("a", {"x": np.arange(3)})
    (tmp_path / "segments" / segment.file).unlink()
    with pytest.raises(CheckpointError, match="not there as it was written: add that segment again"):
        checkpoints.write(1, {}, {}, segments=[segment])
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a" * 200])
def test_a_segment_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't name a segment"):
        Checkpoints(tmp_path).add_segment(name, {})


def test_two_segments_of_one_name_are_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    segments = [checkpoints.add_segment("a", {"x": np.arange(n)}) for n in (1, 2)]
    with pytest.raises(ValueError, match="Two segments of one checkpoint have one name: a, a"):
        checkpoints.write(1, {}, {}, segments=segments)


# ---- several at once ----


def test_a_reader_beside_a_writer_always_finds_a_whole_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    segment = checkpoints.add_segment("a", {"x": np.arange(3)})
    checkpoints.write(0, state(0), {"epoch": 0}, segments=[segment])
    done = threading.Event()

    def write() -> None:
        for number in range(1, 60):
            checkpoints.write(number, state(number), {"epoch": number}, segments=[segment])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = [0]
    while not done.is_set():
        saved = Checkpoints(tmp_path).newest()  # a warning of damage would be an error here
        assert saved is not None
        seen.append(saved.number)
    writer.join()
    assert seen == sorted(seen)
    assert read(Checkpoints(tmp_path)) == 59


def test_one_that_its_writer_removes_while_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Checkpoints(tmp_path, keep=1)
    save(writer, 1)

    def open_late(directory: Directory, name: str) -> Any:
        saved = open_saved(directory, name)
        if saved.number == 1:
            save(writer, 2)  # between the look at its manifest and at its state
        return saved

    monkeypatch.setattr("unbounded.store.choosing.open_saved", open_late)
    assert read(Checkpoints(tmp_path)) == 2


def test_two_objects_of_one_process_take_turns(tmp_path: Path) -> None:
    two = [Checkpoints(tmp_path, keep=2) for _ in range(2)]
    threads = [threading.Thread(target=save, args=(checkpoints, *range(i, 40, 2))) for i, checkpoints in enumerate(two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Checkpoints(tmp_path).all()) == 2
    assert all(not name.startswith(".tmp") for name in names(tmp_path))


def test_a_directory_that_was_removed_is_made_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    save(checkpoints, 1)
    shutil.rmtree(tmp_path / "run")
    save(checkpoints, 2)
    assert [saved.number for saved in checkpoints.all()] == [2]


def test_what_others_wrote_after_a_directory_was_removed_is_left_whole(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path / "run"), Checkpoints(tmp_path / "run")
    for one, rows in ((first, 3), (second, 4)):
        segment = one.add_segment("rows", {"x": np.arange(rows)})
        one.write(1, {}, {}, segments=[segment])
        if one is first:
            shutil.rmtree(tmp_path / "run")
    save(first, 2)
    assert [saved.check() for saved in first.all()] == [None, None]


# ---- what the disk refuses ----


def test_a_path_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "below"):
        with pytest.raises(CheckpointError, match=r"Step 1 was not saved in .*file.*: .*[Nn]ot a directory"):
            save(Checkpoints(path), 1)
        with pytest.raises(CheckpointError, match=r"could not be read in .*file.*: Not a directory"):
            Checkpoints(path).newest()
    assert file.read_text() == "mine"


def test_a_failed_write_never_reaches_a_file_that_was_opened_later(tmp_path: Path) -> None:
    def full(function: Callable[..., Any], *args: Any) -> Any:
        if function is os.write:
            raise OSError(28, "No space left on device")
        return function(*args)

    with pytest.raises(OSError, match="No space") as raised:
        write_file(InterceptedFiles(full), tmp_path / "a", lambda file: [file.write(b"kept back"), None][1])
    fd = os.open(tmp_path / "b", os.O_WRONLY | os.O_CREAT)  # it gets the number that the other file had
    del raised  # and with it the buffer, which then writes what it still holds
    gc.collect()
    os.close(fd)
    assert (tmp_path / "b").read_bytes() == b""


def test_an_old_one_that_cannot_be_removed_is_a_warning_and_no_failure(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)

    def busy(function: Callable[..., Any], *args: Any) -> Any:
        if function is os.unlink:
            raise OSError(16, "Device or resource busy")
        return function(*args)

    says = pytest.warns(UserWarning, match="An old checkpoint in .* could not be removed: Device or resource busy")
    with all_changes(busy), says:
        save(checkpoints, 2)
    assert read(checkpoints) == 2
    with Checkpoints(tmp_path) as other:
        checkpoints.close()
        other.prepare()
    assert names(tmp_path) == ["step-000000000002"]


def run(code: str, *args: str | Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with what the shell does before it."""
    shell = f'{before}\nexec "$0" -c "$@"'
    given = [sys.executable, code, *map(str, args)]
    return subprocess.run(["sh", "-ec", shell, *given], capture_output=True, text=True)


WRITE = """
import sys, os, numpy as np
from unbounded.store.checkpoints import Checkpoints, CheckpointError
checkpoints = Checkpoints(sys.argv[1])
try:
    checkpoints.write(2, {"w": np.ones(1 << 18)}, {"epoch": 2})
except CheckpointError as error:
    print(error)
else:
    sys.exit("it was written")
print(checkpoints.newest().number, sorted(os.listdir(sys.argv[1])))
"""


def test_a_limit_on_file_sizes_leaves_the_old_one(tmp_path: Path) -> None:
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    done = run(WRITE, tmp_path, before="ulimit -f 100")
    assert done.returncode == 0, done.stderr
    assert "Step 2 was not saved" in done.stdout
    assert "File too large. What was saved before is still there, up to step-000000000001." in done.stdout
    assert "1 ['.lock', 'step-000000000001']" in done.stdout


def can_mount() -> bool:
    found = shutil.which("unshare")
    return bool(found) and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="this user can't mount a file system of its own")


def run_mounted(tmp_path: Path, mount: str, code: str) -> subprocess.CompletedProcess[str]:
    shell = f'mount -t tmpfs -o size=1m none "$1"; "$0" -c "{FIRST}" "$1"; {mount}\nexec "$0" -c "$2" "$1"'
    given = [sys.executable, str(tmp_path), code]
    return subprocess.run(["unshare", "-m", "sh", "-ec", shell, *given], capture_output=True, text=True)


FIRST = "import sys; from unbounded.store.checkpoints import *; Checkpoints(sys.argv[1]).write(1, {}, {})"


@needs_mounts
def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    done = run_mounted(tmp_path, "", WRITE)
    assert done.returncode == 0, done.stderr
    assert "No space left on device. What was saved before is still there" in done.stdout
    assert "1 ['.lock', 'step-000000000001']" in done.stdout


@needs_mounts
def test_a_disk_that_was_full_is_used_again_when_there_is_room(tmp_path: Path) -> None:
    code = """
import os, sys, warnings, numpy as np
from unbounded.store.checkpoints import Checkpoints, CheckpointError
checkpoints = Checkpoints(sys.argv[1], keep=1)
failed = 0
for size in range(4096, 1 << 20, 4096):             # a little less room each time, down to none
    try:
        with open(os.path.join(sys.argv[1], "ballast"), "wb", buffering=0) as file:
            written = 0
            while written < size:
                written += file.write(bytes(size - written))
        checkpoints.write(size, {"w": np.ones(1000)}, {})
    except (CheckpointError, OSError):
        failed += 1
    saved = checkpoints.newest()
    assert saved.number == 1 or saved.read_state()["w"].sum() == 1000
os.unlink(os.path.join(sys.argv[1], "ballast"))
checkpoints.write(1 << 20, {"w": np.ones(1000)}, {})
print(failed > 5, checkpoints.newest().number, len(checkpoints.all()))
"""
    done = run_mounted(tmp_path, "", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"True {1 << 20} 1"


@needs_mounts
def test_a_read_only_file_system_is_refused_with_a_sentence_and_can_be_read(tmp_path: Path) -> None:
    done = run_mounted(tmp_path, 'mount -o remount,ro "$1"', WRITE)
    assert done.returncode == 0, done.stderr
    assert "Step 2 was not saved" in done.stdout
    assert "Read-only file system. What was saved before is still there" in done.stdout
    assert "1 ['.lock', 'step-000000000001']" in done.stdout


def test_a_directory_without_permission_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "run") as checkpoints:
        save(checkpoints, 1)
    (tmp_path / "run").chmod(0o555)
    (tmp_path / "run" / ".lock").unlink()
    # Nobody may go through the directories above, so the child is there before it becomes nobody.
    become = "import os, sys\nos.chdir(sys.argv[1])\nif os.geteuid() == 0: os.setuid(65534)\nsys.argv[1] = '.'\n"
    done = run(WRITE.replace("\ncheckpoints =", f"\n{become}checkpoints =", 1), tmp_path / "run")
    (tmp_path / "run").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "Step 2 was not saved in .: Permission denied" in done.stdout
    assert "1 ['step-000000000001']" in done.stdout


@needs_mounts
def test_a_full_disk_ends_no_run_that_reads_what_cannot_be_read_again(tmp_path: Path) -> None:
    code = """
import itertools, os, sys, warnings, numpy as np
import unbounded as ub
warnings.simplefilter("ignore")
with open(os.path.join(sys.argv[1], "ballast"), "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
def numbers():
    for i in itertools.count():
        yield np.arange(4 * i, 4 * i + 4)
with ub.Feed(ub.from_generator(numbers).batch(4)) as feed:
    for number in range(3):
        for batch in itertools.islice(feed.batches(), 5):
            feed.trained()
        try:
            feed.save(os.path.join(sys.argv[1], "run"))
        except ub.CheckpointError as error:
            print(error)
    os.unlink(os.path.join(sys.argv[1], "ballast"))
    print(feed.save(os.path.join(sys.argv[1], "run")).name)
"""
    done = run_mounted(tmp_path, "", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No space left on device.") == 3
    assert done.stdout.splitlines()[-1] == "step-000000000015"


def test_an_interrupt_in_the_middle_leaves_nothing_unfinished(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)

    def interrupted(function: Callable[..., Any], *args: Any) -> Any:
        if function is os.fsync:
            raise KeyboardInterrupt
        return function(*args)

    with all_changes(interrupted), pytest.raises(KeyboardInterrupt):
        save(checkpoints, 2)
    assert names(tmp_path) == ["step-000000000001"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(checkpoints, 2)
    assert read(checkpoints) == 2


def test_the_examples_run() -> None:
    assert doctest.testmod(checkpoints).failed == 0

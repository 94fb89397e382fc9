"""Checkpoints at a URL: the same run as in a local directory, after any interrupted write."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fsspec = pytest.importorskip("fsspec")

import files_of_rows  # noqa: E402
import unbounded as ub  # noqa: E402
from helpers import Steps, first, installed, table, train  # noqa: E402
from unbounded.core.runtime import SYSTEM  # noqa: E402
from unbounded.store import log_copies, paths, remote  # noqa: E402
from unbounded.store.checkpoints import CheckpointError, Checkpoints, DamagedCheckpoint, DamagedError  # noqa: E402

_number = itertools.count()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server of the S3 protocol in a process of its own; the address of a bucket."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    chosen = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        # Newer clients add checksums in trailers, which the server takes for content.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        for _ in range(2400):  # its imports take half a minute where nothing is compiled yet, and others are at work
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the server has ended"
                time.sleep(0.05)
        else:
            pytest.fail("the server of the S3 protocol does not answer after two minutes")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new directory; logs are below a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = "memory://store" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{base}/run-{next(_number)}"


def system(url: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]


def names(url: str) -> list[str]:
    fs, root = system(url)
    fs.invalidate_cache()
    return sorted(path[len(root) + 1 :] for path in fs.find(root))


def numbers(url: str) -> list[int]:
    return [saved.number for saved in Checkpoints(url).all()]


def state(number: int) -> dict[str, Any]:
    return {"w": np.full(300_000, number, np.float32), "step": number}


def write(checkpoints: Checkpoints, number: int) -> Any:
    segment = checkpoints.add_segment(f"rows-{number}", {"x": np.arange(number)})
    return checkpoints.write(number, state(number), {"number": number}, segments=[segment])


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_and_the_newest_are_kept(url: str) -> None:
    assert Checkpoints(url).newest() is None
    with Checkpoints(url, keep=2) as checkpoints:
        for number in range(1, 5):
            path = write(checkpoints, number)
            assert path == f"{url}/step-{number:012}"
    assert [name for name in names(url) if name.startswith("step")] == [
        f"step-00000000000{n}/{file}" for n in (3, 4) for file in ("manifest.json", "state.npz")
    ]
    assert [name[:15] for name in names(url) if name.startswith("seg")] == ["segments/rows-3", "segments/rows-4"]
    saved = Checkpoints(url).fetch_newest()
    assert saved is not None
    assert (saved.number, saved.info, str(saved.path)) == (4, {"number": 4}, path)
    assert np.array_equal(saved.read_state()["w"], state(4)["w"])
    assert saved.read_segment("rows-4")["x"].tolist() == [0, 1, 2, 3]


def test_the_same_number_again_replaces_the_earlier_one(url: str) -> None:
    with Checkpoints(url) as checkpoints:
        for number in (1, 2, 1):
            write(checkpoints, number)
    newest = Checkpoints(url).newest()
    assert newest is not None
    assert (newest.number, newest.name) == (1, "step-000000000001.1")
    assert numbers(url) == [2, 1]


def test_a_checkpoint_is_there_when_its_manifest_is_and_gone_when_that_is(url: str) -> None:
    fs, root = system(url)
    with Checkpoints(url) as checkpoints:
        write(checkpoints, 1)
        write(checkpoints, 2)
        fs.rm_file(f"{root}/step-000000000002/manifest.json")  # as a killed writer leaves it, or one that removes it
        found = checkpoints.newest()
        assert found is not None
        assert found.number == 1
        write(checkpoints, 2)
        assert numbers(url) == [1, 2]


def test_a_damaged_file_falls_back_to_the_one_before(url: str) -> None:
    fs, root = system(url)
    with Checkpoints(url) as checkpoints:
        write(checkpoints, 1)
        write(checkpoints, 2)
    file = f"{root}/step-000000000002/state.npz"
    content = bytearray(fs.cat_file(file))
    content[len(content) // 2] ^= 1
    fs.pipe_file(file, bytes(content))
    with pytest.warns(DamagedCheckpoint, match=r"state.npz is damaged: its checksum differs.*Going on from .*0001"):
        found = Checkpoints(url).fetch_newest()
    assert found is not None
    assert found.number == 1


class Broken:
    """A file system of fsspec that breaks off at one of its calls that change something."""

    def __init__(self, fs: Any, at: int, error: type[BaseException]) -> None:
        self._fs, self._at, self._error, self.calls = fs, at, error, 0

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._fs, name)
        if name not in ("pipe_file", "rm_file", "open", "makedirs"):
            return inner

        def call(*args: Any, **given: Any) -> Any:
            if name != "open" or "wb" in args:
                self.calls += 1
                if self.calls - 1 == self._at or (self._error is Killed and self.calls > self._at):
                    raise self._error("the network is gone")
            return inner(*args, **given)

        return call


def broken(url: str, at: int, error: type[BaseException], local: Path) -> tuple[Checkpoints, Broken]:
    """Checkpoints at a URL, by way of a file system that breaks off."""
    fs, root = system(url)
    breaks = Broken(fs, at, error)
    checkpoints = Checkpoints(url, keep=1)
    checkpoints._directory = remote.RemoteDirectory(breaks, root, url, SYSTEM, local)
    checkpoints._listing._directory = checkpoints._directory
    return checkpoints, breaks


class Killed(BaseException):
    """Stands for SIGKILL: nothing that comes after it is done."""


@pytest.mark.parametrize("error", [OSError, ValueError, Killed])
@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_write_that_breaks_off_at_any_call_leaves_the_old_one_or_the_new_one(
    error: type[BaseException], url: str, tmp_path: Path
) -> None:
    found = []
    for at in range(100):
        place = f"{url}-{at}"
        with Checkpoints(place, keep=1) as checkpoints:
            write(checkpoints, 1)
        checkpoints, breaks = broken(place, at, error, tmp_path / str(at))
        problem: BaseException | None = None
        try:
            write(checkpoints, 2)
        except (CheckpointError, UserWarning, Killed) as raised:
            problem = raised
        checkpoints.close()
        assert (problem is None) == (breaks.calls <= at)
        saved = Checkpoints(place).newest()
        assert saved is not None
        assert saved.read_state()["step"] == saved.number
        found.append(saved.number)
        with Checkpoints(place, keep=1) as checkpoints:
            write(checkpoints, 3)
            assert numbers(place) == [3]
        assert [name.split("/")[0] for name in names(place)] == ["segments", "step-000000000003", "step-000000000003"]
        if problem is None:
            break
    assert found[0] == 1
    assert found[-1] == 2
    assert at > 4


def test_a_store_that_refuses_is_a_sentence(url: str) -> None:
    with Checkpoints(url) as checkpoints:
        write(checkpoints, 1)
    other, _ = broken(url, 0, ValueError, Path(os.environ["XDG_CACHE_HOME"]) / "other")
    says = (
        "The segment rows-2 was not saved in .*: ValueError: the network is gone. What was saved before is still there"
    )
    with pytest.raises(CheckpointError, match=says):
        write(other, 2)
    other.close()


def test_a_second_process_that_saves_to_the_same_url_is_told(url: str, tmp_path: Path) -> None:
    stream = table(100).batch(4)
    with ub.Feed(stream) as one, ub.Feed(stream) as two:
        train(one, 1)
        one.save(url)
        two.load(url, local=tmp_path / "another machine")
        train(two, 1)
        two.save(url, local=tmp_path / "another machine")
        train(one, 2)
        with pytest.raises(CheckpointError, match=r"Another process or feed wrote step-0*2 to .* load it again"):
            one.save(url)


def test_two_processes_on_one_machine_are_kept_apart(url: str, tmp_path: Path) -> None:
    if url.startswith("memory"):
        pytest.skip("The memory of one process.")
    code = (
        "import sys; from unbounded.store.checkpoints import Checkpoints\n"
        "c = Checkpoints(sys.argv[1]); c.prepare(); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(CheckpointError, match=f"the process {other.pid} writes to it"):
            Checkpoints(url).prepare()
        other.communicate()


# -- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_a_run_goes_on_from_a_url_exactly(wait: bool, url: str) -> None:
    def stream() -> ub.Stream:
        return table(60).shuffle(20).replay(16, reuse=2.0).batch(4).prefetch(2)

    with ub.Feed(stream()) as feed:
        whole = train(feed, 12)
    seen = []
    for _ in range(3):
        with ub.Feed(stream()) as feed:
            loaded = feed.load(url)
            assert loaded == (None if not seen else {"seen": len(seen)})
            seen += train(feed, 4)
            saved = feed.save(url, state={"seen": len(seen)}, wait=wait)
    assert seen == whole
    assert (saved if wait else saved.wait()) == f"{url}/step-000000000012"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_keras_run_goes_on_from_a_url(url: str) -> None:
    km = pytest.importorskip("keras_models")
    stream = ub.from_arrays(km.rows(64), seed=3).batch(4)
    results = []
    for place, parts in ((f"{url}-a", (3,)), (f"{url}-b", (1, 2, 3))):
        for epochs in parts:
            model = km.ready_model(dropout=0.5)
            with ub.keras.Feed(stream, ub.Epoch(steps=5)) as feed:
                callbacks = [ub.keras.Checkpoint(feed, place, every=2)]
                model.fit(feed, epochs=epochs, verbose=0, callbacks=callbacks)
        results.append((km.trained_ids(model), km.weights(model)))
        served = km.ready_model(dropout=0.5)
        assert ub.keras.load_model_state(place, served) == 15
    (ids, weights), (others, found) = results
    assert ids == others
    assert all(np.array_equal(a, b) for a, b in zip(weights, found, strict=True))


@pytest.mark.parametrize("machine", ["the same one", "another one"])
def test_rows_that_come_once_are_trained_once_wherever_the_run_goes_on(machine: str, url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    first, second = Steps(), Steps()
    first.give(*(np.array([i]) for i in range(8)))
    feed = ub.Feed(first.stream().batch(1))
    assert train(feed, 2) == [[0], [1]]
    first.await_taken(8)
    feed.save(url, local=here)
    assert train(feed, 2) == [[2], [3]]
    first.end()
    feed.close()
    second.give(*(np.array([i]) for i in range(8, 12)))
    for _ in range(2):  # and once more, from what is there by then
        with ub.Feed(second.stream().batch(1)) as feed:
            feed.load(url, local=here if machine == "the same one" else there)
            assert train(feed, 6) == [[2], [3], [4], [5], [6], [7]]
            if machine == "the same one":
                assert train(feed, 2) == [[8], [9]]
                break
    second.end()


# -- logs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_copies, "_SMALL", 100)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def append(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


@pytest.mark.usefixtures("small_pieces")
def test_logs_that_are_missing_here_are_fetched_as_they_were_when_it_was_saved(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    rng = np.random.default_rng(0)
    with Checkpoints(url, local=here, keep=9) as checkpoints:
        assert checkpoints.local == here
        kept = []
        for number in range(1, 8):
            append(here / "log" / "sensor" / f"{number // 3}.rows", rng.bytes(60 * number))
            (here / "origin.json").write_text(str(number // 4))  # which is written anew now and then
            write(checkpoints, number)
            kept.append(contents(here))
        append(here / "log" / "sensor" / "2.rows", b"not saved any more")
    for number in range(1, 8):
        saved = Checkpoints(url).all()[number - 1]
        Checkpoints(url, local=there / str(number))._directory.fetch_logs(saved.logs)
        assert contents(there / str(number)) == kept[number - 1]
    # Where they are, with more at their end, they are left as they are.
    before = contents(here)
    assert Checkpoints(url, local=here).fetch_newest() is not None
    assert contents(here) == before


@pytest.mark.usefixtures("small_pieces")
def test_what_a_log_gains_is_written_once(url: str, tmp_path: Path) -> None:
    with Checkpoints(url, local=tmp_path, keep=1) as checkpoints:
        for number in range(1, 30):
            append(tmp_path / "log" / "rows", bytes([number]) * 30)
            write(checkpoints, number)
        pieces = [name for name in names(url) if name.startswith("logs/")]
        assert len(pieces) <= 29 * 30 / 100 + 1
    with Checkpoints(url, local=tmp_path, keep=1) as checkpoints:  # another process of the run
        append(tmp_path / "log" / "rows", b"x" * 200)
        write(checkpoints, 30)
    after = [name for name in names(url) if name.startswith("logs/")]
    assert set(pieces[:-1]) <= set(after)
    shutil.rmtree(tmp_path / "log")
    saved = Checkpoints(url, local=tmp_path).fetch_newest()
    assert saved is not None
    assert (tmp_path / "log" / "rows").read_bytes() == b"".join(bytes([n]) * 30 for n in range(1, 30)) + b"x" * 200
    with Checkpoints(url, local=tmp_path, keep=1) as checkpoints:
        (tmp_path / "log" / "rows").unlink()  # nobody needs it any more
        write(checkpoints, 31)
    assert not [name for name in names(url) if name.startswith("logs/")]


def test_logs_of_another_course_of_the_run_are_set_aside_and_not_lost(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with Checkpoints(url, local=here) as checkpoints:
        append(here / "log" / "rows", b"one two ")
        write(checkpoints, 1)
        append(here / "log" / "rows", b"three, here")  # and then this machine dies, and another one goes on
    with Checkpoints(url, local=there) as checkpoints:
        assert checkpoints.fetch_newest() is not None
        append(there / "log" / "rows", b"three, there")
        write(checkpoints, 2)
    assert Checkpoints(url, local=here).fetch_newest() is not None
    assert contents(here) == contents(there) == {"log/rows": b"one two three, there"}
    aside = [path for path in here.rglob("rows") if ".aside" in str(path)]
    assert [path.read_bytes() for path in aside] == [b"one two three, here"]


def test_a_log_whose_copy_is_damaged_is_noticed(url: str, tmp_path: Path) -> None:
    with Checkpoints(url, local=tmp_path / "here") as checkpoints:
        write(checkpoints, 1)
        append(tmp_path / "here" / "rows", b"rows")
        write(checkpoints, 2)
    fs, root = system(url)
    for name in names(url):
        if name.startswith("logs/"):
            fs.pipe_file(f"{root}/{name}", b"ROWS")
    other = Checkpoints(url, local=tmp_path / "there")
    with pytest.raises(DamagedError, match="of the log rows is not what was written"):
        other._directory.fetch_logs(other.all()[-1].logs)
    with pytest.warns(DamagedCheckpoint, match="Going on from .*0001 instead"):
        saved = other.fetch_newest()
    assert saved is not None
    assert saved.number == 1
    assert contents(tmp_path / "there") == {}


def test_logs_lie_under_the_users_cache_where_nobody_says_where(url: str, tmp_path: Path) -> None:
    one, other = Checkpoints(url), Checkpoints(f"{url}-other")
    assert one.local.parent == tmp_path / "cache" / "unbounded" / "runs"
    assert one.local != other.local
    assert Checkpoints(f"{url}/").local == one.local


# -- URLs ----------------------------------------------------------------------------------------------------------


def test_a_scheme_that_nobody_knows_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="is a URL of a scheme that fsspec does not know"):
        Checkpoints("nowhere://bucket/run")


def test_a_scheme_whose_client_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(ValueError, match=re.escape("'abfs://bucket/run' is a URL that needs another package: ")):
        Checkpoints("abfs://bucket/run")


@pytest.mark.parametrize("as_given", [str, Path])
def test_a_url_is_one_whatever_a_path_made_of_it(as_given: Callable[[str], Any], tmp_path: Path) -> None:
    with Checkpoints(as_given("memory://store/as-path"), local=tmp_path) as checkpoints:
        assert checkpoints.directory == "memory://store/as-path"
        assert paths.is_url(as_given("memory://store/as-path"))


def mounted(place: Path, keep: int = 2) -> Checkpoints:
    """Checkpoints by way of fsspec in a directory of this machine."""
    checkpoints = Checkpoints(place.parent / "unused", keep=keep)
    fs, local = fsspec.filesystem("file"), place.parent / "local"
    checkpoints._directory = remote.RemoteDirectory(fs, str(place), f"local://{place}", SYSTEM, local)
    checkpoints._listing._directory = checkpoints._directory
    return checkpoints


def test_fsspecs_own_local_file_system_keeps_the_same_promises(tmp_path: Path) -> None:
    place = tmp_path / "store"
    with mounted(place) as checkpoints:
        for number in (1, 2, 3, 2):
            append(tmp_path / "local" / "rows", b"row")
            write(checkpoints, number)
        assert [saved.number for saved in checkpoints.all()] == [3, 2]
    saved = mounted(place).fetch_newest()
    assert saved is not None
    assert saved.read_state()["step"] == 2
    assert sorted(path.name for path in place.iterdir()) == [
        "logs",
        "segments",
        "step-000000000002.1",
        "step-000000000003",
    ]


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_files_of_others_beside_a_run_stay_where_they_are(url: str, tmp_path: Path) -> None:
    fs, root = system(url)
    theirs = ["logs/events.out.tfevents.17", "logs/train/1.txt", "segments/mine.npz", "segments/x/y.npz", "notes.md"]
    theirs += ["step-1/manifest.json", "steps/a", "logs/rows.csv"]
    for name in theirs:
        if url.startswith("memory"):
            fs.makedirs(f"{root}/{name.rpartition('/')[0]}", exist_ok=True)
        fs.pipe_file(f"{root}/{name}", b"theirs")
    for number in (1, 2, 3):
        with Checkpoints(url, local=tmp_path, keep=1) as checkpoints:
            (tmp_path / "log").mkdir(exist_ok=True)
            (tmp_path / "log" / "rows").write_bytes(b"rows" * number)
            write(checkpoints, number)
    ours = [name for name in names(url) if name not in theirs]
    assert [name[:16] for name in ours] == ["logs/log.rows.0-", "segments/rows-3-", *["step-00000000000"] * 2]
    assert set(theirs) <= set(names(url))


def test_a_file_that_is_missing_is_damage_and_the_one_before_is_taken(url: str) -> None:
    fs, root = system(url)
    with Checkpoints(url) as checkpoints:
        write(checkpoints, 1)
        write(checkpoints, 2)
    fs.rm_file(f"{root}/step-000000000002/state.npz")
    with pytest.warns(DamagedCheckpoint, match=r"state.npz is missing. Going on from .*0001"):
        found = Checkpoints(url).fetch_newest()
    assert found is not None
    assert found.number == 1


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_what_was_copied_of_a_log_for_a_checkpoint_that_failed_is_copied_again(
    large: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces that no checkpoint lists are removed when the same run begins to write again."""
    if large:
        monkeypatch.setattr(log_copies, "_SMALL", 2)
    here, there = tmp_path / "here", tmp_path / "there"
    checkpoints = Checkpoints(url, local=here, keep=2)
    append(here / "log" / "rows", b"one ")
    write(checkpoints, 1)
    append(here / "log" / "rows", b"two ")
    put = remote.RemoteDirectory._put

    def failing(directory: Any, name: str, fill: Any) -> Any:
        if name.endswith("state.npz"):
            raise OSError("the network is gone")
        return put(directory, name, fill)

    with monkeypatch.context() as patch:
        patch.setattr(remote.RemoteDirectory, "_put", failing)
        with pytest.raises(CheckpointError, match=r"Step 2 was not saved in .*: the network is gone. .*up to .*0001"):
            write(checkpoints, 2)
    checkpoints.close()
    write(checkpoints, 3)
    checkpoints.close()
    found = Checkpoints(url, local=there).fetch_newest()
    assert found is not None
    assert found.number == 3
    assert contents(there) == {"log/rows": b"one two "}


@pytest.mark.parametrize("refused", ["store", "step-000000000002", "segments"])
def test_a_directory_that_cannot_be_listed_is_no_empty_one(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's own `find` leaves out what it can't list: a run would begin anew, and remove what seems nobody's."""
    place = tmp_path / "store"
    with mounted(place) as checkpoints:
        write(checkpoints, 1)
        write(checkpoints, 2)
    before = sorted(place.rglob("*"))
    kind = type(fsspec.filesystem("file"))
    ls = kind.ls

    def listing(fs: Any, path: str, *args: Any, **given: Any) -> Any:
        if path.endswith(refused):
            raise ConnectionError("the network is gone")
        return ls(fs, path, *args, **given)

    monkeypatch.setattr(kind, "ls", listing)
    with pytest.raises(CheckpointError, match=r"could not be read in .*: the network is gone"):
        mounted(place).fetch_newest()
    with mounted(place, keep=1) as checkpoints, pytest.raises(CheckpointError, match="the network is gone"):
        write(checkpoints, 3)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_store_that_refuses_a_key_is_a_sentence(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, _ = system(url)

    def refuse(*args: Any, **given: Any) -> Any:
        raise PermissionError("The AWS Access Key Id you provided does not exist in our records.")

    for name in ("find", "ls", "open", "pipe_file", "rm_file"):
        monkeypatch.setattr(type(fs), name, refuse)
    with ub.Feed(table().batch(4)) as feed:
        with pytest.raises(CheckpointError, match=r"could not be read in memory://.* Access Key Id you provided does"):
            feed.load(url, local=tmp_path)
        train(feed, 1)
        with pytest.raises(CheckpointError, match=r"Nothing can be saved in memory://.* Access Key Id you provided"):
            feed.save(url, local=tmp_path)
        assert len(train(feed, 2)) == 2  # and training goes on


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_store_that_is_slow_holds_up_no_step_and_rows_that_come_meanwhile_are_in_the_next_checkpoint(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, reached, go_on = remote.RemoteDirectory._put, threading.Event(), threading.Event()

    def slow(directory: Any, name: str, fill: Any) -> Any:
        reached.set()
        assert go_on.wait(20)
        return put(directory, name, fill)

    monkeypatch.setattr(remote.RemoteDirectory, "_put", slow)
    first, second = Steps(), Steps()
    first.give(*(np.array([i]) for i in range(12)))
    with ub.Feed(first.stream().batch(1)) as feed:
        assert train(feed, 2) == [[0], [1]]
        saving = feed.save(url, local=tmp_path / "here", wait=False)
        assert reached.wait(20)
        assert train(feed, 6) == [[2], [3], [4], [5], [6], [7]]  # while the first is on its way
        assert not saving.done
        go_on.set()
        feed.save(url, local=tmp_path / "here", wait=False).wait()
        first.end()
    second.give(np.array([99]))
    with ub.Feed(second.stream().batch(1)) as feed:
        feed.load(url, local=tmp_path / "there")
        assert feed.steps == 8
        assert train(feed, 4) == [[8], [9], [10], [11]]
    second.end()


@installed("pyarrow")
@pytest.mark.parametrize("url", ["s3"], indirect=True)
def test_files_of_an_object_store_are_rows(url: str, tmp_path: Path) -> None:
    store, base = system(url)
    for suffix in ("parquet", "csv"):
        files_of_rows.write(tmp_path, suffix, (30, 20))
        for number in range(2):
            store.put(str(tmp_path / f"{number}.{suffix}"), f"{base}/rows/{number}.{suffix}")
        stream = ub.from_files(f"{url}/rows/*.{suffix}", columns=["id"], shuffle=True).batch(25)
        ids = np.concatenate([batch["id"] for batch in first(stream, 2)])
        assert np.sort(ids).tolist() == list(range(50))
        ub.testing.assert_resumes(stream, 3)
    with pytest.raises(FileNotFoundError, match=r"no file for 's3://.*\.arrow'"):
        ub.from_files(f"{url}/rows/*.arrow")

"""Files are whole or absent, and one process at a time writes to a directory."""

from __future__ import annotations

import doctest
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import unbounded as ub
from intercepted_files import InterceptedFiles
from unbounded.core.files import Files
from unbounded.store import paths
from unbounded.store.checkpoints import CheckpointError, Checkpoints
from unbounded.store.directory import write_file
from unbounded.store.json_log import Log


def test_a_file_is_measured_as_it_was_written(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "file"
    written = write_file(Files(), path, lambda file: [file.write(data[:10]), file.write(data[10:]), None][2])
    assert path.read_bytes() == data
    assert written == (len(data), hashlib.sha256(data).hexdigest())


def test_a_kernel_that_takes_little_at_a_time_gets_it_all(tmp_path: Path) -> None:
    path, data = tmp_path / "file", bytes(range(100))
    little = InterceptedFiles(lambda f, *args: f(args[0], args[1][:7]) if f is os.write else f(*args))
    written = write_file(little, path, lambda file: [file.write(data), None][1])
    assert path.read_bytes() == data
    assert written == (100, hashlib.sha256(data).hexdigest())


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        write_file(Files(), tmp_path / "file", lambda file: None)


def test_what_is_not_there_can_be_removed_and_a_link_is_not_followed(tmp_path: Path) -> None:
    Files().remove(tmp_path / "absent")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    Files().remove(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert (tmp_path / "kept" / "file").exists()


class Other:
    """Another Python process; it runs `code`, says what it prints, and then waits to be told to end."""

    def __init__(self, path: Path, code: str) -> None:
        lines = [
            "import os, sys, time, signal",
            "from unbounded.store.checkpoints import Checkpoints, CheckpointError",
            "checkpoints = Checkpoints(sys.argv[1])",
            textwrap.dedent(code).strip(),
            "sys.stdin.read()",
        ]
        given = [sys.executable, "-u", "-c", "\n".join(lines), str(path)]
        self.process = subprocess.Popen(
            given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=path.parent
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.communicate()


def test_two_processes_cannot_write_to_one_directory(tmp_path: Path) -> None:
    with Other(tmp_path, "checkpoints.write(1, {}, {}); print('ready')") as other:
        assert other.line() == "ready"
        mine = Checkpoints(tmp_path)
        saved = mine.newest()  # to read is no trouble
        assert saved is not None
        assert saved.number == 1
        says = rf"the process {other.process.pid} writes to it; stop that one, or use another directory"
        for go_on in (lambda: mine.write(2, {}, {}), mine.prepare):
            with pytest.raises(CheckpointError, match=says):
                go_on()
    mine.write(2, {}, {})  # the other has ended


def test_a_directory_is_free_once_closed_whatever_still_refers_to_it(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path)
    mine.write(1, {}, {})
    lock = mine._lock  # as a traceback does
    mine.close()
    with Other(tmp_path, "checkpoints.write(2, {}, {}); print('written')") as other:
        assert other.line() == "written"
    assert lock is not None
    assert not lock.holds()


def test_a_directory_is_free_once_forgotten(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, {}, {})
    with Other(tmp_path, "checkpoints.write(2, {}, {}); print('written')") as other:
        assert other.line() == "written"


def test_a_closed_directory_is_free_for_others(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path)
    mine.write(1, {}, {})
    second = Checkpoints(tmp_path)  # the same process: they share the lock, until both let go
    second.write(2, {}, {})
    mine.close()
    code = """
    try:
        checkpoints.write(3, {}, {})
        print("written")
    except CheckpointError as error:
        print(error)
    """
    with Other(tmp_path, code) as other:
        assert f"the process {os.getpid()} writes to it" in other.line()
    second.close()
    with Other(tmp_path, code) as other:
        assert other.line() == "written"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_the_lock_of_a_killed_writer_is_free_though_its_child_lives(tmp_path: Path) -> None:
    code = """
    checkpoints.write(1, {}, {})
    child = os.fork()
    if child == 0:
        signal.pause()
    print(child)
    """
    with Other(tmp_path, code) as other:
        child = int(other.line())
        try:
            other.process.kill()
            other.process.wait()
            os.kill(child, 0)  # it lives
            Checkpoints(tmp_path).write(2, {}, {})
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_forked_child_does_not_write_beside_its_parent(tmp_path: Path) -> None:
    code = """
    checkpoints.write(1, {}, {})
    child = os.fork()
    if child == 0:
        try:
            checkpoints.write(2, {}, {})
        except CheckpointError as error:
            print(error)
        os._exit(0)
    os.waitpid(child, 0)
    checkpoints.write(3, {}, {})
    print(checkpoints.newest().number)
    """
    with Other(tmp_path, code) as other:
        assert f"the process {other.process.pid} writes to it" in other.line()
        assert other.line() == "3"


URLS = ["gs://bucket/run", "s3://bucket", "hdfs:///run", "https://host/x", "dbfs:/mnt/run", Path("gs://bucket/run")]


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_no_directory_where_fsspec_is_not_installed(
    url: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with ub.Feed(ub.from_arrays(np.arange(8)).batch(4)) as feed:
        for go_on in (
            lambda: Checkpoints(url),
            lambda: feed.save(url),
            lambda: feed.load(url),
        ):
            with pytest.raises(ValueError, match=r"is a URL, and without fsspec.*pip install 'unbounded\[remote\]'"):
                go_on()
        with pytest.raises(ValueError, match=r"is a URL, and a path on a local or mounted.*'runs/first'"):
            Log(url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_url_is_refused_with_the_path_to_give() -> None:
    for url in ("file:///data/run", "file://localhost/data/run", "FILE:/data/run"):
        with pytest.raises(ValueError, match=r"is a URL, and a path is expected: give '/data/run'"):
            Checkpoints(url)


@pytest.mark.parametrize("path", ["C:\\runs\\first", "c:/runs", "runs:1/x", "a b/c", "run-12:30", "./gs:/x", ":/x"])
def test_a_path_with_a_colon_is_no_url(path: str) -> None:
    assert paths.local_path(path) == Path(path)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="An empty path was given"):
        paths.local_path("")


def test_the_examples_run() -> None:
    assert doctest.testmod(paths).failed == 0

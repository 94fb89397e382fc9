"""from_files: indexes of shuffled files are stored in the run's directory, and a resume does not make them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import unbounded as ub
from files_of_rows import WRITE, small_pieces, stream_of, write
from helpers import installed
from unbounded.sources.files import shuffled_pieces
from unbounded.sources.files.opened_files import OpenedFiles

pytestmark = [
    installed("pyarrow", "fsspec", "google_crc32c", "google.protobuf"),
    pytest.mark.usefixtures("no_threads_left"),
]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 150)
    monkeypatch.setattr(shuffled_pieces, "WINDOW_BYTES", 500)


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose index is made, one after the other."""
    made: list[str] = []
    get = OpenedFiles.get

    def counted(self: OpenedFiles, number: int) -> Any:
        opened = get(self, number)
        index, name = type(opened).index, self.files.plain[number][0]

        def noted() -> Any:
            made.append(name)
            return index(opened)  # type: ignore[arg-type]

        opened.index = noted  # type: ignore[method-assign]
        return opened

    monkeypatch.setattr(OpenedFiles, "get", counted)
    return made


def train(stream: ub.Stream, run: Path, steps: int) -> list[Any]:
    """The ids of the next batches of a run, which is saved."""
    with ub.Feed(stream, epoch=ub.Epoch(steps=steps)) as feed:
        feed.load(run)
        seen = [batch["id"].tolist() for batch in feed]
        feed.save(run)
        return seen


def first(stream: ub.Stream, steps: int) -> list[Any]:
    """The ids of the first batches."""
    with ub.Feed(stream, epoch=ub.Epoch(steps=steps)) as feed:
        return [batch["id"].tolist() for batch in feed]


def stored(run: Path) -> list[Path]:
    return sorted((run / "log" / "feed" / "source" / "indexes").glob("*"))


@pytest.mark.parametrize("suffix", tuple(WRITE))
def test_a_resume_reads_the_stored_indexes(tmp_path: Path, suffix: str, indexed: list[str]) -> None:
    write(tmp_path, suffix)
    stream = stream_of(tmp_path, suffix, shuffle=True).batch(4)
    train(stream, tmp_path / "run", 3)
    files = len(set(indexed))
    assert len(stored(tmp_path / "run")) == files
    indexed.clear()
    seen = train(stream, tmp_path / "run", 3)
    assert not indexed
    assert seen == first(stream, 6)[3:]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"file": 3}'])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: bytes, indexed: list[str]) -> None:
    write(tmp_path, "csv")
    stream = stream_of(tmp_path, "csv", shuffle=True).batch(4)
    train(stream, tmp_path / "run", 3)
    before = [path.read_bytes() for path in stored(tmp_path / "run")]
    for path in stored(tmp_path / "run"):
        path.write_bytes(damage)
    indexed.clear()
    assert train(stream, tmp_path / "run", 1) == first(stream, 4)[3:]
    assert indexed
    assert [path.read_bytes() for path in stored(tmp_path / "run")] == before


def test_an_index_of_other_columns_is_not_used(tmp_path: Path, indexed: list[str]) -> None:
    write(tmp_path, "csv")
    train(stream_of(tmp_path, "csv", shuffle=True).batch(4), tmp_path / "run", 3)
    indexed.clear()
    other = stream_of(tmp_path, "csv", shuffle=True, columns=["id"]).batch(4)
    with ub.Feed(other) as feed:
        with pytest.warns(Warning, match="of another stream"):
            feed.load(tmp_path / "run", accept_changes=True)
        feed.peek()
    assert indexed


def test_a_directory_that_can_not_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unbounded.core.files import Files

    write(tmp_path, "csv")
    create = Files.create

    def refuse(self: Files, path: Path) -> int:
        if path.parent.name == "indexes":
            raise OSError(28, "No space left on device")
        return create(self, path)

    monkeypatch.setattr(Files, "create", refuse)
    stream = stream_of(tmp_path, "csv", shuffle=True).batch(4)
    assert len(train(stream, tmp_path / "run", 3)) == 3
    assert sum("was not stored" in record.message for record in caplog.records) == 1
    assert stored(tmp_path / "run") == []

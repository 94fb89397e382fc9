"""from_files: CSV whose quoted values have line ends, and quotes that are not closed or not at the beginning."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from files_of_rows import small_pieces
from helpers import installed
from unbounded.sources.files.records import CsvRecords

pytestmark = [installed("pyarrow", "fsspec"), pytest.mark.usefixtures("no_threads_left")]
TEXTS = ["plain", "two\nlines", 'a "quote"', 'both "\n" of them', ",\n,", "\n", "", '"', "end"]


def write(path: Path, rows: int, name: str = "text") -> list[str]:
    """A file of texts that are anything, and the texts."""
    texts = [TEXTS[i % len(TEXTS)] + f" {i}" for i in range(rows)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", name])
        writer.writerows(enumerate(texts))
    return texts


def read(path: Path, **given: Any) -> tuple[list[int], list[str]]:
    stream = ub.from_files(path, passes=1, **given).batch(7)
    with ub.Feed(stream) as feed:
        batches = list(feed)
    return [i for b in batches for i in b["id"].tolist()], [t for b in batches for t in b["text"].tolist()]


@pytest.mark.parametrize("shuffle", [False, True])
def test_values_of_several_lines_are_read_whatever_the_blocks(
    tmp_path: Path, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write(tmp_path / "a.csv", 60)
    for size in (40, 97, 1000, 1 << 22):
        small_pieces(monkeypatch, size)
        ids, found = read(tmp_path / "a.csv", shuffle=shuffle)
        assert sorted(ids) == list(range(60))
        assert [found[ids.index(i)] for i in range(60)] == texts


@pytest.mark.parametrize("shuffle", [False, True])
def test_it_resumes_at_every_step(tmp_path: Path, shuffle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 120)
    write(tmp_path / "a.csv", 40)
    stream = ub.from_files(tmp_path / "a.csv", shuffle=shuffle).batch(6)
    ub.testing.assert_resumes(stream, steps=14)


def test_a_header_of_several_lines(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 5, name="the\ntext")
    batch = ub.from_files(tmp_path / "a.csv").batch(5).peek()
    assert list(batch) == ["id", "the\ntext"]
    assert batch["id"].tolist() == [0, 1, 2, 3, 4]


def test_a_broken_record_has_the_number_of_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n0,"a\nb"\n\n1,"c\nd",too,many\n2,"e\nf"\nx,"g"\n3,h\n')
    kept = tmp_path / "bad.jsonl"
    assert read(tmp_path / "a.csv", on_bad=kept, columns={"id": "int64", "text": "str"}) == (
        [0, 2, 3],
        ["a\nb", "e\nf", "h"],
    )
    bad = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(one["line"], one["text"]) for one in bad] == [(5, '1,"c\nd",too,many'), (9, 'x,"g"')]


@pytest.mark.parametrize("size", [30, 50, 1 << 22])
def test_a_quote_that_is_not_closed_costs_its_own_line_alone(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, size)
    rows = [f"{i},text {i}\n" for i in range(20)]
    rows[4] = '4,"text 4\n'
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(rows))
    with pytest.raises(ub.RowsError, match=r"Line 6 of 'a.csv' is no row: a quote is not closed"):
        read(tmp_path / "a.csv")
    kept = tmp_path / "bad.jsonl"
    assert read(tmp_path / "a.csv", on_bad=kept)[0] == [i for i in range(20) if i != 4]
    (bad,) = (json.loads(line) for line in kept.read_text().splitlines())
    assert (bad["line"], bad["text"]) == (6, '4,"text 4')


@pytest.mark.parametrize("size", [30, 50, 1 << 22])
def test_a_quote_within_a_value_without_quotes_is_a_character(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pieces(monkeypatch, size)
    texts = [f'{i}" of pipe' if i % 3 else "two\nlines" for i in range(20)]
    rows = [f'{i},"{text}"\n' if "\n" in text else f"{i},{text}\n" for i, text in enumerate(texts)]
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(rows))
    assert read(tmp_path / "a.csv") == (list(range(20)), texts)


def test_tabs_separate_values_of_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\ttext\n0\t"a\nb"\n1\tc,"d\n2\te\n')
    assert read(tmp_path / "a.tsv") == ([0, 1, 2], ["a\nb", 'c,"d', "e"])


def ends_by_character(data: bytes) -> tuple[list[int], int | None]:
    """The ends of records and the offset of a quote that is not closed, found one character after the other."""
    ends: list[int] = []
    begins, opened, at = True, -1, 0
    while at < len(data):
        byte = data[at : at + 1]
        if opened < 0 and byte == b'"' and begins:
            opened = at
            inside: list[int] = []
        elif opened >= 0 and byte == b'"':
            if data[at + 1 : at + 2] == b'"':
                at += 1
            else:
                opened = -1
        elif byte == b"\n":
            (ends if opened < 0 else inside).append(at + 1)
        begins = byte in (b",", b"\n", b"\r") and opened < 0
        at += 1
    return (ends, None) if opened < 0 else (ends + inside, opened)


def test_records_end_where_a_reader_of_characters_finds_their_ends() -> None:
    rng = np.random.default_rng(0)
    records = CsvRecords(b",")
    both = [0, 0]
    for _ in range(5000):
        data = bytes(rng.choice(np.frombuffer(b'a,"\n', np.uint8), size=int(rng.integers(0, 16))))
        ends, unclosed = ends_by_character(data)
        assert records.ends(data).tolist() == ends, data
        assert records.unclosed(data) == unclosed, data
        assert records.count(data) == len(ends)
        both[unclosed is None] += 1
    assert min(both) > 500

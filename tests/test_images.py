"""images: encoded images, or files of them, decoded in threads; and folders of image files."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import first, installed, train_all
from unbounded.testing import assert_resumes, assert_same_rows

pytestmark = [pytest.mark.usefixtures("no_threads_left"), installed("PIL")]


def _encoded(i: int, kind: str = "png", size: tuple[int, int] = (30, 20), mode: str = "RGB", **given: Any) -> bytes:
    """An image of width and height whose grey is i."""
    from PIL import Image

    file = io.BytesIO()
    colour = (i, i, i, 255)[: len(mode)] if len(mode) > 1 else i
    Image.new(mode, size, colour).save(file, kind, **given)
    return file.getvalue()


def _rows(n: int, **given: Any) -> Any:
    return {"id": np.arange(n), "image": ub.ragged([_encoded(i, **given) for i in range(n)])}


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_decoded_resized_and_keep_their_rows(kind: str, channels: int) -> None:
    stream = ub.from_arrays(_rows(40, kind=kind), seed=3, passes=1).images("image", (8, 12), channels=channels)
    for batch in first(stream.batch(16), 3):
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (len(batch["id"]), 8, 12, channels)
        assert abs(batch["image"][..., 0].astype(int) - batch["id"][:, None, None]).max() <= 2
        assert channels < 4 or (batch["image"][..., 3] == 255).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_it_resumes(workers: int) -> None:
    stream = ub.from_arrays(_rows(50), passes=3).shuffle(20).images("image", 6, workers=workers)
    assert_resumes(stream.batch(7), 8)
    broken = _rows(50)
    broken["image"][7:40:8] = b"broken"
    stream = ub.from_arrays(broken).images("image", 6, workers=workers, on_bad="skip")
    assert_resumes(stream.batch(7), 8)


def test_an_image_is_cropped_in_its_middle_or_stretched() -> None:
    from PIL import Image

    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255  # the middle third is white
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    rows = {"image": ub.ragged([file.getvalue()])}
    cropped, stretched = (
        ub.from_arrays(rows).images("image", 10, fit=fit).batch(1).peek()["image"] for fit in ("crop", "stretch")
    )
    assert (cropped == 255).all()
    assert 0.2 < (stretched > 127).mean() < 0.5


def test_a_photo_is_turned_upright() -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of pixels is the right edge
    image = Image.new("RGB", (64, 32), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 64, 16))
    file = io.BytesIO()
    image.save(file, "jpeg", exif=exif, quality=95)
    rows = {"image": ub.ragged([file.getvalue()])}
    got = ub.from_arrays(rows).images("image", (32, 16)).batch(1).peek()["image"][0, ..., 0]
    assert got[:, 12:].min() > 200
    assert got[:, :4].max() < 50


def test_a_large_photo_looks_as_when_it_is_decoded_whole() -> None:
    from PIL import Image

    y, x = np.mgrid[0:600, 0:800]
    pixels = np.stack([x % 256, y % 256, (x + y) // 6], -1).astype(np.uint8)
    smooth = Image.fromarray(pixels).resize((100, 75), Image.Resampling.BILINEAR).resize((800, 600))
    file = io.BytesIO()
    smooth.save(file, "jpeg", quality=95)
    rows = {"image": ub.ragged([file.getvalue()])}
    got = ub.from_arrays(rows).images("image", (75, 100)).batch(1).peek()["image"][0].astype(int)
    whole = np.asarray(Image.open(file).resize((100, 75), Image.Resampling.BILINEAR)).astype(int)
    assert abs(got - whole).mean() < 4


def test_images_of_16_bits_and_of_palettes() -> None:
    from PIL import Image

    deep, palette = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(deep, "png")
    Image.new("P", (8, 8), 3).save(palette, "gif")
    rows = {"image": ub.ragged([deep.getvalue(), palette.getvalue()])}
    got = ub.from_arrays(rows, shuffle=False).images("image", 4).batch(2).peek()["image"]
    assert (got[0] == 40_000 >> 8).all()


@pytest.mark.parametrize("broken", [b"", b"no image", "cut"])
def test_a_broken_image_is_an_error_with_its_row(broken: Any) -> None:
    rows = _rows(100, size=(300, 200))
    rows["image"][77] = rows["image"][77][:150] if broken == "cut" else broken
    stream = ub.from_arrays(rows, shuffle=False).images("image", 8).batch(10)
    with pytest.raises(ub.RowsError, match=r"images\('image'\): row 77 of the stream is no image.*on_bad='skip'"):
        first(stream, 10)


def test_broken_images_are_left_out_and_counted() -> None:
    rows = _rows(100)
    rows["image"][5:100:10] = b"broken"
    stream = ub.from_arrays(rows, passes=2).images("image", 8, on_bad="skip").batch(9)
    seen: list[int] = []
    with ub.Feed(stream) as feed:
        train_all(feed, seen)
        assert feed.stats.broken == 20
    assert sorted(seen) == sorted([i for i in range(100) if i % 10 != 5] * 2)


def test_what_a_step_contains_can_be_told_unless_rows_are_left_out() -> None:
    stream = ub.from_arrays(_rows(30), seed=4).images("image", 5).shuffle(9).batch(4)
    for step, batch in enumerate(first(stream, 9)):
        assert_same_rows(stream.batch_at(step), batch)
        assert np.array_equal(stream.rows_at(step), batch["id"])
    with pytest.raises(ub.CannotTell, match="on_bad='skip'"):
        ub.from_arrays(_rows(30)).images("image", 5, on_bad="skip").batch(4).batch_at(3)


def test_pieces_are_small_however_large_a_block_is() -> None:
    stream = ub.from_arrays({"image": ub.ragged([_encoded(1)] * 500)}).images("image", (700, 700)).batch(2)
    opened = stream.before_batch().open(block_rows=500)
    try:
        block = opened.top.pull(None)
        while block is None:
            block = opened.top.pull(None)
        assert block.nbytes < 9_000_000
    finally:
        opened.top.close()


def _folder(path: Path) -> Path:
    for i in range(24):
        folder = path / ("cats", "dogs")[i % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{i:02}.{('jpg', 'png')[i % 3 == 0]}").write_bytes(_encoded(10 * i, ("jpeg", "png")[i % 3 == 0]))
    return path


@installed("pyarrow", "fsspec")
def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    stream = ub.from_files(f"{folder}/*/*", format="images", shuffle=True, seed=3).images("path", 8)
    labels = stream.map(lambda rows: (rows["path"], (rows["folder"] == "dogs").astype(np.float32)))
    seen = first(labels.batch(24), 2)
    for x, y in seen:
        numbers = np.round(x[:, 4, 4, 0] / 10).astype(int)
        assert sorted(numbers) == list(range(24))
        assert (numbers % 2 == y).all()
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert stream.guarantee == "exact"
    assert_resumes(labels.batch(5), 8)
    assert repr(ub.from_files(f"{folder}/cats/*.jpg")).endswith("cats/*.jpg')")


@installed("pyarrow", "fsspec")
def test_images_are_known_by_their_suffix_and_a_folder_may_be_moved(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _folder(tmp_path / "a")
    before = ub.from_files(f"{tmp_path}/a/*/*.jpg").images("path", 8).batch(4)
    assert before.peek()["path"].shape == (4, 8, 8, 3)
    os.rename(tmp_path / "a", tmp_path / "b")
    after = ub.from_files(f"{tmp_path}/b/*/*.jpg").images("path", 8).batch(4)
    assert before.fingerprint == after.fingerprint
    assert ub.from_files(f"{tmp_path}/b/cats", format="images").rows_per_pass == 12
    with pytest.raises(ValueError, match="columns"):
        ub.from_files(f"{tmp_path}/b/*/*.jpg", columns=["path"])
    (tmp_path / "b" / "cats" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"'cats/notes\.txt' among them.*narrower glob"):
        ub.from_files(f"{tmp_path}/b/*/*", format="images")
    os.remove(tmp_path / "b" / "dogs" / "01.jpg")
    with pytest.raises(FileNotFoundError, match=r"01\.jpg"):
        first(after.map(lambda rows: rows["path"]), 9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: s.images("id", 8), ub.RowsError, "Expected bytes of encoded images"),
        (lambda s: s.images("no", 8), ub.RowsError, "no such column"),
        (lambda s: s.images("image", 0), ValueError, "at least 1"),
        (lambda s: s.images("image", (8, 8, 3)), ValueError, r"\(height, width\)"),
        (lambda s: s.images("image", 8, channels=2), ValueError, "1 .grey., 3"),
        (lambda s: s.images("image", 8, fit="pad"), ValueError, "'crop' or 'stretch'"),
        (lambda s: s.images("image", 8, on_bad="count"), ValueError, "'raise' or 'skip'"),
        (lambda s: s.images(None, 8), TypeError, "a column's name"),
    ],
)
def test_arguments_are_checked(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(ub.from_arrays(_rows(4))).batch(2).peek()


def test_bytes_of_a_generator_keep_their_last_zero() -> None:
    def photos() -> Any:
        for i in itertools.count():
            yield {"image": _encoded(i % 200) + b"\0\0"}

    batch = first(ub.from_samples(photos, ragged="image").images("image", 4).batch(5), 1)[0]
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]

"""Copies are of one moment, and their memory is reused only when they are not needed any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import table, train
from unbounded.core.copies import Copies
from unbounded.core.packing import Packed, pack_owned, unpack
from unbounded.store.checkpoints import Checkpoints

LARGE = 50_000  # values: more than what is worth keeping memory for

ARRAYS: dict[str, Any] = {
    "float64": np.arange(LARGE, dtype=np.float64),
    "float16": np.arange(LARGE, dtype=np.float16).reshape(100, -1),
    "bool": np.arange(4 * LARGE) % 3 == 0,
    "complex": np.arange(LARGE) * 1j,
    "time": np.arange(LARGE).astype("datetime64[s]"),
    "text": np.array(["a", "bcd"] * LARGE),
    "big-endian": np.arange(LARGE, dtype=">i4"),
    "fields": np.zeros(LARGE, [("a", "i4"), ("b", "f8", (2,))]),
    "columns": np.asfortranarray(np.arange(LARGE * 2.0).reshape(2, -1)),
    "strided": np.arange(LARGE * 4)[::2],
    "empty": np.zeros((0, 5)),
    "one": np.array(3.5),
    "small": np.arange(5),
    "objects": np.array([{}, None] * LARGE),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_a_copy_is_as_the_array_was_and_shares_nothing_with_it(array: Any) -> None:
    former = Copies()
    for copies in (former, Copies(former)):  # fresh memory, and that of the copy before
        copy = copies.of_array(array)
        assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
        if array.flags.forc:
            assert (copy.flags.c_contiguous, copy.flags.f_contiguous) == (
                array.flags.c_contiguous,
                array.flags.f_contiguous,
            )
        assert copy.tobytes() == array.tobytes() or array.dtype.hasobject
        assert not np.shares_memory(copy, array)
        assert copy.flags.writeable


def test_memory_is_used_again_where_the_size_is_the_same_and_each_piece_once() -> None:
    a, b, c = (np.full(LARGE, value) for value in (1.0, 2.0, 3.0))
    first = Copies()
    olds = [first.of_array(a), first.of_array(b)]
    second = Copies(first)
    news = [second.of_array(array) for array in (c, c.view(np.int64), a)]
    assert [sum(np.shares_memory(new, old) for new in news) for old in olds] == [1, 1]
    assert not any(np.shares_memory(x, y) for i, x in enumerate(news) for y in news[:i])
    assert [new.tobytes() for new in news] == [array.tobytes() for array in (c, c, a)]


def test_what_was_given_on_is_given_once() -> None:
    """Two that follow the same copies can't come to write to the same memory."""
    former = Copies()
    former.of_array(np.zeros(LARGE))
    a, b = (Copies(former).of_array(np.full(LARGE, value)) for value in (1.0, 2.0))
    assert a.max() == 1
    assert b.min() == 2


def test_memory_that_two_copies_did_not_need_is_freed() -> None:
    first = Copies()
    old = first.of_array(np.zeros(LARGE))
    second = Copies(first)
    second.of_array(np.zeros(2 * LARGE))
    assert not np.shares_memory(Copies(second).of_array(np.zeros(LARGE)), old)


def test_tensors_of_every_kind_are_copied() -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(LARGE * 2.0).reshape(2, -1)
    parameter = torch.nn.Parameter(base.clone())
    tensors = {
        "float": base,
        "bfloat16": base.to(torch.bfloat16),
        "int8": base.to(torch.int8).repeat(2, 1),
        "bool": (base > 5).repeat(4, 1),
        "complex": torch.complex(base, base).conj(),
        "negated": torch.complex(base, base).conj().imag,
        "turned": base.t(),
        "strided": base[:, ::2],
        "parameter": parameter,
        "small": torch.ones(3),
        "one": torch.tensor(2.5),
        "empty": torch.ones(0, 4),
    }
    former: Copies | None = None
    for _ in range(2):
        former = copies = Copies(former)
        for name, tensor in tensors.items():
            copy = copies.of_tensor(tensor, torch)
            assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape), name
            assert torch.equal(copy, tensor), name
            assert not copy.requires_grad
            assert not copy.numel() or copy.data_ptr() != tensor.data_ptr(), name


def test_what_is_packed_stays_as_it_was_while_others_are_packed() -> None:
    weights = np.zeros((2, LARGE))
    first = Copies()
    one = pack_owned({"w": weights}, copies=first)
    weights += 1
    two = pack_owned({"w": weights}, copies=Copies())
    weights += 1
    three = pack_owned({"w": weights}, copies=Copies(first))  # the first is not needed any more
    assert [float(unpack(*packed)["w"].max()) for packed in (two, three)] == [1, 2]
    assert isinstance(one, Packed)


@pytest.mark.parametrize("fails", [False, True])
def test_saves_that_follow_one_another_are_each_of_their_moment(
    fails: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = np.zeros(LARGE)
    write = Checkpoints.write
    left = [1] if fails else []

    def failing(checkpoints: Checkpoints, *args: Any, **given: Any) -> Any:
        if left:
            left.pop()
            raise OSError(28, "No space left on device")
        return write(checkpoints, *args, **given)

    monkeypatch.setattr(Checkpoints, "write", failing)
    with ub.Feed(table().batch(4)) as feed:
        for step in range(1, 5):
            train(feed, 1)
            weights[:] = step
            saving = feed.save(tmp_path, state={"w": weights}, keep=9, wait=False)
            weights[:] = -1
            if fails and step == 1:
                with pytest.raises(OSError, match="No space"):
                    saving.wait()
    found = {saved.number: set(saved.read_state()["w"].tolist()) for saved in Checkpoints(tmp_path).all()}
    assert found == {step: {float(step)} for step in range(2 if fails else 1, 5)}

"""A state is restored exactly, leaf for leaf, and loading it runs no code."""

from __future__ import annotations

import doctest
import io
import json
import math
import zipfile
from collections import OrderedDict, namedtuple
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unbounded.core import npz, packing
from unbounded.core.packing import from_json, non_finite, read_tree, to_json, write_tree


def through(tree: Any) -> Any:
    file = io.BytesIO()
    write_tree(file, tree)
    return read_tree(io.BytesIO(file.getvalue()))


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert a.hex() == b.hex()
    else:
        assert a == b


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
arrays = hnp.arrays(
    hnp.boolean_dtypes()
    | hnp.integer_dtypes()
    | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(sizes=(64, 128))
    | hnp.unicode_string_dtypes()
    | hnp.byte_string_dtypes()
    | hnp.datetime64_dtypes(),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(st.text(), inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3)
        ),
        max_leaves=6,
    )


@given(trees(plain | st.binary() | arrays))
def test_a_tree_comes_back_as_it_was(tree: Any) -> None:
    assert_same(tree, through(tree))


@given(trees(plain))
def test_plain_data_goes_through_json_that_any_strict_reader_takes(data: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = json.dumps(to_json(data), allow_nan=False)
    assert_same(data, from_json(json.loads(text, parse_constant=refuse)))


def test_an_integer_of_any_size_comes_back() -> None:
    numbers = [2**53, -(2**53) - 1, 2**64, 10**6000]
    assert through(numbers) == numbers


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_come_back(value: float) -> None:
    assert_same(value, through(value))


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(0.1),
        np.float64(math.nan),
        np.int64(-1),
        np.bool_(True),
        np.str_("é"),
        np.str_(""),
        np.datetime64("2024-05-06T07:08:09"),
        np.complex64(1j),
        ml_dtypes.bfloat16(0.1),
    ],
)
def test_a_numpy_scalar_keeps_its_type(scalar: np.generic) -> None:
    assert_same(scalar, through(scalar))
    assert_same(scalar, from_json(to_json(scalar)))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_a_dtype_that_numpy_would_write_as_raw_bytes_comes_back(name: str, shape: tuple[int, ...]) -> None:
    array = np.ones(shape).astype(getattr(ml_dtypes, name))
    assert_same(array, through(array))


def test_arrays_keep_byte_order_fields_and_layout() -> None:
    tree = {
        "big": np.arange(3, dtype=">i4"),
        "fields": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "columns": np.asfortranarray(np.ones((2, 3))),
        "strided": np.arange(10)[::3],
        "many fields": np.zeros(1, dtype=[(f"column {i}", "f8") for i in range(900)]),
    }
    back = through(tree)
    assert_same(tree, back)
    assert back["columns"].flags.f_contiguous


def test_what_was_read_can_be_written_to() -> None:
    through(np.zeros(2))[0] = 1


def test_dicts_and_tuples_of_other_kinds_come_back_plain() -> None:
    point = namedtuple("point", "x y")
    back = through(OrderedDict(p=point(1, 2)))
    assert back == {"p": (1, 2)}
    assert type(back) is dict


def test_the_same_tree_makes_the_same_file() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_tree(file, {"w": np.ones(3), "n": 1})
    assert files[0].getvalue() == files[1].getvalue()


def test_numpy_alone_can_read_the_arrays() -> None:
    file = io.BytesIO()
    write_tree(file, {"w": np.ones(3)})
    with np.load(io.BytesIO(file.getvalue()), allow_pickle=False) as members:
        assert members["0"].tolist() == [1, 1, 1]


class Pipe(io.RawIOBase):
    """Gives a few bytes at a time, and can't go back."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._content.read(min(len(buffer), 1000))
        buffer[: len(part)] = part
        return len(part)


FORMS = {
    "c": np.arange(600.0).reshape(20, 30),
    "fortran": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
    "strided": np.arange(600.0).reshape(20, 30)[::2, ::3],
    "scalar": np.array(3.5),
    "none": np.zeros((0, 4)),
    "text": np.array(["a", "bcd"]),
    "dates": np.array(["2026-11-25"], "M8[D]"),
    "other order": np.arange(5, dtype=">i4"),
    "fields": np.array([(1, 2.0)], dtype=[("\u00e9", int), ("b", float)]),
    "nothing in it": np.array(["", ""]),
}


def test_a_file_is_read_from_front_to_back_without_going_back() -> None:
    file = io.BytesIO()
    write_tree(file, FORMS)
    with np.load(io.BytesIO(file.getvalue()), allow_pickle=False) as members:
        assert len(members.files) == len(FORMS) + 1
    back = read_tree(Pipe(file.getvalue()))  # type: ignore[arg-type]
    for name, array in FORMS.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
    some = read_tree(Pipe(file.getvalue()), only=[("text",), ("c",)])  # type: ignore[arg-type]
    assert list(some) == ["text", "c"]


def test_a_file_that_was_cut_off_anywhere_is_no_such_file() -> None:
    file = io.BytesIO()
    write_tree(file, {"a": np.arange(5), "b": [np.ones(3)]})
    content = file.getvalue()
    whole = 0
    for n in range(len(content)):
        try:
            back = read_tree(io.BytesIO(content[:n]))
        except npz.Malformed:
            assert not whole
        else:  # all but the end, where the directory is, which is not needed
            whole += 1
            assert back["b"][0].tolist() == [1, 1, 1]
    assert 0 < whole < 400


class Other:
    pass


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        (np.array([Other()]), "array of Python objects"),
        (np.array([(1, None)], dtype=[("a", int), ("b", object)]), "array of Python objects"),
        (np.ma.array([1, 2], mask=[True, False]), "MaskedArray"),
        (Other(), "of type Other"),
        ({1, 2}, "of type set"),
        (1j, "of type complex"),
        (np.zeros(1, dtype=[("a", int)])[0], "make it an array"),
    ],
)
def test_what_cannot_be_saved_is_refused_by_its_place(leaf: Any, says: str) -> None:
    with pytest.raises(TypeError, match=rf"^state\['model'\]\[1\] .*{says}"):
        write_tree(io.BytesIO(), {"model": [0, leaf]})


def test_a_key_that_cannot_be_saved_is_refused_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"The key .* of state\['a'\] is of type Other"):
        write_tree(io.BytesIO(), {"a": {Other(): 1}})


def test_an_array_among_plain_data_is_refused_by_its_place() -> None:
    with pytest.raises(TypeError, match=r"info\['a'\] is of type ndarray; only plain data"):
        to_json({"a": np.ones(1)})


def archive(text: str, array: bytes) -> io.BytesIO:
    """A file as `write_tree` makes it, of a text and an array's file."""
    file = io.BytesIO()
    with zipfile.ZipFile(npz.Forward(file), "w") as members:
        npz._write(members, npz.TEXT, [memoryview(text.encode())])
        npz._write(members, "0.npy", [memoryview(array)])
    return io.BytesIO(file.getvalue())


def test_a_file_with_a_pickle_in_it_runs_nothing() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("code ran",)

    member = io.BytesIO()
    np.save(member, np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_tree(archive('{"$array":0}', member.getvalue()))


@pytest.mark.parametrize("text", ['{"$array":0,"dtype":"__name__"}', '{"$array":0,"as":"x"}', '{"$x":0}'])
def test_a_note_from_nowhere_is_refused(text: str) -> None:
    file = io.BytesIO()
    write_tree(file, np.zeros(1, np.uint16))
    with zipfile.ZipFile(file) as members:
        array = members.read("0.npy")
    with pytest.raises(ValueError, match="unknown to"):
        read_tree(archive(text, array))


# ---- frameworks ----


@pytest.mark.slow
def test_torch_tensors_come_back_as_such() -> None:
    torch = pytest.importorskip("torch")
    floats = ["bfloat16", "float16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2"]
    for name in [*floats, "int8", "uint8", "uint32", "int64", "bool"]:
        for shape in ((), (0,), (2, 3)):
            tensor = torch.ones(shape).to(getattr(torch, name))
            back = through({"t": tensor})["t"]
            assert back.dtype == tensor.dtype
            assert back.shape == tensor.shape
            assert back.tolist() == tensor.tolist()
    odd = {
        "grad": torch.ones(2, requires_grad=True),
        "conj": torch.tensor([1j]).conj(),
        "t": torch.ones(2, 3).T,
    }
    back = through(odd)
    assert not back["grad"].requires_grad
    assert back["conj"].tolist() == [-1j]
    assert back["t"].shape == (3, 2)
    with pytest.raises(TypeError, match=r"state\['s'\] could not be read as an array: it is sparse"):
        through({"s": torch.eye(2).to_sparse()})


@pytest.mark.slow
def test_a_torch_model_and_its_optimizer_go_on_from_a_saved_state() -> None:
    torch = pytest.importorskip("torch")

    def make() -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
        return model, torch.optim.AdamW(model.parameters(), amsgrad=True)

    def train(model: Any, optimizer: Any, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.rand(5, 3)).square().sum().backward()
            optimizer.step()

    model, optimizer = make()
    train(model, optimizer, 3)
    saved = through({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()})
    train(model, optimizer, 3)
    other, other_optimizer = make()
    other.load_state_dict(saved["model"])
    other_optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    train(other, other_optimizer, 3)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_jax_arrays_come_back_as_such() -> None:
    jax = pytest.importorskip("jax")
    for name in ["bfloat16", "float16", "float32", "complex64", "float8_e4m3fn", "int8", "uint32", "bool"]:
        for shape in ((), (0,), (2, 3)):
            array = jax.numpy.ones(shape, getattr(jax.numpy, name))
            back = through([array])[0]
            assert isinstance(back, jax.Array)
            assert not back.weak_type
            assert_same(np.asarray(array), np.asarray(back))


@pytest.mark.slow
def test_a_weakly_typed_jax_array_stays_one() -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    for value in (jnp.asarray(2.0), jnp.asarray(2), jax.lax.broadcast(jnp.asarray(2.0), (3,))):
        assert value.weak_type
        back = through(value)
        assert back.weak_type
        assert back.dtype == value.dtype
        assert (back * jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_jax_key_draws_the_same_after_it_was_saved(kind: str) -> None:
    jax = pytest.importorskip("jax")
    key = jax.random.split(jax.random.key(7, impl=kind), 3)
    back = through({"key": key})["key"]
    assert back.dtype == key.dtype
    assert np.array_equal(jax.random.normal(back[1], 4), jax.random.normal(key[1], 4))


@pytest.mark.slow
def test_a_jax_optimizer_state_takes_its_leaves_back() -> None:
    jax = pytest.importorskip("jax")
    adam = namedtuple("adam", "count mu")
    state = (adam(jax.numpy.asarray(3), {"w": jax.numpy.ones(2)}), None)
    back = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(through(state)))
    assert isinstance(back[0], adam)
    assert back[0].count == 3


@pytest.mark.slow
def test_a_jax_array_of_64_bits_is_not_cut_to_32() -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        file = io.BytesIO()
        write_tree(file, jax.numpy.ones(2, "float64"))
        assert read_tree(io.BytesIO(file.getvalue())).dtype == np.float64
    with pytest.raises(ValueError, match="jax_enable_x64"):
        read_tree(io.BytesIO(file.getvalue()))


@pytest.mark.slow
def test_a_deleted_jax_array_is_named() -> None:
    jax = pytest.importorskip("jax")
    array = jax.numpy.ones(2)
    array.delete()
    with pytest.raises(TypeError, match=r"state\['w'\] could not be read as an array"):
        through({"w": array})


# ---- non-finite ----


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_leaf_is_found_and_named(dtype: Any, value: float) -> None:
    good = np.ones((3, 4), dtype)
    bad = good.copy()
    bad[2, 3] = value
    assert non_finite({"a": [good, 1.0, "nan", None, np.arange(3)]}) is None
    assert non_finite({"a": [good, bad]}) == "state['a'][1]"
    assert non_finite({"a": [good, bad[2, 3]]}) == "state['a'][1]"


def test_opposite_infinities_do_not_hide_each_other() -> None:
    assert non_finite([np.array([math.inf, -math.inf])], name="weights") == "weights[0]"


def test_a_sum_that_is_too_large_is_not_taken_for_an_infinity() -> None:
    assert non_finite(np.full(9, np.finfo(np.float32).max, np.float32)) is None


def test_a_plain_float_and_a_field_count_too() -> None:
    assert non_finite((1.0, math.nan)) == "state[1]"
    assert non_finite([np.array([(1, math.nan)], [("a", int), ("b", float)])]) == "state[0]"


@pytest.mark.slow
def test_non_finite_values_of_frameworks_are_found() -> None:
    jax = pytest.importorskip("jax")
    torch = pytest.importorskip("torch")
    for ones in (
        jax.numpy.ones(3),
        jax.numpy.ones(3, "bfloat16"),
        torch.ones(3),
        torch.ones(3, dtype=torch.bfloat16),
    ):
        assert non_finite([ones]) is None
        assert non_finite([ones, ones * math.inf]) == "state[1]"
    assert non_finite([jax.random.key(0), jax.numpy.arange(3), torch.arange(3)]) is None


def test_the_examples_run() -> None:
    assert doctest.testmod(packing).failed == 0

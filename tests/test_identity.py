"""The identity of a function: a change of what it computes is detected, and no other change is."""

from __future__ import annotations

import doctest
import functools
import itertools
import json
import operator
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unbounded as ub
from helpers import table
from unbounded.core import code_identity, identity
from unbounded.core.identity import comparable, identity_of, not_compared


def made(text: str, *, path: str = "script.py", name: str = "f", lines: int = 0, **given: Any) -> Any:
    """The function `f` of a script, as another process would have it."""
    home: dict[str, Any] = {"__name__": "__main__", "__file__": path, "np": np, "functools": functools, **given}
    exec(compile("\n" * lines + textwrap.dedent(text), path, "exec"), home)
    return home[name]


def known(fn: Any) -> Any:
    return comparable(identity_of(fn))


CHANGES = {
    "an operator": ("def f(r): return r + 1", "def f(r): return r - 1"),
    "a constant": ("def f(r): return r * 2", "def f(r): return r * 3"),
    "a constant's type": ("def f(r): return r * 1", "def f(r): return r * 1.0"),
    "True for 1": ("def f(r): return r, 1", "def f(r): return r, True"),
    "a sign of zero": ("def f(r): return r + 0.0", "def f(r): return r + -0.0"),
    "a text": ("def f(r): return r['a']", "def f(r): return r['b']"),
    "a relative path": ("p = 'a/x.npy'\ndef f(): yield open(p)", "p = 'b/x.npy'\ndef f(): yield open(p)"),
    "a separator": ("p = '/'\ndef f(r): return r.split(p)", "p = '//'\ndef f(r): return r.split(p)"),
    "a path in the code": ("def f(r): return r != '/a'", "def f(r): return r != '/b'"),
    "a tuple of constants": ("def f(r): return r in (1, 2)", "def f(r): return r in (1, 3)"),
    "a set of constants": ("def f(r): return r in {'a', 'b'}", "def f(r): return r in {'a', 'c'}"),
    "a method's name": ("def f(r): return r.min()", "def f(r): return r.max()"),
    "a lambda": ("f = lambda r: r > 1", "f = lambda r: r > 2"),
    "a comparison": ("f = lambda r: r > 1", "f = lambda r: r >= 1"),
    "a default": ("def f(r, k=1): return r * k", "def f(r, k=2): return r * k"),
    "a keyword default": ("def f(r, *, k=1): return r * k", "def f(r, *, k=2): return r * k"),
    "a lambda inside": ("def f(r): return map(lambda x: x + 1, r)", "def f(r): return map(lambda x: x + 2, r)"),
    "a comprehension": ("def f(r): return [x * 2 for x in r]", "def f(r): return [x * 3 for x in r]"),
    "a function inside": (
        "def f(r):\n def g(x): return x + 1\n return g(r)",
        "def f(r):\n def g(x): return x + 2\n return g(r)",
    ),
    "a closure": (
        "def make(k):\n def f(r): return r * k\n return f\nf = make(2)",
        "def make(k):\n def f(r): return r * k\n return f\nf = make(3)",
    ),
    "a global number": ("k = 2.0\ndef f(r): return r * k", "k = 3.0\ndef f(r): return r * k"),
    "a global in a lambda inside": (
        "k = 2\ndef f(r): return (lambda x: x * k)(r)",
        "k = 3\ndef f(r): return (lambda x: x * k)(r)",
    ),
    "a global list": ("k = ['a']\ndef f(r): return r[k]", "k = ['b']\ndef f(r): return r[k]"),
    "a global dict": ("k = {'a': 1}\ndef f(r): return k[r]", "k = {'a': 2}\ndef f(r): return k[r]"),
    "a global set": ("k = {'a', 'b'}\ndef f(r): return r in k", "k = {'a'}\ndef f(r): return r in k"),
    "a global array": ("k = np.zeros(3)\ndef f(r): return r + k", "k = np.eye(3)[0]\ndef f(r): return r + k"),
    "an array's shape": ("k = np.zeros(4)\ndef f(r): return r + k", "k = np.zeros((2, 2))\ndef f(r): return r + k"),
    "an array's dtype": ("k = np.zeros(4)\ndef f(r): return r + k", "k = np.zeros(4, 'f4')\ndef f(r): return r + k"),
    "an array of text": (
        "k = np.array(['a'])\ndef f(r): return r == k",
        "k = np.array(['b'])\ndef f(r): return r == k",
    ),
    "an array of objects": (
        "k = np.array(['a', None])\ndef f(r): return r == k",
        "k = np.array(['b', None])\ndef f(r): return r == k",
    ),
    "a NumPy scalar": ("k = np.float32(1)\ndef f(r): return r + k", "k = np.float32(2)\ndef f(r): return r + k"),
    "a dtype": ("k = np.dtype('f4')\ndef f(r): return r.astype(k)", "k = np.dtype('f2')\ndef f(r): return r.astype(k)"),
    "a class for a dtype": (
        "k = np.float32\ndef f(r): return r.astype(k)",
        "k = np.float16\ndef f(r): return r.astype(k)",
    ),
    "None for a number": ("k = None\ndef f(r): return r, k", "k = 0\ndef f(r): return r, k"),
    "a helper": ("def h(r): return r + 1\ndef f(r): return h(r)", "def h(r): return r + 2\ndef f(r): return h(r)"),
    "a helper's helper's global": (
        "k = 1\ndef g(r): return r + k\ndef h(r): return g(r)\ndef f(r): return h(r)",
        "k = 2\ndef g(r): return r + k\ndef h(r): return g(r)\ndef f(r): return h(r)",
    ),
    "a list of functions": (
        "k = [lambda r: r + 1]\ndef f(r): return k[0](r)",
        "k = [lambda r: r + 2]\ndef f(r): return k[0](r)",
    ),
    "a partial's argument": (
        "def g(k, r): return k * r\nf = functools.partial(g, 2)",
        "def g(k, r): return k * r\nf = functools.partial(g, 3)",
    ),
    "a partial's keyword": (
        "def g(r, k): return k * r\nf = functools.partial(g, k=2)",
        "def g(r, k): return k * r\nf = functools.partial(g, k=3)",
    ),
    "a partial's function": (
        "def g(r, k): return k * r\nf = functools.partial(g, k=2)",
        "def g(r, k): return k + r\nf = functools.partial(g, k=2)",
    ),
    "a decorated function": (
        "def d(g):\n @functools.wraps(g)\n def w(r): return g(r)\n return w\n@d\ndef f(r): return r + 1",
        "def d(g):\n @functools.wraps(g)\n def w(r): return g(r)\n return w\n@d\ndef f(r): return r + 2",
    ),
    "a decorator's argument": (
        "def d(k):\n def d2(g):\n  def w(r): return g(r) * k\n  return w\n return d2\n@d(1)\ndef f(r): return r",
        "def d(k):\n def d2(g):\n  def w(r): return g(r) * k\n  return w\n return d2\n@d(2)\ndef f(r): return r",
    ),
    "a cached function": (
        "@functools.lru_cache\ndef h(r): return r + 1\ndef f(r): return h(r)",
        "@functools.lru_cache\ndef h(r): return r + 2\ndef f(r): return h(r)",
    ),
    "an object's setting": (
        "class S:\n def __init__(self, k): self.k = k\n def __call__(self, r): return r * self.k\nf = S(2)",
        "class S:\n def __init__(self, k): self.k = k\n def __call__(self, r): return r * self.k\nf = S(3)",
    ),
    "an object's method": (
        "class S:\n def __call__(self, r): return self.g(r)\n def g(self, r): return r + 1\nf = S()",
        "class S:\n def __call__(self, r): return self.g(r)\n def g(self, r): return r + 2\nf = S()",
    ),
    "a bound method's setting": (
        "class S:\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(2).g",
        "class S:\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(3).g",
    ),
    "a bound method's array": (
        "class S:\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(np.ones(2)).g",
        "class S:\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(np.zeros(2)).g",
    ),
    "a slot": (
        "class S:\n __slots__ = ('k',)\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(2).g",  # noqa: E501
        "class S:\n __slots__ = ('k',)\n def __init__(self, k): self.k = k\n def g(self, r): return r * self.k\nf = S(3).g",  # noqa: E501
    ),
    "a property": (
        "class S:\n @property\n def k(self): return 2\n def g(self, r): return r * self.k\nf = S().g",
        "class S:\n @property\n def k(self): return 3\n def g(self, r): return r * self.k\nf = S().g",
    ),
    "a class's attribute": (
        "class S:\n k = 2\n def g(self, r): return r * self.k\nf = S().g",
        "class S:\n k = 3\n def g(self, r): return r * self.k\nf = S().g",
    ),
    "a class method": (
        "class S:\n k = 2\n @classmethod\n def g(cls, r): return r * cls.k\nf = S.g",
        "class S:\n k = 3\n @classmethod\n def g(cls, r): return r * cls.k\nf = S.g",
    ),
    "a static method": (
        "class S:\n @staticmethod\n def g(r): return r * 2\nf = S.g",
        "class S:\n @staticmethod\n def g(r): return r * 3\nf = S.g",
    ),
    "a base class": (
        "class B:\n def g(self, r): return r + 1\nclass S(B): pass\nf = S().g",
        "class B:\n def g(self, r): return r + 2\nclass S(B): pass\nf = S().g",
    ),
    "a class that makes iterators": (
        "class f:\n def __next__(self): return 1",
        "class f:\n def __next__(self): return 2",
    ),
    "a class behind a lambda": (
        "class S:\n def __next__(self): return 1\nf = lambda: S()",
        "class S:\n def __next__(self): return 2\nf = lambda: S()",
    ),
    "an object that is read as a list": (
        "class S:\n def __init__(self, k): self.k = k\n def __getitem__(self, i): return self.k[i]\ns = S([1])\ndef f(r): return s[r]",  # noqa: E501
        "class S:\n def __init__(self, k): self.k = k\n def __getitem__(self, i): return self.k[i]\ns = S([2])\ndef f(r): return s[r]",  # noqa: E501
    ),
    "a setting of a script's arguments": (
        "import argparse\na = argparse.Namespace(k=2, lr=1)\ndef f(r): return r * a.k",
        "import argparse\na = argparse.Namespace(k=3, lr=1)\ndef f(r): return r * a.k",
    ),
    "a setting of a data class that a helper reads": (
        "from dataclasses import dataclass\n@dataclass\nclass C:\n k: int\nc = C(2)\ndef h(c, r): return c.k * r\ndef f(r): return h(c, r)",  # noqa: E501
        "from dataclasses import dataclass\n@dataclass\nclass C:\n k: int\nc = C(3)\ndef h(c, r): return c.k * r\ndef f(r): return h(c, r)",  # noqa: E501
    ),
    "an enum's member": (
        "from enum import Enum\nE = Enum('E', 'A B')\nk = E.A\ndef f(r): return r, k",
        "from enum import Enum\nE = Enum('E', 'A B')\nk = E.B\ndef f(r): return r, k",
    ),
    "a pattern": (
        "import re\nk = re.compile('a')\ndef f(r): return k.match(r)",
        "import re\nk = re.compile('b')\ndef f(r): return k.match(r)",
    ),
    "a date": (
        "import datetime as d\nk = d.date(2026, 1, 1)\ndef f(r): return r > k",
        "import datetime as d\nk = d.date(2026, 1, 2)\ndef f(r): return r > k",
    ),
    "a module of the same name": (
        "import math as m\ndef f(r): return m.log(r)",
        "import numpy as m\ndef f(r): return m.log(r)",
    ),
    "a ufunc": ("f = np.sin", "f = np.cos"),
    "a builtin": ("f = abs", "f = len"),
    "an item getter": ("import operator as o\nf = o.itemgetter('a')", "import operator as o\nf = o.itemgetter('b')"),
    "a dict's method": ("f = {'a': 1}.get", "f = {'a': 2}.get"),
    "a vectorized function": ("f = np.vectorize(lambda r: r + 1)", "f = np.vectorize(lambda r: r + 2)"),
    "what is caught": (
        "def f(r):\n try: return r[0]\n except KeyError: return 0",
        "def f(r):\n try: return r[0]\n except IndexError: return 0",
    ),
    "where it is caught": (
        "def f(r):\n a = r()\n try: b = r()\n except KeyError: b = 0\n return b",
        "def f(r):\n try:\n  a = r()\n  b = r()\n except KeyError: b = 0\n return b",
    ),
    "an argument's name": ("def f(start=0): yield start", "def f(begin=0): yield begin"),
    "a generator for a list": ("def f(r): yield 1", "def f(r): return 1"),
}


@pytest.mark.parametrize("pair", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_noticed(pair: tuple[str, str]) -> None:
    before, after = (known(made(text)) for text in pair)
    assert before != after
    assert before["code"] is not None
    assert after["code"] is not None
    assert before == known(made(pair[0], path="/elsewhere/other.py", lines=40))


SAME = {
    "a comment and a line": (
        "def f(r): return r + 1",
        "# new\n\ndef f(r):\n    # why\n    return (\n        r\n        + 1)",
    ),
    "a docstring": ("def f(r): return r, 'a', 1", "def f(r):\n '''Why.'''\n return r, 'a', 1"),
    "another docstring": ("def f(r):\n 'a'\n return r", "def f(r):\n 'b'\n return r"),
    "a docstring inside": (
        "def f(r):\n def g(x): return x\n return g",
        "def f(r):\n def g(x):\n  'a'\n  return x\n return g",
    ),
    "an annotation": ("def f(r): return r", "def f(r: int) -> int: return r"),
    "a local variable's name": ("def f(r):\n a = r + 1\n return a", "def f(r):\n b = r + 1\n return b"),
    "a global that is not read": ("k = 1\ndef f(r): return r", "k = 2\ndef f(r): return r"),
    "a setting that is not read": (
        "class S:\n def __init__(self, k): self.k, self.steps = k, 1\n def g(self, r): return r * self.k\nf = S(2).g",
        "class S:\n def __init__(self, k): self.k, self.steps = k, 9\n def g(self, r): return r * self.k\nf = S(2).g",
    ),
    "a script's argument that is not read": (
        "import argparse\na = argparse.Namespace(k=2, lr=1)\ndef f(r): return r * a.k",
        "import argparse\na = argparse.Namespace(k=2, lr=9)\ndef f(r): return r * a.k",
    ),
    "a path": (
        "from pathlib import Path\np = Path('/a/x')\ndef f(): yield p.read_bytes()",
        "from pathlib import Path\np = Path('/b/x')\ndef f(): yield p.read_bytes()",
    ),
    "an absolute path as text": ("p = '/a/x.npy'\ndef f(): yield open(p)", "p = '/b/x.npy'\ndef f(): yield open(p)"),
    "a drive": (r"p = 'C:\\x'" + "\ndef f(): yield p", r"p = 'D:\\x'" + "\ndef f(): yield p"),
    "a host": ("p = 'mqtt://a:1883'\ndef f(): yield p", "p = 'mqtt://b:1883'\ndef f(): yield p"),
    "a counter": (
        "n = 0\ndef f(r):\n global n\n n += 1\n return r",
        "n = 7\ndef f(r):\n global n\n n += 1\n return r",
    ),
    "a counter that a helper counts": (
        "n = 0\ndef h():\n global n\n n += 1\ndef f(r):\n h()\n print(n)\n return r",
        "n = 7\ndef h():\n global n\n n += 1\ndef f(r):\n h()\n print(n)\n return r",
    ),
    "a counter in a closure": (
        "def make(n):\n def f(r):\n  nonlocal n\n  n += 1\n  return r\n return f\nf = make(0)",
        "def make(n):\n def f(r):\n  nonlocal n\n  n += 1\n  return r\n return f\nf = make(7)",
    ),
    "a list that grows": (
        "seen = []\ndef f(r):\n seen.append(len(r))\n return r",
        "seen = [1, 2]\ndef f(r):\n seen.append(len(r))\n return r",
    ),
    "a cache": (
        "cache = {}\ndef f(r):\n if r not in cache: cache[r] = r + 1\n return cache[r]",
        "cache = {1: 2}\ndef f(r):\n if r not in cache: cache[r] = r + 1\n return cache[r]",
    ),
    "counts by key": (
        "n = {'a': 0}\ndef f(r):\n n['a'] += 1\n return r",
        "n = {'a': 7}\ndef f(r):\n n['a'] += 1\n return r",
    ),
    "a buffer that is filled": (
        "buf = np.zeros(2)\ndef f(r):\n buf[:] = r\n return buf",
        "buf = np.ones(2)\ndef f(r):\n buf[:] = r\n return buf",
    ),
    "a list among the defaults that grows": (
        "def f(r, seen=[]):\n seen.append(r)\n return r",
        "def f(r, seen=[1]):\n seen.append(r)\n return r",
    ),
    "an object's own count": (
        "class S:\n def __init__(self, n): self.n = n\n def g(self, r):\n  self.n += 1\n  return r\nf = S(0).g",
        "class S:\n def __init__(self, n): self.n = n\n def g(self, r):\n  self.n += 1\n  return r\nf = S(7).g",
    ),
    "what another method assigns": (
        "class S:\n def __init__(self, n): self.n = n\n def set(self, n): self.n = n\n def g(self, r): return r, self.n\nf = S(0).g",  # noqa: E501
        "class S:\n def __init__(self, n): self.n = n\n def set(self, n): self.n = n\n def g(self, r): return r, self.n\nf = S(7).g",  # noqa: E501
    ),
    "an object's list that grows": (
        "class S:\n def __init__(self, n): self.held = n\n def g(self, r):\n  self.held.append(r)\n  return r\nf = S([]).g",  # noqa: E501
        "class S:\n def __init__(self, n): self.held = n\n def g(self, r):\n  self.held.append(r)\n  return r\nf = S([1]).g",  # noqa: E501
    ),
    "an iterator that has moved": (
        "import itertools\nn = itertools.count(0)\ndef f(r): return next(n)",
        "import itertools\nn = itertools.count(9)\ndef f(r): return next(n)",
    ),
    "a method of this package": (
        "import unbounded as ub\nf = ub.Epoch(steps=1).__repr__",
        "import unbounded as ub\nf = ub.Epoch(steps=2).__repr__",
    ),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_what_is_no_change_is_none(pair: tuple[str, str]) -> None:
    before, after = (known(made(text)) for text in pair)
    assert before == after
    assert before["code"] is not None


def test_a_value_that_changes_as_the_function_runs_leaves_it_the_same() -> None:
    fn = made(SAME["a list that grows"][0])
    before = known(fn)
    fn([1, 2, 3])
    assert known(fn) == before


@pytest.mark.parametrize("change", [lambda k: k.update(a=2), lambda k: k.clear()])
def test_a_container_that_others_change_counts_as_it_was_first_seen(change: Any) -> None:
    switch = {"a": 1}
    before = known(lambda rows: rows * switch["a"])
    change(switch)
    assert known(lambda rows: rows * switch["a"]) == before
    switch = {"a": 2}
    assert known(lambda rows: rows * switch["a"]) != before


def test_functions_that_name_each_other_come_to_an_end() -> None:
    text = (
        "def f(n): return 1 if n < 2 else n * g(n - {})\ndef g(n): return f(n)\nk = [f]\nk.append(k)\ndef h(): return k"
    )
    one, same, other = (made(text.format(i)) for i in (1, 1, 2))
    assert known(one) == known(same) != known(other)
    looped = made("class S:\n def __init__(self): self.me = self\n def g(self, r): return self.me.g(r)\nf = S().g")
    assert known(looped)["code"]
    assert known(made(text.format(1), name="h"))["code"]


def test_another_module_of_the_users_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = set()
    texts = ("K = 1\ndef g(r): return r * K", "K = 2\ndef g(r): return r * K", "K = 1\ndef g(r): return r")
    for number, text in enumerate(texts):
        (tmp_path / f"mine{number}.py").write_text(text)
        found.add(json.dumps(known(made(f"from mine{number} import g\ndef f(r): return g(r)"))["reads"]))
    assert len(found) == 3
    (tmp_path / "settings.py").write_text("SCALE = 1.0\nLR = 0.1\n")
    script = "import settings\ndef f(r): return r * settings.SCALE"
    one = known(made(script))
    import settings  # type: ignore[import-not-found]

    settings.LR = 0.2
    assert known(made(script)) == one
    settings.SCALE = 2.0
    assert known(made(script)) != one


def test_what_cannot_be_compared_is_named_and_counts_by_its_type(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        fn = made("def f(r): return file.write(r), rng.normal()", path="x")
        fn.__globals__.update(file=file, rng=np.random.default_rng(0))
        assert not_compared(fn) == ["file (TextIOWrapper)", "rng (Generator)"]
        before = known(fn)
        fn.__globals__.update(rng=np.random.default_rng(1))
        assert known(fn) == before
        fn.__globals__.update(rng=np.random.RandomState(1))
        assert known(fn) != before
    stream = ub.from_arrays(np.arange(4)).map(fn).batch(2)
    (line,) = (line for line in stream.describe().splitlines() if ".map(" in line)
    assert "known by type alone: file (TextIOWrapper), rng (RandomState)" in line


def test_an_object_that_raises_when_it_is_looked_at_fails_nothing() -> None:
    class Bad:
        def __init__(self) -> None:
            self.k = 1

        def __getattribute__(self, name: str) -> Any:
            raise OSError("the connection is lost")

    bad = Bad()
    identity = identity_of(lambda rows: bad.k)
    assert identity["function"] == "<lambda>"
    assert ub.from_arrays(np.arange(4)).map(lambda rows: (rows, bad)[0]).batch(2).fingerprint


def test_large_values_are_looked_at_here_and_there() -> None:
    numbers, names = np.zeros(1 << 25, np.uint8), list(range(1 << 17))
    fn = made("def f(r): return numbers, names", numbers=numbers, names=names)
    before = known(fn)
    assert known(fn) == before
    numbers[-1] = 1
    assert known(fn) != before
    numbers[-1] = 0
    names.append(1)
    assert known(fn) != before


def test_nothing_that_a_function_holds_is_called() -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("it was called")

    class Device:
        value = property(fail)
        __iter__ = __call__ = __len__ = __getitem__ = fail

    device = Device()
    identity = identity_of(lambda rows: (device.value, device(rows), fail(rows), list(device)))
    assert identity["code"]


SCRIPT = """
import sys
import numpy as np, unbounded as ub
from pathlib import Path
HERE, KEYS, TABLE = Path(__file__).parent, {"a", "b", "c", "d"}, {"x": {"p", "q", "r"}, "y": frozenset("stuv")}
class Scale:
    def __init__(self, by): self.by = by
    def __call__(self, rows): return {k: v * self.by for k, v in rows.items() if k not in {"e", "f", "g"} | KEYS}
def rows(start=0):
    "Rows."
    assert HERE
    while True:
        yield {"id": np.arange(start, start + 4), "x": np.ones(4)}
        start += 4
def keep(rows): return np.array([i in TABLE for i in rows["id"]]) | (rows["id"] >= 0)
stream = ub.from_generator(rows).filter(keep).map(Scale(2.0)).map(lambda r: (r["id"], r["x"])).batch(4)
if __name__ == "__main__":
    print(stream.fingerprint)
"""


def fingerprint(directory: Path, *flags: str, seed: str = "0", text: str = SCRIPT) -> str:
    directory.mkdir(exist_ok=True)
    (directory / "script.py").write_text(text)
    given = [sys.executable, *flags, str(directory / "script.py")]
    out = subprocess.run(given, capture_output=True, text=True, cwd=directory, env={**ENV, "PYTHONHASHSEED": seed})
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


ENV = {"PATH": "", "PYTHONPATH": str(Path(ub.__file__).parents[1])}


def test_a_fingerprint_is_the_same_in_each_process_wherever_it_runs(tmp_path: Path) -> None:
    found = {fingerprint(tmp_path / "a", seed=seed) for seed in ("0", "1", "2", "random")}
    found.add(fingerprint(tmp_path / "b"))
    found.add(fingerprint(tmp_path / "c", text="# a line\n" + SCRIPT))
    assert len(found) == 1
    assert fingerprint(tmp_path / "d", text=SCRIPT.replace("2.0", "2.5")) not in found


# ---- a stream and a state ----


def state_of(stream: ub.Stream) -> Any:
    with ub.Feed(stream) as feed:
        for _ in itertools.islice(feed.batches(), 3):
            feed.trained()
        return json.loads(json.dumps(feed.state_dict()))


def scaled(by: float) -> Callable[[Any], Any]:
    def scale(rows: Any) -> Any:
        return {**rows, "x": rows["x"] * by}

    return scale


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        (
            table().map(scaled(2.0)).batch(4),
            table().map(scaled(3.0)).batch(4),
            r"map\(scale\) has changed: what it reads as by",
        ),
        (
            table().filter(lambda r: r["k"] > 0).batch(4),
            table().filter(lambda r: r["k"] > 1).batch(4),
            r"filter\(<lambda>\) has changed: its code",
        ),
        (table().batch(4).map(scaled(1.0)), table().batch(4).map(scaled(2.0)), r"map\(scale\) has changed"),
        (
            ub.from_arrays(np.arange(9)).map(functools.partial(np.multiply, 2)).batch(4),
            ub.from_arrays(np.arange(9)).map(functools.partial(np.multiply, 3)).batch(4),
            r"map\(multiply\) has changed: what it reads as args",
        ),
        (
            table().random_map(lambda r, g: r).batch(4),
            table().random_map(lambda r, g: dict(r)).batch(4),
            r"random_map\(<lambda>\) has changed",
        ),
        (
            table().map_rows(lambda r: r).batch(4),
            table().map_rows(lambda r: dict(r)).batch(4),
            r"map_rows\(<lambda>\) has changed",
        ),
        (
            ub.from_generator(made("def f(start=0):\n while True: yield np.arange(4)")).batch(4),
            ub.from_generator(made("def f(start=0):\n while True: yield np.arange(4) + 1")).batch(4),
            r"from_generator\(f\) has changed: its code",
        ),
        (
            ub.from_generator(made("def f():\n while True: yield np.arange(4)")).batch(4),
            ub.from_generator(made("def f():\n while True: yield np.arange(4) + 1")).batch(4),
            r"from_generator\(f\) has changed: its code",
        ),
        (
            ub.from_samples(made("k = 1\ndef f(start=0):\n while True: yield k")).batch(4),
            ub.from_samples(made("k = 2\ndef f(start=0):\n while True: yield k")).batch(4),
            r"from_samples\(f\) has changed: what it reads as k",
        ),
    ],
)
def test_a_changed_function_is_refused_by_name_and_can_be_accepted(was: ub.Stream, now: ub.Stream, what: str) -> None:
    state = state_of(was)
    with ub.Feed(now) as feed:
        with pytest.raises(ValueError, match=rf"the function of {what}.*accept_changes=True"):
            feed.load_state_dict(state)
        with pytest.warns(UserWarning, match=rf"the function of {what}.*resumed nevertheless"):
            feed.load_state_dict(state, accept_changes=True)
        assert feed.steps == 3


def test_a_function_whose_name_alone_differs_is_named() -> None:
    state = state_of(table().map(operator.itemgetter("id")).batch(4))
    with (
        ub.Feed(table().map(scaled(1.0)).batch(4)) as feed,
        pytest.raises(ValueError, match=r"map\(fn\) was 'itemgetter' and is 'scale'"),
    ):
        feed.load_state_dict(state)


def test_what_another_python_compiled_is_not_compared_and_gone_on_with() -> None:
    state = state_of(table().map(scaled(2.0)).batch(4))
    function = state["stream"][1][1]["fn"]
    function.update(python="3.99.0", code="0" * 16)
    with ub.Feed(table().map(scaled(2.0)).batch(4)) as feed:
        feed.load_state_dict(state)  # the fingerprint is the same, whatever compiled it
    state["fingerprint"] = "0" * 16
    with ub.Feed(table().map(scaled(2.0)).batch(4)) as feed:
        with pytest.warns(
            UserWarning, match=r"map\(scale\) has changed can't be told: .* under Python 3.99.0, and this"
        ):
            feed.load_state_dict(state)
        assert feed.steps == 3
    state["stream"][1][1]["fn"] = "scale"  # as an older version of this package noted it
    with (
        ub.Feed(table().map(scaled(2.0)).batch(4)) as feed,
        pytest.warns(UserWarning, match="can't be told: .* under another version of unbounded"),
    ):
        feed.load_state_dict(state)
    with ub.Feed(table().map(scaled(2.0)).batch(5)) as feed, pytest.raises(ValueError, match=r"batch\(rows\) was 4"):
        feed.load_state_dict(state)


def test_a_source_that_cannot_go_back_is_known_by_its_code(tmp_path: Path) -> None:
    text = "import itertools\ndef f():\n for i in itertools.count(begin): yield np.arange(3) + i"
    with ub.Feed(ub.from_generator(made(text, begin=0)).batch(1)) as feed:
        feed.save(tmp_path)
    with ub.Feed(ub.from_generator(made(text, begin=7)).batch(1)) as feed:
        feed.load(tmp_path)


def test_a_stream_is_described_once_before_its_functions_run() -> None:
    home: dict[str, Any] = {"phase": 1}
    fn = made("def f(r): return r if phase else r", **home)
    stream = table().map(fn).batch(4)
    with ub.Feed(stream) as feed:
        before = feed.state_dict()
        fn.__globals__["phase"] = 2  # by the training loop, say
        feed.load_state_dict(before)
        assert feed.state_dict()["fingerprint"] == before["fingerprint"]


def test_a_module_that_is_an_object_of_another_kind_is_no_trouble() -> None:
    lazy = types.ModuleType("lazy")
    lazy.value = 3  # type: ignore[attr-defined]
    assert known(made("def f(r): return lazy.value", lazy=lazy))["code"]


def test_the_examples_run() -> None:
    assert doctest.testmod(identity).failed == 0
    assert doctest.testmod(code_identity).failed == 0


def test_what_can_be_fitted_counts_by_its_type() -> None:
    code = """
    import keras, numpy as np
    from unbounded.core.identity import identity_of, not_compared
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    def f(rows): return model(rows)
    before = identity_of(f)
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert identity_of(f) == before
    assert not_compared(f) == ["model (Sequential)"]
    half, third = keras.layers.Rescaling(1 / 2), keras.layers.Rescaling(1 / 3)
    before = identity_of(half)
    half(np.ones(3))
    assert identity_of(half) == before == identity_of(keras.layers.Rescaling(1 / 2)) != identity_of(third)
    """
    pytest.importorskip("keras")
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, env={**os.environ, "KERAS_BACKEND": "jax"}
    )


def test_a_function_that_jax_compiles_is_looked_into() -> None:
    jax = pytest.importorskip("jax")
    text = "def make(k):\n k = jax.numpy.ones(3) * k\n return jax.jit(lambda r: r * k)\nf = make({})"
    one, same, other = (made(text.format(k), jax=jax) for k in (1, 1, 2))
    before = known(one)
    one(np.ones(3))
    assert known(one) == before == known(same) != known(other)


def test_what_was_started_is_the_users_own_wherever_its_file_lies(tmp_path: Path) -> None:
    (tmp_path / "site-packages").mkdir()
    texts = (SCRIPT, SCRIPT.replace("HERE\n    while", "HERE != 1\n    while"))
    found = {fingerprint(tmp_path / "site-packages", text=text) for text in texts}
    assert len(found) == 2

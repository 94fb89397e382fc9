"""A walk over a function and the objects that it reaches: its code, and the constants that it reads.

Which objects count as constants is defined in `identity`.
"""

from __future__ import annotations

import builtins
import functools
import re
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from unbounded.core import code_identity
from unbounded.core.checksum import array_checksum, checksum, plain_checksum
from unbounded.core.code_identity import is_library, is_ours

_PLACE = re.compile(r"/[^/\s]|\\\\\w|[A-Za-z]:[\\/]|[A-Za-z][\w+.-]+://")  # the beginning of an absolute path or a URL
_VALUE = checksum("value")
_BEGINNING = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__", "__setstate__"})
_NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")


class Memory:
    """Caches shared by the walks over one function."""

    def __init__(self, values: bool) -> None:
        self.values = values
        self._codes: dict[types.CodeType, code_identity.Code] = {}
        self._changing: dict[type, frozenset[str]] = {}
        self.arrays: dict[int, str | None] = {}  # by id; None: not an array
        self.alive: list[Any] = []  # keeps objects alive, so that ids stay unique

    def code(self, code: types.CodeType) -> code_identity.Code:
        """The content of a code object."""
        if code not in self._codes:
            self._codes[code] = code_identity.read(code)
        return self._codes[code]

    def changing(self, cls: type) -> frozenset[str]:
        """The names of the attributes that a class's methods assign or change outside of `__init__`."""
        if cls not in self._changing:
            found: set[str] = set()
            for one in cls.__mro__:
                for name, value in list(vars(one).items()):
                    function = value.fset if isinstance(value, property) else getattr(value, "__func__", value)
                    if isinstance(function, types.FunctionType) and name not in _BEGINNING:
                        found |= code_identity.assigned(function.__code__)
                        if not is_library(one.__module__):
                            found |= self.code(function.__code__).mutated
            self._changing[cls] = frozenset(found)
        return self._changing[cls]


class Walk:
    """A walk over a function and the objects that it reaches.

    Which objects the program changes, and which attributes it reads, is known only after all functions were read. So
    each walk collects them, and the next leaves out what changes and reads the attributes, until none are new.

    Args:
        state: what changes: variables by (home, name), objects by id, and attributes by name.
        known: the names of attributes that are read.
    """

    def __init__(self, memory: Memory, state: frozenset[Any], known: frozenset[str]) -> None:
        self._memory = memory
        self.state = state
        self.known = known
        self.changing: set[Any] = set(state)
        self.attributes: set[str] = set(known)
        self.opaque: list[str] = []
        self._label = ""
        self._done: dict[Any, str] = {}
        self._active: list[Any] = []

    def top(self, fn: Any) -> tuple[str, dict[str, str]]:
        """The checksum of the given function's code, and the checksums of what it reads."""
        bound = None
        if isinstance(fn, types.MethodType):
            fn, bound = fn.__func__, fn.__self__
        reads = {}
        if isinstance(fn, functools.partial):
            reads = {"args": self._value(fn.args), **{k: self._named(k, v) for k, v in sorted(fn.keywords.items())}}
            fn = fn.func
        if isinstance(fn, types.FunctionType) and not is_library(fn.__module__):
            code, own = self._function(fn, bound)
            return code, {**own, **reads}
        if bound is not None and not is_ours(type(bound).__module__):
            reads["self"] = self._named("self", bound)
        if isinstance(fn, types.FunctionType) and not is_ours(fn.__module__):
            code = checksum("library", fn.__module__, fn.__qualname__, self._memory.code(fn.__code__).content)
            return code, {**dict(self._defaults(fn, frozenset())), **reads}
        return self._value(fn), reads

    # -- functions and classes ---------------------------------------------------------------------------------------

    def _function(self, fn: types.FunctionType, bound: Any = None) -> tuple[str, dict[str, str]]:
        code = self._memory.code(fn.__code__)
        home = fn.__globals__
        self.attributes |= code.attributes
        self._note(fn, code)
        reads = dict(self._defaults(fn, code.mutated))
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:  # an unassigned cell
                continue
            if name != "__class__" and ("variable", id(cell)) not in self.state:
                reads[name] = self._named(name, value)
        for name in sorted(code.globals):
            if name in home and not name.startswith("__") and ("variable", id(home), name) not in self.state:
                reads[name] = self._named(name, home[name])
            elif name not in home and not hasattr(builtins, name):
                reads[name] = checksum("missing")
        if isinstance(bound, type):
            reads["class"] = self._value(bound)
        elif bound is not None:
            for name, found in self._attributes(bound, code.attributes):
                reads[f"self.{name}"] = found
        return checksum(code.content), reads

    def _defaults(self, fn: types.FunctionType, mutated: frozenset[str]) -> Iterator[tuple[str, str]]:
        given = fn.__defaults__ or ()
        positional = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        pairs = [*zip(positional[len(positional) - len(given) :], given, strict=True)]
        for name, value in [*pairs, *sorted((fn.__kwdefaults__ or {}).items())]:
            if name not in mutated:
                yield f"{name}=", self._named(name, value)

    def _note(self, fn: types.FunctionType, code: code_identity.Code) -> None:
        """Collect what a function changes."""
        home, cells = fn.__globals__, dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False))
        for name in code.stored:
            self.changing.add(("variable", id(cells[name])) if name in cells else ("variable", id(home), name))
        for name in code.mutated:
            try:
                value = cells[name].cell_contents if name in cells else home[name] if name in code.globals else None
            except (KeyError, ValueError):  # unassigned
                continue
            if isinstance(
                value, list | dict | set | bytearray | deque | np.ndarray
            ):  # changes of other objects are collected by attribute name
                self.changing.add(("object", id(value)))
        if fn.__name__ not in _BEGINNING:
            self.changing |= {("attribute", name) for name in code.assigned | code.mutated}

    def _class(self, cls: type) -> str:
        parts = [self._value(base) for base in cls.__bases__]
        changing = self._memory.changing(cls)
        for name, value in sorted(vars(cls).items()):
            if not _is_metadata(name, value) and (name not in changing or callable(value)):
                parts += [name, self._member(value)]
        return checksum("class", cls.__qualname__, parts)

    def _member(self, value: Any) -> str:
        if isinstance(value, staticmethod | classmethod):
            return self._value(value.__func__)
        if isinstance(value, property):
            return checksum("property", [self._value(part) for part in (value.fget, value.fset)])
        if isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            return checksum("slot")
        return self._value(value)

    # -- values ------------------------------------------------------------------------------------------------------

    def _named(self, label: str, value: Any) -> str:
        before, self._label = self._label, label
        try:
            return self._value(value)
        finally:
            self._label = before

    def _value(self, value: Any) -> str:
        """The checksum of a value."""
        if isinstance(value, str) and _PLACE.match(value):
            return checksum("path")
        if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes):
            return checksum(type(value).__name__, repr(value)) if self._memory.values else _VALUE
        if ("object", id(value)) in self.state:
            return checksum("state")
        self._memory.alive.append(value)
        return self._once(id(value), lambda: self._content(value))

    def _once(self, key: Any, find: Callable[[], str]) -> str:
        """The result of `find`, computed once for each key; a recursive request means a cycle, and returns a mark."""
        if key in self._active:
            return checksum("again", len(self._active) - self._active.index(key))
        if key not in self._done:
            self._active.append(key)
            try:
                self._done[key] = find()
            finally:
                self._active.pop()
        return self._done[key]

    def _content(self, value: Any) -> str:
        kind = type(value)
        if isinstance(value, Enum):
            return checksum("enum", kind.__qualname__, value.name)
        if isinstance(value, PurePath):
            return checksum("path")
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, type):
            if is_library(value.__module__):
                return checksum("library", value.__module__, value.__qualname__)
            return self._class(value)
        if isinstance(value, types.FunctionType):
            if is_library(value.__module__):
                return _named_alone(value)
            return checksum("function", *self._function(value))
        if isinstance(value, types.MethodType):
            if is_library(value.__func__.__module__):
                return checksum("method", _named_alone(value.__func__), self._value(value.__self__))
            function = value.__func__
            assert isinstance(function, types.FunctionType)
            return self._method(function, value.__self__)
        if isinstance(value, functools.partial):
            return checksum("partial", self._value(value.func), self._value(value.args), self._value(value.keywords))
        if isinstance(value, np.ufunc):
            return checksum("ufunc", value.__name__)
        if isinstance(value, types.BuiltinFunctionType):
            of = value.__self__
            inner = "" if of is None or isinstance(of, types.ModuleType) else self._value(of)
            return checksum("builtin", str(value.__module__), value.__qualname__, inner)
        if self._memory.values:
            found = _first_seen(value, lambda: plain_checksum(value, self._value))
        else:
            found = plain_checksum(value, self._value)
        if found is None:
            if id(value) not in self._memory.arrays:
                self._memory.arrays[id(value)] = array_checksum(value, self._value)
            found = self._memory.arrays[id(value)]
        if found is None:
            return self._object(value)
        return found if self._memory.values else _VALUE

    def _module(self, module: types.ModuleType) -> str:
        name, home = module.__name__, vars(module)
        if is_library(name):
            return checksum("module", name)
        names = [n for n in sorted(self.known & home.keys()) if ("variable", id(home), n) not in self.state]
        read = [(n, self._named(n, home[n])) for n in names if not _is_metadata(n, home[n])]
        return checksum("module", name, read)

    def _object(self, value: Any) -> str:
        kind = type(value)
        full = f"{kind.__module__}.{kind.__qualname__}"
        if not is_library(kind.__module__):
            # Methods called by operators, such as `value(rows)` and `value[i]`, are not named in the bytecode.
            hidden = {n for c in kind.__mro__ if not is_library(c.__module__) for n in vars(c) if n.startswith("__")}
            return checksum("object", kind.__qualname__, list(self._attributes(value, self.known | hidden)))
        if full in _NAMESPACES:
            return checksum("object", full, list(self._attributes(value, self.known)))
        if not callable(value) or hasattr(kind, "fit"):  # an object with `fit` changes, as models do
            return self._by_type(value)
        if isinstance(wrapped := getattr(value, "__wrapped__", None), types.FunctionType):  # lru_cache, jax.jit
            return checksum("wrapped", full, self._value(wrapped))
        # A callable object: its public attributes are its arguments. `name` may be a counter (Keras layers).
        own = {n: v for n, v in getattr(value, "__dict__", {}).items() if not n.startswith("_") and n != "name"}
        changing = self._memory.changing(kind)
        parts = [(n, self._named(n, v)) for n, v in sorted(own.items()) if callable(v) or n not in changing]
        if not parts:
            named = isinstance(getattr(value, "__qualname__", None), str)
            return _named_alone(value) if named else self._by_type(value)
        return checksum("object", full, parts)

    def _attributes(self, value: Any, names: Set[str]) -> Iterator[tuple[str, str]]:
        """The constant attributes of an object among `names`; methods count by code. No property is evaluated."""
        own: dict[str, Any] = getattr(value, "__dict__", {})
        changing = self._memory.changing(type(value))
        for name in sorted(names - _BEGINNING - changing):
            found = next((vars(c)[name] for c in type(value).__mro__ if name in vars(c)), None)
            if ("attribute", name) in self.state or _is_metadata(name, found):
                continue
            if isinstance(found, property | functools.cached_property):
                found = getattr(found, "fget", None) or getattr(found, "func", None)
            elif name in own:
                yield name, self._named(name, own[name])
                continue
            if isinstance(found, types.FunctionType):
                if not is_library(found.__module__):
                    yield name, self._method(found, value)
            elif isinstance(found, types.MemberDescriptorType):
                yield name, self._named(name, getattr(value, name, None))
            elif found is not None and not isinstance(found, types.GetSetDescriptorType | types.WrapperDescriptorType):
                yield name, self._member(found)

    def _method(self, function: types.FunctionType, of: Any) -> str:
        return self._once((id(function), id(of)), lambda: checksum("method", *self._function(function, of)))

    def _by_type(self, value: Any) -> str:
        kind = type(value)
        if kind.__name__ not in self.opaque:
            self.opaque.append(f"{self._label} ({kind.__name__})" if self._label else kind.__name__)
        return checksum("type", kind.__module__, kind.__qualname__)


_seen: OrderedDict[int, tuple[Any, str | None]] = OrderedDict()
_MOST_SEEN = 64


def _first_seen(value: Any, find: Callable[[], str | None]) -> str | None:
    """The result of `find` when a list, dict or set was first looked at in this process.

    A later change is not a change of the function that reads it: a second feed in the same process must be able to
    resume. Only small containers of plain data are remembered, because this keeps them alive.
    """
    if type(value) not in (list, dict, set, bytearray, deque):
        return find()
    if id(value) in _seen:
        return _seen[id(value)][1]
    items = [*value, *value.values()] if isinstance(value, dict) else value
    found = find()
    if len(value) <= _MOST_SEEN and all(type(item) in (bool, int, float, str, bytes, type(None)) for item in items):
        _seen[id(value)] = (value, found)
        if len(_seen) > _MOST_SEEN:
            _seen.popitem(last=False)
    return found


def _is_metadata(name: str, value: Any) -> bool:
    """True for names that Python sets, such as `__doc__` and `__file__`, and for annotations."""
    function = getattr(value, "__func__", value)
    is_function = isinstance(function, types.FunctionType) and not name.startswith("__annotate")
    return name == "_abc_impl" or (name.startswith("__") and name.endswith("__") and not is_function)


def _named_alone(value: Any) -> str:
    module = str(getattr(value, "__module__", ""))
    # The name only of this package: a later version may move the function to another module.
    return checksum("library", "unbounded" if is_ours(module) else module, value.__qualname__)

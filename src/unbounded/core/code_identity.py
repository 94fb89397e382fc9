"""The content of a function's bytecode, without file names, line numbers, docstrings and names of local variables: it
changes only if the computation changes.

Also the names of the global variables and attributes that the code reads, and of those that it changes. The values of
these names are left to `identity`.
"""

from __future__ import annotations

import dis
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from types import CodeType
from typing import Any

# Methods that change a list, dict, set, deque or array in place.
_MUTATORS = {
    *("add", "append", "appendleft", "clear", "difference_update", "discard", "extend", "extendleft", "fill", "insert"),
    *("intersection_update", "pop", "popitem", "popleft", "put", "put_nowait", "remove", "reverse", "rotate", "sort"),
    *("setdefault", "symmetric_difference_update", "update", "write"),
}
_KINDS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)
# Instructions without effect. Where the compiler puts them depends on line breaks in the source.
_EMPTY = frozenset({"NOP", "CACHE", "EXTENDED_ARG"})
_STORE_ITEM = {"STORE_SUBSCR": 1, "DELETE_SUBSCR": 1, "STORE_SLICE": 2}
"""The depth on the stack at which each instruction finds the container: below the key, or below both slice ends."""


@dataclass(frozen=True)
class Code:
    """A code object and those inside it: lambdas, comprehensions, nested functions.

    Args:
        content: the instructions with their arguments by value, as nested tuples of plain data.
        globals: names of global variables that are read.
        attributes: names of attributes that are read, of any object.
        stored: names of nonlocal and global variables that are assigned.
        assigned: names of attributes that are assigned.
        mutated: names of variables and attributes whose value is changed in place, by a method such as `append` or
            by assigning to an item. Only direct changes are found.
    """

    content: tuple[Any, ...]
    globals: frozenset[str]
    attributes: frozenset[str]
    stored: frozenset[str]
    assigned: frozenset[str]
    mutated: frozenset[str]


@lru_cache(maxsize=1024)
def read(code: CodeType) -> Code:
    """Read a code object.

    >>> def double(rows):
    ...     "Twice as much."
    ...     return rows * factor
    >>> def twice(table): return table * factor
    >>> read(double.__code__).content == read(twice.__code__).content
    False
    >>> sorted(read(double.__code__).globals)
    ['factor']
    """
    steps = [step for step in dis.get_instructions(code) if step.opname not in _EMPTY]
    places = _InstructionNumbers([step.offset for step in steps])
    inner: list[Code] = []
    content: list[Any] = []
    kinds = ("globals", "attributes", "stored", "assigned", "mutated")
    names: dict[str, set[str]] = {kind: set() for kind in kinds}
    for i, step in enumerate(steps):
        content.append((step.opname, _argument(step, places, inner)))
        name, op = step.argval, step.opname
        if op in ("LOAD_GLOBAL", "LOAD_NAME"):
            names["globals"].add(name)
        elif op in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"):
            names["stored"].add(name)
        elif op in ("STORE_ATTR", "DELETE_ATTR"):
            names["assigned"].add(name)
        elif op.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")):
            names["attributes"].add(name)
            if name in _MUTATORS:
                names["mutated"].update(_container(steps, i, 0))
        elif op in _STORE_ITEM:
            names["mutated"].update(_container(steps, i, _STORE_ITEM[op]))
    arguments = code.co_argcount + code.co_kwonlyargcount
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    head = (
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        code.co_flags & _KINDS,
        code.co_varnames[: arguments + stars],
    )
    for one in inner:
        for kind, found in names.items():
            found |= getattr(one, kind)
    guarded = tuple(tuple(map(places.of, part[:3])) + part[3:] for part in _guarded(code.co_exceptiontable))
    return Code((head, tuple(content), guarded), **{kind: frozenset(found) for kind, found in names.items()})


@lru_cache(maxsize=1024)
def assigned(code: CodeType) -> frozenset[str]:
    """The names of the attributes that a code object assigns or deletes; faster than `read`."""
    found = set()
    extended = 0
    text = code.co_code
    for i in range(0, len(text), 2):
        op, argument = text[i], text[i + 1] | extended
        extended = argument << 8 if op == dis.EXTENDED_ARG else 0
        if op in _ATTRIBUTE_STORES and argument < len(code.co_names):
            found.add(code.co_names[argument])
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= assigned(constant)
    return frozenset(found)


_ATTRIBUTE_STORES = {dis.opmap["STORE_ATTR"], dis.opmap["DELETE_ATTR"]}


class _InstructionNumbers:
    """Converts byte offsets to instruction numbers, not counting instructions without effect."""

    def __init__(self, offsets: list[int]) -> None:
        self._offsets = offsets
        self._number = {offset: i for i, offset in enumerate(offsets)}

    def of(self, offset: int) -> int:
        found = self._number.get(offset)
        # The offset is that of an instruction without effect: take the next one that has one.
        return found if found is not None else sum(other < offset for other in self._offsets)


def _argument(step: dis.Instruction, places: _InstructionNumbers, inner: list[Code]) -> Any:
    if step.opcode in dis.hasconst:
        return _constant(step.argval, inner)
    if step.opcode in dis.hasname:
        return step.argval
    if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
        return places.of(step.argval)
    return step.arg


def _constant(value: Any, inner: list[Code]) -> Any:
    if isinstance(value, CodeType):
        inner.append(read(value))
        return ("code", inner[-1].content)
    if isinstance(value, tuple):
        return ("tuple", *(_constant(item, inner) for item in value))
    if isinstance(value, frozenset):  # its order differs between processes
        return ("set", *sorted(repr(_constant(item, inner)) for item in value))
    return (type(value).__name__, repr(value))  # 1, 1.0 and True are equal but different constants


def _container(steps: list[dis.Instruction], at: int, depth: int) -> Iterator[str]:
    """The name of the variable, or the names of the attributes, from which the object `depth` below the top of the
    stack was loaded, before step `at`."""
    attributes = 0
    height = 0  # of the stack, relative to its height before step `at`
    place = -1 - depth
    for step in reversed(steps[:at]):
        height -= dis.stack_effect(step.opcode, step.arg if step.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
        if step.opname == "SWAP" and step.arg is not None:
            place = {height - 1: height - step.arg, height - step.arg: height - 1}.get(place, place)
            continue
        if step.opname == "COPY" and step.arg is not None and place == height:
            place = height - step.arg
            continue
        if height == place + 1 and step.opname.startswith("LOAD_ATTR"):
            attributes += 1
            yield step.argval
        if height <= place:
            if not attributes and step.opname.startswith("LOAD_") and isinstance(step.argval, str):
                yield step.argval
            return


def _guarded(table: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The entries of a code object's exception table: first byte, end, handler, details.

    The format is that of CPython's Objects/exception_handling_notes.txt.
    """
    items = iter(table)

    def number() -> int:
        byte = next(items)
        value = byte & 63
        while byte & 64:
            byte = next(items)
            value = value << 6 | byte & 63
        return value

    while True:
        try:
            start = number() * 2
        except StopIteration:
            return
        size, handler, details = number() * 2, number() * 2, number()
        yield start, start + size, handler, details


def is_ours(module: str | None) -> bool:
    """True if the module is part of this package."""
    return str(module).partition(".")[0] == "unbounded"


@cache
def is_library(module: str | None) -> bool:
    """True if the module is part of Python, of an installed package, or of this package."""
    top = str(module).partition(".")[0]
    if is_ours(top) or top in sys.stdlib_module_names:
        return True
    if top == "__main__":  # user code, even if a launcher such as `python -m pytest` was started
        return False
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    roots = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    return any(
        place is not None and (any(place.startswith(root) for root in roots) or "site-packages" in place)
        for place in places
    )

"""Modules import each other without a circle, rooms import downwards only, and the core imports NumPy alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import unbounded

ROOT = Path(unbounded.__file__).parent
MODULES = {".".join(("unbounded", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}
# From below: a room imports from itself and from those before it.
ROOMS = (
    ("core",),
    ("store",),
    ("sources",),
    ("stages",),
    ("chain", "opened", "lookup", "waiting", "table_words", "item_words", "read_out", "stream", "constructors"),
    ("torch",),
    ("feed",),
    ("simulation", "testing"),
    ("keras",),
    ("detect",),
    ("cli",),
)
ABOVE = ("unbounded.keras", "unbounded.detect", "unbounded.cli")


def _imported(module: str, *, at_once: bool) -> Iterator[str]:
    """The modules that one imports; `at_once`: those alone that it needs while it is imported itself."""
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{module} imports relatively"
            assert not node.level, f"{module} imports relatively"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inner)
        waiting += ast.iter_child_nodes(node)


def test_modules_import_each_other_without_a_circle() -> None:
    graph = {m: {name for name in _imported(m, at_once=True) if name in MODULES} for m in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_a_room_imports_none_above_it() -> None:
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    for module in MODULES:
        if module == "unbounded.__init__":
            continue
        room = module.split(".")[1]
        assert room in floor, f"{module} is in no room"
        for name in _imported(module, at_once=False):
            if name.startswith("unbounded."):
                other = name.split(".")[1]
                if other in ("__version__", *unbounded.__all__, "keras", "testing"):
                    other = {"keras": "keras", "testing": "testing"}.get(other, "feed")
                assert floor[other] <= floor[room], f"{module} imports {name}, which is above it"


def test_no_class_and_no_file_has_the_name_of_another() -> None:
    """Also with a leading underscore taken off; `ub.keras.Feed` is meant to be called as `ub.Feed` is."""
    files: dict[str, list[str]] = {}
    classes: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        if not path.stem.startswith("__"):
            files.setdefault(path.stem.lstrip("_"), []).append(module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name.lstrip("_"), []).append(module)
    assert {name: found for name, found in files.items() if len(found) > 1} == {}
    assert [name for name, found in classes.items() if len(found) > 1] == ["Feed"]


# Private names of others that are read all the same, and why.
OF_OTHERS = {
    "unbounded.keras.internals": {
        # Keras's own: this module is the one place for them, probed when it is imported.
        *("_get_iterator", "_interrupted_warning", "_num_batches", "_initial_epoch", "_symbolic_build"),
        *("_trainable_variables", "_getframe"),
    },
    "unbounded.keras._owned": {"_fields"},  # documented of a namedtuple
    "unbounded.sources.generated": {"_asdict"},  # documented of a namedtuple
    "unbounded.simulation.primitives": {"_getframe"},  # documented of sys
    "unbounded.torch": {"_getframe"},
}


def test_no_module_reaches_into_the_private_parts_of_anothers_objects() -> None:
    """`x._name`, where the name is neither of self nor of a class in the same module."""
    for module, path in MODULES.items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_self(node.value)}
        own |= {
            node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        used = {
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        }
        assert used - own <= OF_OTHERS.get(module, set()), f"{module}: {used - own}"


def _is_self(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def test_the_core_imports_numpy_alone() -> None:
    allowed = {"unbounded", "numpy", *sys.stdlib_module_names}
    for module in MODULES:
        if not module.startswith((*ABOVE, "unbounded.sources.vitals")):
            others = {name.partition(".")[0] for name in _imported(module, at_once=True)} - allowed
            assert not others, f"{module} imports {others}"


def test_the_detector_and_the_command_stand_on_the_public_face() -> None:
    """They import nothing that a user could not, and reach into nothing that is private."""
    public = {*unbounded.__all__, "__version__", "keras", "testing"}
    of_keras = {*ast.literal_eval(_assigned("unbounded.keras.__init__", "__all__"))}
    for module in MODULES:
        if not module.startswith(ABOVE[1:]):
            continue
        for name in _imported(module, at_once=False):
            room, _, rest = name.removeprefix("unbounded").lstrip(".").partition(".")
            private = name.startswith("unbounded.") and room not in ("detect", "cli")
            assert not private or (room in public and not rest), f"{module} imports {name}"
        for node in ast.walk(ast.parse(MODULES[module].read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            of = ast.unparse(node.value)
            if of in ("ub", "ub.keras"):
                assert node.attr in (public if of == "ub" else of_keras), f"{module} uses {of}.{node.attr}"
            own = of in ("self", "cls") or of.startswith(("super()", "_"))
            private = node.attr.startswith("_") and not node.attr.startswith("__") and not own
            assert not private or of.endswith(("record", "svg")), f"{module} uses {of}.{node.attr}"


def _assigned(module: str, name: str) -> str:
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.unparse(node.value)
    raise AssertionError(f"{module} has no {name}")

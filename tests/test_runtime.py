"""The core uses threads, locks, clocks, random ids and files through its runtime only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import unbounded

ROOT = Path(unbounded.__file__).parent
ROOMS = ("core", "store", "sources", "stages", "feed", "chain.py", "stream.py", "constructors.py")
BARE = {"threading", "_thread", "time", "queue", "uuid", "random", "secrets", "tempfile", "shutil", "fcntl", "glob"}
BARE |= {"multiprocessing", "concurrent", "subprocess", "socket", "select", "mmap"}
PURE = {"PathLike", "fspath", "path.join", "path.abspath", "path.basename", "path.dirname", "path.expanduser", "sep"}
# What `pathlib` asks the file system, by names that nothing else here has; and by those that others have, of a path.
ASKING = {"read_bytes", "read_text", "write_bytes", "write_text", "is_dir", "is_file", "iterdir", "rglob", "touch"}
ASKING_OF_PATHS = {"exists", "stat", "open", "mkdir", "unlink", "rename", "rmdir", "resolve"}

ALLOWED = {
    ("core/runtime.py", "_thread"): "the runtime itself",
    ("core/runtime.py", "threading"): "the runtime itself",
    ("core/runtime.py", "time"): "the runtime itself",
    ("core/runtime.py", "uuid"): "the runtime itself",
    ("core/runtime.py", "os.getpid"): "the runtime itself",
    ("core/runtime.py", "os.getpriority"): "the runtime itself",
    ("core/runtime.py", "os.setpriority"): "the runtime itself",
    ("core/runtime.py", "os.PRIO_PROCESS"): "the runtime itself",
    ("core/user_code.py", "threading"): "data of each thread: a signal handler looks at it, which has no runtime",
    ("store/remote.py", "os.environ.get"): "where the user has caches: asked once, and no file is touched",
    ("sources/vitals.py", "os.getloadavg"): "a reading of the machine: what the source is there to give",
    ("sources/vitals.py", "time"): "a reading of the machine: its clock is an argument, which a test gives",
}


def _uses(path: Path) -> Iterator[str]:
    """What a module has of the bare modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names if alias.name.partition(".")[0] in BARE)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in BARE | {"os"}:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text.startswith("os."):
                name = text.removeprefix("os.")
                if not (name in PURE or name in ("path", "environ")):
                    yield text
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "open":
                yield "open"
            elif isinstance(node.func, ast.Attribute):
                of, name = ast.unparse(node.func.value), node.func.attr
                if name in ASKING or (name in ASKING_OF_PATHS and of.endswith(("path", "Path", "folder"))):
                    yield f"{of}.{name}"


def test_the_core_has_what_a_runtime_has_from_its_runtime_alone() -> None:
    found = set()
    for room in ROOMS:
        for path in [ROOT / room] if room.endswith(".py") else (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name != "core/files.py":  # the file calls themselves
                found |= {(name, use) for use in _uses(path)}
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set()  # no more are listed than there are

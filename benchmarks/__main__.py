"""`python -m benchmarks`: every benchmark, one table of figures beside their targets.

Each part runs in a process of its own (`fit`, `tested` and `saves` in one for each backend), so that one framework's
threads and memory stay out of another's figures. They are written as JSON, with the printed Markdown beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks._harness import Report

PARTS = ("batches", "items", "mixes", "files", "images", "windows", "fit", "tested", "saves", "logs", "costs")
ON_EACH_BACKEND = ("fit", "tested", "saves")
BACKENDS = ("jax", "tensorflow", "torch")


def main() -> int:
    """Run what was asked for, and print it. A missed target is no error: the table says so."""
    options = arguments()
    if options.only:
        part(options.only, options.quick, not options.without_ours).save(options.out)
        return 0
    whole = Report()
    for name in options.parts:
        for backend in BACKENDS if name in ON_EACH_BACKEND else ("",):
            label = f"{name}-{backend}" if backend else name
            path = options.out / f"{label}.json"
            command = [sys.executable, "-m", "benchmarks", "--only", name, "--out", str(path)]
            command += ["--quick"] * options.quick + ["--without-ours"] * options.without_ours
            print(f"{label} …", file=sys.stderr, flush=True)
            chosen = {"KERAS_BACKEND": backend or "jax"}
            subprocess.run(command, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | chosen)
            whole.add(Report.load(path))
    whole.save(options.out / "all.json")
    (options.out / "all.md").write_text(whole.markdown() + "\n")
    print(whole.markdown())
    if options.docs is not None:
        whole.write_into(options.docs)
    return 0


def arguments() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what feeding costs.")
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few short rounds, not to be quoted")
    parser.add_argument("--without-ours", action="store_true", help="the peers and the floors alone")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="a directory for the figures")
    parser.add_argument("--docs", type=Path, help="a page whose table of figures is to be replaced")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def part(name: str, quick: bool, ours: bool) -> Report:
    """One benchmark, in this process."""
    if name == "batches":
        from benchmarks import batches

        return batches.report(quick=quick, ours=ours)
    if name == "items":
        from benchmarks import items

        return items.report(quick=quick)
    if name == "mixes":
        from benchmarks import mixes

        return mixes.report(quick=quick)
    if name == "files":
        from benchmarks import files

        return files.report(quick=quick)
    if name == "images":
        from benchmarks import images

        return images.report(quick=quick)
    if name == "windows":
        from benchmarks import windows

        return windows.report(quick=quick)
    if name == "fit":
        from benchmarks import fit

        return fit.report(quick=quick, ours_too=ours)
    if name == "tested":
        from benchmarks import tested

        return tested.report(quick=quick)
    if name == "saves":
        from benchmarks import saves

        return saves.report(quick=quick)
    if name == "logs":
        from benchmarks import logs

        return logs.report(quick=quick)
    if name == "costs":
        from benchmarks import costs

        return costs.report(quick=quick)
    raise SystemExit(f"There is no benchmark {name!r}: choose of {', '.join(PARTS)}.")


if __name__ == "__main__":
    raise SystemExit(main())

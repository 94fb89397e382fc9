"""The requirements in pyproject.toml are tested, and pin nothing for users."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    extras = [needs for extra, needs in project()["optional-dependencies"].items() if extra not in ("test", "bench")]
    for need in [*project()["dependencies"], *(need for needs in extras for need in needs)]:
        if name := re.match(r"([a-z0-9-]+)>=([0-9.]+)$", need):
            found.setdefault(name[1], set()).add(name[2])
    return found


def test_the_oldest_versions_that_are_allowed_are_those_that_are_tested() -> None:
    text = (ROOT / "tests" / "oldest-versions.txt").read_text()
    tested = dict(re.findall(r"^([a-z0-9-]+)==([0-9.]+)$", text, re.MULTILINE))
    allowed = {name: versions for name, versions in bounds().items() if name in tested}
    assert allowed == {name: {version} for name, version in tested.items() if name != "jaxlib"}
    assert tested["jaxlib"] == tested["jax"]


def test_no_extra_for_users_pins_a_version() -> None:
    extras = project()["optional-dependencies"]
    pinned = [
        need for extra, needs in extras.items() if extra not in ("test", "bench") for need in needs if "==" in need
    ]
    assert pinned == []

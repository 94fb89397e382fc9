"""Warnings point at the user's line, and at ours where there is none."""

from __future__ import annotations

import threading
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from unbounded.core.warn import warn


def module(name: str, text: str, **given: Any) -> Any:
    made = types.ModuleType(name)
    vars(made).update(given)
    exec(compile(text, f"/site/{name.replace('.', '/')}.py", "exec"), vars(made))
    return made


def in_thread(fn: Callable[[], None]) -> None:
    thread = threading.Thread(target=fn)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda ours, keras, command: ours.fn(), __file__),
        (lambda ours, keras, command: keras.go(ours.fn), __file__),
        (lambda ours, keras, command: command.go(ours.fn), "/site/unbounded/feed/some.py"),
        (lambda ours, keras, command: in_thread(ours.fn), "/site/unbounded/feed/some.py"),
    ],
)
def test_a_warning_points_at_the_users_line_or_at_ours(call: Any, where: str) -> None:
    ours = module("unbounded.feed.some", "def fn():\n    warn('text')\n", warn=warn)
    keras = module("keras.src.trainer", "def go(fn):\n    fn()\n")
    command = module("unbounded.cli._some", "def go(fn):\n    fn()\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(ours, keras, command)
    assert [warning.filename for warning in caught] == [where]

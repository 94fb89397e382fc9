"""What all tests share: hypothesis always tries the same examples, and a core test leaves no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests that need it say so themselves
    pass
else:
    settings.register_profile(
        "same", derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("same")


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Fails the test where a thread of ours is still alive after it."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("unbounded")]
    for thread in left:
        thread.join(2.0)
    assert not [t.name for t in left if t.is_alive()]

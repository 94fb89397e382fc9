"""A log is synced by a thread of its own: within a second, and sooner after many bytes."""

from __future__ import annotations

import threading

import pytest

from unbounded.core.runtime import Runtime
from unbounded.sources import log_sync
from unbounded.sources.log_sync import LogSync

pytestmark = pytest.mark.usefixtures("no_threads_left")


class Log:
    where = "somewhere"

    def __init__(self) -> None:
        self.synced = threading.Semaphore(0)
        self.fails = False

    def sync(self) -> None:
        self.synced.release()
        if self.fails:
            raise OSError(5, "Input/output error")


def test_a_row_is_synced_soon_and_many_bytes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_sync, "_SECONDS", 0.001)
    sync = LogSync(log := Log(), Runtime())
    sync.appended(1)
    assert log.synced.acquire(timeout=30)
    sync.close()
    monkeypatch.setattr(log_sync, "_SECONDS", 3600.0)
    sync = LogSync(log := Log(), Runtime())
    for _ in range(3):
        sync.appended(1 << 22)
        assert not log.synced.acquire(timeout=0.001)
        sync.appended(1 << 22)
        assert log.synced.acquire(timeout=30)
    sync.appended(1)
    sync.close()
    assert log.synced.acquire(timeout=0)  # what is left, when it is closed
    assert not log.synced.acquire(timeout=0)


def test_a_sync_that_fails_is_said_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_sync, "_SECONDS", 3600.0)
    log = Log()
    sync = LogSync(log, Runtime())
    log.fails = True
    for _ in range(3):
        sync.appended(1 << 23)
        assert log.synced.acquire(timeout=30)
    sync.close()
    assert [record.getMessage() for record in caplog.records] == [
        "The row log in somewhere could not be synced: [Errno 5] Input/output error."
    ]


def test_a_log_without_rows_has_no_thread() -> None:
    sync = LogSync(log := Log(), Runtime())
    sync.close()
    assert not log.synced.acquire(timeout=0)

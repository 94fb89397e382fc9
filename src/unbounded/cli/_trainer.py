"""Trainer: a training process, seen by the events that it prints, which can be killed and started again."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any


class TrainerError(Exception):
    """The trainer ended by itself; the message has the end of its output."""


class Trainer:
    """`unbounded train` as a child process.

    Args:
        arguments: of the command, after `train`.
        errors: the file to which its standard error is appended.
    """

    def __init__(self, arguments: Sequence[str], errors: Path) -> None:
        self._errors = errors
        command = [sys.executable, "-m", "unbounded.cli", "train", *arguments, "--display", "json", "--no-report"]
        with errors.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env=os.environ | {"PYTHONUTF8": "1"},
                # Ctrl-C in a terminal reaches all processes of a session; a second signal would end it without saving.
                start_new_session=True,
            )
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            try:
                self._events.put(json.loads(line))
            except ValueError:
                # A library may print lines of its own, and a kill may cut a line.
                continue
        self._events.put(None)

    def next(self, timeout: float) -> dict[str, Any] | None:
        """Wait for the next event.

        Args:
            timeout: seconds to wait at most.

        Returns:
            The event; ``None`` if none came in time.

        Raises:
            TrainerError: the trainer has ended.
        """
        try:
            event = self._events.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if event is None:
            raise TrainerError(f"The trainer has ended (exit code {self._process.wait()}). {self._last_words()}")
        return event

    def kill(self) -> None:
        """SIGKILL: it can't save."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def stop(self, timeout: float = 20.0) -> list[dict[str, Any]]:
        """SIGTERM: it finishes its step, writes a checkpoint and ends.

        Args:
            timeout: seconds after which it is killed.

        Returns:
            The events that it printed until its end.
        """
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        events = []
        while (event := self._events.get()) is not None:
            events.append(event)
        return events

    def _last_words(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"Its last words, from {self._errors}:\n" + "\n".join(lines[-12:])


class BusyCore:
    """One core, kept busy for some seconds by a process.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        code = f"import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
        self.began = clock.time()
        self._process = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()

"""AlarmCommand: runs a user's shell command for each alarm, in a thread, so that training never waits for it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

QUEUE = 100  # alarms that may wait
TIMEOUT = 60.0  # seconds for one command
LEAVE = 5.0  # seconds for those that wait, when the run ends
FIELDS = ("time", "key", "column", "cause", "score", "tail", "change", "row", "words")


class AlarmCommand:
    """Runs a command for each alarm, one at a time and in their order. Use it in a `with`.

    Args:
        command: for the shell; None for no command.
        source: the source's name in the command.
        directory: the run's.
        say: receives a sentence when a command fails first, and when an alarm is dropped first.
        timeout: seconds after which a command and what it started are killed.
        waiting: the alarms that may wait; more are dropped.
        leave: seconds for which `close` waits.
    """

    def __init__(
        self,
        command: str | None,
        source: str,
        directory: Path,
        say: Callable[[str], None],
        *,
        timeout: float = TIMEOUT,
        waiting: int = QUEUE,
        leave: float = LEAVE,
    ) -> None:
        self._command, self._source, self._directory, self._say = command, source, directory, say
        self._timeout, self._leave = timeout, leave
        self._alarms: queue.Queue[dict[str, Any] | None] = queue.Queue(waiting)
        self._ending = threading.Event()
        self._said: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="on-alarm", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> AlarmCommand:
        if self._command is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """The number of alarms that wait for the command."""
        return self._alarms.qsize()

    def add(self, alarm: Mapping[str, Any]) -> None:
        """Take an alarm; returns at once.

        Args:
            alarm: an event of the trainer.
        """
        if self._command is None:
            return
        fields = {name: alarm.get(name) for name in FIELDS} | {"time": alarm.get("at", alarm.get("time"))}
        fields |= {"source": self._source, "run": str(self._directory)}
        try:
            self._alarms.put_nowait(fields)
        except queue.Full:
            self._say_once(
                "dropped",
                f"--on-alarm: {self._alarms.maxsize:,} alarms wait for the command, which takes longer than they come. "
                "More are left out until it is done; alarms.csv has all.",
            )

    def close(self) -> None:
        """Let the alarms that wait be told, for some seconds; then end the command."""
        if not self._thread.is_alive():
            return
        try:
            self._alarms.put(None, timeout=self._leave)
            self._thread.join(self._leave)
        except queue.Full:
            pass
        self._ending.set()
        self._kill()
        self._thread.join(self._leave)

    def _run(self) -> None:
        while (alarm := self._alarms.get()) is not None and not self._ending.is_set():
            try:
                self._tell(alarm)
            except OSError as error:
                self._say_once("failed", f"--on-alarm: the command can't be run: {error.strerror or error}.")

    def _tell(self, alarm: dict[str, Any]) -> None:
        assert self._command is not None
        told = json.dumps(alarm, ensure_ascii=False).encode() + b"\n"
        variables = {f"UNBOUNDED_{name.upper()}": "" if value is None else str(value) for name, value in alarm.items()}
        # The output would disturb the display, and may be long: a file holds it, and its end is shown if it fails.
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                self._command,
                shell=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
                env={**os.environ, **{name: value.replace("\0", "") for name, value in variables.items()}},
                # Ctrl-C in a terminal is for the trainer; and a group of its own is ended as a whole.
                start_new_session=True,
            )
            self._process = process
            try:
                process.communicate(told, timeout=self._timeout)
            except subprocess.TimeoutExpired:
                self._kill()
                process.wait()
                self._say_once("failed", f"--on-alarm: the command took {self._timeout:,.0f} s and was ended.")
                return
            if process.returncode and not self._ending.is_set():
                output.seek(max(0, output.tell() - 300))
                lines = output.read().decode("utf-8", "replace").strip().splitlines()
                last = f": {lines[-1]}" if lines else ""
                self._say_once(
                    "failed",
                    f"--on-alarm: the command has failed (exit code {process.returncode}){last}. It is run for later "
                    "alarms, too; more failures are not told.",
                )

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                process.kill()

    def _say_once(self, about: str, words: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._say(words)

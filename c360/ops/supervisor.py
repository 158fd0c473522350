"""Several worker processes under one parent: started, started again when they fail, stopped together.

What to do about a process that has ended is decided by `after`; everything else here acts on it.
"""

from __future__ import annotations

import errno
import logging
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from c360.errors import Fenced, NeedsOperator, UsageError

log = logging.getLogger("c360.supervisor")

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
HEALTHY_S: Final = 60.0  # who lived so long is started again at once
LOOK_S: Final = 0.1
# Starting again would end the same way.
FOR_GOOD: Final = {UsageError.exit_code, Fenced.exit_code, NeedsOperator.exit_code}
FOR_NOW: Final = {errno.EAGAIN, errno.ENOMEM}  # the machine has no room for another process
STOPPED: Final = {0, -signal.SIGTERM}  # the second: told so before it could listen; it had not begun anything


@dataclass(frozen=True)
class Again:
    """Start the process again after a pause; it was the n-th failure in a row."""

    pause_s: float
    failures: int


@dataclass(frozen=True)
class GiveUp:
    """Stop all processes and end with this exit code."""

    exit_code: int


def after(exit_code: int, lived_s: float, failures: int) -> Again | GiveUp:
    """What to do when a process has ended that nobody told to stop, after `failures` in a row before."""
    if exit_code in FOR_GOOD:
        return GiveUp(exit_code)
    failures = 1 if lived_s >= HEALTHY_S else failures + 1
    return Again(0.0 if failures == 1 else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (failures - 2)), failures)


@dataclass
class _Child:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0  # when to start it


class Supervisor:
    """Runs `command(k)` for each k below `processes`. `run` blocks until `stopped`; returns the exit code."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        processes: int,
        *,
        stop_s: float,
        environ: Mapping[str, str] | None = None,
        log: Callable[[int], Path] | None = None,
    ) -> None:
        """`stop_s`: how long processes may take to stop before they are killed. `environ`, `log`: of processes that have an
        environment of their own, and say what they do in a file each."""
        self.command, self.stop_s = command, stop_s
        self.environ, self.log = environ, log
        self.children = [_Child(k) for k in range(processes)]

    def run(self, stopped: Callable[[], bool]) -> int:
        """Keep all processes alive. 0 when all have stopped as told; else the code of one that cannot go on."""
        exit_code = 0
        try:
            while not stopped():
                for child in self.children:
                    given_up = self._look_after(child)
                    if given_up is not None:
                        exit_code = given_up
                        return exit_code
                time.sleep(LOOK_S)
        finally:
            ended = self._stop()
            exit_code = exit_code or ended
        return exit_code

    def _look_after(self, child: _Child) -> int | None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.due:
                self._start(child, now)
            return None
        code = child.process.poll()
        if code is None:
            return None
        child.process = None
        match after(code, now - child.started, child.failures):
            case GiveUp(exit_code):
                log.error("process %d ended with %d and cannot go on; stopping the others", child.number, code)
                return exit_code
            case Again(pause_s, failures):
                log.warning("process %d ended with %d; starting it again in %.1f s", child.number, code, pause_s)
                child.failures, child.due = failures, now + pause_s
        return None

    def _start(self, child: _Child, now: float) -> None:
        try:
            child.process, child.started = self._begin(child.number), now
        except OSError as error:
            if error.errno not in FOR_NOW:
                raise
            child.due = now + FIRST_PAUSE_S
            log.warning("process %d cannot be started (%s); trying again", child.number, error.strerror)

    def _begin(self, number: int) -> subprocess.Popen[bytes]:
        command = list(self.command(number))
        if self.log is None:
            return subprocess.Popen(command, env=self.environ)
        with self.log(number).open("ab") as out:
            return subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def _stop(self) -> int:
        """Tell all to stop and wait for them. The first code that is not 0."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.stop_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process %d did not stop in %.0f s and is killed; nothing is lost", process.pid, self.stop_s)
                process.kill()
                process.wait()
        return next((p.returncode for p in running if p.returncode not in STOPPED), 0)

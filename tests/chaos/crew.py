"""Worker processes of one app. One that ends by itself is started again and its exit code counted."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.stories.tools import stop, worker

LOOK_S = 0.1


class Crew:
    """`size` workers, counted from 0, each with a state directory and a log of its own. A context manager."""

    def __init__(
        self, size: int, broker_of: Callable[[int], str], work: Path, app: str, settings: Mapping[str, str]
    ) -> None:
        self.size, self.broker_of, self.work, self.app, self.settings = size, broker_of, work, app, settings
        self.exits: Counter[int] = Counter()  # codes of those that ended by themselves
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.away: set[int] = set()  # not to be started again now
        self.guard = threading.Lock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look_after, name="crew")

    def __enter__(self) -> Crew:
        for number in range(self.size):
            self._start(number)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def log(self, number: int) -> Path:
        return self.work / f"worker-{number}.log"

    def _start(self, number: int) -> None:
        with self.log(number).open("a") as log:
            log.write(f"=== {time.strftime('%H:%M:%S')} start\n")
        state = self.work / "state" / str(number)
        alone = ("--number", str(number))  # as under a supervisor: it ends when this process does
        self.processes[number] = worker(
            self.broker_of(number), state, self.log(number), self.app, *alone, **self.settings
        )

    def _look_after(self) -> None:
        while not self.over.wait(LOOK_S):
            with self.guard:
                for number, process in self.processes.items():
                    if number not in self.away and (code := process.poll()) is not None:
                        self.exits[code] += 1
                        self._start(number)

    # ----------------------------------------------------------------------------------------------- what is done to them
    def kill(self, number: int) -> None:
        """kill -9; it stays away until `start`."""
        with self.guard:
            self.away.add(number)
            self.processes[number].kill()
            self.processes[number].wait()

    def stop(self, number: int) -> int:
        """SIGTERM; it stays away until `start`. Its exit code."""
        with self.guard:
            self.away.add(number)
        return stop(self.processes[number])

    def start(self, number: int) -> None:
        with self.guard:
            self.away.discard(number)
            self._start(number)

    def freeze(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGCONT)

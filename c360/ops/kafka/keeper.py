"""The keeper: a small process that runs brokers and outlives its parent just long enough to end them.

Run as a script with nothing but the standard library. A parent that is killed cannot clean up after itself, and Linux's
"signal me when my parent dies" follows the thread that forked, which may end long before the process does. So the
brokers are children of the keeper, and the keeper ends them when its standard input says so, when that input closes
(the parent is gone), or when its parent's id changes (gone, and a forked child still holds the pipe open).

In: one line of JSON (`Spec` below as an object); later `start N`, for the N-th process that has ended, and `stop`.
Out: one line of JSON each time, the process ids. A process that ended by itself leaves its exit code in `exit` in its
directory. Each has its own file `broker.log`.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

_LOOK_S = 0.25


class Spec(TypedDict):
    """What to run. `remove` is deleted in the end ("" for nothing); `after` are commands run before that."""

    commands: list[list[str]]
    directories: list[str]
    after: list[list[str]]
    remove: str
    stop_s: float  # how long a clean stop may take before the processes are killed
    orphan_s: float  # the same when the parent is gone; 0 kills at once


def main() -> None:
    """Read the specification, run it until told to stop or orphaned, leave nothing behind."""
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stay)  # not SIG_IGN: children inherit it, and a JVM would then ignore a clean stop
    spec: Spec = json.loads(sys.stdin.readline())
    running: dict[int, subprocess.Popen[bytes]] = {}
    told = False
    try:
        for at in range(len(spec["commands"])):
            _start(spec, running, at)
        _tell(running)
        told = _wait(parent, running, spec)
    finally:
        _end(list(running.values()), spec["stop_s"] if told else spec["orphan_s"])
        for command in spec["after"]:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if spec["remove"]:
            shutil.rmtree(spec["remove"], ignore_errors=True)


def _stay(number: int, frame: object) -> None:
    """It ends when its parent does, not before."""


def _start(spec: Spec, running: dict[int, subprocess.Popen[bytes]], at: int) -> None:
    directory = spec["directories"][at]
    with Path(directory, "broker.log").open("ab") as log:
        running[at] = subprocess.Popen(
            spec["commands"][at], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory
        )


def _tell(running: dict[int, subprocess.Popen[bytes]]) -> None:
    print(json.dumps([running[at].pid for at in sorted(running)]), flush=True)


def _wait(parent: int, running: dict[int, subprocess.Popen[bytes]], spec: Spec) -> bool:
    """Until told to stop (True) or orphaned (False); starts again who is named, notes who ended by itself meanwhile."""
    noted: set[int] = set()
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable:
            word, _, number = sys.stdin.readline().partition(" ")
            if word != "start":
                return bool(word)
            at = int(number)
            running[at].wait()
            noted.discard(at)
            Path(spec["directories"][at], "exit").unlink(missing_ok=True)
            _start(spec, running, at)
            _tell(running)
        if os.getppid() != parent:
            return False
        for at, process in running.items():
            if at not in noted and process.poll() is not None:
                Path(spec["directories"][at], "exit").write_text(str(process.returncode), encoding="ascii")
                noted.add(at)


def _end(processes: list[subprocess.Popen[bytes]], within_s: float) -> None:
    """Ask, wait, kill; returns when all are gone."""
    left = [process for process in processes if process.poll() is None]
    if within_s > 0:
        for process in left:
            process.terminate()
        deadline = time.monotonic() + within_s
        for process in left:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
    for process in left:
        if process.poll() is None:
            process.kill()
        process.wait()


if __name__ == "__main__":
    main()

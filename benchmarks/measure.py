"""CPU, memory and instructions of a process and all it starts, as Linux counts them. Knows nothing of Kafka."""

from __future__ import annotations

import os
import shutil
import subprocess
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PERF_MS = 250
Counted = list[tuple[float, int]]  # (seconds since the start, instructions so far)


def tree(pids: Iterable[int]) -> Iterator[int]:
    """These processes and their descendants, those that only measure (perf) left out."""
    for pid in pids:
        if _read(pid, "comm") != "perf\n":
            yield pid
        for task in _tasks(pid):
            yield from tree(map(int, _read(pid, f"task/{task}/children").split()))


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes and their descendants, also of those that ended."""
    ticks = 0
    for pid in tree(pids):
        if stat := _read(pid, "stat"):
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return ticks / TICKS


def peak_rss_mb(pids: Iterable[int]) -> float:
    """The largest memory each of these processes and their descendants ever had, added up."""
    kb = 0
    for pid in tree(pids):
        kb += sum(int(line.split()[1]) for line in _read(pid, "status").splitlines() if line.startswith("VmHWM:"))
    return kb / 1024


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _read(pid: int, name: str) -> str:
    """A file of a process; "" when the process is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------- perf
def perf_command(report: Path) -> list[str]:
    """What to put before a command so that its instructions are counted into `report`; nothing where that is impossible.

    Many virtual machines have a perf, but no counters.
    """
    perf = shutil.which("perf")
    if perf is None:
        return []
    tried = subprocess.run([perf, "stat", "-x,", "-e", "instructions", "true"], capture_output=True, text=True)
    if not any(line.split(",")[0].isdigit() for line in tried.stderr.splitlines()):
        return []
    return [perf, "stat", "-x,", "-I", str(PERF_MS), "-e", "instructions", "-o", str(report), "--"]


def counted(report: str) -> Counted:
    """The text that perf wrote: lines of `seconds,instructions in this interval,…`."""
    total, found = 0, [(0.0, 0)]
    for line in report.splitlines():
        fields = line.split(",")
        if len(fields) > 3 and fields[1].isdigit() and fields[3].startswith("instructions"):
            total += int(fields[1])
            found.append((float(fields[0]), total))
    return found


def instructions_at(found: Sequence[tuple[float, int]], seconds: float) -> float:
    """Instructions until then; between two readings in proportion."""
    after = bisect_left(found, seconds, key=lambda reading: reading[0])
    if after == len(found):
        return found[-1][1]
    if after == 0:
        return found[0][1]
    (begun, before), (ended, then) = found[after - 1], found[after]
    return before + (then - before) * (seconds - begun) / (ended - begun)

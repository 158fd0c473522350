"""Counters of one loop, read by the worker's web page; plain numbers, written by the loop's thread only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from c360.engine.restore import Progress


@dataclass
class LoopMetrics:
    """Totals since the process started. Times in seconds."""

    agent: str
    records: int = 0
    mail: int = 0  # messages between tasks that did not pass the log; of aborted transactions, too
    process_cpu_s: float = 0.0
    commits: int = 0
    commit_s: float = 0.0
    commit_s_max: float = 0.0
    restores: int = 0
    restored_records: int = 0
    restore_s: float = 0.0
    recoveries: Counter[str] = field(default_factory=Counter)

    def processed(self, records: int, cpu_s: float) -> None:
        self.records += records
        self.process_cpu_s += cpu_s

    def committed(self, records: int, seconds: float) -> None:
        self.commits += 1
        self.commit_s += seconds
        self.commit_s_max = max(self.commit_s_max, seconds)

    def restored(self, progress: Progress) -> None:
        self.restores += 1
        self.restored_records += progress.records
        self.restore_s += progress.seconds

    def recovered(self, error: str) -> None:
        self.recoveries[error] += 1

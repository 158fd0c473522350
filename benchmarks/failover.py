"""`python -m benchmarks.failover`: how long partitions stand still when a worker is killed, stopped, or back with a big disk.

Two workers of the shop share its partitions, two of the projection's four each, while clicks of 64 visitors come in all the
time. Of each partition's commits the longest pause is taken, from just before the signal on, and of those the longest: what
a reader of profiles waits for, through both hops. Figures, never a verdict: exit code 0 when all was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP
from c360.ops import dev_kafka
from c360.ops.load import load
from c360.ops.progress import at_rest
from c360.ops.traffic import traffic
from tests.clear_shop import app  # nothing is sealed: as it was measured before

PARTITIONS, DEADLINE_S = 4, 60.0
CLICKS, VISITORS = "web.clicks", 64
AGENT = app.plan().agent(app.plan().projections[0].agent)  # every partition of its lead topic is a task
ROOT = Path(__file__).parents[1]


@dataclass
class Worker:
    """A worker process with a state directory that outlives it."""

    broker: str
    home: Path
    port: int
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
        environ |= {"C360_BROKER": self.broker, "C360_STATE_DIR": str(self.home / "state"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "c360", "-A", "tests.clear_shop:app", "worker", "--web-port", str(self.port)]
        self.home.mkdir(exist_ok=True)
        with (self.home / "log").open("ab") as out:
            self.process = subprocess.Popen([*command, *self.options], cwd=ROOT, env=environ, stdout=out, stderr=out)

    def end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE_S)

    def metric(self, labelled: str) -> float:
        """The sum of a metric's lines that begin so; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(labelled))

    def running(self) -> float:
        return self.metric(f'c360_tasks{{agent="{AGENT.name}",phase="running"')


@dataclass
class Pulse:
    """Writes clicks all the time, and notes when the projection has committed something in each partition."""

    cluster: KafkaCluster
    came: dict[int, list[float]] = field(default_factory=lambda: {p: [] for p in range(PARTITIONS)})
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _write(self) -> None:
        producer, n = self.cluster.producer(), 0
        while not self.stopping.wait(0.02):
            for _ in range(8):
                n += 1
                visitor = f"pulse-{n % VISITORS}"
                value = {"id": f"{os.getpid()}-{n}", "cookie": visitor, "login": None, "category": "pulse",
                         "ts": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
                producer.produce(CLICKS, visitor.encode(), json.dumps(value).encode())
            producer.flush()
        producer.close()

    def _read(self) -> None:
        admin = self.cluster.admin()
        reached: dict[TP, int] = {}
        while not self.stopping.wait(0.01):
            now = time.monotonic()
            for tp, offset in admin.group_offsets(AGENT.group).items():
                if offset > reached.get(tp, 0):
                    reached[tp] = offset
                    self.came[tp.partition].append(now)
        admin.close()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.02)


def pauses(pulse: Pulse, at: float) -> list[float]:
    """For each partition the longest time without progress from just before `at` on, up to now."""
    found = []
    for times in pulse.came.values():
        before = max((t for t in times if t <= at), default=at)
        later = [before, *(t for t in times if t > at)]
        found.append(max(b - a for a, b in pairwise(later)) if len(later) > 1 else DEADLINE_S)
    return sorted(found)


def fail_over(pulse: Pulse, one: Worker, other: Worker, number: int, *, again: bool) -> float:
    """Signal `one`, and start it again if so; the longest pause of a partition, in seconds."""
    until(lambda: one.running() == other.running() == PARTITIONS / 2)
    time.sleep(1.0)
    at = time.monotonic()
    one.end(number)
    if again:
        one.start()
    until(lambda: one.running() + other.running() == PARTITIONS if again else other.running() == PARTITIONS)
    until(lambda: all(any(t > at + 0.5 for t in times) for times in pulse.came.values()))
    time.sleep(1.0)
    found = pauses(pulse, at)
    if not again:
        one.start()
    return found[-1]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        broker = stack.enter_context(dev_kafka.start())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-failover-")))
        cluster = KafkaCluster(broker.bootstrap)
        load(traffic(2_000, seed=1, end_ms=int(time.time() * 1000)), cluster, partitions=PARTITIONS)
        extra = ["--standby"] if options.standby else []
        one, other = (Worker(broker.bootstrap, home / name, _port(), extra) for name in ("one", "other"))
        for each in (one, other):
            stack.callback(each.end, signal.SIGKILL)
            each.start()
        pulse = Pulse(cluster)
        pulse.start()
        stack.callback(pulse.stop)
        cases = {"killed_and_restarted": (signal.SIGKILL, True), "stopped": (signal.SIGTERM, False),
                 "killed": (signal.SIGKILL, False)}  # fmt: skip
        results: dict[str, Any] = {}
        for name, (number, again) in cases.items():
            runs = [fail_over(pulse, one, other, number, again=again) for _ in range(options.rounds)]
            results[name] = {"median_s": round(statistics.median(runs), 2), "max_s": round(max(runs), 2)}
            print(name, results[name], file=sys.stderr, flush=True)
        return results


def big_disk(events: int) -> dict[str, Any]:
    """A worker alone, killed with a large state directory, started again: until the first record it commits."""
    plan = app.plan()
    with ExitStack() as stack:
        broker = stack.enter_context(dev_kafka.start())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-failover-")))
        cluster = KafkaCluster(broker.bootstrap)
        worker = Worker(broker.bootstrap, home / "one", _port())
        stack.callback(worker.end, signal.SIGKILL)
        worker.start()
        load(traffic(events, seed=2, end_ms=int(time.time() * 1000)), cluster, partitions=PARTITIONS)
        admin, reader = cluster.admin(), cluster.reader()
        deadline = time.monotonic() + 600
        while not at_rest(plan, admin, reader):
            if time.monotonic() > deadline:
                raise TimeoutError("it did not catch up in time")
            time.sleep(0.5)
        logs = [a.changelogs for a in plan.agents]
        ends = reader.ends([TP(t, p) for topics in logs for t in topics for p in range(PARTITIONS)])
        worker.end(signal.SIGKILL)
        size = sum(f.stat().st_size for f in worker.home.rglob("*") if f.is_file())
        pulse = Pulse(cluster)
        at = time.monotonic()
        worker.start()
        pulse.start()
        until(lambda: worker.metric(f'c360_commits_total{{agent="{AGENT.name}"') >= 1)
        first = time.monotonic() - at
        restored = worker.metric("c360_restored_records_total")
        pulse.stop()
        shutil.rmtree(home, ignore_errors=True)
        return {"state_mb": round(size / 1e6), "first_record_s": round(first, 2), "restored_records": int(restored),
                "changelog_end_offsets": sum(ends.values())}  # fmt: skip


def _port() -> int:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.failover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each way to fail")
    parser.add_argument("--standby", action="store_true", help="workers keep copies of each other's tasks")
    parser.add_argument("--events", type=int, default=0, help="of the big disk; 0: leave that out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results: dict[str, Any] = {"load": os.getloadavg(), "rounds": options.rounds}
    if options.rounds:
        results |= measure(options)
    if options.events:
        results["big_disk"] = big_disk(options.events)
    results["load_after"] = os.getloadavg()
    print(json.dumps(results, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in results.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

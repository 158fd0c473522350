"""What an event costs as customers grow: `python -m benchmarks.growth --customers 10000,100000,1000000`.

For each number of customers, an ordinary worker (both hops) first gets to know all of them, one event each. Then come
`--events` events of a working set of `--active` customers spread over all, which is what is measured: the same work on top
of another amount of state, once RocksDB has put that in order. Several working sets come one after the other; one that is
greater than all customers is left out, as fewer customers with as many events each cost less (docs/decisions/0007). Then
the worker is killed and started again, stopped and started again, and at last started without its disk.

| figure | is |
|---|---|
| cpu_us_per_event | by size of the working set: user + system time of the worker in the last 60 % of its events |
| peak_rss_mb | while it folded them |
| state_mb | of its directory |
| crashed | after kill -9, with the disk: seconds from the start of the process until READY, changelog records read |
| again_s | after a stop, with the disk: seconds until READY |
| restore | without the disk: seconds until READY, changelog records, records per second of the slower hop |
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.contestants import ALL
from benchmarks.measure import cpu_s, peak_rss_mb
from benchmarks.oracle import Outcome
from benchmarks.race import (
    PARTITIONS,
    Course,
    Failed,
    Process,
    Progress,
    Sample,
    follow,
    megabytes,
    prepare,
    until_ready,
)
from benchmarks.run import machine, say, write
from benchmarks.workload import record
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.ops import dev_kafka

C360 = ALL["c360"]
DEADLINE_S = 3600.0
SETTLED_S, SETTLED_SHARE = 3.0, 0.2
MEASURED_FROM = 0.4  # of the measured events: by then it has its partitions, and its caches what they are going to have


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--customers", type=_numbers, default=[10_000, 100_000, 1_000_000], help="default: %(default)s")
    parser.add_argument(
        "--active", type=_numbers, default=[10_000, 100_000], help="customers in the working set (default: %(default)s)"
    )
    parser.add_argument("--events", type=int, default=400_000, help="that are measured (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    rows = []
    for customers in options.customers:
        rows.append({"customers": customers, **grown(customers, options.active, options.events)})
        say(json.dumps(rows[-1]))
    if options.json:
        print(json.dumps({"machine": machine(), "settings": vars(options), "rows": rows}, indent=2))
    else:
        print(table(rows))
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    heads = [
        "customers",
        "CPU µs/event (working set)",
        "peak MB",
        "state MB",
        "crashed s",
        "read",
        "again s",
        "restore s",
        "restored",
        "records/s",
        "load",
    ]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        restore, crashed = row["restore"], row["crashed"]
        costs = ", ".join(f"{cost} ({int(active):,})" for active, cost in row["cpu_us_per_event"].items())
        figures = [row["customers"], costs, row["peak_rss_mb"], row["state_mb"],
                   crashed["ready_s"], crashed["records"], row["again_s"],
                   restore["ready_s"], restore["records"], restore["records_per_s"], row["load"]]  # fmt: skip
        lines.append([figure if isinstance(figure, str) else f"{figure:,}" for figure in figures])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def grown(customers: int, working_sets: Sequence[int], events: int) -> dict[str, Any]:
    """The figures for one number of customers, on a broker of its own."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-growth-")))
        running = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say))
        cluster = KafkaCluster(running.bootstrap)
        admin, reader = cluster.admin(), cluster.reader()
        stack.callback(admin.close)
        stack.callback(reader.close)
        admin.create([TopicSpec("events", PARTITIONS, {"retention.ms": "-1"})])
        course = Course(
            cluster, running.bootstrap, "events", Outcome({}, Counter()), customers + events, work, commit_ms=100
        )
        names = {"prefix": "growth", "input": "events"}
        state = work / "state"

        def start(log: str) -> Process:
            return Process(C360, course, "growth", prepare(C360), state, work / log)

        def progress() -> Progress:
            return Progress(C360.stages, names, admin, reader)

        random = Random(customers)
        say(f"{customers} customers: getting to know them")
        write(cluster, "events", (record(random, i, i) for i in range(customers)))
        process = start("known.log")
        try:
            follow([process], progress(), deadline_s=DEADLINE_S)
            _settle(process)
        finally:
            process.stop()
        costs: dict[str, float] = {}
        done, memory_mb = customers, 0.0
        for active in sorted(size for size in working_sets if size <= customers):
            say(f"{customers} customers: {events} events of {active}")
            step = customers // active
            write(cluster, "events", (record(random, done + i, random.randrange(active) * step) for i in range(events)))
            process = start(f"measured-{active}.log")
            try:
                costs[str(active)] = _cost(follow([process], progress(), deadline_s=DEADLINE_S), done)
                memory_mb = max(memory_mb, peak_rss_mb(process.pids))
            finally:
                process.kill()
            done += events
        load = round(os.getloadavg()[0], 1)
        state_mb = round(megabytes(state))
        crashed_s, crashed_line = _ready(start("crashed.log"))
        again_s, _ = _ready(start("again.log"))
        shutil.rmtree(state)
        restore_s, line = _ready(start("restored.log"))
    records, busy_s = _restored(line)
    return {
        "cpu_us_per_event": {active: round(cost, 2) for active, cost in costs.items()},
        "peak_rss_mb": round(memory_mb),
        "state_mb": state_mb,
        "crashed": {"ready_s": round(crashed_s, 2), "records": _restored(crashed_line)[0]},
        "again_s": round(again_s, 2),
        "restore": {
            "ready_s": round(restore_s, 2),
            "records": records,
            "records_per_s": round(records / busy_s) if busy_s else 0,
        },
        "load": load,
    }


def _settle(process: Process) -> None:
    """Wait until it has nothing to do any more: RocksDB sorts for a while what came quickly."""
    deadline = process.seconds() + DEADLINE_S
    used_s = cpu_s(process.pids)
    while True:
        time.sleep(SETTLED_S)
        before_s, used_s = used_s, cpu_s(process.pids)
        if used_s - before_s < SETTLED_SHARE * SETTLED_S:
            return
        if process.seconds() > deadline:
            raise Failed(f"{process.name} still works {DEADLINE_S:.0f} s after the last event")


def _cost(samples: Sequence[Sample], before: int) -> float:
    """CPU µs per event of the last part of what comes after `before` events."""
    last = samples[-1]
    whole = [at - before for at in last.committed]
    for sample in samples:
        done = sum((n - before) / all_of for n, all_of in zip(sample.committed, whole, strict=True)) / len(whole)
        if done >= MEASURED_FROM:
            left = (1 - done) * sum(whole) / len(whole)
            return (last.cpu_s - sample.cpu_s) / left * 1e6 if left else float("nan")
    raise AssertionError("the last sample has all of it")


def _ready(process: Process) -> tuple[float, str]:
    """Seconds until READY, and its line."""
    try:
        line = until_ready(process, deadline_s=DEADLINE_S)
        return process.seconds(), line
    finally:
        process.stop()


def _restored(line: str) -> tuple[int, float]:
    """Changelog records of both hops, and the seconds that the slower one was at it."""
    found = re.search(r"restored=(\d+) .*busy=([\d.]+)", line)
    assert found is not None, line
    return int(found[1]), float(found[2])


if __name__ == "__main__":
    sys.exit(main())

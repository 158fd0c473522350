"""A worker for an hour: `make soak SECONDS=3600`. Does anything grow that should not?

The benchmark's app gets `--rate` events a second of `--customers` customers. Every five minutes a second worker joins for a
minute and leaves, so that tasks move, are restored, and move back. Memory, handles, threads and files of the first worker are
read every ten seconds; the last quarter of the hour is compared with the second (the first is warming up). In the end
`c360 verify` recomputes everything. Exit code 1: something grew, or differs.

What grows rightly is on disk: ids are kept for their window, so state grows with events. In memory caches of state grow up
to their bound, so that is set low (`--memory-mb`), for them to be full long before the second quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import ALL
from benchmarks.measure import tree
from benchmarks.oracle import Outcome
from benchmarks.race import PARTITIONS, Course, Process, Progress, follow, prepare
from benchmarks.run import machine, say
from benchmarks.workload import Raw, records
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from c360.ops import dev_kafka
from c360.ops.load import RawRecord, load

SAMPLE_S, GUEST_EVERY_S, GUEST_STAYS_S = 10.0, 300.0, 60.0
REST_S = 300.0
# What may be more in the last quarter than in the second: by so much of it, and so many.
ALLOWED = {"rss_mb": (0.08, 8.0), "handles": (0.1, 8.0), "threads": (0.0, 3.0), "files": (0.5, 40.0)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=3600, help="default: %(default)s")
    parser.add_argument("--rate", type=int, default=500, help="events a second (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument(
        "--memory-mb", type=int, default=64, help="C360_MEMORY_MB of the workers (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    found = soak(options.seconds, options.rate, options.customers, options.memory_mb)
    result = {"machine": machine(), "settings": vars(options), **found}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(table(found))
    return 0 if found["flat"] and found["differences"] == 0 else 1


def table(found: dict[str, Any]) -> str:
    """Markdown: each figure by quarter."""
    lines = ["| median of a quarter | 1 | 2 | 3 | 4 | |", "|---|---|---|---|---|---|"]
    for name, quarters in found["quarters"].items():
        verdict = "grew" if name in found["grown"] else "flat" if name in ALLOWED else ""
        lines.append(f"| {name} | " + " | ".join(f"{quarter:g}" for quarter in quarters) + f" | {verdict} |")
    told = (
        f"{found['events']:,} events, {found['guests']} visits of a second worker, {found['differences']} differences"
    )
    return "\n".join([*lines, told])


def soak(seconds: int, rate: int, customers: int, memory_mb: int) -> dict[str, Any]:
    contestant = replace(ALL["c360"], environment={"C360_MEMORY_MB": str(memory_mb)})
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-soak-")))
        running = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say))
        cluster = KafkaCluster(running.bootstrap)
        cluster.admin().create([TopicSpec("events", PARTITIONS, {"retention.ms": "-1"})])
        course = Course(cluster, running.bootstrap, "events", Outcome({}, Counter()), 0, work, commit_ms=100)
        stop = threading.Event()
        sent = [0]
        traffic = _until(stop, records(seconds * rate, customers), sent)
        loader = threading.Thread(target=load, args=(traffic, cluster), kwargs={"partitions": PARTITIONS, "rate": rate})
        stack.callback(loader.join)
        stack.callback(stop.set)
        build = prepare(contestant)
        process = Process(contestant, course, "soak", build, work / "state", work / "worker.log")
        stack.callback(process.stop)
        loader.start()
        samples, guests = [], 0
        guest: Process | None = None
        while process.seconds() < seconds:
            time.sleep(SAMPLE_S)
            process.check_alive()
            phase = process.seconds() % GUEST_EVERY_S
            if guest is None and GUEST_EVERY_S / 2 <= phase < GUEST_EVERY_S / 2 + GUEST_STAYS_S:
                guest = Process(contestant, course, "soak", build, work / "guest", work / "guest.log")
                stack.callback(guest.stop)
                guests += 1
            elif guest is not None and phase >= GUEST_EVERY_S / 2 + GUEST_STAYS_S:
                guest.stop()
                guest = None
            samples.append(_sample(process.pids, work / "state"))
            if len(samples) % 30 == 0:
                say(f"{process.seconds():.0f} s, {sent[0]:,} events: {samples[-1]}")
        if guest is not None:
            guest.stop()
        stop.set()
        loader.join()
        admin, reader = cluster.admin(), cluster.reader()
        progress = Progress(contestant.stages, {"prefix": "soak", "input": "events"}, admin, reader)
        follow([process], progress, deadline_s=REST_S)
        differences = _differences(course)
    quarters = by_quarter(samples)
    grown = [name for name in ALLOWED if has_grown(name, quarters[name])]
    return {
        "quarters": quarters,
        "grown": grown,
        "flat": not grown,
        "events": sent[0],
        "guests": guests,
        "differences": differences,
        "load": round(os.getloadavg()[0], 1),
    }


def by_quarter(samples: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    size = max(1, len(samples) // 4)
    parts = [samples[i * size : (i + 1) * size] or samples[-1:] for i in range(4)]
    return {name: [round(statistics.median(s[name] for s in part), 1) for part in parts] for name in samples[0]}


def has_grown(name: str, quarters: Sequence[float]) -> bool:
    share, more = ALLOWED[name]
    return quarters[3] > quarters[1] * (1 + share) + more


def _sample(pids: Sequence[int], state: Path) -> dict[str, float]:
    rss_kb = handles = threads = 0
    for pid in tree(pids):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        if "VmRSS" not in status:
            continue  # a child that has ended
        rss_kb += int(status["VmRSS"].split()[0])
        threads += int(status["Threads"])
        handles += len(os.listdir(f"/proc/{pid}/fd"))
    files = [path for path in state.rglob("*") if path.is_file()]
    size = 0
    for path in files:
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue  # compacted away
    return {
        "rss_mb": rss_kb / 1024,
        "handles": handles,
        "threads": threads,
        "files": len(files),
        "state_mb": round(size / 1e6, 1),
    }


def _until(stop: threading.Event, raws: Iterator[Raw], sent: list[int]) -> Iterator[RawRecord]:
    for key, value in raws:
        if stop.is_set():
            return
        sent[0] += 1
        yield RawRecord("events", key, value)


def _differences(course: Course) -> int:
    environment = {**os.environ, "PREFIX": "soak", "INPUT": "events", "C360_BROKER": course.brokers}
    command = [sys.executable, "-m", "c360", "-A", "benchmarks.peers.c360.app:app", "verify", "--json"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    return int(json.loads(done.stdout)["differences"])


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.latency`: raw append to a read_committed reader of profiles, c360 beside Kafka Streams.

Each in turn gets 2,000 events a second of the workload; what comes out in the first `--warm` seconds is not counted, as
virtual machines, the broker's too, compile their code. c360 has two hops through the broker; so has
`kafka_streams_2_hops`, with a repartition topic after the ids. Figures, never a verdict.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contestants import ALL, Contestant
from benchmarks.oracle import Outcome
from benchmarks.race import PARTITIONS, Course, Process, Progress, follow, make_topics, prepare, until_ready
from benchmarks.run import machine, say
from benchmarks.workload import records
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Batch, TopicSpec
from c360.ops import dev_kafka
from c360.ops.latency import RATE, cause, delays, summary
from c360.ops.load import RawRecord


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--peers", default="c360,kafka_streams_2_hops,kafka_streams", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--warm", type=float, default=15.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=15.0, help="what is counted (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    options = parser.parse_args(arguments)
    contestants = [ALL[name] for name in options.peers.split(",")]
    rounds: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in contestants}
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-latency-")))
        running = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say))
        for number, contestant in itertools.product(range(1, options.rounds + 1), contestants):
            prefix = f"{contestant.name.replace('_', '-')}-{number}"
            found = _one(contestant, KafkaCluster(running.bootstrap), prefix, work, options)
            rounds[contestant.name].append(found)
            say(f"round {number}: {contestant.name}: {found}")
    result = {"machine": machine(), "settings": vars(options), "contestants": rounds}
    print(json.dumps(result, indent=2) if options.json else table(rounds))
    return 0


def _one(
    contestant: Contestant, cluster: KafkaCluster, prefix: str, work: Path, options: argparse.Namespace
) -> dict[str, Any]:
    source = f"events-{prefix}"
    with ExitStack() as stack:
        admin, reader = cluster.admin(), cluster.reader()
        stack.callback(admin.close)
        stack.callback(reader.close)
        admin.create([TopicSpec(source, PARTITIONS, {"retention.ms": "-1"})])
        make_topics(contestant, prefix, admin)
        course = Course(cluster, cluster.name, source, Outcome({}, Counter()), 0, work, commit_ms=100)
        process = Process(contestant, course, prefix, prepare(contestant), work / prefix, work / f"{prefix}.log")
        stack.callback(process.stop)
        until_ready(process)
        progress = Progress(contestant.stages, {"prefix": prefix, "input": source}, admin, reader)
        output = [TP((contestant.profiles or "").format(prefix=prefix), p) for p in range(PARTITIONS)]
        count = int(RATE * (options.warm + options.seconds))
        traffic = (RawRecord(source, key, value) for key, value in records(count, options.customers))

        def rest() -> None:
            follow([process], progress)
            time.sleep(0.5)  # what has been committed is on its way to the reader

        sent_at = cause if contestant.peer == "c360" else _record_time
        found = delays(cluster, traffic, output, sent_at, rest, options.warm)
        return {**summary(found), "load": round(os.getloadavg()[0], 1)}


def _record_time(batch: Batch, i: int) -> int:
    """Kafka Streams gives a result the greatest timestamp of what it is made of."""
    return batch.times[i]


def table(rounds: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["| | p50 ms | p99 ms | samples | load |", "|---|---|---|---|---|"]
    for name, found in rounds.items():
        cells = []
        for key in ("p50", "p99"):
            each = [one[key] for one in found if one[key] is not None]
            cells.append(f"{statistics.median(each):.0f} [{', '.join(f'{v:.0f}' for v in each)}]" if each else "–")
        cells.append(f"{sum(one['samples'] for one in found):,}")
        cells.append(", ".join(str(one["load"]) for one in found))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

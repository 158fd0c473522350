"""`make bench`: the contestants side by side on one broker, interleaved in rounds; a table, and `benchmarks/results.json`.

Exit codes: 0 done, 1 a contestant failed or its output is wrong, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contestants import ALL, DEFAULT, Contestant
from benchmarks.oracle import outcome
from benchmarks.race import PARTITIONS, Course, Failed, Skipped, race
from benchmarks.workload import SEED, Raw, records
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import Cluster, TopicSpec
from c360.errors import C360Error
from c360.ops import dev_kafka

RESULTS = Path(__file__).with_name("results.json")
COLUMNS: Mapping[str, str] = {
    "cpu_us_per_event": "CPU µs/event",
    "cpu_us_per_event_whole": "with start",
    "instructions_per_event": "instructions/event",
    "events_per_s": "events/s",
    "peak_rss_mb": "peak MB",
    "state_mb": "state MB",
    "changelog_bytes_per_event": "changelog B/event",
    "updates_per_event": "updates/event",
    "broker_cpu_us_per_event": "broker µs/event",
}
RATIOS = ("kafka_streams", "null")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that contestants are stopped, too
    results: dict[str, Any] = {"machine": machine(), "settings": vars(options), "contestants": {}, "skipped": {}}
    with ExitStack() as stack:
        try:
            course = make_course(
                stack,
                events=options.events,
                customers=options.customers,
                seed=options.seed,
                commit_ms=options.commit_ms,
                brokers=options.brokers,
            )
            fine = _rounds(options, course, results)
        except C360Error as error:
            say(str(error))
            return 1
    results["machine"]["load_after"] = os.getloadavg()
    options.output.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
    print(table(results["contestants"]))
    for name, why in results["skipped"].items():
        print(f"{name} did not take part: {why}")
    return 0 if fine else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--events", type=int, default=400_000, help="raw records (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="of the input; default: %(default)s")
    parser.add_argument("--commit-ms", type=int, default=100, help="of every contestant; default: %(default)s")
    parser.add_argument("--restore", action="store_true", help="measure a restore of an empty disk after each run, too")
    parser.add_argument(
        "--peers", type=_peers, default=DEFAULT, help=f"some of {','.join(ALL)}; default: {','.join(DEFAULT)}"
    )
    parser.add_argument("--brokers", default=os.environ.get("BROKERS"), help="default: $BROKERS, else one is started")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def _peers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ALL:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(ALL)}")
        if (before := ALL[name].continues) and before not in names[: names.index(name)]:
            raise argparse.ArgumentTypeError(f"{name} continues {before}: name that before it")
    return names


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------------------------- course
def make_course(
    stack: ExitStack, *, events: int, customers: int, seed: int = SEED, commit_ms: int = 100, brokers: str | None = None
) -> Course:
    """A broker with the input on it, and what is right for that input. `brokers`: None starts one."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-benchmark-")))
    pids: Sequence[int] = []
    if not brokers:
        running = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say))
        brokers, pids = running.bootstrap, running.pids
    cluster = KafkaCluster(brokers)
    topic = f"events-{time.time_ns() // 1_000_000}"
    cluster.admin().create([TopicSpec(topic, PARTITIONS, {"retention.ms": "-1"})])
    say(f"writing {events} events of {customers} customers to {topic}")
    right = outcome(_written(records(events, customers, seed), cluster, topic))
    return Course(
        cluster,
        brokers,
        topic,
        right,
        events,
        work,
        commit_ms,
        pids,
        next((work / "kafka").glob("broker-*/data"), None),
    )


def write(cluster: Cluster, topic: str, raws: Iterable[Raw]) -> None:
    """All of them, acknowledged."""
    for _ in _written(raws, cluster, topic):
        pass


def _written(raws: Iterable[Raw], cluster: Cluster, topic: str) -> Iterator[Raw]:
    """The records again, each after it was written."""
    producer = cluster.producer()
    for key, value in raws:
        producer.produce(topic, key, value)
        yield key, value
    producer.flush()
    producer.close()


# ----------------------------------------------------------------------------------------------------------- rounds
def _rounds(options: argparse.Namespace, course: Course, results: dict[str, Any]) -> bool:
    """Run everybody in every round, each time another one first; fill `results`; whether all was right."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.peers}
    fine = True
    for number in range(1, options.rounds + 1):
        for name in order(options.peers, number):
            contestant = ALL[name]
            if name in results["skipped"]:
                continue
            prefix = f"{(contestant.continues or name).replace('_', '-')}-{number}-{os.getpid()}"
            try:
                found = race(contestant, course, prefix, restore=options.restore)
            except Skipped as why:
                results["skipped"][name] = str(why)
                say(f"{name} is skipped: {why}")
                continue
            except Failed as why:
                found = {"check": f"failed: {why}"}
            fine = fine and found["check"] == "ok"
            runs[name].append(found)
            say(f"round {number}: {_line(name, found)}")
        _tidy(course.cluster, f"-{number}-{os.getpid()}")
    results["contestants"] = {name: summary(ALL[name], found) for name, found in runs.items() if found}
    return fine


def order(names: Sequence[str], number: int) -> list[str]:
    """Another one first in every round, but nobody before the one it continues."""
    turned = [*names[number % len(names) :], *names[: number % len(names)]]
    for name in [name for name in turned if ALL[name].continues]:
        turned.remove(name)
        turned.insert(turned.index(ALL[name].continues) + 1, name)
    return turned


def _line(name: str, found: Mapping[str, Any]) -> str:
    if "cpu_us_per_event" not in found:
        return f"{name}: {found['check']}"
    told = f"{found['cpu_us_per_event']} µs CPU/event, {found['events_per_s']} events/s, {found['peak_rss_mb']} MB"
    return f"{name}: {told}, load {found['load']}, check: {found['check']}"


def _tidy(cluster: Cluster, part: str) -> None:
    admin = cluster.admin()
    admin.delete([name for name in admin.topics() if part in name])
    admin.close()


def summary(contestant: Contestant, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and all of them."""
    wrong = [run["check"] for run in runs if run["check"] != "ok"]
    medians = {name: median(run.get(name) for run in runs) for name in (*COLUMNS, "load")}
    return {
        **medians,
        "guarantee": contestant.guarantee,
        "check": "; ".join(dict.fromkeys(wrong)) or "ok",
        "rounds": list(runs),
    }


def median(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return round(statistics.median(there), 2) if there else None


# ------------------------------------------------------------------------------------------------------------- table
def table(contestants: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, with the CPU of each as a multiple of those it is to be compared with."""
    heads = ["", "CPU µs/event", *(f"× {name}" for name in RATIOS), *list(COLUMNS.values())[1:], "load", "check"]
    rows = [heads, ["---"] * len(heads)]
    for name, found in contestants.items():
        cpu = found["cpu_us_per_event"]
        ratios = [_ratio(cpu, contestants.get(other, {}).get("cpu_us_per_event")) for other in RATIOS]
        figures = [_text(found[column]) for column in list(COLUMNS)[1:]]
        check = "ok" if found["check"] == "ok" else "WRONG"
        rows.append([name, _text(cpu), *ratios, *figures, _text(found["load"]), check])
    wrong = [
        f"{name}: {found['check'].splitlines()[0]}" for name, found in contestants.items() if found["check"] != "ok"
    ]
    return "\n".join(["| " + " | ".join(row) + " |" for row in rows] + wrong)


def _ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.2f}" if a and b else "–"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def machine() -> dict[str, Any]:
    """What it ran on, as far as it decides figures."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": f"{platform.python_version()}, {Path(sys.executable).resolve()}",
        "load_before": os.getloadavg(),
    }


if __name__ == "__main__":
    sys.exit(main())

"""`make bench-rebuild`: how fast a version is built beside, and what those who are served feel of it.

On one broker with the example shop's traffic, in pairs, each time the other one first; medians over the pairs.

rate      records a second of `c360 rebuild`, beside those of the same projection folded by an ordinary worker from the start
          (what `c360 bench` measures), over the same data, one process each; from its first member to its last profile
latency   from a raw record's append to its profile's, by the broker's clock, p99: of a live worker under steady traffic, quiet,
          and with a rebuild at `--rate auto`

Figures, never a verdict; on a shared machine believe the ratios. Exit 1 if a rebuild or a worker failed.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.run import machine, say
from c360.agents.control import Live, live_key
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP
from c360.ops import control, dev_kafka, topics
from c360.ops.load import load
from c360.ops.pace import freshness, percentile
from c360.ops.progress import at_rest
from c360.ops.traffic import endless, traffic
from c360.ops.versions import inputs_of
from c360.plan import Plan

APP = "benchmarks.rebuild_app:app"
DEADLINE_S = 1800.0
LIVE = "govern,identity@1,customer@1"
RAMP_S = 15.0  # until `auto` has found its pace: it rests for the first 5 s


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild", description=__doc__.split("\n")[0])
    parser.add_argument("--events", type=int, default=500_000, help="raw records (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each latency figure (default: %(default)s)")
    parser.add_argument(
        "--traffic", type=float, default=300.0, help="records a second for latency (default: %(default)s)"
    )
    parser.add_argument("--brokers", default=os.environ.get("BROKERS"), help="default: $BROKERS, else one is started")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-rebuild-")))
        brokers = options.brokers
        if not brokers:
            brokers = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say)).bootstrap
        try:
            result = measure(Ground(brokers, work, 1 + 3 * options.rounds), options)
        except Failed as why:
            say(str(why))
            return 1
    print(json.dumps({**result, "settings": vars(options), "machine": machine()}, indent=2))
    return 0


class Failed(Exception):
    """A command did not do what it should; its log says why."""


class Ground:
    """A broker, a directory, an app with so many versions, and commands as processes."""

    def __init__(self, brokers: str, work: Path, versions: int) -> None:
        self.cluster, self.work = KafkaCluster(brokers), work
        settings = {"C360_APP": APP, "C360_BROKER": brokers, "C360_TEST_VERSIONS": str(versions)}
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("C360_")} | settings
        os.environ["C360_TEST_VERSIONS"] = str(versions)
        from benchmarks.rebuild_app import app  # here: it asks how many versions there are

        self.plan: Plan = app.plan()
        self.admin, self.reader = self.cluster.admin(), self.cluster.reader()

    @contextmanager
    def running(self, name: str, *words: str) -> Iterator[Callable[[], None]]:
        """A command that runs on; yields what raises Failed when it has ended with an error. Stopped at the end."""
        log = self.work / f"{name}.log"
        environ = self.environ | {"C360_STATE_DIR": str(self.work / name)}
        with log.open("ab") as out:
            process = subprocess.Popen([sys.executable, "-m", "c360", *words], env=environ, stdout=out, stderr=out)

        def check() -> None:
            if process.poll() not in (None, 0):
                raise Failed(f"{' '.join(words)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")

        try:
            yield check
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(90)

    def until(self, done: Callable[[], bool], check: Callable[[], None]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            check()
            if time.monotonic() > deadline:
                raise Failed("it did not come to its end in time")
            time.sleep(0.1)

    def stage(self, agent: str) -> str:
        projection = next(p for p in self.plan.projections if p.agent == agent)
        return control.read(self.plan, self.cluster).stage(self.plan, projection.name, projection.version)


def measure(ground: Ground, options: argparse.Namespace) -> dict[str, Any]:
    plan = ground.plan
    now_ms = time.time_ns() // 1_000_000
    say(f"loading {options.events} raw records")
    load(traffic(options.events, seed=360, end_ms=now_ms), ground.cluster, partitions=4)
    topics.apply(plan, ground.admin)
    control.write(plan, ground.cluster, [(live_key("customer"), Live(1))])
    with ground.running("live", "worker", "--only", LIVE) as check:
        ground.until(lambda: at_rest(plan, ground.admin, ground.reader, LIVE.split(",")), check)
    rates: list[tuple[float, float]] = []
    latencies: list[tuple[float, float]] = []
    for number in range(options.rounds):
        first = 2 + 3 * number
        pair: dict[str, float] = {}
        kinds = [("projection", folded), ("rebuild", rebuilt)]
        for (kind, run), version in zip(kinds if number % 2 else kinds[::-1], (first, first + 1), strict=True):
            pair[kind] = run(ground, f"customer@{version}")
        rates.append((pair["rebuild"], pair["projection"]))
        say(f"pair {number + 1}: rebuild {pair['rebuild']:,.0f}, projection {pair['projection']:,.0f} records/s")
    for number in range(options.rounds):
        latencies.append(felt(ground, f"customer@{4 + 3 * number}", options))
        say(f"pair {number + 1}: p99 {latencies[-1][0]:.0f} ms quiet, {latencies[-1][1]:.0f} ms with a rebuild")
    return summary(rates, latencies)


def summary(rates: Sequence[tuple[float, float]], latencies: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """`rates`: of rebuild and projection; `latencies`: p99 quiet and with a rebuild, ms. Medians; ratios are of pairs."""

    def median(values: Sequence[float]) -> float:
        return round(statistics.median(values), 3)

    return {
        "rate": round(statistics.median(rate for rate, _ in rates)),
        "projection_rate": round(statistics.median(rate for _, rate in rates)),
        "ratio": median([rebuild / projection for rebuild, projection in rates]),
        "live_p99_ms_quiet": median([quiet for quiet, _ in latencies]),
        "live_p99_ms_rebuilding": median([beside for _, beside in latencies]),
        "latency_ratio": median([beside / quiet for quiet, beside in latencies]),
        "pairs": {"rates": list(rates), "latencies_ms": list(latencies)},
    }


# --------------------------------------------------------------------------------------------------------------------- rate
def folded(ground: Ground, agent: str) -> float:
    """By an ordinary worker, from the start, as `c360 bench` does; as far back in the queue of the machine as a rebuild."""
    with ground.running(agent, "worker", "--only", agent, "--niceness", "10") as check:
        return _timed(ground, agent, lambda: at_rest(ground.plan, ground.admin, ground.reader, [agent]), check)


def rebuilt(ground: Ground, agent: str) -> float:
    with ground.running(agent, "rebuild", agent) as check:
        return _timed(ground, agent, lambda: ground.stage(agent) == "ready", check)


def _timed(ground: Ground, agent: str, done: Callable[[], bool], check: Callable[[], None]) -> float:
    """Records a second, from the first member of its group on."""
    planned = ground.plan.agent(agent)
    inputs = inputs_of(planned, ground.admin.topics())
    starts = ground.reader.starts(inputs)
    ends = ground.reader.ends([tp for tp in inputs if tp.topic not in planned.writes])
    ground.until(lambda: ground.admin.group_members(planned.group) > 0, check)
    begun = time.monotonic()
    ground.until(done, check)
    return sum(end - starts[tp] for tp, end in ends.items()) / (time.monotonic() - begun)


# ------------------------------------------------------------------------------------------------------------------ latency
def felt(ground: Ground, agent: str, options: argparse.Namespace) -> tuple[float, float]:
    """p99 of live freshness: quiet, and while a version is built."""
    with ground.running("live", "worker", "--only", LIVE) as check, sending(ground, options.traffic):
        time.sleep(10.0)  # it restores, and the broker compiles its code
        check()
        quiet = p99(ground, options.seconds)
        with ground.running(agent, "rebuild", agent, "--rate", "auto") as building:
            group = ground.plan.agent(agent).group
            ground.until(lambda: ground.admin.group_members(group) > 0, building)
            time.sleep(RAMP_S)
            beside = p99(ground, options.seconds)
            if ground.stage(agent) != "building":
                say(f"{agent} was built before {options.seconds:.0f} s were over: give it more --events")
            building()
        check()
    return quiet, beside


@contextmanager
def sending(ground: Ground, rate: float) -> Iterator[None]:
    """Traffic at a steady rate."""
    stop = threading.Event()

    def run() -> None:
        now_ms = time.time_ns() // 1_000_000
        records = (r for r in endless(rate, seed=now_ms % 1_000_003, start_ms=now_ms))
        producer = ground.cluster.producer()
        begun = time.monotonic()
        for done, r in enumerate(records, 1):
            producer.produce(r.topic, r.key, r.value, None, r.headers or None, timestamp=time.time_ns() // 1_000_000)
            if done % 10 == 0:
                producer.flush()
                if stop.wait(max(0.0, begun + done / rate - time.monotonic())):
                    break
        producer.close()

    thread = threading.Thread(target=run, name="traffic")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def p99(ground: Ground, seconds: float) -> float:
    """Of all that the live version writes in so long."""
    reader, found = ground.cluster.reader(), list[float]()
    output = [
        TP(ground.plan.projected(ground.plan.versions_of("customer")[0]), p) for p in range(ground.plan.partitions)
    ]
    until = time.monotonic() + seconds
    for batches, _ in reader.follow(reader.ends(output)):
        for batch in batches:
            found += freshness(batch, len(batch))
        if time.monotonic() > until:
            break
    reader.close()
    said = percentile(found, 0.99)
    if said is None:
        raise Failed("the live version wrote nothing")
    return said


if __name__ == "__main__":
    sys.exit(main())

"""One run from a seed: faults until the time is over, then rest, then the check. A table of what it cost.

Exit codes of `python -m tests.chaos`: 0 right, 1 lost, doubled, out of order, wrong or stuck; 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from c360.engine.kafka import KafkaCluster
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster
from c360.errors import BrokerAway, Fenced, NeedsOperator, UsageError
from c360.ops.demo import Demo
from c360.ops.load import RawRecord
from c360.ops.records import records
from c360.ops.verify import verify
from c360.tables.store import MemoryStores
from tests.chaos.asker import Asker
from tests.chaos.check import Pair, Topic, Verdict, compare_streams, compare_tables
from tests.chaos.crew import Crew
from tests.chaos.faults import Fault, Stage, deck, faults_for
from tests.chaos.feed import PARTITIONS, TOPICS, Feed
from tests.chaos.ground import ground
from tests.chaos.watch import Watch
from tests.clear_shop import app

APP = "tests.clear_shop:app"
PROTOCOLS = ("classic", "consumer")
WORKERS = 3
READY_S, RECOVERY_S, REST_S = 60.0, 90.0, 120.0
FOR_GOOD = {UsageError.exit_code, Fenced.exit_code, NeedsOperator.exit_code}  # no supervisor starts those again


class Stuck(Exception):
    """Output does not flow again, or the workers do not come to rest."""


@dataclass(frozen=True)
class Course:
    """What a run is made of. The same course from the same seed does the same faults in the same order."""

    seconds: float
    seed: int
    brokers: int = 3
    protocol: str = "classic"
    rate: float = 300.0
    faults: tuple[Fault, ...] = ()  # these and no others, in this order; else random ones until the time is over
    pause_s: tuple[float, float] = (1.0, 4.0)  # between two faults


@dataclass(frozen=True)
class Disturbance:
    """A fault that was done. `silent_s`: the longest time that output of any task stood still on account of it."""

    fault: str
    begun_s: float
    lasted_s: float
    silent_s: float
    after_s: float = 0.0  # of the fault, began the silence
    task: str = ""  # that was silent


@dataclass
class Outcome:
    """What came of a run."""

    course: Course
    disturbances: list[Disturbance] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)  # of workers that ended by themselves
    stops: Counter[int] = field(default_factory=Counter)  # of workers that were told to
    sent: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    differences: int = 0  # that `c360 verify` finds
    stuck: str = ""

    @property
    def fine(self) -> bool:
        ended_well = not FOR_GOOD & self.exits.keys() and self.stops.keys() <= {0}
        return self.verdict.fine and not self.differences and not self.stuck and ended_well


# ------------------------------------------------------------------------------------------------------------ the run
def run(course: Course, work: Path, say: Callable[[str], None]) -> Outcome:
    """Workers, traffic, faults, rest, check; everything under `work`."""
    outcome, dice = Outcome(course), random.Random(course.seed)
    plan = app.plan()
    settings = {"C360_KAFKA_GROUP_PROTOCOL": course.protocol}
    with ExitStack() as stack:
        stands = stack.enter_context(ground(course.brokers, WORKERS))
        stack.callback(lambda: (work / "brokers.log").write_text(stands.running.log_text()))
        cluster = KafkaCluster(stands.bootstrap)
        asker = stack.enter_context(Asker(stands.bootstrap))
        feed = Feed(cluster, rate=course.rate, seed=course.seed)
        watch = Watch(plan, cluster, PARTITIONS)
        crew = stack.enter_context(Crew(WORKERS, stands.door, work, APP, settings))
        stage = Stage(stands, crew, dice)
        try:
            _wait_until_well(crew, watch, asker, READY_S)
            say(f"{WORKERS} {course.protocol} workers on {course.brokers} brokers: output flows")
            _disturb(course, stage, watch, asker, outcome, say)
        except Stuck as why:
            outcome.stuck = str(why)
            say(f"STUCK: {why}")
        sent = feed.finish()
        outcome.sent = len(sent)
        try:
            _wait(asker.at_rest, REST_S, lambda: "the workers do not come to rest")
        except Stuck as why:
            outcome.stuck = outcome.stuck or str(why)
            say(f"STUCK: {why}")
        outcome.stops.update(stage.stopped)
        outcome.stops.update(crew.stop(number) for number in range(WORKERS))
        outcome.exits = crew.exits
        watch.finish()
        say(f"checking the output of {len(sent)} records")
        outcome.verdict = check(sent, cluster)
        report = verify(plan, cluster, [])
        outcome.differences = report.differences
        if report.differences or not report.complete:
            say(report.to_text())
    return outcome


def _disturb(
    course: Course, stage: Stage, watch: Watch, asker: Asker, outcome: Outcome, say: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    cards = list(course.faults)
    while cards or not course.faults:
        if not cards:
            cards = deck(faults_for(course.brokers), stage.dice)
        if not course.faults and time.monotonic() - begun >= course.seconds:
            return
        fault = cards.pop(0)
        at = time.monotonic()
        fault(stage)
        over = time.monotonic()
        try:
            _wait_until_well(stage.crew, watch, asker, RECOVERY_S)
        except Stuck as why:
            raise Stuck(f"after {fault.__name__}: {why}") from None
        finally:
            stage.wait(*course.pause_s)
            silence = watch.arrivals.longest_silence(at, time.monotonic())
            done = Disturbance(
                fault.__name__,
                round(at - begun, 1),
                round(over - at, 1),
                round(silence.seconds, 1),
                round(silence.begun - at, 1),
                "{}/{}".format(*silence.task),
            )
            outcome.disturbances.append(done)
            say(
                f"{done.begun_s:6.1f} s  {done.fault}: {done.lasted_s} s, output stood still for {done.silent_s} s,"
                f" from {done.after_s} s on, of {done.task}"
            )


def _wait_until_well(crew: Crew, watch: Watch, asker: Asker, within_s: float) -> None:
    """Until all workers are members of all groups, and then there is new output of every task."""
    groups = [agent.group for agent in app.plan().agents]
    found: list[int] = []

    def complete() -> bool:
        found[:] = asker.members(groups)
        return all(members == crew.size for members in found)

    _wait(complete, within_s, lambda: f"members of {', '.join(groups)}: {found}")
    since = time.monotonic()
    _wait(lambda: watch.arrivals.flowing(since), within_s, lambda: f"no output of {watch.arrivals.silent(since)}")


def _wait(done: Callable[[], bool], within_s: float, otherwise: Callable[[], str]) -> None:
    """Until it is so; a broker that is away has said nothing yet. Raises Stuck."""
    deadline = time.monotonic() + within_s
    while True:
        with suppress(BrokerAway):
            if done():
                return
            if time.monotonic() > deadline:
                raise Stuck(f"after {within_s:.0f} s: {otherwise()}")
        if time.monotonic() > deadline + within_s:
            raise Stuck("no broker answers")
        time.sleep(0.1)


# ---------------------------------------------------------------------------------------------------------- the check
def check(sent: Sequence[RawRecord], cluster: Cluster) -> Verdict:
    """All topics of the app on `cluster`, beside those of an undisturbed run in memory over what was sent."""
    plan, memory = app.plan(), MemoryCluster()
    Demo(plan, memory, MemoryStores(), slot="undisturbed").fold(iter(sent), lambda glance: None)
    verdict = Verdict()

    def compare(topic: str, lane: Callable[[Pair], Hashable]) -> None:
        verdict.add(compare_streams(topic, _read(memory, topic), _read(cluster, topic), lane))

    for topic in TOPICS:
        compare(topic, lambda pair: None)  # the input itself
    for source in plan.sources:
        compare(plan.governed(source), _lane)
    compare(plan.dlq, lambda pair: pair)
    for projection in plan.projections:
        topic = plan.projected(projection)
        verdict.add(compare_tables(topic, _read(memory, topic), _read(cluster, topic)))
    return verdict


def _lane(pair: Pair) -> tuple[bytes, int]:
    """Governed records of one key that come of one raw partition are in the order of that partition."""
    return pair[0], orjson.loads(pair[1])["origin"][0]


def _read(cluster: Cluster, topic: str) -> Topic:
    """Committed records, by partition."""
    admin, reader = cluster.admin(), cluster.reader()
    partitions = [TP(topic, p) for p in range(admin.topics()[topic])]
    found: dict[int, list[Pair]] = {}
    for record in records(reader, reader.starts(partitions)):
        found.setdefault(record.tp.partition, []).append((record.key or b"", record.value or b""))
    reader.close()
    admin.close()
    return found


# ---------------------------------------------------------------------------------------------------------- the table
def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown: each fault by protocol, how often, and how long output stood still."""
    rows = ["| fault | protocol | times | median s | max s |", "|---|---|---|---|---|"]
    silences: dict[tuple[str, str], list[float]] = {}
    for outcome in outcomes:
        for done in outcome.disturbances:
            silences.setdefault((done.fault, outcome.course.protocol), []).append(done.silent_s)
    for (fault, protocol), silent_s in sorted(silences.items()):
        median, most = statistics.median(silent_s), max(silent_s)
        rows.append(f"| {fault.replace('_', ' ')} | {protocol} | {len(silent_s)} | {median:.1f} | {most:.1f} |")
    return "\n".join(rows)


def told(outcome: Outcome) -> list[str]:
    """What is to be said of a run besides its table."""
    course, verdict = outcome.course, outcome.verdict
    lines = [
        f"{course.protocol}, {course.brokers} brokers, seed {course.seed}: {outcome.sent} records sent,"
        f" {verdict.records} written; invented {verdict.invented}, keys out of order {verdict.disordered},"
        f" wrong profiles {verdict.wrong}, differences by verify {outcome.differences}"
    ]
    if outcome.exits:
        codes = ", ".join(f"{n} times with {code}" for code, n in sorted(outcome.exits.items()))
        lines.append(f"  workers ended by themselves and were started again: {codes}")
    if outcome.stops.keys() - {0}:
        lines.append(f"  a worker told to stop ended with another code than 0: {dict(outcome.stops)}")
    if outcome.stuck:
        lines.append(f"  STUCK {outcome.stuck}")
    return lines + [f"  {example}" for example in verdict.examples]


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    def one(outcome: Outcome) -> dict[str, Any]:
        course = {name: getattr(outcome.course, name) for name in ("seconds", "seed", "brokers", "protocol", "rate")}
        return {
            **course,
            "sent": outcome.sent,
            **asdict(outcome.verdict),
            "differences": outcome.differences,
            "exits": {str(code): n for code, n in outcome.exits.items()},
            "stops": {str(code): n for code, n in outcome.stops.items()},
            "stuck": outcome.stuck,
            "disturbances": [asdict(done) for done in outcome.disturbances],
        }

    whole = {name: sum(getattr(o.verdict, name) for o in outcomes) for name in ("lost", "doubled")}
    return {"fine": all(o.fine for o in outcomes), **whole, "runs": [one(outcome) for outcome in outcomes]}


# ----------------------------------------------------------------------------------------------------------- commands
def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    _say(f"seed {seed}")
    work = Path(tempfile.mkdtemp(prefix="c360-chaos-"))
    outcomes, load = [], os.getloadavg()[0]
    for protocol in options.protocols:
        seconds = options.seconds / len(options.protocols)
        course = Course(seconds, seed, options.brokers, protocol, options.rate, tuple(options.faults))
        (own := work / protocol).mkdir()
        outcomes.append(run(course, own, _say))
    fine = all(outcome.fine for outcome in outcomes)
    for line in [line for outcome in outcomes for line in told(outcome)]:
        _say(line)
    if fine and not options.keep:
        shutil.rmtree(work)
    else:
        _say(f"logs are in {work}")
    found = to_json(outcomes)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"seed {seed}, load {load:.1f} before and {os.getloadavg()[0]:.1f} after on {os.cpu_count()} cores\n")
        print(table(outcomes))
        print(f"lost {found['lost']} doubled {found['doubled']}")
    return 0 if fine else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=300, help="of faults, all protocols together; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, help="of faults and traffic; default: a random one, printed")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3, help="default: %(default)s")
    parser.add_argument("--protocols", type=_protocols, default=PROTOCOLS, help=f"default: {','.join(PROTOCOLS)}")
    parser.add_argument(
        "--faults", type=_faults, default=(), help="these and no others, once each; default: random ones"
    )
    parser.add_argument("--rate", type=float, default=300, help="records a second; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--keep", action="store_true", help="keep logs and state also when all is right")
    return parser.parse_args(arguments)


def _protocols(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PROTOCOLS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: protocols are {', '.join(PROTOCOLS)}")
    return names


def _faults(text: str) -> list[Fault]:
    known = {fault.__name__: fault for fault in faults_for(3)}
    if unknown := set(text.split(",")) - known.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: faults are {', '.join(known)}")
    return [known[name] for name in text.split(",")]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

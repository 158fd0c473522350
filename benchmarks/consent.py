"""`python -m benchmarks.consent`: how soon nothing leaves any more, with a backlog of a million undelivered changes.

Real Kafka, three workers: one governs and projects, one keeps consent, one has the doors (a view and a sink). Everybody has
granted, `--changes` profiles wait; then the doors start, and people withdraw all the time while the backlog drains and more
changes come. Times are the broker's: of the withdrawal when its raw record was appended, of a delivery when its record
was (within its transaction, so before its commit) and, later than that, when a read_committed reader here had it.

`withdrawal_ms_*`: from a withdrawal to the last delivery of this customer, as that reader had it; only of customers of whom
something was delivered after they withdrew, which is what must be soon over. `removal_ms_*`: until the far side was told to
hold nothing. `after_fence`: deliveries that were appended later after a withdrawal than the fence allows. `late`: those
that the reader had later than that, an upper bound.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.consent_app import app
from benchmarks.run import machine, say
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Admin, Reader, TopicSpec
from c360.ops import dev_kafka
from c360.ops.load import RawRecord, load
from c360.ops.progress import at_rest

ROOT = Path(__file__).parents[1]
PLAN = app.plan()
RAW = {"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}
FENCE_MS = 1_000
NEAR = 10_000  # customers before and after whoever is delivered now
DOORS = [door.agent for door in PLAN.doors]
BEHIND = [agent.name for agent in PLAN.agents if agent.name not in (*DOORS, "consent")]
DEADLINE_S = 1_800.0


class Event(NamedTuple):
    """What a door wrote of a customer."""

    appended_ms: int
    seen_ms: int
    delivered: bool  # or removed


@dataclass
class Watch:
    """Reads what doors write, as other teams would."""

    cluster: KafkaCluster
    events: dict[tuple[str, bytes], list[Event]] = field(default_factory=dict)
    count: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        reader = self.cluster.reader()
        topics = [PLAN.leaves(door) for door in PLAN.doors]
        positions = reader.starts([TP(topic, p) for topic in topics for p in range(PLAN.partitions)])
        for batches, _ in reader.follow(positions):
            now = time.time_ns() // 1_000_000
            for batch in batches:
                for key, value, at in zip(batch.keys, batch.values, batch.times, strict=True):
                    assert key is not None
                    self.events.setdefault((batch.tp.topic, key), []).append(Event(at, now, value is not None))
                self.count += len(batch)
            if self.stopping.is_set():
                break
        reader.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consent", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--changes", type=int, default=1_000_000, help="undelivered at the start (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=50.0, help="withdrawals a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-consent-")))
        running = stack.enter_context(dev_kafka.start(data_dir=work / "kafka", say=say))
        result = _run(KafkaCluster(running.bootstrap), running.bootstrap, work, options, stack)
    result = {**result, "machine": machine(), "settings": vars(options), "load": round(os.getloadavg()[0], 1)}
    print(json.dumps(result, indent=2) if options.json else _table(result))
    return 0 if result["after_fence"] == 0 else 1


def _run(
    cluster: KafkaCluster, broker: str, work: Path, options: argparse.Namespace, stack: ExitStack
) -> dict[str, Any]:
    admin, reader = cluster.admin(), cluster.reader()
    admin.create([TopicSpec(name, PLAN.partitions, RAW) for name in ("events", "choices")])
    # 1 everybody has a profile and has granted; no door runs yet
    _worker(broker, work / "govern", BEHIND, stack)
    _worker(broker, work / "consent", ["consent"], stack)
    say(f"{options.changes:,} customers: events and grants")
    load(_grants(options.changes), cluster, partitions=PLAN.partitions)
    load(_events(options.changes), cluster, partitions=PLAN.partitions)
    _until(lambda: at_rest(PLAN, admin, reader, [*BEHIND, "consent"]), "govern, projection and consent have read all")
    backlog = reader.ends([TP(PLAN.projected(PLAN.projections[0]), p) for p in range(PLAN.partitions)])
    # 2 the doors start; people withdraw, and more changes come
    watch = Watch(cluster)
    watching = threading.Thread(target=watch.run)
    watching.start()
    stack.callback(watching.join)
    stack.callback(watch.stopping.set)
    began = time.monotonic()
    _worker(broker, work / "doors", DOORS, stack)
    _until(lambda: watch.count > 0, "the first delivery")
    first = time.monotonic()
    withdrawn = _withdraw(cluster, watch, options, lambda: _drained(admin, reader, backlog))
    drained = time.monotonic()
    _until(lambda: at_rest(PLAN, admin, reader), "everything is read")
    time.sleep(2.0)  # what has been committed is on its way to the watch
    # 3 what became of those who withdrew
    said = _appended(cluster, set(withdrawn))
    return _result(watch, said) | {
        "withdrawals": len(said),
        "changes": watch.count,
        "to_first_delivery_s": round(first - began, 1),
        "deliveries_per_s": round(watch.count / (drained - first)),
    }


def _drained(admin: Admin, reader: Reader, backlog: Mapping[TP, int]) -> bool:
    """Whether every door has committed what waited at the start."""
    for door in PLAN.doors:
        offsets = admin.group_offsets(PLAN.leaves(door))
        if any(reader.read({tp: offsets.get(tp, 0) for tp in backlog}, backlog)):
            return False
    return True


def _withdraw(
    cluster: KafkaCluster, watch: Watch, options: argparse.Namespace, drained: Callable[[], bool]
) -> list[str]:
    """Withdraw and send changes until the backlog has drained; who withdrew: most are about to be delivered."""
    rng, producer, gone = random.Random(options.seed), cluster.producer(), list[str]()
    known, looked = set[str](), time.monotonic()
    deadline = time.monotonic() + DEADLINE_S
    while True:
        begun = time.monotonic()
        assert begun < deadline, "the backlog does not drain"
        who = f"{_near(rng, watch, options.changes) if rng.random() < 0.8 else rng.randrange(options.changes)}"
        if who not in known:
            known.add(who)
            gone.append(who)
            _send(producer, "choices", who, {"purpose": "marketing", "granted": False, "at": _now()})
        for _ in range(5):
            _send(producer, "events", f"{rng.randrange(options.changes)}", {"page": f"/{rng.randrange(1000)}"})
        _send(producer, "events", who, {"page": "/again"})  # a change of one who has withdrawn: not to be delivered
        producer.flush()
        if begun - looked > 2.0:
            looked = begun
            if len(gone) >= 100 and drained():
                return gone
        time.sleep(max(0.0, 1 / options.rate - (time.monotonic() - begun)))


def _near(rng: random.Random, watch: Watch, customers: int) -> int:
    """Somebody whose change is about to be delivered: doors take them in about the order in which they were sent."""
    front = watch.count // len(DOORS)
    return min(customers - 1, max(0, front + rng.randrange(-NEAR, 2 * NEAR)))


def _result(watch: Watch, said: dict[str, int]) -> dict[str, Any]:
    last, removal, after, late, never = list[float](), list[float](), 0, 0, 0
    for who, withdrawn_ms in said.items():
        for door in PLAN.doors:
            events = watch.events.get((PLAN.leaves(door), f"crm:{who}".encode()), [])
            after += sum(e.delivered and e.appended_ms > withdrawn_ms + FENCE_MS for e in events)
            late += sum(e.delivered and e.seen_ms > withdrawn_ms + FENCE_MS for e in events)
            assert not events or not events[-1].delivered, "a customer who withdrew is held by a far side"
            if not events:
                never += 1
                continue
            removal.append(events[-1].seen_ms - withdrawn_ms)
            delivered = [e.seen_ms - withdrawn_ms for e in events if e.delivered and e.seen_ms > withdrawn_ms]
            last += delivered[-1:]
    return {
        "withdrawal_ms_p50": _percentile(last, 50),
        "withdrawal_ms_p99": _percentile(last, 99),
        "withdrawal_ms_max": max(last, default=None),
        "delivered_after_withdrawal": len(last),
        "removal_ms_p50": _percentile(removal, 50),
        "removal_ms_p99": _percentile(removal, 99),
        "after_fence": after,
        "late": late,
        "removed": len(removal),
        "never_delivered": never,
    }


def _percentile(values: list[float], p: int) -> float | None:
    return statistics.quantiles(values, n=100, method="inclusive")[p - 1] if len(values) > 1 else None


def _appended(cluster: KafkaCluster, who: set[str]) -> dict[str, int]:
    """When each withdrawal was appended, by the broker's clock."""
    reader, found = cluster.reader(), dict[str, int]()
    for batches in reader.read(reader.starts([TP("choices", p) for p in range(PLAN.partitions)])):
        for batch in batches:
            for value, at in zip(batch.values, batch.times, strict=True):
                said = json.loads(value or b"{}")
                if said["granted"] is False and said["customer"] in who:
                    found[said["customer"]] = at
    reader.close()
    return found


def _grants(customers: int) -> Iterator[RawRecord]:
    at = _now()
    for n in range(customers):
        yield _record("choices", f"{n}", {"purpose": "marketing", "granted": True, "at": at})


def _events(customers: int) -> Iterator[RawRecord]:
    for n in range(customers):
        yield _record("events", f"{n}", {"page": f"/{n % 1000}"})


def _record(topic: str, who: str, said: dict[str, Any]) -> RawRecord:
    return RawRecord(topic, who.encode(), json.dumps({"customer": who, **said}).encode())


def _send(producer: Any, topic: str, who: str, said: dict[str, Any]) -> None:
    record = _record(topic, who, said)
    producer.produce(record.topic, record.key, record.value)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _worker(broker: str, home: Path, agents: Sequence[str], stack: ExitStack) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
    environ |= {"C360_BROKER": broker, "C360_STATE_DIR": str(home / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "c360", "-A", "benchmarks.consent_app:app", "worker", "--only", ",".join(agents)]
    home.mkdir()
    out = stack.enter_context((home / "log").open("wb"))
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {DEADLINE_S:.0f} s until {what}")
        time.sleep(0.5)


def _table(result: dict[str, Any]) -> str:
    names = [name for name, value in result.items() if not isinstance(value, dict)]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {result[name]} |" for name in names)])


if __name__ == "__main__":
    sys.exit(main())

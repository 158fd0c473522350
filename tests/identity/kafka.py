"""Small random histories through a real Kafka, two workers that get killed with -9: in the end what the oracle says.

`python -m tests.identity.kafka --runs 300 --seed 0` prints `runs 300 divergences 0`. A run is one history
(`tests.identity.crowd`). Some of them make a round: an app of its own on the broker, two workers, kills while they are
folded, now and then a lost disk, then `verify` of all agents. A round that differs counts with all its histories.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from subprocess import Popen

from c360.engine.transport import TP, Cluster, TopicSpec
from c360.identity.facts import Fact
from c360.ops import dev_kafka, topics
from c360.ops.load import RawRecord
from c360.ops.progress import at_rest
from c360.ops.records import follow
from c360.ops.verify import verify
from c360.plan import Plan
from tests.identity.crowd import crowd, history_of, say
from tests.stories.tools import stop, wait_for_rest, wait_until, worker
from tests.testing.people import people

RECORDS = 40  # of a history
LOST_DISK = 0.3  # of the kills
APP = "tests.testing.people:app"


# ----------------------------------------------------------------------------------------------------------- workers
@dataclass
class Crew:
    """Two workers of one app, each with a slot and a disk; `kill` starts another one in the same place."""

    broker: str
    app: str
    home: Path
    processes: list[Popen[bytes]] = field(default_factory=list)
    kills: int = 0
    busy: int = 0  # of these, in the middle of something
    lost: int = 0

    @property
    def log(self) -> Path:
        return self.home / "workers.log"

    def start(self) -> None:
        self.processes = [self._worker(slot) for slot in (0, 1)]

    def kill(self, slot: int, *, lose_disk: bool) -> None:
        assert self.processes[slot].poll() is None, self.log.read_text()
        self.processes[slot].kill()
        self.processes[slot].wait()
        self.kills += 1
        if lose_disk:
            self.lost += 1
            shutil.rmtree(self.home / f"slot-{slot}", ignore_errors=True)
        self.processes[slot] = self._worker(slot)

    def rest(self, plan: Plan, cluster: Cluster) -> None:
        """Until everything is read and committed. Raises AssertionError where a worker has ended by itself."""
        wait_for_rest(plan, cluster, self.processes[0], self.log)
        assert self.processes[1].poll() is None, self.log.read_text()

    def caught_up(self, plan: Plan, cluster: Cluster) -> None:
        """Until what a reset leads to is published as well, which goes on after all is read."""
        wait_until(lambda: verify(plan, cluster, []).complete, self.processes[0], self.log)

    def stop(self) -> None:
        for process in self.processes:
            assert stop(process) == 0, self.log.read_text()

    def _worker(self, slot: int) -> Popen[bytes]:
        return worker(
            self.broker, self.home / f"slot-{slot}", self.log, APP, STORY=self.app, C360_SLOT=str(slot)
        )  # fmt: skip


@contextmanager
def crew(broker: str, app: str, home: Path) -> Iterator[Crew]:
    """They are gone at the end of the block, whatever comes of it."""
    home.mkdir(parents=True, exist_ok=True)
    working = Crew(broker, app, home)
    try:
        working.start()
        yield working
    finally:
        for process in working.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


# --------------------------------------------------------------------------------------------------------------- log
def prepared(name: str, cluster: Cluster) -> Plan:
    """The people app under this name, its topics there."""
    plan = people(name, f"{name}.").plan()
    cluster.admin().create([TopicSpec(source.topic, 2) for source in plan.sources])
    topics.apply(plan, cluster.admin())
    return plan


def send(said: Sequence[RawRecord | Fact], plan: Plan, cluster: Cluster) -> None:
    producer = cluster.producer()
    for one in said:
        if isinstance(one, Fact):
            say(one, plan, producer)
        else:
            producer.produce(one.topic, one.key, one.value, timestamp=one.timestamp)
    producer.flush()
    producer.close()


def latest(topic: str, cluster: Cluster) -> dict[str, bytes]:
    """The last value of each key of a topic."""
    reader = cluster.reader()
    found: dict[bytes, bytes] = {}
    follow(reader, reader.starts([TP(topic, p) for p in range(cluster.admin().topics()[topic])]), found)
    reader.close()
    return {key.decode(): value for key, value in found.items()}


def assigned(plan: Plan, cluster: Cluster) -> dict[tuple[str, str], tuple[str, object, object]]:
    """By rule set and subject: profile, identifiers, what was refused and why."""
    found = {}
    for identity in plan.identities:
        for subject, value in latest(plan.assignments(identity), cluster).items():
            said = json.loads(value)
            found[identity.agent, subject] = said["profile"], said["identifiers"], said["deferred"]
    return found


def projected(plan: Plan, cluster: Cluster) -> dict[tuple[str, str], bytes]:
    """By projection and profile: the record."""
    return {
        (projection.name, profile): value
        for projection in plan.projections
        for profile, value in latest(plan.projected(projection), cluster).items()
    }


# ------------------------------------------------------------------------------------------------------------- rounds
@dataclass
class Compared:
    """What was compared with the oracle."""

    histories: int = 0
    assignments: int = 0
    profiles: int = 0
    merged: int = 0  # profiles of several subjects
    refused: int = 0  # subjects with links that join nobody
    kills: int = 0
    busy: int = 0
    lost: int = 0
    divergences: int = 0

    def add(self, other: Compared) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def text(self) -> str:
        return (
            f"{self.assignments} assignments ({self.refused} with refused links), {self.profiles} profiles"
            f" ({self.merged} merged); {self.kills} kills ({self.busy} amid work), {self.lost} lost disks"
        )


def disturbed(
    said: Sequence[RawRecord | Fact], plan: Plan, cluster: Cluster, working: Crew, dice: random.Random, kills: int
) -> None:
    """Send it in parts, one worker after the other killed at any moment of each; returns when all is at rest."""
    stream, part = iter(said), -(-len(said) // (kills + 1))
    admin, reader = cluster.admin(), cluster.reader()
    while some := list(islice(stream, part)):
        send(some, plan, cluster)
        if working.kills < kills:
            time.sleep(dice.uniform(0.1, 2.5))  # at any moment
            working.busy += not at_rest(plan, admin, reader)
            working.kill(dice.randrange(2), lose_disk=dice.random() < LOST_DISK)
    admin.close()
    reader.close()
    working.rest(plan, cluster)


def one_round(broker: str, cluster: Cluster, home: Path, seed: int, histories: int, kills: int) -> Compared:
    """Histories of one seed, under an app name of their own. Prints what differs."""
    name = f"history-{seed}"
    plan, dice = prepared(name, cluster), random.Random(f"round {seed}")
    said = list(crowd(plan, seed, histories, RECORDS, time.time_ns() // 1_000_000))
    with crew(broker, name, home / name) as working:
        disturbed(said, plan, cluster, working, dice, kills)
        working.stop()
    report = verify(plan, cluster, [])
    ids, found = assigned(plan, cluster), projected(plan, cluster)
    seen = {history_of(subject) for _, subject in ids} - {None}
    compared = Compared(
        len(seen), len(ids), len(found), sum(json.loads(value)["subjects_total"] > 1 for value in found.values()),
        sum(bool(deferred) for _, _, deferred in ids.values()), working.kills, working.busy,
        working.lost,
    )  # fmt: skip
    if report.differences or not report.complete or report.lag or len(seen) != histories:
        compared.divergences = histories
        print(f"seed {seed}: {len(seen)} of {histories} histories seen\n{report.to_text()}", flush=True)
    else:
        shutil.rmtree(home / name, ignore_errors=True)
    return compared


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.identity.kafka", description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="histories in all")
    parser.add_argument("--together", type=int, default=50, help="histories of a round")
    parser.add_argument("--kills", type=int, default=4, help="of each round")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--broker", help="host:port of a Kafka; without it one is started")
    said = parser.parse_args()
    from c360.engine.kafka import KafkaCluster

    begun, total, seed = time.monotonic(), Compared(), said.seed
    home = Path(tempfile.mkdtemp(prefix="c360-histories-"))
    running = None if said.broker else dev_kafka.start()
    try:
        broker = said.broker or (running.bootstrap if running else "")
        cluster = KafkaCluster(broker)
        while total.histories < said.runs and not total.divergences:
            size = min(said.together, said.runs - total.histories)
            total.add(one_round(broker, cluster, home, seed, size, said.kills))
            seed += 1
            print(f"{time.monotonic() - begun:5.0f} s  {total.histories} histories: {total.text()}", flush=True)
    finally:
        if running:
            running.stop()
    if not total.divergences:
        shutil.rmtree(home, ignore_errors=True)
    else:
        print(f"logs and disks of workers: {home}")
    print(f"runs {total.histories} divergences {total.divergences}")
    return 1 if total.divergences else 0


if __name__ == "__main__":
    sys.exit(main())

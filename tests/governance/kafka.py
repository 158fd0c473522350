"""Customers are forgotten on a real Kafka, under traffic, while two workers are killed with -9 at any moment.

`python -m tests.governance.kafka --runs 20 --seed 0` prints `runs 20 divergences 0`. In some runs the directories of workers
are put back as they were before the erasure, when it is over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing
from pathlib import Path
from subprocess import Popen

from c360.agents.erasure import Ordered
from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.governance.names import Vault
from c360.ops import dev_kafka, erase, keys, topics
from c360.ops.records import follow
from c360.ops.verify import verify
from c360.plan import Plan
from tests.governance.kill_town import town
from tests.identity.kafka import Crew
from tests.stories.tools import wait_until, worker

APP = "tests.governance.kill_town:app"
PEOPLE, CLICKS, LOST_DISK = 6, 240, 0.2


class Keyed(Crew):
    """Two workers of an app that needs keys."""

    def _worker(self, slot: int) -> Popen[bytes]:
        return worker(
            self.broker, self.home / f"slot-{slot}", self.log, APP, STORY=self.app, C360_SLOT=str(slot),
            C360_KEYS=str(self.home / "keys"),
        )  # fmt: skip


class Round:
    """One app on the broker: who is forgotten is of one seed."""

    def __init__(self, broker: str, cluster: Cluster, home: Path, seed: int) -> None:
        self.name, self.dice, self.cluster = f"forgetting-{seed}-{os.getpid()}", random.Random(seed), cluster
        self.home = home / self.name
        self.home.mkdir(parents=True)
        self.plan: Plan = town(self.name).plan()
        admin = cluster.admin()
        admin.create([TopicSpec(topic.name, 2) for topic in self.plan.topics if not topic.owned])
        topics.apply(self.plan, admin)
        file = self.home / "keys"
        keys.init_keys(file, os.urandom)
        master = keys.open_master(str(file), str)
        keys.make_secret_once(self.plan, cluster, master, os.urandom)
        self.vault: Vault = keys.open_vault(self.plan, cluster, master, os.urandom)
        self.crew = Keyed(broker, self.name, self.home)
        self.producer = cluster.producer()
        self.clicks: Counter[int] = Counter()
        self.number = 0
        self.who = self.dice.randint(1, PEOPLE)

    def person(self, who: int) -> None:
        self.number += 1
        row = {"pk": f"pk{who}", "id": f"c-{who}-", "name": f"Name-of-{who}-", "email": f"p{who}@mail.se"}
        source = {"connector": "postgresql", "lsn": self.number, "ts_ms": self.number, "snapshot": "false"}
        value = {"op": "u", "before": None, "after": row, "source": source, "ts_ms": 1}
        key = json.dumps({"pk": row["pk"]}).encode()
        self.producer.produce(f"{self.name}.people", key, json.dumps(value).encode())

    def traffic(self, count: int) -> None:
        for _ in range(count):
            who = self.number % PEOPLE + 1
            self.number += 1
            cookie = f"kuki-{who}-{self.dice.randrange(2)}"
            login = f"p{who}@mail.se" if self.number % 3 else None
            value = {"id": f"e{self.number}", "cookie": cookie, "login": login, "text": f"word-{who}-"}
            self.producer.produce(f"{self.name}.clicks", cookie.encode(), json.dumps(value).encode())
            self.clicks[who] += 1
        self.producer.flush()

    def labels(self, who: int) -> list[str]:
        mail = self.vault.names.token(f"email:p{who}@mail.se")
        return [f"crm:c-{who}-", f"cookie:kuki-{who}-0", f"cookie:kuki-{who}-1", mail]

    def held(self, topic: str) -> dict[str, bytes]:
        found: dict[bytes, bytes] = {}
        with closing(self.cluster.reader()) as reader:
            follow(reader, reader.starts([TP(topic, p) for p in range(self.plan.partitions)]), found)
        return {key.decode(): value for key, value in found.items()}

    def counted(self, topic: str) -> Counter[int]:
        """Clicks by person, as a topic of profiles has them."""
        found: Counter[int] = Counter()
        for key, value in self.held(topic).items():
            said = json.loads(value)
            found[int(key.split("-")[1])] += said.get("attributes", said)["clicks"]
        return found

    # --------------------------------------------------------------------------------------------------------- course
    def run(self, kills: int, *, put_back: bool) -> None:
        """Raises AssertionError where something of the customer is left, or of others is not."""
        crew, dice = self.crew, self.dice
        try:
            crew.start()
            for who in range(1, PEOPLE + 1):
                self.person(who)
            self.traffic(CLICKS)
            crew.rest(self.plan, self.cluster)  # of a cookie that nobody knows yet nothing else can be found
            if put_back:
                crew.stop()
                for slot in (0, 1):
                    shutil.copytree(self.home / f"slot-{slot}", self.home / f"old-{slot}")
                crew.start()
            request = erase.ask(self.plan, self.cluster, Ordered(identifier=dice.choice(self.labels(self.who))))
            self.disturbed(request, kills)
            self.traffic(2 * PEOPLE)
            self.person(self.who)
            self.producer.flush()
            if put_back:
                crew.rest(self.plan, self.cluster)
                crew.stop()
                for slot in (0, 1):
                    shutil.rmtree(self.home / f"slot-{slot}")
                    (self.home / f"old-{slot}").rename(self.home / f"slot-{slot}")
                crew.start()
                self.traffic(2 * PEOPLE)
            crew.rest(self.plan, self.cluster)
            self.check()
            crew.stop()
        finally:
            self.producer.close()
            for process in crew.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def disturbed(self, request: str, kills: int) -> None:
        """Until the proof, with traffic, and kills at any moment."""
        crew, dice = self.crew, self.dice
        moments = sorted(time.monotonic() + dice.uniform(0.0, 3.0 * kills) for _ in range(kills))

        def proven() -> bool:
            self.traffic(3)
            if moments and time.monotonic() >= moments[0]:
                moments.pop(0)
                crew.kill(dice.randrange(2), lose_disk=dice.random() < LOST_DISK)
            return not moments and erase.certificate_of(self.plan, self.cluster, request) is not None

        wait_until(proven, None, crew.log)

    def check(self) -> None:
        plan, cluster, who = self.plan, self.cluster, self.who
        others = Counter({w: n for w, n in self.clicks.items() if w != who})
        outputs = [plan.projected(plan.projections[0]), *map(plan.leaves, plan.doors)]
        try:
            wait_until(lambda: all(self.counted(t) == others for t in outputs), self.crew.processes[0], self.crew.log)
        except AssertionError:
            raise AssertionError(f"of {who} or of others: {others}, {[self.counted(t) for t in outputs]}") from None
        ids, values = self.labels(who), [f"word-{who}-", f"Name-of-{who}-", f"p{who}@mail.se"]
        left = [place for place in erase.check(plan, cluster, ids, values, None, 0) if not place.holds]
        assert left == [], left
        report = verify(plan, cluster, [], vault=self.vault)
        assert (report.differences, report.lag) == (0, 0), report.to_text()


def one_round(broker: str, cluster: Cluster, home: Path, seed: int, kills: int, *, put_back: bool) -> Crew:
    made = Round(broker, cluster, home, seed)
    made.run(kills, put_back=put_back)
    return made.crew


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.governance.kafka", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=4, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    said = parser.parse_args()
    home, begun, kills, lost, diverged = Path(tempfile.mkdtemp(prefix="c360-forgetting-")), time.monotonic(), 0, 0, 0
    with dev_kafka.start() as running:
        cluster = KafkaCluster(running.bootstrap)
        for seed in range(said.seed, said.seed + said.runs):
            try:
                crew = one_round(running.bootstrap, cluster, home, seed, said.kills, put_back=seed % 3 == 0)
                kills, lost = kills + crew.kills, lost + crew.lost
            except AssertionError as error:
                diverged += 1
                where = [f"{f.name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
                print(f"seed {seed}: {' '.join(where)}\n{str(error)[-3000:]}", flush=True)
            print(f"{time.monotonic() - begun:5.0f} s  seed {seed}, {kills} kills, {lost} lost disks", flush=True)
    print(f"logs and disks of workers: {home}") if diverged else shutil.rmtree(home, ignore_errors=True)
    print(f"runs {said.runs} divergences {diverged}")
    return 1 if diverged else 0


if __name__ == "__main__":
    sys.exit(main())

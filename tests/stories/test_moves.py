"""Two workers on a real broker, one of them killed again and again, while profiles merge and come apart."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import orjson
import pytest

from c360.engine.kafka import KafkaCluster
from c360.ops import topics
from c360.ops.load import RawRecord, load
from tests.stories.tools import wait_for_rest, working
from tests.testing.moves import ASSIGNMENTS, PLAN, assign, on, profiles, shown, undisturbed, visit

KILLS = int(os.environ.get("C360_TEST_KILLS", "6")) // 2
SUBJECTS = [on(partition, nth) for partition in range(3) for nth in range(10)]


def visits(dice: random.Random, first: int, n: int, now_ms: int) -> list[RawRecord]:
    made = []
    for i in range(first, first + n):
        name = dice.choice(SUBJECTS).removeprefix("crm:")
        value = orjson.dumps(visit(i, name, f"/{i % 50}"))
        made.append(RawRecord("visits", name.encode(), value, now_ms))
    return made


@pytest.mark.timeout(400)
def test_profiles_follow_assignments_while_a_worker_is_killed(broker: str, tmp_path: Path) -> None:
    cluster, dice, log = KafkaCluster(broker), random.Random(5), tmp_path / "worker.log"
    topics.apply(PLAN, cluster.admin())
    producer = cluster.producer()
    app, now_ms = "tests.testing.moves:app", int(time.time() * 1000)
    with working(broker, tmp_path / "first", log, app, C360_SLOT="0") as first:
        for kill in range(KILLS):
            with working(broker, tmp_path / "second", log, app, C360_SLOT="1") as second:
                load(visits(dice, kill * 1000, 1000, now_ms), cluster, partitions=2)
                for n, subject in enumerate(SUBJECTS):
                    profile = subject if kill % 2 else dice.choice(SUBJECTS[:4])
                    assign(producer, subject, kill * 100 + n + 1, profile, f"email:{n}@example.org")
                time.sleep(dice.uniform(1, 5))  # at any moment
                assert first.poll() is None, log.read_text()
                assert second.poll() is None, log.read_text()
        load(visits(dice, KILLS * 1000, 1000, now_ms), cluster, partitions=2)
        wait_for_rest(PLAN, cluster, first, log, ("govern", "customer@1"))
        found = profiles(cluster)
        assert found == undisturbed(cluster, now_ms)
        assert sum(record["attributes"]["visits"] for record in shown(cluster).values()) == (KILLS + 1) * 1000
        assert ASSIGNMENTS in cluster.admin().topics()
    producer.close()

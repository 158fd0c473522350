"""A worker that is killed at any moment, and one whose disk is gone: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.memory import MemoryCluster
from c360.ops.demo import Demo
from c360.ops.load import RawRecord, load
from c360.ops.traffic import traffic
from c360.ops.verify import verify
from c360.plan import Plan
from c360.tables.store import MemoryStores
from tests.clear_shop import app
from tests.stories.tools import profiles, stop, wait_for_rest, worker

EVENTS, SEED = 6_000, 7
KILLS = int(os.environ.get("C360_TEST_KILLS", "6"))


def undisturbed(records: list[RawRecord], plan: Plan) -> dict[bytes, bytes]:
    cluster = MemoryCluster()
    Demo(plan, cluster, MemoryStores(), slot="0").fold(iter(records), lambda glance: None)
    return profiles(plan, cluster)


@pytest.mark.timeout(400)
def test_killed_at_random_moments_and_without_its_disk_it_gives_the_bytes_of_an_undisturbed_run(
    broker: str, tmp_path: Path
) -> None:
    plan, cluster, dice = app.plan(), KafkaCluster(broker), random.Random()
    records = list(traffic(EVENTS, seed=SEED, end_ms=int(time.time() * 1000)))
    state, log = tmp_path / "state", tmp_path / "worker.log"

    process = worker(broker, state, log)
    part = -(-len(records) // (KILLS + 1))
    for kill in range(KILLS):
        load(records[kill * part : (kill + 1) * part], cluster, partitions=4)
        time.sleep(dice.uniform(0.3, 3))
        assert process.poll() is None, log.read_text()
        process.kill()
        process.wait()
        process = worker(broker, state, log)
    load(records[KILLS * part :], cluster, partitions=4)
    wait_for_rest(plan, cluster, process, log)
    assert stop(process) == 0, log.read_text()

    report = verify(plan, cluster, [a.name for a in plan.agents])
    assert (report.differences, report.complete) == (0, True), report.to_text()
    killed = profiles(plan, cluster)
    assert killed == undisturbed(records, plan)

    shutil.rmtree(state)
    process = worker(broker, state, log)
    load(more := list(traffic(500, seed=SEED + 1, end_ms=int(time.time() * 1000))), cluster, partitions=4)
    wait_for_rest(plan, cluster, process, log)
    assert stop(process) == 0, log.read_text()
    report = verify(plan, cluster, [a.name for a in plan.agents])
    assert report.differences == 0, report.to_text()
    assert profiles(plan, cluster) == undisturbed(records + more, plan)

"""A worker that is killed at any moment, and one whose disk is gone: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster
from c360.ops import dev_kafka
from c360.ops.demo import Demo
from c360.ops.load import RawRecord, load
from c360.ops.progress import at_rest
from c360.ops.traffic import traffic
from c360.ops.verify import verify
from c360.plan import Plan
from c360.tables.store import MemoryStores
from examples.shop.app import app

ROOT = Path(__file__).parents[2]
EVENTS, SEED = 6_000, 7
KILLS = int(os.environ.get("C360_TEST_KILLS", "6"))
DEADLINE_S = 100.0


@pytest.fixture
def broker(kafka: str) -> Iterator[str]:
    """A broker of our own: raw topics have the names that the shop gives them. (`kafka`: where one can run at all.)"""
    with dev_kafka.start() as running:
        yield running.bootstrap


def worker(broker: str, state: Path, log: Path) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "C360_BROKER": broker, "C360_STATE_DIR": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "c360", "-A", "examples.shop.app:app", "worker"]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)


def profiles(plan: Plan, cluster: Cluster) -> dict[bytes, bytes]:
    """The projection topic as a compacted table."""
    reader = cluster.reader()
    found: dict[bytes, bytes] = {}
    for batches in reader.read(
        reader.starts([TP(plan.projected(plan.projections[0]), p) for p in range(plan.partitions)])
    ):
        for batch in batches:
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
    reader.close()
    return found


def wait_for_rest(plan: Plan, cluster: Cluster, process: subprocess.Popen[bytes], log: Path) -> None:
    admin, reader = cluster.admin(), cluster.reader()
    deadline = time.monotonic() + DEADLINE_S
    while not at_rest(plan, admin, reader):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    admin.close()
    reader.close()


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(40)


def undisturbed(records: list[RawRecord], plan: Plan) -> dict[bytes, bytes]:
    cluster = MemoryCluster()
    demo = Demo(plan, cluster, MemoryStores(), slot="0")
    demo._start(iter(records), None)
    deadline = time.monotonic() + DEADLINE_S
    while not demo._settled():
        demo._check(deadline)
        time.sleep(0.05)
    demo._stop()
    return profiles(plan, cluster)


@pytest.mark.timeout(400)
def test_killed_at_random_moments_and_without_its_disk_it_gives_the_bytes_of_an_undisturbed_run(
    broker: str, tmp_path: Path
) -> None:
    plan, cluster, dice = app.plan(), KafkaCluster(broker), random.Random()
    records = list(traffic(EVENTS, seed=SEED, start_ms=int(time.time() * 1000)))
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
    load(more := list(traffic(500, seed=SEED + 1, start_ms=int(time.time() * 1000))), cluster, partitions=4)
    wait_for_rest(plan, cluster, process, log)
    assert stop(process) == 0, log.read_text()
    report = verify(plan, cluster, [a.name for a in plan.agents])
    assert report.differences == 0, report.to_text()
    assert profiles(plan, cluster) == undisturbed(records + more, plan)

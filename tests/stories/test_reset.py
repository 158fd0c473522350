"""Resets on a real Kafka: offsets that another tool moved or that expired, undone, and a worker killed as it begins anew."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP
from c360.ops import control
from c360.ops.load import RawRecord, load
from c360.ops.verify import verify
from examples.hello import app
from tests.stories.tools import (
    assert_verified,
    attributes,
    c360,
    profiles,
    stop,
    wait_for_rest,
    wait_until,
    worker,
    working,
)

APP, AGENT, GOVERNED = "examples.hello:app", "person@1", "hello.governed.page.views.v1"
WHY = ("--reason", "a test", "--execute")


def views(since: int, n: int = 30) -> list[RawRecord]:
    return [
        RawRecord(
            "page.views",
            f"u{k % 5}".encode(),
            json.dumps({"id": str(k), "user": f"u{k % 5}", "page": "/", "ts": "2026-11-02T09:15:00Z"}).encode(),
            None,
        )
        for k in range(since, since + n)
    ]


@pytest.mark.timeout(400)
def test_offsets_moved_by_others_and_a_worker_killed_as_it_begins_anew(broker: str, tmp_path: Path) -> None:
    plan, cluster, log, state = app.plan(), KafkaCluster(broker), tmp_path / "worker.log", tmp_path / "state"
    group, admin = plan.agent(AGENT).group, cluster.admin()

    def work(*arguments: str) -> None:
        with working(broker, state, log, APP, *arguments) as process:
            wait_until(lambda: admin.group_members(group) > 0, process, log)
            wait_for_rest(plan, cluster, process, log)
            wait_until(lambda: verify(plan, cluster, [AGENT]).complete, process, log)  # swept, too
            assert stop(process) == 0, log.read_text()

    def refused() -> str:
        log.write_text("")
        with working(broker, state, log, APP) as process:
            assert process.wait(60) == 4, log.read_text()
        return log.read_text()

    load(views(0), cluster, partitions=3)
    work()
    load(views(100), cluster, partitions=3)
    work()
    first, before = profiles(plan, cluster), admin.group_offsets(group)
    assert sum(said["views"] for said in attributes(plan, cluster).values()) == 60

    # undone, it is as if it had not been
    assert c360(broker, APP, "reset", AGENT, "--to-earliest", *WHY).returncode == 0
    assert {n for tp, n in admin.group_offsets(group).items() if tp.topic == GOVERNED} == {0}
    assert c360(broker, APP, "reset", AGENT, "--undo", *WHY).returncode == 0
    assert admin.group_offsets(group) == before
    work()
    assert profiles(plan, cluster) == first

    # kafka-consumer-groups --reset-offsets --to-datetime
    places = [TP(GOVERNED, p) for p in range(3)]
    half = {tp: n for tp, n in before.items() if tp in places}
    admin.set_group_offsets(group, {tp: n // 2 for tp, n in half.items()})
    said = refused()
    assert "Offsets were moved by another tool" in said
    assert f"c360 reset {AGENT} --to-offsets current --execute" in said
    done = c360(broker, APP, "reset", AGENT, "--to-offsets", "current", *WHY, "--json")
    assert done.returncode == 0, done.stderr
    assert "`views` will count from 20" in json.loads(done.stdout)["meaning"][0]
    work()
    assert 0 < sum(said["views"] for said in attributes(plan, cluster).values()) < 60
    assert_verified(plan, cluster)

    # a week without anybody
    admin.delete_group(group)
    said = refused()
    assert "The group's offsets have expired" in said
    assert "c360 worker --adopt" in said
    work("--adopt")
    assert_verified(plan, cluster)

    # killed as it begins the new life: the next does
    done = c360(broker, APP, "reset", AGENT, "--to-earliest", *WHY)
    assert done.returncode == 0, done.stderr
    log.write_text("")
    process = worker(broker, state, log, APP)
    deadline = time.monotonic() + 60
    while "begins anew" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    left = control.read(plan, cluster).reset(AGENT)
    assert left is not None, "it was quicker than this test"
    assert left.step in ("reset", "beginning")
    work()
    assert control.read(plan, cluster).resets == {}
    assert profiles(plan, cluster) == first
    assert_verified(plan, cluster)

    # two processes that begin at once: one does, both run
    done = c360(broker, APP, "reset", AGENT, "--to-earliest", *WHY)
    assert done.returncode == 0, done.stderr
    work("--processes", "2")
    assert profiles(plan, cluster) == first
    assert_verified(plan, cluster)

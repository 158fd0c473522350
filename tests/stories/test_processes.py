"""`c360 worker --processes`: several under one supervisor, on one broker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.ops.load import load
from c360.ops.traffic import traffic
from tests.clear_shop import app
from tests.stories.tools import alive, assert_verified, free_port, get, stop, wait_for_rest, wait_until, working


def children(pid: int) -> dict[str, int]:
    """Process ids of a supervisor's workers, by --number."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        if "--number" in words:
            found[words[words.index("--number") + 1]] = int(child)
    return found


def test_processes_share_the_work_and_a_killed_one_comes_back(broker: str, tmp_path: Path) -> None:
    plan, cluster, log = app.plan(), KafkaCluster(broker), tmp_path / "log"
    admin, port = cluster.admin(), free_port()
    records = list(traffic(3_000, seed=3, end_ms=int(time.time() * 1000)))
    with working(broker, tmp_path / "state", log, "tests.clear_shop:app", "--processes", "2") as process:
        load(records[:1_000], cluster, partitions=4)
        group = plan.agent("customer@1").group
        wait_until(lambda: admin.group_members(group) == 2, process, log)
        before = children(process.pid)
        assert before.keys() == {"0", "1"}
        os.kill(before["1"], signal.SIGKILL)
        load(records[1_000:2_000], cluster, partitions=4)
        wait_until(lambda: "1" in (now := children(process.pid)) and now["1"] != before["1"], process, log)
        load(records[2_000:], cluster, partitions=4)
        wait_for_rest(plan, cluster, process, log)
        assert children(process.pid)["0"] == before["0"]
        assert {p.name for p in (tmp_path / "state").iterdir()} == {"lock", "slot", "process-0", "process-1"}
        mine = children(process.pid).values()
        assert stop(process) == 0, log.read_text()
        assert not any(alive(pid) for pid in mine)
    assert_verified(plan, cluster)

    with working(
        broker, tmp_path / "state", log, "tests.clear_shop:app", "--processes", "2", "--web-port", str(port)
    ) as process:
        wait_until(lambda: get(port, "/ready")[0] == get(port + 1, "/ready")[0] == 200, process, log)
        mine = children(process.pid).values()
        process.kill()
        process.wait()
        wait_until(lambda: not any(alive(pid) for pid in mine), None, log)
        wait_until(lambda: admin.group_members(group) == 0, None, log)

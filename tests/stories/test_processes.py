"""`c360 worker --processes`: several under one supervisor, on one broker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from c360.engine.kafka import KafkaCluster
from c360.ops.load import load
from c360.ops.traffic import traffic
from c360.ops.verify import verify
from examples.shop.app import app
from tests.stories.tools import DEADLINE_S, free_port, get, stop, wait_for_rest, working


def until(done: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def children(pid: int) -> dict[str, int]:
    """Process ids of a supervisor's workers, by --number."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        if "--number" in words:
            found[words[words.index("--number") + 1]] = int(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_share_the_work_and_a_killed_one_comes_back(broker: str, tmp_path: Path) -> None:
    plan, cluster, log = app.plan(), KafkaCluster(broker), tmp_path / "log"
    admin, port = cluster.admin(), free_port()
    records = list(traffic(3_000, seed=3, end_ms=int(time.time() * 1000)))
    with working(broker, tmp_path / "state", log, "examples.shop.app:app", "--processes", "2") as process:
        load(records[:1_000], cluster, partitions=4)
        group = plan.agent("customer@1").group
        until(lambda: admin.group_members(group) == 2, log)
        before = children(process.pid)
        assert before.keys() == {"0", "1"}
        os.kill(before["1"], signal.SIGKILL)
        load(records[1_000:2_000], cluster, partitions=4)
        until(lambda: "1" in (now := children(process.pid)) and now["1"] != before["1"], log)
        load(records[2_000:], cluster, partitions=4)
        wait_for_rest(plan, cluster, process, log)
        assert children(process.pid)["0"] == before["0"]
        assert {p.name for p in (tmp_path / "state").iterdir()} == {"lock", "slot", "process-0", "process-1"}
        mine = children(process.pid).values()
        assert stop(process) == 0, log.read_text()
        assert not any(alive(pid) for pid in mine)
    report = verify(plan, cluster, [a.name for a in plan.agents])
    assert (report.differences, report.complete) == (0, True), report.to_text()

    with working(
        broker, tmp_path / "state", log, "examples.shop.app:app", "--processes", "2", "--web-port", str(port)
    ) as process:
        until(lambda: get(port, "/ready")[0] == get(port + 1, "/ready")[0] == 200, log)
        mine = children(process.pid).values()
        process.kill()
        process.wait()
        until(lambda: not any(alive(pid) for pid in mine), log)
        until(lambda: admin.group_members(group) == 0, log)

"""What the stories share: a broker with nothing on it, workers as processes, profiles as a table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from c360.engine.transport import TP, Cluster
from c360.ops.progress import at_rest
from c360.ops.records import follow
from c360.plan import Plan

ROOT = Path(__file__).parents[2]
DEADLINE_S = 100.0


def worker(broker: str, state: Path, log: Path, app: str = "examples.shop.app:app") -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
    environ = {**inherited, "C360_BROKER": broker, "C360_STATE_DIR": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "c360", "-A", app, "worker"]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=out)


def profiles(plan: Plan, cluster: Cluster) -> dict[bytes, bytes]:
    """The projection topic as a compacted table."""
    reader = cluster.reader()
    found: dict[bytes, bytes] = {}
    topic = plan.projected(plan.projections[0])
    follow(reader, reader.starts([TP(topic, p) for p in range(plan.partitions)]), found)
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

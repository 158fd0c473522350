"""What the stories share: a broker with nothing on it, workers as processes, profiles as a table."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from c360.engine.transport import TP, Cluster
from c360.errors import BrokerAway
from c360.ops.progress import at_rest
from c360.ops.records import follow
from c360.ops.verify import verify
from c360.plan import Plan

ROOT = Path(__file__).parents[2]
DEADLINE_S = 100.0


def _command(app: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "c360", "-A", app, *arguments]


def _environ(broker: str, **settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
    return {**inherited, "C360_BROKER": broker, "PYTHONPATH": str(ROOT), **settings}


def worker(
    broker: str, state: Path, log: Path, app: str = "tests.clear_shop:app", *arguments: str, **settings: str
) -> subprocess.Popen[bytes]:
    environ = _environ(broker, C360_STATE_DIR=str(state), **settings)
    with log.open("ab") as out:
        return subprocess.Popen(
            _command(app, "worker", *arguments), cwd=ROOT, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )


@contextmanager
def working(
    broker: str, state: Path, log: Path, app: str, *arguments: str, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is gone at the end of the block, whatever comes of it."""
    process = worker(broker, state, log, app, *arguments, **settings)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


def c360(broker: str, app: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        _command(app, *arguments), cwd=ROOT, env=_environ(broker, **settings), capture_output=True, text=True,
        timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def begun(broker: str, app: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """A command that runs beside others; wait for it."""
    return subprocess.Popen(
        _command(app, *arguments), cwd=ROOT, env=_environ(broker, **settings), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    """What a worker's web answers: status and text; (0, "") when it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def profiles(plan: Plan, cluster: Cluster) -> dict[bytes, bytes]:
    """The projection topic as a compacted table."""
    reader = cluster.reader()
    found: dict[bytes, bytes] = {}
    topic = plan.projected(plan.projections[0])
    follow(reader, reader.starts([TP(topic, p) for p in range(plan.partitions)]), found)
    reader.close()
    return found


def attributes(plan: Plan, cluster: Cluster) -> dict[str, Mapping[str, Any]]:
    """What is known of each customer, by subject."""
    return {key.decode(): json.loads(value)["attributes"] for key, value in profiles(plan, cluster).items()}


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(done: Callable[[], bool], process: subprocess.Popen[bytes] | None, log: Path) -> None:
    """Until it is so, while the worker lives, if one should; a broker that is away has said nothing yet."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with suppress(BrokerAway):
            if done():
                return
        assert process is None or process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def wait_for_rest(
    plan: Plan, cluster: Cluster, process: subprocess.Popen[bytes] | None, log: Path, agents: tuple[str, ...] = ()
) -> None:
    admin, reader = cluster.admin(), cluster.reader()
    wait_until(lambda: at_rest(plan, admin, reader, agents), process, log)
    admin.close()
    reader.close()


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(40)


def assert_verified(plan: Plan, cluster: Cluster) -> None:
    report = verify(plan, cluster, [])
    assert (report.differences, report.complete, report.lag) == (0, True, 0), report.to_text()

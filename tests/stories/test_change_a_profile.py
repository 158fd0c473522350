"""The page docs/operations/change-a-profile.md, done as it says: with traffic, and with the rebuild killed in the middle."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops.records import follow, records
from c360.plan import Plan
from tests.docs.pages import ROOT, fences, schemas
from tests.stories.tools import DEADLINE_S, wait_for_rest, wait_until

PAGE = ROOT / "docs" / "operations" / "change-a-profile.md"
PARTITIONS = 4
BEFORE = 8_000  # orders that are there when the rebuild begins
CUSTOMERS = 400


class Desk:
    """Where somebody types what the page says."""

    def __init__(self, broker: str, directory: Path) -> None:
        self.directory, self.log = directory, directory / "worker.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
        self.environ = inherited | {"C360_BROKER": broker, "C360_APP": "shop_app", "PYTHONPATH": str(directory)}
        self.typed: set[str] = set()

    def deploy(self, snippets: int) -> None:
        """The app of the page, up to so many of its snippets."""
        found = fences(PAGE.read_text(encoding="utf-8"), "python")
        (self.directory / "shop_app.py").write_text("\n\n".join(found[:snippets]))

    def command(self, line: str) -> list[str]:
        """A line of the page, which is to have it; with --json where it can."""
        assert line in [
            typed for block in fences(PAGE.read_text(encoding="utf-8"), "sh") for typed in block.splitlines()
        ]
        self.typed.add(line)
        words = line.replace('"', "\n").split("\n")
        plain = [word for i, part in enumerate(words) for word in ([part] if i % 2 else part.split())]
        return [sys.executable, "-m", "c360", *plain[1:], "--json"]

    def __call__(self, line: str) -> Any:
        done = subprocess.run(
            self.command(line), cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        said = json.loads(done.stdout)
        Draft202012Validator(schemas()[" ".join(line.split()[: 3 if line.startswith("c360 audit") else 2])]).validate(
            said
        )
        return said

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "c360", "worker"], cwd=self.directory, env=self.environ, stdout=out, stderr=out
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0, self.log.read_text()
        finally:
            process.kill()
            process.wait()


class Traffic:
    """Orders, all the time. Some customers cancel."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.producer, self.sent = cluster.producer(), 0
        self.stopped, self.sending = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._run)

    def send(self, n: int) -> None:
        for _ in range(n):
            self.sent += 1
            customer = self.sent % CUSTOMERS
            status = "cancelled" if customer % 7 == 0 and self.sent % 3 == 0 else "paid"
            order = {"id": self.sent, "customer": str(customer), "amount": f"{self.sent % 50}.25", "status": status}
            self.producer.produce("shop.orders", str(customer).encode(), json.dumps(order).encode())
        self.producer.flush()

    def _run(self) -> None:
        while not self.stopped.wait(0.1):
            with self.sending:
                self.send(20)

    def __enter__(self) -> Traffic:
        self.thread.start()
        return self

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.producer.close()


def table(cluster: KafkaCluster, topic: str) -> dict[bytes, bytes]:
    reader, found = cluster.reader(), dict[bytes, bytes]()
    follow(reader, reader.starts([TP(topic, p) for p in range(PARTITIONS)]), found)
    reader.close()
    return found


def count_of(cluster: KafkaCluster, topic: str) -> int:
    reader = cluster.reader()
    found = sum(1 for _ in records(reader, reader.starts([TP(topic, p) for p in range(PARTITIONS)])))
    reader.close()
    return found


def states(said: Any) -> dict[str, str]:
    return {v["agent"]: v["state"] for v in said["versions"] if v["projection"]}


def killed_in_the_middle(desk: Desk, cluster: KafkaCluster) -> None:
    """The rebuild, and whoever works for it, dies when they have begun to fold; nobody cleans up."""
    process = subprocess.Popen(
        desk.command("c360 rebuild customer@2"), cwd=desk.directory, env=desk.environ, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # All there is of 8,000 orders may be folded in one commit: so it is not waited for what comes of the first.
    wait_until(lambda: cluster.admin().group_members("shop.customer.v2") > 0, None, desk.log)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def spends(cluster: KafkaCluster, version: int) -> dict[bytes, str]:
    profiles = table(cluster, f"shop.customer.v{version}")
    return {key: json.loads(value)["attributes"]["spend"] for key, value in profiles.items()}


Place = tuple[int, int]  # partition, offset


def delivered(cluster: KafkaCluster) -> dict[Place, tuple[bytes, str]]:
    """What the sink has sent, in the order of each partition."""
    reader = cluster.reader()
    tps = [TP("shop.activation.crm-sync", p) for p in range(PARTITIONS)]
    found = {
        (r.tp.partition, r.offset): (r.key or b"", json.loads(r.value or b"")["spend"])
        for r in records(reader, reader.starts(tps))
    }
    reader.close()
    return dict(sorted(found.items()))


def repeated(sent: dict[Place, tuple[bytes, str]]) -> list[bytes]:
    """Customers of whom the far side was told what it had been told before."""
    last, found = dict[bytes, str](), list[bytes]()
    for customer, spend in sent.values():
        if last.get(customer) == spend:
            found.append(customer)
        last[customer] = spend
    return found


def switched(desk: Desk, cluster: KafkaCluster, plan: Plan, line: str, version: int) -> None:
    """While nobody orders: what leaves is what differs, and nothing else."""
    wait_for_rest(plan, cluster, None, desk.log)
    before, was = delivered(cluster), spends(cluster, 3 - version)
    now = spends(cluster, version)
    differ = {key for key in was if was[key] != now[key]}
    assert 0 < len(differ) < len(was) / 3
    done = desk(line)
    assert (done["live"], done["executed"], done["sinks"]) == (f"customer@{version}", True, {"sink:crm-sync": True})
    news = [said for place, said in delivered(cluster).items() if place not in before]
    assert len(news) == len(differ)
    assert dict(news) == {key: now[key] for key in differ}


@pytest.mark.timeout(900)
def test_the_page_does_what_it_says(broker: str, tmp_path: Path) -> None:
    cluster, desk = KafkaCluster(broker), Desk(broker, tmp_path)
    cluster.admin().create([TopicSpec("shop.orders", PARTITIONS)])
    traffic = Traffic(cluster)
    traffic.send(BEFORE)
    with traffic:
        desk.deploy(1)
        with desk.worker() as worker:
            wait_until(lambda: len(table(cluster, "shop.customer.v1")) == CUSTOMERS, worker, desk.log)
        # 1
        desk.deploy(2)
        plan = runpy.run_path(str(tmp_path / "shop_app.py"))["app"].plan()
        with desk.worker() as worker:
            assert states(desk("c360 versions")) == {"customer@1": "live", "customer@2": "new"}
            # 2
            killed_in_the_middle(desk, cluster)
            assert states(desk("c360 versions"))["customer@2"] == "building"
            assert count_of(cluster, "shop.customer.v2") in (0, CUSTOMERS), "nobody sees a profile that is half folded"
            built = desk("c360 rebuild customer@2")
            assert (built["state"], built["resumed"]) == ("ready", True)
            assert not list((tmp_path / ".c360" / "rebuild").iterdir())
            # 3
            assert states(desk("c360 versions")) == {"customer@1": "live", "customer@2": "ready"}
            assert desk("c360 profile crm:1")["version"] == 1
            assert desk("c360 profile crm:1 --projection customer@2")["version"] == 2
            differ = desk("c360 diff customer@1 customer@2 --html diff.html")
            assert {name for name, c in differ["attributes"].items() if c["changed"]} == {"spend"}
            cancelled = len(range(0, CUSTOMERS, 7))
            assert differ["changed"] <= cancelled <= differ["changed"] + differ["moving"]
            assert differ["equal"] + differ["moving"] >= CUSTOMERS - cancelled > 10 * differ["moving"]
            assert "spend" in (tmp_path / "diff.html").read_text()
            # 4
            would = desk("c360 promote customer@2 --preview")
            assert would["live"] == "customer@1"
            sink = would["preview"]["sink:crm-sync"]
            assert (sink["added"], sink["removed"], sink["held_back"]) == (0, 0, {})
            with traffic.sending:
                line = 'c360 promote customer@2 --execute --reason "cancelled orders are no spend"'
                switched(desk, cluster, plan, line, 2)
            assert states(desk("c360 versions")) == {"customer@1": "previous", "customer@2": "live"}
            assert desk("c360 profile crm:1")["version"] == 2
            # 5
            with traffic.sending:
                line = 'c360 rollback customer --execute --reason "the CRM wants them after all"'
                switched(desk, cluster, plan, line, 1)
            again = desk('c360 rollback customer --execute --reason "no, it was right"')
            assert again["live"] == "customer@2"
            # 6
            would = desk("c360 retire customer@1 --force")
            assert "shop.customer.v1" in would["topics"]
            assert not would["executed"]
            gone = desk('c360 retire customer@1 --force --execute --reason "version 2 has proven itself"')
            assert (gone["executed"], gone["topics"]) == (True, would["topics"])
            state = tmp_path / ".c360" / "shop"
            wait_until(
                lambda: not any(any(path.iterdir()) for path in state.glob("shop.customer.v1*")), worker, desk.log
            )
            told = [line["record"]["entry"] for line in desk("c360 audit tail")["records"]]
            assert [entry["what"] for entry in told if entry["after"].get("stage") == "done"] == [
                "rebuild", "promote", "rollback", "rollback", "retire",
            ]  # fmt: skip
            assert worker.poll() is None, desk.log.read_text()
        with desk.worker() as worker:  # nothing of it comes back, and nobody misses it
            with traffic.sending:
                wait_until(lambda: dict(delivered(cluster).values()) == spends(cluster, 2), worker, desk.log)
            assert not [name for name in cluster.admin().topics() if name.startswith("shop.customer.v1")]
            assert states(desk("c360 versions")) == {"customer@1": "retired", "customer@2": "live"}
    assert repeated(delivered(cluster)) == [], "net changes only, whatever happened"
    said = [line for block in fences(PAGE.read_text(encoding="utf-8"), "sh") for line in block.splitlines()]
    assert desk.typed == set(said)

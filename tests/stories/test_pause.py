"""A source is paused by a command while two workers run; one is killed; it is resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TopicSpec
from tests.clear_shop import app
from tests.stories.tools import attributes, c360, free_port, get, wait_until, working

NAME = "tests.clear_shop:app"


@pytest.mark.timeout(400)
def test_a_source_is_paused_and_resumed_while_workers_come_and_go(broker: str, tmp_path: Path) -> None:
    plan, cluster = app.plan(), KafkaCluster(broker)
    admin, producer = cluster.admin(), cluster.producer()
    admin.create([TopicSpec(t.name, 3) for t in plan.topics if not t.owned])
    log, port, other = tmp_path / "worker.log", free_port(), free_port()

    def clicks(first: int, end: int) -> None:
        for n in range(first, end):
            value = {
                "id": f"e{n}", "cookie": f"k{n % 7}", "customer": f"c{n % 7}", "login": None, "category": "a/b",
                "ts": "2026-11-02T09:00:00Z",
            }  # fmt: skip
            producer.produce("web.clicks", f"c{n % 7}".encode(), json.dumps(value).encode())
        producer.flush()

    def city(name: str, lsn: int) -> None:
        row = {"id": "c1", "name": None, "email": None, "city": name}
        source = {"connector": "postgresql", "lsn": lsn, "ts_ms": 1_000, "snapshot": "false"}
        value = {"op": "u", "before": None, "after": row, "source": source}
        producer.produce("crm.public.customers", b'{"id": "c1"}', json.dumps(value).encode())
        producer.flush()

    def counted() -> int:
        return sum(a["clicks"] for a in attributes(plan, cluster).values())

    def said(*arguments: str) -> dict[str, object]:
        done = c360(broker, NAME, "source", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def lives_in(name: str) -> bool:
        return attributes(plan, cluster).get("crm:c1", {}).get("city") == name

    web = ["--web-port", str(port)]
    with working(broker, tmp_path / "one", log, NAME, *web) as one:
        clicks(0, 100)
        wait_until(lambda: counted() == 100, one, log)
        with working(broker, tmp_path / "two", log, NAME, "--web-port", str(other)) as two:
            assert said("pause", "web.clicks", "--reason", "broken", "--execute")["paused"] is True
            paused = 'c360_source_paused{source="web.clicks"} 1'
            wait_until(lambda: paused in get(port, "/metrics")[1] and paused in get(other, "/metrics")[1], two, log)
            clicks(100, 200)
            city("Lund", 1)
            wait_until(lambda: lives_in("Lund"), one, log)
            two.kill()
            two.wait()
        city("Malmö", 2)  # the killed one's tasks are another's
        wait_until(lambda: lives_in("Malmö"), one, log)
        assert counted() == 100
        status = said("list")["sources"]
        assert isinstance(status, list)
        assert {s["source"]: (s["paused"], s["lag"]["govern"], s["reason"]) for s in status} == {
            "web.clicks": (True, 100, "broken"),
            "crm.public.customers": (False, 0, None),
            "shop.public.orders": (False, 0, None),
        }
        assert said("resume", "web.clicks", "--execute") == {
            "source": "web.clicks", "executed": True, "was_paused": True, "paused": False
        }  # fmt: skip
        wait_until(lambda: counted() == 200, one, log)
        told = c360(broker, NAME, "audit", "tail", "--json")
        assert [r["record"]["entry"]["what"] for r in json.loads(told.stdout)["records"]][-2:] == [
            "source-pause",
            "source-resume",
        ]
        verified = c360(broker, NAME, "verify", "--json")
        assert verified.returncode == 0, verified.stdout + verified.stderr

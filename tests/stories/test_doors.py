"""Doors on Kafka: who withdraws is taken back, also by a door that was killed; without the consent agent nothing leaves."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, TopicSpec
from c360.ops.records import follow, records
from tests.docs.pages import schemas
from tests.governance.door_town import app
from tests.stories.tools import c360, wait_until, working

NAME = "tests.governance.door_town:app"
FLOW, RIGHTS = "govern,identity@1,customer@1", "consent,erasure"
DOORS = "customer@1:service,customer@1:marketing,sink:crm-sync"


@pytest.mark.timeout(600)
def test_who_withdraws_is_taken_back_and_nobody_is_delivered_on_old_knowledge(broker: str, tmp_path: Path) -> None:
    plan, cluster = app.plan(), KafkaCluster(broker)
    cluster.admin().create([TopicSpec(topic.name, 2) for topic in plan.topics if not topic.owned])
    producer = cluster.producer()
    view, sink = plan.view(plan.projections[0], "marketing"), f"{plan.app}.activation.crm-sync"
    keys, log = tmp_path / "keys", tmp_path / "worker.log"
    said = c360(broker, NAME, "keys", "init", C360_KEYS=str(keys))
    assert said.returncode == 0, said.stderr

    def send(topic: str, key: str, value: Any) -> None:
        producer.produce(topic, key.encode(), json.dumps(value).encode())
        producer.flush()

    def customer(n: int, name: str) -> None:
        row, now = {"id": str(n), "cookie": None, "name": name}, time.time_ns() // 1_000_000
        source = {"ts_ms": now, "lsn": now}
        send("customers", str(n), {"before": None, "after": row, "op": "u", "ts_ms": now, "source": source})

    def choose(n: int, *, granted: bool) -> None:
        at = datetime.now(UTC).isoformat()
        send("choices", str(n), {"id": str(n), "purpose": "marketing", "granted": granted, "at": at})

    def held(topic: str) -> dict[str, Any]:
        reader = cluster.reader()
        found: dict[bytes, bytes] = {}
        follow(reader, reader.starts([TP(topic, p) for p in range(plan.partitions)]), found)
        reader.close()
        return {key.decode(): json.loads(value) for key, value in found.items()}

    def lines(topic: str) -> list[bytes | None]:
        reader = cluster.reader()
        found = [r.value for r in records(reader, reader.starts([TP(topic, p) for p in range(plan.partitions)]))]
        reader.close()
        return found

    def at_work(only: str) -> Any:
        return working(broker, tmp_path / only[:6], log, NAME, "--only", only, C360_KEYS=str(keys))

    def names(topic: str) -> dict[str, str | None]:
        return {who: one.get("attributes", one)["name"] for who, one in held(topic).items()}

    with at_work(FLOW) as flow:
        with at_work(RIGHTS), at_work(DOORS) as door:
            # 1 who agreed is delivered
            customer(1, "Ann")
            customer(2, "Bob")
            choose(1, granted=True)
            wait_until(lambda: names(view) == names(sink) == {"crm:1": "Ann"}, flow, log)
            # 2 a withdrawal empties both
            choose(1, granted=False)
            wait_until(lambda: names(view) == names(sink) == {}, flow, log)
            # 3 the door is killed, and does not know that somebody withdraws
            choose(1, granted=True)
            choose(2, granted=True)
            wait_until(lambda: len(names(view)) == len(names(sink)) == 2, flow, log)
            door.kill()
            door.wait()
            choose(1, granted=False)
            customer(1, "Ann changed")
            time.sleep(1.0)
            assert names(view)["crm:1"] == "Ann", "nobody is there to take it back"
            with at_work(DOORS):
                wait_until(lambda: names(view) == names(sink) == {"crm:2": "Bob"}, flow, log)
                assert not any(b"Ann changed" in (value or b"") for value in lines(view) + lines(sink))
        # 4 without the consent agent nothing leaves
        time.sleep(1.5)
        with at_work(DOORS) as door:
            customer(2, "Bob changed")
            time.sleep(8)
            assert door.poll() is None, log.read_text()
            assert names(view) == names(sink) == {"crm:2": "Bob"}
            said = c360(broker, NAME, "profile", "crm:2", "--purpose", "marketing", "--json", C360_KEYS=str(keys))
            assert (said.returncode, json.loads(said.stdout)) == (1, {"profile": None, "reason": "stale"})
            with at_work(RIGHTS):
                wait_until(lambda: names(view) == names(sink) == {"crm:2": "Bob changed"}, flow, log)
                said = c360(broker, NAME, "profile", "crm:2", "--purpose", "marketing", "--json", C360_KEYS=str(keys))
                assert said.returncode == 0, said.stdout
                seen = json.loads(said.stdout)
                assert seen["attributes"]["name"] == "Bob changed"
                Draft202012Validator(schemas()["c360 profile"]).validate(seen)
    producer.close()

"""A year of a real shop on a real Kafka: what is known of each customer, and the same after a reset."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.ops import reset
from c360.ops.load import load, read_lines
from c360.ops.verify import verify
from examples.giftware.app import app
from tests.stories.tools import profiles, stop, wait_for_rest, worker

TOPICS = ("raw.orders", "raw.web", "crm.public.customers")
APP = "examples.giftware.app:app"


@pytest.mark.timeout(400)
def test_the_years_orders_are_those_of_the_truth_also_after_a_reset(broker: str, shared: Path, tmp_path: Path) -> None:
    scenario = shared / "data" / "scenarios" / "giftware"
    plan, cluster, log = app.plan(), KafkaCluster(broker), tmp_path / "worker.log"
    for topic in TOPICS:
        load(read_lines(scenario / f"{topic}.jsonl.gz"), cluster, partitions=4)
    process = worker(broker, tmp_path / "state", log, APP)
    wait_for_rest(plan, cluster, process, log)
    assert stop(process) == 0, log.read_text()

    first = profiles(plan, cluster)
    for line in gzip.decompress((scenario / "truth" / "persons.jsonl.gz").read_bytes()).splitlines():
        person = json.loads(line)
        known = person["shop_customer_id"] or f"guest-{person['person'][1:]}"
        said = json.loads(first[f"shop:{known}".encode()])["attributes"]
        counts = [said[name] for name in ("orders", "cancellations", "adjustments")]
        assert counts == [person[name] for name in ("orders", "cancellations", "adjustments")]
        assert Decimal(said["net"]) * 100 == person["net_minor"]
    assert verify(plan, cluster, ["govern", "customer@1"]).differences == 0

    reset.execute_reset(plan, cluster, reset.plan_reset(plan, cluster, "customer@1"))
    process = worker(broker, tmp_path / "state", log, APP)
    wait_for_rest(plan, cluster, process, log)
    assert stop(process) == 0, log.read_text()
    assert profiles(plan, cluster) == first
    assert verify(plan, cluster, ["govern", "customer@1"]).differences == 0

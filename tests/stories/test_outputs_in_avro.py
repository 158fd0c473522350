"""Avro in and Avro out, on a real Kafka with a real registry: refused, applied, written, and read by Confluent's own reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema

from c360.engine.kafka import KafkaCluster
from c360.engine.transport import TP, Headers, TopicSpec
from tests.registry import Apicurio
from tests.sources.registry import written
from tests.stories.tools import c360, stop, wait_until, working

NAME = "tests.stories.outputs:app"
VIEW, SINK = "outputs.customer.v1.service", "outputs.activation.rows"
ORDER = {
    "type": "record", "name": "Order", "namespace": "outputs", "fields": [
        {"name": "id", "type": "string"}, {"name": "customer", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
    ],
}  # fmt: skip


@pytest.mark.timeout(300)
def test_avro_in_and_avro_out(broker: str, real_registry: Apicurio, tmp_path: Path) -> None:
    cluster, log = KafkaCluster(broker), tmp_path / "worker.log"
    admin, producer, reader = cluster.admin(), cluster.producer(), cluster.reader()
    notes = tmp_path / "notes"
    settings = {"C360_REGISTRY": real_registry.url, "C360_CLOUDEVENTS": "true", "OUTPUTS_NOTES": str(notes)}
    admin.create([TopicSpec("outputs.orders", 2)])
    frame = b"\0" + real_registry.publish("outputs.orders-value", ORDER).to_bytes(4, "big")
    sent = 0

    def order(customer: int, amount: str) -> None:
        nonlocal sent
        sent += 1
        value = {"id": str(sent), "customer": str(customer), "amount": Decimal(amount)}
        producer.produce("outputs.orders", b"%d" % customer, frame + written(parse_schema(ORDER), value))
        producer.flush()

    def held(topic: str) -> dict[str, tuple[bytes | None, Headers]]:
        found: dict[str, tuple[bytes | None, Headers]] = {}
        for batches in reader.read(reader.starts([TP(topic, p) for p in range(2)])):
            for batch in batches:
                for i, key in enumerate(batch.keys):
                    found[(key or b"").decode()] = batch.values[i], batch.headers(i)
        return found

    # 1 a worker does not start, and says what to run
    for n in range(20):
        order(n, "12.50")
    with working(broker, tmp_path / "state", log, NAME, **settings) as refused:
        assert refused.wait(60) == 4
    assert "c360 topics apply" in log.read_text()
    checked = c360(broker, NAME, "topics", "check", "--json", **settings)
    assert checked.returncode == 1
    problems = {finding["subject"]: finding["problem"] for finding in json.loads(checked.stdout)["schemas"]}
    assert problems == {f"{VIEW}-value": "schema", f"{SINK}-value": "schema"}

    early = c360(broker, NAME, "rebuild", "customer@1", "--execute", "--reason", "a test", **settings)
    assert (early.returncode, "c360 topics apply" in early.stderr) == (4, True), early.stderr

    # 2 applied, twice
    applied = c360(broker, NAME, "topics", "apply", "--json", **settings)
    assert applied.returncode == 0, applied.stderr
    assert {done["subject"] for done in json.loads(applied.stdout)["registered"]} == problems.keys()
    told = c360(broker, NAME, "audit", "tail", "--json", **settings)
    assert f"{VIEW}-value, {SINK}-value" in told.stdout
    again = c360(broker, NAME, "topics", "apply", "--json", **settings)
    assert json.loads(again.stdout) == {"created": [], "registered": []}
    assert c360(broker, NAME, "topics", "check", **settings).returncode == 0

    # 3 written, also while the registry is away, and read by others
    with working(broker, tmp_path / "state", log, NAME, **settings) as process:
        wait_until(lambda: len(held(SINK)) == len(held(VIEW)) == 20, process, log)
        first = {topic: held(topic)["crm:7"][0] for topic in (SINK, VIEW)}
        real_registry.pause()
        try:
            order(7, "0.50")
            wait_until(lambda: all(held(topic)["crm:7"][0] != value for topic, value in first.items()), process, log)
        finally:
            real_registry.resume()
        wait_until(lambda: notes.exists() and '{"orders": 2, "spend": "13.00"}' in notes.read_text(), process, log)
        assert stop(process) == 0
    with closing(SchemaRegistryClient({"url": real_registry.url})) as client:
        read = AvroDeserializer(client)

        def row(topic: str, who: str) -> Any:
            return read(held(topic)[who][0], SerializationContext(topic, MessageField.VALUE))

        assert row(SINK, "crm:7") == {"orders": 2, "spend": "13.00"}
        assert row(VIEW, "crm:7")["attributes"] == {"orders": 2, "spend": Decimal("13.00")}
        assert row(VIEW, "crm:8")["attributes"] == {"orders": 1, "spend": Decimal("12.50")}
    headers: Mapping[str, bytes] = dict(held(SINK)["crm:7"][1])
    assert (headers["ce_type"], headers["ce_subject"]) == (b"c360.profile.changed", b"crm:7")

    # 4 our own readers
    shown = c360(broker, NAME, "profile", "crm:7", "--purpose", "service", "--json", **settings)
    assert json.loads(shown.stdout)["attributes"] == {"orders": 2, "spend": "13.00"}
    verified = c360(broker, NAME, "verify", **settings)
    assert verified.returncode == 0, verified.stdout + verified.stderr

    # 5 somebody asks less of a subject
    real_registry.compatibility(f"{SINK}-value", "NONE")
    weaker = c360(broker, NAME, "topics", "check", **settings)
    assert weaker.returncode == 1
    assert f"{SINK}-value: compatibility is NONE" in weaker.stdout
    for client_ in (admin, producer, reader):
        client_.close()

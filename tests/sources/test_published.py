"""`c360 schemas check --registry` and `--replay` with a real registry: what it has of a subject, and what it says when away."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import fastavro
import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.registry import SchemaRegistry
from c360.engine.transport import TopicSpec
from c360.ops.schemas import check
from tests.cli.test_json import hold
from tests.cli.tools import C360
from tests.ops.test_schemas import LONG, MICROS, MILLIS, TEXT, of, record
from tests.registry import Apicurio
from tests.sources.registry import written

OLD, NOW = record(of(MILLIS)), record(of(MICROS))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    return tmp_path / "schemas"


@pytest.fixture
def registry(real_registry: Apicurio) -> Iterator[SchemaRegistry]:
    found = SchemaRegistry(real_registry.url)
    yield found
    found.close()


def delete(real: Apicurio, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(real.url + path, method="DELETE"), timeout=10).close()


def test_all_versions_are_compared_with_and_the_level_is_looked_at(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    (directory / "check.orders.avsc").write_text(json.dumps(NOW))
    real_registry.publish("check.orders-value", OLD)
    real_registry.publish("check.orders-value", NOW)
    found = check(directory, None, registry=registry).findings
    assert [(f.rule, f.subject, f.against) for f in found] == [
        ("unit", "check.orders-value", ("version 1 of check.orders-value",)), ("level", "check.orders-value", ()),
    ]  # fmt: skip
    assert registry.default_level() == "NONE"
    real_registry.compatibility("check.orders-value", "BACKWARD_TRANSITIVE")
    assert [f.rule for f in check(directory, None, registry=registry).findings] == ["unit"]


def test_what_a_version_refers_to_is_looked_at_with_it(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    real_registry.publish("check.money", record(of(MILLIS), name="Money"))
    real_registry.publish(
        "check.paid-value", record(of("shop.Money", "paid")), references=[("shop.Money", "check.money", 1)]
    )
    real_registry.compatibility("check.paid-value", "FULL_TRANSITIVE")
    (directory / "check.paid.avsc").write_text(json.dumps(record(of(record(of(MICROS), name="Money"), "paid"))))
    found = check(directory, None, registry=registry).findings
    assert [(f.rule, f.place) for f in found] == [("unit", "paid.it")]


def test_a_version_that_was_deleted_wrote_what_is_retained(
    real_registry: Apicurio, registry: SchemaRegistry, directory: Path
) -> None:
    (directory / "check.gone.avsc").write_text(json.dumps(NOW))
    real_registry.publish("check.gone-value", OLD)
    real_registry.publish("check.gone-value", NOW)
    real_registry.compatibility("check.gone-value", "BACKWARD_TRANSITIVE")
    delete(real_registry, "/subjects/check.gone-value/versions/1")
    assert registry.client.get_versions("check.gone-value") == [2]
    assert [number for number, _ in registry.versions("check.gone-value")] == [1, 2]
    assert [f.rule for f in check(directory, None, registry=registry).findings] == ["unit"]


def test_a_registry_that_is_away_is_exit_1_and_one_that_is_not_named_exit_2(directory: Path) -> None:
    (directory / "a.avsc").write_text(json.dumps(record(of(LONG), of(TEXT, "b"))))
    c360 = C360(directory=directory.parent)
    for words in (["--registry"], ["--replay"]):
        ran = c360("schemas", "check", *words)
        assert (ran.code, ran.out) == (2, "")
        assert "which registry? Set C360_REGISTRY" in ran.err
    away = c360.having(C360_REGISTRY="http://127.0.0.1:9")
    ran = away("schemas", "check", "--registry")
    assert (ran.code, ran.out) == (1, "")
    assert "the schema registry (C360_REGISTRY) does not answer" in ran.err
    ran = away("schemas", "check", "--replay")
    assert (ran.code, ran.out) == (2, "")
    assert "which app?" in ran.err


APP = """
from c360 import App, Projection, Record, count

app = App("{topic}")


@app.identifier("crm", priority=1, unique=True)
class Crm(str): ...


@app.source("{topic}.raw", format="avro", event_id="id", subject="id", schema={schema!r})
class Order(Record):
    id: Crm
    cents: int


@app.projection("customer")
class Customer(Projection):
    orders: int = count(Order)
"""


def test_what_a_real_topic_retains_is_decoded_by_the_schema_of_now(
    kafka: str, real_registry: Apicurio, tmp_path: Path
) -> None:
    """A field that was renamed without an alias, and one that the app calls by another type than it was written with."""
    topic = f"retained{uuid.uuid4().hex[:8]}"
    fields = [of(TEXT, "id"), of(LONG, "cents")]
    texts = [record(*fields), record(fields[0], of(LONG, "amount")), record(*fields, of(LONG, "more"))]
    numbers = [real_registry.publish(f"{topic}.raw-value", one) for one in texts]
    cluster = KafkaCluster(kafka)
    cluster.admin().create([TopicSpec(f"{topic}.raw", 1)])
    producer = cluster.producer()
    for number, text in zip(numbers, texts, strict=True):
        value = {"id": "7", "cents": 1, "amount": 1, "more": 1}
        data = b"\0" + number.to_bytes(4, "big") + written(fastavro.parse_schema(text), value)
        for _ in range(2):
            producer.produce(f"{topic}.raw", b"7", data)
    producer.flush()
    (tmp_path / "shop.py").write_text(APP.format(topic=topic, schema=json.dumps(texts[0])))
    c360 = C360({"C360_APP": "shop", "C360_BROKER": kafka, "C360_REGISTRY": real_registry.url}, directory=tmp_path)
    ran = c360("schemas", "check", "--replay", "--registry", "--json")
    assert ran.code == 1, ran.err
    hold("c360 schemas check", ran.json)
    assert ran.json["replayed"] == [
        {"topic": f"{topic}.raw", "schema": number, "records": 2, "partition": 0, "offset": 2 * n, "reason": reason}
        for n, (number, reason) in enumerate(zip(numbers, [None, "not-avro", None], strict=True))
    ]
    rules = {f["rule"]: f["against"] for f in ran.json["findings"]}
    assert rules["replay"] == [f"schema {numbers[1]}"]
    assert rules["compatibility"] == [f"version 2 of {topic}.raw-value"]
    assert "level" in rules

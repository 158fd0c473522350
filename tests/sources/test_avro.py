"""Values whose schema is in a registry: what they become, what is wrong with them, and what happens while it is away."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastavro.utils import generate_one

from c360 import App, Projection, Record, count, field, newest, total
from c360.codecs.avro import AvroDecoder, NoRegistry, Values, WriterSchema
from c360.codecs.json import Choice
from c360.errors import DeclarationError, Misfit, Shut
from c360.testing import TestDriver
from tests.sources.registry import FakeRegistry, guid_header

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
ORDER: dict[str, Any] = {
    "type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "customer", "type": "long"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "placed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "where", "type": {"type": "record", "name": "Place", "fields": [
            {"name": "city", "type": ["null", "string"]}]}},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "cents", "type": "int"}]}}},
    ],
}  # fmt: skip


class Line(Record):
    sku: str
    price: Decimal = field("cents", scale=2)


def shop(**source: Any) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.source("orders", format="avro", event_id="id", at="placed", subject="customer", **source)
    class Order(Record):
        id: str
        customer: Crm
        amount: Decimal
        placed: datetime
        state: str
        day: date | None
        city: str | None = field("where.city")
        lines: list[Line]
        first: str | None = field("lines.0.sku")

    @app.projection("customer")
    class Customer(Projection):
        orders: int = count(Order)
        spend: Decimal = total(Order.amount)
        city: str | None = newest(Order.city)
        first: str | None = newest(Order.first)
        day: date | None = newest(Order.day)

    return app


def order(number: int, **said: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.UUID(int=number)), "customer": 7, "amount": Decimal("12.50"), "placed": NINE, "day": date(2026, 11, 2),
        "state": "NEW", "where": {"city": "Lund"}, "lines": [{"sku": "a", "cents": 1250}], **said,
    }  # fmt: skip


def test_values_become_a_profile_with_their_logical_types() -> None:
    registry = FakeRegistry()
    number = registry.register(ORDER)
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        for n in (1, 2, 2):
            t.send("orders", "7", registry.write(number, order(n)))
        guid = str(uuid.uuid4())
        registry.schemas[guid] = registry.schemas[number]
        t.send("orders", "7", registry.data(number, order(3)), headers=[guid_header(guid)])
        t.send("orders", "7", b"\1" + uuid.UUID(guid).bytes + registry.data(number, order(4, lines=[])))
        found = t.profile("crm:7")
        assert (found.orders, found.spend, found.city, found.day) == (4, Decimal("50.00"), "Lund", date(2026, 11, 2))
        assert t.topic("shop.dlq") == []
        t.verify()


def test_a_registry_is_asked_once_for_each_id() -> None:
    registry = FakeRegistry()
    number = registry.register(ORDER)
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        for n in range(50):
            t.send("orders", str(n), registry.write(number, order(n)))
        t.settle()
        assert registry.asked == {number: 1}


def test_while_it_is_away_known_schemas_go_on_unknown_ones_wait_and_nothing_is_put_aside() -> None:
    registry = FakeRegistry()
    one, two = registry.register(ORDER), registry.register({**ORDER, "doc": "another"})
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", registry.write(one, order(1)), partition=0)
        assert t.profile("crm:7").orders == 1
        registry.away = True
        t.send("orders", "7", registry.write(two, order(2)), partition=0)
        t.send("orders", "7", registry.write(one, order(3)), partition=1)
        assert t.profile("crm:7").orders == 2
        registry.away = False
        time.sleep(0.6)  # until it is asked again
        assert t.profile("crm:7").orders == 3
        assert t.topic("shop.dlq") == []
        t.verify()


def test_older_and_newer_values_are_read_by_the_schema_the_app_was_written_for() -> None:
    """A field that was renamed, one that is new, one that is wider, and one that the writer has and the app does not."""
    fields = [f for f in ORDER["fields"] if f["name"] not in ("where", "amount", "customer")]
    old = [{"name": "buyer", "type": "int"}, {"name": "amount", "type": "float"}, {"name": "gone", "type": "string"}]
    now = [
        {"name": "customer", "type": "long", "aliases": ["buyer"]}, {"name": "amount", "type": "double"},
        {"name": "where", "default": {"city": "Oslo"}, "type": {
            "type": "record", "name": "Place", "fields": [{"name": "city", "type": "string"}]}},
    ]  # fmt: skip
    registry = FakeRegistry()
    number = registry.register({**ORDER, "fields": [*fields, *old]})
    with TestDriver(shop(schema={**ORDER, "fields": [*fields, *now]}), now=NINE, registry=registry) as t:
        t.send("orders", "7", registry.write(number, order(1, buyer=7, amount=12.5, gone="x")))
        found = t.profile("crm:7")
        assert (found.orders, found.spend, found.city) == (1, Decimal("12.50"), "Oslo")
        t.verify()


def test_json_with_a_schema_in_the_registry_is_json() -> None:
    registry = FakeRegistry()
    number = registry.register({"type": "object"}, "JSON")
    said = {**order(1), "amount": "12.50", "placed": "2026-11-02T09:00:00Z", "day": "2026-11-02"}
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", b"\0" + number.to_bytes(4, "big") + json.dumps(said).encode())
        assert t.profile("crm:7").spend == Decimal("12.50")
        t.verify()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value[:-1], "not-avro"),
        (lambda value: value + b"\0", "not-avro"),
        (lambda value: value[:3], "no-schema-id"),
        (lambda value: b'{"id": 1}', "no-schema-id"),
        (lambda value: b"", "empty"),
        (lambda value: b"\0\0\0\0\x63" + value[5:], "unknown-schema"),
        (lambda value: b"\0\0\0\0\2" + value[5:], "schema"),
        (lambda value: b"\0\0\0\0\3" + value[5:], "schema"),
        (lambda value: b"\0\0\0\0\4" + value[5:], "schema"),
        (lambda value: b"\0\0\0\0\5" + b"\2" * 200_000 + b"\0", "not-avro"),
        (lambda value: b"\0\0\0\0\6" + b"\0\0\0\0\0\0\xf0\x7f", "out-of-range"),
        (lambda value: b"\0\0\0\0\7" + b"\2a", "missing-field"),
        (lambda value: b"\0\0\0\0\x08" + b"\2a", "not-an-object"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_put_aside_with_its_reason(change: Any, reason: str) -> None:
    registry = FakeRegistry()
    number = registry.register(ORDER)
    registry.register({}, "PROTOBUF")
    registry.register({"type": "no such type"})
    registry.register({"type": "array", "items": "null"})  # a list of two billion nothings takes four bytes
    registry.register({"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]})
    registry.register({"type": "record", "name": "F", "fields": [{"name": "x", "type": "double"}]})
    registry.register({"type": "record", "name": "S", "fields": [{"name": "x", "type": "string"}]})
    registry.register("string")
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", change(registry.write(number, order(1))), partition=0)
        t.send("orders", "7", registry.write(number, order(2)), partition=0)
        assert t.profile("crm:7").orders == 1
        (letter,) = t.topic("shop.dlq")
        assert letter["reason"] == reason
        t.verify()


def test_without_a_registry_values_say_what_to_set() -> None:
    class Any_(Record):
        x: str

    decoder = AvroDecoder([Choice(Any_, None)], "dlq", NoRegistry())
    (found,) = decoder.decode([b"\0\0\0\0\1\2a"])
    assert isinstance(found, Misfit)
    assert "C360_REGISTRY" in str(found)


def test_a_schema_that_is_none_is_refused_where_it_is_declared() -> None:
    with pytest.raises(DeclarationError, match="schema= is no Avro schema"):
        shop(schema={"type": "nothing"})
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    class Plain(Record):
        crm: Crm

    with pytest.raises(DeclarationError, match='schema= is an Avro schema, for format="avro"'):
        app.source("raw", subject="crm", schema={"type": "string"})(Plain)


def test_confluents_framing_and_what_can_be_wrong_with_it(shared: Path) -> None:
    class Customer(Record):
        id: str
        email: str | None

    lines = (shared / "data" / "bad-input" / "confluent-wire" / "cases.jsonl").read_text().splitlines()
    first, *cases = map(json.loads, lines)
    registry = FakeRegistry()
    registry.register(first["schema_id_1"])
    registry.schemas[2] = WriterSchema("JSON", "{}")
    registry.schemas[3] = WriterSchema("PROTOBUF", "")
    decoder = AvroDecoder([Choice(Customer, None)], "dlq", registry)
    fits = {"ok", "ok-if-json-schema"}
    assert len(cases) > 20
    for case in cases:
        value = None if case["value_hex"] is None else bytes.fromhex(case["value_hex"])
        (found,) = decoder.decode([value])
        assert isinstance(found, Customer) == (case["expect"] in fits), (case, found)
        assert isinstance(found, Customer | Misfit)


def test_pairs_of_schemas_are_resolved_as_avro_says(shared: Path) -> None:
    """Of readers and writers that its own tests hold to be compatible, each is compiled and reads what was written."""
    lines = (shared / "data" / "bad-input" / "avro" / "reader-writer-pairs-half.jsonl").read_text().splitlines()
    pairs = [json.loads(line) for line in lines]
    read = 0
    for pair in pairs:
        if not pair["compatible"]:
            continue
        writer, reader = (pair[name] for name in ("writer", "reader"))
        registry = FakeRegistry()
        number = registry.register(writer)
        try:
            value = registry.write(number, generate_one(writer))
        except Exception:  # of some schemas no value can be made up
            continue
        try:
            Values(registry, reader).read(value)
        except Misfit as misfit:
            if "UnicodeDecodeError" not in str(misfit):  # made up bytes are seldom a text
                raise
        read += 1
    print(f"{read} of {len(pairs)} pairs")
    assert read > 20


def test_a_registry_that_is_away_is_told_as_such() -> None:
    registry = FakeRegistry()
    registry.away = True

    class Any_(Record):
        x: str

    with pytest.raises(Shut):
        AvroDecoder([Choice(Any_, None)], "dlq", registry).decode([b"\0\0\0\0\1\2a"])

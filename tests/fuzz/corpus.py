"""What is mutated: an app with a source of each format, and good records of each."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from c360 import App, Personal, Projection, Record, Sensitive, cloudevents, count, field, segment
from tests.sources.protobuf import shop_pb2
from tests.sources.protobuf.made import everything, framed, order, whole_record
from tests.sources.registry import FakeRegistry

SOURCES = Path(__file__).parent.parent / "sources"
DEBEZIUM, PROTOBUF = SOURCES / "debezium", SOURCES / "protobuf"
NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
NINE_MS = int(NINE.timestamp() * 1000)


@dataclass(frozen=True)
class Raw:
    """A record of a raw topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


FORMATS = (
    "json",
    "choice",
    "avro",
    "resolved",
    "protobuf",
    "debezium",
    "debezium-schemas",
    "debezium-avro",
    "segment",
    "cloudevents",
    "sealed",
    "sealed-rows",
)

PLACE = {"type": "record", "name": "Place", "fields": [{"name": "city", "type": ["null", "string"], "default": None}]}
ORDER: dict[str, Any] = {
    "type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "customer", "type": ["null", "long", "string"]},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "placed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
        {"name": "where", "type": PLACE},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "sku", "type": "string"}, {"name": "cents", "type": "int"}]}}},
        {"name": "extra", "type": ["null", {"type": "map", "values": ["double", "string", "boolean"]}], "default": None},
    ],
}  # fmt: skip
WIDE: dict[str, Any] = {
    **ORDER, "fields": [*ORDER["fields"],
        {"name": "rate", "type": "double"}, {"name": "part", "type": "float"},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "at", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "exact", "type": {"type": "fixed", "name": "Exact", "size": 9,
            "logicalType": "decimal", "precision": 20, "scale": 4}},
        {"name": "blob", "type": "bytes"},
        {"name": "tree", "type": ["null", {"type": "record", "name": "Tree", "fields": [
            {"name": "next", "type": ["null", "Tree"]}]}]},
    ],
}  # fmt: skip
ENDLESS = {"type": "record", "name": "E", "fields": [{"name": "n", "type": {"type": "array", "items": "null"}}]}


def app_of(*, sealed: bool = False) -> App:
    """`sealed`: with sources of which something is sealed."""
    app = App("fuzz", partitions=1)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.identifier("cookie", priority=20)
    class Cookie(str): ...

    @app.identifier("email", priority=5, personal=False)
    class Email(str): ...

    class Line(Record):
        sku: str
        price: Decimal = field("cents", scale=2)

    class Shared(Record):
        customer: Crm | None
        amount: Decimal
        placed: datetime
        state: Literal["NEW", "PAID"]
        day: date | None
        city: str | None = field("where.city")
        lines: list[Line]
        first: str | None = field("lines.0.sku")
        extra: Any = None

    @app.source("json", event_id="id", at="placed", subject="customer")
    class Order(Shared):
        id: uuid.UUID
        email: Email | None
        paid: Decimal | None = field("paid_minor", scale=3)
        shipped: datetime | None = field(unit="ms")
        tags: dict[str, list[int]] | None
        local: datetime | None = field(zone="Europe/Paris")

    @app.source("choice", when={"type": "a.b"}, event_id="id", key=Crm)
    class Chosen(Record):
        id: str
        n: int
        rate: float | None

    @app.source("choice", when={"kind.of": 2, "ok": True}, key=Crm, subject=["customer", "cookie"])
    class Other(Record):
        customer: Crm | None
        cookie: Cookie | None
        flag: bool | None = field("deep.er.flag")

    for name, schema in (("avro", None), ("resolved", ORDER)):

        @app.source(name, format="avro", event_id="id", at="placed", subject="customer", schema=schema)
        class Avro(Shared):
            id: str

        Avro.__name__ = name

    class Address(Record):
        address_id: int
        customer_id: Crm
        city: str
        since: date | None = field("valid_from", unit="days")
        geo: dict[str, Any] | None = None

    class Customer(Record):
        customer_id: Crm
        email: Email | None
        status: str
        value: Decimal = field("lifetime_value")
        notes: str | None = None
        tags: list[str] | None = None

    class Alias(Record):
        alias: Email
        customer_id: Crm

    class Row(Record):
        id: Crm
        name: str | None
        amount: Decimal | None = None

    class Told(Record):
        id: str
        customer: Crm
        note: Personal[str]
        more: Sensitive[dict[str, list[int]] | None] = field("tags", default=None)
        paid: Personal[Decimal | None] = field("paid_minor", scale=3)
        shipped: Personal[datetime | None] = field(unit="ms")

    class Person(Record):
        customer_id: Crm
        email: Personal[str | None]
        status: str
        notes: Personal[str | None] = None
        tags: list[str] | None = None

    if sealed:  # with keys, and with somebody who could be forgotten
        app.source("sealed", event_id="id", subject="customer")(Told)
        app.cdc("sealed-rows", key="customer_id")(Person)
    said: dict[str, Any] = {"format": "protobuf", "subject": "customer", "unmatched": "ignore"}
    app.source("protobuf", schema=shop_pb2.Everything, **said)(whole_record(Crm))

    @app.source("protobuf", schema=shop_pb2.Order, **said)
    class Ordered(Record):
        id: str
        customer: Crm
        amount: Decimal
        state: Literal["NEW", "PAID"]
        placed: datetime | None
        city: str | None = field("where.city")
        lines: list[Line]

    app.cdc("debezium", key="customer_id")(Customer)
    app.cdc("debezium-schemas", key="alias", subject="customer_id")(Alias)
    app.cdc("debezium-avro", key="id")(Row)

    class Tracked(segment.Track):
        user_id: Crm | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id

    @app.source(
        "segment", format="segment", event="Product Viewed", subject=["user_id", "anonymous_id"], unmatched="ignore"
    )
    class Viewed(Tracked):
        sku: str = field("properties.product_id")
        price: Decimal | None = field("properties.price")
        agreed: dict[str, bool] | None = segment.preferences

    @app.source("segment", format="segment", subject=["user_id", "anonymous_id"], unmatched="ignore")
    class Known(segment.Identify):
        user_id: Crm | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id
        email: Email | None = field("traits.email")
        traits: dict[str, Any] | None = segment.traits

    @app.source("cloudevents", format="cloudevents", when={"type": "order.placed"}, subject="customer")
    class Placed(cloudevents.Event):
        customer: Crm
        total: Decimal = field("total_minor", scale=2)
        trace: str | None = cloudevents.attribute("traceparent", default=None)
        at: datetime | None

    @app.projection("customer")
    class Profile(Projection):
        orders: int = count(Order)

    return app


def registry_of() -> tuple[FakeRegistry, dict[str, int]]:
    """Its schemas by name; those that are no good are there as well."""
    registry = FakeRegistry()
    ids = {
        "order": registry.register(ORDER),
        "wide": registry.register(WIDE),
        "row": registry.register(ENVELOPE),
        "key": registry.register(ROW_KEY),
        "json": registry.register({"type": "object"}, "JSON"),
        "proto": registry.publish("m-value", 'syntax = "proto3"; message M {}', "PROTOBUF"),
        "shop": registry.publish("protobuf-value", (PROTOBUF / "shop.proto").read_text(), "PROTOBUF"),
        "endless": registry.register(ENDLESS),
        "broken": registry.register({"type": "record", "name": "1"}),
        "tree": registry.register({"type": "record", "name": "T", "fields": [{"name": "t", "type": ["null", "T"]}]}),
        "number": registry.register("long"),
    }
    return registry, ids


def _row(name: str) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"], "default": None},
        {"name": "amount", "default": None, "type": ["null", {
            "type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]},
    ]}  # fmt: skip


ROW_KEY = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
ENVELOPE: dict[str, Any] = {
    "type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", _row("Value")], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "connector", "type": "string"}, {"name": "ts_ms", "type": "long"},
            {"name": "snapshot", "type": [{"type": "string", "connect.default": "false"}, "null"], "default": "false"},
            {"name": "sequence", "type": ["null", "string"], "default": None},
            {"name": "lsn", "type": ["null", "long"], "default": None}]}},
        {"name": "op", "type": "string"}, {"name": "ts_ms", "type": ["null", "long"], "default": None},
    ],
}  # fmt: skip


def records_of(topic: str, registry: FakeRegistry, ids: dict[str, int]) -> list[Raw]:
    """Good records of a topic."""
    return [replace(raw, headers=tuple(raw.headers)) for raw in _RECORDS[topic](registry, ids)]


def _dumped(value: Any) -> bytes | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _order(n: int) -> dict[str, Any]:
    return {
        "id": str(uuid.UUID(int=n)), "customer": 7 + n % 3, "amount": Decimal("12.50"), "placed": NINE,
        "day": date(2026, 11, 2),
        "state": ("NEW", "PAID")[n % 2], "where": {"city": "Lund" if n % 2 else None},
        "lines": [{"sku": f"a{i}", "cents": 1250 + i} for i in range(n % 4)], "extra": {"x": 1.5, "y": "é", "z": True},
    }  # fmt: skip


def _json(*_: Any) -> Iterator[Raw]:
    for n in range(8):
        order = _order(n) | {
            "amount": "12.50",
            "placed": "2026-11-02T09:00:00Z",
            "day": "2026-11-02",
            "email": f"A{n}@x.org",
        }
        order |= {"paid_minor": 12500, "shipped": NINE_MS, "tags": {"a": [1, 2]}, "local": "2026-11-02T09:00:00"}
        yield Raw(b"7", _dumped(order))


def _sealed(*_: Any) -> Iterator[Raw]:
    for raw in _json():
        yield replace(raw, value=(raw.value or b"").replace(b'"email"', b'"note"'))


def _choice(*_: Any) -> Iterator[Raw]:
    for n in range(4):
        yield Raw(str(n).encode(), _dumped({"type": "a.b", "id": f"e{n}", "n": n, "rate": n / 2}))
        yield Raw(
            None,
            _dumped(
                {"kind": {"of": 2}, "ok": True, "customer": n or None, "cookie": "c1", "deep": {"er": {"flag": True}}}
            ),
        )


def _avro(registry: FakeRegistry, ids: dict[str, int]) -> Iterator[Raw]:
    for n in range(6):
        order = _order(n)
        value = registry.write(ids["order"], order)
        yield Raw(b"7", value)
        yield Raw(b"7", value[5:], (("__value_schema_id", value[:5]),))
        tree: dict[str, Any] | None = None
        for _ in range(n):
            tree = {"next": tree}
        wide = order | {
            "rate": 1.5,
            "part": 2.5,
            "hash": b"abcd",
            "at": 1,
            "local": NINE_MS,
            "exact": Decimal("1.5"),
            "blob": b"xyz",
        }
        yield Raw(
            b"7",
            registry.write(ids["wide"], wide | {"tree": tree, "at": NINE.time(), "local": NINE.replace(tzinfo=None)}),
        )
    plain = _order(1) | {"amount": "12.50", "placed": "2026-11-02T09:00:00Z", "day": "2026-11-02"}
    yield Raw(b"7", b"\0" + ids["json"].to_bytes(4, "big") + (_dumped(plain) or b""))


def _protobuf(registry: FakeRegistry, ids: dict[str, int]) -> Iterator[Raw]:
    for n in range(4):
        value = framed(everything(), ids["shop"], b"\2\4")
        yield Raw(b"7", value)
        yield Raw(b"7", value[7:], (("__value_schema_id", value[:7]),))
        yield Raw(b"7", framed(order(n), ids["shop"]))
        yield Raw(b"7", framed(shop_pb2.Everything(customer=n), ids["shop"], b"\2\4"))


def _debezium(name: str, table: str) -> Iterator[Raw]:
    for line in (DEBEZIUM / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["topic"].endswith(f".{table}"):
            headers = tuple((name, text.encode()) for name, text in event["headers"])
            yield Raw(_dumped(event["key"]), _dumped(event["value"]), headers)


def _rows(*_: Any) -> Iterator[Raw]:
    yield from _debezium("postgres", "customers")
    yield from _debezium("mariadb", "customers")


def _rows_with_schemas(*_: Any) -> Iterator[Raw]:
    yield from _debezium("postgres_with_schemas", "email_aliases")


def _rows_in_avro(registry: FakeRegistry, ids: dict[str, int]) -> Iterator[Raw]:
    for n in range(9):
        op = "rcuudcruc"[n]
        row = {"id": n % 4, "name": ("ana", None, "__debezium_unavailable_value")[n % 3], "amount": Decimal("12.50")}
        source = {
            "connector": "postgresql",
            "ts_ms": NINE_MS,
            "snapshot": "false",
            "sequence": f'["{n * 10}","{n * 10 + 5}"]',
            "lsn": n * 10 + 5,
        }
        event = {
            "before": row if op == "d" else None,
            "after": None if op == "d" else row,
            "source": source,
            "op": op,
            "ts_ms": NINE_MS,
        }
        yield Raw(registry.write(ids["key"], {"id": n % 4}), registry.write(ids["row"], event))


def _segment(*_: Any) -> Iterator[Raw]:
    times = {
        "originalTimestamp": "2026-11-02T09:00:00.000Z",
        "sentAt": "2026-11-02T09:00:01Z",
        "receivedAt": "2026-11-02T09:00:02Z",
    }
    context = {"consent": {"categoryPreferences": {"Ads": True, "Stats": False}}, "ip": "10.0.0.1"}
    for n in range(4):
        call = {
            "messageId": f"m{n}",
            "anonymousId": "c1",
            "userId": str(n) if n % 2 else None,
            "context": context,
            **times,
        }
        when = {"timestamp": "2026-11-02T09:00:00.5Z"} if n % 2 else {}
        viewed = {"product_id": "p1", "price": 9.95}
        yield Raw(b"c1", _dumped({"type": "track", "event": "Product Viewed", "properties": viewed, **call, **when}))
        yield Raw(b"c1", _dumped({"type": "identify", "traits": {"email": "ana@x.org", "age": 30}, **call, **when}))
        yield Raw(b"c1", _dumped({"type": "page", "name": "Home", **call}))
    yield Raw(None, _dumped({"batch": [{"type": "track", "event": "Product Viewed", "userId": "7"}], "writeKey": "x"}))


def _cloudevents(*_: Any) -> Iterator[Raw]:
    for n in range(4):
        about = {
            "specversion": "1.0",
            "id": f"e{n}",
            "source": "/shop",
            "type": "order.placed",
            "time": "2026-11-02T09:00:00Z",
        }
        data = {"customer": 7, "total_minor": 1250, "at": "2026-11-02T09:00:00Z"}
        binary = [(f"ce_{name}", said.encode()) for name, said in about.items()]
        yield Raw(b"7", _dumped(data), (("content-type", b"application/json"), *binary, ("ce_traceparent", b"00-1")))
        yield Raw(
            b"7", _dumped({**about, "datacontenttype": "application/json", "data": data, "traceparent": "00-1"}),
            (("content-type", b"application/cloudevents+json; charset=utf-8"),),
        )  # fmt: skip
        yield Raw(b"7", _dumped({**about, "data_base64": "eyJjdXN0b21lciI6NywidG90YWxfbWlub3IiOjF9"}))


_RECORDS: dict[str, Any] = {
    "json": _json, "choice": _choice, "avro": _avro, "resolved": _avro, "protobuf": _protobuf,
    "debezium": _rows,
    "debezium-schemas": _rows_with_schemas,
    "sealed": _sealed, "sealed-rows": _rows, "debezium-avro": _rows_in_avro, "segment": _segment, "cloudevents": _cloudevents,
}  # fmt: skip

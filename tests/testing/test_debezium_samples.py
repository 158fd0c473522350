"""What a real connector wrote, through the production agents, against the oracle.

Snapshots, updates with columns left out, changed keys, deletes, tombstones, truncates, incremental snapshots.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from c360 import App, Projection, Record, collect, count, field, maximum, newest, total
from c360.engine.transport import TP
from tests.testing.world import World

NO_LSN = ()
WITH_SCHEMA = ()


class CustomerNo(str): ...


class Customer(Record):
    customer_id: CustomerNo
    email: str | None
    status: str
    lifetime_value: Decimal
    tags: list[str] | None
    notes: str | None
    birth_date: date | None = field(unit="days")
    updated_at: datetime = field(unit="us")


class Address(Record):
    address_id: int
    customer_id: CustomerNo
    city: str


class Order(Record):
    order_id: UUID
    customer_id: CustomerNo
    total: Decimal
    placed_at: datetime


class Consent(Record):
    customer_id: CustomerNo
    purpose: str
    channel: str
    granted: bool


class OrderItem(Record):
    order_id: CustomerNo  # an identifier for the test's sake: items are about orders
    line_no: int
    qty: int
    unit_price: Decimal


class ShopCustomer(Record):
    id: CustomerNo
    name: str | None
    balance: Decimal
    created_at: datetime = field(unit="us")


class ShopOrder(Record):
    order_no: str
    customer_id: CustomerNo
    total: Decimal
    placed_at: datetime = field(unit="ms")


def app_of(prefix: str) -> App:
    app = App("samples", partitions=2)
    app.identifier("crm")(CustomerNo)
    if prefix == "comp.shop.shop":
        app.cdc(f"{prefix}.customers", key="id")(ShopCustomer)
        app.cdc(f"{prefix}.orders", key="order_no", subject="customer_id")(ShopOrder)

        @app.projection("customer")
        class ShopProfile(Projection):
            name: str | None = newest(ShopCustomer.name)
            orders: int = count(ShopOrder)
            spend: Decimal = total(ShopOrder.total)
            last: datetime | None = maximum(ShopOrder.placed_at)

        return app
    app.cdc(f"{prefix}.customers", key="customer_id")(Customer)
    app.cdc(f"{prefix}.addresses", key="address_id", subject="customer_id")(Address)
    app.cdc(f"{prefix}.orders", key="order_id", subject="customer_id")(Order)
    app.cdc(f"{prefix}.consents", key=["customer_id", "purpose", "channel"], subject="customer_id")(Consent)
    app.cdc(f"{prefix}.order_items", key=["order_id", "line_no"], subject="order_id")(OrderItem)

    @app.projection("customer")
    class Profile(Projection):
        email: str | None = newest(Customer.email)
        born: date | None = newest(Customer.birth_date)
        value: Decimal = total(Customer.lifetime_value)
        notes: str | None = newest(Customer.notes)
        cities: list[str] = collect(Address.city)
        spend: Decimal = total(Order.total)
        consents: int = count(Consent, where=Consent.granted == True)  # noqa: E712 - a condition on a field
        items: int = count(OrderItem)

    return app


def run(path: Path, prefix: str) -> World:
    world = World(app_of(prefix))
    topics = {s.topic for s in world.plan.sources}
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in sorted(lines, key=lambda line: line["offset"]):
        if line["topic"] in topics:
            key = None if line["key"] is None else json.dumps(line["key"])
            at: Any = {"timestamp": line["timestamp"], "partition": line["partition"]}
            world.send(line["topic"], key, line["value"], **at)
    world.settle()
    return world


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        pytest.param("postgres_json", "comp.crm.crm", marks=NO_LSN),
        pytest.param("postgres_json_with_schemas", "comp.crms.crm", marks=WITH_SCHEMA),
        ("mariadb_json", "comp.shop.shop"),
    ],
)
def test_what_a_real_connector_wrote_is_folded_as_the_oracle_says(shared: Path, name: str, prefix: str) -> None:
    world = run(shared / "samples" / "debezium" / f"{name}.jsonl", prefix)
    assert [m["error"] for m in world.values("samples.dlq")] == []
    report = world.report()
    assert report.examples == []
    assert report.complete
    assert world.latest("samples.customer.v1")
    for tp in (TP(f"samples.governed.{prefix}.customers.v1", p) for p in (0, 1)):
        assert tp.topic in world.cluster.topics

"""The app of these tests: events and rows, an enrichment, conditions, windows, a derived value."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from c360 import (
    App,
    Projection,
    Record,
    average,
    collect,
    count,
    derived,
    distinct,
    flag,
    maximum,
    newest,
    normalize,
    prefer,
    top,
    total,
)

app = App("shop", partitions=3)


@app.identifier("crm", priority=1)
class CrmId(str): ...


@app.identifier("email", personal=False, normalize=normalize.email)
class Email(str): ...


class Line(Record):
    sku: str
    price: Decimal


@app.source("web.clicks", event_id="id", at="ts", subject=["customer", "email"])
class Click(Record):
    id: str | None
    customer: CrmId | None
    email: Email | None
    category: str
    ts: datetime
    lines: list[Line] | None = None


@app.enrich(Click)
def section(click: Click) -> str:
    return click.category.split("/")[1]


@app.cdc("crm.customers", key="id", name="customers")
class Customer(Record):
    id: CrmId
    email: Email | None
    notes: str | None


@app.cdc("crm.orders", key="id", subject="customer", at="placed", name="orders")
class Order(Record):
    id: int
    customer: CrmId
    amount: Decimal
    placed: datetime


@app.projection("customer", version=3)
class Profile(Projection):
    email: Email | None = prefer(Customer.email, Click.email)
    clicks: int = count(Click)
    orders: int = count(Order)
    large: bool = flag(Order, where=lambda order: order.amount > 100)
    spend: Decimal = total(Order.amount)
    spend_7d: Decimal = total(Order.amount, within=timedelta(days=7))
    usual: Decimal | None = average(Order.amount)
    largest: Decimal | None = maximum(Order.amount)
    last_seen: datetime | None = newest(Click.ts, Order.placed)
    notes: str | None = newest(Customer.notes)
    interests: list[str] = top(section, n=2)
    kinds: int = distinct(Click.category)
    categories: list[str] = collect(Click.category, limit=3)

    @derived
    def basket(self) -> Decimal:
        return self.spend / self.orders


Json = dict[str, Any]


def click(id: str | None, customer: str | None, category: str = "a/b", ts: str = "2026-11-02T08:00:00Z") -> Json:
    email = None if customer else " Ana@Example.COM "
    return {"id": id, "customer": customer, "email": email, "category": category, "ts": ts}


def change(op: str, lsn: int, after: Json | None, *, snapshot: str = "false", table: str = "t") -> Json:
    """A Debezium envelope as PostgreSQL's connector writes it."""
    source = {
        "version": "3.5.0.Final", "connector": "postgresql", "name": "crm", "ts_ms": 1_793_609_000_000 + lsn,
        "snapshot": snapshot, "db": "crm", "sequence": f'["{lsn}","{lsn}"]', "schema": "crm", "table": table,
        "txId": lsn, "lsn": lsn, "xmin": None,
    }  # fmt: skip
    return {"before": None, "after": after, "source": source, "op": op, "ts_ms": 1_793_609_000_001 + lsn}


def customer(id: str, email: str | None, notes: str | None = None) -> Json:
    return {"id": id, "email": email, "notes": notes}


def order(id: int, customer: str, amount: str, placed: str = "2026-11-01T12:00:00Z") -> Json:
    return {"id": id, "customer": customer, "amount": amount, "placed": placed}

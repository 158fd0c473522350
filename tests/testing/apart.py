"""An app whose profiles have every kind of attribute, of events and of rows, and whose rows join people and part them."""

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
    first,
    flag,
    maximum,
    minimum,
    newest,
    normalize,
    prefer,
    top,
    total,
)

app = App("apart", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("cookie", priority=20, limit=50)
class Cookie(str): ...


@app.identifier("email", personal=False, priority=3, normalize=normalize.email)
class Email(str): ...


@app.identifier("device", priority=10, limit=3, shared_at=2)
class Device(str): ...


@app.source("visits", event_id="id", at="ts", subject=["crm", "cookie"])
class Visit(Record):
    id: str
    crm: CrmId | None
    cookie: Cookie | None
    page: str
    score: float
    ts: datetime


@app.cdc("orders", key="id", subject=["crm", "cookie"], at="placed")
class Order(Record):
    id: int
    crm: CrmId | None
    cookie: Cookie | None
    amount: Decimal
    placed: datetime


@app.cdc("accounts", key="id", subject=["crm", "cookie"])
class Account(Record):
    """What joins: an e-mail and a device that others may have, too."""

    id: int
    crm: CrmId | None
    cookie: Cookie | None
    email: Email | None
    device: Device | None
    note: str


@app.projection("customer")
class Customer(Projection):
    visits: int = count(Visit)
    visits_7d: int = count(Visit, within=timedelta(days=7))
    orders: int = count(Order)
    deep: bool = flag(Visit, where=lambda visit: visit.page == "/deep")
    large: bool = flag(Order, where=lambda order: order.amount > 100)
    spend: Decimal = total(Order.amount)
    spend_7d: Decimal = total(Order.amount, within=timedelta(days=7))
    scored: Decimal = total(Visit.score)
    usual: Decimal | None = average(Order.amount)
    smallest: Decimal | None = minimum(Order.amount)
    largest: Decimal | None = maximum(Order.amount)
    entry: str | None = first(Visit.page)
    last_page: str | None = newest(Visit.page)
    last_seen: datetime | None = newest(Visit.ts, Order.placed)
    said: str | None = prefer(Account.note, Visit.page)
    interests: list[str] = top(Visit.page, n=2)
    few: list[str] = top(Visit.page, n=2, limit=3)
    kinds: int = distinct(Visit.page)
    few_kinds: int = distinct(Visit.page, limit=2)
    pages: list[str] = collect(Visit.page, limit=4)
    notes: list[str] = collect(Account.note)
    amounts: list[Decimal] = collect(Order.amount)

    @derived
    def basket(self) -> Decimal | None:
        return self.spend / self.orders if self.orders else None


def whose(subject: str) -> dict[str, str | None]:
    """The fields that say whom a record is about."""
    namespace, _, value = subject.partition(":")
    return {"crm": None, "cookie": None, namespace: value}


def visit(n: int, subject: str, page: str, ts: str) -> dict[str, Any]:
    return {"id": f"v{n}", **whose(subject), "page": page, "score": n / 7, "ts": ts}


def order(id: int, subject: str, amount: str, placed: str) -> dict[str, Any]:
    return {"id": id, **whose(subject), "amount": amount, "placed": placed}


def account(id: int, subject: str, email: str | None, note: str, device: str | None = None) -> dict[str, Any]:
    return {"id": id, **whose(subject), "email": email, "device": device, "note": note}

"""The app of these tests that has identity: subjects that are identifiers, too, and two rule sets over the same facts."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from c360 import (
    App,
    Projection,
    Record,
    average,
    collect,
    count,
    distinct,
    first,
    maximum,
    newest,
    normalize,
    prefer,
    top,
    total,
)

app = App("people", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("cookie", priority=20, limit=50)
class Cookie(str): ...


@app.identifier("email", priority=3, normalize=normalize.email)
class Email(str): ...


@app.identifier("born", links=False, limit=1)
class Born(str): ...


@app.identifier("name_key", priority=6)
class NameKey(str): ...


@app.source("visits", event_id="id", at="ts", subject=["customer", "cookie"])
class Visit(Record):
    id: str | None
    cookie: Cookie | None
    customer: CrmId | None
    emails: list[Email] | None
    page: str
    ts: datetime


@app.cdc("accounts", key="id", subject="crm")
class Account(Record):
    id: int
    crm: CrmId
    email: Email | None
    born: Born | None
    name: str | None


@app.cdc("orders", key="id", subject="buyer", at="placed")
class Order(Record):
    id: int
    buyer: Cookie
    amount: Decimal
    placed: datetime


@app.enrich(Account)
def name_key(account: Account) -> NameKey | None:
    said = normalize.composite([account.name, account.born])
    return None if said is None else NameKey(said)


risk = app.identity("risk", changes={Email: {"limit": 1}, Cookie: {"hub_at": 3, "shared_at": None}}, cap=6)


@app.projection("customer")
class Customer(Projection):
    visits: int = count(Visit)
    orders: int = count(Order)
    spend: Decimal = total(Order.amount)
    spend_7d: Decimal = total(Order.amount, within=timedelta(days=7))
    usual: Decimal | None = average(Order.amount)
    largest: Decimal | None = maximum(Order.amount)
    email: Email | None = prefer(Account.email)
    entry: str | None = first(Visit.page)
    last_seen: datetime | None = newest(Visit.ts, Order.placed)
    pages: list[str] = top(Visit.page, n=2, limit=3)
    kinds: int = distinct(Visit.page, limit=2)
    names: list[str] = collect(Account.name)


@app.projection("account", identity=risk)
class Known(Projection):
    visits: int = count(Visit)
    names: list[str] = collect(Account.name)

"""The app of these tests that has identity: subjects that are identifiers, too, and two rule sets over the same facts.

STORY names it, so that stories can share a broker; then its raw topics are `{name}.visits` and so on.
"""

from __future__ import annotations

import os
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


class CrmId(str): ...


class Cookie(str): ...


class Email(str): ...


class Born(str): ...


class NameKey(str): ...


class Visit(Record):
    id: str | None
    cookie: Cookie | None
    customer: CrmId | None
    emails: list[Email] | None
    page: str
    ts: datetime


class Account(Record):
    id: int
    crm: CrmId
    email: Email | None
    born: Born | None
    name: str | None


class Order(Record):
    id: int
    buyer: Cookie
    amount: Decimal
    placed: datetime


def name_key(account: Account) -> NameKey | None:
    said = normalize.composite([account.name, account.born])
    return None if said is None else NameKey(said)


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


class Known(Projection):
    visits: int = count(Visit)
    names: list[str] = collect(Account.name)


def who(name: str, raw: str = "") -> App:
    """Identifiers and records alone; `raw` stands before the names of raw topics."""
    app = App(name, partitions=3)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    app.identifier("cookie", priority=20, limit=50)(Cookie)
    app.identifier("email", personal=False, priority=3, normalize=normalize.email)(Email)
    app.identifier("born", links=False, limit=1)(Born)
    app.identifier("name_key", priority=6)(NameKey)
    app.source(f"{raw}visits", name="visits", event_id="id", at="ts", subject=["customer", "cookie"])(Visit)
    app.cdc(f"{raw}accounts", name="accounts", key="id", subject="crm")(Account)
    app.cdc(f"{raw}orders", name="orders", key="id", subject="buyer", at="placed")(Order)
    app.enrich(Account)(name_key)
    return app


def people(name: str = "people", raw: str = "") -> App:
    """The app under a name of its own."""
    app = who(name, raw)
    risk = app.identity("risk", changes={Email: {"limit": 1}, Cookie: {"hub_at": 3, "shared_at": None}}, cap=6)
    app.projection("customer")(Customer)
    app.projection("account", identity=risk)(Known)
    return app


STORY = os.environ.get("STORY")
app = people() if STORY is None else people(STORY, f"{STORY}.")

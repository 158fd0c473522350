"""People, what they agreed to, and their orders, as the tables of a CRM have them now: every profile is a query over the rows.

The tables are in crm.sql, the connectors in crm.json and shop.json, how to run it all in README.md.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

from c360 import App, Projection, Record, collect, count, field, maximum, newest, total

app = App("crm-live", partitions=4)


@app.identifier("crm", priority=1, personal=False, unique=True)
class CrmId(str): ...


@app.cdc("crm.public.customers", key="id", at="updated_at")
class Customer(Record):
    id: CrmId
    name: str | None
    email: str | None
    city: str | None
    status: str
    born: date | None = field(unit="days")
    notes: str | None = None  # long ones are sent only when they change
    updated_at: datetime


@app.cdc("crm.public.consents", key=["customer_id", "purpose", "channel"], subject="customer_id")
class Consent(Record):
    customer_id: CrmId
    purpose: str
    channel: str
    granted: bool


@app.cdc("shop.public.orders", key="id", subject="customer_id")
class Order(Record):
    id: int
    customer_id: CrmId
    amount: Decimal
    state: str
    placed_at: datetime = field(unit="us")  # a timestamp without zone: microseconds, in UTC


@app.projection("customer")
class Profile(Projection):
    name: str | None = newest(Customer.name)
    email: str | None = newest(Customer.email)
    city: str | None = newest(Customer.city)
    status: str | None = newest(Customer.status)
    born: date | None = newest(Customer.born)
    may: list[str] = collect(Consent.purpose, where=Consent.granted == True)  # noqa: E712 - a condition on a field
    orders: int = count(Order, where=Order.state != "cancelled")
    spend: Decimal = total(Order.amount, where=Order.state != "cancelled")
    last_order: datetime | None = maximum(Order.placed_at)

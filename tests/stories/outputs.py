"""An app whose view and sink write Avro where there is a registry, on orders in Avro."""

from __future__ import annotations

from decimal import Decimal
from typing import TypedDict

from c360 import App, Projection, Record, count, total

app = App("outputs", partitions=2)


@app.identifier("crm", priority=1, unique=True)
class Crm(str): ...


service = app.purpose("service", basis="contract")


@app.source("outputs.orders", format="avro", event_id="id", subject="customer", purposes=[service])
class Order(Record):
    id: str
    customer: Crm
    amount: Decimal


@app.projection("customer", purposes=[service])
class Customer(Projection):
    orders: int = count(Order)
    spend: Decimal = total(Order.amount)


class Row(TypedDict):
    """What the far side holds of a customer."""

    orders: int
    spend: Decimal


@app.sink("rows", projection=Customer, purpose=service)
def rows(profile: Customer) -> Row:
    return {"orders": profile.orders, "spend": profile.spend}

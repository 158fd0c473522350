"""An app whose view and sink write Avro where there is a registry, on orders in Avro."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

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


@app.agent("outputs.activation.rows")
async def noted(stream: AsyncIterator[Any]) -> None:
    """Writes down what the sink has written, where the test reads it."""
    async for row in stream:
        with Path(os.environ["OUTPUTS_NOTES"]).open("a") as notes:
            notes.write(json.dumps(row) + "\n")

"""The workload (spec.md) as a c360 app, declared as any user would. The benchmark chooses names: PREFIX and INPUT."""

from datetime import datetime
from decimal import Decimal
from os import environ

from c360 import App, Projection, Record, count, distinct, field, maximum, minimum, newest, top, total

app = App(environ.get("PREFIX", "bench"), partitions=4)


@app.identifier("customer", priority=1, unique=True)
class CustomerId(str): ...


@app.source(environ.get("INPUT", "events"), event_id="event_id", at="ts", subject="customer_id", name="events")
class Event(Record):
    event_id: str
    customer_id: CustomerId
    type: str
    ts: datetime = field(unit="ms")
    email: str | None
    profiling: bool | None = field("consent.profiling")
    sku: str | None = field("props.sku")
    amount: Decimal | None = field("props.amount")


@app.projection("profile", version=1)
class Profile(Projection):
    events: int = count(Event)
    profiling: bool | None = newest(Event.profiling)
    orders: int = count(Event, where=Event.type == "order")
    revenue: Decimal = total(Event.amount, where=Event.type == "order")
    first_seen: datetime | None = minimum(Event.ts)
    last_seen: datetime | None = maximum(Event.ts)
    distinct_skus: int = distinct(Event.sku)
    top_sku: list[str] = top(Event.sku, n=1)
    email: str | None = newest(Event.email)

"""An app whose sources are flooded: one with what does not fit, one with more than its rate, one that pauses itself."""

from __future__ import annotations

from c360 import App, Projection, Record, count

app = App("flooded", partitions=2)


@app.identifier("crm", priority=1, unique=True)
class Crm(str): ...


@app.source("flood.mixed", event_id="id", subject="customer")
class Mixed(Record):
    id: str
    customer: Crm


@app.source("flood.limited", event_id="id", subject="customer", rate="400/s")
class Limited(Record):
    id: str
    customer: Crm


@app.source("flood.judged", event_id="id", subject="customer", quarantine=0.2)
class Judged(Record):
    id: str
    customer: Crm


@app.projection("customer")
class Customer(Projection):
    mixed: int = count(Mixed)
    limited: int = count(Limited)
    judged: int = count(Judged)

"""The app of `benchmarks.consent`: customers with two attributes, one purpose that asks, a view and a sink."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from c360 import App, Projection, Record, count, newest

app = App("consent-bench", partitions=8)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


marketing = app.purpose("marketing")


@app.source("events", subject="customer", purposes=[marketing])
class Event(Record):
    customer: CrmId
    page: str


@app.consent("choices")
class Choice(Record):
    customer: CrmId
    purpose: str
    granted: bool
    at: datetime


@app.projection("customer", purposes=[marketing])
class Profile(Projection):
    events: int = count(Event)
    page: str | None = newest(Event.page)


@app.sink("mail", projection=Profile, purpose=marketing)
def mail(profile: Profile) -> dict[str, Any] | None:
    return {"page": profile.page}

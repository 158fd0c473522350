"""An app with all that holds customers: rows, events, consent, who asks to be forgotten, a view, and three sinks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from c360 import App, Personal, Projection, Record, count, newest, normalize

app = App("proof", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email, personal=True)
class Email(str): ...


@app.identifier("cookie", priority=5)
class Cookie(str): ...


service = app.purpose("service", basis="contract")
marketing = app.purpose("marketing")


@app.cdc("people", key="pk", subject="id", purposes=[service, marketing])
class Person(Record):
    pk: str
    id: CrmId
    name: Personal[str]
    email: Email | None = None


@app.source("clicks", event_id="id", subject="cookie", purposes=[service, marketing])
class Click(Record):
    id: str
    cookie: Cookie
    page: str
    login: Email | None = None
    text: Personal[str | None] = None


@app.consent("choices")
class Choice(Record):
    id: CrmId
    purpose: str
    granted: bool
    at: datetime


@app.erasure("forget-me")
class Please(Record):
    id: CrmId


@app.projection("customer", purposes=[service, marketing], replay=timedelta(days=30))
class Customer(Projection):
    name: str | None = newest(Person.name)
    clicks: int = count(Click)
    page: str | None = newest(Click.page)
    text: str | None = newest(Click.text)


@app.sink("crm-sync", projection=Customer, purpose=service)
def crm_sync(profile: Any) -> dict[str, Any]:
    return {"name": profile.name, "clicks": profile.clicks}


@app.sink("mailer", projection=Customer, purpose=marketing)
def mailer(profile: Any) -> dict[str, Any]:
    return {"name": profile.name, "text": profile.text}


@app.sink("ads", projection=Customer, purpose=marketing)
def ads(profile: Any) -> dict[str, Any]:
    return {"page": profile.page}

"""The app of `benchmarks.merges`: people with accounts, e-mails, cookies and devices; visitors whom tokens tie together."""

from datetime import datetime
from os import environ

from c360 import App, Projection, Record, count, field, newest

PREFIX = environ.get("PREFIX", "merges")
app = App(PREFIX, partitions=4)


@app.identifier("customer")
class Customer(str): ...


@app.identifier("crm_id")
class CrmId(str): ...


@app.identifier("email", personal=False)
class Email(str): ...


@app.identifier("phone", personal=False)
class Phone(str): ...


@app.identifier("cookie")
class Cookie(str): ...


@app.identifier("device_id")
class Device(str): ...


@app.identifier("visitor", priority=20, limit=10_000, shared_at=None, hub_at=None)
class Visitor(str): ...


@app.identifier("token", priority=20, limit=10_000, shared_at=None, hub_at=None)
class Token(str): ...


@app.source(f"accounts.{PREFIX}", name="accounts", event_id="id", at="ts", subject="customer")
class Account(Record):
    id: str
    customer: Customer
    crm: CrmId | None
    email: Email | None
    phone: Phone | None
    ts: datetime = field(unit="ms")


@app.source(f"visits.{PREFIX}", name="visits", event_id="id", at="ts", subject="cookie")
class Visit(Record):
    """A page somebody looked at; whoever logs in says an e-mail."""

    id: str
    cookie: Cookie
    login: Email | None
    device: Device | None
    ts: datetime = field(unit="ms")


@app.source(f"passes.{PREFIX}", name="passes", event_id="id", at="ts", subject="visitor")
class Pass(Record):
    id: str
    visitor: Visitor
    token: Token
    ts: datetime = field(unit="ms")


@app.projection("person", version=1)
class Person(Projection):
    accounts: int = count(Account)
    visits: int = count(Visit)
    passes: int = count(Pass)
    last_seen: datetime | None = newest(Visit.ts, Account.ts)

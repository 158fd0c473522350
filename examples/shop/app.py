"""One customer out of web clicks, CRM rows and shop orders; what leaves, leaves with consent."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from c360 import (
    App,
    Personal,
    Projection,
    Record,
    count,
    derived,
    distinct,
    field,
    newest,
    normalize,
    prefer,
    top,
    total,
)

app = App("shop", partitions=4)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", priority=3, normalize=normalize.email)
class Email(str): ...


@app.identifier("cookie", priority=20, limit=50)
class Cookie(str): ...


service = app.purpose("service", basis="contract")
marketing = app.purpose("marketing")  # rests on consent


@app.source("web.clicks", event_id="id", at="ts", subject=["customer", "cookie"], purposes=[service, marketing])
class Click(Record):
    """A page somebody looked at; a known customer's if they were logged in."""

    id: str
    cookie: Cookie
    customer: CrmId | None
    login: Email | None
    category: str
    ts: datetime


@app.cdc("crm.public.customers", key="id", purposes=[service, marketing])
class Customer(Record):
    id: CrmId
    name: Personal[str] | None
    email: Email | None
    city: str | None


@app.cdc("shop.public.orders", key="id", subject="customer_id", at="placed", purposes=[service])
class Order(Record):
    id: int
    customer_id: CrmId
    amount: Decimal
    placed: datetime = field("placed_at", unit="us")


@app.consent("web.consent")
class Choice(Record):
    """What a customer decided in the preference centre."""

    customer: CrmId
    purpose: str
    granted: bool
    at: datetime


@app.erasure("privacy.requests")
class Forget(Record):
    customer: CrmId


@app.enrich(Click)
def section(click: Click) -> str:
    return click.category.split("/")[0]


@app.projection("customer", version=1, purposes=[service, marketing])
class Profile(Projection):
    email: str | None = prefer(Customer.email, Click.login)  # in order of trust
    name: str | None = newest(Customer.name)
    city: str | None = newest(Customer.city)
    orders: int = count(Order)
    spend: Decimal = total(Order.amount)
    spend_30d: Decimal = total(Order.amount, within=timedelta(days=30))
    large_orders: int = count(Order, where=Order.amount >= Decimal(100))
    clicks: int = count(Click)
    last_seen: datetime | None = newest(Click.ts, Order.placed)
    interests: list[str] = top(section, n=3)
    categories: int = distinct(Click.category)

    @derived
    def basket(self) -> Decimal:
        return (self.spend / self.orders).quantize(Decimal("0.01")) if self.orders else Decimal(0)


@app.sink("newsletter", projection=Profile, purpose=marketing)
def newsletter(profile: Profile) -> dict[str, Any] | None:
    """What the mailing service is to hold; orders are not among what marketing may see."""
    if profile.email is None:
        return None
    return {"email": profile.email, "name": profile.name, "interests": profile.interests}

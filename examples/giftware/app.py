"""A year of a gift shop: orders as CloudEvents, web events as Segment calls, people as CRM rows, by shop customer id.

The raw topics are those of the scenario `giftware` in the project's shared data: `c360 load …/giftware/raw.*.jsonl.gz`.
"""

from datetime import datetime
from decimal import Decimal
from functools import partial

from c360 import App, Projection, Record, collect, count, distinct, field, first, newest, top, total

app = App("giftware", partitions=4)


@app.identifier("shop", priority=1, unique=True)
class ShopId(str): ...


@app.identifier("crm", priority=2, unique=True)
class CrmId(str): ...


@app.identifier("cookie", priority=20, limit=50)
class Cookie(str): ...


class Line(Record):
    sku: str
    quantity: int
    unit_price: Decimal = field("unit_price_minor", scale=2)


class OrderEvent(Record):
    """What all events about orders have."""

    event_id: str = field("id")
    time: datetime
    total: Decimal = field("data.total_minor", scale=2)


orders = partial(app.source, "raw.orders", event_id="event_id", at="time", key=ShopId, name="orders")


@orders(when={"type": "com.example.order.placed"})
class Placed(OrderEvent):
    order_id: str = field("data.order_id")
    country: str = field("data.country")
    lines: list[Line] = field("data.lines")
    first_sku: str | None = field("data.lines.0.sku")


@orders(when={"type": "com.example.order.cancelled"})
class Cancelled(OrderEvent): ...


@orders(when={"type": "com.example.order.adjusted"})
class Adjusted(OrderEvent): ...


@app.source(
    "raw.web", event_id="message_id", at="time", subject=["user", "cookie"], name="web", unmatched="ignore",
    when={"type": "track", "event": "Product Viewed"},
)  # fmt: skip
class Viewed(Record):
    message_id: str = field("messageId")
    time: datetime = field("timestamp")
    user: ShopId | None = field("userId")
    cookie: Cookie | None = field("anonymousId")
    sku: str = field("properties.product_id")
    price: Decimal = field("properties.price")


@app.cdc("crm.public.customers", key="id", subject=["shop_id", "id"], name="people")
class Person(Record):
    id: CrmId
    shop_id: ShopId | None = field("shop_customer_id")
    email: str | None
    state: str | None


@app.projection("customer", version=1)
class Profile(Projection):
    orders: int = count(Placed)
    cancellations: int = count(Cancelled)
    adjustments: int = count(Adjusted)
    net: Decimal = total(Placed.total, Cancelled.total, Adjusted.total)
    first_order: datetime | None = first(Placed.time)
    last_seen: datetime | None = newest(Placed.time, Cancelled.time, Adjusted.time, Viewed.time)
    countries: list[str] = collect(Placed.country)
    viewed: list[str] = top(Viewed.sku, n=5)
    products: int = distinct(Viewed.sku)
    email: str | None = newest(Person.email)
    state: str | None = newest(Person.state)

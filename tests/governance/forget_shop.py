"""An app whose customers ask to be forgotten, and what must not be left of them anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from c360 import App, Personal, Projection, Record, count, newest, normalize
from c360.engine.transport import TP
from c360.plan import CONFIGS
from c360.testing import TestDriver

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def shop(name: str = "forget", *, joined: bool = True) -> App:
    """Customers in rows, and clicks of cookies, which join by a mail address. Not `joined`: clicks alone, of customers."""
    app = App(name, partitions=3)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    @app.identifier("cookie")
    class Cookie(str): ...

    if not joined:

        @app.source("orders", event_id="id", subject="customer")
        class Order(Record):
            id: str
            customer: CrmId
            note: Personal[str | None] = None

        @app.projection("customer")
        class Buyer(Projection):
            orders: int = count(Order)
            note: str | None = newest(Order.note)

        return app

    @app.cdc("people", key="pk", subject="id")
    class Person(Record):
        pk: str
        id: CrmId
        name: Personal[str]
        email: Email | None = None

    @app.source("clicks", event_id="id", subject="cookie")
    class Click(Record):
        id: str
        cookie: Cookie
        login: Email | None = None
        text: Personal[str | None] = None

    @app.projection("customer")
    class Customer(Projection):
        name: str | None = newest(Person.name)
        clicks: int = count(Click)
        text: str | None = newest(Click.text)

    @app.erasure("forget-me")
    class Please(Record):
        email: Email | None = None
        customer: CrmId | None = None

    return app


def open_shop(name: str = "open") -> App:
    """An app out of which profiles leave: a view for a purpose that asks, and a sink."""
    app = App(name, partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    marketing = app.purpose("marketing")

    @app.source("orders", event_id="id", subject="customer", purposes=[marketing])
    class Order(Record):
        id: str
        customer: CrmId
        email: Email | None = None
        note: Personal[str | None] = None

    @app.consent("choices")
    class Choice(Record):
        customer: CrmId
        purpose: str
        granted: bool
        at: datetime

    @app.projection("customer", purposes=[marketing])
    class Buyer(Projection):
        orders: int = count(Order)
        note: str | None = newest(Order.note)

    @app.sink("mailer", projection=Buyer, purpose=marketing)
    def mailer(profile: Any) -> dict[str, Any]:
        if profile.note == "boom":
            raise ValueError("the mailer cannot take it")
        return {"orders": profile.orders, "note": profile.note}

    return app


def person(driver: TestDriver, pk: str, crm: str, name: str, email: str | None, at: int = 1, op: str = "c") -> None:
    row = {"pk": pk, "id": crm, "name": name, "email": email}
    source = {"connector": "postgresql", "lsn": at, "ts_ms": at, "snapshot": "false"}
    value = {"op": op, "before": None, "after": row, "source": source, "ts_ms": at}
    driver.send("people", f'{{"pk": "{pk}"}}', value)


def click(driver: TestDriver, number: int, cookie: str, login: str | None = None, text: str | None = None) -> None:
    driver.send("clicks", cookie, {"id": f"e{number}", "cookie": cookie, "login": login, "text": text})


def left(driver: TestDriver, words: list[str]) -> dict[str, list[str]]:
    """Where one of these words stands: in compacted topics after compaction, in stores, or (sealed or not) in others."""
    driver.settle()
    found: dict[str, list[str]] = {}
    for name, data in bytes_of(driver):
        for word in words:
            if word.encode() in data and word not in found.setdefault(name, []):
                found[name].append(word)
    return {name: hits for name, hits in found.items() if hits}


def bytes_of(driver: TestDriver) -> Iterator[tuple[str, bytes]]:
    """All bytes that c360 has written, by topic ("compacted" applied) and store."""
    plan = driver.plan
    for topic in plan.topics:
        if not topic.owned or topic.name not in driver.cluster.admin().topics():
            continue
        pairs = list(driver.read(topic.name))
        if CONFIGS[topic.role].get("cleanup.policy") == "compact":
            latest: dict[Any, bytes | None] = {}
            for key, value in pairs:
                latest[key] = value
            pairs = [(key, value) for key, value in latest.items() if value is not None]
        for key, value in pairs:
            yield topic.name, (key or b"") + b"\0" + (value or b"")
    for name, entries in stores_of(driver):
        for key, value in entries:
            yield f"store {name}", key + b"\0" + value


def stores_of(driver: TestDriver) -> Iterator[tuple[str, list[tuple[bytes, bytes]]]]:
    for name, store in driver.stores.stores.items():
        yield name, list(store.scan(b"", b"\xff" * 8))


__all__ = ["NOW", "TP", "bytes_of", "click", "left", "person", "shop"]

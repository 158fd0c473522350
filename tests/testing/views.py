"""An app with purposes and personal fields, whose governed records and assignments a test writes itself."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from c360 import (
    App,
    Personal,
    Projection,
    Record,
    Sensitive,
    collect,
    count,
    derived,
    distinct,
    first,
    flag,
    newest,
    prefer,
    top,
    total,
)
from c360.assembly import Stepping
from c360.declare import Source
from c360.plan import Plan
from c360.testing import TestDriver
from tests.testing.moves import on
from tests.testing.world import NOW, NOW_MS

DAY_MS = 86_400_000


def shop(*, asking: bool = True) -> App:
    """Clicks may be used for ads, orders for all, logs for nothing but what rests on no purpose."""
    app = App("views", partitions=3)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.identifier("email", personal=True)
    class Email(str): ...

    ads = app.purpose("ads", basis="consent" if asking else "contract")
    care = app.purpose("care", basis="contract")
    stats = app.purpose("stats", basis="legitimate_interests")

    class Home(Record):
        city: str
        street: Personal[str]

    @app.source("clicks", subject="customer", purposes=[ads, stats])
    class Click(Record):
        customer: CrmId
        email: Email | None
        page: str
        name: Personal[str] | None = None

        @property
        def deep(self) -> bool:
            return len(self.page) > 2

    @app.cdc("orders", key="id", subject="customer", purposes=[ads, care, stats])
    class Order(Record):
        id: int
        customer: CrmId
        amount: Decimal
        note: Sensitive[str | None] = None
        home: Home | None = None
        day: date | None = None
        born: Personal[date | None] = None

    @app.source("logs", subject="customer")
    class Log(Record):
        customer: CrmId
        page: str
        name: Personal[str] | None = None

    @app.projection("customer", purposes=[stats, ads, care])
    class Profile(Projection):
        clicks: int = count(Click)
        logs: int = count(Log)
        logged: bool = flag(Log.name)
        pages: list[str] = collect(Click.page, Log.page)
        name: str | None = prefer(Click.name, Log.name)
        names: list[str] = collect(Click.name, Log.name, limit=3)
        kinds: int = distinct(Click.name, Log.name, limit=2)
        often: list[str] = top(Click.name, n=2, within=timedelta(days=3))
        earliest: str | None = first(Log.name, Click.name)
        email: Email | None = newest(Click.email)
        note: str | None = newest(Order.note)
        home: Home | None = newest(Order.home)
        day: date | None = newest(Order.day, Order.born)
        spend: Decimal = total(Order.amount)
        spend_3d: Decimal = total(Order.amount, within=timedelta(days=3))
        deep: int = count(Click, where=lambda click: click.deep)
        named: list[str] = collect(Click.name, where=Click.page == "/a")

        @derived
        def greeting(self) -> str:
            return f"Dear {self.name}"

        @derived
        def share(self) -> Decimal:
            return self.spend / self.clicks

        @derived
        def perhaps(self) -> str | None:
            return self.name if self.clicks > 2 else "few"

    return app


def bare() -> App:
    """One attribute over two sources, of which one may be used."""
    app = App("bare", partitions=3)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    @app.identifier("other")
    class Other(str): ...

    ads = app.purpose("ads", basis="contract")

    @app.source("seen", subject="customer", purposes=[ads])
    class Seen(Record):
        customer: CrmId
        size: Any = None
        other: Other | None = None

    @app.source("unseen", subject="customer")
    class Unseen(Record):
        customer: CrmId
        size: Any = None

    @app.projection("customer", purposes=[ads])
    class Profile(Projection):
        size: Any = newest(Seen.size, Unseen.size)

    return app


def sealed(subject: str, field: str, value: str, key: int = 0) -> dict[str, str]:
    """What stands for a value; nobody opens it here."""
    return {"~sealed": f"k{key}:{field}:{b64encode(value.encode()).decode()}", "subject": subject}


class Bench(TestDriver):
    """A driver with the projection alone."""

    def __init__(self, app: App) -> None:
        super().__init__(app, now=NOW)
        self.offsets = 0

    def _process(self) -> Stepping:
        process, (projection,) = super()._process(), self.plan.projections
        return replace(process, loops=[loop for loop in process.loops if loop.agent.name == projection.agent])

    def govern(self, type: str, subject: str, *, at: int = NOW_MS, sign: int = 1, life: int = 0, **record: Any) -> None:
        """A governed record."""
        self.offsets += 1
        source, record = source_of(self.plan, type), {"customer": subject.removeprefix("crm:")} | record
        said = {
            "type": type,
            "at": at,
            "cause": NOW_MS,
            "origin": [0, self.offsets],
            "sign": sign,
            "life": life,
            "record": record,
        }
        self.producer.produce(self.plan.governed(source), subject.encode(), json.dumps(said).encode())
        self.producer.flush()

    def assign(self, subject: str, seq: int, profile: str | None, *identifiers: str) -> None:
        who = {"profile": profile, "identifiers": list(identifiers), "deferred": []}
        said = {"seq": seq, "change": "moved", "cause": "", **who}
        (identity,) = self.plan.identities
        value = None if profile is None else json.dumps(said).encode()
        self.producer.produce(self.plan.assignments(identity), subject.encode(), value)
        self.producer.flush()

    def profiles(self) -> dict[str, bytes]:
        """The latest record of each profile, as bytes."""
        self.settle()
        found: dict[str, bytes] = {}
        for key, value in self.read(self.plan.projected(self.plan.projections[0])):
            assert key is not None
            found.pop(key.decode(), None)
            if value is not None:
                found[key.decode()] = value
        return found

    def shown(self, profile: str) -> Any:
        return json.loads(self.profiles()[profile])


def source_of(plan: Plan, type: str) -> Source:
    return next(s for s in plan.sources if any(t.name == type for t in s.types))


PEOPLE = (on(0), on(1), on(2), on(1, 1))


def some_records(t: Bench, random: Random, n: int) -> None:
    """Of everybody and of every source; some rows are taken back, some of them before they come."""
    for _ in range(n):
        subject = random.choice(PEOPLE)
        at = NOW_MS - random.randrange(6) * DAY_MS + random.randrange(3)
        name = random.choice((None, "Ann", "Bob", "Zoë"))
        page = random.choice(("/", "/a", "/about"))
        key = random.randrange(2)
        match random.choice(("Click", "Log", "Order")):
            case "Order":
                note, born = random.choice((None, "gift")), random.choice((None, "1990-01-01"))
                row: dict[str, Any] = {
                    "id": random.randrange(5),
                    "amount": f"{random.randrange(9)}.50",
                    "note": note and sealed(subject, "Order.note", note, key),
                    "home": random.choice((None, {"city": "Ghent", "street": sealed(subject, "Order.home.street", "x", key)})),
                    "day": random.choice((None, "2026-01-02")),
                    "born": born and sealed(subject, "Order.born", born, key),
                }  # fmt: skip
                for sign in random.choice(((1,), (1, -1), (-1, 1))):
                    t.govern("Order", subject, at=at, sign=sign, **row)
            case "Click":
                email = random.choice((None, sealed(subject, "Click.email", "a@b.org", key)))
                written = name and sealed(subject, "Click.name", name, key)
                t.govern("Click", subject, at=at, page=page, email=email, name=written)
            case _:
                t.govern("Log", subject, at=at, page=page, name=name and sealed(subject, "Log.name", name, key))

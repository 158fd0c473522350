"""An app that asks outside: about e-mail addresses, which are personal, and about numbers, which are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from c360 import App, Personal, Projection, Record, count, newest, normalize
from c360.testing import TestDriver

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
MONTH = timedelta(days=30)


class Far:
    """Who is asked: what it says by address, and what it was asked. `trouble`: called before it answers."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.asked: list[str] = []
        self.trouble: Callable[[str], None] = lambda value: None

    def answer(self, value: str) -> Any:
        self.asked.append(value)
        self.trouble(value)
        return self.said.get(value)


far, scores = Far(), Far()
app = App("outer", partitions=2)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email, personal=True)
class Email(str): ...


@app.identifier("cookie", limit=50)
class Cookie(str): ...


service = app.purpose("service", basis="contract")
marketing = app.purpose("marketing")


@app.source("clicks", event_id="id", subject="cookie", purposes=[service, marketing])
class Click(Record):
    id: str
    cookie: Cookie
    login: Email | None


@app.cdc("people", key="id", purposes=[service])
class Customer(Record):
    id: CrmId
    email: Email | None
    name: Personal[str]


@app.consent("choices")
class Choice(Record):
    cookie: Cookie | None
    email: Email | None
    purpose: str
    granted: bool
    at: datetime


class Firm(Record):
    name: str
    size: int
    owner: Personal[str | None]


class Score(Record):
    points: int


@app.enrich(refresh=MONTH, purpose=service, retries=2)
async def firm_of(email: Email) -> Firm | None:
    firm: Firm | None = far.answer(email)
    return firm


@app.enrich(refresh=MONTH, purpose=marketing)
async def score_of(cookie: Cookie) -> Score | None:
    score: Score | None = scores.answer(cookie)
    return score


@app.enrich(Firm)
def boss(firm: Firm) -> Personal[str]:
    return f"{firm.owner} of {firm.name}"


@app.projection("customer", purposes=[service, marketing])
class Profile(Projection):
    clicks: int = count(Click)
    name: str | None = newest(Customer.name)
    firm: str | None = newest(Firm.name)
    firm_size: int | None = newest(Firm.size)
    owner: str | None = newest(Firm.owner)
    boss: str | None = newest(boss)
    answers: int = count(Firm)
    points: int | None = newest(Score.points)


def versioned(*, governs: tuple[int, ...] = (1,), versions: tuple[int, ...] = (1,)) -> App:
    """A smaller one, of which govern and the projection have versions; the last of each goes with the last of the other."""
    made = App("outer", partitions=2, govern=governs)
    made.identifier("crm", priority=1, unique=True)(CrmId)
    made.identifier("email", normalize=normalize.email, personal=True)(Email)
    made.cdc("people", key="id")(Customer)
    made.enrich(refresh=MONTH)(firm_of)

    for version in versions:

        class Found(Projection):
            firm: str | None = newest(Firm.name)
            name: str | None = newest(Customer.name)

        made.projection("customer", version=version, govern=governs[-1] if version == versions[-1] else governs[0])(
            Found
        )
    return made


def click(t: TestDriver, n: int, cookie: str = "c1", login: str | None = "ann@mail.org") -> None:
    t.send("clicks", cookie, {"id": f"k{n}", "cookie": cookie, "login": login})


def customer(t: TestDriver, crm: str, email: str | None, lsn: int, name: str = "Ann Miller") -> None:
    row = {"id": crm, "email": email, "name": name}
    source = {"connector": "postgresql", "db": "d", "schema": "s", "table": "people", "ts_ms": 1, "snapshot": "false",
              "lsn": lsn, "txId": lsn}  # fmt: skip
    t.send("people", f'{{"id": "{crm}"}}', {"before": None, "after": row, "op": "c", "ts_ms": 1, "source": source})


def choose(t: TestDriver, *, granted: bool, **who: str) -> None:
    at = datetime.fromtimestamp(t.now_ms / 1000, UTC).isoformat()
    t.send(
        "choices", None, {"cookie": None, "email": None, **who, "purpose": "marketing", "granted": granted, "at": at}
    )

"""An app that reads every format there is, asks outside, and lets out Avro and JSON; and what its producers write.

STORY names it; raw topics are `{name}.web` and so on. MOOD: a file that says how the far side of what is asked outside is.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, TypedDict

from fastavro import parse_schema

from c360 import (
    App,
    Personal,
    Projection,
    Record,
    cloudevents,
    collect,
    count,
    field,
    newest,
    normalize,
    prefer,
    segment,
    total,
)
from c360.engine.transport import Headers
from tests.sources.registry import written

NAMES = {"Advertising": "marketing", "Functional": None}


class CrmId(str): ...


class Email(str): ...


class Cookie(str): ...


class Firm(Record):
    boss: Personal[str]
    size: int


class Row(TypedDict):
    """What the far side holds."""

    name: str | None
    orders: int
    streets: list[str]
    boss: str | None


def town(name: str, mood: Callable[[], str] = lambda: "well") -> App:
    app = App(name, partitions=3)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    app.identifier("email", normalize=normalize.email, personal=True)(Email)
    app.identifier("cookie", priority=5)(Cookie)
    service = app.purpose("service", basis="contract")
    marketing = app.purpose("marketing")
    both = [service, marketing]
    whom = ["user_id", "anonymous_id"]
    web: dict[str, Any] = {"format": "segment", "unmatched": "ignore", "purposes": both, "name": "web"}

    @app.source(f"{name}.web", event="Searched", subject=whom, rate="50000/s", quarantine=0.9, **web)
    class Searched(segment.Track):
        user_id: CrmId | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id
        words: Personal[str | None] = field("properties.words")
        page: str | None = field("context.page.path")

    @app.source(f"{name}.web", subject=whom, rate="50000/s", quarantine=0.9, **web)
    class Known(segment.Identify):
        user_id: CrmId | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id
        email: Email | None = field("traits.email")
        name: Personal[str | None] = field("traits.name")

    @app.source(f"{name}.web", subject="user_id", rate="50000/s", quarantine=0.9, **web)
    class Belongs(segment.Group):
        user_id: CrmId | None = segment.user_id
        role: Personal[str | None] = field("traits.role")

    @app.source(f"{name}.web", subject="user_id", rate="50000/s", quarantine=0.9, **web)
    class Was(segment.Alias):
        user_id: CrmId | None = segment.user_id
        previous_id: Cookie | None = segment.previous_id

    @app.consent(f"{name}.web", when={"type": "identify"}, unmatched="ignore", categories=NAMES)
    class Agreed(Record):
        user: CrmId | None = field("userId")
        cookie: Cookie | None = field("anonymousId")
        email: Email | None = field("traits.email")
        preferences: dict[str, Any] | None = segment.preferences
        at: datetime | None = field("originalTimestamp")

    @app.source(f"{name}.orders", format="avro", event_id="id", subject="customer", purposes=both, name="orders")
    class Order(Record):
        id: str
        customer: CrmId
        amount: int
        street: Personal[str] = field("to.street")
        wrapped: Personal[str | None] = field("wrapped", default=None)

    @app.source(
        f"{name}.letters", format="cloudevents", subject="customer", purposes=both, name="letters",
        when={"type": "se.letter.sent"},
    )  # fmt: skip
    class Letter(Record):
        customer: CrmId
        to: Email | None = cloudevents.attribute("subject", default=None)
        text: Personal[str]
        trace: str | None = cloudevents.attribute("traceparent", default=None)

    @app.cdc(f"{name}.people", key="id", purposes=both, name="people")
    class Person(Record):
        id: CrmId
        name: Personal[str]
        email: Email | None
        notes: Personal[str | None]

    @app.cdc(f"{name}.cards", key="pk", subject="owner", purposes=both, name="cards")
    class Card(Record):
        pk: str
        owner: CrmId
        holder: Personal[str]

    @app.erasure(f"{name}.forget")
    class Please(Record):
        email: Email

    @app.enrich(refresh=timedelta(days=30), purpose=service, timeout=timedelta(seconds=30), retries=1)
    async def firm_of(email: Email) -> Firm | None:
        while mood() == "hangs" and "slow" in email:
            await asyncio.sleep(0.05)
        if "bad" in email:
            raise ValueError(f"nobody knows {email}")
        return Firm(boss=f"Boss of {email}", size=len(email))

    @app.projection("customer", purposes=both, replay=timedelta(days=30))
    class Customer(Projection):
        name: str | None = prefer(Person.name, Known.name)
        email: Email | None = newest(Known.email, Person.email)
        words: list[str] = collect(Searched.words)
        searches: int = count(Searched)
        page: str | None = newest(Searched.page)
        orders: int = count(Order)
        spend: Decimal = total(Order.amount)
        streets: list[str] = collect(Order.street)
        letters: int = count(Letter)
        letter: str | None = newest(Letter.text)
        notes: str | None = newest(Person.notes)
        holder: str | None = newest(Card.holder)
        role: str | None = newest(Belongs.role)
        boss: str | None = newest(Firm.boss)
        firm: int | None = newest(Firm.size)

    @app.sink("rows", projection=Customer, purpose=service)
    def rows(profile: Customer) -> Row:
        return {"name": profile.name, "orders": profile.orders, "streets": profile.streets, "boss": profile.boss}

    @app.sink("mailer", projection=Customer, purpose=marketing)
    def mailer(profile: Any) -> dict[str, Any]:
        if profile.words and any("boom" in words for words in profile.words):
            raise ValueError(f"cannot take {profile.words} of {profile.name}")
        return {"email": profile.email, "letter": profile.letter, "words": list(profile.words)}

    return app


def _mood() -> str:
    path = Path(os.environ.get("MOOD", ""))
    return path.read_text() if path.is_file() else "well"


app = town(os.environ.get("STORY", "mixed"), _mood)

# ------------------------------------------------------------------------------------------------------- what is written
ORDER = {
    "type": "record", "name": "Order", "fields": [
        {"name": "id", "type": "string"}, {"name": "customer", "type": "string"}, {"name": "amount", "type": "long"},
        {"name": "to", "type": {"type": "record", "name": "To", "fields": [{"name": "street", "type": "string"}]}},
        {"name": "wrapped", "type": ["null", "string"], "default": None},
    ],
}  # fmt: skip
CARD = {
    "type": "record", "name": "Card", "fields": [{"name": n, "type": "string"} for n in ("pk", "owner", "holder")]
}  # fmt: skip
CHANGE = {
    "type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", CARD], "default": None},
        {"name": "after", "type": ["null", "Card"], "default": None},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
            {"name": "connector", "type": "string"}, {"name": "lsn", "type": "long"}, {"name": "ts_ms", "type": "long"},
            {"name": "snapshot", "type": "string"},
        ]}},
        {"name": "op", "type": "string"}, {"name": "ts_ms", "type": "long"},
    ],
}  # fmt: skip
PK = {"type": "record", "name": "Key", "fields": [{"name": "pk", "type": "string"}]}


class Registry(Protocol):
    def publish(self, subject: str, schema: Any) -> int: ...


Send = Callable[[str, bytes | None, bytes | None, Headers | None], Any]


class Producers:
    """They write with `send`. Positions in databases count by themselves."""

    def __init__(self, name: str, send: Send, registry: Registry) -> None:
        self.name, self.send, self.number = name, send, 0
        published = [registry.publish(f"{name}.{of}", schema) for of, schema in _SCHEMAS.items()]
        self.frames = {of: b"\0" + n.to_bytes(4, "big") for of, n in zip(_SCHEMAS, published, strict=True)}

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _json(self, topic: str, key: str | None, value: Any, headers: Headers | None = None) -> None:
        raw = None if key is None else key.encode()
        self.send(f"{self.name}.{topic}", raw, json.dumps(value).encode(), headers)

    def call(self, kind: str, user: str | None, cookie: str | None, **more: Any) -> None:
        """A call of Segment's."""
        at = datetime.now(UTC).isoformat()
        said = {"type": kind, "messageId": f"m{self._next()}", "userId": user, "anonymousId": cookie}
        self._json("web", user or cookie, {**said, "timestamp": at, "originalTimestamp": at, **more})

    def search(self, user: str | None, cookie: str | None, words: str) -> None:
        more = {
            "event": "Searched",
            "properties": {"words": words},
            "context": {"page": {"path": "/"}, "ip": "1.2.3.4"},
        }
        self.call("track", user, cookie, **more)

    def identify(self, user: str | None, cookie: str | None, name: str, email: str, *, agrees: bool = True) -> None:
        said = {"consent": {"categoryPreferences": {"Advertising": agrees}}}
        self.call("identify", user, cookie, traits={"name": name, "email": email}, context=said)

    def order(self, who: str, street: str, wrapped: str | None = None) -> None:
        said = {"id": f"o{self._next()}", "customer": who, "amount": 5, "to": {"street": street}, "wrapped": wrapped}
        self.send(f"{self.name}.orders", who.encode(), self.frames["orders"] + written(_PARSED["orders"], said), None)

    def letter(self, who: str, to: str, text: str, *, binary: bool) -> None:
        said = {
            "specversion": "1.0",
            "id": f"l{self._next()}",
            "source": "/post",
            "type": "se.letter.sent",
            "subject": to,
        }
        data = {"customer": who, "text": text}
        if binary:
            headers = [(f"ce_{name}", value.encode()) for name, value in said.items()]
            self._json("letters", who, data, [*headers, ("content-type", b"application/json")])
        else:
            kind = [("content-type", b"application/cloudevents+json")]
            self._json("letters", who, {**said, "datacontenttype": "application/json", "data": data}, kind)

    def person(self, who: str, name: str, email: str | None, notes: str | None, op: str = "u") -> None:
        row = {"id": who, "name": name, "email": email, "notes": notes}
        sides = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
        self._json("people", json.dumps({"id": who}), {**sides, "op": op, "source": self._source(), "ts_ms": 1})

    def card(self, pk: str, owner: str, holder: str, op: str = "c") -> None:
        row = {"pk": pk, "owner": owner, "holder": holder}
        sides = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
        value = written(_PARSED["cards"], {**sides, "op": op, "source": self._source(), "ts_ms": 1})
        key = self.frames["keys"] + written(_PARSED["keys"], {"pk": pk})
        self.send(f"{self.name}.cards", key, self.frames["cards"] + value, None)

    def no_cards(self) -> None:
        """The table is emptied."""
        self._json("cards", None, {"op": "t", "source": self._source(), "ts_ms": 1})

    def _source(self) -> dict[str, Any]:
        return {"connector": "postgresql", "lsn": self._next(), "ts_ms": 1, "snapshot": "false"}


_SCHEMAS: dict[str, Any] = {"orders": ORDER, "cards": CHANGE, "keys": PK}
_PARSED = {of: parse_schema(schema) for of, schema in _SCHEMAS.items()}

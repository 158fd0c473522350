"""An app with everything that is sealed, and what a customer must not find in clear anywhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from c360 import App, Personal, Projection, Record, Sensitive, count, field, newest, normalize
from c360.testing import TestDriver

app = App("sealed", partitions=2)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", normalize=normalize.email, personal=True)
class Email(str): ...


@app.identifier("cookie")
class Cookie(str): ...


class Address(Record):
    city: str
    street: Personal[str]


class Person(Record):
    mail: Email | None = None
    nick: str = ""


@app.source("clicks", event_id="id", at="ts", subject=["customer", "cookie"])
class Click(Record):
    id: str
    cookie: Cookie
    customer: CrmId | None
    login: Email | None
    with_whom: list[Person] = field(default=[])
    page: str = ""
    ts: datetime


@app.cdc("people", key="id")
class Customer(Record):
    id: CrmId
    name: Personal[str]
    email: Email | None
    born: Sensitive[str | None]
    home: Address | None
    former: list[Address] = field(default=[])
    notes: Personal[dict[str, str] | None] = None
    city: str = ""


@app.source("letters", event_id="id", subject="sender")
class Letter(Record):
    id: str
    sender: Email
    text: Personal[str]


@app.source("plain", event_id="id", subject="cookie")
class Plain(Record):
    id: str
    cookie: Cookie
    page: str


@app.enrich(Click)
def shown(click: Click) -> Personal[str]:
    return f"{click.login or 'nobody'} on {click.page}"


@app.projection("customer")
class Profile(Projection):
    city: str | None = newest(Customer.city)
    clicks: int = count(Click)
    letters: int = count(Letter)


SECRETS = ("Ann Miller", "ann@mail.org", "1980-02-29", "Main Street", "Old Lane", "call her Annie", "bob@letters.net")


def click(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"k{n}", "cookie": "c-1", "login": "Ann@Mail.org", "page": "shoes", "ts": "2026-11-02T09:00:00Z",
            "with_whom": [{"mail": "bob@letters.net", "nick": "b"}, {"mail": None}], **more}  # fmt: skip


def row(op: str, lsn: int, **after: Any) -> dict[str, Any]:
    return {"op": op, "after": after or None, "source": {"ts_ms": 1_000 + lsn, "lsn": lsn}}


def customer(**more: Any) -> dict[str, Any]:
    return {"id": "7", "name": "Ann Miller", "email": "ann@mail.org", "born": "1980-02-29", "city": "Oslo",
            "home": {"city": "Oslo", "street": "Main Street 1"}, "former": [{"city": "Rome", "street": "Old Lane 2"}],
            "notes": {"b": "call her Annie", "a": "x"}, **more}  # fmt: skip


def letter(n: int, **more: Any) -> dict[str, Any]:
    return {"id": str(n), "sender": "ann@mail.org", "text": "Ann Miller writes", **more}


def said(t: TestDriver) -> None:
    """Something of every source, also what does not fit."""
    t.send("people", '{"id": "7"}', row("c", 10, **customer()))
    for n in range(3):
        t.send("clicks", "ann@mail.org", click(n, customer="7" if n else None))
    t.send("letters", "k", letter(1))
    t.send("plain", "k", {"id": "1", "cookie": "c-1", "page": "p"})


def written(t: TestDriver) -> Iterator[tuple[str, bytes]]:
    """The bytes of all topics of ours, committed or not, and of all stores."""
    raw = {source.topic for source in t.plan.sources}
    for (name, number), log in parts_of(t):
        if name not in raw:
            for record in log:
                yield f"{name}/{number}", record
    for name, data in stored(t):
        yield name, data


def parts_of(t: TestDriver) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    for name, topic in t.cluster.topics.items():
        for number, log in enumerate(topic.partitions):
            found = [b"\n".join(x or b"" for x in pair) for pair in zip(log.keys, log.values, strict=True)]
            found += [n.encode() + b"\n" + (d or b"") for heads in log.headers for n, d in heads or ()]
            yield (name, number), found


def stored(t: TestDriver) -> Iterator[tuple[str, bytes]]:
    for name, store in t.stores.stores.items():
        yield from ((f"store {name}", key + b"\n" + value) for key, value in store.data.items())


def in_clear(t: TestDriver) -> set[tuple[str, str]]:
    """Where a secret stands in clear, also as base64, which is how dead letters have their bytes."""
    t.settle()
    forms = {form: secret for secret in SECRETS for form in forms_of(secret)}
    return {(where, secret) for where, data in written(t) for form, secret in forms.items() if form in data}


def forms_of(secret: str) -> list[bytes]:
    data = secret.encode()
    return [data, data.lower(), *(b64encode(b" " * shift + data)[4:-4] for shift in range(3))]

"""Tenants who share everything but their customers: topics, ids, addresses, cookies, event ids, primary keys.

What each of them has must be what it would have alone, whatever the others send, ask or forget: the same records go through
one app together, and tenant by tenant through another, and what comes out is compared. Every text says whose it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import orjson

from c360 import App, Personal, Projection, Record, Sensitive, collect, count, distinct, field, newest, normalize
from c360.agents.wire import decode_assignment
from c360.testing import TestDriver

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TENANTS = ("a", "ab", "b", "a:b", "A", "~")  # beginnings of each other, and marks that names use


class Sent(NamedTuple):
    """A raw record, or None: the worker crashes, or loses its disk, or another takes over."""

    topic: str
    key: str
    value: Any
    partition: int
    tenant: str


def town(seed: int) -> App:
    """An app of this seed: who is asked, who is personal, how many partitions there are."""
    random = Random(seed)
    app = App("town", partitions=random.choice([1, 2, 3]))
    ids_are_personal, one_subject = random.random() < 0.3, random.random() < 0.3

    @app.identifier("crm", priority=1, unique=True, personal=ids_are_personal)
    class CrmId(str): ...

    @app.identifier("email", normalize=normalize.email)
    class Email(str): ...

    @app.identifier("cookie", limit=random.choice([1, 3]))
    class Cookie(str): ...

    service = app.purpose("service", basis="contract")
    marketing = app.purpose("marketing")
    allowed = [service, marketing]

    @app.source("clicks", event_id="id", subject="cookie" if one_subject else ["customer", "cookie"], tenant="org",
                purposes=allowed)  # fmt: skip
    class Click(Record):
        id: str
        org: str
        cookie: Cookie
        customer: CrmId | None = None
        login: Email | None = None
        page: str = ""
        note: Personal[str | None] = None

    @app.source("letters", event_id="id", subject="sender", tenant="org", purposes=allowed[: random.choice([1, 2])])
    class Letter(Record):
        id: str
        org: str
        sender: Email
        others: list[Email] = field(default=[])
        text: Sensitive[str] = ""

    if not ids_are_personal:

        @app.cdc("people", key=["org", "id"], subject="id", tenant="org", purposes=allowed)
        class Person(Record):
            org: str
            id: CrmId
            name: Personal[str]
            email: Email | None = None

    @app.enrich(Click)
    def seen(click: Click) -> Personal[str]:
        return f"{click.org} saw {click.page}"

    @app.consent("choices", tenant="org")
    class Choice(Record):
        org: str
        customer: CrmId | None = None
        email: Email | None = None
        purpose: str
        granted: bool
        at: datetime

    @app.erasure("forget", tenant="org")
    class Please(Record):
        org: str
        customer: CrmId | None = None
        email: Email | None = None

    @app.projection("customer", purposes=allowed)
    class Customer(Projection):
        clicks: int = count(Click)
        letters: int = count(Letter)
        page: str | None = newest(Click.page)
        notes: list[str] = collect(Click.note, limit=50)
        saw: list[str] = collect(seen, limit=50)
        mails: int = distinct(Click.login)
        if not ids_are_personal:
            name: str | None = newest(Person.name)

    @app.sink("mailer", projection=Customer, purpose=marketing)
    def mailer(profile: Any) -> dict[str, Any]:
        return {"clicks": profile.clicks, "page": profile.page, "notes": profile.notes}

    return app


# -------------------------------------------------------------------------------------------------------------- records
def records(seed: int, n: int) -> list[Sent]:
    """What the tenants send, in order. Each has the same few customers, addresses, cookies, numbers of events."""
    random = Random(seed)
    return [_record(random, i) for i in range(n)]


def _record(random: Random, i: int) -> Sent:
    org = random.choice(TENANTS)
    crm = random.choice(["1", "11", "2", "b/1", "1/1"])
    mail = random.choice(["ann@mail.org", "Ann@Mail.org", "bob@mail.org", "b/ann@mail.org", "no address"])
    cookie = random.choice(["c", "cc", "b/c", " c "])
    said = f"<{org}> {random.randrange(9)}"
    key, partition = random.choice(["k", "1", "ann@mail.org"]), random.randrange(2)
    maybe = random.random
    value: dict[str, Any]
    match random.choices(["clicks", "letters", "people", "choices", "forget"], [8, 3, 4, 3, 0.3])[0]:
        case "clicks":
            value = {"id": f"e{random.randrange(60)}", "org": org, "cookie": cookie, "page": said, "note": f"note {said}",
                     "customer": crm if maybe() < 0.4 else None, "login": mail if maybe() < 0.5 else None}  # fmt: skip
            return Sent("clicks", key, value, partition, org)
        case "letters":
            value = {"id": f"e{random.randrange(60)}", "org": org, "sender": mail, "others": [mail] * random.randrange(2),
                     "text": said}  # fmt: skip
            return Sent("letters", key, value, partition, org)
        case "people":
            row = {"org": org, "id": crm, "name": f"name {said}", "email": mail if maybe() < 0.5 else None}
            source = {"connector": "postgresql", "lsn": i + 1, "ts_ms": i + 1, "snapshot": "false"}
            gone = maybe() < 0.15
            change = {"op": "d" if gone else "u", "before": None, "after": None if gone else row, "source": source}
            return Sent("people", orjson.dumps({"org": org, "id": crm}).decode(), change, 0, org)
        case "choices":
            at = NOW - timedelta(minutes=random.randrange(100))
            who = {"customer": crm} if maybe() < 0.6 else {"email": mail}
            value = {"org": org, "purpose": "marketing", "granted": maybe() < 0.7, "at": at.isoformat(), **who}
            return Sent("choices", key, value, partition, org)
    return Sent(
        "forget", key, {"org": org, **({"customer": crm} if maybe() < 0.7 else {"email": mail})}, partition, org
    )


# ------------------------------------------------------------------------------------------------------------ what is left
Found = dict[str, dict[Any, Any]]
"""What is to be the same, by what it is: views, sinks, assignments, links, decisions, the suppressed."""


def run(app: App, sent: Iterable[Sent], accidents: Random | None = None) -> Found:
    """One app, and all of this. `accidents`: with crashes in between."""
    with TestDriver(app, now=NOW) as t:
        topics = t.cluster.admin().topics()
        for i, one in enumerate(sent):
            asks = one.topic == "forget"  # who is of a profile by then is forgotten with it: all that was before, is in
            if asks or i % 40 == 39:
                t.settle()
            if one.topic in topics:
                t.send(one.topic, one.key, one.value, partition=one.partition)
            if asks:
                t.settle()
            if accidents is not None and accidents.random() < 0.01:
                accidents.choice([t.crash, t.lose_disk, t.rebalance])()
        return dict(_found(t))


def _found(t: TestDriver) -> Iterator[tuple[str, dict[Any, Any]]]:
    plan = t.plan
    for purpose in ("service", "marketing"):
        yield purpose, t.view(purpose)
    yield "mailer", t.sink("mailer")
    (identity,) = plan.identities
    assigned = {key: decode_assignment(value) for key, value in _kept(t, plan.assignments(identity)).items()}
    yield "assignments", {key: (a.profile, sorted(a.identifiers), sorted(a.deferred)) for key, a in assigned.items()}
    yield "links", dict.fromkeys(_kept(t, plan.links))
    yield "consent", _kept(t, plan.consent)
    yield "suppressed", dict.fromkeys(_kept(t, plan.suppressed))
    yield "misfits", dict(Counter(letter["reason"] for letter in t.topic(plan.dlq)))


def _kept(t: TestDriver, topic: str) -> dict[bytes | None, bytes]:
    return {key: value for key, value in dict(t.read(topic)).items() if value is not None}


def differences(seed: int, n: int, *, accidents: bool = False) -> list[str]:
    """What of the tenants' would be other if the others were not there, or says that it is somebody else's."""
    sent = records(seed, n)
    together = run(town(seed), sent, Random(seed) if accidents else None)
    alone = {org: run(town(seed), [one for one in sent if one.tenant == org]) for org in TENANTS}
    return [*_unlike(together, list(alone.values())), *foreign(together)]


def _unlike(together: Found, alone: Sequence[Found]) -> Iterator[str]:
    for what, found in together.items():
        if what == "misfits":
            expected: dict[Any, Any] = dict(sum((Counter(each[what]) for each in alone), Counter()))
        else:
            expected = {key: value for each in alone for key, value in each[what].items()}
            if len(expected) != sum(len(each[what]) for each in alone):
                yield f"{what}: two tenants have the same keys"
        for key in found.keys() | expected.keys():
            if found.get(key) != expected.get(key):
                yield f"{what} {key!r}: {found.get(key)!r}, and alone {expected.get(key)!r}"


def foreign(found: Found) -> Iterator[str]:
    """Profiles in which two tenants are named."""
    for what in ("service", "marketing", "mailer"):
        for key, value in found[what].items():
            text = orjson.dumps(value).decode()
            named = {org for org in TENANTS if f"<{org}>" in text}
            if len(named) > 1:
                yield f"{what} {key!r} has what is of {sorted(named)}"

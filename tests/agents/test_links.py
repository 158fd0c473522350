"""Which link facts govern writes: what is news, what rows take back, what identifies nobody. Through the whole agent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from datetime import datetime

import pytest

from c360 import App, Projection, Record, count, normalize
from c360.agents import links
from c360.identity.facts import Claim, Claims, decode_fact, join
from c360.testing import TestDriver

app = App("links", partitions=3)


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.identifier("email", personal=False, normalize=normalize.email)
class Email(str): ...


@app.identifier("cookie")
class Cookie(str): ...


@app.identifier("birth", links=False, limit=1)
class Birth(str): ...


@app.identifier("name_key")
class NameKey(str): ...


@app.source("clicks", event_id="id", at="ts", subject=["customer", "cookie"])
class Click(Record):
    id: str
    cookie: Cookie | None
    customer: CrmId | None
    emails: list[Email] | None
    ts: datetime


@app.cdc("people", key="id", subject="crm")
class Person(Record):
    id: int
    crm: CrmId
    email: Email | None
    born: Birth | None
    referred_by: str | None


@app.enrich(Person)
def name_key(person: Person) -> NameKey | None:
    composed = normalize.composite([person.referred_by, person.born])
    return None if composed is None else NameKey(composed)


@app.projection("customer")
class Customer(Projection):
    clicks: int = count(Click)


@pytest.fixture
def driver() -> Iterator[TestDriver]:
    with TestDriver(app, partitions=1) as started:
        yield started


def click(n: int, second: int = 0, **said: object) -> dict[str, object]:
    return {"id": str(n), "ts": f"2026-11-02T09:00:{second:02d}Z"} | said


def row(op: str, lsn: int, **after: object) -> dict[str, object]:
    return {"op": op, "after": after or None, "source": {"ts_ms": 1_000 + lsn, "lsn": lsn}}


def facts(driver: TestDriver) -> Claims:
    """What the links topic says, by (subject, label, source)."""
    driver.settle()
    found: Claims = {}
    for key, value in driver.read("links.links"):
        assert key is not None
        assert value is not None
        fact = decode_fact(key, value)
        join(found, fact.__class__(fact.subject, fact.kind, fact.other, f"{fact.subject} {fact.source}", fact.claim))
    return found


def live(driver: TestDriver) -> set[tuple[str, str]]:
    """(subject, label) of live links, other than subjects' own."""
    return {
        (source.split(" ")[0], other)
        for (_, other, source), claim in facts(driver).items()
        if not claim.dead and not source.endswith(" =")
    }


def written(driver: TestDriver) -> int:
    driver.settle()
    return sum(1 for _ in driver.read("links.links"))


def test_a_field_beside_the_subject_links_it_once(driver: TestDriver) -> None:
    for n in range(3):
        driver.send("clicks", "k", click(n, second=n, cookie="c-1", emails=["A@b.org ", "a@B.org", "x@y.org"]))
    assert live(driver) == {("cookie:c-1", "email:a@b.org"), ("cookie:c-1", "email:x@y.org")}
    assert written(driver) == 2
    driver.crash()
    driver.send("clicks", "k", click(9, second=9, cookie="c-1", emails=["a@b.org"]))
    assert written(driver) == 2, "known from the table"


def test_what_is_forgotten_for_want_of_room_is_not_said_again(
    driver: TestDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "HEARD_KEPT", 2)
    for n in range(20):
        driver.send("clicks", "k", click(n, second=n, cookie=f"c-{n % 5}", emails=[f"{n % 5}@b.org"]))
        driver.settle()
    assert written(driver) == 5


def test_a_record_that_says_more_than_before_says_only_that(driver: TestDriver) -> None:
    driver.send("clicks", "k", click(1, second=5, cookie="c-1", emails=["a@b.org"]))
    driver.send("clicks", "k", click(2, second=6, cookie="c-1", emails=["a@b.org", "x@y.org"]))
    assert written(driver) == 2
    driver.send("clicks", "k", click(3, second=5, cookie="c-1", emails=["a@b.org", "x@y.org"]))  # earlier for one
    assert written(driver) == 3
    driver.send("clicks", "k", click(4, second=5, cookie="c-1", emails=["a@b.org", "x@y.org"]))
    assert written(driver) == 3


def test_a_subject_that_is_an_identifier_too_is_joined_by_its_twin(driver: TestDriver) -> None:
    driver.send("clicks", "k", click(1, cookie="c-1", customer="7"))
    found = facts(driver)
    assert found["link", "=cookie:c-1", "crm:7 clicks"] == Claim(-1793610000000, first_seen=1793610000000)
    assert found["link", "=cookie:c-1", "cookie:c-1 ="] == Claim(0)
    assert len(found) == 2


def test_the_earliest_event_counts_in_any_order() -> None:
    ends = []
    for order in itertools.permutations([3, 1, 2]):
        with TestDriver(app, partitions=1) as driver:
            for second in order:
                driver.send("clicks", "k", click(second, second=second, cookie="c-1", emails=["a@b.org"]))
                driver.settle()
            ends.append(facts(driver))
    assert all(end == ends[0] for end in ends)
    assert list(ends[0].values()) == [Claim(-1793610001000, first_seen=1793610001000)]


def test_a_repeat_that_is_dropped_says_nothing(driver: TestDriver) -> None:
    driver.send("clicks", "k", click(1, cookie="c-1"))
    driver.send("clicks", "k", click(1, cookie="c-1", emails=["a@b.org"]))
    assert live(driver) == set()


def test_a_row_says_the_newest_of_what_it_says(driver: TestDriver) -> None:
    driver.send("people", '{"id": 1}', row("c", 10, id=1, crm="7", email="old@b.org", born="1980-01-01"))
    driver.send("people", '{"id": 1}', row("u", 20, id=1, crm="7", email="new@b.org", born="1980-01-01"))
    assert live(driver) == {("crm:7", "email:new@b.org"), ("crm:7", "birth:1980-01-01")}
    found = facts(driver)
    assert found["link", "email:old@b.org", "crm:7 people#1"] == Claim(2, dead=True)
    assert found["link", "birth:1980-01-01", "crm:7 people#1"] == Claim(1, first_seen=1010)
    driver.send("people", '{"id": 1}', row("u", 15, id=1, crm="7", email="stale@b.org"))
    driver.send("people", '{"id": 1}', row("u", 30, id=1, crm="8", email="new@b.org"))
    assert live(driver) == {("crm:8", "email:new@b.org")}
    driver.send("people", '{"id": 2}', row("c", 40, id=2, crm="8", email="new@b.org"))
    driver.send("people", '{"id": 1}', row("d", 50))
    assert live(driver) == {("crm:8", "email:new@b.org")}, "the other row says so, too"
    driver.send("people", '{"id": 2}', row("d", 60))
    assert live(driver) == set()


def test_an_emptied_table_takes_its_links_along(driver: TestDriver) -> None:
    driver.send("people", '{"id": 1}', row("c", 10, id=1, crm="7", email="a@b.org"))
    driver.send("people", None, row("t", 20))
    assert live(driver) == set()
    driver.send("people", '{"id": 1}', row("c", 30, id=1, crm="7", email="a@b.org"))
    assert live(driver) == {("crm:7", "email:a@b.org")}


def test_an_enrichment_may_return_an_identifier(driver: TestDriver) -> None:
    driver.send("people", '{"id": 1}', row("c", 10, id=1, crm="7", born="1980-01-01", referred_by="Ann"))
    assert ("crm:7", "name_key:ann|1980-01-01") in live(driver)


def test_what_identifies_nobody_is_counted_and_the_record_kept(driver: TestDriver) -> None:
    driver.send("clicks", "k", click(1, cookie="c-1", emails=["no address", "null", "test@example.com"]))
    assert live(driver) == set()
    profile = driver.profile("cookie:c-1")
    assert profile is not None
    assert profile.clicks == 1
    counters = driver.loops[0].agent.counters["clicks"]  # type: ignore[attr-defined]  # govern's
    assert counters.blocked == {"email": 3}
    driver.send("clicks", "k", click(2, cookie="c-1", emails=["no address"]))
    driver.settle()
    assert counters.blocked == {"email": 4}, "each time"


def test_an_app_without_link_fields_has_no_identity() -> None:
    plain = App("plain")
    user = plain.identifier("user")(type("UserId", (str,), {}))

    @plain.source("views", subject="user")
    class View(Record):
        user: user  # type: ignore[valid-type]
        page: str

    assert plain.plan().identities == ()
    assert not [t for t in plain.plan().topics if t.role in ("links", "loop", "assignments", "changes")]
    assert json.dumps([a.name for a in plain.plan().agents]) == '["govern"]'

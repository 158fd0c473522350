"""The oracle of links, identities and merged profiles against hand-computed answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from c360.identity.facts import Claim, encode_fact, link
from c360.testing.oracle.governed import Arrival, Delivery, Events, Rows, Truncated
from c360.testing.oracle.links import (
    Linking,
    Slot,
    newest,
    own_facts,
    read_fact,
    row_source,
    says_nothing,
)
from c360.testing.oracle.profiles import Member, Profiles
from tests.testing.people import Account, Born, Cookie, CrmId, Email, Visit, app
from tests.testing.shop import change

PLAN = app.plan()
VISITS, ACCOUNTS, ORDERS = PLAN.sources
NINE = 1_793_610_000_000


def row(op: str, lsn: int, **after: Any) -> dict[str, Any]:
    return change(op, lsn, after or None)


def arrivals(*values: dict[str, Any]) -> list[Arrival]:
    return [
        Arrival(n, (Delivery(b'{"id": 1}', json.dumps(value).encode(), NINE + n),)) for n, value in enumerate(values)
    ]


# ------------------------------------------------------------------------------------------------------------- facts
@pytest.mark.parametrize(
    ("value", "nothing"),
    [
        ("", True), (" '' ", True), ("null", True), ('"NULL"', True), ("0000", True), ("test_x", True),
        ("a@test.com", True), ("nullify", False), ("a@b.org", False), ("00a", False),
    ],
)  # fmt: skip
def test_values_that_say_nothing(value: str, nothing: bool) -> None:
    assert says_nothing(value, PLAN.identities[0].rules.blocked) == nothing


def test_labels_are_normalised_and_each_is_said_once() -> None:
    emails = [Email(said) for said in ("A@B.org", "a@b.org ", "no address", "none")]
    when = datetime(2026, 11, 2, tzinfo=UTC)
    visit = Visit(id="1", cookie=Cookie(" c-1 "), customer=CrmId("7"), emails=emails, page="a", ts=when)
    assert Linking(PLAN).labels(VISITS, visit, "crm:7", 0) == ["=cookie:c-1", "email:a@b.org"]
    assert Linking(PLAN).labels(VISITS, visit, "cookie:c-1", 0) == ["email:a@b.org"], "it is no link to itself"
    account = Account(id=1, crm=CrmId("7"), email=None, born=Born("1980-01-01"), name="Ann Lee")
    assert Linking(PLAN).labels(ACCOUNTS, account, "crm:7", 0) == ["born:1980-01-01", "name_key:ann lee|1980-01-01"]
    long = Account(id=1, crm=CrmId("7"), email=None, born=Born("x" * 508), name=None)
    assert Linking(PLAN).labels(ACCOUNTS, long, "crm:7", 0) == []


def test_a_fact_is_read_as_its_page_says() -> None:
    key = b"a%7Cb|link|email:%25|crm#1"
    value = bytes.fromhex("920194cf000001a19b7ca680c30501")
    assert read_fact(key, value) == (Slot("a|b", "link", "email:%", "crm#1"), Claim(1793610000000, True, 5, 1))
    assert encode_fact(link("a|b", "email:%", "crm#1", Claim(1793610000000, True, 5, 1))) == (key, value)
    for other in (b"", b"a|link|b", b"a|like|b|c", b"a|link|b%7c|c", b"a|link|b|c|d"):
        with pytest.raises(ValueError, match=r"."):
            read_fact(other, value)
    with pytest.raises(ValueError, match=r"."):
        read_fact(key, bytes.fromhex("920294cf000001a19b7ca680c30501"))


def test_a_row_is_named_by_its_primary_key() -> None:
    assert row_source(ACCOUNTS, '["a b"]') == "accounts#a b"
    assert row_source(ACCOUNTS, "[7]") == "accounts#7"
    assert row_source(ACCOUNTS, '[7,"x"]') == 'accounts#[7,"x"]'


def test_the_earliest_event_says_a_link_and_repeats_say_nothing() -> None:
    def visit(id: str | None, second: int, email: str) -> dict[str, Any]:
        return {"id": id, "cookie": "c-1", "emails": [email], "page": "p", "ts": f"2026-11-02T09:00:{second:02d}Z"}

    expected = Events(VISITS, PLAN).expected(
        arrivals(
            visit("1", 5, "a@b.org"), visit("2", 3, "a@b.org"), visit("1", 1, "c@d.org"), visit(None, 9, "a@b.org")
        )
    )
    said = newest(fact for offset in expected.effects for fact in expected.facts[offset])
    assert said == {Slot("cookie:c-1", "link", "email:a@b.org", "visits"): Claim(-NINE - 3000, first_seen=NINE + 3000)}


def test_a_row_says_what_it_says_last() -> None:
    def slot(subject: str, label: str) -> Slot:
        return Slot(subject, "link", label, "accounts#1")

    def said(*changes: dict[str, Any]) -> dict[Slot, Claim]:
        expected = Rows(ACCOUNTS, PLAN).expected(arrivals(*changes))
        assert expected.linked is None
        return newest(fact for facts in expected.facts.values() for fact in facts)

    one = row("c", 10, id=1, crm="7", email="a@b.org", born="1980-01-01")
    two = row("u", 20, id=1, crm="7", email="c@d.org", born="1980-01-01")
    again = row("r", 25, id=1, crm="7", email="c@d.org", born="1980-01-01")
    moved = row("u", 30, id=1, crm="8", email="c@d.org")
    stale = row("u", 15, id=1, crm="7", email="x@y.org")
    born = {slot("crm:7", "born:1980-01-01"): Claim(1, first_seen=1_793_609_000_010)}
    assert said(one) == {**born, slot("crm:7", "email:a@b.org"): Claim(1, first_seen=1_793_609_000_010)}
    assert said(one, two, stale, again) == {
        **born,
        slot("crm:7", "email:a@b.org"): Claim(2, dead=True),
        slot("crm:7", "email:c@d.org"): Claim(2, first_seen=1_793_609_000_020),
    }
    after = said(one, two, again, moved)
    assert after[slot("crm:7", "email:c@d.org")] == Claim(3, dead=True)
    assert after[slot("crm:8", "email:c@d.org")] == Claim(3, first_seen=1_793_609_000_030)
    gone = said(one, row("d", 40), row("c", 50, id=1, crm="7", email="c@d.org"))
    assert gone == {
        slot("crm:7", "born:1980-01-01"): Claim(2, dead=True),
        slot("crm:7", "email:a@b.org"): Claim(2, dead=True),
        slot("crm:7", "email:c@d.org"): Claim(3, first_seen=1_793_609_000_050),
    }


def test_of_an_emptied_table_only_what_is_live_is_known() -> None:
    one, two = row("c", 10, id=1, crm="7", email="a@b.org"), row("u", 40, id=1, crm="7", email="c@d.org")
    (truncate,) = [Rows(ACCOUNTS, PLAN).truncate(a) for a in arrivals(row("t", 20))]
    assert isinstance(truncate, Truncated)
    assert Rows(ACCOUNTS, PLAN).expected(arrivals(one), [truncate]).linked == set()
    expected = Rows(ACCOUNTS, PLAN).expected(arrivals(one, two), [truncate])
    assert expected.facts == {}
    assert expected.linked == {Slot("crm:7", "link", "email:c@d.org", "accounts#1")}


def test_a_live_link_to_a_twin_brings_the_twins_own_link() -> None:
    facts = {
        Slot("crm:7", "link", "=cookie:c-1", "visits"): Claim(-1),
        Slot("crm:7", "link", "=cookie:c-2", "accounts#1"): Claim(2, dead=True),
        Slot("crm:7", "link", "email:a@b.org", "visits"): Claim(-1),
    }
    assert own_facts(facts) == {Slot("cookie:c-1", "link", "=cookie:c-1", "=")}


# ---------------------------------------------------------------------------------------------------------- profiles
def governed(type: str, at: int, *, sign: int = 1, origin: int = 0, **record: Any) -> bytes:
    said = {"type": type, "at": at, "cause": NINE, "origin": [0, origin], "sign": sign, "record": record}
    return json.dumps(said).encode()


def test_a_profile_is_made_of_all_records_of_its_subjects() -> None:
    profiles = Profiles(PLAN, PLAN.projections[0])

    def visit(subject: str, second: int, page: str) -> None:
        ts = f"2026-11-02T09:00:{second:02d}Z"
        value = governed("Visit", NINE + 1000 * second, page=page, ts=ts, cookie="c", customer=None, id=None)
        assert profiles.add(PLAN.governed(VISITS), subject.encode(), value)

    def order(subject: str, at: int, amount: str, sign: int = 1) -> None:
        placed = datetime.fromtimestamp(at / 1000, UTC).isoformat()
        value = governed("Order", at, sign=sign, id=1, buyer=subject, amount=amount, placed=placed)
        assert profiles.add(PLAN.governed(ORDERS), subject.encode(), value)

    visit("cookie:c-1", 5, "shoes")
    visit("cookie:c-2", 1, "hats")
    visit("crm:7", 3, "shoes")
    visit("cookie:alone", 9, "socks")
    order("cookie:c-2", NINE, "9.50")
    order("cookie:gone", NINE + 99_000, "100.00")
    order("cookie:gone", NINE + 99_000, "100.00", sign=-1)
    mine = [f"cookie:m{n:03d}" for n in range(120)]
    for subject in mine:
        visit(subject, 2, "hats")
    assigned = {
        "crm:7": Member("crm:7", ("email:a@b.org",)),
        "cookie:c-1": Member("crm:7", ("cookie:c-1",)),
        "cookie:c-2": Member("crm:7", ("cookie:c-2", "email:a@b.org")),
        "cookie:gone": Member("crm:7", ("cookie:gone", "email:left@b.org")),
        "cookie:never seen": Member("crm:7"),
        **{subject: Member("crm:9") for subject in mine},
    }
    records = {
        key: json.loads(value) for key, value in profiles.records(lambda key: NINE // 86_400_000, assigned).items()
    }
    assert sorted(records) == [b"cookie:alone", b"crm:7", b"crm:9"]
    whole = records[b"crm:7"]
    assert whole["subjects"] == ["cookie:c-1", "cookie:c-2", "crm:7"]
    assert whole["subjects_total"] == 3
    assert whole["identifiers"] == ["cookie:c-1", "cookie:c-2", "crm:7", "email:a@b.org"]
    assert whole["as_of"] == "2026-11-02T09:01:39Z", "also of what was taken back"
    said = whole["attributes"]
    assert (said["visits"], said["orders"], said["spend"], said["spend_7d"]) == (3, 1, "9.50", "9.50")
    assert (said["entry"], said["last_seen"]) == ("hats", "2026-11-02T09:00:05Z")
    assert said["pages"] == ["shoes", "hats"]
    assert records[b"cookie:alone"]["subjects"] == ["cookie:alone"]
    crowd = records[b"crm:9"]
    assert crowd["subjects"] == mine[:100]
    assert crowd["subjects_total"] == 120
    assert crowd["identifiers"] == mine[:100]

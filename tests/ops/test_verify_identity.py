"""`c360 verify` of an app with identity: link facts, assignments, merged profiles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from c360.identity.facts import Claim, Fact, cannot, encode_fact, link
from tests.testing.people import app
from tests.testing.shop import change
from tests.testing.world import At, World

LINKS = "people.links"


def visit(
    id: str | None, cookie: str | None, customer: str | None = None, second: int = 0, **more: Any
) -> dict[str, Any]:
    ts = f"2026-11-02T08:00:{second:02d}Z"
    return {"id": id, "cookie": cookie, "customer": customer, "emails": None, "page": "a", "ts": ts, **more}


def account(id: int, crm: str, email: str | None, born: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"id": id, "crm": crm, "email": email, "born": born, "name": name}


def order(id: int, buyer: str, amount: str) -> dict[str, Any]:
    return {"id": id, "buyer": buyer, "amount": amount, "placed": "2026-11-01T12:00:00Z"}


def traffic(world: World) -> None:
    """Logins, a shared cookie, an e-mail of two people, rows that change, move and go, blocked values, a repeat."""
    for n in range(4):
        world.send("visits", "k", visit(f"a{n}", f"c-{n}", second=20 + n))
        world.send("visits", "k", visit(f"l{n}", f"c-{n}", f"{n}", second=10 + n))  # logs in
        world.send("visits", "k", visit(f"b{n}", f"c-{n}", f"{n}", second=n))  # said later, happened before
    world.send("visits", "k", visit("tablet", "c-0", "1", second=30))  # a device of two
    world.send("visits", "k", visit("l3", "c-1", "3"))  # a repeat: it says nothing
    world.send("visits", "k", visit("mail", "c-9", emails=["Ann@Mail.org", "ann@mail.org ", "none"]))
    world.send("visits", "k", visit("mail2", "c-8", emails=["ann@mail.org"]))
    rows = [
        ("c", 10, account(1, "2", "two@mail.org", "1980-01-01", "Ann Lee")),
        ("c", 11, account(2, "3", "ann@mail.org", "1981-01-01", "Bo Lee")),
        ("u", 20, account(1, "2", "new@mail.org", "1980-01-01", "Ann Lee")),
        ("u", 21, account(2, "4", "ann@mail.org", "1981-01-01", "Bo Lee")),  # the row moves
        ("c", 22, account(3, "4", "gone@mail.org", "unknown")),
        ("d", 30, None),
    ]
    for n, (op, lsn, after) in enumerate(rows):
        key = after["id"] if after else 3
        world.send("accounts", json.dumps({"id": key}), change(op, lsn, after))
        if n % 2:
            world.settle()
    for n in range(4):
        world.send("orders", json.dumps({"id": n}), change("c", 50 + n, order(n, f"c-{n}", f"{n}.50")))


@pytest.fixture
def world() -> World:
    world = World(app)
    traffic(world)
    world.settle()
    return world


def facts(world: World) -> list[tuple[bytes, bytes]]:
    return [(k, v) for k, v in world.read(LINKS) if k is not None and v is not None]


# ------------------------------------------------------------------------------------------------------------- facts
def test_facts_of_an_undisturbed_run_are_as_expected(world: World) -> None:
    report = world.report("govern")
    assert report.examples == []
    assert report.complete
    assert len({key for key, _ in facts(world)}) > 20


def test_every_lost_or_altered_fact_that_counts_is_found(world: World) -> None:
    said = facts(world)
    newest = {key: n for n, (key, _) in enumerate(said)}  # within a key, later is newer
    for n, (key, value) in enumerate(said):
        at = At(world.cluster, LINKS, n)
        kinds = [e["kind"] for e in world.report("govern", edit=at.lost).examples]
        if n == newest[key] and said.count((key, value)) == 1:
            assert kinds[:1] in (["lost"], ["altered"]), key
        else:
            assert kinds == [], "what was overtaken or is said twice"
        dead = value[:-3] + bytes([value[-3] ^ 1]) + value[-2:]
        if n == newest[key] and value[-3] in (0xC2, 0xC3):
            assert world.report("govern", edit=at.altered(value, dead)).differences >= 1, key
        assert world.report("govern", edit=at.doubled).differences == 0, "a set knows no repetition"


def test_facts_that_nothing_says_are_found(world: World) -> None:
    operator = [cannot("crm:1", "crm:2", "operator", Claim(9)), link("crm:1", "merge:1", "operator", Claim(9))]
    for fact in operator:
        say(world, fact)
    assert world.report("govern").examples == [], "operators say what they will"
    wrong = [
        link("crm:1", "email:x@y.org", "visits", Claim(-5, first_seen=5)),
        link("crm:1", "email:x@y.org", "accounts#77", Claim(1, first_seen=5)),
        link("crm:1", "email:none", "visits", Claim(-5, first_seen=5)),
        link("crm:1", "email:x@y.org", "elsewhere", Claim(1)),
        cannot("crm:1", "crm:2", "visits", Claim(1)),
        link("cookie:x", "=cookie:x", "=", Claim(0)),
    ]
    for n, fact in enumerate(wrong, 1):
        say(world, fact)
        found = world.report("govern")
        assert (found.differences, found.examples[-1]["kind"]) == (n, "unexpected")
    world.producer.produce(LINKS, b"no fact", b"\x00", 0)
    world.producer.flush()
    assert "altered" in {e["kind"] for e in world.report("govern").examples}


def test_after_an_emptied_table_only_live_links_count(world: World) -> None:
    world.send("accounts", None, change("t", 100, None), partition=0)
    world.settle()
    world.send("accounts", '{"id": 1}', change("c", 101, account(1, "2", "back@mail.org")))
    world.settle()
    assert world.report("govern").examples == []
    (at,) = [n for n, (key, _) in enumerate(facts(world)) if b"back@mail.org" in key]
    assert [e["kind"] for e in world.report("govern", edit=At(world.cluster, LINKS, at).lost).examples] == ["lost"]
    unlinks = [n for n, (key, value) in enumerate(facts(world)) if b"new@mail.org" in key and value[-3] == 0xC3]
    edit = At(world.cluster, LINKS, unlinks[-1]).lost
    assert [e["kind"] for e in world.report("govern", edit=edit).examples] == ["unexpected"]


def say(world: World, fact: Fact) -> None:
    from c360.engine.partition import partition_of

    key, value = encode_fact(fact)
    world.producer.produce(LINKS, key, value, partition_of(fact.subject.encode(), world.plan.partitions))
    world.producer.flush()

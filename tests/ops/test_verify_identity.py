"""`c360 verify` of an app with identity: link facts, assignments, merged profiles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from c360.engine.transport import Batch
from c360.identity.facts import Claim, Fact, cannot, encode_fact, link
from c360.ops import reset
from tests.testing.people import app
from tests.testing.shop import change
from tests.testing.world import At, Edit, World, read

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
        world.send("visits", "k", visit(f"l{n}", f"c-{n}", f"{n + 1}", second=10 + n))  # logs in
        world.send("visits", "k", visit(f"b{n}", f"c-{n}", f"{n + 1}", second=n))  # said later, happened before
    world.send("visits", "k", visit("tablet", "c-0", "2", second=30))  # a device of two
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


# ------------------------------------------------------------------------------------------------ assignments, profiles
IDENTITIES = {"identity@1": "people.assignments.v1", "identity.risk@1": "people.assignments.risk.v1"}
PROJECTIONS = {"customer@1": "people.customer.v1", "account@1": "people.account.v1"}


def test_an_undisturbed_run_has_no_differences(world: World) -> None:
    report = world.report()
    assert report.examples == []
    assert report.complete
    assert report.lag == 0
    assert set(report.agents) == {"govern", *IDENTITIES, *PROJECTIONS}
    profiles = world.latest("people.customer.v1")
    assert sorted(profiles) == ["cookie:c-0", "crm:1", "crm:2", "crm:3", "crm:4"]
    assert profiles["crm:4"]["subjects"] == ["cookie:c-3", "cookie:c-8", "cookie:c-9", "crm:4"]
    assert profiles["crm:4"]["attributes"]["visits"] == 5
    assert profiles["crm:4"]["identifiers"][-1] == "name_key:bo lee|1981-01-01"
    assert profiles["crm:1"]["subjects"] == ["crm:1"], "a cookie of two joins nobody"
    assert world.latest("people.assignments.v1")["crm:2"]["deferred"] == [["cookie:c-0", "identifier_inactive"]]


@pytest.mark.parametrize("agent", IDENTITIES)
def test_every_lost_doubled_or_altered_assignment_is_found(world: World, agent: str) -> None:
    topic = IDENTITIES[agent]
    said = [(k, v) for k, v in world.read(topic) if v is not None]
    last = {k: n for n, (k, _) in enumerate(said)}
    for n, (key, value) in enumerate(said):
        at = At(world.cluster, topic, n)
        assert world.report(agent, edit=at.doubled).differences == 1
        if n == last[key]:
            profile, seq = (json.loads(value)[name] for name in ("profile", "seq"))
            others = (
                at.lost,
                at.altered(f'"profile":"{profile}"'.encode(), b'"profile":"crm:other"'),
                at.altered(
                    b'"identifiers":[', b'"identifiers":["email:x@y.org"' + b"," * (b'"identifiers":[]' not in value)
                ),
                at.altered(
                    b'"deferred":[', b'"deferred":[["email:x@y.org","hub"]' + b"," * (b'"deferred":[]' not in value)
                ),
            )
            for edit in others:
                assert world.report(agent, edit=edit).differences == 1
            if [k for k, _ in said].count(key) > 1:
                assert world.report(agent, edit=at.altered(b'"seq":%d' % seq, b'"seq":0')).differences >= 1


def test_one_wrong_assignment_makes_profiles_differ(world: World) -> None:
    topic = "people.assignments.v1"
    said = [(k, v) for k, v in world.read(topic) if v is not None]
    for n, (key, value) in enumerate(said):
        if key == b"cookie:c-9" and json.loads(value)["profile"] == "crm:4":
            edit = At(world.cluster, topic, n).altered(b'"profile":"crm:4"', b'"profile":"crm:3"')
            found = world.report("customer@1", edit=edit)
            assert (found.differences, {e["kind"] for e in found.examples}) == (2, {"altered"})
            return
    raise AssertionError("c-9 was never of crm:4")


@pytest.mark.parametrize("agent", IDENTITIES)
def test_one_lost_link_makes_identities_differ(world: World, agent: str) -> None:
    for label in (b"crm:3|link|=cookie:c-2|", b"crm:2|link|email:new@mail.org|", b"cookie:c-1|link|=cookie:c-1|"):
        assert world.report(agent, edit=without(label)).differences >= 1


def without(label: bytes) -> Edit:
    """All that is said about one link is lost."""

    def edit(batch: Batch) -> Batch:
        if batch.tp.topic == LINKS:
            for i, key in reversed(list(enumerate(batch.keys))):
                if label in (key or b""):
                    for column in (batch.keys, batch.values, batch.offsets, batch.times):
                        del column[i]
        return batch

    return edit


@pytest.mark.parametrize("agent", PROJECTIONS)
def test_every_lost_doubled_or_altered_profile_is_found(world: World, agent: str) -> None:
    topic = PROJECTIONS[agent]
    said = list(world.read(topic))
    last = {k: n for n, (k, _) in enumerate(said)}
    found = set()
    for n, (key, value) in enumerate(said):
        at = At(world.cluster, topic, n)
        assert [e["kind"] for e in world.report(agent, edit=at.doubled).examples] == ["doubled"]
        if n != last[key] or value is None:
            continue
        found.add(key)
        assert world.report(agent, edit=at.lost).differences == 1
        for old, new in (
            (b'"subjects_total":', b'"subjects_total":1'),
            (b'"subjects":["', b'"subjects":["a'),
            (b'"identifiers":["', b'"identifiers":["a'),
            (b'"visits":', b'"visits":1'),
        ):
            assert [e["kind"] for e in world.report(agent, edit=at.altered(old, new)).examples] == ["altered"]
    assert len(found) >= 5


def test_one_lost_or_doubled_record_of_a_member_makes_its_profile_differ(world: World) -> None:
    topic = "people.governed.visits.v1"
    for n, (key, _) in enumerate(list(world.read(topic))):
        for edit in (At(world.cluster, topic, n).lost, At(world.cluster, topic, n).doubled):
            assert world.report("customer@1", edit=edit).differences >= 1, key


def test_what_is_on_its_way_makes_a_report_incomplete(world: World) -> None:
    world.producer.produce("people.identity.v1", b"crm:1", b"?", 0)
    world.producer.produce("people.account.v1.parts", b"crm:1", b"?", 0)
    world.producer.flush()
    report = world.report()
    assert report.differences == 0
    assert not report.complete
    assert [name for name, found in report.agents.items() if not found.complete] == ["identity@1", "account@1"]
    assert report.lag == 2
    say(world, link("crm:1", "merge:1", "operator", Claim(9)))
    assert not world.report("identity.risk@1").complete


def test_what_is_not_governed_yet_is_lag_and_no_difference(world: World) -> None:
    for n in range(7):
        world.send("visits", "k", visit(f"new{n}", "c-9", "3"))
    report = world.report()
    assert (report.differences, report.lag) == (0, 7)
    assert report.complete


def test_people_who_are_parted_are_verified(world: World) -> None:
    say(world, cannot("crm:4", "cookie:c-9", "operator", Claim(9)))
    world.send("accounts", '{"id": 1}', change("u", 90, account(1, "2", None, "1980-01-01", None)))
    world.settle()
    report = world.report()
    assert report.examples == []
    assert report.complete
    profiles = world.latest("people.customer.v1")
    assert "cookie:c-9" not in profiles["crm:4"]["subjects"]
    assert not any("new@mail.org" in label for label in profiles["crm:2"]["identifiers"])
    say(world, cannot("crm:4", "cookie:c-9", "operator", Claim(10, dead=True)))
    world.settle()
    assert world.report().examples == []
    assert "cookie:c-9" in world.latest("people.customer.v1")["crm:4"]["subjects"]


@pytest.mark.parametrize("agent", [*IDENTITIES, *PROJECTIONS])
def test_after_a_reset_the_report_is_complete_once_it_has_caught_up(world: World, agent: str) -> None:
    for _ in range(2):  # numbers of assignments rise over both
        world.stop()
        planned = reset.plan_reset(world.plan, world.cluster, agent)
        reset.execute_reset(world.plan, world.cluster, planned)
        report = world.report(agent)
        assert not report.complete
        assert report.differences == 0
        world.start()
        world.settle()
        report = world.report()
        assert report.complete
        assert report.examples == []


def test_an_identity_that_begins_anew_takes_back_who_is_nobody_any_more(world: World) -> None:
    """The facts of a subject are gone: somebody has tidied up, as after an erasure."""
    before = world.latest("people.assignments.v1")
    gone = [(key, b.tp.partition) for b in read(world.cluster, LINKS) for key in b.keys if key and b"cookie:c-9" in key]
    for key, partition in gone:
        world.producer.produce(LINKS, key, None, partition)
    world.producer.flush()
    world.cluster.compact(LINKS)
    world.stop()
    reset.execute_reset(world.plan, world.cluster, reset.plan_reset(world.plan, world.cluster, "identity@1"))
    world.start()
    world.settle()
    assert before.keys() - world.latest("people.assignments.v1").keys() == {"cookie:c-9"}
    report = world.report("identity@1", "customer@1")
    assert report.examples == []
    assert "cookie:c-9" in world.latest("people.customer.v1")


def test_windows_move_in_merged_profiles(world: World) -> None:
    assert world.latest("people.customer.v1")["crm:4"]["attributes"]["spend_7d"] == "3.50"
    world.now_ms += 30 * 86_400_000
    world.settle()
    assert world.report().examples == []
    assert world.latest("people.customer.v1")["crm:4"]["attributes"]["spend_7d"] == "0.00"

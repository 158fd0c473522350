"""`c360 identity` and `c360 why`: what they say of topics that the agents wrote, and that what operators say can be undone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from c360.agents.wire import Assignment, encode
from c360.engine.partition import partition_of
from c360.errors import UsageError
from c360.identity.facts import Claim, cannot, encode_fact, link
from c360.ops import profiles, reset, why
from c360.ops.identity import ask, compare, say
from c360.ops.identity.graph import Facts, Graph, chosen_rules, read_facts
from examples.hello import app as hello
from tests.ops.test_verify_identity import LINKS, account, traffic
from tests.testing.people import app
from tests.testing.shop import change
from tests.testing.world import World

DEFAULT, RISK = app.plan().identities
PROFILES = "people.customer.v1"


@pytest.fixture
def world() -> World:
    world = World(app)
    traffic(world)
    world.send(
        "accounts", json.dumps({"id": 8}), change("c", 60, account(8, "8", "ann@mail.org", "1988-01-01", "Cy Lee"))
    )
    world.settle()
    return world


def graph_of(world: World, facts: Facts | None = None) -> Graph:
    return Graph(facts or read_facts(world.plan, world.cluster), DEFAULT.rules)


def links(found: dict[str, Any], key: str = "links") -> list[tuple[str, str, str | None]]:
    return [(each["subject"], each["identifier"], each["refused"]) for each in found[key]]


# ------------------------------------------------------------------------------------------------------------ looking
def test_it_says_of_every_subject_what_the_agents_have_published(world: World) -> None:
    graph = graph_of(world)
    published = world.latest("people.assignments.v1")
    assert len(published) > 5
    for subject, said in published.items():
        assert graph.profile_of[subject] == said["profile"]
        found = ask.show(world.plan, DEFAULT, graph, subject)
        own = [(i, refused) for s, i, refused in links(found) if s == subject]
        assert {i for i, refused in own if refused is None} | {subject} >= {*said["identifiers"]}
        assert [(i, r) for i, r in own if r is not None] == [(i, r) for i, r in said["deferred"] if i != subject]


def test_a_profile_is_shown_by_any_of_its_identifiers_however_written(world: World) -> None:
    graph = graph_of(world)
    shown = [ask.show(world.plan, DEFAULT, graph, typed) for typed in ("cookie:c-1", "crm:2", "email: NEW@mail.org")]
    assert {found["profile"] for found in shown} == {"crm:2"}
    assert shown[0]["subjects"] == ["crm:2", "cookie:c-1"]
    assert shown[0]["identifiers"] == ["cookie:c-1", "crm:2", "email:new@mail.org", "name_key:ann lee|1980-01-01"]
    assert shown[0]["forbids"] == [{"subject": "crm:2", "value": "born:1980-01-01"}]
    (email,) = [each for each in shown[2]["links"] if each["identifier"] == "email:new@mail.org"]
    assert [source["source"] for source in email["sources"]] == ["accounts#1"]


def test_a_shared_device_joins_nobody_and_says_whose_it_was(world: World) -> None:
    found = ask.show(world.plan, DEFAULT, graph_of(world), "cookie:c-0")
    assert (found["status"], found["profile"], found["holders"]) == ("shared", "cookie:c-0", ["crm:1", "crm:2"])
    assert links(found) == [(s, "cookie:c-0", "identifier_inactive") for s in ("crm:1", "crm:2")]


def test_what_is_blocked_or_unknown_says_so(world: World) -> None:
    graph = graph_of(world)
    states = {
        typed: ask.show(world.plan, DEFAULT, graph, typed)["status"]
        for typed in ("crm:unknown", "crm:99", "born:1980-01-01")
    }
    assert states == {"crm:unknown": "blocked", "crm:99": "unknown", "born:1980-01-01": "forbids"}
    with pytest.raises(UsageError, match="identifies nobody"):
        ask.show(world.plan, DEFAULT, graph, "email:nobody")


def test_the_chain_of_evidence_leads_from_one_to_the_other(world: World) -> None:
    found = ask.why(world.plan, DEFAULT, graph_of(world), "cookie:c-8", "cookie:c-9")
    assert found["one"]
    assert found["profile"] in found["profiles"]
    assert links(found, "chain") == [(c, "email:ann@mail.org", None) for c in ("cookie:c-8", "cookie:c-9")]


def test_why_two_are_not_one_names_what_was_against_it(world: World) -> None:
    graph = graph_of(world)
    found = ask.why(world.plan, DEFAULT, graph, "crm:4", "crm:8")  # one mailbox
    assert (found["one"], found["linked"]) == (False, True)
    (refused,) = found["refused"]
    assert (refused["reason"], refused["values"]) == ("unique:crm", ["crm:4", "crm:8"])
    nothing = ask.why(world.plan, DEFAULT, graph, "crm:2", "crm:4")
    assert (nothing["one"], nothing["linked"], nothing["chain"]) == (False, False, [])


def test_conflicts_are_by_reason_and_values_of_too_many_by_neighbours(world: World) -> None:
    found = ask.conflicts(DEFAULT, graph_of(world), limit=1)
    assert {d["reason"]: d["links"] for d in found["deferred"]} == {"identifier_inactive": 2, "unique:crm": 1}
    assert all(len(d["examples"]) == 1 for d in found["deferred"])
    assert found["values"] == [{"value": "cookie:c-0", "status": "shared", "neighbours": 2}]


def test_what_is_above_the_cap_is_quarantined_and_found(world: World) -> None:
    facts = [link(f"cookie:x{n}", "email:all@mail.org", "visits", Claim(1)) for n in range(7)]
    graph = Graph(read_facts(world.plan, world.cluster).having(facts), RISK.rules)  # a cap of 6
    found = ask.conflicts(RISK, graph, limit=3)
    (component,) = [c for c in found["quarantined"] if c["examples"][0].startswith("cookie:x")]
    assert (component["nodes"], component["subjects"], len(component["examples"])) == (8, 7, 3)
    assert ask.stats(RISK, graph, limit=1)["quarantined"]["components"] == len(found["quarantined"])
    assert ask.why(world.plan, RISK, graph, "cookie:x1", "cookie:x2")["refused"][0]["reason"] == "quarantine"


def test_numbers_add_up(world: World) -> None:
    graph = graph_of(world)
    found = ask.stats(DEFAULT, graph, limit=2)
    assert found["facts"]["live"] + found["facts"]["dead"] == len({k for k, _ in world.read(LINKS)})
    assert sum(size["profiles"] for size in found["sizes"]) == found["profiles"] == len(graph.profiles)
    assert found["largest"][0]["subjects"] == max(map(len, graph.profiles.values()))
    assert found["shared"] == {"identifiers": 1, "subjects": 0}
    assert found["components"]["cap"] == 1000


def test_twins_are_never_seen(world: World) -> None:
    graph = graph_of(world)
    said: list[Any] = [ask.conflicts(DEFAULT, graph, limit=100), ask.stats(DEFAULT, graph, limit=100)]
    said += [ask.show(world.plan, DEFAULT, graph, s) for s in graph.standings]
    said += [ask.why(world.plan, DEFAULT, graph, a, b) for a in graph.standings for b in graph.standings]
    assert "=" not in json.dumps(said)


def test_records_that_are_no_facts_are_counted_and_what_was_tidied_away_is_gone(world: World) -> None:
    before = read_facts(world.plan, world.cluster)
    key, value = encode_fact(link("crm:2", "email:new@mail.org", "accounts#1", Claim(9)))
    producer = world.cluster.producer()
    place = partition_of(b"crm:2", world.plan.partitions)
    producer.produce(LINKS, b"crm:2|link", b"what", place)
    producer.produce(LINKS, key, value, place)
    producer.produce(LINKS, key, None, place)
    key, value = encode_fact(link("crm:2", "email:else@mail.org", "accounts#1", Claim(9)))
    producer.produce(LINKS, key, value, (place + 1) % world.plan.partitions)
    producer.flush()
    after = read_facts(world.plan, world.cluster)
    assert (before.unreadable, after.unreadable) == (0, 2)
    gone = {*((f.subject, f.other) for f in before)} - {*((f.subject, f.other) for f in after)}
    assert gone == {("crm:2", "email:new@mail.org")}


def test_an_app_without_identity_says_so_and_one_that_never_ran_has_no_facts() -> None:
    with pytest.raises(UsageError, match="has no identity"):
        chosen_rules(hello.plan(), "default")
    with pytest.raises(UsageError, match="it has default@1, risk@1"):
        chosen_rules(app.plan(), "risk@2")
    world = World(app)
    assert list(read_facts(world.plan, world.cluster)) == []


# --------------------------------------------------------------------------------------------------------- correcting
def plan_saying(world: World, what: say.What, a: str, b: str, **more: bool) -> say.Saying:
    facts = read_facts(world.plan, world.cluster)
    return say.plan_saying(world.plan, DEFAULT, facts, what, (a, b), undo=more.get("undo", False), now_ms=world.now_ms)


def execute(world: World, what: say.What, a: str, b: str, **more: bool) -> say.Saying:
    planned = plan_saying(world, what, a, b, **more)
    say.write(world.plan, world.cluster, planned.facts, reason="they said so", actor="kim")
    world.settle()
    return planned


def made_up(world: World) -> dict[str, list[str]]:
    """Profile → its subjects, as projected."""
    return {key: sorted(record["subjects"]) for key, record in world.latest(PROFILES).items()}


def test_two_that_were_separated_are_as_before_they_met_and_undoing_joins_them_again(world: World) -> None:
    merged = world.latest(PROFILES)
    planned = execute(world, "separate", "cookie:c-3", "crm:4")
    apart = world.latest(PROFILES)
    for profile in planned.after:
        assert made_up(world)[profile.profile] == sorted(profile.subjects)
    assert apart["cookie:c-3"]["subjects"] == ["cookie:c-3"]

    alone = World(app)  # the same, but nobody ever logged in with that cookie
    traffic(alone)
    alone.send(
        "accounts", json.dumps({"id": 8}), change("c", 60, account(8, "8", "ann@mail.org", "1988-01-01", "Cy Lee"))
    )
    alone.settle()
    key, value = encode_fact(link("crm:4", "=cookie:c-3", "visits", Claim(1 << 60, dead=True)))
    producer = alone.cluster.producer()
    producer.produce(LINKS, key, value, partition_of(b"crm:4", alone.plan.partitions))
    producer.flush()
    alone.settle()
    own = ("attributes", "subjects", "as_of")
    assert [apart["cookie:c-3"][n] for n in own] == [alone.latest(PROFILES)["cookie:c-3"][n] for n in own]

    execute(world, "separate", "crm:4", "cookie:c-3", undo=True)
    assert world.latest(PROFILES) == merged
    world.verify()


def test_a_join_is_two_links_to_one_value_and_undone_leaves_no_trace(world: World) -> None:
    before = world.latest(PROFILES)
    planned = execute(world, "join", "crm:1", "cookie:c-1")
    assert {f.subject for f in planned.facts} == {"crm:1", "cookie:c-1"}
    assert len({f.other for f in planned.facts}) == 1
    assert made_up(world)["crm:1"] == ["cookie:c-1", "crm:1"]
    found = ask.why(world.plan, DEFAULT, graph_of(world), "cookie:c-1", "crm:1")
    assert {(each["reason"], each["actor"]) for each in found["chain"]} == {("they said so", "kim")}
    execute(world, "join", "cookie:c-1", "crm:1", undo=True)
    assert world.latest(PROFILES) == before
    with pytest.raises(UsageError, match="nothing to undo"):
        plan_saying(world, "join", "crm:1", "cookie:c-1", undo=True)
    world.verify()


def test_what_operators_have_said_and_why_outlives_a_reset_of_govern(world: World) -> None:
    planned = execute(world, "join", "crm:1", "cookie:c-1")
    producer = world.cluster.producer()
    producer.produce(LINKS, b"crm:2|link", b"what", partition_of(b"crm:2", world.plan.partitions))
    producer.flush()
    before = {(f.subject, f.other): f for f in planned.facts}
    world.settle()
    world.stop()
    for agent in world.plan.agents:
        if agent.name != "govern":
            world.cluster.admin().delete_group(agent.group)
    reset.execute_reset(world.plan, world.cluster, reset.plan_reset(world.plan, world.cluster, "govern"))
    facts = read_facts(world.plan, world.cluster)
    assert {(f.subject, f.other): f for f in facts} == before
    assert set(facts.notes.values()) == {("they said so", "kim")}


def test_only_looking_writes_nothing_and_says_what_would_be(world: World) -> None:
    facts, before = list(world.read(LINKS)), made_up(world)
    planned = plan_saying(world, "separate", "cookie:c-3", "crm:4")
    assert {p.profile: sorted(p.subjects) for p in planned.before}.items() <= before.items()
    assert any(p.subjects == ("cookie:c-3",) for p in planned.after)
    assert list(world.read(LINKS)) == facts


def test_what_forbids_is_stronger_than_a_join(world: World) -> None:
    unique = plan_saying(world, "join", "crm:1", "crm:2")
    assert unique.before == unique.after
    assert unique.notes[0] == "they would not be one: unique:crm"
    execute(world, "separate", "crm:1", "cookie:c-1")
    assert plan_saying(world, "join", "crm:1", "cookie:c-1").notes[0] == "they would not be one: cannot_link"


def test_what_was_said_twice_and_undone_is_undone(world: World) -> None:
    """Also where the clock of the second machine is behind, and where somebody has written it the other way round."""
    execute(world, "separate", "cookie:c-3", "crm:4")
    world.now_ms -= 60_000
    assert execute(world, "separate", "cookie:c-3", "crm:4").facts[0].claim.version > world.now_ms
    key, value = encode_fact(cannot("crm:4", "cookie:c-3", "operator", Claim(7)))
    producer = world.cluster.producer()
    producer.produce(LINKS, key, value, partition_of(b"crm:4", world.plan.partitions))
    producer.flush()
    assert len(execute(world, "separate", "cookie:c-3", "crm:4", undo=True).facts) == 2
    assert graph_of(world).profile_of["cookie:c-3"] == "crm:4"


def test_an_identifier_stands_for_its_only_subject(world: World) -> None:
    assert plan_saying(world, "separate", "email:new@mail.org", "cookie:c-1").subjects == ("cookie:c-1", "crm:2")
    with pytest.raises(UsageError, match=r"4 subjects have email:ann@mail\.org: cookie:c-8, cookie:c-9, crm:4, crm:8"):
        plan_saying(world, "separate", "email:ann@mail.org", "crm:2")
    with pytest.raises(UsageError, match=r"nobody has email:x@mail\.org"):
        plan_saying(world, "separate", "email:x@mail.org", "crm:2")
    with pytest.raises(UsageError, match="are both crm:2"):
        plan_saying(world, "join", "email:new@mail.org", "crm:2")
    assert (
        plan_saying(world, "separate", "crm:2", "crm:777").notes[0] == "no fact is known of crm:777: is it spelt right?"
    )


# ---------------------------------------------------------------------------------------------------------- comparing
def test_another_rule_set_is_compared_over_the_same_facts(world: World) -> None:
    facts = read_facts(world.plan, world.cluster)
    found = compare.compare(DEFAULT, RISK, facts, limit=5)
    other = Graph(facts, RISK.rules)
    assert found["profiles"] == {"base": len(graph_of(world).profiles), "rules": len(other.profiles)}
    assert found["split"] == len(found["splits"]) > 0
    for split in found["splits"]:
        mine = graph_of(world).profiles[split["profile"]]
        assert split["into"] == sorted({other.profile_of[s] for s in mine})
    back = compare.compare(RISK, DEFAULT, facts, limit=5)
    assert (back["merged"], back["changed"]) == (found["split"], found["changed"])
    assert compare.compare(RISK, RISK, facts, limit=5)["changed"] == 0


# ----------------------------------------------------------------------------------------------------------- profiles
def assign(world: World, subject: str, **said: Any) -> None:
    producer = world.cluster.producer()
    value = encode(Assignment(seq=1 << 60, change="merged", cause="", **said))
    place = partition_of(subject.encode(), world.plan.partitions)
    producer.produce("people.assignments.v1", subject.encode(), value, place)
    producer.flush()
    world.settle()


def test_a_profile_is_found_by_an_identifier_that_it_has_no_room_to_list(world: World) -> None:
    many = [f"email:m{n:03d}@mail.org" for n in range(150)]
    assign(world, "cookie:c-1", profile="crm:2", identifiers=many)
    last = profiles.find_profile(world.plan, world.cluster, world.plan.projections[0], many[-1])
    assert last is not None
    assert (last["profile_id"], many[-1] in last["identifiers"]) == ("crm:2", False)


def test_an_old_id_leads_to_the_profile_of_now(world: World) -> None:
    """c-1 was a profile of its own before anybody logged in."""
    found = profiles.find_profile(world.plan, world.cluster, world.plan.projections[0], "cookie:c-1")
    assert found is not None
    assert found["profile_id"] == "crm:2"
    assign(world, "crm:3", profile="crm:4", was="cookie:gone")
    found = profiles.find_profile(world.plan, world.cluster, world.plan.projections[0], "cookie:gone")
    assert found is not None
    assert found["profile_id"] == "crm:4"


def test_values_are_explained_by_the_records_that_decide_them(world: World) -> None:
    (projection, _) = world.plan.projections
    found = why.explain(world.plan, world.cluster, projection, "email:new@mail.org", None)
    assert found is not None
    assert (found["profile_id"], found["subjects"]) == ("crm:2", ["crm:2", "cookie:c-1"])
    assert links(found) == [("crm:2", "cookie:c-1", None)]
    explained = {each["attribute"]: each for each in found["explained"]}
    assert explained.keys() == {a.name for a in projection.attributes}
    assert explained["visits"]["value"] == explained["visits"]["records_total"] == 4
    assert [r["id"] for r in explained["entry"]["records"]] == ["b1"]
    assert [r["id"] for r in explained["last_seen"]["records"]] == ["tablet"]
    assert [(r["subject"], r["source"], r["id"]) for r in explained["email"]["records"]] == [("crm:2", "accounts", "1")]
    (one,) = why.explain(world.plan, world.cluster, projection, "crm:2", "spend")["explained"]  # type: ignore[index]
    assert one["attribute"] == "spend"
    assert why.explain(world.plan, world.cluster, projection, "crm:99", None) is None


def test_a_row_that_was_deleted_explains_nothing(world: World) -> None:
    world.send("orders", json.dumps({"id": 1}), change("d", 90, None))
    world.settle()
    found = why.explain(world.plan, world.cluster, world.plan.projections[0], "crm:2", "orders")
    assert found is not None
    assert [(e["value"], e["records"]) for e in found["explained"]] == [(0, [])]


def test_a_profile_without_identity_is_explained_by_its_one_subject() -> None:
    world = World(hello)
    for n in range(25):
        world.send("page.views", "u", {"id": str(n), "user": "u1", "page": f"/{n}", "ts": f"2026-11-02T08:00:{n:02d}Z"})
    world.settle()
    found = why.explain(world.plan, world.cluster, world.plan.projections[0], "user:u1", None)
    assert found is not None
    assert (found["subjects"], found["links"]) == (["user:u1"], [])
    views, last = found["explained"]
    assert (views["value"], views["records_total"], len(views["records"])) == (25, 25, 20)
    assert [r["id"] for r in last["records"]] == ["24"]

"""What facts cost in messages: the bounds of IDENTITY.md §8, as counts. Each world is settled before the next fact."""

from __future__ import annotations

import random
from dataclasses import replace

from c360.identity.facts import Claim, Fact, link
from c360.identity.messages import Assigned
from c360.identity.resolve import Block, Evidence, Link, decide, resolve
from c360.identity.rules import DEFAULTS, OK, Rules
from tests.identity.world import World

RULES = Rules("default", DEFAULTS)
FREE = {n: replace(DEFAULTS[n], limit=1 << 30, shared_at=None, hub_at=None) for n in ("cookie", "device_id")}


def said(subject: str, identifier: str) -> Fact:
    return link(subject, identifier, "web", Claim(1))


def each(world: World, facts: list[Fact]) -> list[int]:
    return [world.tell([fact]) for fact in facts]


def test_what_is_known_already_costs_nothing() -> None:
    world, facts = World(RULES), [said("customer:1", "email:a"), said("cookie:aaaaa1", "email:a")]
    world.tell(facts)
    events = len(world.events)
    assert each(world, facts * 3) == [0] * 6
    assert len(world.events) == events


def hops(world: World, key: str) -> int:
    """From a node over pointers to its leader."""
    home = world.node(key).home
    return 0 if home == key else 1 + hops(world, home)


def test_a_new_identifier_is_told_its_evidence_and_ours_go_to_the_leader_and_two_words_come_back() -> None:
    world = World(RULES)
    subjects = ["customer:1", "cookie:aaaaa1", "cookie:aaaaa2", "cookie:aaaaa3"]
    world.tell(said(s, "email:a") for s in subjects)
    for subject in subjects:
        far = hops(world, subject)
        cost = world.tell([said(subject, f"phone:{subject}")])
        assert cost == (1 + 2 * far + 2 if far else 2)


def test_two_known_blocks_meet_for_five_messages_and_one_per_subject_whose_standing_changes() -> None:
    world = World(RULES)
    world.tell(said(f"cookie:{side}aaa{i}", f"email:{side}") for side in "ab" for i in range(9))
    for i in range(2):
        before = len(world.events)
        cost = world.tell([said(f"cookie:aaaa{i}", "email:b")])
        changed = sum(isinstance(e, Assigned) for e in world.events[before:])
        assert cost <= 5 + changed, (cost, changed)


def test_a_hub_costs_one_message_per_fact_and_its_limit_one_per_subject() -> None:
    world = World(RULES)
    costs = each(world, [said(f"cookie:c{i:05d}", "phone:hub") for i in range(400)])
    assert sum(costs[101:]) == len(costs[101:])
    assert max(costs) <= 100 + 3


def test_a_shared_value_costs_one_message_per_fact() -> None:
    world = World(RULES)
    costs = each(world, [said(f"customer:c{i:05d}", "email:info") for i in range(400)])
    assert sum(costs[4:]) == len(costs[4:]) + 1  # once, as it becomes a hub, too
    assert max(costs) <= 6


def test_a_chain_in_order_and_in_random_order() -> None:
    facts = [said(f"cookie:c{i:05d}", f"device_id:d{i + far:05d}") for i in range(150) for far in (0, 1)]
    rules = Rules("chain", FREE, cap=1 << 30)
    in_order, anyhow = World(rules), World(rules)
    assert sum(each(in_order, facts)) <= 5 * len(facts)
    random.Random(7).shuffle(facts)
    assert sum(each(anyhow, facts)) <= 8 * len(facts)
    assert {n.standing.profile for n in anyhow.nodes() if n.standing} == {"cookie:c00000"}


def test_crossing_the_cap_costs_the_cap_and_a_fact_above_it_no_more_than_any() -> None:
    cap = 40
    world = World(Rules("capped", FREE, cap=cap))
    costs = each(world, [said(f"cookie:c{i:05d}", "device_id:one-of-all") for i in range(100)])
    assert max(costs) <= cap + 1 + 4
    assert max(costs[cap + 1 :]) <= 4


def test_a_decision_walks_the_components_that_were_touched_and_no_others() -> None:
    subjects = [Evidence(f"cookie:c{i:05d}", 1, OK, (Link(f"email:e{i // 2}", 1, 0),)) for i in range(200)]
    block = Block(RULES, [*subjects, *(Evidence(f"email:e{i}", 1, OK) for i in range(100))])
    near = block.put(Evidence("cookie:c00000", 2, OK))
    result = decide(block, near)
    assert result.standings.keys() == {"cookie:c00000", "cookie:c00001"}
    everything = resolve(block.evidence().values(), RULES).standings
    assert {s: everything[s] for s in result.standings} == result.standings

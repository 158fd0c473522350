"""Named stories of IDENTITY.md §9: what once went wrong, or would. Each world ends as the oracle says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from types import ModuleType

import pytest

from c360.identity import node
from c360.identity.facts import Claim, Fact, cannot, link
from c360.identity.messages import Assigned, Forget, Holders, Mark, Meet, Members
from c360.identity.namespace import Namespace
from c360.identity.resolve import Standing
from c360.identity.rules import DEFAULTS, Rules
from c360.testing.oracle.identity import answer
from tests.identity.permutations import check
from tests.identity.stories import STORIES
from tests.identity.world import World

RULES = Rules("default", DEFAULTS)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_story_of_the_protocol(story: Callable[[ModuleType], None]) -> None:
    story(node)


def settled(facts: Sequence[Fact], rules: Rules = RULES) -> World:
    """The world after these facts, one after the other; as the oracle has it."""
    world = World(rules)
    world.tell(facts)
    check(world, answer(facts, rules), {})
    return world


def links(text: str, version: int = 1, *, dead: bool = False, source: str = "crm") -> list[Fact]:
    """`a b c` on a line: a is linked to b and to c."""
    rows = [line.split() for line in text.strip().splitlines()]
    return [link(row[0], other, source, Claim(version, dead)) for row in rows for other in row[1:]]


def profiles(world: World) -> dict[str, str]:
    return {n.key: n.standing.profile for n in world.nodes() if n.standing}


def deferred(world: World, subject: str) -> dict[str, str]:
    standing = world.node(subject).standing
    assert standing
    return dict(standing.deferred)


def changes(world: World, after: int) -> dict[str, str]:
    """What was published since event number `after`: subject → kind of change."""
    return {e.subject: e.change for e in world.events[after:] if isinstance(e, Assigned)}


def test_unlink_ties_link_and_unlink_wins_in_any_order() -> None:
    both = links("customer:1 email:a", 5) + links("customer:1 email:a", 5, dead=True)
    for order in permutations(both):
        world = settled(order)
        assert world.node("customer:1").standing == Standing("customer:1", ())


def test_too_large_a_block_is_no_quarantine() -> None:
    """The cap counts the live component, never the block that history made."""
    rules = Rules("small", DEFAULTS, cap=4)
    ring = links("cookie:aaaaa1 email:a\ncookie:aaaaa2 email:a email:b\ncookie:aaaaa3 email:b")
    cut = links("cookie:aaaaa2 email:a", 2, dead=True)
    world = settled([*ring, *cut], rules)
    [leader] = [n for n in world.nodes() if n.lead]
    assert leader.lead
    assert len(leader.lead.block.members) == 5 > rules.cap
    assert all(not deferred(world, s) for s in profiles(world))
    assert deferred(settled(ring, rules), "cookie:aaaaa1") == {"email:a": "quarantine"}


def test_first_come_first_served_is_not_how_it_is_decided() -> None:
    facts = links("customer:1 email:a\ncustomer:2 email:a\ncookie:aaaaa1 email:a phone:+491")
    assert len({tuple(sorted(profiles(settled(order)).items())) for order in permutations(facts)}) == 1


def test_the_shared_tablet_lends_no_ids_so_the_e_mails_of_the_family_stay_clean() -> None:
    family = "\n".join(f"customer:{i} email:{i}\ncookie:tablet email:{i} crm_id:{i}" for i in range(1, 4))
    world = settled(links(family))
    tablet = world.node("cookie:tablet")
    assert tablet.standing
    assert (tablet.standing.profile, tablet.standing.identifiers) == ("cookie:tablet", ())
    assert set(deferred(world, "cookie:tablet").values()) == {"subject_shared"}
    for i in range(1, 4):
        assert world.node(f"customer:{i}").standing == Standing(f"customer:{i}", (f"email:{i}",))


def test_info_at_merges_nobody() -> None:
    world = settled(links("\n".join(f"customer:{i} email:info" for i in range(1, 40))))
    assert all(profile == subject for subject, profile in profiles(world).items())
    assert deferred(world, "customer:7") == {"email:info": "identifier_inactive"}


def test_two_crm_ids_one_e_mail_one_keeps_it_by_order_and_the_other_s_link_is_deferred_with_its_reason() -> None:
    facts = links("customer:1 crm_id:1 email:a\ncustomer:2 crm_id:2 email:a")
    for order in permutations(facts):
        world = settled(order)
        assert world.node("customer:1").standing == Standing("customer:1", ("crm_id:1", "email:a"))
        assert deferred(world, "customer:2") == {"email:a": "unique:crm_id"}


def test_better_evidence_later_decides_anew_and_the_events_say_so() -> None:
    facts = links("customer:1 email:a\ncustomer:2 email:a\ncookie:aaaaa1 email:a")
    world = settled(facts)
    assert profiles(world)["cookie:aaaaa1"] == "customer:1"
    before = len(world.events)
    better = link("customer:2", "email:a", "shop", Claim(1, assurance=9))
    world.tell([better])
    check(world, answer([*facts, better], RULES), {})
    assert changes(world, before) == {"customer:1": "detail", "customer:2": "detail", "cookie:aaaaa1": "moved"}
    assert {e.cause for e in world.events[before:] if isinstance(e, Assigned)} == {better.id}


def test_kinds_of_change() -> None:
    world = settled(links("cookie:aaaaa2 email:a"))
    assert changes(world, 0) == {"cookie:aaaaa2": "detail"}  # created, then with its e-mail
    before = len(world.events)
    world.tell(links("cookie:aaaaa1 email:a"))
    assert changes(world, before)["cookie:aaaaa2"] == "merged"
    before = len(world.events)
    world.tell(links("cookie:aaaaa1 email:a", 2, dead=True))
    assert changes(world, before) == {"cookie:aaaaa1": "detail", "cookie:aaaaa2": "split"}


def test_the_operator_says_no_then_yes_and_no_trace_is_left() -> None:
    facts = links("customer:1 email:a\ncookie:aaaaa1 email:a")
    never = profiles(settled(facts))
    no = cannot("cookie:aaaaa1", "customer:1", "operator", Claim(5))
    apart = settled([*facts, no])
    assert profiles(apart) == {"customer:1": "customer:1", "cookie:aaaaa1": "cookie:aaaaa1"}
    assert "cannot_link" in {*deferred(apart, "cookie:aaaaa1").values(), *deferred(apart, "customer:1").values()}
    assert profiles(settled([*facts, no, replace_claim(no, Claim(6, dead=True))])) == never


def replace_claim(fact: Fact, claim: Claim) -> Fact:
    return Fact(fact.subject, fact.kind, fact.other, fact.source, claim)


def test_a_cannot_link_wins_against_a_must_link_and_is_shown() -> None:
    must = links("cookie:aaaaa1 merge:case-1\ncookie:aaaaa2 merge:case-1", source="operator")
    world = settled([*must, cannot("cookie:aaaaa1", "cookie:aaaaa2", "operator", Claim(1))])
    assert len(set(profiles(world).values())) == 2
    reasons = {**deferred(world, "cookie:aaaaa1"), **deferred(world, "cookie:aaaaa2")}
    assert reasons == {"merge:case-1": "cannot_link"}


def test_a_must_link_joins_and_removing_it_parts() -> None:
    must = links("cookie:aaaaa1 merge:case-1\ncookie:aaaaa2 merge:case-1", source="operator")
    assert set(profiles(settled(must)).values()) == {"cookie:aaaaa1"}
    world = settled([*must, *links("cookie:aaaaa2 merge:case-1", 2, dead=True, source="operator")])
    assert profiles(world) == {"cookie:aaaaa1": "cookie:aaaaa1", "cookie:aaaaa2": "cookie:aaaaa2"}


def test_a_cannot_link_of_a_subject_with_itself_changes_nothing() -> None:
    facts = links("customer:1 email:a\ncookie:aaaaa1 email:a")
    itself = cannot("customer:1", "customer:1", "operator", Claim(1))
    assert profiles(settled([*facts, itself])) == profiles(settled(facts))


def test_erased_then_joined_is_reported_and_so_are_holders_that_are_no_members() -> None:
    world = World(RULES)
    world.tell(links("customer:1 email:a"))
    world.put("email:a", Mark("erase-7"))
    world.drain()
    facts = links("cookie:aaaaa1 email:a\ncookie:aaaaa2 email:a") + links("customer:2 email:a crm_id:2")
    world.tell(facts)
    members = {n for e in world.events if isinstance(e, Members) for n in e.added}
    holders = {n for e in world.events if isinstance(e, Holders) for n in e.added}
    assert members >= {"customer:1", "email:a", "cookie:aaaaa1", "cookie:aaaaa2"}
    assert holders == {"customer:1", "cookie:aaaaa1", "cookie:aaaaa2", "customer:2"}
    before = len(world.events)
    world.put("email:a", Mark("erase-7", on=False))
    world.tell(links("cookie:aaaaa3 email:a"))
    assert not [e for e in world.events[before:] if isinstance(e, Members | Holders)]


def found(world: World, request: str) -> set[str]:
    return {n for e in world.events if isinstance(e, Members) and e.request == request for n in e.added}


def told(world: World, *messages: tuple[str, Mark | Forget]) -> World:
    for key, message in messages:
        world.put(key, message)
        world.drain()
    return world


def test_who_joins_a_second_request_is_found_although_the_first_has_erased_one_of_its_profile() -> None:
    """cookie:aaaaa1 has moved from one mailbox to another, while both were asked to be forgotten."""
    world = told(settled(links("cookie:aaaaa1 email:a")), ("email:a", Mark("one")))
    world.tell(links("cookie:aaaaa1 email:a", 2, dead=True) + links("cookie:aaaaa1 email:b\ncookie:aaaaa2 email:b"))
    told(world, ("email:b", Mark("two")))
    assert found(world, "one") == {"cookie:aaaaa1", "email:a"}
    assert found(world, "two") == {"cookie:aaaaa1", "cookie:aaaaa2", "email:b"}
    told(world, ("email:a", Forget("one")), ("cookie:aaaaa1", Forget("one")))
    world.tell(links("cookie:aaaaa3 email:b"))
    assert found(world, "two") == {"cookie:aaaaa1", "cookie:aaaaa2", "cookie:aaaaa3", "email:b"}
    told(world, ("cookie:aaaaa2", Forget("two")))
    world.tell(links("cookie:aaaaa4 email:b"))
    assert "cookie:aaaaa4" not in found(world, "two")


@pytest.mark.parametrize("order", [*permutations(["email:a", "customer:1", "cookie:aaaaa1"])])
@pytest.mark.parametrize("late", [False, True])
def test_who_takes_the_place_of_the_erased_is_found_by_no_request_that_was_asked_for_the_same(
    order: Sequence[str], late: bool
) -> None:
    """The same customer is asked for twice. customer:2 has the mailbox, too, and another number; its cookie goes with it."""
    facts = links("customer:1 email:a\ncookie:aaaaa1 email:a\ncustomer:2 email:a email:c\ncookie:aaaaa9 email:c")
    world = told(settled(facts), ("email:a", Mark("one")))
    if not late:
        told(world, ("email:a", Mark("two")))
    told(world, *((key, Forget("one")) for key in order[:2]))
    if late:
        told(world, ("email:a", Mark("two")))
    told(world, (order[2], Forget("one")))
    profile = {"customer:1", "cookie:aaaaa1", "email:a"}
    assert found(world, "one") == profile
    assert found(world, "two") <= profile
    assert profiles(world)["customer:2"] == profiles(world)["cookie:aaaaa9"] == "customer:2"


def test_who_is_named_again_after_an_erasure_has_a_life_and_does_not_vanish_with_others() -> None:
    world = settled(links("customer:1 email:a\ncookie:aaaaa1 email:a"))
    world.tell(links("customer:1 email:a", 2, dead=True))
    told(world, ("customer:1", Mark("one")), ("customer:1", Forget("one")), ("customer:1", Mark("one", on=False)))
    world.tell(links("customer:1 email:b\ncookie:aaaaa2 email:b", 3))
    assert world.node("customer:1").marks == ()
    told(world, *((key, Forget("two")) for key in ("cookie:aaaaa1", "email:a")))
    assert profiles(world)["customer:1"] == profiles(world)["cookie:aaaaa2"] == "customer:1"


def test_who_vanished_and_only_points_says_nothing_when_a_mark_is_taken_off_that_it_does_not_have() -> None:
    me = node.Node("customer:2")
    node.step(me, [Meet("customer:1", "late")], RULES)
    done = node.step(me, [Mark("one", on=False)], RULES)
    assert (me.home, me.evidence, done.sends, done.events) == ("customer:1", None, [], [])


def test_ghost_kinds_are_kept_and_link_nobody_until_they_are_declared() -> None:
    facts = links("cookie:aaaaa1 badge:7\ncookie:aaaaa2 badge:7\nghost:1 email:a\ncookie:aaaaa2 email:a")
    assert profiles(settled(facts)) == {"cookie:aaaaa1": "cookie:aaaaa1", "cookie:aaaaa2": "cookie:aaaaa2"}
    declared = Rules("declared", {**DEFAULTS, "badge": Namespace("badge")})
    assert set(profiles(settled(facts, declared)).values()) == {"cookie:aaaaa1"}


def test_blocked_values_link_nobody_in_either_place() -> None:
    facts = links("cookie:aaaaa1 email:NULL\ncookie:aaaaa2 email:null\ncookie:null email:a\ncookie:aaaaa2 email:a")
    assert len(set(profiles(settled(facts)).values())) == 3


# ------------------------------------------------------------------------------------------- evidence that forbids
HOUSE = Rules(
    "house",
    {
        **{n: DEFAULTS[n] for n in ("customer", "cookie", "phone")},
        "crm": Namespace("crm", 15, shared_at=None, subject=True, limit=9),
        "email": replace(DEFAULTS["email"], shared_at=None),
        "birth_date": Namespace("birth_date", links=False, limit=1),
    },
)


def test_relatives_of_one_name_at_one_mailbox_are_kept_apart_by_their_birth_dates() -> None:
    family = links("crm:1 email:home birth_date:1950\ncrm:2 email:home birth_date:1980")
    world = settled(family, HOUSE)
    assert profiles(world) == {"crm:1": "crm:1", "crm:2": "crm:2"}
    assert deferred(world, "crm:2") == {"email:home": "limit:birth_date"}
    same = links("crm:1 email:home birth_date:1950\ncrm:2 email:home birth_date:1950")
    assert set(profiles(settled(same, HOUSE)).values()) == {"crm:1"}


def test_an_attribute_that_only_forbids_joins_nobody_and_is_no_neighbour() -> None:
    world = settled(links("\n".join(f"crm:{i} birth_date:1950" for i in range(1, 60))), HOUSE)
    assert all(profile == subject for subject, profile in profiles(world).items())
    assert "birth_date:1950" not in world.states


def test_a_corrected_birth_date_undoes_what_the_wrong_one_did() -> None:
    wrong = links("crm:1 email:home birth_date:1950\ncrm:2 email:home birth_date:1980")
    right = links("crm:2 birth_date:1980", 2, dead=True) + links("crm:2 birth_date:1950", 2)
    assert set(profiles(settled([*wrong, *right], HOUSE)).values()) == {"crm:1"}


def test_a_subject_that_contradicts_itself_keeps_its_identifiers_and_joins_nobody_who_has_the_attribute() -> None:
    facts = links(
        "crm:1 email:home birth_date:1950 birth_date:1951\ncrm:2 email:home birth_date:1950\ncrm:3 email:home"
    )
    world = settled(facts, HOUSE)
    assert profiles(world) == {"crm:1": "crm:1", "crm:2": "crm:2", "crm:3": "crm:1"}


def test_named_views_do_not_see_each_other() -> None:
    facts = links("crm:1 email:home birth_date:1950\ncrm:2 email:home birth_date:1980")
    growth = Rules("growth", {n: v for n, v in HOUSE.namespaces.items() if n != "birth_date"})
    assert set(profiles(settled(facts, growth)).values()) == {"crm:1"}
    assert len(set(profiles(settled(facts, HOUSE)).values())) == 2


def many(names: Iterable[str]) -> str:
    return "\n".join(names)


def test_un_merged_is_as_never_linked() -> None:
    """Everything one source said is taken back: standings, and the bytes of what is decided on, are those without it."""
    rest = links(many(f"customer:{i} email:{i} crm_id:{i}" for i in range(1, 5)))
    merge = links("cookie:aaaaa1 email:1 email:2 email:3", source="web")
    undo = links("cookie:aaaaa1 email:1 email:2 email:3", 2, dead=True, source="web")
    undone, never = settled([*rest, *merge, *undo]), settled(rest)
    assert {k: p for k, p in profiles(undone).items() if k != "cookie:aaaaa1"} == profiles(never)
    for key in profiles(never):
        assert undone.node(key).standing == never.node(key).standing

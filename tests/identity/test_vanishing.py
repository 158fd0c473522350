"""Erased nodes go, while messages to them, and of them, are on their way: who lives stays whole, and nothing names the gone."""

from __future__ import annotations

import random
from itertools import permutations
from types import ModuleType

import pytest

from c360.identity import node
from c360.identity.facts import LINK, Claim, link
from c360.identity.messages import Assign, Forget, Gather, Holders, Mark, Meet, Members, Unsaid, Vanish
from c360.identity.resolve import Evidence, Link
from c360.identity.rules import OK, STAND_IN
from tests.identity import erasures
from tests.identity.stories import FIRST, LAST, LOOSE, SECOND, THIRD
from tests.identity.test_mutants import mutant
from tests.identity.test_stories import links, profiles
from tests.identity.world import World

GONE = (FIRST, SECOND, "email:a")
HERE = (THIRD, LAST, "email:b")
FACTS = links(f"{FIRST} email:a\n{SECOND} email:a\n{THIRD} email:b\n{LAST} email:b")


def whole(world: World) -> None:
    """Who lives, and who comes to them later, are one customer; nobody else is there."""
    world.rest()
    there = {n.key for n in world.nodes() if not world.code.is_blank(n)}
    assert not [n.key for n in world.nodes() if n.home not in there and n.key in there], "a pointer to nobody"
    assert not there & set(GONE)
    assert not [n.key for n in world.nodes() if n.lead and set(n.lead.block.evidence()) & set(GONE)], (
        "a block of the erased"
    )
    world.tell(links(f"{LAST} email:c\ncookie:k0099 email:c"))
    assert len({profiles(world)[subject] for subject in (THIRD, LAST, "cookie:k0099")}) == 1


def run(seed: int, code: ModuleType = node) -> None:
    """Who was to meet one of the erased does so at any moment, also when it waits to vanish."""
    dice = random.Random(seed)
    world = World(LOOSE, partitions=3, batch=dice.choice([1, 3]), dice=dice, lag=0.4, by_task=True, code=code)
    world.tell(FACTS)
    asked = dice.choice([True, False])
    if asked:
        world.put(GONE[0], Mark("one"))
        world.drain()
    for key in dice.sample(GONE, 3):
        world.put(key, Forget("one"))
        for _ in range(dice.choice([0, 1, 5, 50])):
            world.turn()
    meets = [(dice.choice(HERE), Meet(dice.choice(GONE), "late")) for _ in range(dice.choice([1, 1, 2]))]
    for to, meet in meets:
        for _ in range(dice.choice([0, 1, 2, 5, 50])):
            world.turn()
        world.put(to, meet)
    if asked:
        world.put(GONE[0], Mark("one", on=False))
    whole(world)


@pytest.mark.parametrize("seed", range(100))
def test_who_meets_somebody_that_is_erased_meanwhile_stays_whole(seed: int) -> None:
    run(seed)


@pytest.mark.parametrize("to", HERE)
@pytest.mark.parametrize("whom", GONE)
@pytest.mark.parametrize("order", [*permutations(GONE)])
def test_who_meets_somebody_that_only_waits_to_vanish_points_at_nobody_who_is_not_there(
    order: tuple[str, ...], whom: str, to: str
) -> None:
    world = World(LOOSE)
    world.tell(FACTS)
    for key in order:
        world.put(key, Forget("one"))
        world.drain()
    world.put(to, Meet(whom, "late"))
    whole(world)


def test_what_an_erased_node_said_before_and_comes_only_now_is_not_kept() -> None:
    """It went by another way than its word that it is erased, which the leader has had, and has let go of it."""
    world = World(LOOSE)
    world.tell([*FACTS, *links(f"{FIRST} email:b")])
    for key in GONE:
        world.put(key, Forget("one"))
        world.drain()
    [leader] = [n.key for n in world.nodes() if n.lead]
    world.put(leader, Gather((Evidence("email:a", 1, OK),), "late"))
    world.drain()
    whole(world)


def overtaken() -> tuple[node.Node, Gather]:
    """A leader that has let go of all who were erased; and a block of before, which comes only now, by a longer way.

    email:m and SECOND were of the profile of customer:1, as customer:2 was not, who shares email:d with SECOND.
    """
    linked = Evidence(SECOND, 2, OK, (Link("email:d", 1, 0), Link("email:m", 1, 0)))
    late = Gather((linked, Evidence("email:m", 2, OK, marks=("one",))), "late", (), (("one", ("email:m", SECOND)),))
    other = Evidence("customer:2", 1, OK, (Link("email:d", 1, 0),))
    here = [other, Evidence("email:d", 1, OK)]
    gone = [Evidence(key, 4, OK, marks=(node.ERASED, node.erased_by("one"))) for key in (SECOND, "email:m")]
    leader = node.Node("customer:2")
    leader.evidence = other
    done = node.step(leader, [Gather((*here, *gone), "f1")], LOOSE)
    assert {to for to, message in done.sends if isinstance(message, Vanish)} == {SECOND, "email:m"}
    return leader, late


def test_a_mark_of_before_that_comes_late_finds_nobody_who_takes_the_place_of_the_erased() -> None:
    """Else customer:2 would be found for the request, and erased."""
    leader, late = overtaken()
    done = node.step(leader, [late], LOOSE)
    assert [event for event in done.events if isinstance(event, Members)] == []
    assert [to for to, message in done.sends if isinstance(message, Assign)] == []


@pytest.mark.parametrize("again", [False, True])
def test_what_is_known_of_the_erased_until_all_has_rested_goes_with_a_block_and_then_is_no_more(again: bool) -> None:
    leader, late = overtaken()
    if again:
        done = node.step(leader, [Meet(FIRST, "f2")], LOOSE)
        [(_, handed)] = [(to, message) for to, message in done.sends if to == FIRST]
        leader = node.Node(FIRST)
        node.step(leader, [handed], LOOSE)
    node.step(leader, [late], LOOSE)
    assert not node.let_go_of(leader)
    assert leader.lead is not None
    assert not {SECOND, "email:m"} & leader.lead.block.evidence().keys()
    assert not {SECOND, "email:m"} & leader.lead.told.keys()


@pytest.mark.parametrize("seed", [*range(40), 967, 1105, 2096])
def test_random_worlds_in_which_some_are_erased(seed: int) -> None:
    erasures.run(seed)


# -------------------------------------------------------------------------------------------- who names an identifier
NAMED = Claim(3, dead=True, first_seen=1)


def named(world: World) -> None:
    """LAST once said email:a, which is FIRST's."""
    world.tell(links(f"{FIRST} email:a\n{LAST} email:b"))
    world.tell([link(LAST, "email:a", "crm", NAMED)])


def test_who_names_an_identifier_by_a_dead_claim_is_known_to_it_and_is_no_holder() -> None:
    world = World(LOOSE)
    named(world)
    neighbours = world.node("email:a").neighbours
    assert neighbours is not None
    assert (neighbours.holders(), neighbours.degree, neighbours.naming) == ((FIRST,), 1, 1)
    world.put("email:a", Mark("one"))
    world.drain()
    assert [event for event in world.events if isinstance(event, Holders)] == [Holders("one", "email:a", (FIRST,))]
    assert profiles(world)[LAST] == LAST


def test_who_named_it_before_and_holds_it_now_is_reported() -> None:
    world = World(LOOSE)
    named(world)
    world.put("email:a", Mark("one"))
    world.tell([link(LAST, "email:a", "crm", Claim(4, first_seen=4))])
    assert Holders("one", "email:a", (LAST,)) in world.events


def test_a_dead_claim_that_comes_after_its_identifier_was_erased_is_taken_back_and_does_not_wake_it() -> None:
    world = World(LOOSE)
    world.tell(links(f"{FIRST} email:a\n{LAST} email:b"))
    for key in (FIRST, "email:a"):
        world.put(key, Mark("one"))
        world.put(key, Forget("one"))
        world.drain()
    world.tell([link(LAST, "email:a", "crm", NAMED)])
    assert Unsaid(LAST, LINK, "email:a", "crm") in world.events
    for key in (FIRST, "email:a"):
        world.put(key, Mark("one", on=False))
    world.rest()
    assert {node.key for node in world.nodes()} == {LAST, "email:b"}


def test_an_identifier_that_only_a_dead_claim_names_stays_until_that_goes() -> None:
    world = World(LOOSE)
    named(world)
    world.put(FIRST, Forget("one"))
    world.rest()
    assert {node.key for node in world.nodes() if not node.key.startswith(STAND_IN)} == {LAST, "email:a", "email:b"}
    world.put(LAST, Forget("two"))
    world.rest()
    assert not world.nodes()


def test_who_is_named_by_many_lies_on_shelves_and_comes_back_whole() -> None:
    world = World(LOOSE, apart=3)
    world.tell(links(f"{FIRST} email:a"))
    many = [f"cookie:n{number:02}" for number in range(20)]
    for subject in many:
        world.tell([link(subject, "email:a", "crm", NAMED)])
    neighbours = world.node("email:a").neighbours
    assert neighbours is not None
    assert (neighbours.shelved, neighbours.degree, neighbours.naming) == (True, 1, 20)
    world.put("email:a", Forget("one"))
    world.rest()
    assert {event.subject for event in world.events if isinstance(event, Unsaid)} == {FIRST, *many}
    assert "email:a" not in {node.key for node in world.nodes()}


NAMING = {
    "who names it by what does not count is not known": ('home = "" if other in still else', "home ="),
    "a new word that does not count is not told": (
        "                self.said.add(fact.other)\n",
        "                pass\n",
    ),
    "what an erased subject names is not told": (
        "self.said |= {other for kind, other, _",
        "_ = {other for kind, other, _",
    ),
    "an identifier that nobody names stays": ("            me.marks = (ERASED,)", "            pass"),
    "who only names it counts": ("            if old.home:", "            if True:"),
    "and is not told that it is erased": (
        "for subject in sorted(me.neighbours.of) if",
        "for subject in me.neighbours.holders() if",
    ),
}


@pytest.mark.parametrize("what", NAMING)
def test_what_is_known_of_who_names_an_identifier_is_missed_when_it_is_taken_away(what: str) -> None:
    code = mutant(node, *NAMING[what])
    for seed in range(300):
        try:
            erasures.run(seed, code)
        except Exception:
            return
    pytest.fail("nothing notices")


GUARDS = {
    "what an erased leader hands over is as any": (" or ERASED in self.me.marks, set()", ", set()"),
    "what came by an erased node is as any": ("if ERASED in me.marks and not gather.astray:", "if False:"),
}


@pytest.mark.parametrize("what", GUARDS)
def test_a_guard_that_is_taken_away_is_missed(what: str) -> None:
    code = mutant(node, *GUARDS[what])
    for seed in range(1000):
        try:
            run(seed, code)
        except AssertionError:
            return
    pytest.fail("nothing notices")

"""Requests to be forgotten that overlap: a customer who is asked for twice, while another waits for their mailbox.

Nodes are erased one by one in any order, on partitions that lag, and the second request comes at any moment of that.
"""

from __future__ import annotations

import random
from types import ModuleType

import pytest

from c360.identity import node
from c360.identity.facts import Claim, link
from c360.identity.messages import Forget, Mark, Members
from c360.identity.rules import DEFAULTS, Rules
from tests.identity.test_mutants import mutant
from tests.identity.world import World

OTHERS = {"customer:2", "cookie:aaaaa9", "email:c"}
FACTS = (
    "customer:1 email:a", "cookie:aaaaa1 email:a", "cookie:aaaaa2 email:a", "customer:2 email:a", "customer:2 email:c",
    "cookie:aaaaa9 email:c",
)  # fmt: skip


def run(seed: int, code: ModuleType = node) -> None:
    dice = random.Random(seed)
    world = World(Rules("default", DEFAULTS), partitions=dice.choice([1, 2, 3]), batch=dice.choice([1, 3]), dice=dice,
                  by_task=True, code=code)  # fmt: skip
    for number, said in enumerate(dice.sample(FACTS, len(FACTS))):
        subject, other = said.split()
        world.put(subject, link(subject, other, "crm", Claim(number)))
    world.drain()
    profile = {"customer:1", "cookie:aaaaa1", "cookie:aaaaa2", "email:a"}
    doings: list[tuple[str, Mark | Forget]] = [(key, Forget("one")) for key in dice.sample(sorted(profile), 4)]
    doings.insert(dice.randrange(len(doings) + 1), (dice.choice(sorted(profile)), Mark("two")))
    world.put(dice.choice(sorted(profile)), Mark("one"))
    world.drain()
    for key, message in doings:
        world.put(key, message)
        for _ in range(dice.choice([0, 1, 2, 5, 50])):
            world.turn()
    world.drain()
    found: dict[str, set[str]] = {"one": set(), "two": set()}
    for event in world.events:
        if isinstance(event, Members):
            found[event.request].update(event.added)
    assert found["one"] == profile
    assert found["two"] <= profile, "somebody is found who only took the place of the erased"
    standings = {n.key: n.standing.profile for n in world.nodes() if n.standing and n.key in OTHERS}
    assert standings == {"customer:2": "customer:2", "cookie:aaaaa9": "customer:2"}


@pytest.mark.parametrize("seed", range(150))
def test_who_takes_the_place_of_the_erased_is_found_by_nobody(seed: int) -> None:
    run(seed)


GUARDS = {
    "who comes past nobody is found": ("if not nodes.isdisjoint(going):", "if False:"),
    "only who is gone goes": ("        going.update(*(nodes for", "        set().update(*(nodes for"),
    "the place is free before its holder is known to be gone": (
        "        self.refresh()\n        if me.neighbours and",
        "        self.stale = True\n        if me.neighbours and",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", GUARDS)
def test_a_guard_that_is_taken_away_is_missed(what: str) -> None:
    code = mutant(node, *GUARDS[what])
    for seed in range(1000):
        try:
            run(seed, code)
        except AssertionError:
            return
    pytest.fail("nothing notices")

"""Random facts, and some who are erased while others of their blocks live: nothing names them then, and nobody else notices.

`python -m tests.identity.erasures --runs 10000 --from 0` prints `divergences 0`, or the first seeds that diverge.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from itertools import chain
from types import ModuleType

from c360.identity import node as identity
from c360.identity.facts import CANNOT, LINK, Fact, cannot
from c360.identity.messages import Forget, Mark
from c360.identity.rules import STAND_IN
from c360.testing.oracle.identity import answer
from tests.identity.permutations import random_facts, random_rules
from tests.identity.world import World
from tests.seeds import run_seeds


def run(seed: int, code: ModuleType = identity) -> None:
    """One world. Raises AssertionError where it ends other than it should."""
    dice = random.Random(seed)
    rules = random_rules(dice)
    # Govern links no subjects (it links their twins), nor what identifies nobody.
    facts = [f for f in random_facts(dice) if f.kind != LINK or not rules.of(f.other).subject]
    facts = [f for f in facts if f.kind != LINK or rules.of(f.other).holds or rules.of(f.other).links]
    facts += [cannot(f.other, f.subject, f.source, f.claim) for f in facts if f.kind == CANNOT]  # as operators say it
    world = World(
        rules,
        partitions=dice.randint(1, 12),
        batch=dice.randint(1, 20),
        dice=dice,
        crashes=dice.choice([0.0, 0.0, 0.2]),
        lag=dice.choice([0.0, 0.3, 0.6]),
        by_task=dice.random() < 0.3,
        code=code,
        apart=dice.choice([None, None, 0, 1, 3]),
        piece_bytes=dice.choice([1 << 30, 1 << 30, 1, 150]),
    )
    said = [fact for fact in facts if dice.random() < 0.7]
    pairs = {frozenset((fact.subject, fact.other)) for fact in said}
    said = [fact for fact in facts if frozenset((fact.subject, fact.other)) in pairs]
    later = [fact for fact in facts if fact not in said and fact.kind != CANNOT]
    gone: set[str] = set()
    beside = dice.random() < 0.5
    for number in range(dice.choice([1, 1, 2, 3])):
        said = [fact for fact in said if not gone & {fact.subject, fact.other}]
        if number and dice.random() < 0.3:  # a new life of some
            gone -= set(dice.sample(sorted(gone), min(len(gone), 2)))
        coming = [*said] if not number else []
        now = [fact for fact in later if dice.random() < 0.5 and not gone & {fact.subject, fact.other}]
        coming += now
        later = [fact for fact in later if fact not in now]
        said += now
        dice.shuffle(coming)
        for fact in coming:
            world.put(fact.subject, fact)
            hurry(world, dice)
        world.drain()
        right = answer(said, rules)
        nodes = sorted({n for fact in said for n in (fact.subject, fact.other)} & {n.key for n in world.nodes()})
        if not nodes:
            continue
        asked = dice.sample(nodes, min(len(nodes), dice.choice([1, 1, 2])))
        # As the protocol of erasure: marked, found at rest, erased, and the mark taken off
        for name in asked:
            world.put(name, Mark(f"r-{name}-{number}"))
        world.drain()
        orders: list[tuple[str, Mark | Forget | Fact]] = []
        for name in asked:
            group = {name} | set(right.group.get(name, ()))
            if beside:  # as an identifier that is a customer's own, but joins nobody: its block knows of no request
                near = {f.other for f in said if f.kind == LINK and f.subject in group}
                group |= {n for n in near if rules.of(n).links and not (rules.of(n).holds or rules.of(n).subject)}
            gone |= group
            its = [(node, Forget(f"r-{name}-{number}")) for node in sorted(group)]
            dice.shuffle(its)
            if dice.random() < 0.5:
                for node, forget in its:
                    world.put(node, forget)
                    hurry(world, dice)
                world.drain()
                its = []
            orders += [*its, (name, Mark(f"r-{name}-{number}", on=False))]
        others = [fact for fact in later if not gone & {fact.subject, fact.other} and dice.random() < 0.5]
        later = [fact for fact in later if fact not in others]
        said += others
        for fact in others:  # traffic
            orders.insert(dice.randint(0, len(orders)), (fact.subject, fact))
        for key, order in orders:
            world.put(key, order)
            hurry(world, dice)
        world.rest()
        check(
            world,
            [fact for fact in said if not gone & {fact.subject, fact.other}],
            gone,
            {fact.subject for fact in facts},
        )


def hurry(world: World, dice: random.Random) -> None:
    while dice.random() < 0.4 and world.turn():
        pass


def check(world: World, facts: Sequence[Fact], gone: set[str], speak: set[str]) -> None:
    """`speak`: who has ever said anything, and stays, as a subject, also when all it said is gone."""
    rules, right = world.rules, answer(facts, world.rules)
    nodes = {node.key: node for node in world.nodes() if not world.code.is_blank(node)}
    got = {
        key: (node.standing.profile, node.standing.identifiers, node.standing.deferred)
        for key, node in nodes.items()
        if node.standing and key not in gone
    }
    for key in got.keys() - right.standings.keys():  # what they said named somebody who is erased
        assert got.pop(key) == (key, (), ()), "somebody says more than was said"
    assert got == right.standings, "standings of those who live"
    for node in nodes.values():
        assert node.home == node.key or rules.of(node.home).rank < rules.of(node.key).rank, "a pointer does not descend"
        assert node.home == node.key or node.lead is None, "content without a leader"
    shelved = [
        repr((near, lead.evidence, [(one, pair) for one, pair in lead.holders.pairs.items() if pair], lead.told))  # type: ignore[attr-defined]
        for near, lead in world.shelves.by_node.values()
    ]
    known = {name for fact in facts for name in (fact.subject, fact.other)} | speak
    nobody = {key for key in nodes if key not in known and not key.startswith(STAND_IN)}
    assert not nobody, "an identifier that nobody names any more is left"
    whole = "\n".join(chain((repr(world.code.encode_node(node)) for node in nodes.values()), shelved))
    for name in sorted(gone):
        named = [key for key, node in nodes.items() if _says(repr(world.code.encode_node(node)), name)]
        assert not _says(whole, name), f"{name} is erased, and still in {named or 'shelves'}"


def _says(text: str, name: str) -> bool:
    return re.search(rf"{re.escape(name)}(?![0-9])", text) is not None


def main(arguments: Sequence[str] | None = None) -> int:
    return run_seeds(
        run, arguments, program="tests.identity.erasures", about=__doc__, runs=10_000, failures=AssertionError
    )


if __name__ == "__main__":
    sys.exit(main())

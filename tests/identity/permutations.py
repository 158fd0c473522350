"""Random rules and facts in random orders, repeated, lagging, crashed: in the end what the oracle says.

`python -m tests.identity.permutations --runs 100000 --from 0` prints `divergences 0`, or the first seeds that diverge.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from types import ModuleType

from c360.identity import node as identity
from c360.identity.facts import CANNOT, LINK, Claim, Fact
from c360.identity.messages import Assigned, Holders, Mark, Members, StatusChanged
from c360.identity.namespace import Namespace
from c360.identity.node import Node
from c360.identity.resolve import resolve
from c360.identity.rules import Rules
from c360.testing.oracle.identity import Answer, answer
from tests.identity.world import World
from tests.seeds import run_seeds


def random_rules(dice: random.Random) -> Rules:
    if dice.random() < 0.3:  # loose: nothing is refused, blocks merge and merge
        kinds = [("cookie", 20, True), ("email", 3, False), ("device", 10, False)]
        return Rules("loose", {n: Namespace(n, p, False, 99, None, subject=s, hub_at=None) for n, p, s in kinds})

    def shared() -> int | None:
        return dice.choice([None, 2, 2, 3])

    def hub() -> int | None:
        return dice.choice([None, None, 2, 3, 5])

    def limit() -> int:
        return dice.choice([1, 2, 3, 9])

    namespaces = [
        Namespace("customer", 0, unique=True, shared_at=shared(), hub_at=hub(), subject=True),
        Namespace("cookie", 20, limit=limit(), shared_at=shared(), hub_at=hub(), subject=True),
        Namespace("merge", 0, limit=9, shared_at=None, hub_at=hub()),
        Namespace("crm_id", 1, unique=True, shared_at=shared(), hub_at=hub()),
        Namespace("email", 3, limit=limit(), shared_at=shared(), hub_at=hub()),
        Namespace("device", dice.choice([3, 10]), limit=limit(), shared_at=shared(), hub_at=hub()),
        Namespace("birth", links=False, limit=dice.choice([1, 1, 2])),
        Namespace("first_name", links=False, limit=dice.choice([1, 2])),
    ]
    return Rules("random", {n.name: n for n in namespaces}, cap=dice.choice([2, 4, 6, 9, 1000, 1000]))


def random_facts(dice: random.Random) -> list[Fact]:
    """A crowd that is dense enough to run into every rule."""
    if dice.random() < 0.2:
        return random_chain(dice)
    size = dice.choice([2, 3, 5, 8])
    subjects = [f"{dice.choice(['customer', 'cookie', 'cookie'])}:{i}" for i in range(1, size + 1)]
    if dice.random() < 0.2:
        subjects += ["cookie:null", "ghost:1"]
    few = max(1, size * dice.choice([1, 2, 3]) // 3)
    identifiers = [f"{kind}:{i}" for kind in ("crm_id", "email", "email", "device") for i in range(1, few + 1)]
    identifiers += [f"merge:case-{i}" for i in range(1, 3)] + ["email:unknown", "nothing:1", subjects[0]]
    held = [f"{kind}:{i}" for kind in ("birth", "first_name") for i in range(1, 3)]
    if dice.random() < 0.5:
        held = []
    dead = dice.choice([0.0, 0.2, 0.4])
    apart = dice.choice([0.0, 0.1, 0.2])
    facts = []
    for _ in range(dice.choice([4, 10, 25, 50])):
        claim = Claim(dice.randint(1, 4), dice.random() < dead, dice.randint(1, 3), dice.choice([0, 0, 0, 1]))
        subject, source = dice.choice(subjects), dice.choice(["crm", "web#1|2"])
        if dice.random() < apart:
            facts.append(Fact(subject, CANNOT, dice.choice(subjects), source, claim))
        else:
            facts.append(Fact(subject, LINK, dice.choice(identifiers + held), source, claim))
    return facts


def random_chain(dice: random.Random) -> list[Fact]:
    """Each cookie shares a device with the next: leaders yield to leaders that yield."""
    ends = [(i, i + far) for i in range(dice.choice([5, 9])) for far in (0, 1)]
    facts = [Fact(f"cookie:{i}", LINK, f"device:{j}", "web", Claim(1)) for i, j in ends]
    return facts + [Fact(f.subject, LINK, f.other, "web", Claim(2, dead=True)) for f in facts if dice.random() < 0.1]


def random_marks(dice: random.Random, facts: Sequence[Fact]) -> list[tuple[str, Mark]]:
    keys = sorted({f.subject for f in facts} | {f.other for f in facts})
    count = dice.choice([0, 0, 1, 2, 4])
    return [(dice.choice(keys), Mark(dice.choice(["r1", "r2"]), dice.random() < 0.8)) for _ in range(count)]


def run(seed: int, code: ModuleType = identity) -> None:
    """One world. Raises AssertionError where it ends, or is on its way, other than it should."""
    dice = random.Random(seed)
    rules, facts = random_rules(dice), random_facts(dice)
    marks = random_marks(dice, facts)
    large = random.Random(f"large {seed}")  # of their own: a seed's history is what it was
    world = World(
        rules,
        partitions=dice.randint(1, 12),
        batch=dice.randint(1, 20),
        dice=dice,
        crashes=dice.choice([0.0, 0.0, 0.2]),
        lag=dice.choice([0.0, 0.3, 0.6]),
        by_task=dice.random() < 0.3,
        code=code,
        apart=large.choice([None, None, 0, 1, 3]),
        piece_bytes=large.choice([1 << 30, 1, 150]),
    )
    coming: list[tuple[str, Fact | Mark]] = [(f.subject, f) for f in facts]
    coming += [(f.subject, f) for f in facts if dice.random() < 0.2]
    dice.shuffle(coming)
    for mark in marks:  # among each other in their order
        coming.insert(dice.randint(0, len(coming)), mark)
    on: dict[str, set[str]] = {}
    haste = dice.choice([0.1, 0.5, 0.9])
    watch = seed % 4 == 0
    for key, message in coming:
        world.put(key, message)
        if isinstance(message, Mark):
            (on.setdefault(key, set()).add if message.on else on.setdefault(key, set()).discard)(message.request)
        while dice.random() > haste and world.turn():
            if watch:
                for node in world.after_step:
                    check_decision(node, rules)
    while world.turn():
        if watch:
            for node in world.after_step:
                check_decision(node, rules)
    check(world, answer(facts, rules), on)


def check_decision(node: Node, rules: Rules) -> None:
    """After each step: a leader has told what its block, decided as a whole, says; and nothing that is forbidden."""
    if node.lead is None:
        return
    members = node.lead.block.evidence()
    whole = resolve(members.values(), rules).standings
    assert {s: t.standing for s, t in node.lead.told.items()} == whole, "what was told is not what the block says"
    profiles: dict[str, set[str]] = {}
    for subject, standing in whole.items():
        profiles.setdefault(standing.profile, set()).update({subject, *standing.identifiers})
    for nodes in profiles.values():
        names = [n.split(":")[0] for n in nodes]
        for name, namespace in rules.namespaces.items():
            assert not namespace.unique or names.count(name) <= 1, "two unique values in one profile"
        for n in nodes & members.keys():
            assert not nodes & set(members[n].cannot) - {n}, "a pair that was told apart is in one profile"


def check(world: World, right: Answer, on: dict[str, set[str]]) -> None:
    rules = world.rules
    nodes = {node.key: node for node in world.nodes()}
    got = {
        key: (node.standing.profile, node.standing.identifiers, node.standing.deferred)
        for key, node in nodes.items()
        if node.standing
    }
    for key in got.keys() - right.standings.keys():  # marked, and nobody ever said anything of it
        assert key in on
        assert got[key] == (key, (), ())
    assert {s: got[s] for s in got if s in right.standings} == right.standings, "standings"
    published = got.copy()
    profile, status, seqs = dict[str, str](), dict[str, str](), dict[str, int]()
    members, holders = dict[str, set[str]](), dict[str, set[str]]()
    for event in world.events:
        match event:
            case Assigned():
                assert event.was == profile.get(event.subject), "an event says another profile was before"
                assert event.seq == seqs.get(event.subject, 0) + 1, "the numbers of events have gaps"
                assert (event.change == "created") == (event.was is None)
                assert (event.change == "detail") == (event.was == event.standing.profile)
                assert event.cause, "an event without a cause"
                profile[event.subject], seqs[event.subject] = event.standing.profile, event.seq
                published[event.subject] = (event.standing.profile, event.standing.identifiers, event.standing.deferred)
            case StatusChanged():
                assert event.status != status.get(event.node, "ok")
                status[event.node] = event.status
            case Members():
                members.setdefault(event.request, set()).update(event.added)
            case Holders():
                holders.setdefault(event.request, set()).update(event.added)
    assert published == got, "last published"
    assert profile.keys() == got.keys(), "last published"
    assert {n: s for n, s in status.items() if s != "ok"} == {n: s for n, s in right.status.items() if s != "ok"}
    for key, requests in on.items():
        for request in requests:
            assert right.group.get(key, {key}) <= members.get(request, set()), "members not reported"
            assert right.holders.get(key, set()) <= holders.get(request, set()), "holders not reported"
    for node in nodes.values():
        rank = rules.of(node.key).rank
        assert node.home == node.key or rules.of(node.home).rank < rank, "a pointer does not descend"
        assert node.home == node.key or node.lead is None, "content without a leader"


def main(arguments: Sequence[str] | None = None) -> int:
    return run_seeds(
        run, arguments, program="tests.identity.permutations", about=__doc__, runs=10_000, failures=AssertionError
    )


if __name__ == "__main__":
    sys.exit(main())

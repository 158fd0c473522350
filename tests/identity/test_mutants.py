"""Each guard of the protocol and of the decision taken away in turn: a story or a permutation must notice.

A mutant is the production source with one place changed, run beside the real one; a place that is gone or there twice fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest

from c360.identity import facts, node, resolve
from tests.identity.permutations import run
from tests.identity.stories import STORIES

SEEDS = 1000  # a mutant that lives so long is a gap in the suite; most do not live for 100

IN_NODE = {
    "overtaken leader": (
        "if me.assigned_by is not None and of(assign.leader).rank > of(me.assigned_by).rank:",
        "if False:",
    ),
    "the pointer that knew too much": (
        "if me.assigned_by is not None and of(assign.leader).rank > of(me.assigned_by).rank:",
        "if of(assign.leader).rank > of(me.home).rank:",
    ),
    "a teller's last word is not taken": (
        "of(assign.leader).rank > of(me.assigned_by).rank",
        "of(assign.leader).rank >= of(me.assigned_by).rank",
    ),
    "two tellers: the last to arrive counts": (
        "if known is None or of(told.by).rank < of(known.by).rank:",
        "if True:",
    ),
    "two tellers: the first to arrive counts": (
        "if known is None or of(told.by).rank < of(known.by).rank:",
        "if known is None:",
    ),
    "what was told is not looked at again": ("                self.near.add(subject)\n", ""),
    "what was told is not handed over": ("tuple(lead.told.items()), reported, astray)", "(), reported, astray)"),
    "contents are not handed over": ("Gather(tuple(members), self.cause", "Gather((), self.cause"),
    "contents are not passed on": ("            self.send(me.home, gather)  # contents\n", ""),
    "the cut tie": (
        "            self.send(last, Meet(first, self.cause))  # tied",
        "            if last != home:\n                self.send(last, Meet(first, self.cause))  # tied",
    ),
    "a retired leader drops a Meet": (
        "        self.unite(meet.other)",
        "        if self.me.home == self.me.key:\n            self.unite(meet.other)",
    ),
    "a pointer rises": ("if of(assign.leader).rank < of(me.home).rank:", "if True:"),
    "late redemption": ("met = old is not None and old.met", "met = old is not None"),
    "shared and hub values unite": (
        "if neighbours and neighbours.waits and mine.status == OK:",
        "if neighbours and neighbours.waits:",
    ),
    "learned the number later": (
        "sorted(after - before if same else after)",
        "sorted(after - before)",
    ),
    "versions do not rise": ("old.version + 1 if old else 1", "1"),
    "an identifier that let go of a subject counts its ids": (
        "                self._count(unique, -1)",
        "                pass",
    ),
    "only another profile is told": (
        "known.standing != standing:",
        "known.standing.profile != standing.profile:",
    ),
    "new holders are not reported": (
        "self.events += [Holders(request, me.key, (subject,)) for request in requests_of(me.marks)]",
        "pass",
    ),
    "holders there were are not reported": (
        "self.events.append(Holders(mark.request, me.key, me.neighbours.holders()))",
        "pass",
    ),
    "members are reported once": ("if added := nodes - reported:", "if not reported and (added := nodes - reported):"),
}
IN_RESOLVE = {
    "old evidence by the long way": (
        "if old is not None and old.version >= evidence.version:",
        "if False:",
    ),
    "who was left is not looked at": ("parted = [node, *near]", "parted = [node]"),
    "links stay in the index": ("                other.near.pop(node, None)\n", ""),
    "first come, first served": ("for edge in sorted(edges):", "for edge in edges:"),
    "the shared tablet lends ids": ("    if evidence.status != OK:\n        return ()\n", ""),
    "dead claims count": ("        if claim.dead:\n            continue\n", ""),
    "the later first_seen": ("min(known.first_seen, claim.first_seen)", "max(known.first_seen, claim.first_seen)"),
    "the lesser assurance": ("max(known.assurance, claim.assurance)", "min(known.assurance, claim.assurance)"),
    "limits do not hold": ("if small.counts[name] + big.counts[name] > namespace.most:", "if False:"),
    "held values do not forbid": (
        "if len(small.held[name] | big.held[name]) > rules.namespaces[name].most:",
        "if False:",
    ),
    "held values are forgotten in a union": (
        "big.held[name] = big.held.get(name, set()) | values",
        "pass",
    ),
    "cannot-links do not forbid": ("if others and any(m.nature.key in others for m in big.nodes):", "if False:"),
    "a cannot-link holds one way": ("            forbidden.setdefault(other, set()).add(node)\n", ""),
    "the short way overlooks limits": ("        if count > nature.most:\n            return False\n", ""),
    "the short way overlooks cannot-links": ("            if evidence.cannot:\n                return False\n", ""),
    "the short way overlooks held values": ("                held.update(evidence.holds)", "                pass"),
    "no quarantine": ("    if len(component) > rules.cap:\n        edges", "    if False:\n        edges"),
    "the short way overlooks quarantine": ("    if len(component) > rules.cap:\n        return False\n", ""),
    "quarantine keeps large pieces": ("        if len(nodes) <= rules.cap:", "        if True:"),
    "links to inactive identifiers are accepted": ("if not subject.near[identifier].links:", "if False:"),
    "what is shared or a hub links": ("member.links = evidence.status == OK", "member.links = True"),
}
IN_FACTS = {
    "unlink ties link": ("known >= fact.claim", "known.version >= fact.claim.version"),
    "the last to arrive wins": ("known >= fact.claim", "False"),
}


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """The module again, with one place changed."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {module.__name__}"
    made = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), f"mutant of {module.__file__}", "exec"), made.__dict__)
    return made


def node_with(changed: ModuleType) -> ModuleType:
    """The node module on top of a changed one below it; data types stay those that all others know."""
    made = mutant(node, '"""A node\'s part', '"""A mutant node\'s part')
    data = {"Claim", "Fact", "Link", "Evidence", "Standing"}
    for name in data & vars(changed).keys():
        setattr(changed, name, getattr(node, name, None) or getattr(resolve, name, None) or getattr(facts, name))
    for name in (vars(changed).keys() & vars(made).keys()) - data:
        if getattr(vars(changed)[name], "__module__", None) == changed.__name__:
            setattr(made, name, vars(changed)[name])
    return made


def killed(code: ModuleType) -> bool:
    """By a story, or by a seed."""
    checks: list[Callable[[ModuleType], None]] = [*STORIES, *(partial(run, seed) for seed in range(SEEDS))]
    for check in checks:
        try:
            check(code)
        except Exception:
            return True
    return False


@pytest.mark.parametrize("name", IN_NODE)
def test_a_guard_of_the_protocol_is_missed(name: str) -> None:
    assert killed(mutant(node, *IN_NODE[name]))


@pytest.mark.parametrize("name", IN_RESOLVE)
def test_a_guard_of_the_decision_is_missed(name: str) -> None:
    assert killed(node_with(mutant(resolve, *IN_RESOLVE[name])))


@pytest.mark.parametrize("name", IN_FACTS)
def test_a_guard_of_the_facts_is_missed(name: str) -> None:
    assert killed(node_with(mutant(facts, *IN_FACTS[name])))


def test_what_makes_mutants_leaves_the_rest_as_it_is() -> None:
    for module in (resolve, facts):
        code = node_with(mutant(module, "from __future__ import annotations", "from __future__ import annotations  #"))
        for seed in range(50):
            run(seed, code)

"""Who is one customer, written down naively from IDENTITY.md §3: all facts at once, no blocks, everything counted anew.

Imports of c360.identity only what facts and namespaces are; decides nothing with its code. Takes seconds for 100,000
links of components of a few nodes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from c360.identity.facts import Fact
from c360.identity.namespace import Namespace
from c360.identity.rules import Rules
from c360.testing.oracle.links import says_nothing


@dataclass(frozen=True)
class Answer:
    """Per subject (profile, accepted identifiers, deferred with reasons); per node its status and its profile's nodes."""

    standings: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]]
    status: dict[str, str]
    group: dict[str, frozenset[str]]
    holders: dict[str, frozenset[str]]  # identifier → subjects with a live link


Pair = tuple[str, str]


def kind_of(key: str, rules: Rules) -> Namespace | None:
    """The namespace of a key that may link or forbid; None: undeclared or blocked."""
    name, value = key.split(":", 1)
    if name not in rules.namespaces:
        return None
    return None if says_nothing(value, rules.blocked) else rules.namespaces[name]


def answer(facts: Iterable[Fact], rules: Rules) -> Answer:
    newest: dict[tuple[str, str, str, str], tuple[int, bool, int, int]] = {}
    for f in facts:
        claim = (f.claim.version, f.claim.dead, f.claim.first_seen, f.claim.assurance)
        slot = (f.subject, f.kind, f.other, f.source)
        newest[slot] = max(claim, newest.get(slot, claim))

    subjects = {
        s for s, *_ in newest if s.split(":")[0] in rules.namespaces and rules.namespaces[s.split(":")[0]].subject
    }
    # Subject, identifier → first_seen, assurance of each claim
    seen: dict[Pair, list[tuple[int, int]]] = defaultdict(list)
    holds: dict[str, set[str]] = defaultdict(set)
    apart: set[frozenset[str]] = set()
    for (subject, kind, other, _), (_, dead, first_seen, assurance) in newest.items():
        if dead or subject not in subjects:
            continue
        if kind == "cannot":
            apart.add(frozenset((subject, other)))
            continue
        namespace = kind_of(other, rules)
        if namespace is None or namespace.subject or kind_of(subject, rules) is None:
            continue
        if namespace.links:
            seen[subject, other].append((first_seen, assurance))
        else:
            holds[subject].add(other)

    def unique(key: str) -> bool:
        return rules.namespaces[key.split(":")[0]].unique

    def status(key: str, neighbours: int, uniques: set[str]) -> str:
        namespace = rules.namespaces[key.split(":")[0]]
        if namespace.hub_at is not None and neighbours > namespace.hub_at:
            return "hub"
        counts = Counter(u.split(":")[0] for u in uniques)
        if namespace.shared_at is not None and any(c >= namespace.shared_at for c in counts.values()):
            return "shared"
        return "ok"

    links: dict[str, set[str]] = defaultdict(set)
    holders: dict[str, set[str]] = defaultdict(set)
    for subject, identifier in seen:
        links[subject].add(identifier)
        holders[identifier].add(subject)

    statuses: dict[str, str] = {}
    lends: dict[str, set[str]] = {}
    for subject in subjects:
        mine = links[subject]
        uniques = {k for k in mine | ({subject} if kind_of(subject, rules) else set()) if unique(k)}
        statuses[subject] = status(subject, len(mine), uniques)
        lends[subject] = uniques if statuses[subject] == "ok" else set()
    for identifier, those in holders.items():
        statuses[identifier] = status(identifier, len(those), set().union(*(lends[s] for s in those)))

    reasons: dict[Pair, str] = {}
    active: set[Pair] = set()
    for subject, identifier in seen:
        if statuses[subject] != "ok":
            reasons[subject, identifier] = f"subject_{statuses[subject]}"
        elif statuses[identifier] != "ok":
            reasons[subject, identifier] = "identifier_inactive"
        else:
            active.add((subject, identifier))
    for nodes in components(active):
        if len(nodes) > rules.cap:
            inside = {e for e in active if e[0] in nodes}
            active -= inside
            reasons.update(dict.fromkeys(inside, "quarantine"))
            strong = {e for e in inside if unique(e[1])}
            for piece in components(strong):
                if len(piece) <= rules.cap:
                    kept = {e for e in strong if e[0] in piece}
                    active |= kept
                    for e in kept:
                        del reasons[e]

    def order(edge: Pair) -> tuple[int, int, int, str, str]:
        first_seen, assurance = min(f for f, _ in seen[edge]), max(a for _, a in seen[edge])
        return rules.namespaces[edge[1].split(":")[0]].priority, -assurance, first_seen, edge[1], edge[0]

    group = {n: frozenset((n,)) for n in statuses}
    for edge in sorted(active, key=order):
        one, two = group[edge[0]], group[edge[1]]
        if one == two:
            continue
        reason = objection(one, two, rules, holds, apart)
        if reason:
            reasons[edge] = reason
        else:
            group.update(dict.fromkeys(one | two, one | two))

    standings = {}
    for subject in subjects:
        label = min((rules.namespaces[n.split(":")[0]].priority, n) for n in group[subject] if n in subjects)
        mine = links[subject]
        accepted = tuple(sorted(i for i in mine if (subject, i) not in reasons))
        refused = tuple((i, reasons[subject, i]) for i in sorted(mine) if (subject, i) in reasons)
        standings[subject] = (label[1], accepted, refused)
    return Answer(standings, statuses, group, {i: frozenset(s) for i, s in holders.items()})


def objection(
    one: frozenset[str], two: frozenset[str], rules: Rules, holds: dict[str, set[str]], apart: set[frozenset[str]]
) -> str | None:
    """Why two groups may not become one; limits of nodes before those of held values, by name, before cannot-links."""
    for name, namespace in sorted(rules.namespaces.items()):
        here, there = ({n for n in g if n.startswith(name + ":")} for g in (one, two))
        if here and there and len(here | there) > (1 if namespace.unique else namespace.limit):
            return f"{'unique' if namespace.unique else 'limit'}:{name}"
    for name, namespace in sorted(rules.namespaces.items()):
        here, there = ({v for n in g for v in holds.get(n, ()) if v.startswith(name + ":")} for g in (one, two))
        if here and there and len(here | there) > namespace.limit:
            return f"limit:{name}"
    if any(frozenset((a, b)) in apart for a in one for b in two):
        return "cannot_link"
    return None


def components(edges: set[Pair]) -> list[set[str]]:
    beside: dict[str, set[str]] = defaultdict(set)
    for one, two in edges:
        beside[one].add(two)
        beside[two].add(one)
    found: list[set[str]] = []
    left = set(beside)
    while left:
        nodes: set[str] = set()
        new = {left.pop()}
        while new:
            nodes |= new
            new = {n for node in new for n in beside[node]} - nodes
        left -= nodes
        found.append(nodes)
    return found

"""Link facts of an app as one rule set sees them: read from `{app}.links` once, decided by `resolve`, and looked up.

What it says is what the identity agent comes to when it has read as far. Keys are nodes, twins included
(docs/decisions/0013); what leaves these rooms is `shown`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from c360.agents.wire import ACTOR, REASON
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster, Headers
from c360.errors import Misfit, NeedsOperator, UsageError
from c360.governance.names import Names
from c360.identity.facts import LINK, OPERATORS, Claim, Fact, Kind, decode_fact, encode_fact, join
from c360.identity.namespace import TWIN
from c360.identity.resolve import Evidence, Standing, resolve
from c360.identity.rules import OK, Key, Rules
from c360.identity.whole import Said, evidence_of
from c360.ops.profiles import NO_NAMES, normalized
from c360.plan import OPERATOR, Identity, Plan

_ANY_VALUE = encode_fact(Fact("", LINK, "", "", Claim(0)))[1]


# -------------------------------------------------------------------------------------------------------------- facts
class Note(NamedTuple):
    """Why an operator said something, and who."""

    reason: str
    actor: str


Slot = tuple[Key, Kind, Key]
"""Subject, kind, other."""


class Place(NamedTuple):
    """Where a record lies: the partition, of how many."""

    partition: int
    partitions: int


@dataclass
class Facts:
    """The newest claims of all facts, notes of operators, and how many records were no facts."""

    said: Said = field(default_factory=dict)
    notes: dict[Slot, Note] = field(default_factory=dict)
    unreadable: int = 0

    def take(self, key: bytes | None, value: bytes | None, place: Place, headers: Headers | None = None) -> None:
        """One record of the topic; the last of a partition comes last."""
        try:
            fact = decode_fact(key or b"", _ANY_VALUE if value is None else value)
            if partition_of(fact.subject.encode(), place.partitions) != place.partition:
                raise ValueError("it lies where its subject does not")
        except (ValueError, NeedsOperator):  # msgspec's errors are ValueErrors; the agent puts such aside
            self.unreadable += 1
            return
        if value is None:  # somebody has tidied it away
            self.said.get(fact.subject, {}).pop((fact.kind, fact.other, fact.source), None)
            return
        if join(self.said.setdefault(fact.subject, {}), fact) and headers:
            texts = {name: text.decode(errors="replace") for name, text in headers}
            self.notes[fact.subject, fact.kind, fact.other] = Note(texts.get(REASON, ""), texts.get(ACTOR, ""))

    def having(self, facts: Iterable[Fact]) -> Facts:
        """These and some more; the claims of others are shared."""
        said = dict(self.said)
        for fact in facts:
            claims = said[fact.subject] = dict(said.get(fact.subject, {}))
            join(claims, fact)
        return Facts(said, self.notes, self.unreadable)

    def __iter__(self) -> Iterator[Fact]:
        for subject, claims in self.said.items():
            for (kind, other, source), claim in claims.items():
                yield Fact(subject, kind, other, source, claim)


def read_facts(plan: Plan, cluster: Cluster) -> Facts:
    """The topic, once. An app whose workers never ran has none: no facts."""
    facts = Facts()
    count = cluster.admin().topics().get(plan.links)
    if count is None:
        return facts
    said_by_operators = f"|{OPERATORS}".encode()
    reader = cluster.reader()
    try:
        for batches in reader.read(reader.starts([TP(plan.links, p) for p in range(count)])):
            for batch in batches:
                place = Place(batch.tp.partition, count)
                for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                    theirs = key is not None and key.endswith(said_by_operators)
                    facts.take(key, value, place, batch.headers(i) if theirs else None)
    finally:
        reader.close()
    return facts


def chosen_rules(plan: Plan, name: str) -> Identity:
    """The rule set "risk" or "risk@2"; of several versions the newest. Raises UsageError."""
    if not plan.identities:
        raise UsageError(
            f"{plan.app!r} has no identity: none of its record types has an identifier beside its subject, so every subject"
            " is its own profile. Type such a field with a class decorated by @app.identifier"
        )
    found = [i for i in plan.identities if name in (i.name, said(i))]
    if not found:
        known = ", ".join(map(said, plan.identities))
        raise UsageError(f"there is no rule set {name!r} in {plan.app!r}; it has {known}")
    return max(found, key=lambda i: i.version)


def said(identity: Identity) -> str:
    """A rule set as typed: "risk@2"."""
    return f"{identity.name}@{identity.version}"


# -------------------------------------------------------------------------------------------------------------- graph
@dataclass(frozen=True)
class Step:
    """A live link on the way from one node to another."""

    subject: Key
    identifier: Key
    refused: str | None  # why it joins nobody


class Graph:
    """Facts, decided by rules. Keys are nodes, twins included."""

    def __init__(self, facts: Facts, rules: Rules) -> None:
        self.facts, self.rules = facts, rules
        self.evidence: Mapping[Key, Evidence] = evidence_of(facts.said, rules)
        self.standings: Mapping[Key, Standing] = resolve(self.evidence.values(), rules).standings

    @cached_property
    def holders(self) -> Mapping[Key, list[Key]]:
        """Identifier, or value that only forbids → subjects that have it by a live claim, in order."""
        found: dict[Key, list[Key]] = {}
        for subject in sorted(self.standings):
            evidence = self.evidence[subject]
            for value in (*(link.identifier for link in evidence.links), *evidence.holds):
                found.setdefault(value, []).append(subject)
        return found

    @cached_property
    def profiles(self) -> Mapping[Key, list[Key]]:
        """Profile → its subjects, in the order of their labels."""
        found: dict[Key, list[Key]] = {}
        for subject, standing in self.standings.items():
            found.setdefault(standing.profile, []).append(subject)
        for subjects in found.values():
            subjects.sort(key=lambda s: self.rules.of(s).label)
        return found

    @cached_property
    def profile_of(self) -> Mapping[Key, Key]:
        """The profile of every subject, and of every identifier that is in one."""
        found = {}
        for subject, standing in self.standings.items():
            found[subject] = standing.profile
            found.update(dict.fromkeys(standing.identifiers, standing.profile))
        return found

    def identifiers(self, profile: Key) -> list[Key]:
        """The identifiers of a profile."""
        return sorted({i for s in self.profiles.get(profile, ()) for i in self.standings[s].identifiers})

    def refused(self, subject: Key) -> Mapping[Key, str]:
        standing = self.standings.get(subject)
        return dict(standing.deferred) if standing is not None else {}

    def sources(self, subject: Key, kind: Kind, other: Key) -> list[tuple[str, Claim]]:
        """Who says it, by a live claim."""
        claims = self.facts.said.get(subject, {})
        return sorted(
            (source, claim) for (k, o, source), claim in claims.items() if (k, o) == (kind, other) and not claim.dead
        )

    def steps(self, node: Key) -> Iterator[tuple[Key, Step]]:
        """All live links of a node, with the other end."""
        evidence = self.evidence.get(node)
        if evidence is None:
            return
        if node in self.standings:
            refused = self.refused(node)
            for link in evidence.links:
                yield link.identifier, Step(node, link.identifier, refused.get(link.identifier))
            return
        for subject in self.holders.get(node, ()):
            yield subject, Step(subject, node, self.refused(subject).get(node))

    def path(self, a: Key, b: Key) -> list[Step] | None:
        """The way from one node to another over the fewest refused links, of these the shortest; None: there is none."""
        best: dict[Key, tuple[int, int]] = {a: (0, 0)}
        came: dict[Key, tuple[Key, Step]] = {}
        queue = [(0, 0, a)]
        while queue:
            refusals, length, node = heapq.heappop(queue)
            if node == b:
                way = []
                while node != a:
                    node, step = came[node]
                    way.append(step)
                return way[::-1]
            if (refusals, length) > best[node]:
                continue
            for other, step in self.steps(node):
                cost = (refusals + (step.refused is not None), length + 1)
                if other not in best or cost < best[other]:
                    best[other], came[other] = cost, (node, step)
                    heapq.heappush(queue, (*cost, other))
        return None

    def components(self) -> Iterator[list[Key]]:
        """Nodes that links connect, of those that may link; refused by limits or not. Single ones are left out."""
        seen: set[Key] = set()
        for start in self.standings:
            if start in seen or self.evidence[start].status != OK:
                continue
            seen.add(start)
            nodes = [start]
            for node in nodes:  # grows on the way
                for other, _ in self.steps(node):
                    if other not in seen and self.evidence[other].status == OK:
                        seen.add(other)
                        nodes.append(other)
            if len(nodes) > 1:
                yield nodes


# -------------------------------------------------------------------------------------------------------------- names
def label_of(plan: Plan, typed: str, names: Names = NO_NAMES) -> Key:
    """The node of an identifier as typed: the subject, where its namespace names subjects. Raises UsageError."""
    if typed.startswith(f"{OPERATOR}:"):
        return typed
    try:
        return normalized(plan, typed, names)
    except Misfit as misfit:
        raise UsageError(f"{typed!r} identifies nobody: {misfit}") from None


def is_own(step: Step) -> bool:
    """Whether a step is a subject's link to its own twin, which is nothing to the world."""
    return step.identifier == TWIN + step.subject

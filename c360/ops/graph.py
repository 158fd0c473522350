"""Who is who by a rule set, computed from all facts at once; questions that people ask of it.

Pure: no topics, no clock. Twins (docs/decisions/0013) are shown as what they are of. Takes seconds for 100,000 facts.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from c360.identity.facts import CANNOT, LINK, Claims
from c360.identity.namespace import TWIN
from c360.identity.resolve import Evidence, describe, lent, resolve
from c360.identity.rules import OK, Key, Rules, spread_of

Facts = dict[Key, Claims]
"""The newest claims, by subject."""


def shown(key: Key) -> str:
    """A node as people know it."""
    return key.removeprefix(TWIN)


class Link(NamedTuple):
    """A live link: what its sources say, and why it joins nobody, if it does not."""

    subject: str
    identifier: str
    sources: tuple[str, ...]
    first_seen: int
    refused: str | None


class Inactive(NamedTuple):
    """A node that links nobody, and how many it would join."""

    node: str
    status: str
    neighbours: int


class Said(NamedTuple):
    """Something that forbids: a value of an attribute, or another subject."""

    subject: str
    other: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """One customer."""

    id: str
    subjects: tuple[str, ...]
    identifiers: tuple[str, ...]


class Graph:
    """The decision of one rule set over all facts."""

    def __init__(self, facts: Facts, rules: Rules) -> None:
        self.facts, self.rules = facts, rules
        self.evidence = _evidence(facts, rules)
        self.resolution = resolve(self.evidence.values(), rules)
        self._groups = [frozenset(m.nature.key for m in group) for group in self.resolution.groups]
        self._group = {node: n for n, group in enumerate(self._groups) for node in group}

    # ------------------------------------------------------------------------------------------------------ nodes
    def node(self, label: Key) -> Key | None:
        """The node of an identifier as typed: the subject, else the identifier; None if nobody has a link with it."""
        for key in (label, TWIN + label):
            if key in self.evidence:
                return key
        return None

    def holders(self, label: Key) -> list[Key]:
        """Other subjects with a live claim of this identifier, whether it joins them or not."""
        found = {s for key in (label, TWIN + label) for s in self.said_with.get(key, ())}
        return sorted(found - {label})

    @cached_property
    def said_with(self) -> Mapping[Key, list[Key]]:
        """By identifier the subjects with a live claim of it; also of values that rules do not look at."""
        found: dict[Key, list[Key]] = defaultdict(list)
        for subject in self.facts:
            if self.rules.of(subject).subject:
                for identifier in self._claimed(subject):
                    found[identifier].append(subject)
        return found

    def _claimed(self, subject: Key) -> set[Key]:
        claims = self.facts.get(subject, {})
        return {other for (kind, other, _), claim in claims.items() if kind == LINK and not claim.dead}

    def members(self, node: Key) -> frozenset[Key]:
        """The nodes of its profile; of a subject without facts, itself."""
        number = self._group.get(node)
        return frozenset((node,)) if number is None else self._groups[number]

    def profile(self, node: Key) -> Profile | None:
        """None: an identifier that is in nobody's profile."""
        members = self.members(node)
        subjects = sorted(m for m in members if self.rules.of(m).subject)
        if not subjects:
            return None
        standing = self.resolution.standings.get(subjects[0])
        identifiers = {shown(m) for m in members} - set(subjects)
        return Profile(standing.profile if standing else subjects[0], tuple(subjects), tuple(sorted(identifiers)))

    def profiles(self, nodes: Iterable[Key]) -> list[Profile]:
        """Theirs, each once."""
        found = {p.id: p for node in nodes if (p := self.profile(node)) is not None}
        return [found[id] for id in sorted(found)]

    def everybody(self) -> Iterator[Profile]:
        for group in self._groups:
            profile = self.profile(next(iter(group)))
            if profile is not None:
                yield profile

    # ------------------------------------------------------------------------------------------------------ links
    def refused(self, subject: Key, identifier: Key) -> str | None:
        """Why a live link joins nobody; None if it does."""
        deferred = self._deferred(subject)
        if identifier in deferred:
            return deferred[identifier]
        return None if identifier in self.evidence else self.unseen(identifier)

    def _deferred(self, subject: Key) -> Mapping[Key, str]:
        standing = self.resolution.standings.get(subject)
        return dict(standing.deferred) if standing is not None else {}

    def unseen(self, identifier: Key) -> str:
        """Why rules do not look at a value: `undeclared`, `forbids` (an attribute that links nobody), or `blocked`."""
        nature = self.rules.of(identifier)
        if nature.name == "":
            return "undeclared"
        return "forbids" if nature.holds else "blocked"

    def links(self, subject: Key) -> list[Link]:
        """All live links of a subject as people know them: that it is its own twin is no news."""
        deferred = self._deferred(subject)
        sources: dict[Key, list[str]] = defaultdict(list)
        seen: dict[Key, int] = {}
        for (kind, other, source), claim in self.facts.get(subject, {}).items():
            if kind == LINK and not claim.dead and not self.rules.of(other).holds:
                sources[other].append(source)
                seen[other] = min(claim.first_seen, seen.get(other, claim.first_seen))
        return [
            Link(subject, shown(other), tuple(sorted(sources[other])), seen[other], self._why(deferred, other))
            for other in sorted(sources)
            if shown(other) != subject
        ]

    def _why(self, deferred: Mapping[Key, str], identifier: Key) -> str | None:
        reason = deferred.get(identifier)
        if reason is None:
            return None if identifier in self.evidence else self.unseen(identifier)
        return reason.replace(f":{TWIN}", ":")

    def forbidding(self, subject: Key) -> list[Said]:
        """Values of attributes that only forbid."""
        found: dict[Key, list[str]] = defaultdict(list)
        for (kind, other, source), claim in self.facts.get(subject, {}).items():
            if kind == LINK and not claim.dead and self.rules.of(other).holds:
                found[other].append(source)
        return [Said(subject, other, tuple(sorted(found[other]))) for other in sorted(found)]

    @cached_property
    def apart(self) -> list[Said]:
        """All pairs of subjects that somebody says are not one customer."""
        found: dict[tuple[Key, Key], list[str]] = defaultdict(list)
        for subject, claims in self.facts.items():
            for (kind, other, source), claim in claims.items():
                if kind == CANNOT and not claim.dead:
                    found[min(subject, other), max(subject, other)].append(source)
        return [Said(*pair, tuple(sorted(found[pair]))) for pair in sorted(found)]

    def inactive(self, nodes: Iterable[Key]) -> list[Inactive]:
        """Those of these nodes that link nobody because of how many they would join; most neighbours first."""
        found = [
            Inactive(shown(node), evidence.status, self._degree(node))
            for node in set(nodes)
            if (evidence := self.evidence.get(node)) is not None and evidence.status != OK
        ]
        return sorted(found, key=lambda one: (-one.neighbours, one.node))

    def _degree(self, node: Key) -> int:
        evidence = self.evidence[node]
        return len(evidence.links) if self.rules.of(node).subject else len(self.said_with[node])

    # ------------------------------------------------------------------------------------------------------- ways
    def way(self, start: Key, end: Key) -> list[Link]:
        """The links between two nodes: a way with the fewest refused ones, and of those a shortest. [] without any."""
        best: dict[Key, tuple[int, int]] = {start: (0, 0)}
        came: dict[Key, Key] = {}
        queue = [(0, 0, start)]
        while queue:
            refused, length, here = heapq.heappop(queue)
            if (refused, length) > best[here]:
                continue
            if here == end:
                break
            for there, cost in self._steps(here):
                reached = refused + cost, length + 1
                if there not in best or reached < best[there]:
                    best[there], came[there] = reached, here
                    heapq.heappush(queue, (*reached, there))
        if end not in came:
            return []
        nodes = [end]
        while nodes[-1] != start:
            nodes.append(came[nodes[-1]])
        return [
            self.link(*pair)
            for pair in zip(nodes[::-1], nodes[-2::-1], strict=False)
            if shown(pair[0]) != shown(pair[1])
        ]

    def _steps(self, node: Key) -> Iterator[tuple[Key, int]]:
        """What live claims connect with a node, and 1 where the link is refused. What only forbids connects nobody."""
        of = self.rules.of
        if of(node).subject:
            deferred = self._deferred(node)
            for identifier in self._claimed(node):
                if not of(identifier).holds:
                    yield identifier, identifier in deferred or identifier not in self.evidence
            return
        for subject in self.said_with.get(node, ()):
            yield subject, self.refused(subject, node) is not None

    def link(self, one: Key, two: Key) -> Link:
        """The link of two neighbours."""
        subject, identifier = (one, two) if self.rules.of(one).subject else (two, one)
        return next(found for found in self.links(subject) if found.identifier == shown(identifier))

    def tree(self, node: Key) -> list[Link]:
        """Links that together connect the profile of a node, from its leading subject on: as few as do."""
        profile = self.profile(node)
        if profile is None:
            return []
        members, start = self.members(node), profile.id
        seen, queue, found = {start}, [start], []
        for here in queue:  # grows on the way
            for there, refused in sorted(self._steps(here)):
                if there in members and not refused and there not in seen:
                    seen.add(there)
                    queue.append(there)
                    if shown(here) != shown(there):
                        found.append(self.link(here, there))
        return found

    # ------------------------------------------------------------------------------------------------------ wholes
    def quarantined(self) -> list[list[Key]]:
        """Connected components with more nodes than the rules' cap."""
        if self.resolution.largest <= self.rules.cap:
            return []
        left = {node for node, evidence in self.evidence.items() if evidence.status == OK}
        found = []
        while left:
            queue = [left.pop()]
            for here in queue:  # grows on the way
                evidence = self.evidence[here]
                near = (
                    [link.identifier for link in evidence.links]
                    if self.rules.of(here).subject
                    else self.said_with[here]
                )
                for there in near:
                    if there in left:
                        left.remove(there)
                        queue.append(there)
            if len(queue) > self.rules.cap:
                found.append(sorted(queue))
        return sorted(found, key=lambda nodes: (-len(nodes), nodes))

    def refusals(self) -> Mapping[str, list[tuple[str, str]]]:
        """By reason the links that join nobody: (subject, identifier)."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for subject in sorted(self.resolution.standings):
            for identifier, reason in self.resolution.standings[subject].deferred:
                if shown(identifier) != subject:
                    found[reason.replace(f":{TWIN}", ":")].append((subject, shown(identifier)))
        return found


def _evidence(facts: Facts, rules: Rules) -> dict[Key, Evidence]:
    """Of all nodes, as the nodes themselves would say it."""
    of = rules.of
    evidence: dict[Key, Evidence] = {}
    degrees: Counter[Key] = Counter()
    uniques: dict[Key, set[Key]] = defaultdict(set)
    for subject, claims in facts.items():
        if not of(subject).subject:
            continue
        said = evidence[subject] = describe(subject, 1, claims, (), rules)
        lends = lent(said, rules)
        for link in said.links:
            degrees[link.identifier] += 1
            uniques[link.identifier].update(lends)
    for identifier, degree in degrees.items():
        status = of(identifier).status(degree, spread_of(uniques[identifier]))
        evidence[identifier] = Evidence(identifier, 1, status)
    return evidence

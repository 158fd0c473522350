"""The decision: evidence of nodes in, profiles out. All that merges, refuses and splits is here, and nothing else decides.

A block is a set of nodes whose evidence lies together; it may be larger than it need be. Every connected component of it
is decided by itself, and a component is decided from sets alone, so the answer is the same for every block that holds
the component whole, and for every order in which its evidence came. Knows nothing of leaders and messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from c360.identity.facts import CANNOT, Claims
from c360.identity.rules import OK, Key, Nature, Rules, Status, namespace_of, spread_of


# ------------------------------------------------------------------------------------------------------------ evidence
class Link(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """All live claims of one subject and one identifier: the least first_seen, the greatest assurance."""

    identifier: Key
    first_seen: int
    assurance: int


class Evidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that others need to know of one node. Only the node itself writes it; the greater version replaces."""

    node: Key
    version: int
    status: Status
    links: tuple[Link, ...] = ()  # of a subject: live links to identifiers that may link, in their order
    cannot: tuple[Key, ...] = ()  # of a subject: others that it must not share a profile with
    holds: tuple[Key, ...] = ()  # of a subject: values of attributes that only forbid
    marks: tuple[str, ...] = ()  # standing membership requests

    def says_as(self, other: Evidence) -> bool:
        """Whether the two differ in nothing but version."""
        return (
            self.status == other.status
            and self.links == other.links
            and self.cannot == other.cannot
            and self.holds == other.holds
            and self.marks == other.marks
        )


class Standing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a subject is told of itself."""

    profile: Key
    identifiers: tuple[Key, ...]  # of its links, those inside the profile
    deferred: tuple[tuple[Key, str], ...] = ()  # and those that are not, each with the reason


def describe(subject: Key, version: int, claims: Claims, marks: tuple[str, ...], rules: Rules) -> Evidence:
    """A subject's evidence, of all its claims."""
    of = rules.of
    me = of(subject)
    links: dict[Key, Link] = {}
    holds: set[Key] = set()
    cannot: set[Key] = set()
    uniques = [subject] if me.unique else []
    for (kind, other, _), claim in claims.items():
        if claim.dead:
            continue
        if kind == CANNOT:
            cannot.add(other)
            continue
        nature = of(other)
        if not me.links or nature.subject:
            continue
        if nature.holds:
            holds.add(other)
        elif nature.links:
            known = links.get(other)
            if known is None:
                links[other] = Link(other, claim.first_seen, claim.assurance)
                if nature.unique:
                    uniques.append(other)
            else:
                links[other] = Link(
                    other, min(known.first_seen, claim.first_seen), max(known.assurance, claim.assurance)
                )
    status = me.status(len(links), spread_of(uniques))
    in_order = tuple([links[identifier] for identifier in sorted(links)])
    return Evidence(subject, version, status, in_order, tuple(sorted(cannot)), tuple(sorted(holds)), marks)


def lent(evidence: Evidence, rules: Rules) -> tuple[Key, ...]:
    """Unique ids that a subject lends to its identifiers: none while it may not link itself."""
    if evidence.status != OK:
        return ()
    of = rules.of
    uniques = [link.identifier for link in evidence.links if of(link.identifier).unique]
    return (evidence.node, *uniques) if of(evidence.node).unique else tuple(uniques)


# --------------------------------------------------------------------------------------------------------------- block
class Pairs(Protocol):
    """Which subjects of a block hold which identifiers."""

    def add(self, identifier: Key, subject: Key) -> None: ...
    def discard(self, identifier: Key, subject: Key) -> None: ...
    def of(self, identifier: Key) -> Iterable[Key]: ...
    def clear(self) -> None: ...


class BlockShelves(NamedTuple):
    """Where a block lies that is too large to be carried about whole: it is read and written by the piece."""

    evidence: MutableMapping[Key, Evidence]
    holders: Pairs


class Member:
    """A node as its block sees it: neighbours are objects, so that walking a component looks up nothing."""

    __slots__ = ("evidence", "links", "nature", "near", "seen", "whole")

    def __init__(self, nature: Nature, *, whole: bool) -> None:
        self.nature = nature
        self.evidence: Evidence | None = None  # None: linked in the block, and its own evidence is not there (yet)
        self.links = False  # whether links of it or to it count: one that is unknown is as one that is shared or a hub
        self.near: dict[Key, Member] = {}  # of a subject what it has links to, of an identifier the subjects
        self.whole = whole  # False: `near` was not fetched from the shelves yet
        self.seen = 0  # the decision that has walked here last


class Block:
    """Evidence by node, and who is linked with whom; all but the evidence follows from it.

    On shelves, `members` are those that were looked at; a step touches what its messages are about and their components.
    """

    __slots__ = ("decisions", "marked", "members", "rules", "shelves", "size")

    def __init__(self, rules: Rules, evidence: Iterable[Evidence] = (), shelves: BlockShelves | None = None) -> None:
        self.rules = rules
        self.members: dict[Key, Member] = {}
        self.marked: set[Key] = set()  # with standing requests
        self.size = 0  # nodes whose evidence is here
        self.shelves = shelves
        self.decisions = 0
        for one in evidence:
            self.put(one)

    def evidence(self) -> Mapping[Key, Evidence]:
        if self.shelves is not None:
            return self.shelves.evidence
        return {key: member.evidence for key, member in self.members.items() if member.evidence}

    def forget(self) -> None:
        """What was looked at on the shelves; it stays there."""
        if self.shelves is not None:
            self.members.clear()
            self.decisions = 0

    def member(self, node: Key) -> Member | None:
        """None: neither evidence of it nor, as far as one has looked, a link to it is here."""
        member = self.members.get(node)
        if member is None and self.shelves is not None:
            evidence = self.shelves.evidence.get(node)
            if evidence is not None:
                member = self._new(node)
                member.evidence, member.links = evidence, evidence.status == OK
        return member

    def _new(self, node: Key) -> Member:
        member = self.members[node] = Member(self.rules.of(node), whole=self.shelves is None)
        return member

    def near(self, member: Member) -> dict[Key, Member]:
        """The neighbours of a member."""
        if not member.whole:
            assert self.shelves is not None
            if not member.nature.subject:
                others = self.shelves.holders.of(member.nature.key)
            else:
                others = [link.identifier for link in member.evidence.links] if member.evidence else []
            for other in others:
                member.near[other] = self.member(other) or self._new(other)
            member.whole = True
        return member.near

    def put(self, evidence: Evidence) -> Iterable[Key]:
        """Take evidence in, if it is newer. The nodes in whose components something may be different then."""
        node = evidence.node
        member = self.member(node) or self._new(node)
        old = member.evidence
        if old is not None and old.version >= evidence.version:
            return ()
        near = member.near if member.whole else self.near(member)
        member.evidence = evidence
        member.links = evidence.status == OK
        if old is None:
            self.size += 1
        if self.shelves is not None:
            self.shelves.evidence[node] = evidence
        if evidence.marks or (old is not None and old.marks):
            (self.marked.add if evidence.marks else self.marked.discard)(node)
        parted = [node, *near]  # also those that it only now links no more
        if member.nature.subject:
            self._link(member, evidence)
        return parted

    def release(self, node: Key, marks: tuple[str, ...]) -> None:
        """Keep of a node that has no links nothing but its version: older evidence of it may be on its way."""
        member = self.member(node)
        assert member is not None
        assert member.evidence is not None
        member.evidence = Evidence(node, member.evidence.version, member.evidence.status, marks=marks)
        if self.shelves is not None:
            self.shelves.evidence[node] = member.evidence

    def drop(self, node: Key) -> None:
        """Take a node out that has no links, and to which there are none."""
        member = self.member(node)
        assert member is not None
        assert not self.near(member), "a node that is linked is dropped"
        del self.members[node]
        if self.shelves is not None:
            del self.shelves.evidence[node]
        self.marked.discard(node)
        self.size -= 1

    def _link(self, member: Member, evidence: Evidence) -> None:
        """Make what a subject is linked with, and what those know of it, as its evidence says."""
        members, near, node, shelves = self.members, member.near, evidence.node, self.shelves
        for link in evidence.links:
            if link.identifier not in near:
                other = self.member(link.identifier) or self._new(link.identifier)
                if other.whole:
                    other.near[node] = member
                near[link.identifier] = other
                if shelves is not None:
                    shelves.holders.add(link.identifier, node)
        if len(near) > len(evidence.links):
            for identifier in near.keys() - {link.identifier for link in evidence.links}:
                other = near.pop(identifier)
                other.near.pop(node, None)
                if shelves is not None:
                    shelves.holders.discard(identifier, node)
                elif not other.near and other.evidence is None:
                    del members[identifier]


def _component(block: Block, start: Member, now: int) -> list[Member]:
    """A member and all that links connect it with, each seen now."""
    start.seen = now
    queue = [start]
    if start.links:
        for here in queue:  # grows on the way
            for there in (here.near if here.whole else block.near(here)).values():
                if there.links and there.seen != now:
                    there.seen = now
                    queue.append(there)
    return queue


# ------------------------------------------------------------------------------------------------------------- resolve
Deferred = dict[tuple[Key, Key], str]
"""(subject, identifier) → why the link joins nobody."""


class Edge(NamedTuple):
    """A live link between two nodes that may link. Its order is the order of decision: properties of the set, no arrival."""

    priority: int
    doubt: int  # minus assurance
    first_seen: int
    identifier: Key
    subject: Key


@dataclass(slots=True)
class Resolution:
    """Per subject its standing; and the nodes of each profile, where an identifier of nobody is one, too."""

    standings: dict[Key, Standing] = field(default_factory=dict)
    groups: list[list[Member]] = field(default_factory=list)
    largest: int = 0  # nodes of the largest component


def resolve(evidence: Iterable[Evidence], rules: Rules) -> Resolution:
    """Decide all of it."""
    block = Block(rules, evidence)
    return decide(block, block.members)


def decide(block: Block, near: Iterable[Key]) -> Resolution:
    """Decide those components that hold one of these nodes; nodes outside the block are passed over."""
    result = Resolution()
    standings = result.standings
    block.decisions = now = block.decisions + 1
    for node in near:
        member = block.member(node)
        if member is None or member.evidence is None or member.seen == now:
            continue
        component = _component(block, member, now)
        if len(component) > result.largest:
            result.largest = len(component)
        deferred: Deferred = {}
        groups = [component] if _fits(component, block.rules) else _divided(component, deferred, block.rules)
        result.groups += groups
        for group in groups:
            subjects = [m for m in group if m.nature.subject]
            if subjects:
                profile = min([m.nature.label for m in subjects])[1]
                for subject in subjects:
                    standings[subject.nature.key] = _standing(subject, profile, deferred)
    return result


def _standing(subject: Member, profile: Key, deferred: Deferred) -> Standing:
    evidence = subject.evidence
    assert evidence is not None
    if not subject.links:
        reason = f"subject_{evidence.status}"
        return Standing(profile, (), tuple([(link.identifier, reason) for link in evidence.links]))
    accepted: list[Key] = []
    refused: list[tuple[Key, str]] = []
    for link in evidence.links:
        identifier = link.identifier
        if not subject.near[identifier].links:
            refused.append((identifier, "identifier_inactive"))
        elif deferred and (evidence.node, identifier) in deferred:
            refused.append((identifier, deferred[evidence.node, identifier]))
        else:
            accepted.append(identifier)
    return Standing(profile, tuple(accepted), tuple(refused))


def _fits(component: Sequence[Member], rules: Rules) -> bool:
    """Whether a whole component breaks no rule: then no part of it does, and it is one group. Nearly all are."""
    if len(component) == 1:
        return True
    if len(component) > rules.cap:
        return False
    counts: dict[str, int] = {}
    held: set[Key] = set()
    for member in component:
        nature = member.nature
        counts[nature.name] = count = counts.get(nature.name, 0) + 1
        if count > nature.most:
            return False
        if nature.subject and (evidence := member.evidence):
            if evidence.cannot:
                return False
            if evidence.holds:
                held.update(evidence.holds)
    return not held or all(count <= rules.namespaces[n].most for n, count in Counter(map(namespace_of, held)).items())


@dataclass(slots=True)
class _Group:
    nodes: list[Member]
    counts: dict[str, int]  # nodes by namespace
    held: dict[str, set[Key]]  # values of attributes that only forbid, by namespace


def _divided(component: Sequence[Member], deferred: Deferred, rules: Rules) -> list[list[Member]]:
    """The groups of a component, and in `deferred` why links between them were refused.

    Greedy over one total order. Constraints only tighten as groups grow, so no refused link ends up inside a group.
    """
    groups: dict[Key, _Group] = {}
    forbidden: dict[Key, set[Key]] = {}
    edges: list[Edge] = []
    for member in component:
        evidence, node = member.evidence, member.nature.key
        assert evidence is not None
        held: dict[str, set[Key]] = {}
        for value in evidence.holds:
            held.setdefault(namespace_of(value), set()).add(value)
        groups[node] = _Group([member], {member.nature.name: 1}, held)
        for other in evidence.cannot:
            forbidden.setdefault(node, set()).add(other)
            forbidden.setdefault(other, set()).add(node)
        for link in evidence.links if member.links else ():
            target = member.near[link.identifier]
            if target.links:
                edges.append(Edge(target.nature.priority, -link.assurance, link.first_seen, link.identifier, node))
    if len(component) > rules.cap:
        edges = _quarantined(edges, deferred, rules)
    for edge in sorted(edges):
        small, big = groups[edge.subject], groups[edge.identifier]
        if small is big:
            continue
        if len(small.nodes) > len(big.nodes):
            small, big = big, small
        if reason := _conflict(small, big, forbidden, rules):
            deferred[edge.subject, edge.identifier] = reason
            continue
        big.nodes += small.nodes
        for name, count in small.counts.items():
            big.counts[name] = big.counts.get(name, 0) + count
        for name, values in small.held.items():
            big.held[name] = big.held.get(name, set()) | values
        groups.update(dict.fromkeys([m.nature.key for m in small.nodes], big))
    return [group.nodes for group in {id(g): g for g in groups.values()}.values()]


def _conflict(small: _Group, big: _Group, forbidden: Mapping[Key, set[Key]], rules: Rules) -> str | None:
    """Why the two may not be one profile; of several reasons the first in this order, names sorted."""
    for name in sorted(small.counts.keys() & big.counts.keys()):
        namespace = rules.namespaces[name]
        if small.counts[name] + big.counts[name] > namespace.most:
            return f"{'unique' if namespace.unique else 'limit'}:{name}"
    for name in sorted(small.held.keys() & big.held.keys()):
        if len(small.held[name] | big.held[name]) > rules.namespaces[name].most:
            return f"limit:{name}"
    if forbidden:
        others = {other for m in small.nodes for other in forbidden.get(m.nature.key, ())}
        if others and any(m.nature.key in others for m in big.nodes):
            return "cannot_link"
    return None


def _quarantined(edges: list[Edge], deferred: Deferred, rules: Rules) -> list[Edge]:
    """What is left of a component above the cap: links to unique ids, in pieces that are not above it themselves."""
    deferred.update({(e.subject, e.identifier): "quarantine" for e in edges})
    kept: list[Edge] = []
    for nodes, piece in _pieces([e for e in edges if rules.of(e.identifier).unique]):
        if len(nodes) <= rules.cap:
            kept += piece
            for edge in piece:
                del deferred[edge.subject, edge.identifier]
    return kept


def _pieces(edges: Iterable[Edge]) -> list[tuple[set[Key], list[Edge]]]:
    """Connected pieces: their nodes, their edges."""
    of: dict[Key, tuple[set[Key], list[Edge]]] = {}
    for edge in edges:
        small = of.setdefault(edge.subject, ({edge.subject}, []))
        big = of.setdefault(edge.identifier, ({edge.identifier}, []))
        if small is not big:
            if len(small[0]) > len(big[0]):
                small, big = big, small
            big[0].update(small[0])
            big[1].extend(small[1])
            of.update(dict.fromkeys(small[0], big))
        big[1].append(edge)
    return list({id(piece): piece for piece in of.values()}.values())

"""The decision: evidence of nodes in, profiles out. All that merges, refuses and splits is here, and nothing else decides.

A block is a set of nodes whose evidence lies together; it may be larger than it need be. Every connected component of it
is decided by itself, and a component is decided from sets alone, so the answer is the same for every block that holds
the component whole, and for every order in which its evidence came. Knows nothing of leaders and messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from c360.identity.facts import CANNOT, LINK, Claim, Claims
from c360.identity.rules import OK, Key, Rules, Status, namespace_of, spread_of


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
    links: list[Link] = []
    holds: list[Key] = []
    uniques = [subject] if me.unique else []
    for other, by_source in claims.get(LINK, _NOTHING).items() if me.links else ():
        nature = of(other)
        if nature.subject or not (nature.links or nature.holds):
            continue
        live = [claim for claim in by_source.values() if not claim.dead]
        if not live:
            continue
        if nature.holds:
            holds.append(other)
            continue
        links.append(Link(other, min([c.first_seen for c in live]), max([c.assurance for c in live])))
        if nature.unique:
            uniques.append(other)
    cannot = [o for o, by_source in claims.get(CANNOT, _NOTHING).items() if not all(c.dead for c in by_source.values())]
    links.sort()
    status = me.status(len(links), spread_of(uniques))
    return Evidence(subject, version, status, tuple(links), tuple(sorted(cannot)), tuple(sorted(holds)), marks)


_NOTHING: dict[Key, dict[str, Claim]] = {}


def lent(evidence: Evidence, rules: Rules) -> tuple[Key, ...]:
    """Unique ids that a subject lends to its identifiers: none while it may not link itself."""
    if evidence.status != OK:
        return ()
    of = rules.of
    uniques = [link.identifier for link in evidence.links if of(link.identifier).unique]
    return (evidence.node, *uniques) if of(evidence.node).unique else tuple(uniques)


# --------------------------------------------------------------------------------------------------------------- block
class Block:
    """Evidence by node, and who holds what in it."""

    __slots__ = ("holders", "marked", "members")

    def __init__(self, evidence: Iterable[Evidence] = ()) -> None:
        self.members: dict[Key, Evidence] = {}
        self.holders: dict[Key, set[Key]] = {}  # identifier → subjects with a live link to it, follows from members
        self.marked: set[Key] = set()  # members with standing requests; follows from members
        for one in evidence:
            self.put(one)

    def put(self, evidence: Evidence) -> Iterable[Key]:
        """Take evidence in, if it is newer. The nodes in whose components something may be different then."""
        node = evidence.node
        old = self.members.get(node)
        if old is not None and old.version >= evidence.version:
            return ()
        self.members[node] = evidence
        if evidence.marks:
            self.marked.add(node)
        elif old is not None and old.marks:
            self.marked.discard(node)
        near = [node]
        if old is None:
            for link in evidence.links:
                self.holders.setdefault(link.identifier, set()).add(node)
            return near
        if old.links != evidence.links:
            for link in old.links:
                self._let_go(link.identifier, node)
            for link in evidence.links:
                self.holders.setdefault(link.identifier, set()).add(node)
        near += [link.identifier for link in old.links]
        if old.status != evidence.status:
            near += self.holders.get(node, ())
        return near

    def _let_go(self, identifier: Key, subject: Key) -> None:
        holders = self.holders[identifier]
        holders.discard(subject)
        if not holders:
            del self.holders[identifier]

    def linking(self, identifier: Key) -> bool:
        """Whether links to it count. One outside the block is as one that is shared or a hub."""
        evidence = self.members.get(identifier)
        return evidence is not None and evidence.status == OK

    def component(self, node: Key) -> list[Key]:
        """A node of the block and all that links connect it with."""
        members = self.members
        found = {node}
        queue = [node]
        for here in queue:  # grows on the way
            evidence = members[here]
            if evidence.status != OK:
                continue
            near: Iterable[Key] = self.holders.get(here, ())
            if evidence.links:
                near = [link.identifier for link in evidence.links]
            for other in near:
                if other not in found and (there := members.get(other)) is not None and there.status == OK:
                    found.add(other)
                    queue.append(other)
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
    groups: list[list[Key]] = field(default_factory=list)


def resolve(evidence: Iterable[Evidence], rules: Rules) -> Resolution:
    """Decide all of it."""
    block = Block(evidence)
    return decide(block, block.members, rules)


def decide(block: Block, near: Iterable[Key], rules: Rules) -> Resolution:
    """Decide those components that hold one of these nodes; nodes outside the block are passed over."""
    result = Resolution()
    standings, of = result.standings, rules.of
    seen: set[Key] = set()
    for node in near:
        if node in seen or node not in block.members:
            continue
        nodes = block.component(node)
        seen.update(nodes)
        deferred: Deferred = {}
        groups = [nodes] if _fits(block, nodes, rules) else _divided(block, nodes, deferred, rules)
        result.groups += groups
        for group in groups:
            labels = [nature.label for n in group if (nature := of(n)).subject]
            if labels:
                profile = min(labels)[1]
                for _, subject in labels:
                    standings[subject] = _standing(block, subject, profile, deferred)
    return result


def _standing(block: Block, subject: Key, profile: Key, deferred: Deferred) -> Standing:
    evidence = block.members[subject]
    if evidence.status != OK:
        reason = f"subject_{evidence.status}"
        return Standing(profile, (), tuple((link.identifier, reason) for link in evidence.links))
    accepted: list[Key] = []
    refused: list[tuple[Key, str]] = []
    for link in evidence.links:
        identifier = link.identifier
        if not block.linking(identifier):
            refused.append((identifier, "identifier_inactive"))
        elif deferred and (subject, identifier) in deferred:
            refused.append((identifier, deferred[subject, identifier]))
        else:
            accepted.append(identifier)
    return Standing(profile, tuple(accepted), tuple(refused))


def _fits(block: Block, nodes: Sequence[Key], rules: Rules) -> bool:
    """Whether a whole component breaks no rule: then no part of it does, and it is one group. Nearly all are."""
    if len(nodes) == 1:
        return True
    if len(nodes) > rules.cap:
        return False
    members, of = block.members, rules.of
    counts: dict[str, int] = {}
    held: set[Key] = set()
    for node in nodes:
        nature = of(node)
        counts[nature.name] = count = counts.get(nature.name, 0) + 1
        if count > nature.most:
            return False
        if nature.subject:
            evidence = members[node]
            if evidence.cannot:
                return False
            if evidence.holds:
                held.update(evidence.holds)
    if not held:
        return True
    return all(sum(namespace_of(k) == name for k in held) <= of(key).most for key in held for name in (of(key).name,))


@dataclass(slots=True)
class _Group:
    nodes: list[Key]
    counts: dict[str, int]  # nodes by namespace
    held: dict[str, set[Key]]  # values of attributes that only forbid, by namespace


def _divided(block: Block, nodes: Sequence[Key], deferred: Deferred, rules: Rules) -> list[list[Key]]:
    """The groups of a component, and in `deferred` why links between or inside them were refused.

    Greedy over one total order. Constraints only tighten as groups grow, so no refused link ends up inside a group.
    """
    members = block.members
    groups: dict[Key, _Group] = {}
    forbidden: dict[Key, set[Key]] = {}
    edges: list[Edge] = []
    for node in nodes:
        evidence = members[node]
        held: dict[str, set[Key]] = {}
        for value in evidence.holds:
            held.setdefault(namespace_of(value), set()).add(value)
        groups[node] = _Group([node], {namespace_of(node): 1}, held)
        for other in evidence.cannot:
            forbidden.setdefault(node, set()).add(other)
            forbidden.setdefault(other, set()).add(node)
        if evidence.status == OK:
            for identifier, first_seen, assurance in (
                (k.identifier, k.first_seen, k.assurance) for k in evidence.links
            ):
                if block.linking(identifier):
                    priority = rules.of(identifier).priority
                    edges.append(Edge(priority, -assurance, first_seen, identifier, node))
    if len(nodes) > rules.cap:
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
        groups.update(dict.fromkeys(small.nodes, big))
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
    if forbidden and any(not forbidden[n].isdisjoint(big.nodes) for n in small.nodes if n in forbidden):
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

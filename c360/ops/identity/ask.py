"""Looking at who is who: one profile and what was refused, why two are one or not, conflicts, numbers. As printed JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from c360.governance.names import Names
from c360.identity.facts import CANNOT, LINK
from c360.identity.namespace import TWIN, shown, shown_reason
from c360.identity.rules import OK, SHARED, Key, namespace_of
from c360.ops.identity.graph import Graph, Step, is_own, label_of, said
from c360.ops.profiles import NO_NAMES
from c360.plan import Identity, Plan

LISTED = 100  # of those who have one value
WARN = 200  # nodes of a component that is on its way to the cap
SIZES = (1, 2, 5, 10, 100)  # upper ends of the histogram

REASONS = {
    "subject_shared": "the subject was seen with several unique identifiers of one kind, as a shared device is",
    "subject_hub": "the subject has more identifiers than one may have",
    "identifier_inactive": "the identifier is shared or a hub, so it joins nobody",
    "quarantine": "so many are linked here that only unique identifiers join",
    "cannot_link": "an operator has separated them",
    "unique": "two of this kind are never one customer",
    "limit": "one profile would hold more of this kind than it may",
}


def meaning(reason: str) -> str:
    """A reason as a sentence, for people."""
    return REASONS[reason.partition(":")[0]]


# --------------------------------------------------------------------------------------------------------------- show
def show(plan: Plan, identity: Identity, graph: Graph, typed: str, names: Names = NO_NAMES) -> dict[str, Any]:
    """The profile of an identifier, or why there is none, with all that its subjects are linked to."""
    node = label_of(plan, typed, names)
    profile = graph.profile_of.get(node)
    twin = TWIN + node
    holders = sorted({*graph.holders.get(node, ()), *graph.holders.get(twin, ())} - {node})
    subjects = graph.profiles[profile] if profile is not None else []
    links = [
        Step(s, link.identifier, graph.refused(s).get(link.identifier))
        for s in subjects
        for link in graph.evidence[s].links
    ]
    links += [
        Step(s, other, graph.refused(s).get(other))
        for other in (node, twin)
        if other in graph.evidence
        for s in graph.holders.get(other, ())[:LISTED]
        if s not in subjects
    ]
    return {
        "identifier": node,
        "rules": said(identity),
        "status": status_of(graph, node),
        "profile": profile,
        "subjects": subjects,
        "identifiers": sorted({shown(i) for i in graph.identifiers(profile)} | {*subjects}) if profile else [],
        "links": [link_json(graph, step) for step in links if not is_own(step)],
        "forbids": [{"subject": s, "value": v} for s in subjects for v in graph.evidence[s].holds],
        "separated": separations(graph, subjects),
        "holders": holders[:LISTED],
        "holders_total": len(holders),
    }


def status_of(graph: Graph, node: Key) -> str:
    """ok, shared or hub; forbids: it joins nobody; blocked; unknown: no live fact names it."""
    nature = graph.rules.of(node)
    if not nature.links:
        return "forbids" if nature.holds else "blocked"
    found = [graph.evidence[n].status for n in (node, TWIN + node) if n in graph.evidence]
    return next((status for status in found if status != OK), OK) if found else "unknown"


def link_json(graph: Graph, step: Step) -> dict[str, Any]:
    note = graph.facts.notes.get((step.subject, LINK, step.identifier))
    return {
        "subject": step.subject,
        "identifier": shown(step.identifier),
        "status": graph.evidence[step.identifier].status,
        "refused": None if step.refused is None else shown_reason(step.refused),
        "sources": [
            {"source": source, "first_seen": claim.first_seen}
            for source, claim in graph.sources(step.subject, LINK, step.identifier)
        ],
        "reason": note.reason if note is not None else None,
        "actor": note.actor if note is not None else None,
    }


def separations(graph: Graph, subjects: Iterable[Key]) -> list[dict[str, Any]]:
    """What these subjects must not share a profile with, by live facts that either says; what both say, once."""
    wanted, said = {*subjects}, graph.facts.said
    found = []
    for subject, claims in said.items():
        for (kind, other, source), claim in claims.items():
            again = said.get(other, {}).get((CANNOT, subject, source))
            if again is not None and not again.dead and other < subject:
                continue
            if kind == CANNOT and not claim.dead and (subject in wanted or other in wanted):
                note = graph.facts.notes.get((subject, kind, other))
                found.append(
                    {"subject": subject, "other": other, "source": source, "since": claim.first_seen,
                     "reason": note.reason if note is not None else None,
                     "actor": note.actor if note is not None else None}
                )  # fmt: skip
    return sorted(found, key=lambda f: (f["subject"], f["other"], f["source"]))


# ---------------------------------------------------------------------------------------------------------------- why
def why(plan: Plan, identity: Identity, graph: Graph, a: str, b: str, names: Names = NO_NAMES) -> dict[str, Any]:
    """The chain of evidence between two; where they are not one, the refused links on the best way there is."""
    one, two = label_of(plan, a, names), label_of(plan, b, names)
    profiles = [graph.profile_of.get(node) for node in (one, two)]
    same = one == two or (profiles[0] is not None and profiles[0] == profiles[1])
    path = graph.path(one, two)
    steps = [step for step in path or [] if not is_own(step)]
    refused = [step for step in path or [] if step.refused is not None]
    return {
        "a": one,
        "b": two,
        "rules": said(identity),
        "one": same,
        "profile": profiles[0] if same else None,
        "profiles": profiles,
        "linked": path is not None,
        "chain": [link_json(graph, step) for step in steps],
        "refused": [
            {"subject": step.subject, "identifier": shown(step.identifier), "reason": shown_reason(step.refused or ""),
             "meaning": meaning(step.refused or ""), "values": _against(graph, step)}
            for step in refused
        ],
        "separated": _between(graph, one, two),
    }  # fmt: skip


def _against(graph: Graph, step: Step) -> list[str]:
    """The values for which a link was refused: of the kind that its reason names, in the profiles of both its ends."""
    kind = shown_reason(step.refused or "").partition(":")[2]
    if not kind:
        return []
    found = {shown(step.identifier)}
    for profile in (graph.profile_of.get(step.subject), graph.profile_of.get(step.identifier)):
        if profile is not None:
            subjects = graph.profiles[profile]
            found |= {*subjects, *map(shown, graph.identifiers(profile))}
            found |= {value for s in subjects for value in graph.evidence[s].holds}
    return sorted(value for value in found if namespace_of(value) == kind)


def _between(graph: Graph, one: Key, two: Key) -> list[dict[str, Any]]:
    """Facts that keep the profiles of two apart."""
    sides = []
    for node in (one, two):
        profile = graph.profile_of.get(node)
        sides.append({node} if profile is None else {*graph.profiles[profile]})
    return [
        f for f in separations(graph, sides[0])
        if (f["subject"] in sides[0] and f["other"] in sides[1]) or (f["subject"] in sides[1] and f["other"] in sides[0])
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- conflicts
def conflicts(identity: Identity, graph: Graph, *, limit: int) -> dict[str, Any]:
    """What joins nobody though facts link it: by reason, values of too many, components that are quarantined."""
    deferred: dict[str, list[tuple[Key, Key]]] = {}
    for subject, standing in graph.standings.items():
        for identifier, reason in standing.deferred:
            if identifier != TWIN + subject:
                deferred.setdefault(shown_reason(reason), []).append((subject, identifier))
    inactive = [(neighbours(graph, node), node) for node, e in graph.evidence.items() if e.status != OK]
    inactive.sort(key=lambda pair: (-pair[0], pair[1]))
    quarantined = [nodes for nodes in graph.components() if len(nodes) > graph.rules.cap]
    return {
        "rules": said(identity),
        "deferred": [
            {"reason": reason, "meaning": meaning(reason), "links": len(links),
             "examples": [{"subject": s, "identifier": shown(i)} for s, i in sorted(links)[:limit]]}
            for reason, links in sorted(deferred.items(), key=lambda item: (-len(item[1]), item[0]))
        ],
        "values_total": len(inactive),
        "values": [
            {"value": shown(node), "status": graph.evidence[node].status, "neighbours": n}
            for n, node in inactive[:limit]
        ],
        "quarantined": [
            {"nodes": len(nodes), "subjects": sum(n in graph.standings for n in nodes),
             "examples": sorted(n for n in nodes if n in graph.standings)[:limit]}
            for nodes in sorted(quarantined, key=lambda nodes: (-len(nodes), min(nodes)))
        ],
    }  # fmt: skip


def neighbours(graph: Graph, node: Key) -> int:
    """How many live links a node has, a subject's own to its twin left out."""
    if node in graph.standings:
        return sum(link.identifier != TWIN + node for link in graph.evidence[node].links)
    return sum(TWIN + subject != node for subject in graph.holders.get(node, ()))


# -------------------------------------------------------------------------------------------------------------- stats
def stats(identity: Identity, graph: Graph, *, limit: int) -> dict[str, Any]:
    """How many of everything, how large profiles are, and how far components are from their cap."""
    claims = Counter(claim.dead for said in graph.facts.said.values() for claim in said.values())
    sizes = {profile: len(subjects) for profile, subjects in graph.profiles.items()}
    largest = sorted(sizes, key=lambda p: (-sizes[p], p))[:limit]
    components = [len(nodes) for nodes in graph.components()]
    above = [n for n in components if n > graph.rules.cap]
    return {
        "rules": said(identity),
        "facts": {"live": claims[False], "dead": claims[True], "unreadable": graph.facts.unreadable},
        "subjects": len(graph.standings),
        "identifiers": sum(not key.startswith(TWIN) for key in graph.evidence) - len(graph.standings),
        "profiles": len(sizes),
        "merged_profiles": sum(n > 1 for n in sizes.values()),
        "sizes": histogram(sizes.values()),
        "largest": [
            {"profile": p, "subjects": sizes[p], "identifiers": len({*map(shown, graph.identifiers(p))} | {*graph.profiles[p]})}
            for p in largest
        ],
        "shared": _inactive(graph, SHARED),
        "hubs": _inactive(graph, "hub"),
        "deferred_links": sum(
            identifier != TWIN + subject for subject, s in graph.standings.items() for identifier, _ in s.deferred
        ),
        "quarantined": {"components": len(above), "nodes": sum(above)},
        "components": {
            "largest": max(components, default=1 if graph.standings else 0),
            "above_warning": sum(n > WARN for n in components),
            "warning": WARN,
            "cap": graph.rules.cap,
        },
    }  # fmt: skip


def _inactive(graph: Graph, status: str) -> dict[str, int]:
    nodes = [node for node, evidence in graph.evidence.items() if evidence.status == status]
    subjects = sum(node in graph.standings for node in nodes)
    return {"identifiers": len(nodes) - subjects, "subjects": subjects}


def histogram(sizes: Iterable[int]) -> list[dict[str, int | None]]:
    """How many profiles have so many subjects. `to` None: and more."""
    found = Counter(next((i for i, most in enumerate(SIZES) if n <= most), len(SIZES)) for n in sizes)
    starts = [1, *(n + 1 for n in SIZES)]
    return [
        {"from": starts[i], "to": SIZES[i] if i < len(SIZES) else None, "profiles": found[i]}
        for i in range(len(SIZES) + 1)
    ]

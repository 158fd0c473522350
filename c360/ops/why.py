"""Why a profile is as it is: what joins its subjects, and which records each of its values comes from.

Computed from the topics as they are: link facts, decided anew, and the governed records of the profile's subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from c360.agents.sealing import sealed_types
from c360.agents.wire import Governed, governed_decoder, governed_type
from c360.clock import DAY_MS, system
from c360.codecs.record import Record
from c360.declare import AttributeDeclaration, ProjectionDeclaration, Source
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.governance.names import Names
from c360.identity.rules import Key
from c360.ops.identity.ask import link_json
from c360.ops.identity.graph import Graph, Step, is_own, read_facts
from c360.ops.profiles import NO_NAMES, find_profile, normalized, shut
from c360.ops.records import records
from c360.plan import Plan
from c360.profile.attribute import Attribute

LISTED = 20  # records of one attribute


@dataclass(frozen=True)
class Part:
    """What one live record gives to an attribute. `rank`: of its source among the attribute's."""

    subject: str
    source: str
    record: str  # its type
    id: str | None
    at: int
    rank: int
    value: Any

    def to_json(self) -> dict[str, Any]:
        return {"subject": self.subject, "source": self.source, "type": self.record, "id": self.id, "at": self.at}


def explain(
    plan: Plan,
    cluster: Cluster,
    projection: ProjectionDeclaration,
    typed: str,
    attribute: str | None,
    names: Names = NO_NAMES,
) -> dict[str, Any] | None:
    """None where no profile has the identifier. Raises UsageError for an unknown attribute."""
    plan = plan.at(projection.govern)
    known = [a.name for a in projection.attributes]
    if attribute is not None and attribute not in known:
        raise UsageError(f"{projection.agent} has no attribute {attribute!r}; it has {', '.join(known)}")
    found = find_profile(plan, cluster, projection, typed, names)
    if found is None:
        return None
    identity = plan.identity_of(projection)
    graph = None if identity is None else Graph(read_facts(plan.at(identity.govern), cluster), identity.rules)
    subjects = members(graph, normalized(plan, typed, names), found["profile_id"])
    chosen = [
        (a, d)
        for a, d in zip(projection.attributes, projection.declarations, strict=True)
        if attribute in (None, a.name)
    ]
    parts = read_parts(plan, cluster, [d for _, d in chosen], subjects)
    return {
        "identifier": normalized(plan, typed, names),
        "projection": projection.agent,
        "profile_id": found["profile_id"],
        "subjects": subjects,
        "links": [] if graph is None else [link_json(graph, step) for step in tree(graph, found["profile_id"])],
        "explained": [
            _explained(a, d, found["attributes"].get(a.name), own) for (a, d), own in zip(chosen, parts, strict=True)
        ],
    }


def members(graph: Graph | None, label: Key, profile: Key) -> list[Key]:
    """The subjects of a profile; it is found by the identifier, if facts and profile are not of one moment."""
    if graph is None:
        return [profile]
    known = graph.profile_of.get(label, graph.profile_of.get(profile, profile))
    return graph.profiles.get(known, [profile])


def tree(graph: Graph, profile: Key) -> list[Step]:
    """Accepted links that connect all subjects of a profile, each on the shortest way from the one that names it."""
    came: dict[Key, tuple[Key, Step]] = {}
    seen = {profile}
    queue = [profile]
    for node in queue:  # grows on the way
        for other, step in graph.steps(node):
            if step.refused is None and other not in seen:
                seen.add(other)
                came[other] = node, step
                queue.append(other)
    used: dict[Step, None] = {}
    for subject in graph.profiles.get(profile, ()):
        way = []
        while subject in came:
            subject, step = came[subject]
            way.append(step)
        used.update(dict.fromkeys(reversed(way)))
    return [step for step in used if not is_own(step)]


# -------------------------------------------------------------------------------------------------------------- values
def read_parts(
    plan: Plan, cluster: Cluster, declarations: Sequence[AttributeDeclaration], subjects: Sequence[str]
) -> list[list[Part]]:
    """By attribute what live records of these subjects give; the governed topics are read once, where they may lie."""
    parts: list[list[Part]] = [[] for _ in declarations]
    wanted = {i.record for d in declarations for i in d.inputs}
    for source in plan.sources:
        if any(t.record in wanted for t in source.types):
            declared = {
                t.record.__name__: t.record for t in source.types
            }  # of governed records there are types of that name
            for subject, governed in live(plan, cluster, source, subjects):
                kind = declared[type(governed.record).__name__]
                for own, declaration in zip(parts, declarations, strict=True):
                    own += _parts(source, subject, governed, kind, declaration)
    return parts


def live(plan: Plan, cluster: Cluster, source: Source, subjects: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Governed records of these subjects that were not taken back."""
    topic = plan.governed(source)
    count = cluster.admin().topics().get(topic)
    if count is None:
        return
    keys = {s.encode(): s for s in subjects}
    decode = governed_decoder([governed_type(t) for t in sealed_types(plan, source)])
    found: dict[tuple[Any, ...], tuple[str, Governed]] = {}
    reader = cluster.reader()
    try:
        partitions = sorted({partition_of(key, count) for key in keys})
        for _, _, key, value in records(reader, reader.starts([TP(topic, p) for p in partitions])):
            if key not in keys or value is None:
                continue
            governed = decode(value)
            which = (key, governed.id) if source.kind == "rows" else (key, *governed.origin)
            if governed.sign < 0:
                found.pop(which, None)
            else:
                found[which] = keys[key], governed
    finally:
        reader.close()
    yield from found.values()


def _parts(
    source: Source, subject: str, governed: Any, kind: type[Record], declaration: AttributeDeclaration
) -> Iterator[Part]:
    """`kind`: the record's type as it is declared; that of a governed record says where it is sealed."""
    record = governed.record
    era = declaration.era(governed.at)
    if era is None:
        return
    for rank, item in enumerate(era.inputs):
        if item.record is not kind:
            continue
        if declaration.within is not None and governed.at // DAY_MS <= system() // DAY_MS - declaration.within.days:
            continue
        if era.where is not None and not era.where(record):
            continue
        if item.name is None:
            value: Any = True
        else:
            value = governed.enriched.get(item.name) if item.enriched else getattr(record, item.name)
        if value is not None and (declaration.kind != "flag" or value):
            yield Part(subject, source.name, kind.__name__, governed.id, governed.at, rank, value)


Best = Callable[[Part], Any]
DECIDES: Mapping[str, Best] = {
    # What the winning record has the greatest of; attributes that are not here are made of all records.
    "newest": lambda p: p.at,
    "first": lambda p: -p.at,
    "prefer": lambda p: (-p.rank, p.at),
    "maximum": lambda p: p.value,
}


def deciding(kind: str, parts: Sequence[Part]) -> list[Part]:
    """The records that a value comes from, newest first; of a tie all."""
    chosen = list(parts)
    if kind == "minimum" and parts:
        least = min(p.value for p in parts)
        chosen = [p for p in parts if p.value == least]
    elif kind in DECIDES and parts:
        best = max(map(DECIDES[kind], parts))
        chosen = [p for p in parts if DECIDES[kind](p) == best]
    return sorted(chosen, key=lambda p: (-p.at, p.subject, p.source, p.id or ""))


def _explained(
    attribute: Attribute, declaration: AttributeDeclaration, value: Any, parts: Sequence[Part]
) -> dict[str, Any]:
    chosen = deciding(declaration.kind, parts)
    return {
        "attribute": attribute.name,
        "rule": declaration.kind,
        "inputs": [str(i) for i in declaration.inputs],
        "value": shut(value),
        "records_total": len(chosen),
        "records": [part.to_json() for part in chosen[:LISTED]],
    }

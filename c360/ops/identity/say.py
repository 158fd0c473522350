"""What an operator says of who is who: two subjects are not one customer, or are. Facts like those of sources, undoable.

Computed first: what it would change. Written only when told to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from c360.agents.wire import ACTOR, REASON
from c360.engine.partition import partition_of
from c360.engine.transport import Cluster
from c360.errors import UsageError
from c360.governance.names import TENANT, Names, is_veiled
from c360.identity.facts import OPERATORS, Claim, Fact, cannot, encode_fact, link
from c360.identity.namespace import shown_reason
from c360.identity.rules import Key, namespace_of
from c360.ops.audit import Told
from c360.ops.identity.graph import Facts, Graph, label_of
from c360.ops.profiles import NO_NAMES
from c360.ops.records import Message
from c360.plan import OPERATOR, Identity, Plan, tenanted

What = Literal["separate", "join"]
SEVERAL = 10  # subjects that are named where one is to be chosen


@dataclass(frozen=True)
class Profile:
    """A profile and its subjects, as it is or would be."""

    profile: Key
    subjects: tuple[Key, ...]


@dataclass(frozen=True)
class Saying:
    """Facts to be written, and what they change."""

    what: What
    undo: bool
    subjects: tuple[Key, Key]
    facts: tuple[Fact, ...]
    before: tuple[Profile, ...]  # profiles of the two and of all that changes
    after: tuple[Profile, ...]
    notes: tuple[str, ...]


def plan_saying(
    plan: Plan,
    identity: Identity,
    facts: Facts,
    what: What,
    typed: tuple[str, str],
    *,
    undo: bool,
    now_ms: int,
    names: Names = NO_NAMES,
) -> Saying:
    """What is to be written, and what profiles there are then. Raises UsageError where the two are not two subjects or of
    two tenants, or there is nothing to undo."""
    graph = Graph(facts, identity.rules)
    one, two = sorted(subject_of(plan, graph, name, names) for name in typed)
    if one == two:
        raise UsageError(f"{typed[0]} and {typed[1]} are both {one}, so there is nothing to {what}")
    if not undo:
        _refuse_across(plan, what, typed, graph, names)
    said = separating(one, two) if what == "separate" else joining(one, two)
    known = [facts.said.get(f.subject, {}).get((f.kind, f.other, f.source)) for f in said]
    if undo and not any(claim is not None and not claim.dead for claim in known):
        raise UsageError(f"no operator has said to {what} {one} and {two}, or it was undone: there is nothing to undo")
    versions = [now_ms if claim is None else max(now_ms, claim.version + 1) for claim in known]
    new = tuple(
        Fact(f.subject, f.kind, f.other, f.source, Claim(version, dead=undo, first_seen=0 if undo else now_ms))
        for f, version in zip(said, versions, strict=True)
    )
    then = Graph(facts.having(new), identity.rules)
    before, after = differences(graph, then, (one, two))
    return Saying(what, undo, (one, two), new, before, after, _notes(plan, graph, then, what, one, two, undo=undo))


def _refuse_across(plan: Plan, what: What, typed: tuple[str, str], graph: Graph, names: Names) -> None:
    """Tenants never meet, so there is nobody to separate either; what was said nevertheless can be undone."""
    kinds = tenanted(plan)
    one, two = (_tenant_of(kinds, name, subject_of(plan, graph, name, names)) for name in typed)
    if one == two:
        return
    whose = [
        f"{name} is of {f'tenant {of}' if of else 'no tenant'}" for name, of in zip(typed, (one, two), strict=True)
    ]
    remedy = (
        "they cannot be one customer" if what == "join" else "they never become one, so there is nothing to separate"
    )
    raise UsageError(f"{' and '.join(whose)}: {remedy}")


def _tenant_of(kinds: set[str], typed: str, subject: Key) -> str:
    """Whose customer it is; "" in namespaces that are nobody's. Raises UsageError for a token of which nothing else is said."""
    if namespace_of(subject) not in kinds:
        return ""
    for label in (subject, typed):
        if namespace_of(label) in kinds and not is_veiled(label):
            return label.partition(":")[2].partition(TENANT)[0]
    raise UsageError(
        f"a token does not say whose customer {typed} is: type the identifier itself, as tenant{TENANT}value"
    )


def separating(one: Key, two: Key) -> list[Fact]:
    """Said of both: whichever of them is erased, takes back what is said of the other."""
    return [cannot(one, two, OPERATORS, Claim(0)), cannot(two, one, OPERATORS, Claim(0))]


def joining(one: Key, two: Key) -> list[Fact]:
    """Two links to one value of the operators' namespace, which the two alone decide, so that it is found again."""
    pair = blake2b(f"{one}\0{two}".encode(), digest_size=8)
    value = f"{OPERATOR}:{pair.hexdigest()}"
    return [link(one, value, OPERATORS, Claim(0)), link(two, value, OPERATORS, Claim(0))]


def subject_of(plan: Plan, graph: Graph, typed: str, names: Names = NO_NAMES) -> Key:
    """The subject that is typed, or the only one that has the identifier. Raises UsageError, naming those who have it."""
    label = label_of(plan, typed, names)
    if namespace_of(label) in plan.subject_kinds:
        return label
    holders = graph.holders.get(label, [])
    if len(holders) == 1:
        return holders[0]
    if not holders:
        raise UsageError(f"nobody has {label}; name a subject, such as {_example(plan)}")
    named = ", ".join(sorted(holders)[:SEVERAL]) + (" and others" if len(holders) > SEVERAL else "")
    raise UsageError(f"{len(holders)} subjects have {label}: {named}. Name the one you mean")


def _example(plan: Plan) -> str:
    return f"{min(plan.subject_kinds)}:…"


def differences(before: Graph, after: Graph, always: Iterable[Key]) -> tuple[tuple[Profile, ...], tuple[Profile, ...]]:
    """Profiles of these subjects and of all whose profile is made up otherwise, in both."""
    touched = {*always}
    for mine, theirs in ((before, after), (after, before)):
        for profile, subjects in mine.profiles.items():
            if theirs.profiles.get(profile) != subjects:
                touched.update(subjects)
    return _profiles(before, touched), _profiles(after, touched)


def _profiles(graph: Graph, subjects: Iterable[Key]) -> tuple[Profile, ...]:
    """A subject of which no fact is known is its own profile."""
    found = {}
    for subject in subjects:
        profile = graph.profile_of.get(subject, subject)
        found[profile] = Profile(profile, tuple(graph.profiles.get(profile, (subject,))))
    return tuple(found[profile] for profile in sorted(found))


def _notes(plan: Plan, graph: Graph, then: Graph, what: What, one: Key, two: Key, *, undo: bool) -> tuple[str, ...]:
    notes = [
        f"no fact is known of {subject}: is it spelt right?" for subject in (one, two) if subject not in graph.standings
    ]
    together = _together(then, one, two)
    if what == "join" and not undo and not together:
        reasons = sorted({
            shown_reason(reason) for subject in (one, two) for other, reason in then.refused(subject).items()
            if namespace_of(other) == OPERATOR
        })  # fmt: skip
        notes.append(f"they would not be one: {', '.join(reasons) or 'one of them joins nobody'}")
    if what == "join" and undo and together:
        notes.append("they stay one: other evidence joins them; `c360 identity why` shows it, `separate` parts them")
    if what == "separate" and not undo and not _together(graph, one, two):
        notes.append("they are not one now; they will not become one either")
    if len(plan.identities) > 1:
        notes.append("it counts in all rule sets; shown is what it changes in this one")
    return tuple(notes)


def _together(graph: Graph, one: Key, two: Key) -> bool:
    return graph.profile_of.get(one, one) == graph.profile_of.get(two, two)


def told(planned: Saying, veil: Callable[[str], str] = str) -> Told:
    """What the audit log says of it. `veil`: how labels may stand there."""
    return Told(
        planned.what,
        about=tuple(map(veil, planned.subjects)),
        before={"profiles": _named(planned.before, veil)},
        after={"profiles": _named(planned.after, veil), **({"undo": "yes"} if planned.undo else {})},
    )


def _named(profiles: Sequence[Profile], veil: Callable[[str], str]) -> str:
    named = ", ".join(veil(profile.profile) for profile in profiles[:SEVERAL])
    return named + (f" and {len(profiles) - SEVERAL} more" if len(profiles) > SEVERAL else "")


def messages(plan: Plan, facts: Sequence[Fact], *, reason: str, actor: str) -> list[Message]:
    """The facts as they are written, with why and by whom. May be repeated."""
    headers = [(REASON, reason.encode()), (ACTOR, actor.encode())]
    return [
        Message(view.links, key, value, partition_of(fact.subject.encode(), plan.partitions), headers)
        for view in plan.views
        if view.deciding
        for fact in facts
        for key, value in [encode_fact(fact)]
    ]


def write(plan: Plan, cluster: Cluster, facts: Sequence[Fact], *, reason: str, actor: str) -> None:
    """Write the facts without a word in the audit log: for tests of an app."""
    producer = cluster.producer()
    for message in messages(plan, facts, reason=reason, actor=actor):
        producer.produce(*message)
    producer.flush()
    producer.close()

"""What operators see of identity, and what they say: profiles, why two are one customer, what another rule set would do.

All is decided anew by `c360.identity.resolve` from the newest claims of all link facts: it is what assignments come to
when the agents have read them. Here is the reading, the deciding and the writing; what is shown of it is in
`c360.ops.graph`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster
from c360.errors import UsageError
from c360.identity.facts import (
    CANNOT,
    LINK,
    OPERATORS,
    Claim,
    Claims,
    Fact,
    cannot,
    decode_fact,
    encode_fact,
    join,
    link,
)
from c360.identity.rules import Key
from c360.ops.graph import Facts, Graph, Profile
from c360.ops.records import records
from c360.plan import DEFAULT, OPERATOR, Identity, Plan

REASON, ACTOR = "c360-reason", "c360-actor"  # headers of what an operator says


# ------------------------------------------------------------------------------------------------------------- reading
def chosen_identity(plan: Plan, said: str | None = None) -> Identity:
    """The rule set "risk" (its newest version) or "risk@1"; without a word, `default`. Raises UsageError."""
    if not plan.identities:
        raise UsageError(
            f"{plan.app!r} has no identity: no record type has an identifier beside its subject, so every subject is a"
            " profile of its own"
        )
    wanted = said or DEFAULT
    found = [i for i in plan.identities if wanted in (i.name, named(i))]
    if not found:
        known = ", ".join(named(i) for i in plan.identities)
        raise UsageError(f"there is no rule set {wanted!r} in {plan.app!r}; it has {known}")
    return max(found, key=lambda identity: identity.version)


def named(identity: Identity) -> str:
    """As typed: `default@1`."""
    return f"{identity.name}@{identity.version}"


def read_facts(plan: Plan, cluster: Cluster) -> Facts:
    """The newest claim of each fact, by subject; the topic of links is read once. What identity puts aside is left out."""
    facts: Facts = {}
    count = cluster.admin().topics().get(plan.links)
    if count is None:
        return facts
    reader = cluster.reader()
    try:
        for tp, _, key, value in records(reader, reader.starts([TP(plan.links, p) for p in range(count)])):
            if value is None:
                continue
            try:
                fact = decode_fact(key or b"", value)
            except (ValueError, msgspec.MsgspecError):
                continue
            claims = facts.get(fact.subject)
            if claims is None:
                if partition_of(fact.subject.encode(), count) != tp.partition:
                    continue
                claims = facts[fact.subject] = {}
            join(claims, fact)
    finally:
        reader.close()
    return facts


# -------------------------------------------------------------------------------------------------------------- saying
def subject_meant(graph: Graph, label: Key) -> Key:
    """The subject of a label: itself, or the only one that holds it. Raises UsageError, naming those that do."""
    if graph.rules.of(label).subject:
        return label
    holders = graph.holders(label)
    if len(holders) == 1:
        return holders[0]
    if not holders:
        raise UsageError(f"no subject holds {label}; name a subject, such as those that `c360 identity show` lists")
    some = ", ".join(holders[:10]) + (f" and {len(holders) - 10} more" if len(holders) > 10 else "")
    raise UsageError(f"{label} is held by {some}; say which of them is meant")


def separation(facts: Facts, one: Key, two: Key, now_ms: int, *, undo: bool = False) -> list[Fact]:
    """What to say so that two subjects are not one customer, or, to undo, may be again; nothing where it is so already.

    It is said of the lesser of the two, so that it is one fact whichever way round it is typed.
    """
    least, other = _two(one, two)
    return _news(facts, [cannot(least, other, OPERATORS, Claim(now_ms, undo, now_ms))])


def joining(facts: Facts, one: Key, two: Key, now_ms: int, *, undo: bool = False) -> list[Fact]:
    """What to say so that two subjects are one customer: both are linked to a value of the operators' namespace."""
    both = _two(one, two)
    digest = blake2b("\0".join(both).encode(), digest_size=8).hexdigest()
    claim = Claim(now_ms, undo, now_ms)
    return _news(facts, [link(subject, f"{OPERATOR}:{digest}", OPERATORS, claim) for subject in both])


def _two(one: Key, two: Key) -> tuple[Key, Key]:
    if one == two:
        raise UsageError(f"both are the subject {one}; name two different ones")
    return min(one, two), max(one, two)


def _news(facts: Facts, said: Iterable[Fact]) -> list[Fact]:
    """Those that change something, later than what they change whatever the clocks: the last command is the last word."""
    news = []
    for fact in said:
        known = facts.get(fact.subject, {}).get((fact.kind, fact.other, fact.source))
        if (known is None or known.dead) == fact.claim.dead:
            continue
        if known is not None and known.version >= fact.claim.version:
            claim = msgspec.structs.replace(fact.claim, version=known.version + 1)
            fact = msgspec.structs.replace(fact, claim=claim)
        news.append(fact)
    return news


@dataclass(frozen=True)
class Effect:
    """What facts would change: the profiles of all subjects that come into another, and of those that are spoken of."""

    before: list[Profile]
    after: list[Profile]
    refused: list[str]  # why what is said joins nobody


def effect(graph: Graph, said: list[Fact], about: Iterable[Key]) -> Effect:
    """Recomputes everything with what is said."""
    facts: Facts = dict(graph.facts)
    for fact in said:
        claims: Claims = dict(facts.get(fact.subject, {}))
        join(claims, fact)
        facts[fact.subject] = claims
    after = Graph(facts, graph.rules)
    touched = set(about)
    for subject in after.resolution.standings:
        if graph.members(subject) != after.members(subject):
            touched.add(subject)
    refused = {
        reason
        for fact in said
        if fact.kind == LINK and not fact.claim.dead and (reason := after.refused(fact.subject, fact.other))
    }
    return Effect(graph.profiles(touched), after.profiles(touched), sorted(refused))


def say(plan: Plan, cluster: Cluster, facts: Iterable[Fact], *, reason: str, actor: str) -> None:
    """Write facts to the topic of links, acknowledged on return. Raises UsageError while there is no such topic."""
    count = cluster.admin().topics().get(plan.links)
    if count is None:
        raise UsageError(f"there is no topic {plan.links} yet; `c360 topics apply` or a worker creates it")
    headers = [(REASON, reason.encode()), (ACTOR, actor.encode())]
    producer = cluster.producer()
    try:
        for fact in facts:
            key, value = encode_fact(fact)
            producer.produce(plan.links, key, value, partition_of(fact.subject.encode(), count), headers)
        producer.flush()
    finally:
        producer.close()


def described(fact: Fact) -> str:
    """For people."""
    words = {LINK: "is linked with", CANNOT: "is not"} if not fact.claim.dead else {
        LINK: "is no longer linked with", CANNOT: "may again be",
    }  # fmt: skip
    return f"{fact.subject} {words[fact.kind]} {fact.other}"

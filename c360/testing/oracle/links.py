"""Which link facts must come of records: what identifiers a record has beside its subject, and how a fact is written.

Versions and times of facts are those of docs/decisions/0013; what is admitted, and what a row is, `governed` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from c360.codecs.record import Record
from c360.declare import Enrichment, LinkField, Source
from c360.identity.facts import Claim
from c360.identity.namespace import Namespace
from c360.plan import Plan
from c360.testing.oracle.sealing import Sight, clear_label, label_in
from c360.testing.oracle.values import NoFit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
OPERATOR = "operator"  # the source of what people said
OWN = "="  # the source of a subject's link to its own twin
OWN_CLAIM = Claim(0)


class Slot(NamedTuple):
    """What a fact is about: the newest claim of each counts."""

    subject: str
    kind: str
    other: str
    source: str

    @property
    def key(self) -> bytes:
        """The key of its record."""
        return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in self).encode()


Facts = Mapping[Slot, Claim]


def slot_of(key: bytes) -> Slot:
    """What a record of `links` is about. Raises ValueError for a key that is none of ours."""
    parts = [p.replace("%7C", "|").replace("%25", "%") for p in key.decode().split("|")]
    if len(parts) == 4 and parts[1] in ("link", "cannot") and Slot(*parts).key == key:
        return Slot(*parts)
    raise ValueError("no fact")


def read_fact(key: bytes, value: bytes) -> tuple[Slot, Claim]:
    """What a record of `links` says. Raises ValueError for what is none."""
    match msgspec.msgpack.decode(value):
        case [1, [int(version), bool(dead), int(first_seen), int(assurance)]]:
            return slot_of(key), Claim(version, dead, first_seen, assurance)
    raise ValueError("no fact")


def newest(said: Iterable[tuple[Slot, Claim]]) -> dict[Slot, Claim]:
    """Of each slot the claim that wins: the newer version, of one version the dead one."""
    found: dict[Slot, Claim] = {}
    for slot, claim in said:
        found[slot] = max(claim, found.get(slot, claim))
    return found


def says_nothing(value: str, blocked: Iterable[str]) -> bool:
    """Whether a value is blank or blocked, quoted or not."""
    bare = value.strip().strip("\"'`").strip()
    return bare == "" or any(re.fullmatch(p, bare, re.IGNORECASE | re.DOTALL) for p in blocked)


def enrich(enrichment: Enrichment, record: Record, at: int) -> Any:
    """What an enrichment gives for a record of this time, in ms: it may be another for older ones, or nothing."""
    if enrichment.since is None or at * MILLISECOND >= enrichment.since - EPOCH:
        return enrichment.function(record)
    return None if enrichment.before is None else enrichment.before(record)


class Linking:
    """What the declarations of an app say of links."""

    def __init__(self, plan: Plan, sight: Sight | None = None) -> None:
        self.sight = sight
        self.fields: Mapping[type, Sequence[LinkField]] = plan.links_of
        self.blocked = [identity.rules.blocked for identity in plan.deciding]
        self.twins = plan.subject_kinds

    def labels(self, source: Source, record: Record, subject: str, at: int) -> list[str]:
        """The identifiers of a record's subject, each once; `at`: its time. Raises what a function of the user raises."""
        found: list[str] = []
        tenant = None if source.tenant is None else getattr(record, source.tenant)
        for link in self.fields.get(type(record), ()):
            for value in self._values(source, record, link, at):
                label = self._label(link.namespace, value, tenant)
                if label is not None and label not in found and label != "=" + subject:
                    found.append(label)
        return found

    def _values(self, source: Source, record: Record, link: LinkField, at: int) -> list[Any]:
        if link.enriched:
            value = next(
                enrich(e, record, at) for e in source.enrichments if e.record is type(record) and e.name == link.name
            )
        else:
            value = getattr(record, link.name)
        several = list(value) if link.many and value is not None else [value]
        return [v for v in several if v is not None]

    def blocked_everywhere(self, clear: str) -> bool:
        """Whether every rule set blocks the value of a label in clear."""
        return all(says_nothing(clear.split(":", 1)[1], patterns) for patterns in self.blocked) and bool(self.blocked)

    def _label(self, namespace: Namespace, value: Any, tenant: Any = None) -> str | None:
        """None for a value that the namespace refuses, or that every rule set blocks."""
        try:
            if self.blocked_everywhere(clear_label(namespace, value)):
                return None
            label = label_in(self.sight, namespace, clear_label(namespace, value, tenant))
        except NoFit:
            return None
        return "=" + label if namespace.name in self.twins else label


def row_source(source: Source, row_id: str) -> str:
    """Who says what a row says: its primary key as text, of several fields as a JSON list."""
    key = json.loads(row_id)
    return f"{source.name}#{key[0] if len(key) == 1 and isinstance(key[0], str | int) else row_id}"


def own_facts(facts: Facts) -> set[Slot]:
    """What must be there because somebody links to a twin: the subject's own link to it."""
    return {
        Slot(slot.other[1:], "link", slot.other, OWN)
        for slot, claim in facts.items()
        if slot.kind == "link" and slot.source != OWN and slot.other.startswith("=") and not claim.dead
    }

"""Link facts: which identifiers a record says are its subject's, and which of these sayings are news.

What facts are, and how their versions make order and repetition meaningless, is decided in docs/decisions/0013. Here
fields become labels, and labels become records of `{app}.links`, each only when it was not said before.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from c360.codecs.record import Record
from c360.declare import LinkField, SourceType
from c360.engine.agent import Outbox
from c360.engine.partition import partition_of
from c360.errors import Misfit
from c360.identity.facts import Claim, Fact, encode_fact, link
from c360.identity.namespace import TWIN
from c360.plan import Plan
from c360.tables.table import Table

LINKS = b"l"
OWN = Claim(0)  # of a subject's link to its own twin
OWN_SOURCE = "="
LABELS_KEPT = 1 << 14  # of a namespace; a label takes 1 to 5 µs
SAID_KEPT = 1 << 15  # in memory, of a task: about 8 MB; a look there takes 0.2 µs, one into the table 2 to 5
_TIME = struct.Struct(">q")


class LinkReader:
    """Compiled for one record type: the labels of the identifiers that a record has beside its subject."""

    def __init__(self, plan: Plan, declared: SourceType) -> None:
        self.fields = [_reading(plan, link) for link in plan.links_of.get(declared.record, ())]

    def labels(self, subject: str, record: Record, enriched: Mapping[str, Any], refused: Counter[str]) -> list[str]:
        """Each once, in the order of the fields. Values that identify nobody are counted in `refused` by namespace."""
        found: list[str] = []
        for get, label, namespace, from_record, many in self.fields:
            value = get(record if from_record else enriched)
            if value is None:
                continue
            for one in value if many else (value,):
                said = label(one)
                if said is None:
                    refused[namespace] += 1
                elif said not in found and said != TWIN + subject:  # that would be the subject itself
                    found.append(said)
        return found


class _Reading(NamedTuple):
    get: Callable[[Any], Any]
    label: Callable[[str], str | None]
    namespace: str
    from_record: bool
    many: bool


def _reading(plan: Plan, link: LinkField) -> _Reading:
    namespace, twin = link.namespace, plan.twin(link.namespace)
    rules = [identity.rules for identity in plan.identities]

    @lru_cache(LABELS_KEPT)
    def label(value: str | None) -> str | None:
        """None for a value that the namespace refuses, or that joins nobody and forbids nothing by any rule set."""
        if value is None:
            return None
        try:
            said = namespace.label(value)
        except Misfit:
            return None
        said = twin + said.removeprefix(namespace.name)
        natures = [of.of(said) for of in rules]
        return said if any(n.links or n.holds for n in natures) else None

    def of_enriched(enriched: Mapping[str, Any]) -> Any:
        return enriched.get(link.name)

    get: Callable[[Any], Any] = of_enriched if link.enriched else attrgetter(link.name)
    return _Reading(get, label, namespace.name, not link.enriched, link.many)


class Saying(NamedTuple):
    """That a subject has an identifier, as an event of this time says."""

    subject: str
    label: str
    at: int


def facts_of(subject: str, label: str, source: str, claim: Claim) -> list[Fact]:
    """What is to be said of a link: itself, and of one to a twin that the twin's subject has it."""
    facts = [link(subject, label, source, claim)]
    if label.startswith(TWIN) and not claim.dead:
        facts.append(link(label.removeprefix(TWIN), label, OWN_SOURCE, OWN))
    return facts


class LinkWriter:
    """Writes link facts of one task of govern."""

    def __init__(self, plan: Plan, source: str) -> None:
        self.topic, self.partitions, self.source = plan.links, plan.partitions, source
        self.table: Table[int] = Table(LINKS, _TIME.pack, lambda data: int(_TIME.unpack(data)[0]))
        self.said: dict[tuple[str, str], int] = {}  # subject, label → earliest time that was said

    def forget(self) -> None:
        """After an abort: what memory has may never have been written."""
        self.said.clear()

    def events(self, sayings: Sequence[Saying], out: Outbox) -> int:
        """What events say that `said` does not know: each link when it is new, or earlier than known. How many facts."""
        known = self.said
        keys = [_key(s.subject, s.label) for s in sayings]
        times = self.table.load(set(keys))
        facts = 0
        for key, (subject, label, at) in zip(keys, sayings, strict=True):
            before = times[key]
            if before is None or at < before:
                self.table.put(key, at)
                self._write(subject, label, self.source, Claim(-at, first_seen=at), out)
                before, facts = at, facts + 1
            known[subject, label] = before
        if len(known) > SAID_KEPT:
            known.clear()
        return facts

    def row(
        self,
        row_id: str,
        revision: int,
        was: Sequence[tuple[str, str]],
        now: Sequence[tuple[str, str]],
        at: int,
        out: Outbox,
    ) -> int:
        """What one row said and says: (subject, label) each; what it no longer says is unlinked. How many facts."""
        source = f"{self.source}#{row_id}"
        gone, new = [pair for pair in was if pair not in now], [pair for pair in now if pair not in was]
        for subject, label in gone:
            self._write(subject, label, source, Claim(revision, dead=True), out)
        for subject, label in new:
            self._write(subject, label, source, Claim(revision, first_seen=at), out)
        return len(gone) + len(new)

    def _write(self, subject: str, label: str, source: str, claim: Claim, out: Outbox) -> None:
        for fact in facts_of(subject, label, source, claim):
            key, value = encode_fact(fact)
            out.send(self.topic, key, value, partition_of(fact.subject.encode(), self.partitions))


def _key(subject: str, label: str) -> bytes:
    return blake2b(f"{subject}\0{label}".encode(), digest_size=16).digest()

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
from c360.declare import LinkField, Source, SourceType
from c360.engine.agent import Outbox
from c360.engine.partition import partition_of
from c360.errors import Misfit
from c360.governance.names import Names
from c360.identity.facts import Claim, Fact, encode_fact, link
from c360.identity.namespace import TWIN, Namespace
from c360.plan import Plan
from c360.tables.table import Table

LINKS = b"l"
KEY_OF_HASHES = "~links:"  # its token: no namespace begins so
OWN = Claim(0)  # of a subject's link to its own twin
OWN_SOURCE = "="
LABELS_KEPT = 1 << 14  # of a namespace; a label takes 1 to 5 µs
HEARD_KEPT = 1 << 14  # in memory, of a task, twice: up to 15 MB; a look there takes 0.5 to 1 µs, one into the table 15
ALWAYS, NEVER = -(1 << 62), 1 << 62  # times of events
_TIME = struct.Struct(">q")


Values = tuple[Any, ...]
"""What the link fields of a record hold, as it is: to be hashed."""


class Mute(str):
    """The label of a subject whose value says nothing, which the label does not show (of others identity sees it)."""


class LinkReader:
    """Compiled for one record type: the labels of the identifiers that a record has beside its subject."""

    def __init__(self, plan: Plan, source: Source, declared: SourceType, names: Names) -> None:
        links = plan.links_of.get(declared.record, ())
        self.name = declared.name
        self.fields = [_reading(plan, link, names) for link in links]
        self.tenant = None if source.tenant is None else attrgetter(source.tenant)
        self.plain: Callable[[Any], Values] | None = None  # as `values`, where it takes nothing but the record
        if len(links) > 1 and self.tenant is None and not any(link.enriched or link.many for link in links):
            self.plain = attrgetter(*[link.name for link in links])

    def values(self, record: Record, enriched: Mapping[str, Any]) -> Values:
        """Of the fields, in their order; of a source with tenants, whose they are comes last."""
        found = [field.read(record, enriched) for field in self.fields]
        return tuple(found) if self.tenant is None else (*found, self.tenant(record))

    def labels(self, subject: str, values: Values, refused: Counter[str]) -> list[str]:
        """Each once, in the order of the fields. Values that identify nobody are counted in `refused` by namespace."""
        found: list[str] = []
        if type(subject) is Mute:
            return found
        tenant = None if self.tenant is None else values[-1]
        own = TWIN + subject  # that would be the subject itself
        for (_, label, namespace, many), value in zip(self.fields, values, strict=self.tenant is None):
            if value is None:
                continue
            for one in value if many else (value,):
                said = label(one, tenant)
                if said is None:
                    refused[namespace] += 1
                elif said not in found and said != own:
                    found.append(said)
        return found


class _Reading(NamedTuple):
    read: Callable[[Any, Mapping[str, Any]], Any]
    label: Callable[[str, Any], str | None]
    namespace: str
    many: bool


def says_nothing(plan: Plan, clear: str) -> bool:
    """Whether every rule set blocks the value of a label in clear: asked where the label that is written hides it."""
    value = clear.partition(":")[2]
    return bool(plan.deciding) and all(identity.rules.blocks(value) for identity in plan.deciding)


def subject_labels(plan: Plan, namespace: Namespace, names: Names, *, tenants: bool) -> Callable[..., str]:
    """From the value of a subject, and its tenant where there are any, to its label. Raises Misfit."""
    if not (namespace.personal or tenants):
        return names.labels(namespace)

    @lru_cache(LABELS_KEPT)
    def label(value: str, tenant: Any = None) -> str:
        clear = namespace.label(value)
        said = names.written(namespace, clear, tenant)
        return Mute(said) if says_nothing(plan, clear) else said

    return label


def _reading(plan: Plan, link: LinkField, names: Names) -> _Reading:
    namespace, twin = link.namespace, plan.twin(link.namespace)
    rules = [identity.rules for identity in plan.deciding]
    of_record = attrgetter(link.name)

    @lru_cache(LABELS_KEPT)
    def label(value: str | None, tenant: Any) -> str | None:
        """None for a value that the namespace refuses, or that joins nobody and forbids nothing by any rule set."""
        if value is None:
            return None
        try:
            clear = namespace.label(value)
            said = names.written(namespace, clear, tenant)
        except Misfit:
            return None
        if said is not clear and says_nothing(plan, clear):
            return None
        said = twin + said.removeprefix(namespace.name)
        natures = [of.of(said) for of in rules]
        return said if any(n.links or n.holds for n in natures) else None

    def read(record: Any, enriched: Mapping[str, Any]) -> Any:
        value = enriched.get(link.name) if link.enriched else of_record(record)
        return tuple(value) if link.many and value is not None else value

    return _Reading(read, label, namespace.name, link.many)


Words = tuple[str, Values, str]
"""What an event says of its subject, before anything is made of it: subject, values of its link fields, record type."""


class Saying(NamedTuple):
    """That a subject has identifiers, as an event of this time says. `words` None: is to be looked at every time."""

    words: Words | None
    subject: str
    labels: Sequence[str]
    at: int


def facts_of(subject: str, label: str, source: str, claim: Claim) -> list[Fact]:
    """What is to be said of a link: itself, and of one to a twin that the twin's subject has it."""
    facts = [link(subject, label, source, claim)]
    if label.startswith(TWIN) and not claim.dead:
        facts.append(link(label.removeprefix(TWIN), label, OWN_SOURCE, OWN))
    return facts


class LinkWriter:
    """Writes link facts of one task of govern. What it has written it keeps by hashes, of an app that needs keys keyed ones:
    they outlive who is forgotten, and somebody could guess whose they are."""

    def __init__(self, plan: Plan, source: str, names: Names | None = None) -> None:
        self.secret = b"" if names is None else names.token(KEY_OF_HASHES).encode()
        self.topic, self.partitions, self.source = plan.links, plan.partitions, source
        self.table: Table[int] = Table(LINKS, _TIME.pack, lambda data: int(_TIME.unpack(data)[0]))
        self.lives: Callable[[str], int] | None = None  # of labels: what was said of a life before is to be said again
        self.heard: dict[Words, int] = {}  # from this time of an event on they are no news
        self.heard_before: dict[Words, int] = {}  # the generation before; moved over when used

    def forget(self) -> None:
        """After an abort: what memory has may never have been written."""
        self.heard.clear()
        self.heard_before.clear()

    def recall(self, words: Words) -> int:
        """What `heard` would say of them if it had not become too large."""
        since = self.heard_before.pop(words, NEVER)
        if since != NEVER:
            self.heard[words] = since
        return since

    def events(self, sayings: Sequence[Saying], out: Outbox) -> int:
        """What events say that `heard` does not know: each link when it is new, or earlier than known. How many facts."""
        keys = [[self._key(s.subject, label) for label in s.labels] for s in sayings]
        times = self.table.load({key for some in keys for key in some})
        facts = 0
        for some, (words, subject, labels, at) in zip(keys, sayings, strict=True):
            since = ALWAYS
            for key, label in zip(some, labels, strict=True):
                before = times[key]
                if before is None or at < before:
                    self.table.put(key, at)
                    self._write(subject, label, self.source, Claim(-at, first_seen=at), out)
                    before, facts = at, facts + 1
                since = max(since, before)
            if words is not None:
                self.heard[words] = since
        if len(self.heard) > HEARD_KEPT:
            self.heard, self.heard_before = {}, self.heard
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

    def _key(self, subject: str, label: str) -> bytes:
        said = f"{subject}\0{label}"
        if self.lives is not None and (lives := (self.lives(subject), self.lives(label))) != (0, 0):
            said += f"\0{lives[0]}\0{lives[1]}"
        return blake2b(said.encode(), digest_size=16, key=self.secret).digest()

    def _write(self, subject: str, label: str, source: str, claim: Claim, out: Outbox) -> None:
        for fact in facts_of(subject, label, source, claim):
            key, value = encode_fact(fact)
            out.send(self.topic, key, value, partition_of(fact.subject.encode(), self.partitions))

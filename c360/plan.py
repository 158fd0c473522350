"""What the declarations of an app add up to: every topic, group, table and agent by name. Frozen; knows no `App`.

Names are those of the design's ARCHITECTURE page. Configuration of topics is part of the plan, so that `c360 topics`
can check and apply it.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import CodeType
from typing import Any, Literal

from c360.classes import FieldClass, classified, classified_in
from c360.codecs.record import ATTRIBUTE, AnyIdentifier, Condition, Record, fields_of
from c360.declare import (
    AttributeDeclaration,
    Declarations,
    Enrichment,
    Era,
    IdentityDeclaration,
    Input,
    LinkField,
    ProjectionDeclaration,
    Source,
    SourceType,
    UserAgent,
    identifier_in,
    link_fields,
    with_enrichments,
    without_none,
)
from c360.errors import DeclarationError, UsageError
from c360.governance.purposes import Purposes, Sets, check_view, states_of, view_of
from c360.identity.namespace import TWIN, Namespace
from c360.identity.rules import DEFAULTS, Rules
from c360.outside import Carrier, Outside, carriers_of
from c360.profile.attribute import Attribute
from c360.rights import ConsentSource, Door, ErasureSource, SinkDeclaration

Role = Literal[
    "raw",
    "governed",
    "projection",
    "changelog",
    "dlq",
    "replay",
    "truncates",
    "tasks",
    "days",
    "links",
    "loop",
    "assignments",
    "changes",
    "consent",
    "suppressed",
    "keys",
    "fence",
    "asked",
    "told",
    "passed",
    "erasures",
    "audit",
    "view",
    "activation",
    "control",
    "questions",
    "answers",
]

DEFAULT = "default"  # the rule set that is there without being said
OPERATOR = "merge"  # the namespace by which an operator joins two subjects
LARGEST_RECORD_BYTES = 16 << 20  # of our own topics; the largest state that can be committed
FOREVER: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1"}
DAY = 24 * 3_600_000
WEEK: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY)}
APPEND_TIME: Mapping[str, str] = {"message.timestamp.type": "LogAppendTime"}
LARGE: Mapping[str, str] = {"max.message.bytes": str(LARGEST_RECORD_BYTES)}
CONFIGS: Mapping[Role, Mapping[str, str]] = {
    "raw": {},
    "governed": {**FOREVER, **APPEND_TIME, **LARGE},
    "projection": {"cleanup.policy": "compact", **APPEND_TIME, **LARGE},
    "changelog": {
        "cleanup.policy": "compact",
        "segment.bytes": str(64 << 20),
        "segment.ms": str(6 * 3_600_000),
        "min.cleanable.dirty.ratio": "0.2",
        **APPEND_TIME,
        **LARGE,
    },
    "dlq": {**FOREVER, **APPEND_TIME, **LARGE},
    "replay": {**FOREVER, **APPEND_TIME, **LARGE},
    "truncates": {**FOREVER, **APPEND_TIME},
    "tasks": {"cleanup.policy": "delete"},
    "days": {"cleanup.policy": "compact", **APPEND_TIME},
    "links": {"cleanup.policy": "compact", **APPEND_TIME},
    # What is below the committed positions is deleted by the worker, not by time: a message must not be lost.
    "loop": {**FOREVER, **APPEND_TIME, **LARGE},
    "assignments": {"cleanup.policy": "compact", **APPEND_TIME, **LARGE},
    "changes": {**FOREVER, **APPEND_TIME, **LARGE},
    "consent": {"cleanup.policy": "compact", **APPEND_TIME},
    "suppressed": {"cleanup.policy": "compact", **APPEND_TIME},
    "keys": {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY), **APPEND_TIME},
    "fence": {"cleanup.policy": "compact", "segment.ms": str(DAY), **APPEND_TIME},
    "asked": {**WEEK, **APPEND_TIME},  # by people at the command line, or by an agent of others
    "told": {**WEEK, **APPEND_TIME},  # and what these answer
    "passed": {"cleanup.policy": "compact", **APPEND_TIME},
    "erasures": {**FOREVER, **APPEND_TIME},
    "audit": {**FOREVER, **APPEND_TIME},
    "view": {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY), **APPEND_TIME, **LARGE},
    "control": {"cleanup.policy": "compact", **APPEND_TIME},
    "questions": {**WEEK, **APPEND_TIME},
    "answers": {**FOREVER, **APPEND_TIME, **LARGE},
    "activation": {"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY), **APPEND_TIME, **LARGE},
}


@dataclass(frozen=True)
class PlannedTopic:
    """A topic of the app. `partitions` None: as many as the raw topic `like` has."""

    name: str
    role: Role
    partitions: int | None
    like: str | None = None
    bounded: bool = False  # of an app that erases: what is deleted of compacted topics is gone within a day
    keeps_ms: int | None = None  # how long its records are needed; None: as its role says, of most for ever

    @property
    def config(self) -> Mapping[str, str]:
        config = CONFIGS[self.role]
        if self.bounded and config.get("cleanup.policy") == "compact":
            return {"max.compaction.lag.ms": str(DAY), **config}
        return config if self.keeps_ms is None else {**config, "retention.ms": str(self.keeps_ms)}

    @property
    def owned(self) -> bool:
        """Whether c360 creates it; raw topics are the user's."""
        return self.role != "raw"


@dataclass(frozen=True)
class PlannedAgent:
    """An agent: its consumer group, what it reads and writes, its changelogs by what they hold."""

    name: str  # as typed: "govern", "customer@1"
    group: str
    lead: tuple[str, ...]  # topics whose partitions the group assigns
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    changelogs: tuple[str, ...]
    tables: tuple[str, ...]
    fingerprint: str  # of the logic whose change makes stored state wrong
    logic: tuple[str, ...] = ()  # what decides its output, for people to read: a change needs a new version


@dataclass(frozen=True)
class Identity:
    """A rule set of the app, resolved: what decides who is who."""

    name: str
    version: int
    rules: Rules
    govern: int = 1  # the version of govern whose links it decides over

    @property
    def agent(self) -> str:
        return f"identity@{self.version}" if self.name == DEFAULT else f"identity.{self.name}@{self.version}"


@dataclass(frozen=True)
class Plan:
    """A checked app. Below this nothing has heard of `App`.

    Of several versions of govern it is the view of one, by default the lowest: what is named after govern, what it adds to
    records and which links it writes are that version's; `at` gives that of another, all else is the same in all.
    """

    app: str
    partitions: int
    identifiers: Mapping[type, Namespace]
    sources: tuple[Source, ...]
    projections: tuple[ProjectionDeclaration, ...]
    user_agents: tuple[UserAgent, ...]
    topics: tuple[PlannedTopic, ...]
    agents: tuple[PlannedAgent, ...]
    links_of: Mapping[type, tuple[LinkField, ...]] = field(default_factory=dict)  # by record type; {} without identity
    identities: tuple[Identity, ...] = ()
    purposes: Purposes = field(default_factory=lambda: Purposes(()))
    consents: tuple[ConsentSource, ...] = ()
    erasures_said: tuple[ErasureSource, ...] = ()
    doors: tuple[Door, ...] = ()
    enrichments: tuple[Enrichment, ...] = ()  # of all versions of govern
    govern: int = 1  # the version that this is the view of
    governs: tuple[int, ...] = (1,)  # the declared ones, the lowest first
    outsides: tuple[Outside, ...] = ()

    # versions of govern -------------------------------------------------------------------------------------------
    def at(self, version: int) -> Plan:
        """The same app as that version of govern has it."""
        return next(view for view in self.views if view.govern == version)

    @cached_property
    def views(self) -> tuple[Plan, ...]:
        """One for each version of govern, the lowest first."""
        return tuple(self if version == self.govern else self._seen_by(version) for version in self.governs)

    def _seen_by(self, version: int) -> Plan:
        added = [e for e in self.enrichments if e.govern in (None, version)]
        sources = tuple(with_enrichments(s, added) for s in self.sources)
        return replace(self, govern=version, sources=sources, links_of=_links_of(sources, self.identifiers))

    def governing(self, agent: str) -> Plan | None:
        """Of an agent that is a version of govern, the view that it has. Raises UsageError as `agent` does."""
        name = self.agent(agent).name
        return next((view for view in self.views if view.govern_agent == name), None)

    @property
    def govern_agent(self) -> str:
        return "govern" if self.govern == 1 else f"govern@{self.govern}"

    def govern_task(self, topic: str, partition: int) -> str:
        """What a task of govern is called where tasks of all versions are."""
        return f"{topic}/{partition}" + self._of_version("@")

    def _of_version(self, before: str) -> str:
        return "" if self.govern == 1 else f"{before}{self.govern}"

    @property
    def deciding(self) -> tuple[Identity, ...]:
        """The rule sets that decide over the links of this version of govern; where none does yet, all say what is a link."""
        return tuple(i for i in self.identities if i.govern == self.govern) or self.identities

    def agent(self, name: str) -> PlannedAgent:
        """The agent of that name. Raises UsageError, naming those there are."""
        if name == "govern" and 1 not in self.governs:
            name = f"govern@{self.governs[0]}"
        for agent in self.agents:
            if agent.name == name:
                return agent
        known = ", ".join(agent.name for agent in self.agents)
        raise UsageError(f"there is no agent {name!r} in {self.app!r}; it has {known}")

    def upstream(self, agent: str) -> tuple[str, ...]:
        """The versions of govern and identity that an agent reads from, also through others: it is behind where they are."""
        found = set[str]()
        waiting = [self.agent(agent)]
        while waiting:
            read = set(waiting.pop().reads)
            for other in self.agents:
                of = self.governing(other.name) is not None or any(i.agent == other.name for i in self.identities)
                if of and other.name not in found and not read.isdisjoint(other.writes):
                    found.add(other.name)
                    waiting.append(other)
        return tuple(sorted(found - {agent}))

    def versions_of(self, projection: str) -> tuple[ProjectionDeclaration, ...]:
        """The declared versions of a projection, the lowest first."""
        return tuple(sorted((p for p in self.projections if p.name == projection), key=lambda p: p.version))

    def agents_of(self, projection: ProjectionDeclaration) -> tuple[PlannedAgent, ...]:
        """Those of one version: its own, and those of its views."""
        name = projection.agent
        return tuple(a for a in self.agents if a.name == name or a.name.startswith(f"{name}:"))

    def topics_of(self, projection: ProjectionDeclaration) -> tuple[str, ...]:
        """Topics that are there for one version only: what it makes, its changelog and messages, and its views."""
        own = self.projected(projection)
        return tuple(t.name for t in self.topics if t.name == own or t.name.startswith(f"{own}."))

    def source_of(self, record: type) -> Source:
        for source in self.sources:
            if any(t.record is record for t in source.types):
                return source
        raise KeyError(record)

    def identity_of(self, projection: ProjectionDeclaration) -> Identity | None:
        """The rule set whose assignments a projection follows: the newest `default` if it names none; None without identity."""
        said = projection.identity
        wanted = (DEFAULT, None) if said is None else (said.name, said.version)
        found = [i for i in self.identities if i.name == wanted[0] and wanted[1] in (None, i.version)]
        return max(found, key=lambda identity: identity.version, default=None)

    def twin(self, namespace: Namespace) -> str:
        """What comes before a value of this namespace in a link field: names of subjects have a twin there."""
        return (TWIN if namespace.name in self.subject_kinds else "") + namespace.name

    @property
    def subject_kinds(self) -> frozenset[str]:
        """Names of the namespaces that records are about."""
        return frozenset(n.name for s in self.sources for t in s.types for n in subjects_of(s, t, self.identifiers))

    # names ------------------------------------------------------------------------------------------------------
    def governed(self, source: Source) -> str:
        return f"{self.app}.governed.{source.name}.v{self.govern}"

    def replay(self, source: Source) -> str:
        return f"{self.app}.replay.{source.name}"

    def truncates(self, source: Source) -> str:
        return f"{self.app}.truncates.{source.name}" + self._of_version(".v")

    def govern_changelog(self, source: Source) -> str:
        return f"{self.app}.govern.v{self.govern}.{source.name}.changelog"

    def projected(self, projection: ProjectionDeclaration) -> str:
        return f"{self.app}.{projection.name}.v{projection.version}"

    def sources_of(self, projection: ProjectionDeclaration) -> tuple[Source, ...]:
        """The sources a projection reads, in order of declaration."""
        records = {i.record for d in projection.declarations for i in d.inputs}
        return tuple(s for s in self.at(projection.govern).sources if any(t.record in records for t in s.types))

    def readers_of(self, source: Source) -> tuple[ProjectionDeclaration, ...]:
        """The versions that fold records of a source as this version of govern has them."""
        mine = [p for p in self.projections if p.govern == self.govern]
        return tuple(p for p in mine if any(s.name == source.name for s in self.sources_of(p)))

    def keeps(self, source: Source) -> timedelta | None:
        """How far back its governed records are needed, for a rebuild of any version that reads them; None: for ever.

        Rows for ever, whatever is said: one that nobody has changed for years is still there, and when it is changed or
        deleted at last, what is taken back must have been added.
        """
        return None if source.kind == "rows" else _longest(self.readers_of(source))

    @property
    def links(self) -> str:
        return f"{self.app}.links" + self._of_version(".v")

    def loop(self, identity: Identity) -> str:
        return self._of(identity, "identity")

    def assignments(self, identity: Identity) -> str:
        return self._of(identity, "assignments")

    def identity_changes(self, identity: Identity) -> str:
        return self._of(identity, "identity-changes")

    def _of(self, identity: Identity, topic: str) -> str:
        named = "" if identity.name == DEFAULT else f".{identity.name}"
        return f"{self.app}.{topic}{named}.v{identity.version}"

    def parts(self, projection: ProjectionDeclaration) -> str:
        return f"{self.projected(projection)}.parts"

    # what people may, and who looks after it ----------------------------------------------------------------------
    @property
    def asks(self) -> bool:
        """Whether some purpose rests on consent: then there is a `consent` agent."""
        return any(purpose.asks for purpose in self.purposes.by_name.values())

    @cached_property
    def needs_keys(self) -> bool:
        """Whether something is sealed or written as a token: then a worker needs the master key."""
        return (
            bool(self.erasures_said)
            or any(namespace.personal for namespace in self.identifiers.values())
            or any(sealed_of(view, source) for view in self.views for source in view.sources)
        )

    @cached_property
    def personal_kinds(self) -> frozenset[type]:
        """Identifier classes of personal namespaces: their values are sealed wherever they stand in a record. Where there
        are any, also those of which only the data says the namespace."""
        kinds = frozenset(kind for kind, namespace in self.identifiers.items() if namespace.personal)
        return kinds | {AnyIdentifier} if kinds else kinds

    @property
    def erases(self) -> bool:
        """Whether customers can be forgotten: then there is an `erasure` agent."""
        return self.needs_keys

    @property
    def governance(self) -> tuple[str, ...]:
        """Topics that each process that governs, or has doors, keeps a full copy of."""
        erasing = (self.suppressed, self.keys) if self.needs_keys else ()
        asking = (self.consent,) if self.asks else ()
        return (*erasing, *asking, *((self.fence,) if erasing or asking else ()))

    def view(self, projection: ProjectionDeclaration, purpose: str) -> str:
        return f"{self.projected(projection)}.{purpose}"

    def activation(self, sink: SinkDeclaration) -> str:
        return f"{self.app}.activation.{sink.name}"

    def leaves(self, door: Door) -> str:
        """The topic that a door writes; also the name of its group."""
        return self.view(door.projection, door.purpose.name) if door.sink is None else self.activation(door.sink)

    @property
    def consent(self) -> str:
        return f"{self.app}.consent"

    @property
    def consent_commands(self) -> str:
        """What `c360 consent set` says: an input of the consent agent like the raw ones."""
        return f"{self.app}.consent-commands"

    @property
    def suppressed(self) -> str:
        return f"{self.app}.suppressed"

    @property
    def keys(self) -> str:
        return f"{self.app}.keys"

    @property
    def fence(self) -> str:
        """Statements of the consent and erasure agents; its one partition is also what their groups assign."""
        return f"{self.app}.fence"

    @property
    def erasure_commands(self) -> str:
        """What `c360 erase` asks for: an input of the erasure agent like the raw ones."""
        return f"{self.app}.erasure-commands"

    @property
    def erase(self) -> str:
        """What the erasure agent asks of all others."""
        return f"{self.app}.erase"

    @property
    def found(self) -> str:
        """What identity finds for the erasure agent."""
        return f"{self.app}.found"

    @property
    def receipts(self) -> str:
        return f"{self.app}.receipts"

    @property
    def passed(self) -> str:
        return f"{self.app}.passed"

    @property
    def erasures(self) -> str:
        """Certificates."""
        return f"{self.app}.erasures"

    @property
    def audit(self) -> str:
        return f"{self.app}.audit"

    # what is asked outside ----------------------------------------------------------------------------------------
    def answers(self, outside: Outside) -> str:
        """The raw topic of its answers."""
        return f"{self.app}.{outside.agent}"

    def questions(self, outside: Outside) -> str:
        return f"{self.app}.{outside.agent}.questions"

    def withheld(self, outside: Outside) -> str:
        """Of one that waits for people to agree: the questions that they did not let be asked."""
        return f"{self.app}.{outside.agent}.withheld"

    def carriers(self, outside: Outside) -> list[Carrier]:
        """Where its questions come from: records as the lowest version of govern has them."""
        return carriers_of(outside, self.at(self.governs[0]).sources, self.identifiers)

    @property
    def control(self) -> str:
        """Which version of a projection is live, and what else people have decided of agents."""
        return f"{self.app}.control"

    @property
    def dlq(self) -> str:
        return f"{self.app}.dlq"

    @property
    def tasks(self) -> str:
        return f"{self.app}.tasks"

    @property
    def days(self) -> str:
        return f"{self.app}.days"


def _longest(projections: Collection[ProjectionDeclaration]) -> timedelta | None:
    """The longest replay= of them; None where one says none, or there are none."""
    said = [p.replay for p in projections]
    return None if not said or None in said else max(replay for replay in said if replay is not None)


def _in_ms(kept: timedelta | None) -> int | None:
    return None if kept is None else kept // timedelta(milliseconds=1)


# Open fields in these name customers: of an app that forgets some, they are kept no longer than any version needs records.
NAMING: frozenset[Role] = frozenset({"dlq", "changes", "replay", "answers"})


def class_of_field(plan: Plan, record: type, name: str) -> FieldClass | None:
    """The class of a field as it is stored: what it says, and of an identifier what its namespace says."""
    return max((c.field_class for c in classified(record, plan.personal_kinds) if c.path[0] == name), default=None)


def class_of_enrichment(plan: Plan, enrichment: Enrichment) -> FieldClass | None:
    """The same of what an enrichment gives."""
    found = classified_in(enrichment.returns, enrichment.name, plan.personal_kinds)
    return max((c.field_class for c in found), default=None)


def sealed_of(plan: Plan, source: Source) -> list[str]:
    """What govern seals of the records of a source: fields and enrichments, as `Type.name`."""
    found = []
    for declared in source.types:
        names = [f.name for f in fields_of(declared.record) if class_of_field(plan, declared.record, f.name)]
        names += [e.name for e in source.enrichments if e.record is declared.record and class_of_enrichment(plan, e)]
        found += [f"{declared.name}.{name}" for name in names]
    return found


def class_of_attribute(plan: Plan, declaration: AttributeDeclaration) -> FieldClass | None:
    """The class of an attribute: the closest of its inputs. What counts values only, has none."""
    if declaration.kind in ("count", "flag", "distinct"):
        return None
    return max((c for item in declaration.inputs if (c := class_of_input(plan, item)) is not None), default=None)


def class_of_input(plan: Plan, item: Input) -> FieldClass | None:
    """The class of what an attribute reads: None where it is never sealed, nor a part of it."""
    if item.name is None:
        return None
    if not item.enriched:
        return class_of_field(plan, item.record, item.name)
    (enrichment,) = (
        e for e in plan.source_of(item.record).enrichments if (e.record, e.name) == (item.record, item.name)
    )
    return class_of_enrichment(plan, enrichment)


def classes_of(plan: Plan, projection: ProjectionDeclaration) -> dict[str, FieldClass]:
    """The classified attributes of a projection."""
    plan = plan.at(projection.govern)
    pairs = zip(projection.attributes, projection.declarations, strict=True)
    found = {attribute.name: class_of_attribute(plan, declaration) for attribute, declaration in pairs}
    return {name: said for name, said in found.items() if said is not None}


def sets_of(plan: Plan, projection: ProjectionDeclaration) -> Sets:
    """By attribute: the purpose sets of its sources, as far as this projection has views for them."""
    seen = frozenset(projection.purposes)
    sources = {
        attribute.name: [plan.source_of(item.record).name for item in declaration.inputs]
        for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True)
    }
    return states_of(sources, {source.name: source.purposes & seen for source in plan.sources})


def windowed(projection: ProjectionDeclaration) -> bool:
    """Whether some attribute looks at a window of days, so that the projection reads the days topic."""
    return any(a.within_days for a in projection.attributes)


def subjects_of(source: Source, declared: SourceType, identifiers: Mapping[type, Namespace]) -> Iterator[Namespace]:
    """The namespaces that subjects of a record type may be of."""
    if source.key is not None:
        yield source.key
    fields = {f.name: f for f in fields_of(declared.record)}
    for name in declared.subject:
        yield identifiers[without_none(fields[name].annotation)]


def _identities(plan: Plan, said: Declarations) -> tuple[Identity, ...]:
    """The rule sets, resolved: `default` is there without being said. Raises DeclarationError where they contradict."""
    declared = said.identities
    if not any(d.name == DEFAULT for d in declared) and plan.links_of:
        declared = [IdentityDeclaration(DEFAULT, 1), *declared]
    found = []
    for d in declared:
        view = plan.at(d.govern or plan.govern)
        if not view.links_of:
            raise DeclarationError(
                f"app.identity({d.name!r}): no record type has an identifier beside its subject, so nothing could ever be"
                " joined; type such a field with a class decorated by @app.identifier"
            )
        found.append(Identity(d.name, d.version, _rules(view, d), view.govern))
    return tuple(found)


def _links_of(sources: Iterable[Source], identifiers: Mapping[type, Namespace]) -> Mapping[type, tuple[LinkField, ...]]:
    return {t.record: links for s in sources for t in s.types if (links := link_fields(t, s.enrichments, identifiers))}


def _rules(plan: Plan, declared: IdentityDeclaration) -> Rules:
    namespaces = {OPERATOR: DEFAULTS[OPERATOR]}
    linked = {link.namespace.name for links in plan.links_of.values() for link in links}
    subjects = plan.subject_kinds
    for kind, namespace in plan.identifiers.items():
        changed = replace(namespace, **declared.changes.get(kind, {}), subject=namespace.name in subjects)
        namespaces[namespace.name] = changed
        if changed.subject and namespace.name in linked:
            namespaces[changed.twin().name] = changed.twin()
    return Rules(declared.name, namespaces, declared.blocked, declared.cap)


def make_plan(app: str, partitions: int, said: Declarations) -> Plan:
    """Check the declarations together. Raises DeclarationError."""
    first = [e for e in said.enrichments if e.govern in (None, said.governs[0])]
    sources = tuple(with_enrichments(s, first) for s in said.sources.values())
    read = {t.record for s in sources for t in s.types}
    for enrichment in said.enrichments:
        if enrichment.record not in read:
            raise DeclarationError(
                f"@app.enrich {enrichment.name}: {enrichment.record.__name__} is read from no source;"
                " decorate it with @app.source or @app.cdc"
            )
    for projection in said.projections:
        for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
            for item in declaration.inputs:
                if item.record not in read:
                    raise DeclarationError(
                        f"{projection.record.__name__}.{attribute.name} uses {item}, but {item.record.__name__} is read"
                        " from no source; decorate it with @app.source or @app.cdc"
                    )
    bare = Plan(app, partitions, dict(said.identifiers), sources, tuple(said.projections), (), (), ())
    bare = replace(bare, enrichments=tuple(said.enrichments), govern=said.governs[0], governs=said.governs)
    bare = replace(bare, links_of=_links_of(sources, said.identifiers))
    bare = replace(bare, identities=_identities(bare, said))
    bare = replace(
        bare,
        purposes=Purposes(said.purposes),
        consents=tuple(said.consents),
        erasures_said=tuple(said.erasures),
        doors=_doors(bare, said),
        outsides=tuple(said.outsides),
    )
    _check_rights(bare)
    _check_outside(bare)
    _check_sealed(bare)
    for view in bare.views:
        _check_clear(view)
        _check_tenants(view)
    _check_blocked(bare)
    governed = {bare.governed(s).removesuffix(f".v{bare.govern}"): bare.governed(s) for s in sources}
    user_agents = tuple(UserAgent(a.name, governed.get(a.topic, a.topic), a.function) for a in said.agents)
    longest = _in_ms(_longest(bare.projections)) if bare.erases else None
    topics = tuple(
        replace(t, bounded=bare.erases, keeps_ms=longest if t.role in NAMING else t.keeps_ms) for t in _topics(bare)
    )
    plan = replace(bare, user_agents=user_agents, topics=topics, agents=_agents(bare))
    names = [t.name for t in plan.topics]
    for name in names:
        if names.count(name) > 1:
            raise DeclarationError(f"two declarations lead to the topic {name!r}; give one of them another name=…")
    return plan


def _topics(plan: Plan) -> tuple[PlannedTopic, ...]:
    n = plan.partitions
    topics = []
    for source in plan.sources:
        own = source.format == "answers"  # then we make it, and its partitions are as many as we say
        like: dict[str, Any] = {"partitions": n} if own else {"partitions": None, "like": source.topic}
        topics.append(PlannedTopic(source.topic, "answers", n) if own else PlannedTopic(source.topic, "raw", None))
        topics.append(PlannedTopic(plan.replay(source), "replay", **like))
        for view in plan.views:
            if source.kind == "rows":
                topics.append(PlannedTopic(view.truncates(source), "truncates", **like))
            topics.append(PlannedTopic(view.govern_changelog(source), "changelog", **like))
            topics.append(PlannedTopic(view.governed(source), "governed", n, keeps_ms=_in_ms(view.keeps(source))))
    if plan.sources or plan.asks or plan.erases:
        topics.append(PlannedTopic(plan.dlq, "dlq", n))
        topics.append(PlannedTopic(plan.audit, "audit", 1))
    topics += _topics_of_rights(plan, {s.topic for s in plan.sources})
    topics += [PlannedTopic(view.links, "links", n) for view in plan.views if view.deciding]
    for identity in plan.identities:
        topics.append(PlannedTopic(f"{plan.loop(identity)}.changelog", "changelog", n))
        topics.append(PlannedTopic(plan.loop(identity), "loop", n))
        topics.append(PlannedTopic(plan.assignments(identity), "assignments", n))
        topics.append(PlannedTopic(plan.identity_changes(identity), "changes", n))
    for projection in plan.projections:
        topics.append(PlannedTopic(f"{plan.projected(projection)}.changelog", "changelog", n))
        if plan.identity_of(projection) is not None:
            topics.append(PlannedTopic(plan.parts(projection), "loop", n))
        topics.append(PlannedTopic(plan.projected(projection), "projection", n))
    for outside in plan.outsides:
        topics.append(PlannedTopic(plan.questions(outside), "questions", n))
        if outside.waits:
            topics.append(PlannedTopic(plan.withheld(outside), "questions", n))
        topics.append(PlannedTopic(f"{plan.answers(outside)}.changelog", "changelog", n))
    if plan.projections or plan.identities or plan.outsides:
        topics.append(PlannedTopic(plan.tasks, "tasks", n))
    if plan.sources or plan.identities or plan.asks or plan.erases:
        topics.append(PlannedTopic(plan.control, "control", 1))
    if any(map(windowed, plan.projections)):
        topics.append(PlannedTopic(plan.days, "days", n))
    return tuple(topics)


def _topics_of_rights(plan: Plan, known: set[str]) -> Iterator[PlannedTopic]:
    n = plan.partitions
    for topic in dict.fromkeys([*(s.asked.topic for s in plan.consents), *(s.asked.topic for s in plan.erasures_said)]):
        if topic not in known:
            yield PlannedTopic(topic, "raw", None)
    if plan.governance:
        yield PlannedTopic(plan.fence, "fence", 1)
    if plan.asks:
        yield PlannedTopic(plan.consent_commands, "asked", 1)
        yield PlannedTopic(f"{plan.consent}.changelog", "changelog", 1)
        yield PlannedTopic(plan.consent, "consent", n)
    if plan.erases:
        yield PlannedTopic(plan.suppressed, "suppressed", n)
        yield PlannedTopic(plan.keys, "keys", n)
        yield PlannedTopic(plan.erasure_commands, "asked", 1)
        yield PlannedTopic(f"{plan.app}.erasure.changelog", "changelog", 1)
        yield PlannedTopic(plan.erase, "asked", n)
        yield PlannedTopic(plan.found, "told", 1)
        yield PlannedTopic(plan.receipts, "told", 1)
        yield PlannedTopic(plan.passed, "passed", 1)
        yield PlannedTopic(plan.erasures, "erasures", 1)
    for door in plan.doors:
        yield PlannedTopic(f"{plan.leaves(door)}.changelog", "changelog", n)
        yield PlannedTopic(plan.leaves(door), "view" if door.sink is None else "activation", n)


def _agents(plan: Plan) -> tuple[PlannedAgent, ...]:
    agents = []
    for view in plan.views if plan.sources else ():
        agents.append(_govern(view))
    for identity in plan.identities:
        loop, links = plan.loop(identity), plan.at(identity.govern).links
        agents.append(
            PlannedAgent(
                name=identity.agent,
                group=loop,
                lead=(plan.tasks,),
                reads=(links, loop, *((plan.erase,) if plan.erases else ())),
                writes=(
                    plan.assignments(identity),
                    plan.identity_changes(identity),
                    loop,
                    *((links, plan.found, plan.receipts) if plan.erases else ()),
                ),
                changelogs=(f"{loop}.changelog",),
                tables=("nodes", "neighbours", "waiting", "lent", "evidence", "holders", "told", "sent"),
                fingerprint=identity.rules.fingerprint[:16],
                logic=identity.rules.said,
            )
        )
    for projection in plan.projections:
        days = (plan.days,) if windowed(projection) else ()
        followed = plan.identity_of(projection)
        moves = (plan.parts(projection),) if followed is not None else ()
        assigned = (plan.assignments(followed),) if followed is not None else ()
        logic = logic_of(projection, followed, plan)
        agents.append(
            PlannedAgent(
                name=projection.agent,
                group=f"{plan.app}.{projection.name}.v{projection.version}",
                lead=(plan.tasks,),
                reads=(
                    *(plan.at(projection.govern).governed(s) for s in plan.sources_of(projection)),
                    *assigned,
                    *moves,
                    *days,
                    *((plan.erase,) if plan.erases else ()),
                ),
                writes=(plan.projected(projection), *moves, *((plan.receipts,) if plan.erases else ())),
                changelogs=(f"{plan.projected(projection)}.changelog",),
                tables=(
                    "fragments",
                    "written",
                    "due",
                    *(("profiles", "slots", "parts") if followed is not None else ()),
                ),
                fingerprint=digest_of(logic),
                logic=logic,
            )
        )
    return (*agents, *(_asking(plan, outside) for outside in plan.outsides), *_agents_of_rights(plan))


def _asking(plan: Plan, outside: Outside) -> PlannedAgent:
    """Decides what is asked. Whoever calls has a group of its own, of Faust."""
    first = plan.at(plan.governs[0])
    return PlannedAgent(
        name=outside.agent,
        group=plan.answers(outside),
        lead=(plan.tasks,),
        reads=(
            *dict.fromkeys(first.governed(carrier.source) for carrier in plan.carriers(outside)),
            *((plan.withheld(outside),) if outside.waits else ()),
            *((plan.erase,) if plan.erases else ()),
        ),
        writes=(plan.questions(outside), plan.dlq, *((plan.receipts,) if plan.erases else ())),
        changelogs=(f"{plan.answers(outside)}.changelog",),
        tables=("asked", *(("noted", "holders", "looks") if outside.waits else ())),
        fingerprint="outside/1",  # not of the function, nor of refresh=: what was asked stays asked
    )


def _govern(plan: Plan) -> PlannedAgent:
    """Of one version of govern."""
    inputs = [plan.replay(s) for s in plan.sources]
    inputs += [plan.truncates(s) for s in plan.sources if s.kind == "rows"]
    return PlannedAgent(
        name=plan.govern_agent,
        group=f"{plan.app}.govern.v{plan.govern}",
        lead=tuple(s.topic for s in plan.sources),
        reads=(*(s.topic for s in plan.sources), *inputs),
        writes=(
            *(plan.governed(s) for s in plan.sources),
            *((plan.links,) if plan.deciding else ()),
            plan.dlq,
        ),
        changelogs=tuple(plan.govern_changelog(s) for s in plan.sources),
        tables=("ids", "rows", "misfits", *(("links",) if plan.deciding else ())),
        fingerprint="govern/1",
        logic=logic_of_govern(plan),
    )


def _agents_of_rights(plan: Plan) -> Iterator[PlannedAgent]:
    if plan.asks:
        yield PlannedAgent(
            name="consent",
            group=f"{plan.app}.consent.v1",
            lead=(plan.fence,),
            reads=(
                *(s.asked.topic for s in plan.consents),
                plan.consent_commands,
                *((plan.erase,) if plan.erases else ()),
            ),
            writes=(plan.consent, plan.dlq, *((plan.receipts,) if plan.erases else ())),
            changelogs=(f"{plan.consent}.changelog",),
            tables=("consents",),
            fingerprint="consent/1",
        )
    if plan.erases:
        yield PlannedAgent(
            name="erasure",
            group=f"{plan.app}.erasure.v1",
            lead=(plan.fence,),
            reads=(
                *(s.asked.topic for s in plan.erasures_said),
                *(plan.erasure_commands, plan.suppressed, plan.found, plan.receipts, plan.passed),
            ),
            writes=(
                *(plan.suppressed, plan.keys, plan.erase, *map(plan.loop, plan.identities)),
                *(plan.erasures, plan.audit, plan.dlq),
            ),
            changelogs=(f"{plan.app}.erasure.changelog",),
            tables=("erasures", "suppressed", "keys"),
            fingerprint="erasure/1",
        )
    for door in plan.doors:
        topic = plan.leaves(door)
        yield PlannedAgent(
            name=door.agent,
            group=topic,
            lead=(plan.tasks,),
            reads=(*map(plan.projected, door.versions), *((plan.erase,) if plan.erases else ())),
            writes=(topic, *((plan.receipts,) if plan.erases else ()), plan.audit, plan.dlq),
            changelogs=(f"{topic}.changelog",),
            tables=("held", "beside", "holders", "timers"),
            # A sink that is given another projection begins anew: else nobody would take back whom only the old one has.
            # Versions of one projection are told apart row by row.
            fingerprint=f"door/2 {plan.app}.{door.of} {door.purpose.name}{' veiled' if plan.erases else ''}",
        )


def _doors(plan: Plan, said: Declarations) -> tuple[Door, ...]:
    purposes = {purpose.name: purpose for purpose in said.purposes}
    views = [
        Door(projection, purposes[name], (projection,))
        for projection in said.projections
        for name in projection.purposes
    ]
    sinks = [Door(s.projection, purposes[s.purpose], plan.versions_of(s.projection.name), s) for s in said.sinks]
    return (*views, *sinks)


def _check_clear(plan: Plan) -> None:
    """What is written in clear, beside records or as a link, must not be classified; and what is must be sealable. Raises
    DeclarationError."""
    for source in plan.sources:
        for declared in source.types:
            named = {
                "event_id": declared.event_id,
                "at": declared.at,
                "tenant": source.tenant,
                **{f"key ({k})": k for k in declared.key},
            }
            for what, name in named.items():
                if name is not None and class_of_field(plan, declared.record, name):
                    raise DeclarationError(
                        f"{declared.name}.{name} is personal and {what.split()[0]} of {source.topic!r}, which is written in"
                        " clear beside every record: use a field that is not, or personal=False on its identifier"
                    )
            if source.format == "cloudevents":
                _check_event(plan, source, declared)
    for record, name, annotation in _said_types(plan):
        found = classified_in(annotation, f"{record.__name__}.{name}", plan.personal_kinds)
        namespace, _ = identifier_in(annotation, plan.identifiers)
        if namespace is not None and not namespace.personal and found:
            raise DeclarationError(
                f"{record.__name__}.{name} is Personal and an identifier, which is written in clear where it links: say"
                f" personal=True on {namespace.name!r}, or give the field a type that is no identifier"
            )


def _check_event(plan: Plan, source: Source, declared: SourceType) -> None:
    """What names a CloudEvent, and says when it was, is written beside the record where no field is said for that."""
    beside = {"source": "event_id", "id": "event_id", "time": "at"}
    for f in fields_of(declared.record):
        instead = beside.get(f.path.removeprefix(ATTRIBUTE)) if f.path.startswith(ATTRIBUTE) else None
        said = declared.at if instead == "at" else declared.event_id
        if instead is not None and said is None and class_of_field(plan, declared.record, f.name):
            raise DeclarationError(
                f"{declared.name}.{f.name} is personal and an attribute of events of {source.topic!r} that is written in clear"
                f" beside every record: say {instead}=, a field that is not personal, or have producers put it elsewhere"
            )


def _said_types(plan: Plan) -> Iterator[tuple[type, str, Any]]:
    """Record types with their fields and enrichments, as annotated."""
    records: list[type[Record]] = [declared.record for source in plan.sources for declared in source.types]
    records += [said.asked.record for said in plan.consents] + [said.asked.record for said in plan.erasures_said]
    yield from ((record, f.name, f.annotation) for record in records for f in fields_of(record))
    yield from ((e.record, e.name, e.returns) for source in plan.sources for e in source.enrichments)


def tenanted(plan: Plan) -> set[str]:
    """Namespaces whose identifiers are a tenant's: `tenant/value`, or the token of that."""
    said = {
        name for source in plan.sources if source.tenant for t in source.types for name in _named_in(plan, t.record)
    }
    return said | {source.key.name for source in plan.sources if source.tenant and source.key is not None}


def _check_tenants(plan: Plan) -> None:
    """Where some say a tenant, a value without one could name another's customer: `a/7`. Raises DeclarationError."""
    said = tenanted(plan)
    for source in plan.sources:
        for declared in source.types:
            mine = _named_in(plan, declared.record) | ({source.key.name} if source.key is not None else set())
            _refuse_without_tenant(declared.record, source.tenant, mine & said)
    for asked in [s.asked for s in plan.consents] + [s.asked for s in plan.erasures_said]:
        mine = {link.namespace.name for link in asked.identifiers} | ({asked.key.name} if asked.key else set())
        _refuse_without_tenant(asked.record, asked.tenant, said if asked.any_identifier else mine & said)


def _named_in(plan: Plan, record: type[Record]) -> set[str]:
    """Namespaces of the identifiers that a record type and its enrichments have."""
    annotations = [annotation for owner, _, annotation in _said_types(plan) if owner is record]
    return {n.name for annotation in annotations if (n := identifier_in(annotation, plan.identifiers)[0]) is not None}


def _refuse_without_tenant(record: type[Record], tenant: str | None, shared: set[str]) -> None:
    if tenant is None and shared:
        raise DeclarationError(
            f"{record.__name__} has {', '.join(sorted(shared))} identifiers and no tenant=, which others of them have: say"
            " whose customers it is about, or use identifiers of its own"
        )


def _check_blocked(plan: Plan) -> None:
    """Values that rule sets block are looked at before they are hidden, once for all. Raises DeclarationError."""
    hidden = sorted({n.name for n in plan.identifiers.values() if n.personal})
    if any(source.tenant for source in plan.sources):
        hidden = sorted(n.name for n in plan.identifiers.values())
    different = [i for i in plan.identities if i.rules.blocked != plan.identities[0].rules.blocked]
    if hidden and different:
        raise DeclarationError(
            f"app.identity({different[0].name!r}): blocked= is other than that of {plan.identities[0].name!r}, and values of"
            f" {', '.join(hidden)} can no longer be seen where rules look: give all rule sets the same blocked="
        )


def _check_rights(plan: Plan) -> None:
    """Views that could never hold anything, sensitive values, regions. Raises DeclarationError."""
    for projection in plan.projections:
        said = f"{projection.record.__name__}"
        for purpose in projection.purposes:
            check_view(sets_of(plan, projection), purpose, said)
        for source in plan.sources_of(projection):
            if source.region not in (None, projection.region):
                raise DeclarationError(
                    f"{said} would carry records of {source.topic!r}, which must stay in region {source.region!r}, to"
                    f" {_place(projection.region)}; say region={source.region!r} on the projection if its topics are there,"
                    " or take the attributes out"
                )
    for door in plan.doors:
        if door.sink is not None:
            for projection in door.versions:
                _check_sink(plan, door.sink, projection)


def _check_outside(plan: Plan) -> None:
    """Whether anybody is asked about, and may be. Raises DeclarationError."""
    for outside in plan.outsides:
        said, kind = f"@app.enrich(refresh=…) {outside.name}", outside.kind.__name__
        if outside.purpose is None and plan.purposes.by_name:
            raise DeclarationError(f"{said}: what is it asked for? Say purpose=, one that app.purpose(…) gave")
        carriers = plan.carriers(outside)
        if not carriers:
            what = "" if outside.purpose is None else f" that may be used for {outside.purpose.name!r} (purposes=)"
            raise DeclarationError(f"{said}: no source{what} has a field of type {kind}, so it would never be asked")
        for carrier in carriers:
            whole = {c.path[0] for c in classified(carrier.declared.record, plan.personal_kinds) if len(c.path) == 1}
            for name, _, many in (*carrier.fields, *carrier.others):
                if many and name in whole:
                    raise DeclarationError(
                        f"{said}: {carrier.declared.name}.{name} is sealed as one, so nobody can be asked about a part of it;"
                        f" say list[{kind}] without Personal around it: identifiers are sealed one by one"
                    )
            if carrier.source.region not in (None, outside.region):
                raise DeclarationError(
                    f"{said} would carry identifiers of {carrier.source.topic!r}, which must stay in region"
                    f" {carrier.source.region!r}, to {_place(outside.region)}; say region={carrier.source.region!r} if who is"
                    " asked is there"
                )
        answers = plan.source_of(outside.record)
        if (personal := sealed_of(plan, answers)) and not plan.identifiers[outside.kind].personal:
            raise DeclarationError(
                f"{said}: {personal[0]} is personal, and an answer is sealed with the key that its question was sealed with;"
                f" {kind} is not personal, so there is none. Say personal=True on @app.identifier of {kind}"
            )


def _check_sink(plan: Plan, sink: SinkDeclaration, projection: ProjectionDeclaration) -> None:
    """Whether it may have what this version of its projection has."""
    said, record = f"@app.sink({sink.name!r})", projection.record.__name__
    if sink.purpose not in projection.purposes:
        raise DeclarationError(
            f"{said}: {record}, version {projection.version} of {projection.name!r}, is not made for {sink.purpose!r}, as the"
            " sink is; add it to purposes= of its @app.projection"
        )
    if projection.region not in (None, sink.region):
        raise DeclarationError(
            f"{said} would carry profiles of {record}, which must stay in region {projection.region!r}, to"
            f" {_place(sink.region)}; say region={projection.region!r} if the far side is there"
        )
    seen = view_of(sets_of(plan, projection), sink.purpose).states
    closest = classes_of(plan, projection)
    refused = sorted(name for name in seen if closest.get(name) == FieldClass.SENSITIVE and name not in sink.sensitive)
    if refused:
        raise DeclarationError(
            f"{said} would be given {', '.join(refused)}, which is Sensitive; say sensitive={refused!r} if it may have that, or"
            " give it a projection without"
        )


NEED_CLEAR = ("total", "average", "minimum", "maximum")  # attributes that calculate with values, or put them in order


def _check_sealed(plan: Plan) -> None:
    """Attributes that would have to know what is sealed. Raises DeclarationError with what to do instead."""
    for projection in plan.projections:
        plan = plan.at(projection.govern)
        for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
            said, kind = f"{projection.record.__name__}.{attribute.name}", declaration.kind
            for item in declaration.inputs:
                if class_of_input(plan, item) is None:
                    pass
                elif kind in NEED_CLEAR:
                    raise DeclarationError(
                        f"{said}: {kind}({item}) needs values that it can read, and {item} is sealed before it comes here."
                        f" Take newest({item}) or collect({item}) and compute it where they are opened, with @derived; or in"
                        f" govern, which sees them in clear: @app.enrich({item.record.__name__})"
                    )
                elif kind == "flag" and attribute.type == "bool":
                    raise DeclarationError(
                        f"{said}: flag({item}) asks whether it is true, and it is sealed before it comes here. Take"
                        f" newest({item}) and a @derived value of it, or @app.enrich({item.record.__name__})"
                    )
                conditions = [era.where for era in declaration.eras if item in era.inputs]
                looked = sorted(
                    name for name in set().union(*map(_looked_at, conditions)) & {f.name for f in fields_of(item.record)}
                    if class_of_field(plan, item.record, name) is not None
                )  # fmt: skip
                if looked:
                    raise DeclarationError(
                        f"{said}: where= looks at {item.record.__name__}.{looked[0]}, which is sealed before it comes here. Say"
                        f" in govern what the condition is to know, with @app.enrich({item.record.__name__}), and take"
                        f" {kind}(…) of that"
                    )


def _looked_at(where: Any) -> set[str]:
    """The fields of a record that a condition looks at, as far as it can be seen."""
    if isinstance(where, Condition):
        return set(where.fields or ())
    if not inspect.isfunction(where) or not where.__code__.co_varnames:
        return set()
    return _reads_of(where.__code__, where.__code__.co_varnames[0])


def _reads_of(code: CodeType, argument: str) -> set[str]:
    """Attributes that a function reads of one of its arguments, also in functions inside of it."""
    found, last = set(), None
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and last == argument:
            found.add(step.argval)
        loaded = step.argval if step.opname.startswith("LOAD_") else None
        last = loaded[-1] if isinstance(loaded, tuple) else loaded  # newer Pythons load two at once
    return found.union(*(_reads_of(inner, argument) for inner in code.co_consts if isinstance(inner, CodeType)))


def _place(region: str | None) -> str:
    return "a place that says no region" if region is None else f"region {region!r}"


def digest_of(logic: Iterable[str]) -> str:
    """16 hex digits of lines of logic."""
    return hashlib.sha256("\n".join(logic).encode()).hexdigest()[:16]


def logic_of_govern(plan: Plan) -> tuple[str, ...]:
    """What govern adds to records, by enrichment."""
    found = [(s.name, enrichment) for s in plan.sources for enrichment in s.enrichments]
    return tuple(
        f"{name}.{enrichment.record.__name__}.{enrichment.name}: {_enriches(enrichment)}" for name, enrichment in found
    )


def _enriches(enrichment: Enrichment) -> str:
    if enrichment.since is None:
        return text_of(enrichment.function)
    before = "nothing" if enrichment.before is None else text_of(enrichment.before)
    return f"since {_moment(enrichment.since)} {text_of(enrichment.function)}; before: {before}"


def logic_of(projection: ProjectionDeclaration, identity: Identity | None, plan: Plan) -> tuple[str, ...]:
    """Everything that decides what a profile of this projection holds, in lines."""
    parts = ["projection/3", *([] if identity is None else [f"identity: {identity.agent}"])]
    parts += [] if projection.govern == 1 else [f"govern: {projection.govern}"]
    plan = plan.at(projection.govern)
    first = {attribute.of: attribute.name for attribute in reversed(projection.attributes)}
    for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
        parts.append(f"attribute {attribute.name}: {_said(attribute, declaration, first[attribute.of])}")
    if projection.purposes:  # bits of stored masks are places in this list
        asking = [purpose for purpose in projection.purposes if plan.purposes.by_name[purpose].asks]
        parts.append(f"purposes: {', '.join(projection.purposes)}, of which ask: {', '.join(asking) or 'none'}")
        parts += [
            f"source {s.name}: for {', '.join(sorted(s.purposes)) or 'none'}" for s in plan.sources_of(projection)
        ]
    sealed = {i for d in projection.declarations for i in d.inputs if class_of_input(plan, i) is not None}
    if sealed:  # their values are kept in another form
        parts.append(f"sealed: {', '.join(sorted(map(str, sealed)))}")
    parts += [f"derived {name}: {text_of(vars(projection.record)[name].fget)}" for name in projection.derived]
    return tuple(parts)


def _said(attribute: Attribute, declaration: AttributeDeclaration, first: str) -> str:
    """An attribute, in words that have all of it. `first`: the first that reads the same: they are kept together."""
    now, *older = declaration.eras
    numbers = f"n={attribute.n} limit={attribute.limit} within_days={attribute.within_days} scale={attribute.scale}"
    beside = "" if first == attribute.name else f", as {first}"
    said = f"{attribute.kind}({_inputs(now)}) of {attribute.type}, {numbers}{beside}{_when(now)}"
    return "; before: ".join([said, *(f"{attribute.kind}({_inputs(era)}){_when(era)}" for era in older)])


def _inputs(era: Era) -> str:
    return ", ".join(map(str, era.inputs))


def _when(era: Era) -> str:
    where = "" if era.where is None else f", where {text_of(era.where)}"
    return where if era.since is None else f"{where}, since {_moment(era.since)}"


def _moment(since: datetime) -> str:
    return since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_of(function: Callable[..., Any]) -> str:
    """A function as text that survives reformatting and a newer Python; a condition on fields as it prints."""
    if not inspect.isfunction(function):
        return repr(function)
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except OSError:
        return function.__code__.co_code.hex()
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a lambda in the middle of an expression: the line it stands on
        return " ".join(source.split())

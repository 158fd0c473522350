"""What the declarations of an app add up to: every topic, group, table and agent by name. Frozen; knows no `App`.

Names are those of the design's ARCHITECTURE page. Configuration of topics is part of the plan, so that `c360 topics`
can check and apply it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from c360.declare import Declarations, ProjectionDeclaration, Source, UserAgent, with_enrichments
from c360.errors import DeclarationError, UsageError
from c360.identity.namespace import Namespace

Role = Literal["raw", "governed", "projection", "changelog", "dlq", "replay", "truncates", "tasks", "days"]

LARGEST_RECORD_BYTES = 16 << 20  # of our own topics; the largest state that can be committed
FOREVER: Mapping[str, str] = {"cleanup.policy": "delete", "retention.ms": "-1"}
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
}


@dataclass(frozen=True)
class PlannedTopic:
    """A topic of the app. `partitions` None: as many as the raw topic `like` has."""

    name: str
    role: Role
    partitions: int | None
    like: str | None = None

    @property
    def config(self) -> Mapping[str, str]:
        return CONFIGS[self.role]

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


@dataclass(frozen=True)
class Plan:
    """A checked app. Below this nothing has heard of `App`."""

    app: str
    partitions: int
    identifiers: Mapping[type, Namespace]
    sources: tuple[Source, ...]
    projections: tuple[ProjectionDeclaration, ...]
    user_agents: tuple[UserAgent, ...]
    topics: tuple[PlannedTopic, ...]
    agents: tuple[PlannedAgent, ...]

    def agent(self, name: str) -> PlannedAgent:
        """The agent of that name. Raises UsageError, naming those there are."""
        for agent in self.agents:
            if agent.name == name:
                return agent
        known = ", ".join(agent.name for agent in self.agents)
        raise UsageError(f"there is no agent {name!r} in {self.app!r}; it has {known}")

    def source_of(self, record: type) -> Source:
        for source in self.sources:
            if any(t.record is record for t in source.types):
                return source
        raise KeyError(record)

    # names ------------------------------------------------------------------------------------------------------
    def governed(self, source: Source) -> str:
        return f"{self.app}.governed.{source.name}.v1"

    def replay(self, source: Source) -> str:
        return f"{self.app}.replay.{source.name}"

    def truncates(self, source: Source) -> str:
        return f"{self.app}.truncates.{source.name}"

    def govern_changelog(self, source: Source) -> str:
        return f"{self.app}.govern.v1.{source.name}.changelog"

    def projected(self, projection: ProjectionDeclaration) -> str:
        return f"{self.app}.{projection.name}.v{projection.version}"

    def sources_of(self, projection: ProjectionDeclaration) -> tuple[Source, ...]:
        """The sources a projection reads, in order of declaration."""
        records = {i.record for d in projection.declarations for i in d.inputs}
        return tuple(s for s in self.sources if any(t.record in records for t in s.types))

    @property
    def dlq(self) -> str:
        return f"{self.app}.dlq"

    @property
    def tasks(self) -> str:
        return f"{self.app}.tasks"

    @property
    def days(self) -> str:
        return f"{self.app}.days"


def windowed(projection: ProjectionDeclaration) -> bool:
    """Whether some attribute looks at a window of days, so that the projection reads the days topic."""
    return any(a.within_days for a in projection.attributes)


def make_plan(app: str, partitions: int, said: Declarations) -> Plan:
    """Check the declarations together. Raises DeclarationError."""
    sources = tuple(with_enrichments(s, said.enrichments) for s in said.sources.values())
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
    governed = {bare.governed(s).removesuffix(".v1"): bare.governed(s) for s in sources}
    user_agents = tuple(UserAgent(a.name, governed.get(a.topic, a.topic), a.function) for a in said.agents)
    plan = Plan(app, partitions, bare.identifiers, sources, bare.projections, user_agents, _topics(bare), _agents(bare))
    names = [t.name for t in plan.topics]
    for name in names:
        if names.count(name) > 1:
            raise DeclarationError(f"two declarations lead to the topic {name!r}; give one of them another name=…")
    return plan


def _topics(plan: Plan) -> tuple[PlannedTopic, ...]:
    n = plan.partitions
    topics = []
    for source in plan.sources:
        topics.append(PlannedTopic(source.topic, "raw", None))
        topics.append(PlannedTopic(plan.replay(source), "replay", None, like=source.topic))
        if source.kind == "rows":
            topics.append(PlannedTopic(plan.truncates(source), "truncates", None, like=source.topic))
        topics.append(PlannedTopic(plan.govern_changelog(source), "changelog", None, like=source.topic))
        topics.append(PlannedTopic(plan.governed(source), "governed", n))
    if plan.sources:
        topics.append(PlannedTopic(plan.dlq, "dlq", n))
    for projection in plan.projections:
        topics.append(PlannedTopic(f"{plan.projected(projection)}.changelog", "changelog", n))
        topics.append(PlannedTopic(plan.projected(projection), "projection", n))
    if plan.projections:
        topics.append(PlannedTopic(plan.tasks, "tasks", n))
    if any(map(windowed, plan.projections)):
        topics.append(PlannedTopic(plan.days, "days", n))
    return tuple(topics)


def _agents(plan: Plan) -> tuple[PlannedAgent, ...]:
    agents = []
    if plan.sources:
        inputs = [plan.replay(s) for s in plan.sources]
        inputs += [plan.truncates(s) for s in plan.sources if s.kind == "rows"]
        agents.append(
            PlannedAgent(
                name="govern",
                group=f"{plan.app}.govern.v1",
                lead=tuple(s.topic for s in plan.sources),
                reads=(*(s.topic for s in plan.sources), *inputs),
                writes=(*(plan.governed(s) for s in plan.sources), plan.dlq),
                changelogs=tuple(plan.govern_changelog(s) for s in plan.sources),
                tables=("ids", "rows", "misfits"),
                fingerprint="govern/1",
            )
        )
    for projection in plan.projections:
        days = (plan.days,) if windowed(projection) else ()
        agents.append(
            PlannedAgent(
                name=projection.agent,
                group=f"{plan.app}.{projection.name}.v{projection.version}",
                lead=(plan.tasks,),
                reads=(*(plan.governed(s) for s in plan.sources_of(projection)), *days),
                writes=(plan.projected(projection),),
                changelogs=(f"{plan.projected(projection)}.changelog",),
                tables=("fragments", "written", "due"),
                fingerprint=projection_fingerprint(projection),
            )
        )
    return tuple(agents)


def projection_fingerprint(projection: ProjectionDeclaration) -> str:
    """16 hex digits over everything that decides what a profile of this projection holds."""
    parts: list[str] = []
    for attribute, declaration in zip(projection.attributes, projection.declarations, strict=True):
        parts.append(repr(attribute))
        parts += [str(i) for i in declaration.inputs]
        parts.append("" if declaration.where is None else _text_of(declaration.where))
    for name in projection.derived:
        parts += [name, _text_of(vars(projection.record)[name].fget)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _text_of(function: Callable[..., Any]) -> str:
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

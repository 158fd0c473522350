"""Topics of a plan against those of a broker: what is missing, what differs; create, never delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from c360.engine.transport import Admin, TopicSpec
from c360.ops.audit import Run, Told
from c360.plan import Plan, PlannedTopic


@dataclass(frozen=True)
class Finding:
    """One topic that is not as planned."""

    topic: str
    problem: str  # "missing", "partitions", "config", "undeclared"
    message: str


def partitions_of(topic: PlannedTopic, existing: Mapping[str, int]) -> int | None:
    """How many partitions a planned topic has to have; None while its raw topic does not exist."""
    return topic.partitions if topic.like is None else existing.get(topic.like)


def check(plan: Plan, admin: Admin, *, gone: Collection[str] = ()) -> list[Finding]:
    """Everything that differs, raw topics included (they are the user's: only their absence is a finding).

    `gone`, here and below: topics of versions that are retired (`Controls.gone`). That they are not there is as it should be.
    """
    existing = admin.topics()
    owned = [t.name for t in plan.topics if t.owned and t.name in existing]
    configs = admin.topic_configs(owned)
    findings = []
    for topic in plan.topics:
        wanted = partitions_of(topic, existing)
        if topic.name not in existing:
            if topic.name in gone:
                continue
            of = (
                f" ({wanted} partitions)"
                if wanted
                else ""
                if topic.owned
                else " (a raw topic: make it, or `c360 load` data)"
            )
            findings.append(Finding(topic.name, "missing", f"{topic.name} does not exist{of}"))
            continue
        if not topic.owned:
            continue
        if wanted is not None and existing[topic.name] != wanted:
            findings.append(
                Finding(
                    topic.name,
                    "partitions",
                    f"{topic.name} has {existing[topic.name]} partitions, planned are {wanted}",
                )
            )
        actual = configs.get(topic.name, {})
        for name, value in topic.config.items():
            if name in actual and actual[name] != value:
                findings.append(
                    Finding(topic.name, "config", f"{topic.name}: {name} is {actual[name]}, planned is {value}")
                )
    return findings + undeclared(plan, existing)


SINK = re.compile(r"activation\.([^.]+)")
VIEW = re.compile(r"([^.]+)\.v(\d+)\.([^.]+)")
PROJECTION = re.compile(r"([^.]+)\.v(\d+)")


def undeclared(plan: Plan, existing: Collection[str]) -> list[Finding]:
    """Topics of sinks, views and projections that the app does not declare any more, which nobody keeps: by their names, and
    as they have a changelog."""
    known = {topic.name for topic in plan.topics}
    found = []
    for name in sorted(set(existing) - known):
        app, _, rest = name.partition(".")
        if app != plan.app or f"{name}.changelog" not in existing or f"{name}.changelog" in known:
            continue
        if of := SINK.fullmatch(rest):
            what, again = f"what the sink {of[1]} was given", f"@app.sink({of[1]!r}, …)"
        elif of := VIEW.fullmatch(rest):
            what, again = f"the view of {of[1]}@{of[2]} for {of[3]}", f"purposes=[{of[3]}] of {of[1]}"
        elif (of := PROJECTION.fullmatch(rest)) and of[1] not in ("identity", "assignments"):
            what, again = f"the profiles of {of[1]}@{of[2]}", f"@app.projection({of[1]!r}, version={of[2]})"
        else:
            continue
        found.append(
            Finding(
                name,
                "undeclared",
                f"{name} holds {what}, which the app does not declare any more: nothing is taken back from it, also not when"
                f" somebody withdraws or is erased. If that was meant, delete it, {name}.changelog and the group {name};"
                f" if not, declare it again: {again}",
            )
        )
    return found


def apply(plan: Plan, admin: Admin, *, gone: Collection[str] = ()) -> list[str]:
    """Create the topics of ours that are missing and can be; returns their names."""
    specs = missing(plan, admin, gone=gone)
    admin.create(specs)
    return [s.name for s in specs]


def missing(plan: Plan, admin: Admin, *, gone: Collection[str] = ()) -> list[TopicSpec]:
    """Topics of ours that are not there and can be made."""
    existing = admin.topics()
    specs = []
    for topic in plan.topics:
        count = partitions_of(topic, existing)
        if topic.owned and topic.name not in existing and topic.name not in gone and count is not None:
            specs.append(TopicSpec(topic.name, count, topic.config))
    return specs


def apply_told(plan: Plan, admin: Admin, run: Callable[[], Run], *, gone: Collection[str] = ()) -> list[str]:
    """As `apply`, by a person: told in the audit log, which is made first if it is missing. `run`: begins the telling."""
    specs = missing(plan, admin, gone=gone)
    if not specs:
        return []
    names = [s.name for s in specs]
    admin.create([s for s in specs if s.name == plan.audit])
    with run() as running, running.acting(Told("topics apply", after={"topics": ", ".join(names)})):
        admin.create(specs)
    return names

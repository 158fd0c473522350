"""Topics of a plan against those of a broker: what is missing, what differs; create, never delete."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from c360.engine.transport import Admin, TopicSpec
from c360.ops.audit import Run, Told
from c360.plan import DAY, Plan, PlannedTopic

MS = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Finding:
    """One topic that is not as planned."""

    topic: str
    problem: str  # "missing", "partitions", "config", "retention", "undeclared"
    message: str


def partitions_of(topic: PlannedTopic, existing: Mapping[str, int]) -> int | None:
    """How many partitions a planned topic has to have; None while its raw topic does not exist."""
    return topic.partitions if topic.like is None else existing.get(topic.like)


def check(plan: Plan, admin: Admin, *, gone: Collection[str] = ()) -> list[Finding]:
    """Everything that differs, raw topics included (they are the user's: only their absence is a finding).

    `gone`, here and below: topics of versions that are retired (`Controls.gone`). That they are not there is as it should be.
    """
    existing = admin.topics()
    configs = admin.topic_configs([t.name for t in plan.topics if t.owned and t.name in existing])
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
        findings += _settings(plan, topic, configs.get(topic.name, {}))
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


def _settings(plan: Plan, topic: PlannedTopic, actual: Mapping[str, str]) -> Iterator[Finding]:
    """What the broker has otherwise; of governed topics first what a rebuild would miss by it."""
    cut = ""
    if topic.role == "governed":
        needed = int(topic.config["retention.ms"])
        if less(kept := int(actual.get("retention.ms", needed)), needed):
            cut = "retention.ms"
            yield Finding(
                topic.name,
                "retention",
                f"{topic.name} keeps {span(kept)} ({cut}), and {_who_needs(plan, topic)}: what is older is lost to a rebuild",
            )
        if actual.get("retention.bytes", "-1") != "-1":
            yield Finding(
                topic.name,
                "retention",
                f"{topic.name} keeps {actual['retention.bytes']} bytes of each partition (retention.bytes), however little time"
                f" that is, and {_who_needs(plan, topic)}",
            )
    for name, value in topic.config.items():
        if name in actual and actual[name] != value and name != cut:
            yield Finding(topic.name, "config", f"{topic.name}: {name} is {actual[name]}, planned is {value}")


def _who_needs(plan: Plan, topic: PlannedTopic) -> str:
    """The versions that need the most of it, and how much that is."""
    view, source = next((v, s) for v in plan.views for s in plan.sources if v.governed(s) == topic.name)
    kept = view.keeps(source)
    readers = view.readers_of(source)
    most = [p.agent for p in readers if p.replay == kept] if source.kind == "events" else [p.agent for p in readers]
    needs = f"{', '.join(most)} {'need' if len(most) > 1 else 'needs'}" if most else "it is planned to keep"
    return f"{needs} {'all of it' if kept is None else span(kept // MS)}"


def raw_notes(plan: Plan, admin: Admin) -> list[str]:
    """Raw topics that keep less than versions need: they are the user's, and it is no fault while governed topics are there.

    What is not in governed topics any more, or was never as new logic of govern wants it, can only come from the raw ones.
    """
    configs = admin.topic_configs([s.topic for s in plan.sources if s.topic in admin.topics()])
    notes = []
    for source in plan.sources:
        config = configs.get(source.topic, {})
        kept = int(config.get("retention.ms", "-1"))
        spans = [None if (said := view.keeps(source)) is None else said // MS for view in plan.views]
        needed = -1 if None in spans else max(said for said in spans if said is not None)
        if config.get("cleanup.policy", "delete") == "delete" and less(kept, needed):
            notes.append(
                f"{source.topic} keeps {span(kept)}: what versions need beyond that is in {plan.governed(source)} only, as"
                " govern wrote it then"
            )
    return notes


def less(kept_ms: int, needed_ms: int) -> bool:
    """Whether a retention is shorter than another; -1 is for ever."""
    return kept_ms >= 0 and (needed_ms < 0 or kept_ms < needed_ms)


def span(ms: int) -> str:
    """A retention for people."""
    if ms < 0:
        return "all"
    return f"{ms / DAY:.4g} days" if ms >= DAY else f"{ms / 3_600_000:.3g} hours"


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

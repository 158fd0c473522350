"""Sources as they stand: how far they are read, and whether somebody has paused them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from c360.agents.control import Pause, encode, pause_key
from c360.declare import Source
from c360.engine.lag import records_left
from c360.engine.transport import TP, Admin, Cluster, Reader
from c360.errors import UsageError
from c360.ops import control
from c360.ops.audit import Run, Told
from c360.ops.records import Message
from c360.plan import Plan


@dataclass(frozen=True)
class SourceStatus:
    """`lag`: records that are not governed yet, by the agent that governs; `since`: epoch ms."""

    source: str
    topic: str
    kind: str
    format: str
    partitions: int
    paused: bool
    since: int | None
    reason: str | None
    lag: dict[str, int]


def statuses(plan: Plan, cluster: Cluster) -> list[SourceStatus]:
    """All sources of the app, in its order. `partitions` is 0 where the raw topic does not exist."""
    controls = control.read(plan, cluster)
    admin, reader = cluster.admin(), cluster.reader()
    try:
        existing = admin.topics()
        found = []
        for source in plan.sources:
            pause, partitions = controls.pause(source.name), existing.get(source.topic, 0)
            inputs = [TP(source.topic, p) for p in range(partitions)]
            lag = {
                view.govern_agent: _lag(admin, reader, view.agent(view.govern_agent).group, inputs)
                for view in plan.views
                if source.name in {s.name for s in view.sources}
            }
            since, reason = (None, None) if pause is None else (pause.since, pause.reason or None)
            found.append(
                SourceStatus(
                    source.name, source.topic, source.kind, source.format, partitions,
                    pause is not None, since, reason, lag,
                )
            )  # fmt: skip
    finally:
        reader.close()
        admin.close()
    return found


def _lag(admin: Admin, reader: Reader, group: str, inputs: list[TP]) -> int:
    starts, offsets = reader.starts(inputs), admin.group_offsets(group)
    return sum(records_left(reader, {tp: max(starts[tp], offsets.get(tp, 0)) for tp in inputs}).values())


@dataclass(frozen=True)
class Turned:
    """A source that is, or would be, paused or resumed. `before`: what was decided until then; `done`: it is so already."""

    source: Source
    before: Pause | None
    after: Pause | None

    @property
    def done(self) -> bool:
        return (self.before is None) == (self.after is None)

    def told(self) -> Told:
        said = ["paused" if pause is not None else "read" for pause in (self.before, self.after)]
        what = "source-resume" if self.after is None else "source-pause"
        return Told(what, before={self.source.name: said[0]}, after={self.source.name: said[1]})


def pause(plan: Plan, cluster: Cluster, name: str, reason: str, *, now_ms: int, run: Run | None) -> Turned:
    """Nothing of a source is read until it is resumed. `run`: do it, told in the audit log; None: only look."""
    return _turn(plan, cluster, name, Pause(now_ms, reason), run)


def resume(plan: Plan, cluster: Cluster, name: str, *, run: Run | None) -> Turned:
    """It is read again, from where it stood. `run`: do it, told in the audit log; None: only look."""
    return _turn(plan, cluster, name, None, run)


def _turn(plan: Plan, cluster: Cluster, name: str, after: Pause | None, run: Run | None) -> Turned:
    source = source_of(plan, name)
    turned = Turned(source, control.read(plan, cluster).pause(source.name), after)
    if run is not None and not turned.done:
        value = None if after is None else encode(after)
        run.say("done", turned.told(), [Message(plan.control, pause_key(source.name), value, 0)])
    return turned


def source_of(plan: Plan, name: str) -> Source:
    """By its name or its topic. Raises UsageError for one that the app does not declare."""
    known: Mapping[str, Source] = {s.topic: s for s in plan.sources} | {s.name: s for s in plan.sources}
    if name in known:
        return known[name]
    if name in {topic.name for topic in plan.topics if not topic.owned}:
        raise UsageError(
            f"{name} has decisions of people, or requests to be forgotten: these are always read. Sources that can be paused:"
            f" {', '.join(s.name for s in plan.sources)}"
        )
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(s.name for s in plan.sources)}"
    raise UsageError(f"{plan.app!r} has no source {name!r}; {hint}")

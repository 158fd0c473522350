"""Profiles of a projection, against what the oracle makes of the governed topics."""

from __future__ import annotations

from collections.abc import Mapping

from c360.declare import ProjectionDeclaration
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.ops.verify.log import DeadLetters, Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Plan
from c360.testing.oracle.profiles import Profiles


class ProjectionCheck:
    """The profiles of one partition of a projection."""

    def __init__(
        self, plan: Plan, projection: ProjectionDeclaration, log: Log, dead: DeadLetters, partition: int
    ) -> None:
        self.plan, self.projection, self.log, self.dead = plan, projection, log, dead
        self.partition = partition
        self.sources = {plan.governed(s): s for s in plan.sources_of(projection)}
        self.changelogs = {plan.governed(s): plan.govern_changelog(s) for s in plan.sources_of(projection)}

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        (found,) = positions.values()
        out.positions = partitions_of(found.positions)
        profiles = Profiles(self.projection, self.sources)
        for topic in self.sources:
            self._fold(TP(topic, self.partition), profiles, out)
        if self.plan.days in self.plan.agent(self.projection.agent).reads:
            days = TP(self.plan.days, self.partition)
            out.lag += sum(entry.offset >= out.positions.get(days, 0) for entry in self.log.read([days]))
        if found.notes.keys() & {"catch_up", "sweep"}:
            out.cannot_tell(f"{self.projection.agent} is catching up after a reset: its profiles are of before")
        if out.complete:
            self._compare(profiles.records(found.notes.get("today", 0)), out)
        return out

    def _fold(self, tp: TP, profiles: Profiles, out: Findings) -> None:
        stop = out.positions.get(tp, 0)
        if self.log.start(tp) > 0 and not self.log.was_reset(self.changelogs[tp.topic]):
            out.cannot_tell(f"{tp.topic}/{tp.partition}: its first records were deleted")
        dead = self.dead.of(self.projection.agent, tp)
        refused = set()
        for entry in self.log.read([tp]):
            if entry.offset >= stop:
                out.lag += 1
            elif (self.projection.agent, tp, entry.offset) in self.dead.large:
                refused.add(entry.offset)  # which one is too much depends on the order: the agent is believed
            elif not profiles.add(tp.topic, entry.key or b"", entry.value or b"{}"):
                refused.add(entry.offset)
        for offset in sorted(refused | dead.keys()):
            if dead[offset] != (offset in refused):
                kind = "lost" if not dead[offset] else "doubled" if offset in refused else "unexpected"
                out.differ(kind, TP(self.plan.dlq, -1), None, None, origin=f"{tp.topic}/{tp.partition}@{offset}")

    def _compare(self, expected: Mapping[bytes, bytes], out: Findings) -> None:
        """The last record of each profile, byte for byte; and none written twice."""
        topic = TP(self.plan.projected(self.projection), self.partition)
        actual: dict[bytes, Entry] = {}
        for entry in self.log.read([topic]):
            key = entry.key or b""
            if key in actual and actual[key].value == entry.value:
                out.differ("doubled", topic, entry.offset, key)
            actual[key] = entry
        for key in sorted(expected.keys() | actual.keys()):
            wanted, found = expected.get(key), actual.get(key)
            if wanted == (found.value if found else None):
                continue
            offset = found.offset if found else None
            kind = "unexpected" if wanted is None else "lost" if found is None or found.value is None else "altered"
            out.differ(kind, topic, offset, key)

"""Profiles of a projection, against what the oracle makes of the governed topics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from c360.declare import ProjectionDeclaration
from c360.engine.partition import partition_of
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.ops.verify.identity import read_assignments
from c360.ops.verify.log import DeadLetters, Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Identity, Plan
from c360.testing.oracle.profiles import Member, Profiles


class ProjectionCheck:
    """The profiles of one partition of a projection; of one that follows identities, of all of them together.

    Who is whose profile is taken from the published assignments, as far as the tasks have read them: whether these are
    right is the identity's own check.
    """

    def __init__(
        self,
        plan: Plan,
        projection: ProjectionDeclaration,
        log: Log,
        dead: DeadLetters,
        partitions: Sequence[int],
        erased: Callable[[str], int] | None,
    ) -> None:
        """`erased`: how often a subject was; None where that cannot be told."""
        plan = plan.at(projection.govern)
        self.plan, self.projection, self.log, self.dead = plan, projection, log, dead
        self.partitions, self.erased = partitions, erased
        self.cut: dict[TP, int] = {}  # what comes before was not wanted (`c360 reset --to-datetime`)
        self.identity = plan.identity_of(projection)
        self.sources = {plan.governed(s): s for s in plan.sources_of(projection)}
        self.changelogs = {plan.governed(s): plan.govern_changelog(s) for s in plan.sources_of(projection)}

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        for task in positions.values():
            out.positions |= partitions_of(task.positions)
            self.cut |= partitions_of(task.notes.get("cut", {}))
        profiles = Profiles(self.plan, self.projection)
        for topic in self.sources:
            for partition in self.partitions:
                self._fold(TP(topic, partition), profiles, out)
        if self.plan.days in self.plan.agent(self.projection.agent).reads:
            out.lag += self._unread(self.plan.days, out)
        if any(task.notes.keys() & {"catch_up", "sweep"} for task in positions.values()):
            out.cannot_tell(f"{self.projection.agent} is catching up after a reset: its profiles are of before")
        days = {tp.partition: task.notes.get("today", 0) for tp, task in positions.items()}
        assigned = None if self.identity is None else self._assigned(self.identity, days, out)
        if self.erased is None:
            out.cannot_tell(
                f"{self.projection.agent}: who was erased cannot be told without the master key: set C360_KEYS"
            )
        else:
            profiles.lives |= {subject: self.erased(subject) for subject in profiles.subjects}
        if out.complete:
            latest = max(days.values(), default=0)  # of records that lie where they should not
            expected = profiles.records(lambda key: days.get(self._place(key).partition, latest), assigned)
            self._compare(expected, out)
        return out

    def _unread(self, topic: str, out: Findings) -> int:
        tps = [TP(topic, partition) for partition in self.partitions]
        return sum(entry.offset >= out.positions.get(entry.tp, 0) for entry in self.log.read(tps))

    def _assigned(self, identity: Identity, days: Mapping[int, int], out: Findings) -> dict[str, Member]:
        """Whose profile each subject is in. Moves that are on their way leave it open."""
        before = out.lag
        found = read_assignments(self.log, self.plan.assignments(identity), out, out.positions)
        if out.lag > before:  # what they replace may be compacted away
            out.cannot_tell(f"{self.projection.agent}: assignments are not read yet, so its profiles are of before")
        moving = self._unread(self.plan.parts(self.projection), out)
        out.lag += moving
        if moving:
            out.cannot_tell(f"{self.projection.agent}: {moving} messages between profiles are not read yet")
        if len(set(days.values())) > 1 and any(a.within_days for a in self.projection.attributes):
            out.cannot_tell(f"{self.projection.agent}: its tasks are at different days")
        return {subject: Member(a.standing.profile, a.standing.identifiers) for subject, a in found.items()}

    def _fold(self, tp: TP, profiles: Profiles, out: Findings) -> None:
        stop, begin = out.positions.get(tp, 0), self.cut.get(tp, 0)
        if self.log.start(tp) > begin and not self.log.was_reset(self.changelogs[tp.topic]):
            out.cannot_tell(
                f"{tp.topic}/{tp.partition}: its first records were deleted; what profiles have of them cannot be recomputed"
            )
        dead = self.dead.of(self.projection.agent, tp)
        refused = set()
        for entry in self.log.read([tp], begin):
            if entry.offset >= stop:
                out.lag += 1
            elif (self.projection.agent, tp, entry.offset) in self.dead.large:
                refused.add(entry.offset)  # which one is too much depends on the order: the agent is believed
            elif not profiles.add(tp.topic, entry.key or b"", entry.value or b"{}"):
                refused.add(entry.offset)
        cut = self.dead.cut and not self.log.was_reset(self.changelogs[tp.topic])
        for offset in sorted(refused | {offset for offset in dead if offset >= begin}):
            if dead[offset] != (offset in refused) and (dead[offset] or not cut):
                kind = "lost" if not dead[offset] else "doubled" if offset in refused else "unexpected"
                out.differ(kind, TP(self.plan.dlq, -1), None, None, origin=f"{tp.topic}/{tp.partition}@{offset}")

    def _place(self, key: bytes) -> TP:
        """Where the record of a profile belongs."""
        topic = self.plan.projected(self.projection)
        return TP(topic, partition_of(key, self.log.counts[topic]))

    def _compare(self, expected: Mapping[bytes, bytes], out: Findings) -> None:
        """The last record of each profile, byte for byte; and none written twice."""
        actual: dict[bytes, Entry] = {}
        for entry in self.log.read([TP(self.plan.projected(self.projection), p) for p in self.partitions]):
            key = entry.key or b""
            if key in actual and actual[key].value == entry.value:
                out.differ("doubled", entry.tp, entry.offset, key)
            if self._place(key) != entry.tp:
                out.differ("altered", entry.tp, entry.offset, key)
            actual[key] = entry
        for key in sorted(expected.keys() | actual.keys()):
            wanted, found = expected.get(key), actual.get(key)
            if wanted == (found.value if found else None):
                continue
            at = found.tp if found else self._place(key)
            kind = "unexpected" if wanted is None else "lost" if found is None or found.value is None else "altered"
            out.differ(kind, at, found.offset if found else None, key)

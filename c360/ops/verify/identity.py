"""Published assignments of a rule set, against what the oracle makes of all link facts; and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from c360.engine.partition import partition_of
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.identity.facts import CANNOT, LINK, Fact
from c360.ops.verify.links import Links
from c360.ops.verify.log import Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Identity, Plan
from c360.testing.oracle.identity import answer
from c360.testing.oracle.plain import parse


class Standing(NamedTuple):
    """What an assignment says of its subject."""

    profile: str
    identifiers: tuple[str, ...] = ()
    deferred: tuple[tuple[str, str], ...] = ()


class Assigned(NamedTuple):
    """The last assignment of a subject, and the record that says it."""

    seq: int
    standing: Standing
    entry: Entry


def read_assignments(log: Log, topic: str, out: Findings, stops: Mapping[TP, int] | None = None) -> dict[str, Assigned]:
    """The last assignment of each subject, up to offsets. Whoever reads a record that is none, or an older one after a
    newer, finds a difference."""
    partitions = log.partitions(topic)
    found: dict[str, Assigned] = {}
    for entry in log.read(partitions):
        if stops is not None and entry.offset >= stops.get(entry.tp, 0):
            out.lag += 1
            continue
        subject = (entry.key or b"").decode(errors="replace")
        if entry.value is None:  # its own profile again
            found.pop(subject, None)
            continue
        try:
            said = parse(entry.value)
            deferred = tuple((identifier, reason) for identifier, reason in said["deferred"])
            now = Assigned(said["seq"], Standing(said["profile"], tuple(said["identifiers"]), deferred), entry)
            sound = isinstance(now.seq, int) and partition_of(entry.key or b"", len(partitions)) == entry.tp.partition
        except (KeyError, TypeError, ValueError):
            out.differ("altered", entry.tp, entry.offset, entry.key)
            continue
        known = found.get(subject)
        if not sound or (known is not None and now.seq <= known.seq):
            out.differ("doubled" if known is not None and now.seq == known.seq else "altered", entry.tp, entry.offset,
                       entry.key)  # fmt: skip
        if known is None or now.seq >= known.seq:
            found[subject] = now
    return found


class IdentityCheck:
    """All assignments of one rule set."""

    def __init__(self, plan: Plan, identity: Identity, log: Log, links: Links) -> None:
        self.plan, self.identity, self.log, self.links = plan, identity, log, links

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        for task in positions.values():
            out.positions |= partitions_of(task.positions)
        for topic, what in ((self.plan.links, "facts"), (self.plan.loop(self.identity), "messages of nodes")):
            unread = sum(
                entry.offset >= out.positions.get(entry.tp, 0) for entry in self.log.read(self.log.partitions(topic))
            )
            out.lag += unread
            if unread:
                out.cannot_tell(
                    f"{self.identity.agent}: {unread} {what} are not read yet, so assignments may be of before"
                )
        if any(task.notes.keys() & {"catch_up", "settling", "sweep"} for task in positions.values()):
            out.cannot_tell(f"{self.identity.agent} is catching up after a reset: its assignments are of before")
        assigned = read_assignments(self.log, self.plan.assignments(self.identity), out)
        if out.complete:
            self._compare(assigned, out)
        return out

    def _compare(self, assigned: Mapping[str, Assigned], out: Findings) -> None:
        """Who has no assignment is a profile of its own, without identifiers."""
        expected = self._expected()
        topic = self.plan.assignments(self.identity)
        for subject in sorted(expected.keys() | assigned.keys()):
            wanted, found = expected.get(subject, Standing(subject)), assigned.get(subject)
            if (found.standing if found is not None else Standing(subject)) == wanted:
                continue
            tp = TP(topic, partition_of(subject.encode(), self.log.counts.get(topic, 1)))
            if found is None:
                out.differ("lost", tp, None, subject.encode())
            else:
                kind = "altered" if subject in expected else "unexpected"
                out.differ(kind, tp, found.entry.offset, subject.encode())

    def _expected(self) -> dict[str, Standing]:
        """By subject. Twins are shown as what they are of."""
        facts = [
            Fact(slot.subject, LINK if slot.kind == "link" else CANNOT, slot.other, slot.source, found.claim)
            for slot, found in self.links.read().items()
        ]
        standings = {}
        for subject, (profile, accepted, refused) in answer(facts, self.identity.rules).standings.items():
            identifiers = tuple(sorted({i.removeprefix("=") for i in accepted}))
            deferred = tuple(sorted({(i.removeprefix("="), reason.replace(":=", ":")) for i, reason in refused}))
            standings[subject] = Standing(profile, identifiers, deferred)
        return standings

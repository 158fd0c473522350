"""Link facts as they lie in `{app}.links`, against what the oracle makes of a source; and what no source says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from c360.declare import Source
from c360.engine.partition import partition_of
from c360.engine.state import Positions
from c360.engine.transport import TP
from c360.identity.facts import Claim
from c360.ops.verify.log import Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Plan
from c360.testing.oracle.links import OPERATOR, OWN, OWN_CLAIM, Slot, own_facts, read_fact, slot_of


class Found(NamedTuple):
    """The newest claim of a fact, and the record that has it."""

    claim: Claim
    entry: Entry


class Links:
    """The newest claims of all facts; read again only when there is more."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self.ends: dict[TP, int] = {}
        self.facts: dict[Slot, Found] = {}
        self.wrong: list[Entry] = []  # no facts, or where no reader of theirs looks

    def read(self) -> Mapping[Slot, Found]:
        partitions = self.log.partitions(self.topic)
        ends = self.log.reader.ends(partitions) if partitions else {}
        if ends != self.ends:
            self.facts, self.wrong = {}, []
            for entry in self.log.read(partitions):
                self._take(entry, len(partitions))
            self.ends = ends
        return self.facts

    def _take(self, entry: Entry, partitions: int) -> None:
        try:
            if entry.value is None:  # tidied away
                self.facts.pop(slot_of(entry.key or b""), None)
                return
            slot, claim = read_fact(entry.key or b"", entry.value)
        except Exception:  # whatever is wrong with it: no agent can have written it
            self.wrong.append(entry)
            return
        if partition_of(slot.subject.encode(), partitions) != entry.tp.partition:
            self.wrong.append(entry)  # the agent puts it aside
            return
        known = self.facts.get(slot)
        if known is None or known.claim < claim:
            self.facts[slot] = Found(claim, entry)

    def place(self, slot: Slot) -> TP:
        """Where a fact belongs."""
        return TP(self.topic, partition_of(slot.subject.encode(), self.log.counts.get(self.topic, 1)))


def is_of(slot: Slot, source: Source) -> bool:
    """Whether a source says a fact. Sources say links only."""
    if slot.kind != "link":
        return False
    return slot.source == source.name if source.kind == "events" else slot.source.startswith(f"{source.name}#")


class Expectation(NamedTuple):
    """What the oracle says of a fact, and of which raw record it comes."""

    claim: Claim
    origin: str


def compare_facts(
    links: Links, source: Source, expected: Mapping[Slot, Expectation], out: Findings, *, whole: bool
) -> None:
    """Claim by claim. Without the beginning of the input, what it says may be newer or more than expected."""
    actual = {slot: found for slot, found in links.read().items() if is_of(slot, source)}
    for slot in sorted(expected.keys() | actual.keys()):
        wanted, found = expected.get(slot), actual.get(slot)
        if found is None:
            assert wanted is not None
            out.differ("lost", links.place(slot), None, slot.key, origin=wanted.origin)
        elif wanted is None:
            if whole:
                out.differ("unexpected", found.entry.tp, found.entry.offset, slot.key)
        elif _say(found.claim) != _say(wanted.claim) and (whole or found.claim < wanted.claim):
            out.differ("altered", found.entry.tp, found.entry.offset, slot.key, origin=wanted.origin)


def _say(claim: Claim) -> Claim:
    """Of a link that is gone nobody asks when it was first seen."""
    return Claim(claim.version, dead=True) if claim.dead else claim


def compare_live(links: Links, source: Source, linked: Iterable[Slot], out: Findings) -> None:
    """Only which links there are, where their versions depend on an order that nobody knows any more."""
    actual = {slot: f for slot, f in links.read().items() if is_of(slot, source)}
    wanted = set(linked)
    for slot in sorted(wanted | actual.keys()):
        found = actual.get(slot)
        if slot in wanted and (found is None or found.claim.dead):
            out.differ("lost", links.place(slot), None, slot.key)
        elif slot not in wanted and found is not None and not found.claim.dead:
            out.differ("unexpected", found.entry.tp, found.entry.offset, slot.key)


class LinksCheck:
    """What must hold of the topic as a whole: subjects' own links to their twins; no facts that no source says."""

    def __init__(self, plan: Plan, links: Links) -> None:
        self.plan, self.links = plan, links

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        facts = self.links.read()
        for entry in self.links.wrong:
            out.differ("altered", entry.tp, entry.offset, entry.key)
        said = {slot.other for slot in facts if slot.source != OWN}
        for slot, (claim, entry) in facts.items():
            if slot.source == OWN:
                right = slot.kind == "link" and slot.other == "=" + slot.subject and slot.other in said
                if not right or claim != OWN_CLAIM:
                    out.differ("altered" if right else "unexpected", entry.tp, entry.offset, slot.key)
            elif slot.source != OPERATOR and (
                slot.kind != "link" or not any(is_of(slot, s) for s in self.plan.sources)
            ):
                out.differ("unexpected", entry.tp, entry.offset, slot.key)
        for slot in sorted(own_facts({s: f.claim for s, f in facts.items()}) - facts.keys()):
            out.differ("lost", self.links.place(slot), None, slot.key)
        return out

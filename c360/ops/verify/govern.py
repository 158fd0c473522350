"""Governed records, dead letters and link facts of a source, against what the oracle makes of its raw topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from c360.declare import Source
from c360.engine.partition import partition_of
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.ops.verify.links import Expectation, Links, compare_facts, compare_live
from c360.ops.verify.log import Archive, DeadLetters, Log
from c360.ops.verify.report import Findings, forgotten
from c360.plan import Plan
from c360.testing.oracle.formats import Schemas
from c360.testing.oracle.governed import (
    Arrival,
    Content,
    Delivery,
    Effect,
    Events,
    Expected,
    Rows,
    Truncated,
    read_governed,
)
from c360.testing.oracle.links import Slot, newest
from c360.testing.oracle.plain import parse
from c360.testing.oracle.sealing import Sight, shut_of

REPLAY_OFFSET, REPLAY_TIME = "c360-origin", "c360-time"  # headers of a replayed misfit: its raw offset and timestamp
SEALED = "c360-sealed"  # header of one whose value is the sealed raw record


class Actual(NamedTuple):
    """A governed record where it lies."""

    tp: TP
    offset: int
    key: bytes
    effect: Effect


@dataclass
class RawPartition:
    """The input of one task of govern, up to its positions."""

    tp: TP
    arrivals: list[Arrival]
    replays: Counter[int]  # by raw offset
    whole: bool  # from the beginning
    start: int
    replays_whole: bool = True


class GovernCheck:
    """The governed records, dead letters and link facts of one source."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        log: Log,
        dead: DeadLetters,
        archive: Archive,
        links: Links | None,
        sight: Sight | None,
        schemas: Schemas | None = None,
    ) -> None:
        """`links`: None where the app has no identity. `sight`: of an app that needs keys. `schemas`: that values name."""
        self.plan, self.source, self.log, self.dead, self.archive, self.links = plan, source, log, dead, archive, links
        self.output = plan.governed(source)
        self.events = Events(source, plan, sight, schemas)
        self.rows = Rows(source, plan, sight, schemas)
        self.sight = sight
        self.shut = {declared.name: shut_of(plan, source, declared) for declared in source.types}
        self.reset = log.was_reset(plan.govern_changelog(source))  # then topics begin later, and have all
        self.horizons: dict[tuple[int, int], float] = {}
        """By raw partition and output partition of which the beginning was cut: the raw offset of the first that is left."""

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        stops: dict[TP, int] = {}
        for task in positions.values():
            stops |= partitions_of(task.positions)
        out.positions = stops
        raws = [self._input(tp, stops, out) for tp in self.log.partitions(self.source.topic)]
        actual = self._output(out)
        self.horizons = self._cut(raws, actual, out)
        if self.source.kind == "events":
            found = [self.events.expected(raw.arrivals, whole=raw.whole) for raw in raws]
            for raw, expected in zip(raws, found, strict=True):
                self._compare(raw, expected, actual.get(raw.tp.partition, {}), out)
                self._compare_misfits(raw, expected, out)
            self._compare_facts(raws, found, actual, out)
        else:
            self._compare_rows(raws, stops, actual, out)
        return out

    # ------------------------------------------------------------------------------------------------------- reading
    def _input(self, tp: TP, stops: Mapping[TP, int], out: Findings) -> RawPartition:
        stop = stops.get(tp, 0)
        replays: dict[int, list[Delivery]] = {}
        replay = TP(self.plan.replay(self.source), tp.partition)
        for entry in self.log.read([replay]):
            if entry.offset >= stops.get(replay, 0):
                out.lag += 1
                continue
            headers = dict(entry.headers())
            try:
                offset, at = int(headers[REPLAY_OFFSET]), int(headers[REPLAY_TIME])
            except (KeyError, ValueError):
                continue
            key, value, brought = entry.key, entry.value, entry.headers()
            if SEALED in headers:
                try:
                    assert self.sight is not None
                    key, value, brought = self.sight.letter(parse(value or b""))
                except Exception:  # govern leaves out what it cannot open, whatever is wrong with it
                    continue
            replays.setdefault(offset, []).append(Delivery(key, value, at, brought))
        start = self.log.start(tp)
        archived = self.archive.before(tp, start) if start else []
        if archived is None:
            out.cannot_tell(f"{tp.topic}/{tp.partition}: retention has cut offsets below {start}; give --from-archive")
        arrivals = [
            Arrival(n, (Delivery(r.key, r.value, r.timestamp or 0, r.headers), *replays.get(n, ())))
            for n, r in enumerate(archived or [])
        ]
        for entry in self.log.read([tp]):
            if entry.offset >= stop:
                out.lag += 1
            else:
                own = Delivery(entry.key, entry.value, entry.time, entry.headers())
                arrivals.append(Arrival(entry.offset, (own, *replays.get(entry.offset, ()))))
        counts = Counter({n: len(each) for n, each in replays.items()})
        replays_whole = not self.log.start(replay)
        if not replays_whole:
            out.cannot_tell(f"{replay.topic}/{replay.partition}: retention has cut misfits that were brought back")
        return RawPartition(tp, arrivals, counts, archived is not None, start, replays_whole)

    def _output(self, out: Findings) -> dict[int, dict[int, list[Actual]]]:
        """Actual governed records by raw partition and raw offset of their origin."""
        lost = set() if self.sight is None else self.sight.lost
        before = len(lost)
        seen = Findings()
        found = self._read_output(seen)
        if len(lost) > before:  # of their records that came before it was known, more was looked at than can be
            seen = Findings()
            found = self._read_output(seen)
        out.add(seen)
        return found

    def _read_output(self, out: Findings) -> dict[int, dict[int, list[Actual]]]:
        found: dict[int, dict[int, list[Actual]]] = {}
        count = self.log.counts.get(self.output, 0)
        for entry in self.log.read(self.log.partitions(self.output)):
            key = entry.key or b""
            try:
                (partition, offset), effect = read_governed(self.source, key, entry.value or b"", self.shut, self.sight)
            except Exception:  # whatever is wrong with it: no agent can have written it
                out.differ("altered", entry.tp, entry.offset, key)
                continue
            if partition_of(key, count) != entry.tp.partition:
                out.differ("altered", entry.tp, entry.offset, key)
            found.setdefault(partition, {}).setdefault(offset, []).append(Actual(entry.tp, entry.offset, key, effect))
        return found

    def _cut(
        self, raws: Sequence[RawPartition], actual: Mapping[int, Mapping[int, list[Actual]]], out: Findings
    ) -> dict[tuple[int, int], float]:
        """Where governed records were deleted by retention: of a raw partition they lie in its order, but for replays."""
        found: dict[tuple[int, int], float] = {}
        for tp in self.log.partitions(self.output):
            if not (start := self.log.start(tp)) or self.reset:
                continue
            out.cannot_tell(f"{tp.topic}/{tp.partition}: retention has cut offsets below {start}")
            for raw in raws:
                left = {
                    one.offset: origin
                    for origin, some in actual.get(raw.tp.partition, {}).items()
                    if not raw.replays[origin]
                    for one in some
                    if one.tp == tp
                }
                found[raw.tp.partition, tp.partition] = left[min(left)] if left else float("inf")
        return found

    # ------------------------------------------------------------------------------------------------------ comparing
    def _compare(
        self, raw: RawPartition, expected: Expected, actual: Mapping[int, list[Actual]], out: Findings
    ) -> None:
        """Record by record, by origin."""
        cut = raw.start if not raw.whole else 0
        loose = {offset for group in expected.either for offset in group} | expected.maybe.keys()
        if not raw.replays_whole:
            loose |= expected.misfits
        for offset in sorted(expected.effects.keys() | actual.keys()):
            if offset < cut or offset in loose:
                continue
            if not actual.get(offset) and any(forgotten.get()(slot.key) for slot, _ in expected.facts.get(offset, [])):
                continue  # dropped, for the sake of somebody whom it names
            self._compare_one(raw.tp, offset, expected.effects.get(offset, []), actual.get(offset, []), out)
        for offset, effect in expected.maybe.items():
            here = actual.get(offset, [])
            self._compare_one(raw.tp, offset, [effect] if here else [], here, out)
        for group in expected.either:
            for offset, effect in group.items():
                here = actual.get(offset, [])
                self._compare_one(raw.tp, offset, [effect] if here else [], here, out)
            if not any(actual.get(offset) for offset in group):
                offset, effect = next(iter(group.items()))
                self._compare_one(raw.tp, offset, [effect], [], out)

    def _compare_one(
        self, raw: TP, offset: int, expected: Sequence[Effect], actual: Sequence[Actual], out: Findings
    ) -> None:
        """What one raw record led to."""
        origin = f"{raw.topic}/{raw.partition}@{offset}"
        missing = list(expected)
        extra = []
        for one in actual:
            if one.effect in missing:
                missing.remove(one.effect)
            else:
                extra.append(one)
        for one in extra:
            like = next((e for e in missing if e.sign == one.effect.sign), None)
            if like is not None:
                missing.remove(like)
            kind = "altered" if like is not None else "doubled" if one.effect in expected else "unexpected"
            out.differ(kind, one.tp, one.offset, one.key, origin=origin)
        for effect in missing:
            key = effect.content.subject.encode()
            tp = TP(self.output, partition_of(key, self.log.counts.get(self.output, 1)))
            if offset >= self.horizons.get((raw.partition, tp.partition), 0):
                out.differ("lost", tp, None, key, origin=origin)

    def _compare_facts(
        self,
        raws: Sequence[RawPartition],
        expected: Sequence[Expected],
        actual: Mapping[int, Mapping[int, list[Actual]]],
        out: Findings,
    ) -> None:
        """Fact by fact. Of events that may or may not have been admitted, the governed records tell."""
        if self.links is None:
            return
        claims: dict[Slot, Expectation] = {}
        for raw, wanted in zip(raws, expected, strict=True):
            for offset, facts in wanted.facts.items():
                if offset in wanted.effects or (raw.tp.partition in actual and actual[raw.tp.partition].get(offset)):
                    origin = f"{raw.tp.topic}/{raw.tp.partition}@{offset}"
                    for slot, claim in facts:
                        said = Expectation(claim, origin)
                        claims[slot] = max(said, claims.get(slot, said))
        compare_facts(self.links, self.source, claims, out, whole=all(raw.whole for raw in raws))

    def _compare_misfits(self, raw: RawPartition, expected: Expected, out: Findings) -> None:
        """Every misfit once, and once more for each replay that did not fit either."""
        dead = self.dead.of(self.plan.govern_agent, raw.tp)
        misfits, allowed = expected.misfits, expected.misfits | expected.maybe_misfits
        at = TP(self.plan.dlq, -1)
        for offset in sorted(misfits | dead.keys()):
            origin = f"{raw.tp.topic}/{raw.tp.partition}@{offset}"
            n, most = dead[offset], 1 + raw.replays[offset]
            if any(forgotten.get()(_escaped(label)) for label in expected.about.get(offset, ())):
                continue  # it was dropped, or its row before was
            if offset in misfits and n == 0:
                if not self.dead.cut or self.reset:
                    out.differ("lost", at, None, None, origin=origin)
            elif n > most and raw.replays_whole:
                out.differ("doubled", at, None, None, origin=origin)
            elif offset not in allowed and n and most == 1 and (raw.whole or offset >= raw.start):
                out.differ("unexpected", at, None, None, origin=origin)

    def _compare_rows(
        self,
        raws: Sequence[RawPartition],
        stops: Mapping[TP, int],
        actual: Mapping[int, Mapping[int, list[Actual]]],
        out: Findings,
    ) -> None:
        truncates = self._truncates(raws, stops, out)
        expected = [self.rows.expected(raw.arrivals, truncates[raw.tp.partition]) for raw in raws]
        for raw, wanted in zip(raws, expected, strict=True):
            self._compare_misfits(raw, wanted, out)
        if not all(raw.whole and raw.replays_whole for raw in raws):
            return  # rows of which the beginning is not known may be anything
        dropped = [
            slot for each in expected for said in each.facts.values() for slot, _ in said if forgotten.get()(slot.key)
        ]
        if dropped:
            out.notes.append("rows that name somebody who was erased are not compared")
            return
        if all(wanted.live is None for wanted in expected):
            for raw, wanted in zip(raws, expected, strict=True):
                self._compare(raw, wanted, actual.get(raw.tp.partition, {}), out)
            self._compare_facts(raws, expected, actual, out)
            return
        if self.links is not None:
            compare_live(self.links, self.source, _linked(expected), out)
        live: Counter[Content] = Counter()
        same: dict[Content, Content] = {}
        for wanted in expected:
            live += wanted.net()
            same |= wanted.same
        self._compare_live(live, same, [a for each in actual.values() for some in each.values() for a in some], out)

    def _compare_live(
        self, live: Counter[Content], same: Mapping[Content, Content], actual: Iterable[Actual], out: Findings
    ) -> None:
        """What was added less what was taken back is what lives."""
        net: Counter[Content] = Counter()
        last: dict[Content, Actual] = {}
        for one in actual:
            content = same.get(one.effect.content, one.effect.content)
            net[content] += one.effect.sign
            last[content] = one
        for content in net.keys() | live.keys():
            n, wanted = net[content], live[content]
            key = content.subject.encode()
            tp = TP(self.output, partition_of(key, self.log.counts.get(self.output, 1)))
            for _ in range(wanted - n):
                out.differ("lost", tp, None, key)
            for _ in range(n - wanted):
                out.differ("doubled" if wanted else "unexpected", last[content].tp, last[content].offset, key)

    def _truncates(
        self, raws: Sequence[RawPartition], stops: Mapping[TP, int], out: Findings
    ) -> dict[int, list[Truncated]]:
        """The truncates that each task has read, by partition. Every one must have been spread to every task, once."""
        said = {(raw.tp.partition, a.offset): t for raw in raws for a in raw.arrivals if (t := self.rows.truncate(a))}
        topic = self.plan.truncates(self.source)
        read: dict[int, list[Truncated]] = {}
        for raw in raws:
            tp = TP(topic, raw.tp.partition)
            seen: Counter[tuple[int, int]] = Counter()
            read[tp.partition] = []
            for entry in self.log.read([tp]):
                partition, offset = parse(entry.value or b"{}").get("origin", (-1, -1))
                seen[partition, offset] += 1
                if entry.offset >= stops.get(tp, 0):
                    out.lag += 1
                elif (partition, offset) in said:
                    read[tp.partition].append(said[partition, offset])
                if (partition, offset) not in said and all(r.whole for r in raws):
                    out.differ("unexpected", tp, entry.offset, None)
            for (partition, offset), n in (seen | dict.fromkeys(said.keys() - seen.keys(), 0)).items():
                if (partition, offset) in said and n != 1:
                    origin = f"{self.source.topic}/{partition}@{offset}"
                    out.differ("lost" if n == 0 else "doubled", tp, None, None, origin=origin)
        return read


def _escaped(label: str) -> bytes:
    """As keys have it."""
    return label.replace("%", "%25").replace("|", "%7C").encode()


def _linked(expected: Sequence[Expected]) -> set[Slot]:
    """Which links there are in the end."""
    found: set[Slot] = set()
    for wanted in expected:
        if wanted.linked is not None:
            found |= wanted.linked
        else:
            claims = newest(said for facts in wanted.facts.values() for said in facts)
            found |= {slot for slot, claim in claims.items() if not claim.dead}
    return found

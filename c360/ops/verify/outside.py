"""Questions of an outside enrichment, against the governed records that they come from.

Which record asks depends on which of two topics was read first. What holds in any order: a question comes with a record; none
is there twice; no two of one subject and identifier are closer than `refresh`; and no record was passed over that is so much
later than every question.

Where people are asked whether they agree: each question is asked again at most once for each time that it was withheld; the
last of a subject and identifier is kept while it is withheld, for `refresh`; and nothing is kept that may be asked by all that
the task has heard of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.governance.consent import State, decode_state, verdict
from c360.identity.namespace import Namespace
from c360.ops.verify.log import Log
from c360.ops.verify.report import Findings, forgotten
from c360.outside import Carrier, Outside
from c360.plan import Plan
from c360.testing.oracle.plain import parse, simple
from c360.testing.oracle.sealing import Sight, clear_label, label_in
from c360.testing.oracle.values import NoFit

MOST = 100  # identifiers of a record that asks
REPLAYED = "c360-origin"  # header of a question that was put aside, and is asked again by a person
NOTED = b"w"  # rows of a changelog: what is kept until people agree
Unit = tuple[str, str]
"""A subject and a label."""


class Asked(NamedTuple):
    """A question where it lies. `again`: how often it had been asked before; `time`: when it was written."""

    tp: TP
    offset: int
    at: int
    id: str
    again: int
    labels: tuple[str, ...]
    time: int

    @property
    def said(self) -> tuple[str, int]:
        return self.id, self.again


class Kept(NamedTuple):
    """A question that is noted, and when that is looked at and ends."""

    said: tuple[str, int]
    labels: tuple[str, ...]
    look: int
    until: int


class OutsideCheck:
    """Of all tasks of one outside enrichment. `sight`: of an app that needs keys; `now`: epoch ms."""

    def __init__(self, plan: Plan, outside: Outside, log: Log, sight: Sight | None, now: Callable[[], int]) -> None:
        self.plan, self.outside, self.log, self.sight, self.now = plan, outside, log, sight, now

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        stops: dict[TP, int] = {}
        for task in positions.values():
            stops |= partitions_of(task.positions)
        out.positions = stops
        said = [task.notes["refresh"] for task in positions.values() if "refresh" in task.notes]
        least, most = min((r[0] for r in said), default=0), max((r[1] for r in said), default=0)
        units = self._units(stops, out)
        asked = self._asked(self.plan.questions(self.outside), out)
        for unit in sorted(units.keys() | asked.keys()):
            if any(forgotten.get()(part.encode()) for part in unit):
                continue
            first = [one for one in asked.get(unit, []) if not one.again]
            self._compare(unit, units.get(unit, []), first, least, most, out)
        if self.outside.waits:
            self._compare_withheld(asked, stops, positions, least, out)
        return out

    def _compare(self, unit: Unit, times: list[int], asked: list[Asked], least: int, most: int, out: Findings) -> None:
        key = unit[0].encode()
        before: int | None = None
        for one in sorted(asked, key=lambda question: question.at):
            if one.at not in times:
                out.differ("unexpected", one.tp, one.offset, key)
            elif before is not None and one.at - before < max(least, 1):
                out.differ("doubled", one.tp, one.offset, key)
            before = one.at
        if any(all(at - one.at >= most for one in asked) for at in times):
            out.differ("lost", TP(self.plan.questions(self.outside), -1), None, key)

    # ------------------------------------------------------------------------------------------- who agrees later
    def _compare_withheld(
        self,
        asked: Mapping[Unit, list[Asked]],
        stops: Mapping[TP, int],
        positions: Mapping[TP, Positions],
        least: int,
        out: Findings,
    ) -> None:
        said = self._asked(self.plan.withheld(self.outside), out)
        kept = self._kept()
        states = self._states(positions)
        for unit in sorted(asked.keys() | said.keys() | kept.keys()):
            if any(forgotten.get()(part.encode()) for part in unit):
                continue
            withheld = {one.said: one for one in said.get(unit, []) if one.offset < stops.get(one.tp, 0)}
            out.lag += sum(one.offset >= stops.get(one.tp, 0) for one in said.get(unit, []))
            self._compare_again(unit, asked.get(unit, []), withheld, out)
            last = max(asked.get(unit, []), key=lambda one: (one.at, one.again), default=None)
            self._compare_kept(unit, last, withheld, kept.get(unit), least, out)
            if unit in kept and states is not None:
                self._compare_agreed(unit, kept[unit], states, out)

    def _compare_again(
        self, unit: Unit, asked: Sequence[Asked], withheld: Mapping[tuple[str, int], Asked], out: Findings
    ) -> None:
        """Each that was asked again had been withheld, and once."""
        times = Counter(one.said for one in asked)
        for one in asked:
            if one.again and times[one.said] > 1:
                out.differ("doubled", one.tp, one.offset, unit[0].encode())
            elif one.again and (one.id, one.again - 1) not in withheld:
                out.differ("unexpected", one.tp, one.offset, unit[0].encode())

    def _compare_kept(
        self,
        unit: Unit,
        last: Asked | None,
        withheld: Mapping[tuple[str, int], Asked],
        kept: Kept | None,
        least: int,
        out: Findings,
    ) -> None:
        waits = None if last is None else withheld.get(last.said)
        changelog = TP(f"{self.plan.answers(self.outside)}.changelog", -1)
        if kept is not None:
            if waits is None or kept.said != waits.said:
                out.differ("unexpected", changelog, None, unit[0].encode())
            return
        if waits is None or self.now() >= waits.time + least:
            return
        if not any(forgotten.get()(label.encode()) for label in waits.labels):
            out.differ("lost", changelog, None, unit[0].encode())

    def _compare_agreed(self, unit: Unit, kept: Kept, states: Mapping[str, State], out: Findings) -> None:
        """Nobody waits who may be asked about by what was decided for good; one that is looked at again soon may."""
        assert self.outside.purpose is not None
        said = {label: states[label] for label in kept.labels if label in states}
        if kept.look == kept.until > self.now() and verdict(self.outside.purpose, said, self.now()).allowed:
            out.differ("not asked", TP(self.plan.questions(self.outside), -1), None, unit[0].encode())

    def _kept(self) -> dict[Unit, Kept]:
        rows: dict[bytes, bytes | None] = {}
        for entry in self.log.read(self.log.partitions(f"{self.plan.answers(self.outside)}.changelog")):
            if entry.key is not None and entry.key.startswith(NOTED):
                rows[entry.key] = entry.value
        found = {}
        for value in rows.values():
            if value is not None:
                question, look, until = msgspec.msgpack.decode(value)
                said = simple(parse(question))
                kept = Kept((said["id"], said.get("again", 0)), tuple(said["labels"]), look, until)
                found[said["subject"], said["labels"][0]] = kept
        return found

    def _states(self, positions: Mapping[TP, Positions]) -> dict[str, State] | None:
        """What people decided, where all tasks have heard of all of it."""
        topic, states, ends = self.plan.consent, dict[str, State](), dict[int, int]()
        for entry in self.log.read(self.log.partitions(topic)):
            states[(entry.key or b"").decode()] = decode_state(entry.value)
            ends[entry.tp.partition] = entry.offset + 1
        for task in positions.values():
            heard = task.notes.get("seen", {"next": {}})["next"].get(topic, [])
            behind = any(number >= len(heard) or heard[number] < end for number, end in ends.items())
            if behind or task.notes.keys() & {"rest", "sweep"}:
                return None
        return {label: state for label, state in states.items() if state}

    # ------------------------------------------------------------------------------------------------------- reading
    def _asked(self, topic: str, out: Findings) -> dict[Unit, list[Asked]]:
        found: dict[Unit, list[Asked]] = {}
        partitions = self.log.partitions(topic)
        for tp in partitions:
            if self.log.start(tp):
                out.cannot_tell(f"{tp.topic}/{tp.partition}: retention has cut questions, which are kept for a week")
        for entry in self.log.read(partitions):
            if any(name == REPLAYED for name, _ in entry.headers()):
                continue
            said = simple(parse(entry.value or b"{}"))
            again, labels = said.get("again", 0), tuple(said["labels"])
            one = Asked(entry.tp, entry.offset, said["at"], said["id"], again, labels, entry.time)
            found.setdefault((said["subject"], said["labels"][0]), []).append(one)
        return found

    def _units(self, stops: Mapping[TP, int], out: Findings) -> dict[Unit, list[int]]:
        """When records had what is asked about, by append time of their raw records."""
        first = self.plan.at(self.plan.governs[0])
        found: dict[Unit, list[int]] = {}
        for carrier in self.plan.carriers(self.outside):
            for entry in self.log.read(self.log.partitions(first.governed(carrier.source))):
                if entry.offset >= stops.get(entry.tp, 0):
                    out.lag += 1
                    continue
                said = simple(parse(entry.value or b"{}"))
                subject = (entry.key or b"").decode()
                if said["type"] == carrier.declared.name and said.get("sign", 1) > 0:
                    labels = self._labels(carrier, carrier.fields, subject, said["record"])
                    others = self._labels(carrier, carrier.others, subject, said["record"])
                    for label in labels if len(labels | others) <= MOST else ():
                        found.setdefault((subject, label), []).append(max(said["cause"], 0))
        return found

    def _labels(
        self, carrier: Carrier, fields: Sequence[tuple[str, Namespace, bool]], subject: str, record: Mapping[str, Any]
    ) -> set[str]:
        tenant = None if carrier.source.tenant is None else record.get(carrier.source.tenant) or ""
        found: set[str] = set()
        for name, namespace, many in fields:
            value = record.get(name)
            for one in value or () if many else (value,):
                text = self._open(one, subject, f"{carrier.declared.name}.{name}{'[]' if many else ''}")
                with suppress(NoFit):
                    if text is not None:
                        found.add(label_in(self.sight, namespace, clear_label(namespace, text, tenant)))
        return found

    def _open(self, value: Any, subject: str, field: str) -> str | None:
        if not isinstance(value, dict):
            return None if value is None else str(value)
        assert self.sight is not None, "nobody sees what an app writes without its keys"
        text = self.sight.open(value, subject, field)
        return None if text is None else str(simple(parse(text)))

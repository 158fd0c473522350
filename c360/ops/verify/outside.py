"""Questions of an outside enrichment, against the governed records that they come from.

Which record asks depends on which of two topics was read first. What holds in any order: a question comes with a record; none
is there twice; no two of one subject and identifier are closer than `refresh`; and no record was passed over that is so much
later than every question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
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
Unit = tuple[str, str]
"""A subject and a label."""


class Asked(NamedTuple):
    """A question where it lies."""

    tp: TP
    offset: int
    at: int


class OutsideCheck:
    """Of all tasks of one outside enrichment. `sight`: of an app that needs keys."""

    def __init__(self, plan: Plan, outside: Outside, log: Log, sight: Sight | None) -> None:
        self.plan, self.outside, self.log, self.sight = plan, outside, log, sight

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        stops: dict[TP, int] = {}
        for task in positions.values():
            stops |= partitions_of(task.positions)
        out.positions = stops
        said = [task.notes["refresh"] for task in positions.values() if "refresh" in task.notes]
        least, most = min((r[0] for r in said), default=0), max((r[1] for r in said), default=0)
        units = self._units(stops, out)
        asked = self._asked(out)
        for unit in sorted(units.keys() | asked.keys()):
            if any(forgotten.get()(part.encode()) for part in unit):
                continue
            self._compare(unit, units.get(unit, []), asked.get(unit, []), least, most, out)
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

    # ------------------------------------------------------------------------------------------------------- reading
    def _asked(self, out: Findings) -> dict[Unit, list[Asked]]:
        found: dict[Unit, list[Asked]] = {}
        partitions = self.log.partitions(self.plan.questions(self.outside))
        for tp in partitions:
            if self.log.start(tp):
                out.cannot_tell(f"{tp.topic}/{tp.partition}: retention has cut questions, which are kept for a week")
        for entry in self.log.read(partitions):
            if any(name == REPLAYED for name, _ in entry.headers()):
                continue
            said = simple(parse(entry.value or b"{}"))
            one = Asked(entry.tp, entry.offset, said["at"])
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

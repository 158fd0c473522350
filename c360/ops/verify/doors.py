"""What the far side of a door holds, against what the oracle says that it should, now: of a sink, by the live version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from c360.agents.readings import delivered
from c360.engine.state import Positions, partitions_of
from c360.engine.transport import TP
from c360.governance.consent import decode_state
from c360.governance.suppressed import decode_suppressed
from c360.ops.verify.log import Entry, Log
from c360.ops.verify.report import Findings
from c360.plan import Plan
from c360.rights import Door
from c360.testing.oracle.doors import NOTHING, Leaving, Opened, is_same, may_leave
from c360.testing.oracle.formats import Schemas


class DoorCheck:
    """One partition of a door. Whether the projection's records are right is the projection's own check."""

    def __init__(
        self,
        plan: Plan,
        door: Door,
        log: Log,
        partition: int,
        version: int,
        now: Callable[[], int],
        *,
        opened: Opened | None,
        veil: Callable[[str], str] | None,
        schemas: Schemas | None = None,
    ) -> None:
        """`version`: which is live. `opened`, `veil`: of an app that needs keys, where they are here. `schemas`: of doors that
        write Avro."""
        self.plan, self.door, self.log, self.now, self.veil = plan, door, log, now, veil
        self.schemas = schemas
        self.version, self.output = version, TP(plan.leaves(door), partition)
        live = next((projection for projection in door.versions if projection.version == version), None)
        self.input = None if live is None else TP(plan.projected(live), partition)
        self.leaving = None if live is None else Leaving(plan, door, live, opened)

    def look(self, positions: Mapping[TP, Positions]) -> Findings:
        out = Findings()
        for task in positions.values():
            out.positions |= partitions_of(task.positions)
            if task.notes.keys() & {"catch_up", "sweep"}:
                out.cannot_tell(
                    f"{self.door.agent} is looking at all profiles again: what it has delivered is of before"
                )
            elif task.notes and delivered(task.notes) != self.version:
                out.cannot_tell(f"{self.door.agent} has not gone over to version {self.version} yet, which is live")
        if self.input is None or self.leaving is None:
            out.cannot_tell(f"version {self.version} is live, which this app does not declare")
            return out
        if self.plan.needs_keys and self.veil is None:
            out.cannot_tell("nobody can tell without the master key what may leave: set C360_KEYS")
        records: dict[bytes, bytes] = {}
        for entry in self.log.read([self.input]):
            if entry.offset >= out.positions.get(entry.tp, 0):
                out.lag += 1
            _hold(records, entry)
        if out.lag:
            out.cannot_tell(f"{self.door.agent} has records to read, so what it has delivered is of before")
        if not out.complete:
            return out
        states = {key.decode(): decode_state(value) for key, value in self._table(self.plan.consent).items()}
        gone = {k.decode() for k, v in self._table(self.plan.suppressed).items() if decode_suppressed(v).stands}
        expected = {}
        for key, value in records.items():
            record = json.loads(value)
            labels = {record["profile_id"], *record["subjects"], *record["identifiers"]}
            suppressed = {label for label in labels if self.veil is not None and self.veil(label) in gone}
            if may_leave(self.door, record, states, suppressed, self.now()):
                expected[key] = self.leaving.of(record)
        self._compare({key: value for key, value in expected.items() if value is not NOTHING}, out)
        return out

    def _table(self, topic: str) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if topic in self.plan.governance:
            for entry in self.log.read(self.log.partitions(topic)):
                _hold(found, entry)
        return found

    def _compare(self, expected: Mapping[bytes, object], out: Findings) -> None:
        actual: dict[bytes, Entry] = {}
        for entry in self.log.read([self.output]):
            key = entry.key or b""
            if (actual[key].value if key in actual else None) == entry.value:
                out.differ("doubled", entry.tp, entry.offset, key)
            actual[key] = entry
        for key in sorted(expected.keys() | actual.keys()):
            found = actual.get(key)
            held = None if found is None or found.value is None else found
            if held is not None and key in expected:
                assert held.value is not None
                if held.value[:1] == b"\0" and self.schemas is None:
                    out.cannot_tell(f"{self.door.agent} writes Avro: set C360_REGISTRY")
                    return
                if self._is(held.value, expected[key]):
                    continue
            elif held is None and key not in expected:
                continue
            kind = "unexpected" if key not in expected else "lost" if held is None else "altered"
            out.differ(kind, self.output, found.offset if found else None, key)

    def _is(self, held: bytes, expected: object) -> bool:
        if held[:1] != b"\0":
            return bool(json.loads(held) == expected)
        assert self.schemas is not None
        return is_same(expected, self.schemas.read(held)[0])


def _hold(table: dict[bytes, bytes], entry: Entry) -> None:
    if entry.value is None:
        table.pop(entry.key or b"", None)
    else:
        table[entry.key or b""] = entry.value

"""Made-up records for any app, of the shapes that it declares: what raw topics would hold, and what they should not.

Values come from small pools, so that customers, ids and rows meet each other; now and then a delivery is repeated, a
change comes late, a payload is no good. A record is about one of a few people, who have their own identifiers, mostly;
now and then it has another's, or one that everybody has, so that people are joined, refused and parted.
"""

from __future__ import annotations

import base64
import json
import random
import typing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from c360.codecs.record import FieldInfo, Record, fields_of, is_record, is_union
from c360.declare import Source, SourceType, without_none
from c360.ops.load import RawRecord
from c360.plan import Plan

REPEATED, NO_GOOD, DELETED, EMPTIED, SNAPSHOT = 0.05, 0.04, 0.15, 0.01, 0.1
NO_GOODS = (b"", b"not json", b"\xff\xfe", b"[]", b"{}", b'{"id": NaN}', b"[" * 300, None)
UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
RECENT = 50
PEOPLE = 6
# Another's value, one's second, one written otherwise, none's
ANOTHER, SECOND, OTHERWISE, NOBODY = (
    0.12,
    0.25,
    0.1,
    0.03,
)
NOBODYS = ("null", " 'N/A' ", "unknown", "000000")


class Maker:
    """Records of one app from one seed; `now_ms` is the time they are of."""

    def __init__(self, plan: Plan, dice: random.Random) -> None:
        self.plan, self.dice = plan, dice
        self.now_ms = 0
        self.recent: list[RawRecord] = []
        self.position = 1_000
        self.person = 0  # whom the record is about
        self.rows: dict[str, dict[str, dict[str, Any]]] = {s.name: {} for s in plan.sources}  # by key of the record

    def record(self, now_ms: int) -> RawRecord:
        """The next record of any raw topic."""
        dice, self.now_ms = self.dice, now_ms
        draw = dice.random()
        if draw < REPEATED and self.recent:
            again = dice.choice(self.recent)
            return RawRecord(again.topic, again.key, again.value, now_ms)
        source, self.person = dice.choice(self.plan.sources), dice.randrange(PEOPLE)
        if draw < REPEATED + NO_GOOD:
            return RawRecord(source.topic, dice.choice((b"", b"k", b"\xff")), dice.choice(NO_GOODS), now_ms)
        record = self._event(source) if source.kind == "events" else self._change(source)
        self.recent = [*self.recent[-RECENT:], record]
        return record

    def subject(self) -> str:
        """The label of somebody whom records may be about."""
        kinds = [n for n in self.plan.identifiers.values() if n.name in self.plan.subject_kinds]
        namespace, self.person = self.dice.choice(kinds), self.dice.randrange(PEOPLE)
        return f"{namespace.name}:{namespace.normalize(self._identifier(namespace.normalize))}"

    def _event(self, source: Source) -> RawRecord:
        declared = self.dice.choice(source.types)
        if source.format == "answers":
            return self._answer(source, declared.record)
        payload = self._payload(declared.record)
        for path, value in (declared.when or {}).items():
            _put(payload, path.split("."), value)
        key = self._identifier(source.key.normalize) if source.key is not None else str(self.dice.randrange(9))
        return RawRecord(source.topic, key.encode(), json.dumps(payload).encode(), self.now_ms)

    def _answer(self, source: Source, record: type[Record]) -> RawRecord:
        """As it comes from outside: by field names, with an id of its own, now and then one that was there."""
        said = {info.name: self._field(info) for info in fields_of(record)}
        value = {"id": f"answer {self.dice.randrange(200)}", "record": said}
        return RawRecord(source.topic, self.subject().encode(), json.dumps(value).encode(), self.now_ms)

    # ---------------------------------------------------------------------------------------------------------- rows
    def _change(self, source: Source) -> RawRecord:
        """A change of a row as Debezium says it, for PostgreSQL."""
        dice, (declared,) = self.dice, source.types
        rows = self.rows[source.name]
        self.position += dice.randrange(1, 9)
        if dice.random() < EMPTIED:
            rows.clear()
            return self._said(source, None, "t", None)
        row = self._payload(declared.record)
        key = json.dumps(_key_of(declared, row))
        if key in rows and dice.random() < DELETED:
            del rows[key]
            return self._said(source, key, "d", None)
        op = "r" if dice.random() < SNAPSHOT else "u" if key in rows else "c"
        rows[key] = row
        return self._said(source, key, op, row)

    def _said(self, source: Source, key: str | None, op: str, row: dict[str, Any] | None) -> RawRecord:
        position = {"connector": "postgresql", "lsn": self.position, "ts_ms": self.now_ms}
        value = {"op": op, "before": None, "after": row, "source": position, "ts_ms": self.now_ms}
        return RawRecord(source.topic, key and key.encode(), json.dumps(value).encode(), self.now_ms)  # type: ignore[arg-type]

    # -------------------------------------------------------------------------------------------------------- values
    def _payload(self, record: type[Record]) -> dict[str, Any]:
        payload: dict[str, Any] = {}
        for info in fields_of(record):
            if (info.optional or not info.required) and self.dice.random() < 0.3:
                continue
            _put(payload, info.path.split("."), self._field(info))
        return payload

    def _field(self, info: FieldInfo) -> Any:
        if info.optional and self.dice.random() < 0.2:
            return None
        if info.scale is not None:
            return self.dice.choice((0, 1, -250, 1999, 10**6))
        if info.unit == "days":
            return self._time().date().toordinal() - date(1970, 1, 1).toordinal()
        if info.unit is not None:
            return int(self._time().timestamp() * UNITS[info.unit])
        if info.zone is not None:
            return self._time().replace(tzinfo=None).isoformat()
        return self._value(without_none(info.annotation))

    def _value(self, kind: Any) -> Any:
        dice, origin, args = self.dice, typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            return self._value(args[0])
        if origin is typing.Literal:
            return dice.choice(args)
        if is_union(kind):
            return self._value(dice.choice([a for a in args if a is not type(None)]))
        if origin in (list, tuple) or kind in (list, tuple):
            return [self._value(args[0] if args else Any) for _ in range(dice.randrange(3))]
        if origin is dict or kind is dict:
            return {dice.choice("xyz"): self._value(args[1] if args else Any) for _ in range(dice.randrange(3))}
        if is_record(kind):
            return self._payload(kind)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return dice.choice([member.value for member in kind])
        if kind in self.plan.identifiers:
            return self._identifier(self.plan.identifiers[kind].normalize)
        return self._plain(kind)

    def _plain(self, kind: Any) -> Any:
        dice = self.dice
        if kind is bool:
            return dice.random() < 0.5
        if kind is int:
            return dice.choice((0, 1, 2, 3, -1, 40))
        if kind is float:
            return dice.choice((0.0, 0.1, 2.5, -1e-7))
        if kind is Decimal:
            return dice.choice(("0", "9.50", "9.5", "-0.005", "120", 7))
        if kind is datetime:
            return self._time().isoformat()
        if kind is date:
            return self._time().date().isoformat()
        if kind is UUID:
            return str(UUID(int=dice.randrange(5)))
        if kind is bytes:
            return base64.b64encode(b"%d" % dice.randrange(5)).decode()
        return dice.choice(("a", "b", "c/d", "é", ""))

    def _time(self) -> datetime:
        """Mostly just now, sometimes late by up to two months, seldom ahead."""
        late_s = self.dice.choice((0, 1, 59, 3600, 86_400, 60 * 86_400, -60, -86_400))
        return datetime.fromtimestamp(self.now_ms / 1000, UTC) - timedelta(seconds=late_s)

    def _identifier(self, normalize: typing.Callable[[str], str | None]) -> str:
        dice = self.dice
        if dice.random() < NOBODY:
            return dice.choice(NOBODYS)
        n = dice.randrange(PEOPLE) if dice.random() < ANOTHER else self.person
        n += PEOPLE * (dice.random() < SECOND)
        for value in (f"v{n}", f"v{n}@mail.example", f"+346000000{n:02}", str(UUID(int=n))):
            if normalize(value) is not None:
                other = f" {value.upper()} "
                return other if dice.random() < OTHERWISE and normalize(other) == normalize(value) else value
        return ""


def _put(payload: Any, path: list[str], value: Any) -> None:
    """Put a value at a path, through objects and lists that are made on the way."""
    part, rest = path[0], path[1:]
    at: Any = int(part) if isinstance(payload, list) else part
    if isinstance(payload, list):
        payload += [None] * (at + 1 - len(payload))
    if not rest:
        payload[at] = value
        return
    there = payload[at] if isinstance(payload, list) else payload.get(at)
    if not isinstance(there, dict | list):
        there = payload[at] = [] if rest[0].isdecimal() else {}
    _put(there, rest, value)


def _key_of(declared: SourceType, row: dict[str, Any]) -> dict[str, Any]:
    paths = {f.name: f.path for f in fields_of(declared.record)}
    return {paths[name]: row.get(paths[name]) for name in declared.key}

"""Row changes as Debezium's JSON envelopes, with or without their schemas inside.

| event | is |
|---|---|
| `op` c, u, r | the row as it is now; `snapshot` for r |
| `op` d | the row is gone. Only its key is read: under the default replica identity the rest of `before` is made up |
| `op` t | the table is empty, up to the event's position |
| tombstone, `op` m, transaction metadata | nothing for us (None) |

A change of a primary key is a d of the old key and a c of the new one, at one position. Positions are texts that compare
in source order: PostgreSQL the last commit before it or its own lsn, whichever is later, and its own lsn; MySQL and
MariaDB binlog file, position and row.

Why not PostgreSQL's lsn alone: a transaction may have written before a table was read, and commit after. The read did not
see it, and its lsn is the smaller. Transactions arrive in the order of their commits, so the commit before it tells. Only
the first transaction after a snapshot has none before it (`Change.first`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec

from c360.codecs.avro import KEY_ID, JsonOfAvro
from c360.codecs.json import HeadersOf
from c360.codecs.layout import DIGITS_MAX, EXACT, UNREADABLE, Layout, misfit_of, readable
from c360.codecs.record import Record, fields_of
from c360.errors import Misfit

UNCHANGED = b"__debezium_unavailable_value"
_TEXTS = (b'"%s"' % UNCHANGED, b'"%s"' % base64.b64encode(UNCHANGED))
_NUMBERS = b"[%s]" % b",".join(b"%d" % byte for byte in UNCHANGED)  # of an array of numbers
UNCHANGED_VALUES = frozenset(
    {*_TEXTS, *(b"[%s]" % text for text in _TEXTS), b"{%s:%s}" % (_TEXTS[0], _TEXTS[0]), _NUMBERS}
)
_MARKS = (*(text.strip(b'"') for text in _TEXTS), _NUMBERS)
NOTHING, NULL = msgspec.Raw(b""), msgspec.Raw(b"null")
JSON = ord("{")
DECIMAL = "org.apache.kafka.connect.data.Decimal"


@dataclass(frozen=True)
class Change:
    """What happened to one row."""

    op: Literal["upsert", "delete", "truncate"]
    row_id: str  # the primary key's value; of several fields a JSON list; "" for truncate
    position: str
    at_ms: int  # commit time of the source
    record: Record | None  # upsert only; None while `unchanged` values are missing
    unchanged: tuple[str, ...] = ()  # columns that were not sent, as they had not changed
    snapshot: bool = False
    after: bytes = b""  # with `unchanged`: what was sent
    first: bool = False  # it is of the first transaction after a snapshot, which may have begun before

    def placed(self, held: str) -> str:
        """Its position beside a state of the row that came before it, which is at `held`: not before what was read.

        Of two changes of one row the later has the later lsn, so one that comes again stays behind.
        """
        return held[:LSN_DIGITS] + self.position[LSN_DIGITS:] if self.first and self.position < held else self.position


class Unfit(Misfit):
    """A state of a row that is put aside. What it `sent` is not known here until a later state says it again."""

    def __init__(self, why: Misfit, row_id: str, position: str, sent: frozenset[str]) -> None:
        super().__init__(why.reason, str(why))
        self.row_id, self.position, self.sent = row_id, position, sent


class _Source(msgspec.Struct):
    connector: str = ""
    ts_ms: int | None = None
    snapshot: str | bool | None = None
    lsn: int | None = None
    sequence: str | None = None  # of PostgreSQL: JSON, [lsn of the last commit, lsn]
    file: str | None = None
    pos: int | None = None
    row: int | None = None
    commit_lsn: str | None = None
    change_lsn: str | None = None
    event_serial_no: int | str | None = None  # SQL Server: text in some versions


class _Envelope(msgspec.Struct):
    op: str | None = None
    before: msgspec.Raw = NULL
    after: msgspec.Raw = NULL
    source: _Source | None = None
    ts_ms: int | None = None
    status: str | None = None  # transaction metadata
    payload: msgspec.Raw = NOTHING
    schema: msgspec.Raw = NOTHING


class _Schema(msgspec.Struct):
    """What Connect's JSON says of a type, or of a column."""

    field: str = ""
    name: str | None = None
    parameters: dict[str, str] | None = None
    fields: list[_Schema] | None = None


# At one position: a snapshot is read where the next change begins, and a changed key is a d, then a c.
CONNECTORS = frozenset({
    "postgresql", "mysql", "mariadb", "sqlserver", "oracle", "db2", "mongodb", "informix", "vitess", "spanner", "cassandra",
})  # fmt: skip
"""Names that messages may have. Who is no connector of Debezium's may write there whatever it likes."""
RANKS = {"r": 0, "d": 1}  # others 2
LSN_DIGITS = 20

_sequence = msgspec.json.Decoder(list[str | None]).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_columns = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_plain = msgspec.json.Decoder().decode
_schema = msgspec.json.Decoder(_Schema | None).decode
_SCALE = re.compile(r"-?[0-9]{1,4}\Z")
# As SQL Server and Db2 write it. Of others it is a number whose text does not compare in its order (Informix).
_COMMIT = re.compile(r"[0-9a-f]{8}:[0-9a-f]{8}:[0-9a-f]{4}\Z")
_compact = msgspec.json.Encoder().encode


class DebeziumDecoder:
    """Decodes the changes of one table whose rows are `record`s with the primary key fields `key`."""

    def __init__(self, record: type[Record], key: Sequence[str], avro: JsonOfAvro | None = None) -> None:
        """`avro`: reads events that are not in JSON."""
        self.avro = avro
        self.layout = Layout(record)
        self.name = record.__name__
        paths = {f.name: f.path for f in fields_of(record)}
        self.read = {path.split(".")[0] for path in paths.values()}
        self.key = [paths[k] for k in key]  # names of columns
        self.scales: dict[bytes, dict[str, int]] = {}  # schema -> columns that are Decimal in bytes

    def decode(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], headers: HeadersOf | None = None
    ) -> list[Change | Misfit | None]:
        """One answer per event: the change; what is wrong with it; or None when it says nothing about rows.

        `headers`: where the schema of one in Avro may be named. Raises Shut while that cannot be asked for.
        """
        out: list[Change | Misfit | None] = []
        for i, (value, key) in enumerate(zip(values, keys, strict=True)):
            try:
                if self.avro is not None and value and value[0] != JSON:
                    said = () if headers is None else headers(i)
                    value, key = self.avro.text(value, said), self.avro.text(key, said, KEY_ID)
                out.append(None if value is None else self._change(value, key))
            except Misfit as misfit:
                out.append(misfit)
            except (*UNREADABLE, ValueError) as error:
                out.append(misfit_of(error, f"the change event of {self.name}"))
            if self.avro is not None and (read := values[i]) and read[0] != JSON and isinstance(out[-1], Misfit):
                self.avro.values.blame(read, () if headers is None else headers(i))
        return out

    def ready(self, values: Sequence[bytes | None], keys: Sequence[bytes | None], headers: HeadersOf) -> int:
        """How many of the first can be decoded now: the schema of the next cannot be asked for."""
        if self.avro is None:
            return len(values)
        for i, (value, key) in enumerate(zip(values, keys, strict=True)):
            if value and value[0] != JSON:
                said = headers(i)
                if not (self.avro.is_ready(value, said) and self.avro.is_ready(key, said, KEY_ID)):
                    return i
        return len(values)

    def _change(self, value: bytes, key: bytes | None) -> Change | None:
        if not value:
            raise Misfit("empty", f"the record has no value; a change event of {self.name} was expected")
        event = _envelope(readable(value))
        scales: dict[str, int] = {}
        if event.payload != NOTHING:
            scales = self._scales(event.schema)
            if event.payload == NULL:
                return None
            event = _envelope(event.payload)
        op = event.op
        if op == "m" or (op is None and event.status is not None):
            return None
        if op not in ("c", "u", "r", "d", "t"):
            raise Misfit("not-a-change", f"there is no op of Debezium in it; {self._hint(value)}")
        position, first = self._position(event.source, RANKS.get(op, 2))
        assert event.source is not None
        at_ms = event.source.ts_ms if event.source.ts_ms is not None else event.ts_ms
        if at_ms is None:
            raise Misfit("missing-field", f"the change event of {self.name} has no source.ts_ms")
        if op == "t":
            return Change("truncate", "", position, at_ms, None)
        row_id = self._row_id(key, event)
        if op == "d":
            return Change("delete", row_id, position, at_ms, None, first=first)
        if event.after == NULL:
            raise Misfit("missing-field", f"the change event of {self.name} has no after")
        after = bytes(event.after) if not scales else self._with_decimals(event.after, scales)
        snapshot = op == "r"
        if any(mark in after for mark in _MARKS):
            sent = _columns(after)
            unchanged = tuple(c for c, raw in sent.items() if c in self.read and bytes(raw) in UNCHANGED_VALUES)
            if unchanged:
                return Change("upsert", row_id, position, at_ms, None, unchanged, snapshot, after, first)
        try:
            record = self.layout.read(after)
        except Misfit as misfit:
            raise Unfit(misfit, row_id, position, frozenset(self.read)) from misfit.__cause__
        return Change("upsert", row_id, position, at_ms, record, (), snapshot, first=first)

    def sent(self, change: Change) -> frozenset[str]:
        """The columns that are read and were sent."""
        return frozenset(self.read).difference(change.unchanged)

    def complete(self, change: Change, old: Record | None) -> Record:
        """The record of a change with `unchanged` columns, which are taken from the row as it was. Raises Misfit."""
        if old is None:
            raise Misfit(
                "unknown-row",
                f"{self.name}: {', '.join(change.unchanged)} was not sent because it had not changed, and the row before is"
                " not known here; let the connector read the table again (a snapshot)",
            )
        record: Record = self.layout.complete(change.after, change.unchanged, old)
        return record

    def without(self, change: Change) -> Record | None:
        """The record of a change with None for its `unchanged` columns: whom it is about may be seen in it. None where the rest
        does not fit."""
        try:
            values = self.layout.values(change.after, change.unchanged)
        except (Misfit, *UNREADABLE):
            return None
        made: Record = self.layout.record(**dict.fromkeys(f.name for f in fields_of(self.layout.record)) | values)
        return made

    # --------------------------------------------------------------------------------------------------------- keys
    def _row_id(self, key: bytes | None, event: _Envelope) -> str:
        """From the record's key; columns that are not in it from the row (of a delete: its key columns are true)."""
        found: dict[str, Any] = {}
        if key:
            try:
                sent = _plain(key)
            except UNREADABLE:
                sent = key.decode(errors="replace") if len(self.key) == 1 and key[:1] not in b'{["' else None
            if isinstance(sent, dict) and isinstance(sent.get("payload"), dict) and "schema" in sent:
                sent = sent["payload"]
            if isinstance(sent, dict):
                found = sent
        if any(found.get(column) is None for column in self.key):
            row = event.after if event.after != NULL else event.before
            if row != NULL:
                columns = _columns(row)
                found = {**{c: _plain(columns[c]) for c in self.key if c in columns}, **found}
        values = [found.get(column) for column in self.key]
        if any(v is None for v in values):
            raise Misfit("no-key", f"the primary key {', '.join(self.key)} of {self.name} is in neither key nor row")
        if len(values) == 1 and isinstance(values[0], str | int):
            return str(values[0])
        return _compact(values).decode()

    def _position(self, source: _Source | None, rank: int) -> tuple[str, bool]:
        """And whether it is in the first transaction after a snapshot."""
        if source is not None:
            if (found := _position_in_wal(source, rank)) is not None:
                return found
            if source.file is not None and source.pos is not None:
                base, _, number = source.file.rpartition(".")
                return f"{base}.{number.zfill(12)}:{source.pos:020d}:{source.row or 0:010d}.{rank}", False
            if source.commit_lsn is not None and _COMMIT.match(source.commit_lsn):
                return (
                    f"{source.commit_lsn}:{source.change_lsn or ''}:{_serial(source.event_serial_no):010d}.{rank}",
                    False,
                )
        connector = source.connector if source is not None and source.connector in CONNECTORS else "?"
        raise Misfit(
            "no-position",
            f"the change event of {self.name} (connector {connector}) has no position in its source: lsn, or file and pos,"
            " or commit_lsn as SQL Server has it",
        )

    def _hint(self, value: bytes) -> str:
        if _is_unwrapped(value):
            return (
                f"{self.name}'s connector has the transformation ExtractNewRecordState (unwrap), which takes away where a"
                " change is in its database: let it write whole envelopes"
            )
        return f"is {self.name}'s topic a CDC topic?"

    # ----------------------------------------------------------------------------------------------------- decimals
    def _scales(self, schema: msgspec.Raw) -> dict[str, int]:
        text = bytes(schema)
        if text in (b"", b"null"):
            return {}
        if text not in self.scales:
            if len(self.scales) > 64:
                self.scales.clear()
            self.scales[text] = _decimal_columns(_schema(text) or _Schema())
        return self.scales[text]

    def _column(self, column: str) -> str:
        """For people; of one that no field reads nothing is said, as its name is the producer's."""
        return f"{self.name}: {column if column in self.read else 'a column'}"

    def _with_decimals(self, after: msgspec.Raw, scales: dict[str, int]) -> bytes:
        """The row with numbers in bytes (decimal.handling.mode=precise) written as numbers."""
        columns = _columns(after)
        for column, scale in scales.items():
            raw = columns.get(column)
            if raw is not None and bytes(raw) != b"null" and bytes(raw) not in UNCHANGED_VALUES:
                try:
                    number = base64.b64decode(_plain(raw), validate=True)
                except (ValueError, TypeError):
                    raise Misfit(
                        "wrong-type", f"{self._column(column)} is not the bytes of a number, as its schema says"
                    ) from None
                if len(number) > DIGITS_MAX:  # bytes; more than its digits, and to write them takes the square of them
                    raise Misfit("out-of-range", f"{self._column(column)} has more than {DIGITS_MAX} digits")
                units = int.from_bytes(number, "big", signed=True)
                columns[column] = msgspec.Raw(b'"%s"' % format(EXACT.scaleb(Decimal(units), -scale), "f").encode())
        return _compact(columns)


def _position_in_wal(source: _Source, rank: int) -> tuple[str, bool] | None:
    commit, lsn = 0, source.lsn
    said = _sequence(source.sequence) if source.sequence and source.connector == "postgresql" else []
    if said:
        commit = int(said[0] or 0)
        if lsn is None:  # rows of an incremental snapshot
            lsn = int(said[-1] or 0)
    if lsn is None:
        return None
    if rank == 0 and source.lsn is not None:  # a snapshot: of its place before all that is streamed
        return f"{lsn:0{LSN_DIGITS}d}:{0:020d}.{rank}", False
    return f"{max(commit, lsn):0{LSN_DIGITS}d}:{lsn:020d}.{rank}", bool(said) and not commit and rank > 0


def _serial(said: int | str | None) -> int:
    """The place among changes of one position. Raises Misfit for text that is no number."""
    if isinstance(said, str) and not (said.isascii() and said.isdigit() and len(said) <= 10):
        raise Misfit("wrong-type", "event_serial_no in the source of the change event is no number")
    return int(said or 0)


def _is_unwrapped(value: bytes) -> bool:
    """Whether it looks like a row by itself, with what Debezium adds to such."""
    try:
        found = _columns(value)
        found = _columns(found["payload"]) if "schema" in found and "payload" in found else found
    except UNREADABLE:
        return False
    return any(name in found for name in ("__op", "__deleted", "__source_ts_ms", "__lsn"))


def _decimal_columns(schema: _Schema) -> dict[str, int]:
    """Columns of `after` that a Connect schema calls Decimal, with their scale. Raises Misfit for a scale that is none."""
    (after,) = [part for part in schema.fields or () if part.field == "after"][:1] or [_Schema()]
    scales = {}
    for column in after.fields or ():
        if column.name == DECIMAL:
            said = (column.parameters or {}).get("scale", "0")
            if not _SCALE.match(said) or abs(int(said)) > DIGITS_MAX:
                raise Misfit("out-of-range", "the schema of the change event gives a column no scale of a Decimal")
            scales[column.field] = int(said)
    return scales

"""What a Debezium record says of which row: an envelope of after, source and op as JSON, with or without its schema.

Of a delete only the key is believed: without REPLICA IDENTITY FULL the rest of `before` is made up. Of a schema only
that is used which JSON cannot say: what is a Decimal in bytes. Numbers that are times are declared as such (`unit=`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from c360.codecs.record import Record, fields_of
from c360.declare import SourceType
from c360.testing.oracle.plain import Written, canonical, decimal_text, parse, parse_payload
from c360.testing.oracle.values import WIDE, NoFit

Position = tuple[Any, ...]
Op = Literal["put", "delete", "truncate"]
OPS: Mapping[str, Op] = {"c": "put", "r": "put", "u": "put", "d": "delete", "t": "truncate"}
MARK = "__debezium_unavailable_value"  # a column that the database did not send, since it has not changed
_TEXTS = (MARK, base64.b64encode(MARK.encode()).decode())
UNSENT = (*_TEXTS, *([text] for text in _TEXTS), {MARK: MARK}, [ord(letter) for letter in MARK])


@dataclass(frozen=True)
class Change:
    """One change of one row, or the end of all rows before it."""

    op: Op
    row_id: str
    position: Position  # in the database's own order
    snapshot: bool
    at_ms: int
    after: Mapping[str, Any]
    first: bool = False  # streamed before any commit: after every read of a snapshot that came before it


def read_change(declared: SourceType, key: bytes | None, value: bytes | None) -> Change | None:
    """The change in a raw record; None for none (a tombstone, a message). Raises NoFit or ValueError for a misfit."""
    if value is None:
        return None
    envelope = _payload(parse_payload(value))
    if envelope is None:
        return None
    if not isinstance(envelope, dict):
        raise NoFit
    op, source = envelope.get("op"), envelope.get("source")
    if op == "m" or (op is None and envelope.get("status") is not None):
        return None
    if not isinstance(op, str) or op not in OPS or not isinstance(source, dict):
        raise NoFit
    at_ms = envelope.get("ts_ms") if source.get("ts_ms") is None else source["ts_ms"]
    if not isinstance(at_ms, int):
        raise NoFit
    kind, position = OPS[op], _position(source, op)
    if kind == "truncate":
        return Change(kind, "", position, False, at_ms, {})
    after = envelope.get("after")
    row_id = _row_id(declared, key, envelope.get("before") if after is None else after)
    if kind == "put" and not isinstance(after, dict):
        raise NoFit
    first = op != "r" and "sequence" in source and _sequence(source)[:1] == [0]
    return Change(kind, row_id, position, op == "r", at_ms, after or {}, first)


def unsent(record: type[Record], after: Mapping[str, Any]) -> set[str]:
    """The fields whose column the database did not send."""
    return {f.name for f in fields_of(record) if after.get(f.path.partition(".")[0]) in UNSENT}


def _row_id(declared: SourceType, key: bytes | None, row: Any) -> str:
    """The primary key as text: of the record's key, else of the row."""
    try:
        said = None if key is None else _payload(parse(key))
    except ValueError:
        said = None
    places = [p for p in (said, row) if isinstance(p, dict)]
    paths = {f.name: f.path for f in fields_of(declared.record)}
    values = [next((p[paths[n]] for p in places if p.get(paths[n]) is not None), None) for n in declared.key]
    if None in values:
        raise NoFit
    return canonical([v.text if isinstance(v, Written) else v for v in values])


# ---------------------------------------------------------------------------------------------------------- position
def _position(source: Mapping[str, Any], op: str) -> Position:
    """Where the change is in its database.

    Of one place what a snapshot read is before what is streamed from there, and a delete is before an insert, since
    that is how a change of a primary key is sent.
    """
    rank = {"r": 0, "d": 1}.get(op, 2)
    said = _sequence(source)
    match source:
        case {"lsn": int(lsn)} if op == "r":
            return (lsn, 0, rank)
        case {"lsn": int(lsn)}:
            return (max(said[0], lsn) if said else lsn, lsn, rank)
        case {"connector": "postgresql"} if said:  # incremental snapshots have no lsn of their own
            return (max(said), said[-1], rank)
        case {"file": str(file), "pos": int(pos)}:
            number = re.search(r"\d+\Z", file)
            return (int(number[0]) if number else 0, pos, source.get("row") or 0, rank)
        case {"commit_lsn": str(commit)} if re.fullmatch("[0-9a-f]{8}:[0-9a-f]{8}:[0-9a-f]{4}", commit):
            serial = source.get("event_serial_no") or 0
            if isinstance(serial, str) and not re.fullmatch("[0-9]{1,10}", serial):
                raise NoFit
            return (commit, source.get("change_lsn") or "", int(serial), rank)
    raise NoFit


def _sequence(source: Mapping[str, Any]) -> list[int]:
    """PostgreSQL: the last commit before the change, 0 if none was streamed; and the change itself."""
    if source.get("connector") != "postgresql" or not isinstance(source.get("sequence"), str):
        return []
    return [int(n or 0) for n in json.loads(source["sequence"])]


# ------------------------------------------------------------------------------------------------------------ schema
def _payload(said: Any) -> Any:
    """The payload of `{"schema": …, "payload": …}`, its Decimals written out; anything else as it is."""
    if not isinstance(said, dict) or "payload" not in said:
        return said
    return _with_decimals(said.get("schema"), said["payload"])


def _with_decimals(schema: Any, said: Any) -> Any:
    if not isinstance(schema, dict) or said is None or said in UNSENT:
        return said
    if isinstance(said, dict):
        fields = {f["field"]: f for f in schema.get("fields", ())}
        return {k: _with_decimals(fields.get(k), v) for k, v in said.items()}
    if schema.get("name") == "org.apache.kafka.connect.data.Decimal":
        units = int.from_bytes(base64.b64decode(said, validate=True), "big", signed=True)
        return decimal_text(Decimal(units).scaleb(-int(schema["parameters"]["scale"]), WIDE))
    return said

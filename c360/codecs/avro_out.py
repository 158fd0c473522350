"""JSON values as Avro, and back: what leaves is made as JSON has it, and written by a schema that says the types.

    schema                                        JSON value
    long, double, boolean, string                 the number, true or false, the text
    string with "json": true                      any value, as its JSON text with sorted keys
    bytes, logicalType decimal                    text with exactly `scale` places: "12.50"
    long, timestamp-micros or -millis             RFC 3339 text with a zone; read back in UTC
    int, date                                     "2026-11-02"
    ["null", T]                                   null, or T's
    array, map, record                            list, object, object; a field of a record that is not there is null

One value has one form: numbers are in their shortest, a list is one block, keys of a map are sorted. "json_name" of a field is
the name that it has in JSON, where Avro allows none such. Only what stands here is written. Source: Avro 1.11,
"Binary encoding".
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import fastavro
import msgspec

from c360.codecs.avro import MAGIC, UNREADABLE, plainly
from c360.errors import Misfit

NOT_IN_SCHEMA = "not-in-schema"
JSON_NAME, IN_JSON = "json_name", "json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = EPOCH.toordinal()
LONG = 1 << 63
_US = {"timestamp-millis": timedelta(milliseconds=1), "timestamp-micros": timedelta(microseconds=1)}
_canonical = msgspec.json.Encoder(order="deterministic").encode

Put = Callable[[bytearray, Any], None]
"""put(out, JSON value): appends its bytes. Raises Misfit."""


# ----------------------------------------------------------------------------------------------------------- schemas
def avro_names(names: Collection[str]) -> list[str]:
    """Names as Avro allows them, in the same order, no two alike: letters, digits and _ of ASCII, others as _u and their
    number in hex."""
    taken = {name for name in names if _is_plain(name)}
    made = []
    for name in names:
        if not _is_plain(name):
            name = re.sub(r"[^A-Za-z0-9_]", lambda found: f"_u{ord(found[0]):04x}", name) or "_"
            name = name if not name[0].isdigit() else f"_{name}"
            while name in taken:
                name += "_"
            taken.add(name)
        made.append(name)
    return made


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def optional_fields(types: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Fields of a record, of JSON names and types: each may be null and is null where a writer did not know it, so that
    fields can come and go."""
    fields = []
    for name, avro in zip(types, avro_names(types), strict=True):
        one = {"name": avro, "type": ["null", types[name]], "default": None}
        fields.append(one if avro == name else {**one, JSON_NAME: name})
    return fields


# ----------------------------------------------------------------------------------------------------------- writing
def frame(number: int) -> bytes:
    """What stands before a value in Confluent's wire format, of its schema's id."""
    return bytes([MAGIC]) + number.to_bytes(4, "big")


def writer_of(schema: Any) -> Callable[[Any, bytes], bytes]:
    """write(JSON value, what stands before it) → bytes. Raises Misfit for what is not in the schema, naming the field."""
    put = _compiled(schema, "the value")

    def write(value: Any, before: bytes = b"") -> bytes:
        out = bytearray(before)
        put(out, value)
        return bytes(out)

    return write


def _compiled(schema: Any, at: str) -> Put:
    """Of a schema that holds what it refers to; `at` is its place, for people."""
    if isinstance(schema, list):
        null, other = schema
        assert null == "null", "other unions are not written"
        put = _compiled(other, at)
        return _finite_or_null(put) if other == "double" else _or_null(put)
    kind, said = (schema, {}) if isinstance(schema, str) else (schema["type"], schema)
    logical = said.get("logicalType")
    if kind == "record":
        return _record(said, at)
    if kind == "array":
        return _array(_compiled(said["items"], f"an entry of {at}"), at)
    if kind == "map":
        return _map(_compiled(said["values"], f"an entry of {at}"), at)
    if kind == "bytes" and logical == "decimal":
        return _decimal(said["precision"], said["scale"], at)
    if kind == "string":
        return _json if said.get(IN_JSON) else _string(at)
    if kind == "long" and logical in _US:
        return _timestamp(_US[logical], at)
    if kind == "int" and logical == "date":
        return _date(at)
    if kind in ("int", "long"):
        return _whole(LONG if kind == "long" else 1 << 31, at)
    return {"double": _double, "boolean": _boolean}[kind](at)


def _not(at: str, expected: str) -> Misfit:
    return Misfit(NOT_IN_SCHEMA, f"{at} is not {expected}, as its schema says")


def put_long(out: bytearray, n: int) -> None:
    """A number of up to 64 bits: zigzag, seven bits a byte, the lowest first."""
    n = (n << 1) ^ (n >> 63)
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)


def _put_text(out: bytearray, data: bytes) -> None:
    put_long(out, len(data))
    out += data


def _or_null(put: Put) -> Put:
    def optional(out: bytearray, value: Any) -> None:
        if value is None:
            out.append(0)
        else:
            out.append(2)
            put(out, value)

    return optional


def _finite_or_null(put: Put) -> Put:
    """JSON has no word for what is not finite, and null is written there."""

    def optional(out: bytearray, value: Any) -> None:
        if value is None or (value.__class__ is float and not isfinite(value)):
            out.append(0)
        else:
            out.append(2)
            put(out, value)

    return optional


def _string(at: str) -> Put:
    def string(out: bytearray, value: Any) -> None:
        if value.__class__ is not str:
            raise _not(at, "text")
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise _not(at, "text in Unicode") from None
        put_long(out, len(data))
        out += data

    return string


def _json(out: bytearray, value: Any) -> None:
    _put_text(out, _canonical(value))


def _whole(limit: int, at: str) -> Put:
    def whole(out: bytearray, value: Any) -> None:
        if value.__class__ is not int or not -limit <= value < limit:
            raise _not(at, f"a whole number of {limit.bit_length()} bits")
        put_long(out, value)

    return whole


def _double(at: str) -> Put:
    pack = struct.Struct("<d").pack

    def double(out: bytearray, value: Any) -> None:
        if value.__class__ is not float:
            if value.__class__ is not int or abs(value) > 1 << 53:  # JSON has 3 for 3.0
                raise _not(at, "a number that fits a double")
            value = float(value)
        if not isfinite(value):
            raise _not(at, "a finite number")
        out += pack(value + 0.0)

    return double


def _boolean(at: str) -> Put:
    def boolean(out: bytearray, value: Any) -> None:
        if value.__class__ is not bool:
            raise _not(at, "true or false")
        out.append(value)

    return boolean


def _decimal(precision: int, scale: int, at: str) -> Put:
    limit = 10**precision
    places = re.compile(r"-?\d+" + (rf"\.\d{{{scale}}}" if scale else ""), re.ASCII).fullmatch

    def decimal(out: bytearray, value: Any) -> None:
        if value.__class__ is not str or len(value) > precision + 3 or places(value) is None:
            raise _not(at, f"a decimal of up to {precision} digits, {scale} of them after the point")
        units = int(value.replace(".", ""))
        if not -limit < units < limit:
            raise _not(at, f"a decimal of up to {precision} digits")
        _put_text(out, units.to_bytes((units if units >= 0 else ~units).bit_length() // 8 + 1, "big", signed=True))

    return decimal


def _timestamp(unit: timedelta, at: str) -> Put:
    def timestamp(out: bytearray, value: Any) -> None:
        try:
            since, rest = divmod(datetime.fromisoformat(value) - EPOCH, unit)
        except (TypeError, ValueError):
            raise _not(at, "a time with a zone") from None
        if rest:
            raise _not(at, "a time in whole milliseconds")
        put_long(out, since)

    return timestamp


def _date(at: str) -> Put:
    def day(out: bytearray, value: Any) -> None:
        try:
            put_long(out, date.fromisoformat(value).toordinal() - EPOCH_DAY)
        except (TypeError, ValueError):
            raise _not(at, "a date") from None

    return day


def _array(put: Put, at: str) -> Put:
    def array(out: bytearray, value: Any) -> None:
        if value.__class__ is not list:
            raise _not(at, "a list")
        if value:
            put_long(out, len(value))
            for one in value:
                put(out, one)
        out.append(0)

    return array


def _map(put: Put, at: str) -> Put:
    name = _string(f"a key of {at}")

    def mapping(out: bytearray, value: Any) -> None:
        if value.__class__ is not dict:
            raise _not(at, "an object")
        if value:
            put_long(out, len(value))
            for key in sorted(value):
                name(out, key)
                put(out, value[key])
        out.append(0)

    return mapping


def _record(schema: Mapping[str, Any], at: str) -> Put:
    names = [field.get(JSON_NAME, field["name"]) for field in schema["fields"]]
    fields = [(name, _compiled(field["type"], name)) for name, field in zip(names, schema["fields"], strict=True)]
    known = frozenset(names)

    def record(out: bytearray, value: Any) -> None:
        if value.__class__ is not dict:
            raise _not(at, "an object")
        if not value.keys() <= known:
            raise Misfit(NOT_IN_SCHEMA, f"{at} has {len(value.keys() - known)} fields that its schema has not")
        get = value.get
        for name, put in fields:
            put(out, get(name))

    return record


# ----------------------------------------------------------------------------------------------------------- reading
def reader_of(schema: Any) -> Callable[[bytes], Any]:
    """read(bytes that `writer_of` wrote) → the JSON value. Raises Misfit."""
    parsed = fastavro.parse_schema(plainly(schema, times=False))

    def read(data: bytes) -> Any:
        stream = io.BytesIO(data)
        try:
            found = fastavro.schemaless_reader(stream, parsed, None)
            if stream.tell() == len(data):
                return _shown(schema, found)
        except UNREADABLE as error:
            raise Misfit("not-avro", f"the value is none of its schema ({type(error).__name__})") from None
        raise Misfit("not-avro", "the value is longer than its schema says: it is of another one")

    return read


def _shown(schema: Any, value: Any) -> Any:
    """What fastavro reads, as JSON has it."""
    if isinstance(schema, list):
        return None if value is None else _shown(schema[1], value)
    kind, said = (schema, {}) if isinstance(schema, str) else (schema["type"], schema)
    if kind == "record":
        return {
            field.get(JSON_NAME, field["name"]): _shown(field["type"], value[field["name"]]) for field in said["fields"]
        }
    if kind == "array":
        return [_shown(said["items"], one) for one in value]
    if kind == "map":
        return {key: _shown(said["values"], one) for key, one in value.items()}
    if said.get(IN_JSON):
        return json.loads(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if (logical := said.get("logicalType")) in _US:
        spec = "milliseconds" if logical == "timestamp-millis" else "microseconds"
        at = EPOCH + value * _US[logical]
        return at.isoformat(timespec=spec if at.microsecond else "seconds").replace("+00:00", "Z")
    if logical == "date":
        return date.fromordinal(value + EPOCH_DAY).isoformat()
    return value

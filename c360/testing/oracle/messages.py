"""What a value in Protobuf says, as JSON would have it: by walking its message field by field, slowly."""

from __future__ import annotations

import base64
import string
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from c360.codecs.avro import NoRegistry, Registry, SchemaRef
from c360.codecs.messages import file_in  # of the text of a schema; tests compare it with protoc's
from c360.testing.oracle.plain import Written, decimal_text, time_text
from c360.testing.oracle.values import DIGITS, NoFit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOS = 10**9


def message_in(
    data: bytes, ref: SchemaRef, registry: Registry, read: Sequence[tuple[type[Message], Collection[str]]]
) -> tuple[str, dict[str, Any]] | None:
    """The name of a value's message and those of its fields that are looked at; None: nothing is read of such a message.

    `data`: what is behind the id of its schema. `read`: the classes that are read, and what of each. Raises NoFit, or what the
    parser raises.
    """
    indexes, data = _indexes(data)
    said = {made.DESCRIPTOR.full_name: (made, wanted) for made, wanted in read}
    if isinstance(registry, NoRegistry):
        files = {made.DESCRIPTOR.file.name: made.DESCRIPTOR.file for made, _ in read}
        meant = [_names(file, indexes) for file in files.values()]
        if sum(any(name in said for name in one) for one in meant) > 1:
            raise NoFit
        names = [name for one in meant for name in one]
    else:
        schema = registry.schema(ref)
        if schema.kind != "PROTOBUF":
            raise NoFit
        names = file_in(schema.text).names(tuple(indexes))
    for name in names:
        if name in said:
            made, wanted = said[name]
            return name, _fields(made.FromString(data), wanted)
    return None


def _indexes(data: bytes) -> tuple[list[int], bytes]:
    numbers: list[int] = []
    while not numbers or len(numbers) <= numbers[0]:
        number = size = 0
        while True:
            if size == 5 or size >= len(data):
                raise NoFit
            number |= (data[size] & 127) << 7 * size
            size += 1
            if data[size - 1] < 128:
                break
        numbers.append(-(number // 2) - 1 if number % 2 else number // 2)
        data = data[size:]
        if not 0 <= numbers[0] <= 100:
            raise NoFit
    return numbers[1:] or [0], data


def _names(file: Any, indexes: list[int]) -> list[str]:
    """Of the message at these indexes, with and without entries of maps among those of a message."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    names = []
    for entries in (True, False):
        path, inside = [proto.package] if proto.package else [], list(proto.message_type)
        for index in indexes:
            inside = [one for one in inside if entries or not one.options.map_entry]
            if not 0 <= index < len(inside) or inside[index].options.map_entry:
                break
            path.append(inside[index].name)
            inside = list(inside[index].nested_type)
        else:
            names.append(".".join(path))
    return names


def _fields(message: Any, wanted: Collection[str] | None = None) -> dict[str, Any]:
    descriptor: Descriptor = message.DESCRIPTOR
    proto, found = DescriptorProto(), dict[str, Any]()
    descriptor.CopyToProto(proto)
    for field, made in zip(descriptor.fields, proto.field, strict=True):
        name = field.name
        there = not field.has_presence or message.HasField(name)
        if there and (wanted is None or name in wanted):
            found[name] = _of_field(field, getattr(message, name))
        if there and field.has_presence and made.HasField("oneof_index") and not made.proto3_optional:
            group = proto.oneof_decl[made.oneof_index].name
            if wanted is None or group in wanted:
                found[group] = name
    return found


def _of_field(field: FieldDescriptor, said: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {(str(k).lower() if isinstance(k, bool) else str(k)): _one(value, v) for k, v in _pairs(said)}
    if field.is_repeated:
        return [_one(field, one) for one in said]
    return _one(field, said)


def _pairs(said: Any) -> list[tuple[Any, Any]]:
    return [(key, said[key]) for key in sorted(said)]


def _one(field: FieldDescriptor, said: Any) -> Any:
    if field.enum_type is not None:
        return next((value.name for value in field.enum_type.values if value.number == said), said)
    if field.message_type is not None:
        return _message(said)
    if field.type == FieldDescriptor.TYPE_STRING and not isinstance(said, str):
        raise NoFit
    return _scalar(said)


def _scalar(said: Any) -> Any:
    if isinstance(said, bytes):
        return base64.b64encode(said).decode()
    if isinstance(said, float):
        if not isfinite(said):
            raise NoFit
        return Written(repr(said))
    return said


def _message(said: Any) -> Any:
    name = said.DESCRIPTOR.full_name
    if name.startswith("google.protobuf.") and name.endswith("Value") and "value" in said.DESCRIPTOR.fields_by_name:
        return _scalar(said.value)
    match name:
        case "google.protobuf.Timestamp":
            if not 0 <= said.nanos < NANOS:
                raise NoFit
            return time_text(EPOCH + timedelta(seconds=said.seconds, microseconds=said.nanos // 1000))
        case "google.protobuf.Duration":
            if abs(said.nanos) >= NANOS:
                raise NoFit
            text = decimal_text(Decimal(said.seconds * NANOS + said.nanos).scaleb(-9))
            return text.rstrip("0").rstrip(".")
        case "google.type.Date":
            return date(said.year, said.month, said.day).isoformat()
        case "google.type.Decimal":
            if len(said.value) > 2 * DIGITS or set(said.value) - set(string.digits + "+-.eE"):
                raise NoFit
            return _decimal(Decimal(said.value or "0"))
        case "confluent.type.Decimal":
            if len(said.value) > DIGITS:
                raise NoFit
            unscaled = int.from_bytes(said.value, "big", signed=True)
            return _decimal(Decimal(f"{unscaled}e{-said.scale}"))
        case "google.protobuf.Struct" | "google.protobuf.ListValue" | "google.protobuf.Value":
            return _json(said)
    return _fields(said)


def _decimal(value: Decimal) -> str:
    if not value.is_finite() or not -DIGITS <= value.adjusted() < DIGITS:
        raise NoFit
    return str(value)


def _json(said: Any) -> Any:
    kind = said.DESCRIPTOR.name
    if kind == "Struct":
        return {name: _json(one) for name, one in _pairs(said.fields)}
    if kind == "ListValue":
        return [_json(one) for one in said.values]
    which = said.WhichOneof("kind")
    if which in (None, "null_value"):
        return None
    value = getattr(said, which)
    if which == "number_value":
        whole = isfinite(value) and value == int(value) and abs(value) < 2**53
        return int(value) if whole else _scalar(value)
    return value if which in ("string_value", "bool_value") else _json(value)

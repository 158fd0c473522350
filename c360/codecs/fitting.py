"""Whether a record type fits a message: said when an app is declared, field by field, with the names of both."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from c360.codecs.messages import Kind, descriptor_of, entry_of, enum_of, inner_of, is_repeated, kind_of, oneofs
from c360.codecs.record import FieldInfo, Named, Record, fields_of, is_record, is_union
from c360.errors import DeclarationError

# What may be made of what: as `msgspec.convert` makes it.
TAKES: Mapping[type, frozenset[str]] = {
    str: frozenset({"text", "enum"}),
    int: frozenset({"int"}),
    float: frozenset({"float", "int", "decimal"}),
    bool: frozenset({"bool"}),
    Decimal: frozenset({"decimal", "int", "float", "text"}),
    datetime: frozenset({"time", "text"}),
    date: frozenset({"date", "text"}),
    UUID: frozenset({"text", "bytes"}),
    bytes: frozenset({"bytes", "text"}),
}
WRITE: Mapping[str, str] = {
    "text": "str", "int": "int", "float": "float", "bool": "bool", "bytes": "bytes", "enum": "str, its name",
    "time": "datetime", "date": "date", "decimal": "Decimal", "message": "a Record", "json": "Any",
}  # fmt: skip


@dataclass(frozen=True)
class What:
    """What lies at a place: one value, or many. `field` None: something below what JSON has; or the name of a oneof."""

    kind: Kind
    field: FieldDescriptor | None = None
    many: Literal["list", "map", ""] = ""

    @property
    def said(self) -> str:
        assert self.field is not None
        one = inner_of(self.field).full_name if self.field.message_type is not None else self.kind
        return {"": one, "list": "repeated", "map": "a map"}[self.many]


def check(message: type[Message], said: str, record: type[Record], when: Mapping[str, Any] | None = None) -> None:
    """Raises DeclarationError for a field that a message cannot have, or cannot be. `said`: how messages begin."""
    for why in _misfits(record, descriptor_of(message)):
        raise DeclarationError(f"{said}: {why}")
    for path, wanted in (when or {}).items():
        found, why_not = _at(descriptor_of(message), path.split("."))
        if found is None:
            raise DeclarationError(f"{said}: when={{{path!r}: …}}: {why_not}")
        if not _takes(type(wanted), found):
            raise DeclarationError(
                f"{said}: when={{{path!r}: {wanted!r}}}: there is {found.said}, write {WRITE[found.kind]}"
            )


def _misfits(record: type[Record], descriptor: Descriptor) -> Iterator[str]:
    for info in fields_of(record):
        named = f"{record.__name__}.{info.name}"
        found, why_not = _at(descriptor, info.path.split("."))
        if found is None:
            yield f"{named}: {why_not}"
        else:
            yield from _misfits_of(named, info, found)


def _misfits_of(named: str, info: FieldInfo, found: What) -> Iterator[str]:
    if found.field is None:
        return
    of = found.field.full_name
    if info.unit is not None or info.scale is not None:
        if found.many or found.kind not in ("int", "float", "decimal", "text", "json"):
            said = "unit" if info.unit is not None else "scale"
            yield f"{named}: {said}= is for numbers, and {of} is {found.said}; write {WRITE[found.kind]} without it"
        return
    if not _takes(info.wire, found):
        example = {"": "", "list": "list[…] of ", "map": "dict[…] of "}[found.many] + WRITE[found.kind]
        yield f"{named} cannot be made of {of}, which is {found.said}: write {example}"
        return
    if found.kind == "message":
        for inner in _records_in(info.wire):
            yield from (f"{named}: {why}" for why in _misfits(inner, _message_of(found.field)))


def _message_of(field: FieldDescriptor) -> Descriptor:
    """That of the values of a map."""
    entry = entry_of(field)
    return inner_of(field if entry is None else entry[1])


def _records_in(wire: Any) -> Iterator[type[Record]]:
    if is_record(wire):
        yield wire
    for part in typing.get_args(wire):
        yield from _records_in(part)


# ---------------------------------------------------------------------------------------------------------- places
def _at(descriptor: Descriptor, path: list[str]) -> tuple[What | None, str]:
    """What lies at a path; else why nothing can."""
    name, *rest = path
    field = descriptor.fields_by_name.get(name)
    if field is None:
        if not rest and name in oneofs(descriptor):
            return What("text"), ""
        known = ", ".join([*(f.name for f in descriptor.fields), *oneofs(descriptor)])
        return None, f"{descriptor.full_name} has no field {name!r}; it has {known or 'none'}"
    entry = entry_of(field)
    if entry is not None:
        return _below(entry[1], rest[1:]) if rest else (What(kind_of(entry[1]), field, "map"), "")
    if is_repeated(field):
        if rest and not rest[0].isdecimal():
            return None, f"{descriptor.full_name}.{name} is repeated: say which, as in {name}.0, or take it as a list"
        return _below(field, rest[1:]) if rest else (What(kind_of(field), field, "list"), "")
    return _below(field, rest)


def _below(field: FieldDescriptor, rest: list[str]) -> tuple[What | None, str]:
    kind = kind_of(field)
    if not rest:
        return What(kind, field), ""
    if kind == "json":
        return What(kind), ""
    if kind == "message":
        return _at(inner_of(field), rest)
    return None, f"nothing lies below {field.full_name}, which is {What(kind, field).said}"


# ----------------------------------------------------------------------------------------------------------- types
def _takes(wire: Any, found: What) -> bool:
    """Whether values of a declared type can be made of what is there."""
    if wire is Any or found.field is None:
        return True
    origin, args = typing.get_origin(wire), typing.get_args(wire)
    if origin is Annotated:
        return _takes(args[0], found)
    if is_union(wire):
        return any(_takes(part, found) for part in args if part is not type(None))
    if list in (origin, wire) or tuple in (origin, wire):
        return _takes_list([a for a in args if a is not Ellipsis], found)
    if dict in (origin, wire):
        return _takes_dict(args, found)
    if found.many:
        return False
    if found.kind == "json":
        return origin is not Literal
    if origin is Literal:
        return _takes_one_of(args, found)
    if issubclass(wire, Enum):
        return _takes_one_of([member.value for member in wire], found)
    if wire is Named:
        return found.kind == "message" and {"ns", "value"} <= _message_of(found.field).fields_by_name.keys()
    if issubclass(wire, msgspec.Struct):
        return found.kind == "message"
    return any(found.kind in kinds for kind, kinds in TAKES.items() if issubclass(wire, kind) and wire is not bool) or (
        wire is bool and found.kind == "bool"
    )


def _takes_list(kinds: list[Any], found: What) -> bool:
    if found.kind == "json" and not found.many:
        return True
    if found.many != "list":
        return False
    return all(_takes(kind, What(found.kind, found.field)) for kind in kinds)


def _takes_dict(args: tuple[Any, ...], found: What) -> bool:
    if found.many == "list":
        return False
    if found.many == "":
        return found.kind in ("json", "message") and (not args or args[0] in (str, Any))
    assert found.field is not None
    entry = entry_of(found.field)
    assert entry is not None
    key, value = entry
    whole = kind_of(key) == "int"
    return not args or (
        _takes(args[0], What("int" if whole else "text", key)) and _takes(args[1], What(found.kind, value))
    )


def _takes_one_of(values: Any, found: What) -> bool:
    """Of an enum at least one name must be meant."""
    wanted = {"text": str, "enum": str, "int": int, "bool": bool}.get(found.kind)
    if wanted is None or not any(type(value) is wanted for value in values):
        return False
    assert found.field is not None
    return found.kind != "enum" or not set(values).isdisjoint(enum_of(found.field).values())

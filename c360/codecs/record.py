"""`Record`: the shape of what an app reads, with real types, and how a payload is laid over it.

A record class is a msgspec struct. A field of it, taken from the class (`Order.amount`), is a `FieldRef`: what attributes
and conditions are said with. Where a field is not found under its own name, `field("path.to.it")` says where it is.
"""

from __future__ import annotations

import inspect
import operator
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, cast, dataclass_transform
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from c360.errors import DeclarationError

Unit = Literal["s", "ms", "us", "ns", "days"]
UNITS: Mapping[str, type] = {"s": datetime, "ms": datetime, "us": datetime, "ns": datetime, "days": date}
PLAIN = (str, int, float, bool, bytes, Decimal, datetime, date, UUID)
Aware = Annotated[datetime, msgspec.Meta(tz=True)]
SCALE_MAX = 18
ATTRIBUTE = "ce:"  # begins the path of what an envelope says beside its data
_ABSENT: Any = object()


@dataclass(frozen=True)
class Place:
    """What `field(…)` says: where a value is in the payload, and how it is written there."""

    path: str | None
    scale: int | None
    unit: Unit | None
    zone: str | None
    default: Any


@dataclass(frozen=True)
class FieldInfo:
    """One field of a record type. `annotation` as written, `wire` as decoded: identifiers are plain text there."""

    name: str
    annotation: Any
    wire: Any
    optional: bool  # None is a value
    required: bool  # there is no default
    path: str
    scale: int | None = None
    unit: Unit | None = None
    zone: str | None = None


def field(
    path: str | None = None,
    *,
    scale: int | None = None,
    unit: Unit | None = None,
    zone: str | None = None,
    default: Any = _ABSENT,
) -> Any:
    """Say where a field's value is and how it is written.

    `path`: names and list indexes joined by dots, such as "data.lines.0.sku"; default: the field's own name.
    `scale`: a Decimal given in whole units of 10^-scale, such as cents. `unit`: a time given as a number since 1970.
    `zone`: what zone a time without one is in ("UTC", "Europe/Paris"). `default`: the value when nothing is there.
    """
    return Place(path, scale, unit, zone, default)


# ------------------------------------------------------------------------------------------------------- references
_SYMBOLS: Mapping[Callable[[Any, Any], bool], str] = {
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
}  # fmt: skip


class Condition:
    """A condition on one record: call it with the record. Its text is stable, it is part of a projection's fingerprint."""

    __slots__ = ("_text", "fields", "holds")

    def __init__(self, holds: Callable[[Any], bool], text: str, fields: frozenset[str] | None) -> None:
        """`fields`: all that it looks at of a record; None: nobody knows, it has a function of the user's in it."""
        self.holds, self._text, self.fields = holds, text, fields

    def __call__(self, record: Any) -> bool:
        return self.holds(record)

    def __and__(self, other: Any) -> Condition:
        return Condition(lambda r: self(r) and other(r), f"({self!r} & {other!r})", self._fields_with(other))

    def __or__(self, other: Any) -> Condition:
        return Condition(lambda r: self(r) or other(r), f"({self!r} | {other!r})", self._fields_with(other))

    def __invert__(self) -> Condition:
        return Condition(lambda r: not self(r), f"~{self!r}", self.fields)

    def _fields_with(self, other: Any) -> frozenset[str] | None:
        theirs = other.fields if isinstance(other, Condition) else None
        return None if self.fields is None or theirs is None else self.fields | theirs

    def __bool__(self) -> bool:
        raise DeclarationError(
            f"the condition {self!r} has no truth by itself; join conditions with & and |, not and, or"
        )

    def __repr__(self) -> str:
        return self._text


class FieldRef:
    """A field of a record type, as `Order.amount`. Comparing it gives a condition."""

    __slots__ = ("name", "record")

    def __init__(self, record: type[Record], name: str) -> None:
        self.record, self.name = record, name

    def _compared(self, compare: Callable[[Any, Any], bool], value: Any) -> Any:
        name = self.name
        text = f"{self!r} {_SYMBOLS[compare]} {value!r}"
        if compare in (operator.eq, operator.ne):
            return Condition(lambda r: compare(getattr(r, name), value), text, frozenset({name}))
        return Condition(lambda r: (v := getattr(r, name)) is not None and compare(v, value), text, frozenset({name}))

    def __eq__(self, value: object) -> Any:
        return self._compared(operator.eq, value)

    def __ne__(self, value: object) -> Any:
        return self._compared(operator.ne, value)

    def __lt__(self, value: Any) -> Any:
        return self._compared(operator.lt, value)

    def __le__(self, value: Any) -> Any:
        return self._compared(operator.le, value)

    def __gt__(self, value: Any) -> Any:
        return self._compared(operator.gt, value)

    def __ge__(self, value: Any) -> Any:
        return self._compared(operator.ge, value)

    def __hash__(self) -> int:
        return hash((self.record, self.name))

    def __bool__(self) -> bool:
        raise DeclarationError(f"{self!r} is a field, not a value; compare it: {self!r} == True")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise DeclarationError(
            f"{self!r}.{name}: attributes take fields of the record itself; declare one with field({self.name + '.' + name!r})"
        )

    def __repr__(self) -> str:
        return f"{self.record.__name__}.{self.name}"


# ---------------------------------------------------------------------------------------------------------- records
_FIELDS: WeakKeyDictionary[type, dict[str, FieldInfo]] = WeakKeyDictionary()


class AnyIdentifier(str):
    """The type of a field whose namespace is in the data: `{"ns": …, "value": …}` or "namespace:value". Decoded to a text,
    "namespace:value"."""


class Named(msgspec.Struct, frozen=True):
    """How an `AnyIdentifier` is written in two parts."""

    ns: str
    value: str | int  # databases like to number them


class RecordMeta(msgspec.StructMeta):
    """Checks the annotations when the class is made, so that a mistake is found where it stands."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        frame = sys._getframe(1)  # where the class stands, for annotations that are text
        inherited = {n: i for base in reversed(bases) for n, i in _FIELDS.get(base, {}).items()}
        own = _read_fields(name, namespace, {**frame.f_globals, **frame.f_locals})
        made = super().__new__(mcls, name, bases, namespace, **{"kw_only": True, "frozen": True, **config})
        _FIELDS[made] = {**inherited, **own}
        try:
            msgspec.json.Decoder(made)
        except (TypeError, NotImplementedError) as error:
            raise DeclarationError(f"{name}: {str(error).splitlines()[0]}") from None
        return made

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_") and name in _FIELDS.get(cls, ()):
            return FieldRef(cast("type[Record]", cls), name)
        return super().__getattribute__(name)


def _read_fields(owner: str, namespace: dict[str, Any], names: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """The fields of a class body; puts wire types and defaults into it, as the struct shall have them."""
    fields: dict[str, FieldInfo] = {}
    annotations = namespace.get("__annotations__", {})
    for name, written in annotations.items():
        said = f"{owner}.{name}"
        annotation = _resolved(said, written, names)
        if typing.get_origin(annotation) is typing.ClassVar:
            continue
        place = namespace.pop(name, _ABSENT)
        if not isinstance(place, Place):
            place = Place(None, None, None, None, place)
        bare = unmarked(annotation)
        optional = type(None) in typing.get_args(bare) if is_union(bare) else bare is Any
        default = None if place.default is _ABSENT and optional else place.default
        info = FieldInfo(
            name, annotation, _wire(said, annotation), optional, default is _ABSENT, place.path or name,
            place.scale, place.unit, place.zone,
        )  # fmt: skip
        _check_place(said, info)
        fields[name] = info
        annotations[name] = info.wire
        if default is not _ABSENT:
            namespace[name] = default
    return fields


def _resolved(said: str, written: Any, names: Mapping[str, Any]) -> Any:
    if not isinstance(written, str):
        return written
    try:
        return eval(written, dict(names))
    except NameError as error:
        raise DeclarationError(
            f"{said}: the annotation {written!r} cannot be found here: {error}; define it above"
        ) from None


def is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, UnionType)


def unmarked(annotation: Any) -> Any:
    """The type itself, without what is said beside it and means nothing to a decoder (`c360.classes`)."""
    while typing.get_origin(annotation) is Annotated and not _limits(annotation):
        annotation = typing.get_args(annotation)[0]
    return annotation


def _limits(annotation: Any) -> tuple[msgspec.Meta, ...]:
    return tuple(mark for mark in annotation.__metadata__ if isinstance(mark, msgspec.Meta))


def _wire(said: str, annotation: Any) -> Any:
    """The type a value is decoded as. Raises DeclarationError for types that cannot be folded and compared."""
    annotation = unmarked(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any or annotation is None or annotation is type(None) or origin is Literal:
        return annotation
    if is_union(annotation):
        wire: Any = _wire(said, args[0])
        for other in args[1:]:
            wire = wire | _wire(said, other)
        return wire
    if origin is Annotated:
        return Annotated[(_wire(said, args[0]), *_limits(annotation))]
    if origin in (list, tuple, dict) or annotation in (list, tuple, dict):
        return origin[tuple(a if a is Ellipsis else _wire(said, a) for a in args)] if args else annotation
    if isinstance(annotation, type):
        if annotation is datetime:
            return Aware
        if annotation is AnyIdentifier:
            return str | Named
        if annotation in PLAIN or issubclass(annotation, (Enum, msgspec.Struct)):
            return annotation
        if issubclass(annotation, str):  # an identifier; databases like to number them
            return str | int
    raise DeclarationError(
        f"{said}: {getattr(annotation, '__name__', annotation)} is no type of a field; use str, int, float, bool, Decimal,"
        " datetime, date, UUID, bytes, an Enum, Literal, another Record, or list, dict and `| None` of these"
    )


def _check_place(said: str, info: FieldInfo) -> None:
    bare = unmarked(info.annotation)
    kinds = tuple(map(unmarked, typing.get_args(bare))) if is_union(bare) else (bare,)
    if info.scale is not None and (Decimal not in kinds or not 0 <= info.scale <= SCALE_MAX):
        raise DeclarationError(f"{said}: scale={info.scale} is for Decimal fields and from 0 to {SCALE_MAX}")
    if info.unit is not None and (info.unit not in UNITS or UNITS[info.unit] not in kinds):
        raise DeclarationError(
            f"{said}: unit={info.unit!r}: s, ms, us and ns are for datetime fields, days for date fields"
        )
    if info.zone is not None:
        if datetime not in kinds:
            raise DeclarationError(f"{said}: zone={info.zone!r} is for datetime fields")
        try:
            ZoneInfo(info.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise DeclarationError(
                f"{said}: zone={info.zone!r} is no time zone; write for example 'Europe/Paris'"
            ) from None
    if any(not part for part in info.path.split(".")):
        raise DeclarationError(
            f"{said}: {info.path!r} is no path; write names joined by dots, such as 'data.lines.0.sku'"
        )


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Record(msgspec.Struct, metaclass=RecordMeta):
    """Base of record types: annotated fields, immutable. `T | None` without a default is None when nothing is there."""


def fields_of(record: type[Record]) -> tuple[FieldInfo, ...]:
    """The fields of a record type, inherited ones first."""
    return tuple(_FIELDS[record].values())


def is_record(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Record)

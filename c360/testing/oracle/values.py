"""Whether JSON fits a declared type, and as which Python value.

Numbers are not text and text is no number, but for two: a Decimal is taken from both, since JSON has no exact number
for it, and an identifier is, since databases number them.
"""

from __future__ import annotations

import base64
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import ROUND_FLOOR, Context, Decimal, InvalidOperation
from enum import Enum
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from c360.codecs.record import AnyIdentifier, FieldInfo, Record, fields_of
from c360.testing.oracle.plain import Written, decimal_text, simple, time_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WIDE = Context(prec=3000)
DIGITS = 400  # a Decimal with more digits before its point, or more zeros after it, is none
MICROS = {"s": 6, "ms": 3, "us": 0, "ns": -3}  # powers of ten from a unit to microseconds
MISSING: Any = object()
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|([+-])(\d\d):(\d\d))?\Z", re.ASCII)
WHOLE = re.compile(r"-?(0|[1-9]\d{0,18})\Z", re.ASCII)
DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
UUIDS = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\Z", re.ASCII)


class NoFit(Exception):
    """This JSON is not of the declared type."""


# ----------------------------------------------------------------------------------------------------- one value
ReadRecord = Callable[[type[Record], Mapping[str, Any]], Record]


def fit(annotation: Any, said: Any, nested: ReadRecord) -> Any:
    """The value as the annotation says it; `nested` reads records inside of it. Raises NoFit."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return _simple(said)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(args, said, nested)
    if origin is typing.Annotated:
        return fit(args[0], said, nested)
    if origin is Literal:
        return _same(args, said)
    if list in (origin, annotation):
        if isinstance(said, list):
            return [fit(args[0] if args else Any, v, nested) for v in said]
        raise NoFit
    if tuple in (origin, annotation):
        return _fit_tuple(args, said, nested)
    if dict in (origin, annotation):
        if isinstance(said, dict):
            key, value = args or (str, Any)
            return {_key(key, k, nested): fit(value, v, nested) for k, v in said.items()}
        raise NoFit
    if isinstance(annotation, type):
        if not issubclass(annotation, Record):
            return _fit_class(annotation, said)
        if isinstance(said, dict):
            return nested(annotation, said)
        raise NoFit
    raise NotImplementedError(f"the oracle knows no fields of type {annotation}")


def _key(kind: Any, said: Any, nested: ReadRecord) -> Any:
    """Keys are text in JSON, those that are numbers too."""
    return int(said) if kind is int and WHOLE.match(said) else fit(kind, said, nested)


def _simple(said: Any) -> Any:
    try:
        return simple(said)
    except ValueError:
        raise NoFit from None


def _same(choices: Iterable[Any], said: Any) -> Any:
    for choice in choices:
        if type(choice) is type(said) and choice == said:
            return choice
    raise NoFit


def _fit_union(choices: tuple[Any, ...], said: Any, nested: ReadRecord) -> Any:
    if said is None and type(None) in choices:
        return None
    for choice in choices:
        if choice is not type(None):
            try:
                return fit(choice, said, nested)
            except NoFit:
                continue
    raise NoFit


def _fit_tuple(kinds: tuple[Any, ...], said: Any, nested: ReadRecord) -> tuple[Any, ...]:
    if not isinstance(said, list):
        raise NoFit
    if not kinds or kinds[-1] is Ellipsis:
        return tuple(fit(kinds[0] if kinds else Any, v, nested) for v in said)
    if len(kinds) != len(said):
        raise NoFit
    return tuple(fit(kind, v, nested) for kind, v in zip(kinds, said, strict=True))


def _fit_class(kind: type, said: Any) -> Any:
    if kind is AnyIdentifier and isinstance(said, dict):
        ns, value = said.get("ns"), said.get("value")
        if not isinstance(ns, str) or ":" in ns or not isinstance(value, str | int) or isinstance(value, bool):
            raise NoFit
        return AnyIdentifier(f"{ns}:{value}")
    if kind is AnyIdentifier and not isinstance(said, str):
        raise NoFit
    if issubclass(kind, Enum):
        return kind(_same([member.value for member in kind], said))
    if kind is bool or isinstance(said, bool):
        if kind is bool and isinstance(said, bool):
            return said
    elif issubclass(kind, str):
        if isinstance(said, str) or (isinstance(said, int) and kind is not str):
            return said if kind is str else kind(said)
    elif kind is int:
        if isinstance(said, int):
            return said
    elif kind is UUID:
        if isinstance(said, str) and UUIDS.match(said):
            return UUID(said)
    elif kind in READERS:
        return READERS[kind](said)
    elif issubclass(kind, msgspec.Struct):
        try:
            return msgspec.convert(_simple(said), kind)
        except msgspec.ValidationError:
            raise NoFit from None
    else:
        raise NotImplementedError(f"the oracle knows no fields of type {kind.__name__}")
    raise NoFit


def _float(said: Any) -> float:
    if not isinstance(said, int | Written):
        raise NoFit
    try:
        return float(_simple(said))
    except OverflowError:
        raise NoFit from None


def _decimal(said: Any) -> Decimal:
    if not isinstance(said, int | str | Written):
        raise NoFit
    try:
        value = Decimal(said.text if isinstance(said, Written) else said)
    except InvalidOperation:
        raise NoFit from None
    if not value.is_finite() or not -DIGITS <= value.adjusted() < DIGITS:
        raise NoFit
    return value


def moment(said: Any, zone: tzinfo | None = None) -> datetime:
    """RFC 3339, finer than microseconds rounded half up; `zone`: of a time that says none."""
    found = TIME.match(said) if isinstance(said, str) else None
    if found is None:
        raise NoFit
    *parts, fraction, said_zone, sign, hours, minutes = found.groups()
    if sign is not None:
        zone = timezone(int(f"{sign}1") * timedelta(hours=int(hours), minutes=int(minutes)))
    elif said_zone is not None:
        zone = UTC
    if zone is None:
        raise NoFit
    digits = (fraction or "").ljust(7, "0")
    try:
        time = datetime(*map(int, parts), tzinfo=zone)  # type: ignore[misc,arg-type]
        time += timedelta(microseconds=int(digits[:6]) + (digits[6] >= "5"))
        time.astimezone(UTC)  # it must be a time in UTC, too
        return time
    except (ValueError, OverflowError):
        raise NoFit from None


def _date(said: Any) -> date:
    if not isinstance(said, str) or not DATE.match(said):
        raise NoFit
    try:
        return date.fromisoformat(said)
    except ValueError:
        raise NoFit from None


def _bytes(said: Any) -> bytes:
    if not isinstance(said, str):
        raise NoFit
    try:
        return base64.b64decode(said, validate=True)
    except ValueError:
        raise NoFit from None


READERS: Mapping[type, Callable[[Any], Any]] = {
    float: _float, Decimal: _decimal, datetime: moment, date: _date, bytes: _bytes,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------- one record
def at_path(payload: Any, path: str) -> Any:
    """What lies at a dotted path ("lines.0.sku"), MISSING when there is nothing."""
    here = payload
    for step in path.split("."):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            return MISSING
    return here


def defaults_of(record: type[Record]) -> dict[str, Any]:
    """Values of fields that may be left out."""
    names, values = record.__struct_fields__, record.__struct_defaults__
    found = dict(zip(names[len(names) - len(values) :], values, strict=True))
    return {
        name: value.factory() if hasattr(value, "factory") else value
        for name, value in found.items()
        if value is not msgspec.NODEFAULT
    }


def record_from_payload(record: type[Record], payload: Mapping[str, Any]) -> Record:
    """The record that a payload holds. Raises NoFit, or what a user's check raises."""
    return record(**values_from_payload(record, payload))


def values_from_payload(
    record: type[Record], payload: Mapping[str, Any], without: Iterable[str] = ()
) -> dict[str, Any]:
    """The values of its fields in a payload, read by paths and units; some fields left out. Raises NoFit."""
    values, defaults = {}, defaults_of(record)
    for field in fields_of(record):
        if field.name in without:
            continue
        said = at_path(payload, field.path)
        if said is not MISSING:
            values[field.name] = fit_field(field, said)
        elif field.name in defaults:
            values[field.name] = defaults[field.name]
        elif field.optional:
            values[field.name] = None
        else:
            raise NoFit
    return values


def fit_field(field: FieldInfo, said: Any) -> Any:
    """The value of one field, minor units and numeric times read as declared. Raises NoFit."""
    kinds = typing.get_args(field.annotation) or (field.annotation,)
    if said is None or (field.scale is None and field.unit is None and field.zone is None):
        return fit(field.annotation, said, record_from_payload)
    try:
        if field.scale is not None:
            return _decimal(said).scaleb(-field.scale, WIDE)
        if field.unit == "days":
            return EPOCH.date() + timedelta(days=_fit_class(int, said))
        if field.unit is not None:
            micros = _decimal(said).scaleb(MICROS[field.unit], WIDE).to_integral_value(ROUND_FLOOR)
            return EPOCH + timedelta(microseconds=int(micros))
        if datetime in kinds:
            return moment(said, ZoneInfo(field.zone or "UTC"))
    except OverflowError:
        raise NoFit from None
    raise NoFit


def record_from_governed(record: type[Record], said: Mapping[str, Any], shut: Collection[str] = ()) -> Any:
    """The record inside of a governed record: fields by their names. Raises NoFit when it is none.

    With fields that are `shut` it is something that looks like one, and raises NoFit where one of these is looked at.
    """
    values, defaults = {}, defaults_of(record)
    for field in fields_of(record):
        if field.name in shut:
            continue
        if field.name in said:
            values[field.name] = fit(field.annotation, said[field.name], record_from_governed)
        else:
            values[field.name] = defaults.get(field.name)
    return _without(record, values, shut) if shut else record(**values)


def _without(record: type[Record], values: Mapping[str, Any], shut: Collection[str]) -> Any:
    def refuse(self: Any) -> Any:
        raise NoFit

    own = {name: value for base in reversed(record.__mro__) if issubclass(base, Record) for name, value in vars(base).items()
           if isinstance(value, property | staticmethod | classmethod) or inspect.isfunction(value)}  # fmt: skip
    stand_in = type(record.__name__, (), own | dict.fromkeys(shut, property(refuse)))()
    for name, value in values.items():
        setattr(stand_in, name, value)
    return stand_in


# ---------------------------------------------------------------------------------------------------- comparison
def meaning(value: Any) -> Any:
    """A value in one form per meaning, for comparing: instants in UTC, Decimals as written, classes of text as text."""
    match value:
        case bool() | None:
            return value
        case msgspec.Struct():
            return {name: meaning(getattr(value, name)) for name in value.__struct_fields__}
        case Enum():
            return meaning(value.value)
        case str():
            return str.__str__(value)
        case float():
            return ("float", repr(value))
        case Decimal():
            return ("decimal", decimal_text(value))
        case datetime():
            try:
                return ("time", time_text(value))
            except OverflowError:
                return ("time", value.isoformat())
        case date():
            return ("date", value.isoformat())
        case UUID():
            return ("uuid", str(value))
        case list() | tuple():
            return [meaning(v) for v in value]
        case dict():
            return sorted((str(meaning(k)), meaning(v)) for k, v in value.items())
    return value

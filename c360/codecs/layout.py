"""How a record type lies in a JSON payload: compiled once, then bytes in, record out, or a Misfit with its reason.

A type whose fields are all under their own names is decoded straight into records. Any other is taken from the payload
place by place. Messages name the user's class and field and never a value.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from operator import attrgetter
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import force_setattr

from c360.codecs.quick import EPOCH, Leaf, compile_quick
from c360.codecs.record import ATTRIBUTE, FieldInfo, Named, Record, fields_of, is_record, is_union
from c360.errors import Misfit

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
DIGITS_MAX = 400  # of a number, as `c360.profile.value` has it
DEPTH_MAX = 128  # of nesting, serde_json's limit: well below where recursive readers give up, each at another depth
MICROS = {"s": 6, "ms": 3, "us": 0, "ns": -3}  # power of ten from a unit to microseconds
Read = Callable[[Any], Any]
Check = Callable[[Any], Any]  # the value, made right; raises Misfit

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what decoding raises; see misfit_of
ODD = (*UNREADABLE, OverflowError, Misfit)
_ABSENT: Any = object()
_AT = re.compile(r" - at `(.*)`\Z")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def misfit_of(error: Exception, said: str) -> Misfit:
    """What was wrong with a payload of `said` (a class, or a class and field), from what the decoder raised."""
    if isinstance(error, RecursionError):
        return Misfit("too-deep", f"{said}: values are nested too deep to be read")
    if isinstance(error, UnicodeDecodeError):
        return Misfit("not-utf8", f"{said}: the text is not UTF-8")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Misfit("not-json", f"{said}: this is not JSON")
    found = _AT.search(text)
    where = said if found is None else said + found[1].removeprefix("$").replace("[...]", "[]")
    text = text if found is None else text[: found.start()]
    if text.startswith("Expected `object`") and found is None and "." not in said:
        return Misfit("not-an-object", f"{said}: the payload is JSON, but no object")
    if text.startswith("Object missing required field"):
        return Misfit("missing-field", f"{where}.{text.split('`')[1]} is missing")
    if "timezone component" in text:
        return Misfit("no-zone", f"{where}: the time has no zone; say which with field(zone=…)")
    if "out of range" in text or text.startswith("Invalid RFC3339"):
        return Misfit("out-of-range", f"{where}: the value is out of range or no valid time")
    if text.startswith("Invalid enum value") or text.startswith("Invalid value"):
        return Misfit("wrong-type", f"{where}: the value is none of those declared")
    hint = ""
    if "got `int`" in text:
        if "`datetime" in text:
            hint = "; a time as a number needs field(unit=…)"
        elif "`date" in text:
            hint = "; days since 1970 need field(unit='days')"
    return Misfit("wrong-type", f"{where}: {text[:1].lower()}{text[1:]}{hint}")


# ----------------------------------------------------------------------------------------------------- whole payloads
# In bytes, at least: a list takes two for each level, and an object five: {"":}
_DEEP_LIST, _DEEP_OBJECT = 2 * DEPTH_MAX, 5 * DEPTH_MAX
_STRINGS, _BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[][{}]")


def readable(data: bytes) -> bytes:
    """The same bytes. Raises one of UNREADABLE for what is no UTF-8 or too deep, also where no field is read.

    The decoder skips over what no field wants and does not look inside. 0.1 µs for a usual event.
    """
    if not data.isascii():
        data.decode()
    might = len(data) > _DEEP_LIST and (len(data) > _DEEP_OBJECT or b"[" in data)
    if might and data.count(b"[") + data.count(b"{") > DEPTH_MAX and _depth(data) > DEPTH_MAX:
        raise RecursionError
    return data


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


# ------------------------------------------------------------------------------------------------- checks of values
def finite(said: str, value: Decimal) -> Decimal:
    """Raises Misfit for NaN, infinite and absurdly long numbers."""
    if not value.is_finite() or not -DIGITS_MAX <= value.adjusted() < DIGITS_MAX:
        raise Misfit("out-of-range", f"{said} is not a finite number of up to {DIGITS_MAX} digits")
    return value


@dataclass(frozen=True)
class _Instant:
    """Raises Misfit for a time that is in another millennium in UTC; it need not be asked about years between."""

    said: str

    def __call__(self, value: datetime) -> datetime:
        if not 1 < value.year < 9999:
            try:
                value.astimezone(UTC)
            except OverflowError:
                raise Misfit("out-of-range", f"{self.said} is a time outside of the years 1 to 9999 in UTC") from None
        return value


def _check_of(said: str, wire: Any) -> Check | None:
    """What is still to be done with a decoded value that is not None; None: nothing."""
    origin, args = typing.get_origin(wire), typing.get_args(wire)
    if origin is Annotated:
        return _check_of(said, args[0])
    if wire is Decimal:
        return lambda v: finite(said, v)
    if wire is datetime:
        return _Instant(said)
    if is_record(wire):
        return checker_of(wire)
    if origin in (list, dict):
        each = _check_of(said, args[-1])
        if each is None:
            return None
        return lambda v: _each(v, each)
    if not is_union(wire):
        return None
    kinds = [a for a in args if a is not type(None)]
    if set(kinds) == {str, int}:  # an identifier; databases like to number them
        return str
    if set(kinds) == {str, Named}:
        return lambda v: _joined(said, v)
    if len(kinds) == 1:
        return _check_of(said, kinds[0])
    return None


def _joined(said: str, value: str | Named) -> str:
    """An identifier in one text. Raises Misfit for a namespace that would be read as another."""
    if isinstance(value, str):
        return value
    if ":" in value.ns:
        raise Misfit("unknown-namespace", f"{said}: the namespace has a colon in it, which none of an app has")
    return f"{value.ns}:{value.value}"


def _each(values: Any, check: Check) -> Any:
    pairs = enumerate(values) if isinstance(values, list) else list(values.items())
    for at, value in pairs:
        if value is not None:
            values[at] = check(value)
    return values


def checker_of(record: type[Record]) -> Check | None:
    """What makes decoded records of a type right, in place; None: nothing is to be done. Raises Misfit.

    Straight-line code, as most records pass it unchanged: for an identifier and a time

        value = record.user
        if value.__class__ is not str and value is not None: put(record, 'user', str(value))
        value = record.at
        if value is not None and not 1 < value.year < 9999: check1(value)
    """
    names: dict[str, Any] = {"put": force_setattr}
    lines = []
    for i, info in enumerate(fields_of(record)):
        check = _check_of(f"{record.__name__}.{info.name}", info.wire)
        if check is None or info.unit is not None:  # what is made of a number is in range and in UTC
            continue
        names |= {f"read{i}": attrgetter(info.name), f"check{i}": check}
        lines.append(f"value = read{i}(record)")
        if check is str:
            lines.append(f"if value.__class__ is not str and value is not None: put(record, {info.name!r}, str(value))")
        elif isinstance(check, _Instant):
            lines.append(f"if value is not None and not 1 < value.year < 9999: check{i}(value)")
        else:
            lines.append(
                f"if value is not None and (right := check{i}(value)) is not value: put(record, {info.name!r}, right)"
            )
    if not lines:
        return None
    text = "\n    ".join(["def check(record):", *lines, "return record"])
    exec(compile(text, "<check>", "exec"), names)
    checker: Check = names["check"]
    return checker


# ---------------------------------------------------------------------------------------------------------- layouts
def is_plain(record: type[Record]) -> bool:
    """Whether all its values lie under their own names, as they are."""
    return all(
        f.path == f.name and f.scale is None and f.unit is None and f.zone is None
        and all(map(is_plain, _records_in(f.wire)))
        for f in fields_of(record)
    )  # fmt: skip


def _records_in(wire: Any) -> Iterator[type[Record]]:
    if is_record(wire):
        yield wire
    for part in typing.get_args(wire):
        yield from _records_in(part)


class Layout:
    """Reads records of one type from bytes.

    `quick`: how most are read; it raises one of ODD for bytes that `read` is to look at. None where there is no such way.
    """

    def __init__(self, record: type[Record], root: str = "") -> None:
        """`root`: the name in the payload under which its fields are, but those that say ATTRIBUTE."""
        self.record = record
        self.name = record.__name__
        self.check = checker_of(record)
        fields = [placed(f, root) for f in fields_of(record)]
        leaves = [Leaf(f, *conversion(f"{self.name}.{f.name}", f)) for f in fields]
        self.places = [(leaf.info, tuple(leaf.info.path.split(".")), _reader(self.name, leaf)) for leaf in leaves]
        plain = not root and is_plain(record)
        self.straight: Read | None = msgspec.json.Decoder(record).decode if plain else None
        if self.straight is None:
            self.quick = compile_quick(record, leaves, self.check, apart=self._apart)
        else:
            self.quick = self.straight if self.check is None else _checked(self.straight, self.check)

    def read(self, data: Any) -> Any:
        """The record of these bytes. Raises Misfit."""
        if self.quick is not None:
            try:
                return self.quick(data)
            except ODD:
                pass  # in which way, the decoder or the places say
        try:
            made = self.record(**self.values(data)) if self.straight is None else self.straight(data)
        except UNREADABLE as error:
            raise misfit_of(error, self.name) from None
        return made if self.check is None else self.check(made)

    def values(self, data: Any, without: Container[str] = ()) -> dict[str, Any]:
        """The values of all fields except those whose path begins with a name in `without`, by field name."""
        opened: dict[tuple[str, ...], Any] = {(): _object(data)}
        values = {}
        for info, path, read in self.places:
            if path[0] in without:
                continue
            raw = _find(opened, path)
            if raw is _ABSENT:
                if info.required and not info.optional:
                    raise missing(self.name, info)
                continue
            values[info.name] = read(raw)
        return values

    def _apart(self, leaf: Leaf) -> Read:
        """What reads one field by itself, UNSET where there is none: of one that lies in a list, or in what is wanted whole."""
        path, read = tuple(leaf.info.path.split(".")), _reader(self.name, leaf)
        needed = leaf.info.required and not leaf.info.optional

        def value(data: Any) -> Any:
            raw = _find({(): _object(data)}, path)
            if raw is not _ABSENT:
                return read(raw)
            if needed:
                raise missing(self.name, leaf.info)
            return msgspec.UNSET

        return value

    def complete(self, data: Any, without: Container[str], rest: Record) -> Any:
        """The record of these bytes, with the fields in `without` taken from another record. Raises Misfit."""
        try:
            values = self.values(data, without)
        except UNREADABLE as error:
            raise misfit_of(error, self.name) from None
        for info, path, _ in self.places:
            if path[0] in without:
                values[info.name] = getattr(rest, info.name)
        made = self.record(**values)
        return made if self.check is None else self.check(made)


def missing(owner: str, info: FieldInfo) -> Misfit:
    return Misfit("missing-field", f"{owner}.{info.name} is missing: there is nothing at {info.path}")


def placed(info: FieldInfo, root: str) -> FieldInfo:
    if info.path.startswith(ATTRIBUTE):
        return replace(info, path=info.path.removeprefix(ATTRIBUTE))
    return replace(info, path=f"{root}.{info.path}") if root else info


def _checked(decode: Read, check: Check) -> Read:
    return lambda data: check(decode(data))


def _find(opened: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    """The bytes at a path; objects on the way are opened once. Absent when there is no such place."""
    above = _open(opened, path[:-1])
    part = path[-1]
    if isinstance(above, dict):
        return above.get(part, _ABSENT)
    if isinstance(above, list) and part.isdecimal() and int(part) < len(above):
        return above[int(part)]
    return _ABSENT


def _open(opened: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    if path not in opened:
        raw = _find(opened, path)
        first = b"" if raw is _ABSENT else bytes(raw)[:1]
        opened[path] = _object(raw) if first == b"{" else _list(raw) if first == b"[" else None
    return opened[path]


def _reader(owner: str, leaf: Leaf) -> Read:
    """From the bytes of a field's value to the value. Raises Misfit."""
    said, kind, convert = f"{owner}.{leaf.info.name}", leaf.kind, leaf.convert
    decode = msgspec.json.Decoder(kind | None if leaf.info.optional and kind is not Any else kind).decode

    def read(raw: Any) -> Any:
        try:
            value = decode(raw)
        except UNREADABLE as error:
            raise misfit_of(error, said) from None
        return value if convert is None or value is None else convert(value)

    return read


def conversion(
    said: str, info: FieldInfo, nested: Callable[[Any], tuple[Any, Check | None]] | None = None
) -> tuple[Any, Check | None]:
    """The type to decode a field as, and what makes its value of that. `nested`: of a type with records in it."""
    if info.scale is not None:
        places = -info.scale
        return Decimal, lambda v: EXACT.scaleb(finite(said, v), places)
    if info.unit == "days":
        return int, lambda v: _from_days(said, v)
    if info.unit is not None:
        shift = MICROS[info.unit]
        return Decimal, lambda v: _from_number(said, v, shift)
    if info.zone is not None:
        zone = ZoneInfo(info.zone)
        return datetime, lambda v: v if v.tzinfo is not None else v.replace(tzinfo=zone)
    return (nested or _nested_in_bytes)(info.wire)


def _nested_in_bytes(wire: Any) -> tuple[Any, Check | None]:
    """Bytes in place of nested records that are not plain, and what reads them."""
    return nested_in(wire, msgspec.Raw, lambda record: Layout(record).read, lambda v: bytes(v) == b"null")


def nested_in(
    wire: Any, raw: Any, reader: Callable[[type[Record]], Read], is_null: Callable[[Any], bool]
) -> tuple[Any, Check | None]:
    """`raw` in place of nested records that are not plain, and what reads them."""
    if all(map(is_plain, _records_in(wire))):
        return wire, None
    origin, args = typing.get_origin(wire), typing.get_args(wire)
    if is_record(wire):
        return raw, reader(wire)
    kinds = [a for a in args if a is not type(None)]
    inner, read = nested_in(kinds[-1], raw, reader, is_null)
    each: Any = read
    if origin is list:
        return list[inner], lambda v: [each(x) for x in v]  # type: ignore[valid-type]
    if origin is dict:
        return dict[args[0], inner], lambda v: {k: each(x) for k, x in v.items()}  # type: ignore[valid-type]
    return inner | None, lambda v: None if is_null(v) else each(v)  # one type or None


def _from_number(said: str, value: Decimal, shift: int) -> datetime:
    try:
        whole = EXACT.scaleb(finite(said, value), shift).to_integral_value("ROUND_FLOOR", EXACT)
        return EPOCH + timedelta(microseconds=int(whole))
    except OverflowError:
        raise Misfit("out-of-range", f"{said} is a time outside of the years 1 to 9999") from None


def _from_days(said: str, days: int) -> date:
    try:
        return EPOCH.date() + timedelta(days=days)
    except OverflowError:
        raise Misfit("out-of-range", f"{said} is a date outside of the years 1 to 9999") from None

"""Profiles from governed records: every record of its subjects in one list, looked at as a whole, nothing kept or merged.

The meaning of attributes is section 2 of the design's PROJECTION page. Of rows the list holds what is live: a record
that was taken back is taken off it. `as_of` is the newest time ever seen, also of what was taken back. Who has nothing
live is not listed. What a purpose sees is the same, made of the records of the sources that permit it.

A sealed value is JSON like any other: `{"~sealed": …, "subject": …}`. Nobody looks into it here.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from c360.codecs.record import fields_of
from c360.declare import AttributeDeclaration, Input, ProjectionDeclaration, Source, Where
from c360.plan import Plan, class_of_field, class_of_input, classes_of
from c360.profile.attribute import Attribute
from c360.testing.oracle.plain import Written, canonical, decimal_text, parse, simple, time_text, written
from c360.testing.oracle.values import record_from_governed

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
DIGITS = 400  # a number with more digits before its point, or more zeros after it, is taken by no attribute
# Subjects and identifiers of a profile, the first of them; so many where people are asked
LISTED, LISTED_TO_ASK = (
    100,
    2_000,
)
WIDE = Context(prec=3000, Emax=10**6, Emin=-(10**6))


class Unfit(Exception):
    """A governed record that the projection cannot take: it goes to the dead-letter topic and counts nowhere."""


class Found(NamedTuple):
    """What one live record says about one attribute."""

    row: bool  # of a row of a database, not an event
    rank: int  # of its source among the inputs: 0 is the most trusted
    at: int  # event time, ms
    value: Any


@dataclass(frozen=True)
class Said:
    """A governed record as read: the JSON object, and what it is a record of."""

    source: Source
    json: Mapping[str, Any]

    @property
    def at(self) -> int:
        at: int = self.json["at"]
        return at

    @property
    def sign(self) -> int:
        sign: int = self.json.get("sign", 1)
        return sign

    @property
    def life(self) -> int:
        life: int = self.json.get("life", 0)
        return life

    def content(self) -> str:
        """All that a retract repeats."""
        same = {k: v for k, v in self.json.items() if k not in ("sign", "cause", "origin")}
        return repr(sorted(same.items()))


# ---------------------------------------------------------------------------------------------- what a record says
def typed(kind: str, said: Any) -> Any:
    """A value of a governed record as the attribute's type. Raises Unfit."""
    try:
        match kind, said:
            case ("json", _):
                return json.loads(canonical(simple(said)))  # one order of keys, so that equal values are equal texts
            case ("bool", bool()) | ("text", str()):
                return said
            case ("int", int()) if not isinstance(said, bool):
                return _small(said)
            case ("float", int() | Written()) if not isinstance(said, bool):
                number = float(said if isinstance(said, int) else said.text)
                if isfinite(number):
                    return number + 0.0  # there is one zero
            case ("decimal", int() | Written() | str()) if not isinstance(said, bool):
                return _small_decimal(Decimal(said.text if isinstance(said, Written) else said))
            case ("datetime", str()) if (time := datetime.fromisoformat(said)).tzinfo is not None:
                return time.astimezone(UTC)
            case ("date", str()):
                return date.fromisoformat(said)
    except (ValueError, OverflowError, InvalidOperation):
        pass
    raise Unfit(f"takes {kind}")


def _small(value: int) -> int:
    if abs(value) >= 10**DIGITS:
        raise Unfit("takes numbers of a bounded size")
    return value


def _small_decimal(value: Decimal) -> Decimal:
    if not value.is_finite() or not -DIGITS <= value.adjusted() < DIGITS:
        raise Unfit("takes numbers of a bounded size")
    return value


def read_input(attribute: Attribute, where: Where | None, item: Input, said: Said, shut: Collection[str]) -> Any:
    """What a governed record says about an attribute, None for nothing. Raises Unfit, or what the condition raises.

    `shut`: fields that are sealed, so that no condition may look at them."""
    if where is not None:
        record = record_from_governed(item.record, said.json["record"], shut)
        if not where(record):
            return None
    if item.name is None:
        return True
    part = said.json.get("enriched", {}) if item.enriched else said.json["record"]
    value = part.get(item.name)
    if value is None or attribute.kind == "count":
        return value
    if attribute.kind == "flag":
        return True if _truth(attribute.type, value) else None
    return typed(attribute.type, value)


def logic_of(declaration: AttributeDeclaration, at: int) -> tuple[Sequence[Input], Where | None]:
    """What an attribute takes of a record with this event time, in ms: what is declared from a time on counts for records
    of that time and later ones."""
    begun = [era for era in declaration.eras if era.since is None or at * MILLISECOND >= era.since - EPOCH]
    if not begun:
        return (), None
    newest = max(begun, key=lambda era: era.since or datetime.min.replace(tzinfo=UTC))
    return newest.inputs, newest.where


def _truth(kind: str, value: Any) -> bool:
    if kind == "decimal" and isinstance(value, str):
        return bool(Decimal(value))
    return bool(float(value.text)) if isinstance(value, Written) else bool(value)


# --------------------------------------------------------------------------------------------- what attributes mean
def shown(attribute: Attribute, value: Any, *, same: bool = False) -> Any:
    """A value as JSON has it; `same`: one form for values that count as equal."""
    if isinstance(value, Decimal):
        if same:
            value = value.normalize(WIDE) if value else Decimal(0)
        return decimal_text(value)
    if isinstance(value, datetime):
        return time_text(value)
    return value.isoformat() if isinstance(value, date) else value


def least_hash(value: Any) -> tuple[int, str]:
    text = canonical(value)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"), text


def value_of(attribute: Attribute, found: Iterable[Found], today: int) -> Any:
    """The attribute over these records, as plain JSON. `today`: days since 1970."""
    a = attribute
    live = [f for f in found if not a.within_days or f.at // DAY_MS > today - a.within_days]
    values = [f.value for f in live]
    match a.kind:
        case "count":
            return len(values)
        case "flag":
            return bool(values)
        case "total" | "average":
            return _sum(a, values)
        case "minimum" | "maximum":
            choose = min if a.kind == "minimum" else max
            best = choose(values, key=lambda v: (v, canonical(shown(a, v))), default=None)
            return None if best is None else shown(a, best)
        case "first":
            earliest = min(live, key=lambda f: (f.at, canonical(shown(a, f.value))), default=None)
            return None if earliest is None else shown(a, earliest.value)
        case "newest":
            latest = max(live, key=lambda f: (f.at, canonical(shown(a, f.value))), default=None)
            return None if latest is None else shown(a, latest.value)
        case "prefer":
            trusted = max(live, key=lambda f: (-f.rank, f.at, canonical(shown(a, f.value))), default=None)
            return None if trusted is None else shown(a, trusted.value)
        case "top" | "distinct" | "collect":
            return _counted(a, live)


def _sum(a: Attribute, values: Sequence[Any]) -> str | None:
    """Each value rounded once, half even; the sum is exact; an average is rounded once more."""
    step = Decimal(1).scaleb(-a.scale)
    exact = [Decimal(repr(v)) if isinstance(v, float) else Decimal(v) for v in values]
    whole = sum((Fraction(v.quantize(step, ROUND_HALF_EVEN, WIDE)) for v in exact), Fraction(0))
    if a.kind == "average":
        if not values:
            return None
        whole = Fraction(round(whole / len(values) * 10**a.scale), 10**a.scale)  # `round` is half even
    return decimal_text(WIDE.divide(Decimal(whole.numerator), Decimal(whole.denominator)).quantize(step, context=WIDE))


def _counted(a: Attribute, live: Sequence[Found]) -> Any:
    """Values and how often; of more than `limit` different values of events a sample, the `limit` + 1 of least hash."""
    said = [(f.row, shown(a, f.value, same=True)) for f in live]
    values = {canonical(v): v for _, v in said}
    counts = Counter(canonical(v) for _, v in said)
    of_events = {canonical(v): v for row, v in said if not row}
    sampled = len(of_events) > a.limit
    if sampled:
        least = sorted(of_events.values(), key=least_hash)[: a.limit + 1]
        of_rows = [v for row, v in said if row]
        both = {canonical(v): v for v in [*least, *of_rows]}
        values = {canonical(v): v for v in sorted(both.values(), key=least_hash)[: a.limit + 1]}
    if a.kind == "distinct":
        if not sampled:
            return len(values)
        furthest = max(least_hash(v)[0] for v in values.values())
        return round(a.limit * 2**64 / (furthest + 1))
    if a.kind == "collect":
        return [values[text] for text in sorted(values)][: a.limit]
    return [values[text] for text in sorted(values, key=lambda text: (-counts[text], text))][: a.n]


# ------------------------------------------------------------------------------------------------------ the profile
@dataclass
class Subject:
    """All records of one subject that its projection looks at, also those that were taken back."""

    live: Counter[str]
    records: dict[str, tuple[Said, list[tuple[int, Found]]]]  # by content; attribute's index and what it found

    def seen(self, purpose: str | None, life: int) -> Subject | None:
        """The part of it that a purpose may see, of this life or a later one; None: nothing ever was. Purpose None: all."""
        life = max(life, *(said.life for said, _ in self.records.values()))
        seen = {
            content: (said, found)
            for content, (said, found) in self.records.items()
            if said.life == life and (purpose is None or purpose in said.source.purposes)
        }
        return Subject(Counter({content: self.live[content] for content in seen}), seen) if seen else None

    @property
    def as_of(self) -> int:
        return max(said.at for said, _ in self.records.values())


class Member(NamedTuple):
    """Whose profile a subject is in, and its identifiers."""

    profile: str
    identifiers: tuple[str, ...] = ()


class Profiles:
    """The profiles of one partition or several. Feed it every governed record up to the positions, then ask."""

    def __init__(self, plan: Plan, projection: ProjectionDeclaration) -> None:
        plan = plan.at(projection.govern)
        self.projection = projection
        self.sources = {plan.governed(source): source for source in plan.sources_of(projection)}
        self.subjects: dict[str, Subject] = {}
        self.lives: dict[str, int] = {}
        """How often a subject was erased, where an erasure said so. Records of an earlier life are void, as they are where one
        of a later life has come."""
        self.listed = LISTED_TO_ASK if any(plan.purposes.by_name[p].asks for p in projection.purposes) else LISTED
        inputs = [declaration.inputs for declaration in projection.declarations]
        self.attributes = [
            replace(a, type="json") if any(class_of_input(plan, item) is not None for item in items) else a
            for a, items in zip(projection.attributes, inputs, strict=True)
        ]
        self.visible = {  # by purpose, the attributes that something it may use can fill
            purpose: [
                a.name
                for a, items in zip(projection.attributes, inputs, strict=True)
                if any(purpose in plan.source_of(item.record).purposes for item in items)
            ]
            for purpose in projection.purposes
        }
        self.sealed = classes_of(plan, projection).keys()
        self.shut = {
            t.record: [f.name for f in fields_of(t.record) if class_of_field(plan, t.record, f.name) is not None]
            for source in self.sources.values()
            for t in source.types
        }

    def add(self, topic: str, key: bytes, value: bytes) -> bool:
        """A governed record. False: the projection cannot take it, or a condition of the user raised."""
        source = self.sources[topic]
        said = Said(source, parse(value))
        try:
            found = self._found(said)
        except Exception:  # the user's condition, or a value that is too large: either way it counts nowhere
            return False
        if found is None:
            return True
        content = said.content()
        subject = self.subjects.setdefault(key.decode(), Subject(Counter(), {}))
        subject.live[content] += said.sign
        subject.records[content] = (said, found)
        return True

    def _found(self, said: Said) -> list[tuple[int, Found]] | None:
        """What the record says about each attribute; None if the projection does not look at records of its type."""
        record = next(t.record for t in said.source.types if t.name == said.json["type"])
        used = False
        found = []
        for index, (a, d) in enumerate(zip(self.attributes, self.projection.declarations, strict=True)):
            used |= any(item.record is record for era in d.eras for item in era.inputs)
            inputs, where = logic_of(d, said.at)
            for rank, item in enumerate(inputs):
                if item.record is not record:
                    continue
                value = read_input(a, where, item, said, self.shut[record])
                if value is not None:
                    found.append((index, Found(said.source.kind == "rows", rank, said.at, value)))
        if used and not date.min <= _day(said.at) <= date.max:
            raise Unfit("takes times of the years 1 to 9999")
        return found if used else None

    def records(
        self,
        today: Callable[[bytes], int],
        assigned: Mapping[str, Member] | None = None,
    ) -> dict[bytes, bytes]:
        """The profile record of every profile that has one. `today`: of a profile's id, days since 1970. `assigned`: by
        subject; who is not in it is a profile of their own."""
        members: dict[str, dict[str, Subject]] = {}
        known = assigned or {}
        for name, subject in self.subjects.items():
            members.setdefault(known.get(name, Member(name)).profile, {})[name] = subject
        found = {}
        for profile, those in members.items():
            key = profile.encode()
            whole = self._seen(those, known, today(key), None)
            if whole is not None:
                found[key] = written(
                    self._record(profile, whole, self._views(those, known, today(key), whole))
                ).encode()
        return found

    def _views(
        self, members: Mapping[str, Subject], known: Mapping[str, Member], today: int, whole: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What purposes see that is other than the whole."""
        views: dict[str, Any] = {}
        for purpose in self.projection.purposes:
            seen = self._seen(members, known, today, purpose)
            if seen is None:
                views[purpose] = None
            elif written(seen) != written(whole):
                visible = {name: seen["attributes"][name] for name in self.visible[purpose]}
                views[purpose] = {**seen, "attributes": visible}
        return views

    def _seen(
        self, members: Mapping[str, Subject], known: Mapping[str, Member], today: int, purpose: str | None
    ) -> dict[str, Any] | None:
        """What a purpose sees of a profile, None: all; None where nobody in it has anything live for it."""
        seen = {
            name: part for name, subject in members.items() if (part := subject.seen(purpose, self.lives.get(name, 0)))
        }
        live = sorted(name for name, subject in seen.items() if subject.live.total() > 0)
        if not live:
            return None
        attributes: dict[str, Any] = {}
        for index, a in enumerate(self.attributes):
            found = [
                f
                for subject in seen.values()
                for content, (_, each) in subject.records.items()
                for i, f in each
                if i == index
                for _ in range(subject.live[content])
            ]
            attributes[a.name] = value_of(a, found, today)
        labels = {label for name in live for label in (name, *known.get(name, Member(name)).identifiers)}
        return {
            "subjects": live[: self.listed],
            "subjects_total": len(live),
            "identifiers": sorted(labels)[: self.listed],
            "attributes": attributes,
            "as_of": as_of_text(max(subject.as_of for subject in seen.values())),
        }

    def _record(self, name: str, whole: Mapping[str, Any], views: Mapping[str, Any]) -> dict[str, Any]:
        record = {
            "profile_id": name,
            "projection": self.projection.name,
            "version": self.projection.version,
            "purpose": None,
            **whole,
        }
        record["attributes"] = whole["attributes"] | derived_values(self.projection, whole["attributes"], self.sealed)
        return record | ({"views": views} if views else {})


def _day(at: int) -> date:
    try:
        return (EPOCH + at * MILLISECOND).date()
    except OverflowError:
        raise Unfit("takes times of the years 1 to 9999") from None


def as_of_text(at: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, with milliseconds only if there are any."""
    time = EPOCH + at * MILLISECOND
    return time.isoformat(timespec="milliseconds" if at % 1000 else "seconds").replace("+00:00", "Z")


# ---------------------------------------------------------------------------------------------------------- derived
class Unknown(Exception):
    """A derived value looked at what is sealed."""


def derived_values(
    projection: ProjectionDeclaration, attributes: Mapping[str, Any], sealed: Collection[str]
) -> dict[str, Any]:
    """What the user's `@derived` functions say of these values; null where one raises; not there where it looked at one that
    is sealed."""
    looked: list[str] = []

    def refuse(name: str) -> Any:
        looked.append(name)
        raise Unknown

    refusing = {name: property(lambda self, name=name: refuse(name)) for name in sealed}  # type: ignore[misc]
    made = type(projection.record.__name__, (projection.record,), refusing)
    instance = made(**{a.name: as_python(a, attributes[a.name]) for a in projection.attributes if a.name not in sealed})
    values: dict[str, Any] = {}
    for name in projection.derived:
        looked.clear()
        try:
            value = as_json(getattr(instance, name))
        except Exception:  # the user's code: the profile has null there
            value = None
        if not looked:
            values[name] = value
    return values


def as_python(a: Attribute, value: Any) -> Any:
    """The value of an attribute as its annotation says it."""
    if a.kind in ("count", "flag", "distinct") or value is None:
        return value
    if a.kind in ("total", "average"):
        return Decimal(value)
    read: dict[str, Callable[[Any], Any]] = {
        "decimal": Decimal, "datetime": datetime.fromisoformat, "date": date.fromisoformat,
    }  # fmt: skip
    convert = read.get(a.type, lambda same: same)
    return [convert(v) for v in value] if isinstance(value, list) and a.kind in ("top", "collect") else convert(value)


def as_json(value: Any) -> Any:
    """A Python value as JSON holds it. Raises ValueError for what it cannot hold."""
    match value:
        case None | bool() | int():
            return value
        case float() if isfinite(value):
            return value
        case Enum():
            return as_json(value.value)
        case str():
            return str(value)
        case Decimal() if value.is_finite():
            return decimal_text(value)
        case datetime():
            return time_text(value)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case msgspec.Struct():
            return {name: as_json(getattr(value, name)) for name in value.__struct_fields__}
        case list() | tuple():
            return [as_json(v) for v in value]
        case dict():
            return {str(as_json(k)): as_json(v) for k, v in value.items()}
    if is_dataclass(value):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    raise ValueError(f"JSON cannot hold a {type(value).__name__}")

"""Two records of one profile, compared; and what many such comparisons add up to. Pure: bytes in, numbers out.

A profile is *changed* where something that both versions write of it differs. An attribute that only one of them has is
counted for itself and changes no profile, or every profile would be changed by adding one. Values that are classified are
compared as they lie in the log, sealed, and never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

Kind = Literal["changed", "only_in_first", "only_in_second", "moving"]
SEALED = "sealed"  # what is shown of a value that is classified
MEMBERS, IDENTIFIERS, AS_OF, VIEWS = "#subjects", "#identifiers", "#as_of", "#views"  # no attribute has such a name

_encode = msgspec.json.Encoder(order="deterministic").encode


class Profile(msgspec.Struct):
    """A record, as far as it is compared. `version` is not."""

    subjects: list[str]
    subjects_total: int
    identifiers: list[str]
    attributes: dict[str, Any]
    as_of: str | None = None
    views: dict[str, Any] = {}

    @property
    def listed_whole(self) -> bool:
        return len(self.subjects) == self.subjects_total


_decode = msgspec.json.Decoder(Profile).decode


@dataclass(frozen=True)
class Terms:
    """What the versions of two tables have in common.

    `shared`: attributes that both have, derived ones included; `numbers`: those of `shared` that are decimal numbers as text in
    both; `classified`: whose values are not shown; `as_of`: whether both read the same sources, so that it is one; `purposes`:
    those that both are for; `heads`: what a record of each begins with, after its profile id.
    """

    shared: tuple[str, ...]
    numbers: frozenset[str] = frozenset()
    classified: frozenset[str] = frozenset()
    as_of: bool = True
    purposes: tuple[str, ...] = ()
    heads: tuple[bytes, bytes] = (b"", b"")


class Difference(msgspec.Struct):
    """What differs between two records of one profile, of what both versions write. Empty: nothing.

    `values`: by attribute, the value in the first and in the second; UNSET where it is not in the record.
    `only`: attributes that are in one record only because only one version has them: name -> whether that is the first.
    """

    values: dict[str, tuple[Any, Any]]
    only: dict[str, bool]


def same_bytes(first: bytes, second: bytes, terms: Terms) -> bool:
    """Whether all but the version is written alike; most profiles are, and are not decoded."""
    a, b = terms.heads
    return bool(a) and first.partition(a)[2] == second.partition(b)[2] != b""


def read_profile(value: bytes) -> Profile:
    """Raises ValueError for what is no record of a profile."""
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        raise ValueError(f"this is no record of a profile ({error})") from None


def compare(first: Profile, second: Profile, terms: Terms) -> Difference:
    """What differs between two records of one profile."""
    values: dict[str, tuple[Any, Any]] = {}
    shared = frozenset(terms.shared)
    a, b = first.attributes, second.attributes
    for name in terms.shared:
        x, y = a.get(name, msgspec.UNSET), b.get(name, msgspec.UNSET)
        if not same(x, y, number=name in terms.numbers):
            values[name] = (x, y)
    only = {name: name in a for name in a.keys() ^ b.keys() if name not in shared}
    if (first.subjects, first.subjects_total) != (second.subjects, second.subjects_total):
        values[MEMBERS] = first.subjects_total, second.subjects_total
    if first.identifiers != second.identifiers:
        values[IDENTIFIERS] = len(first.identifiers), len(second.identifiers)
    if terms.as_of and first.as_of != second.as_of:
        values[AS_OF] = first.as_of, second.as_of
    told = frozenset(values)
    if views := [p for p in terms.purposes if not _same_view(first, second, p, terms, told)]:
        values[VIEWS] = ", ".join(views), ", ".join(views)
    return Difference(values, only)


def same(a: Any, b: Any, *, number: bool = False) -> bool:
    """Whether two JSON values are written alike: 1 and 1.0 are not, nor are 1 and true. Decimal numbers by their value."""
    if a is msgspec.UNSET or b is msgspec.UNSET:
        return a is b
    if number and isinstance(a, str) and isinstance(b, str):
        x, y = number_of(a), number_of(b)
        return a == b if x is None or y is None else x == y
    return bool(a == b) and _encode(a) == _encode(b)


def _same_view(first: Profile, second: Profile, purpose: str, terms: Terms, told: frozenset[str]) -> bool:
    """Whether a purpose sees the same. What the whole differs in is `told` already, and is no difference of a view."""
    if purpose not in first.views and purpose not in second.views:
        return True  # it sees the whole
    a, b = _seen(first, purpose), _seen(second, purpose)
    if a is None or b is None:
        return a is b
    alike = MEMBERS in told or a["subjects"] == b["subjects"]
    alike = alike and (not terms.as_of or AS_OF in told or a["as_of"] == b["as_of"])
    x, y = a["attributes"], b["attributes"]
    names = [name for name in terms.shared if name in x and name in y and name not in told]
    return alike and all(same(x[name], y[name], number=name in terms.numbers) for name in names)


def _seen(profile: Profile, purpose: str) -> Mapping[str, Any] | None:
    if purpose in profile.views:
        seen: Mapping[str, Any] | None = profile.views[purpose]
        return seen
    return {"subjects": profile.subjects, "as_of": profile.as_of, "attributes": profile.attributes}


def number_of(value: Any) -> Decimal | None:
    """The number that a JSON value is; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float | str):
        try:
            found = Decimal(str(value))
        except InvalidOperation:
            return None
        return found if found.is_finite() else None
    return None


# ------------------------------------------------------------------------------------------------------------ adding up
@dataclass
class Counts:
    """Of one attribute, over all profiles that are in both. `total`, `largest`: of the numbers' differences, second - first;
    `largest` is the one furthest from 0."""

    changed: int = 0
    only_in_first: int = 0
    only_in_second: int = 0
    numbers: int = 0
    total: Decimal = Decimal(0)
    largest: Decimal = Decimal(0)

    def add_number(self, change: Decimal) -> None:
        self.numbers += 1
        self.total += change
        if abs(change) > abs(self.largest):
            self.largest = change

    def to_json(self) -> dict[str, Any]:
        numbers = {"sum": str(self.total), "largest": str(self.largest)} if self.numbers else None
        return {
            "changed": self.changed,
            "only_in_first": self.only_in_first,
            "only_in_second": self.only_in_second,
            "difference": numbers,
        }


@dataclass(frozen=True)
class Example:
    """One profile that differs. `attributes`: those that do, and their two values, as they may be shown."""

    profile_id: str
    kind: Kind
    attributes: Mapping[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        shown = {name: {"first": a, "second": b} for name, (a, b) in self.attributes.items()}
        return {"profile_id": self.profile_id, "kind": self.kind, "attributes": shown}


@dataclass
class Tally:
    """What is known of all profiles so far. `examples`: how many are kept of each attribute."""

    terms: Terms
    examples: int = 10
    equal: int = 0
    changed: int = 0
    only_in_first: int = 0
    only_in_second: int = 0
    moving: int = 0
    attributes: dict[str, Counts] = field(default_factory=dict)
    kept: dict[str, list[Example]] = field(default_factory=dict)  # by what differs

    def __post_init__(self) -> None:
        for name in self.terms.shared:
            self.attributes[name] = Counts()

    @property
    def compared(self) -> int:
        return self.equal + self.differing

    @property
    def differing(self) -> int:
        return self.changed + self.only_in_first + self.only_in_second

    def add_same(self) -> None:
        self.equal += 1

    def add(self, profile_id: str, difference: Difference) -> None:
        """A profile that is in both."""
        for name, in_first in difference.only.items():
            counts = self._counts(name)
            if in_first:
                counts.only_in_first += 1
            else:
                counts.only_in_second += 1
        if not difference.values:
            self.equal += 1
            return
        self.changed += 1
        for name, (a, b) in difference.values.items():
            self._count(self._counts(name), name, a, b)
        self._keep(profile_id, "changed", difference.values, difference.values)

    def _count(self, counts: Counts, name: str, a: Any, b: Any) -> None:
        if a is msgspec.UNSET:
            counts.only_in_second += 1
        elif b is msgspec.UNSET:
            counts.only_in_first += 1
        else:
            counts.changed += 1
            if name in self.terms.classified or name.startswith("#") or not self._is_number(name, a, b):
                return
            x, y = number_of(a), number_of(b)
            if x is not None and y is not None:
                counts.add_number(y - x)

    def _is_number(self, name: str, a: Any, b: Any) -> bool:
        return name in self.terms.numbers or not (isinstance(a, str) or isinstance(b, str))

    def add_alone(self, profile_id: str, profile: Profile, *, first: bool) -> None:
        """A profile that is in one only."""
        if first:
            self.only_in_first += 1
        else:
            self.only_in_second += 1
        kind: Kind = "only_in_first" if first else "only_in_second"
        values = {
            name: (value, None) if first else (None, value)
            for name, value in profile.attributes.items()
            if name in self.attributes
        }
        self._keep(profile_id, kind, [kind], values)

    def add_moving(self, profile_id: str) -> None:
        """A profile that was written, or told of, whenever it was looked at."""
        self.moving += 1
        self._keep(profile_id, "moving", ["moving"], {})

    def _counts(self, name: str) -> Counts:
        return self.attributes.setdefault(name, Counts())

    def _keep(self, profile_id: str, kind: Kind, reasons: Iterable[str], values: Mapping[str, tuple[Any, Any]]) -> None:
        short = [kept for reason in reasons if len(kept := self.kept.setdefault(reason, [])) < self.examples]
        if short:
            example = Example(profile_id, kind, {n: self._shown(n, *pair) for n, pair in values.items()})
            for kept in short:
                kept.append(example)

    def _shown(self, name: str, a: Any, b: Any) -> tuple[Any, Any]:
        hide = name in self.terms.classified
        return shown(a, hide=hide), shown(b, hide=hide)

    def chosen(self) -> list[Example]:
        """So many examples, of each thing that differs in turn."""
        found: dict[str, Example] = {}
        longest = max(map(len, self.kept.values()), default=0)
        for turn in range(longest):
            for kept in self.kept.values():
                if turn < len(kept) and len(found) < self.examples:
                    found.setdefault(kept[turn].profile_id, kept[turn])
        return list(found.values())


def shown(value: Any, *, hide: bool) -> Any:
    """What may be shown of a value: None where it is in no record."""
    if value is msgspec.UNSET or value is None:
        return None
    return SEALED if hide or _is_sealed(value) else value


def _is_sealed(value: Any) -> bool:
    """Also where only a part of it is."""
    match value:
        case dict():
            return "~sealed" in value or any(map(_is_sealed, value.values()))
        case list():
            return any(map(_is_sealed, value))
        case _:
            return False


# -------------------------------------------------------------------------------------------------------------- judging
@dataclass(frozen=True)
class Touched:
    """Whom inputs told of that one side has read and the other perhaps not: subjects, profiles, identifiers by label.

    `all_`: perhaps everybody, as when a day began.
    """

    labels: frozenset[str] = frozenset()
    all_: bool = False

    def __bool__(self) -> bool:
        return self.all_ or bool(self.labels)

    def touches(self, profile_id: str, *records: Profile | None) -> bool:
        """Whether one of these records may be another because of it. A record that does not list all of its subjects may
        be, as long as anybody is touched."""
        if not self:
            return False
        if self.all_ or profile_id in self.labels:
            return True
        return any(
            record is not None
            and (
                not record.listed_whole
                or not self.labels.isdisjoint(record.subjects)
                or not self.labels.isdisjoint(record.identifiers)
            )
            for record in records
        )


NOBODY = Touched()
Pair = tuple[bytes, bytes | None, bytes | None]
"""A profile id, its record in the first and in the second."""


def judge(pairs: Iterable[Pair], touched: Touched, tally: Tally) -> list[bytes]:
    """Add up pairs; those that differ and that are touched are not added, but returned: they are open."""
    terms, left = tally.terms, []
    for key, a, b in pairs:
        if a is None and b is None:
            continue
        if a is not None and b is not None and same_bytes(a, b, terms):
            tally.add_same()
            continue
        first = None if a is None else read_profile(a)
        second = None if b is None else read_profile(b)
        profile_id = key.decode()
        if first is None or second is None:
            alone = first or second
            assert alone is not None
            if touched.touches(profile_id, alone):
                left.append(key)
            else:
                tally.add_alone(profile_id, alone, first=second is None)
            continue
        difference = compare(first, second, terms)
        if difference.values and touched.touches(profile_id, first, second):
            left.append(key)
        else:
            tally.add(profile_id, difference)
    return left


def spread(pairs: Iterable[Pair], touched: Touched, terms: Terms) -> Touched:
    """With all who are in a differing profile with somebody who is touched: by other rules they may be in others there."""
    labels = set(touched.labels)
    for key, a, b in pairs:
        if a is not None and b is not None and same_bytes(a, b, terms):
            continue
        records = [read_profile(value) for value in (a, b) if value is not None]
        if touched.touches(key.decode(), *records):
            for record in records:
                labels.update(record.subjects, record.identifiers)
    return Touched(frozenset(labels), touched.all_)


def merged(first: Iterable[tuple[bytes, bytes]], second: Iterable[tuple[bytes, bytes]]) -> Iterator[Pair]:
    """Two tables in the order of their keys, as pairs."""
    a, b = iter(first), iter(second)
    x, y = next(a, None), next(b, None)
    while x is not None or y is not None:
        if y is None or (x is not None and x[0] < y[0]):
            assert x is not None
            yield x[0], x[1], None
            x = next(a, None)
        elif x is None or y[0] < x[0]:
            yield y[0], None, y[1]
            y = next(b, None)
        else:
            yield x[0], x[1], y[1]
            x, y = next(a, None), next(b, None)


def share(tally: Tally) -> float:
    """The part of the compared profiles that differs, 0.0 to 1.0; of none: 0."""
    return tally.differing / tally.compared if tally.compared else 0.0

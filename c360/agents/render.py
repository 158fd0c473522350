"""The record of a profile, derived values included. Knows nothing of tables, topics and who is a member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from c360.declare import Projection, ProjectionDeclaration
from c360.governance.purposes import view_of
from c360.plan import Plan, classes_of, sets_of
from c360.profile.attribute import Attribute, ValueType
from c360.profile.fold import AS_OF, RECORDS, Folding, Fragment
from c360.profile.listing import Listing
from c360.profile.record import (
    LEFT_OUT,
    ProfileView,
    ProfileWriter,
    Views,
    as_of_text,
    attributes_type,
    same_values,
)

OF_TEXT: Mapping[ValueType, Callable[[str], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}
_TOUCHED = "~touched"  # in the dictionary of an instance, where no attribute has this name


class Unseen(AttributeError):
    """Do without this attribute: whoever looks may not see it, or not in clear."""


@dataclass(frozen=True)
class Sight:
    """How one purpose looks at profiles: records count whose mask has its bit; it sees these of all attributes."""

    purpose: str
    bit: int
    attributes: tuple[int, ...]


class Renderer:
    """Writes the records of one projection: what its attributes and derived values are, as of a day, for all and for some."""

    def __init__(
        self,
        folding: Folding,
        names: Sequence[str],
        write: ProfileWriter,
        instance: type[Projection] | None = None,
        derived: Sequence[str] = (),
        sights: Sequence[Sight] = (),
    ) -> None:
        """`names`: of the attributes; `write` takes the values of these and of `derived`, which `instance` computes.

        `sights`: purposes that perhaps see less than the whole, in the order in which listings have them after it.
        """
        self.folding, self.names, self.write = folding, tuple(names), write
        self.instance, self.derived = instance, tuple(derived)
        self.sights = [(sight, attributes_type([names[i] for i in sight.attributes])) for sight in sights]

    def render(
        self, profile: str, fragment: Fragment, listings: Sequence[Listing] | None, today: int
    ) -> tuple[bytes | None, Exception | None]:
        """The record's bytes, None for a profile without members; and what a derived value raised, if one did.

        `listings`: of all, then of each sight. None: the fragment is that of the subject of this name, which is known by no
        other.
        """
        cells = self.folding.seen(fragment)
        listing = None if listings is None else listings[0]
        if not (cells[RECORDS] > 0 if listing is None else listing.total):
            return None, None
        values = self.folding.show(cells, today)
        views = self._views(profile, fragment, listings, today, cells, values) if self.sights else None
        failed = None
        if self.instance is not None:
            derived, failed = derived_values(self.instance(**dict(zip(self.names, values, strict=True))), self.derived)
            values += derived
        if listing is None:
            return self.write(profile, (profile,), 1, (profile,), values, cells[AS_OF], views=views), failed
        subjects, total, identifiers = listing.subjects, listing.total, listing.identifiers
        return self.write(profile, subjects, total, identifiers, values, cells[AS_OF], views=views), failed

    def _views(
        self,
        profile: str,
        fragment: Fragment,
        listings: Sequence[Listing] | None,
        today: int,
        whole: list[Any],
        values: list[Any],
    ) -> Views:
        """Of each sight what is other than `whole`, whose values are `values`. Derived values are left to the doors."""
        views: dict[str, ProfileView | None] = {}
        read: dict[tuple[int, ...], tuple[list[Any], list[Any]]] = {}  # by masks, since purposes often see the same
        for i, (sight, attributes) in enumerate(self.sights, 1):
            masks = tuple(mask for mask in fragment if mask & sight.bit)
            if len(masks) == len(fragment):
                continue
            if masks not in read:
                part = self.folding.seen(fragment, masks)
                read[masks] = part, self.folding.show(part, today)
            cells, seen = read[masks]
            listing = Listing(int(cells[RECORDS] > 0), [profile], [profile]) if listings is None else listings[i]
            if not listing.total:
                views[sight.purpose] = None
                continue
            alike = cells[AS_OF] == whole[AS_OF] and (listings is None or listing == listings[0])
            if not (alike and seen == values and same_values(seen, values)):
                shown = attributes(*(seen[place] for place in sight.attributes))
                as_of = as_of_text(cells[AS_OF])
                views[sight.purpose] = ProfileView(listing.subjects, listing.total, listing.identifiers, shown, as_of)
        return views


def derived_values(instance: Projection, derived: Sequence[str]) -> tuple[list[Any], Exception | None]:
    """The derived values of an instance, null where one raises, left out where it looks at what is hidden; and what the
    first of them raised."""
    computed: list[Any] = []
    failed: Exception | None = None
    values = instance.__dict__
    for name in derived:
        try:
            computed.append(plain_value(getattr(instance, name)))
        except Exception as error:  # the user's code; the value is null, the reason goes to the dead-letter topic
            computed.append(None)
            if _TOUCHED not in values:
                failed = failed or error
        if _TOUCHED in values:  # also where the user's code makes do without
            del values[_TOUCHED]
            computed[-1] = LEFT_OUT
    return computed, failed


def lazily_typed(projection: ProjectionDeclaration, hidden: Mapping[str, str] | None = None) -> type[Projection]:
    """The user's class, made of plain values; one becomes Decimal, datetime or date when it is asked for.

    `hidden`: attributes that raise Unseen, with the reason; that one was asked for is noted.
    """
    typed = ((a.name, _typed(a)) for a in projection.attributes)
    views = {name: _view(name, of) for name, of in typed if of is not None}
    views |= {name: _hidden(f"{projection.record.__name__}.{name} {why}") for name, why in (hidden or {}).items()}
    return type(projection.record.__name__, (projection.record,), views)


def _view(name: str, of: Callable[[Any], Any]) -> property:
    def get(instance: Projection) -> Any:
        value = instance.__dict__[name]
        return None if value is None else of(value)

    return property(get)


def _hidden(why: str) -> property:
    def get(instance: Projection) -> Any:
        instance.__dict__[_TOUCHED] = True
        raise Unseen(why)

    return property(get)


def plain_value(value: Any) -> Any:
    """A Python value as JSON holds it: Decimals in plain notation, times as RFC 3339 in UTC."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a derived Decimal is not finite")
        return format(value, "f")
    return msgspec.to_builtins(value)


def _typed(attribute: Attribute) -> Callable[[Any], Any] | None:
    """What makes a plain value as the annotation says it: Decimal, datetime and date of their text. None: nothing.

    What is not text stays as it is: a value that is still sealed.
    """
    if attribute.kind in ("count", "flag", "distinct"):
        return None
    if attribute.kind in ("total", "average"):
        return Decimal
    if attribute.type not in OF_TEXT:
        return None
    of = OF_TEXT[attribute.type]

    def one(value: Any) -> Any:
        return of(value) if isinstance(value, str) else value

    return lambda value: [one(v) for v in value] if isinstance(value, list) else one(value)


def renderer_of(plan: Plan, projection: ProjectionDeclaration, folding: Folding) -> Renderer:
    names = [a.name for a in projection.attributes]
    write = ProfileWriter(projection.name, projection.version, (*names, *projection.derived))
    hidden = dict.fromkeys(classes_of(plan, projection), "is sealed here: what is derived from it is computed at doors")
    instance = lazily_typed(projection, hidden) if projection.derived else None
    return Renderer(folding, names, write, instance, projection.derived, sights_of(plan, projection))


def sights_of(plan: Plan, projection: ProjectionDeclaration) -> list[Sight]:
    """How each purpose of a projection looks at it, in the order of their names, with the bits of `folding.mask_of`."""
    sets = sets_of(plan, projection)
    return [
        Sight(purpose, 1 << i, tuple(j for j, a in enumerate(projection.attributes) if a.name in seen))
        for i, purpose in enumerate(projection.purposes)
        for seen in [view_of(sets, purpose).states]
    ]

"""The record of a profile, derived values included. Knows nothing of tables, topics and who is a member."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from c360.declare import Projection, ProjectionDeclaration
from c360.profile.attribute import Attribute, ValueType
from c360.profile.fold import AS_OF, RECORDS, Folding, Fragment
from c360.profile.listing import Listing
from c360.profile.record import ProfileWriter

OF_TEXT: Mapping[ValueType, Callable[[str], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


class Renderer:
    """Writes the records of one projection: what its attributes and derived values are, as of a day."""

    def __init__(
        self,
        folding: Folding,
        names: Sequence[str],
        write: ProfileWriter,
        instance: type[Projection] | None = None,
        derived: Sequence[str] = (),
    ) -> None:
        """`names`: of the attributes; `write` takes the values of these and of `derived`, which `instance` computes."""
        self.folding, self.names, self.write = folding, tuple(names), write
        self.instance, self.derived = instance, tuple(derived)

    def render(
        self, profile: str, fragment: Fragment, listing: Listing | None, today: int
    ) -> tuple[bytes | None, Exception | None]:
        """The record's bytes, None for a profile without members; and what a derived value raised, if one did.

        `listing` None: the fragment is that of the subject of this name, which is known by no other.
        """
        cells = self.folding.seen(fragment)
        if not (cells[RECORDS] > 0 if listing is None else listing.total):
            return None, None
        values = self.folding.show(cells, today)
        failed = None
        if self.instance is not None:
            derived, failed = self._derived(self.instance(**dict(zip(self.names, values, strict=True))))
            values += derived
        if listing is None:
            return self.write(profile, (profile,), 1, (profile,), values, cells[AS_OF]), failed
        record = self.write(profile, listing.subjects, listing.total, listing.identifiers, values, cells[AS_OF])
        return record, failed

    def _derived(self, instance: Projection) -> tuple[list[Any], Exception | None]:
        computed: list[Any] = []
        failed: Exception | None = None
        for name in self.derived:
            try:
                computed.append(plain_value(getattr(instance, name)))
            except Exception as error:  # the user's code; the value is null, the reason goes to the dead-letter topic
                computed.append(None)
                failed = failed or error
        return computed, failed


def renderer_of(projection: ProjectionDeclaration, folding: Folding) -> Renderer:
    names = [a.name for a in projection.attributes]
    write = ProfileWriter(projection.name, projection.version, (*names, *projection.derived))
    instance = lazily_typed(projection) if projection.derived else None
    return Renderer(folding, names, write, instance, projection.derived)


def lazily_typed(projection: ProjectionDeclaration) -> type[Projection]:
    """The user's class, made of plain values; one becomes Decimal, datetime or date when it is asked for."""
    typed = ((a.name, _typed(a)) for a in projection.attributes)
    views = {name: _view(name, of) for name, of in typed if of is not None}
    return type(projection.record.__name__, (projection.record,), views)


def _view(name: str, of: Callable[[Any], Any]) -> property:
    def get(instance: Projection) -> Any:
        value = instance.__dict__[name]
        return None if value is None else of(value)

    return property(get)


def plain_value(value: Any) -> Any:
    """A Python value as JSON holds it: Decimals in plain notation, times as RFC 3339 in UTC."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a derived Decimal is not finite")
        return format(value, "f")
    return msgspec.to_builtins(value)


def _typed(attribute: Attribute) -> Callable[[Any], Any] | None:
    """What makes a plain value as the annotation says it: Decimal, datetime and date of their text. None: nothing."""
    if attribute.kind in ("count", "flag", "distinct"):
        return None
    if attribute.kind in ("total", "average"):
        return Decimal
    if attribute.type not in OF_TEXT:
        return None
    of = OF_TEXT[attribute.type]
    return lambda value: [of(v) for v in value] if isinstance(value, list) else of(value)

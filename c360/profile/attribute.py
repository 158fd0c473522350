"""What an attribute is: a name, a rule, the type of the values it takes, and the rule's numbers.

Knows nothing of how a rule is kept or computed: that is `cells` and `fold`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from c360.errors import DeclarationError

Kind = Literal[
    "count", "flag", "total", "average", "minimum", "maximum", "first", "newest", "prefer", "top", "distinct", "collect"
]
ValueType = Literal["int", "float", "decimal", "datetime", "date", "text", "bool", "json"]
NUMBERS: tuple[ValueType, ...] = ("int", "float", "decimal")
SCALE_MAX = 18


@dataclass(frozen=True)
class Attribute:
    """One attribute of a projection. `type` is what its readers return, see `c360.profile.value`."""

    name: str
    kind: Kind
    type: ValueType = "json"
    n: int = 3  # top: how many values are shown
    limit: int = 1000  # top, distinct, collect: events are exact up to this many different values, then a sample
    within_days: int = 0  # only event times of the last so many UTC days count; 0 = for ever
    scale: int = 2  # total, average: decimal places
    of: Hashable = None  # what its readers read, where others may read the same; they may be kept together


def check_attributes(attributes: Sequence[Attribute]) -> None:
    """Raises DeclarationError, naming the attribute, for the first that no fold can keep."""
    seen: set[str] = set()
    for a in attributes:
        if a.name in seen:
            raise DeclarationError(f"{a.name}: two attributes have this name; rename one")
        seen.add(a.name)
        if a.kind in ("total", "average") and a.type not in NUMBERS:
            raise DeclarationError(f"{a.name}: {a.kind} adds numbers (int, float, Decimal), here are {a.type} values")
        if a.kind in ("minimum", "maximum") and a.type == "json":
            raise DeclarationError(
                f"{a.name}: {a.kind} needs values with an order (numbers, times, dates, text), here are json values;"
                " use newest, or a field inside of them"
            )
        if a.within_days < 0:
            raise DeclarationError(f"{a.name}: within is {a.within_days} days; it must be 1 or more, or left out")
        if a.limit < 1:
            raise DeclarationError(f"{a.name}: limit={a.limit} keeps nothing; it must be 1 or more")
        if a.n < 1:
            raise DeclarationError(f"{a.name}: n={a.n} shows nothing; it must be 1 or more")
        if not 0 <= a.scale <= SCALE_MAX:
            raise DeclarationError(f"{a.name}: scale={a.scale}; it must be from 0 to {SCALE_MAX} decimal places")

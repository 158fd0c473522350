"""What attributes mean, written down naively: a list of live records, looked at as a whole, nothing kept or merged.

Also records and rules to draw at random. Imports nothing of how c360 folds, only what an attribute is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Literal, get_args

from hypothesis import strategies as st

from c360.profile.attribute import NUMBERS, Attribute, Kind, ValueType

DAY = 86_400_000
KINDS: tuple[Kind, ...] = get_args(Kind)
TYPES: tuple[ValueType, ...] = get_args(ValueType)
WIDE = Context(prec=2000)
Source = Literal["events", "rows"]


@dataclass(frozen=True)
class Item:
    """A record: `fields` by name, see FIELDS."""

    source: Source
    at: int
    mask: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """An attribute and where it takes values from, most trusted first."""

    attribute: Attribute
    inputs: tuple[tuple[Source, str], ...]


# ------------------------------------------------------------------------------------------------------- the meaning
def encoded(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def shown(kind: ValueType, value: Any, *, normal: bool = False) -> Any:
    """A value as JSON has it."""
    if kind == "decimal":
        if normal:
            value = value.normalize(WIDE) if value else Decimal(0)
        return format(value, "f")
    if kind == "datetime":
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if kind == "date":
        return value.isoformat()
    return value + 0.0 if kind == "float" else value  # there is one zero


def least_hash(value: Any) -> tuple[int, str]:
    text = encoded(value)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"), text


def distinct_values(values: Iterable[Any]) -> dict[str, Any]:
    return {encoded(v): v for v in values}


def counted(a: Attribute, events: list[Any], rows: list[Any]) -> Any:
    counts = Counter(encoded(v) for v in events + rows)
    values = distinct_values(events + rows)
    sampled = len(distinct_values(events)) > a.limit
    if sampled:
        kept = sorted(distinct_values(events).values(), key=least_hash)[: a.limit + 1]
        values = distinct_values(kept + rows)
        values = distinct_values(sorted(values.values(), key=least_hash)[: a.limit + 1])
    if a.kind == "distinct":
        furthest = max((least_hash(v)[0] for v in values.values()), default=0)
        return round(a.limit * 2**64 / (furthest + 1)) if sampled else len(values)
    if a.kind == "collect":
        return [values[text] for text in sorted(values)][: a.limit]
    return [values[text] for text in sorted(values, key=lambda text: (-counts[text], text))][: a.n]


def value_of(rule: Rule, items: Iterable[Item], today: int) -> Any:
    a = rule.attribute
    found = [  # (source, rank, at, value)
        (item.source, rank, item.at, item.fields[name])
        for item in items
        if not a.within_days or item.at // DAY > today - a.within_days
        for rank, (source, name) in enumerate(rule.inputs)
        if source == item.source and item.fields[name] is not None
    ]
    values = [value for _, _, _, value in found]
    if a.kind == "count":
        return len(values)
    if a.kind == "flag":
        return any(values)
    if a.kind in ("total", "average"):
        step = Decimal(1).scaleb(-a.scale)
        rounded = [Decimal(str(v)).quantize(step, ROUND_HALF_EVEN, WIDE) for v in values]
        whole = sum(map(Fraction, rounded), Fraction(0))
        if a.kind == "average":
            if not values:
                return None
            whole = Fraction(round(whole / len(values) * 10**a.scale), 10**a.scale)  # half even
        return format(WIDE.divide(whole.numerator, whole.denominator).quantize(step, context=WIDE), "f")
    if a.kind in ("minimum", "maximum"):
        choose = min if a.kind == "minimum" else max
        best = choose(values, key=lambda v: (v, encoded(shown(a.type, v))), default=None)
        return None if best is None else shown(a.type, best)
    if a.kind in ("first", "newest", "prefer"):
        trust = {True: -1, False: 0}[a.kind == "prefer"]
        entries = [(rank * trust, at, encoded(shown(a.type, value))) for _, rank, at, value in found]
        return json.loads((min if a.kind == "first" else max)(entries)[2]) if entries else None
    plain = [(source, shown(a.type, value, normal=True)) for source, _, _, value in found]
    return counted(a, [v for s, v in plain if s == "events"], [v for s, v in plain if s == "rows"])


# --------------------------------------------------------------------------------------------------------- at random
PLUS_TWO = timezone(timedelta(hours=2))
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
SOME: dict[ValueType, list[Any]] = {
    "int": [0, 1, -1, 9, 10, 2**63 - 1, 2**64, -(2**63) - 1, 2**200],
    "float": [0.0, -0.0, 0.1, 0.2, 2.5, 9.5, 10.0, 1e22, -1e-7, 5e-324, 1.7e308],
    "decimal": [
        *map(Decimal, ["9.5", "9.50", "10", "0", "-0", "-0.00", "1E+3", "1000", "0.005", "0.015", "-0.025", "1E-30"]),
        Decimal("12345678901234567890123456789012.125"),
    ],
    "datetime": [
        NOON,
        NOON.astimezone(PLUS_TWO),
        NOON + timedelta(microseconds=500_000),
        NOON - timedelta(seconds=1),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
    ],
    "date": [date(2026, 11, 2), date(1969, 12, 31), date(1, 1, 1)],
    "text": ["", "a", "a b", "a!", "aa", 'b"', "b\\", "é", "😀", "\uffff", "\u2028", "\n", "\x7f"],
    "bool": [False, True],
    "json": ["a", 1, 1.0, True, False, [], {}, {"b": 1, "a": [None, "é"]}, {"a": [None, "é"], "b": 1}, [2**70], 0],
}
FIELDS: dict[str, ValueType] = {f"{kind}{i}": kind for kind in TYPES for i in (0, 1)}
TIMES = [-5 * DAY, -DAY - 1, -DAY, -1, 0, 1, DAY - 1, DAY, 2 * DAY, 2 * DAY + 1, 3 * DAY, 20 * DAY]


def possible(kind: Kind, type: ValueType) -> bool:
    return not (
        (kind in ("total", "average") and type not in NUMBERS) or (kind in ("minimum", "maximum") and type == "json")
    )


@st.composite
def rules(draw: st.DrawFn, *, kinds: Sequence[Kind] = KINDS) -> list[Rule]:
    sources: tuple[Source, ...] = ("events", "rows")
    drawn: list[Rule] = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        type = draw(st.sampled_from([t for t in TYPES if possible(kind, t)]))
        inputs = [(source, f"{type}{i}") for source in sources for i in (0, 1)]
        attribute = Attribute(
            f"a{i}",
            kind,
            type,
            n=draw(st.integers(1, 3)),
            limit=draw(st.integers(1, 4)),
            within_days=draw(st.sampled_from([0, 0, 1, 3])),
            scale=draw(st.sampled_from([0, 1, 2, 18])),
        )
        drawn.append(Rule(attribute, tuple(draw(st.permutations(inputs))[: draw(st.integers(1, len(inputs)))])))
    return drawn


def fields_for(names: Iterable[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: st.none() | st.sampled_from(SOME[FIELDS[name]]) for name in names})


@st.composite
def items(
    draw: st.DrawFn, drawn: Sequence[Rule], *, sources: Sequence[Source] = ("events", "rows"), most: int = 12
) -> list[Item]:
    names = sorted({name for rule in drawn for _, name in rule.inputs})
    return draw(
        st.lists(
            st.builds(
                Item,
                source=st.sampled_from(sources),
                at=st.sampled_from(TIMES),
                mask=st.sampled_from([0, 0, 0, 1, 3]),
                fields=fields_for(names),
            ),
            max_size=most,
        )
    )

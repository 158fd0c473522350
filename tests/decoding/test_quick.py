"""The quick way to a record, and place by place: the same record, or the same misfit, for any payload."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360 import Record, field
from c360.codecs.layout import Layout
from c360.codecs.objects import ObjectLayout
from c360.errors import Misfit


class User(str): ...


class Line(Record):
    sku: str
    price: Decimal = field("price_minor", scale=2)


class Event(Record):
    id: str = field("data.id")
    user: User | None = field("data.user")
    amount: Decimal = field("data.money.amount_minor", scale=2)
    at: datetime = field("data.at", unit="ms")
    seen: datetime | None = field("seen", unit="ns")
    day: date | None = field("data.day", unit="days")
    local: datetime | None = field("data.local", zone="Europe/Paris")
    lines: list[Line] = field("data.lines", default=[])
    note: str = field("data.more.note", default="-")
    rest: Any = field("data.more.rest")
    plain: datetime | None
    first: str | None = field("data.lines.0.sku")
    cents: Decimal = field("data.lines.0.price_minor", scale=2)
    second: str = field("data.lines.1.sku", default="none")
    more: Any = field("data.more")


LAYOUT, BY_PLACE = Layout(Event), Layout(Event)
OBJECTS, OBJECTS_BY_PLACE = ObjectLayout(Event), ObjectLayout(Event)
BY_PLACE.quick = OBJECTS_BY_PLACE.quick = None
GOOD: dict[str, Any] = {
    "data": {
        "id": "7", "user": 12, "money": {"amount_minor": 1250}, "at": 1793610000123, "day": 20_000,
        "local": "2026-11-02T09:00:00", "lines": [{"sku": "a", "price_minor": 3}], "more": {"note": "n", "rest": [1]},
    },
    "seen": 1793610000123456789,
    "plain": "2026-11-02T09:00:00Z",
}  # fmt: skip
ODD = st.sampled_from([
    None, True, 0, -1, 7, 1.5, 10**18, 10**40, "", "x", "7", "0001-01-01T00:00:00+14:00", "2026-11-02T09:00:00Z",
    "2026-11-02T09:00:00", [], [1], {}, {"0": 1}, {"sku": "b"}, [{"sku": "b", "price_minor": "1e3"}], {"note": None},
])  # fmt: skip


def paths(value: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [above]
    return [above, *(p for name, part in value.items() for p in paths(part, (*above, name)))]


PATHS = [p for p in paths(GOOD) if p]


def answer(layout: Layout | ObjectLayout, data: Any) -> Any:
    try:
        return layout.read(data)
    except Misfit as misfit:
        return misfit.reason, str(misfit)


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.none() | ODD.map(lambda v: (v,))), max_size=3))
def test_both_ways_give_the_same_answer(changes: list[tuple[tuple[str, ...], tuple[Any] | None]]) -> None:
    payload = json.loads(json.dumps(GOOD))
    for (*above, last), change in changes:
        node = payload
        for name in above:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            if change is None:
                node.pop(last, None)
            else:
                node[last] = deepcopy(change[0])  # a later change may be inside of it
    data = json.dumps(payload).encode()
    assert answer(LAYOUT, data) == answer(BY_PLACE, data)
    assert answer(OBJECTS, payload) == answer(OBJECTS_BY_PLACE, payload)


def test_what_is_as_declared_goes_the_quick_way() -> None:
    assert LAYOUT.quick is not None
    event = LAYOUT.quick(json.dumps(GOOD).encode())
    assert (event.amount, event.note, event.lines[0].price) == (Decimal("12.50"), "n", Decimal("0.03"))
    assert event.at == datetime.fromisoformat("2026-11-02T09:00:00.123Z")
    assert LAYOUT.read(json.dumps(GOOD).encode()).user == "12"
    assert (event.first, event.cents, event.second, event.more) == ("a", Decimal("0.03"), "none", GOOD["data"]["more"])
    good = {**GOOD, "data": {**GOOD["data"], "user": "12"}}
    assert OBJECTS.quick is not None
    assert OBJECTS.quick(good) == LAYOUT.read(json.dumps(good).encode())


@pytest.mark.parametrize(
    ("one", "other"), [("a", "a.b"), ("a.b", "a"), ("a.b", "a.b"), ("a.0", "b")], ids=["part", "whole", "same", "list"]
)
def test_places_that_are_no_tree_of_names_are_read_by_themselves(one: str, other: str) -> None:
    class Odd(Record):
        x: Any = field(one)
        y: Any = field(other)

    data = b'{"a": {"b": 1}, "b": 2}'
    layout = Layout(Odd)
    assert layout.quick is not None
    found = layout.quick(data)
    layout.quick = None
    assert layout.read(data) == found
    assert found.x is not None or one == "a.0"

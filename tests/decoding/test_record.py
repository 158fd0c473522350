"""Record types: what can be declared, and what a mistake says."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from c360 import Record, field
from c360.codecs.record import FieldRef, RecordMeta, fields_of
from c360.errors import DeclarationError


class Order(Record):
    id: str
    amount: Decimal | None
    at: datetime


def test_a_field_taken_from_the_class_names_itself_and_its_class() -> None:
    class Gift(Order):
        message: str = ""

    ref: Any = Gift.amount
    assert isinstance(ref, FieldRef)
    assert repr(ref) == "Gift.amount"
    assert [f.name for f in fields_of(Gift)] == ["id", "amount", "at", "message"]


def test_conditions_on_fields_hold_for_records_and_not_for_nothing() -> None:
    large: Any = Order.amount > Decimal(100)  # type: ignore[operator]
    some: Any = (Order.amount != None) & ~large  # noqa: E711
    at = datetime.fromisoformat("2026-01-01T00:00:00Z")
    orders = [Order(id="1", amount=a, at=at) for a in (Decimal(200), Decimal(5), None)]
    assert [large(o) for o in orders] == [True, False, False]
    assert [some(o) for o in orders] == [False, True, False]
    assert repr(some) == "(Order.amount != None & ~Order.amount > Decimal('100'))"
    with pytest.raises(DeclarationError, match="join conditions with &"):
        bool(large)


@pytest.mark.parametrize(
    ("annotation", "place", "said"),
    [
        (complex, None, r"Bad\.x: complex is no type of a field"),
        ("Missing", None, r"Bad\.x: the annotation 'Missing' cannot be found here"),
        (str, field(scale=2), r"Bad\.x: scale=2 is for Decimal fields"),
        (int, field(unit="ms"), r"Bad\.x: unit='ms'"),
        (datetime, field(zone="Mars/North"), r"Bad\.x: zone='Mars/North' is no time zone"),
        (str, field("a..b"), r"Bad\.x: 'a\.\.b' is no path"),
    ],
)
def test_a_mistake_names_class_and_field(annotation: Any, place: Any, said: str) -> None:
    body = {"__annotations__": {"x": annotation}, **({} if place is None else {"x": place})}
    with pytest.raises(DeclarationError, match=said):
        RecordMeta("Bad", (Record,), body)

"""Payloads to records: lossless, and each bad one a misfit with its reason, which never shows a value."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest

from c360 import Record, field
from c360.codecs.json import Choice, JsonDecoder
from c360.errors import Misfit


class Color(Enum):
    red = "red"


class Line(Record):
    sku: str
    price: Decimal = field("price_minor", scale=2)


class Order(Record):
    id: str
    amount: Decimal
    at: datetime
    n: int = 0
    ratio: float = 0.0
    kind: Literal["a", "b"] = "a"
    color: Color | None
    tags: list[str] = []  # noqa: RUF012 - msgspec copies it


class Deep(Record):
    id: str = field("data.order.id")
    total: Decimal = field("data.total_minor", scale=2)
    lines: list[Line] = field("data.lines")
    first: str | None = field("data.lines.0.sku")
    at: datetime = field("data.at", unit="ms")
    day: date | None = field("data.day", unit="days")
    local: datetime | None = field("data.local", zone="Europe/Paris")
    note: str = field("data.note", default="-")


def decode(kind: type[Record], *payloads: bytes | None) -> list[Any]:
    return list(JsonDecoder([Choice(kind, None)], "dlq").decode(payloads))


GOOD = b'{"id": "1", "amount": 12.3400000000000000000000001, "at": "2026-01-01T01:00:00+01:00", "unknown": {"x": [1]}}'


def test_values_keep_all_digits_and_their_instant() -> None:
    (order,) = decode(Order, GOOD)
    assert order.amount == Decimal("12.3400000000000000000000001")
    assert order.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert (order.n, order.kind, order.color, order.tags) == (0, "a", None, [])


def test_fields_are_found_by_their_paths_and_converted() -> None:
    payload = (
        b'{"data": {"order": {"id": "7"}, "total_minor": 1999, "at": 1767225600123, "day": -719162,'
        b' "local": "2026-07-01T12:00:00", "lines": [{"sku": "a", "price_minor": "250"}, {"sku": "b", "price_minor": 1}]}}'
    )
    (deep,) = decode(Deep, payload)
    assert (deep.id, deep.total, deep.first, deep.note) == ("7", Decimal("19.99"), "a", "-")
    assert [(x.sku, x.price) for x in deep.lines] == [("a", Decimal("2.50")), ("b", Decimal("0.01"))]
    assert deep.at == datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    assert deep.day == date(1, 1, 1)
    assert deep.local == datetime(2026, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"not json", "not-json"),
        (b'{"id": "1"', "not-json"),
        (b'{"id": "\x00"}', "not-json"),
        (b'{"amount": NaN}', "not-json"),
        (b'{"amount": Infinity}', "not-json"),
        (b'{"id": "\xff"}', "not-utf8"),
        (b"[1]", "not-an-object"),
        (b"7", "not-an-object"),
        (b'{"z":' * 10_000 + b"1" + b"}" * 10_000, "too-deep"),
        (b'{"id": "1", "at": "2026-01-01T00:00:00Z"}', "missing-field"),
        (b'{"id": 1, "amount": 1, "at": "2026-01-01T00:00:00Z"}', "wrong-type"),
        (b'{"id": null, "amount": 1, "at": "2026-01-01T00:00:00Z"}', "wrong-type"),
        (b'{"id": "1", "amount": "much", "at": "2026-01-01T00:00:00Z"}', "wrong-type"),
        (b'{"id": "1", "amount": 1, "at": "2026-01-01T00:00:00Z", "kind": "secret"}', "wrong-type"),
        (b'{"id": "1", "amount": 1, "at": "2026-01-01T00:00:00Z", "color": "secret"}', "wrong-type"),
        (b'{"id": "1", "amount": 1, "at": 1767225600}', "wrong-type"),
        (b'{"id": "1", "amount": "NaN", "at": "2026-01-01T00:00:00Z"}', "out-of-range"),
        (b'{"id": "1", "amount": "-Infinity", "at": "2026-01-01T00:00:00Z"}', "out-of-range"),
        (b'{"id": "1", "amount": 1e5000, "at": "2026-01-01T00:00:00Z"}', "out-of-range"),
        (b'{"id": "1", "amount": 1, "at": "2026-02-30T00:00:00Z"}', "out-of-range"),
        (b'{"id": "1", "amount": 1, "at": "0001-01-01T00:00:00+14:00"}', "out-of-range"),
        (b'{"id": "1", "amount": 1, "ratio": 1e999, "at": "2026-01-01T00:00:00Z"}', "out-of-range"),
        (b'{"id": "1", "amount": 1, "at": "2026-01-01T00:00:00"}', "no-zone"),
    ],
)
def test_a_bad_payload_is_a_misfit_and_its_neighbours_are_not(payload: bytes | None, reason: str) -> None:
    before, misfit, after = decode(Order, GOOD, payload, GOOD)
    assert before == after == decode(Order, GOOD)[0]
    assert isinstance(misfit, Misfit)
    assert misfit.reason == reason, str(misfit)
    assert "secret" not in str(misfit)
    assert "much" not in str(misfit)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"data": 7}', "missing-field"),
        (b'{"data": {"order": {"id": "7"}, "total_minor": 1, "lines": []}}', "missing-field"),
        (b'{"data": {"order": {"id": 7}, "total_minor": 1, "lines": [], "at": 0}}', "wrong-type"),
        (b'{"data": {"order": {"id": "7"}, "total_minor": 1, "lines": [{"sku": "a"}], "at": 0}}', "missing-field"),
        (b'{"data": {"order": {"id": "7"}, "total_minor": 1, "lines": [], "at": 1e30}}', "out-of-range"),
    ],
)
def test_a_bad_payload_of_a_type_with_paths(payload: bytes, reason: str) -> None:
    (misfit,) = decode(Deep, payload)
    assert isinstance(misfit, Misfit)
    assert misfit.reason == reason, str(misfit)


def test_a_payload_is_of_the_type_whose_condition_it_meets() -> None:
    class Placed(Record):
        id: str

    class Done(Record):
        id: str

    choices = [Choice(Placed, {"type": "placed", "v.major": 1}), Choice(Done, {"type": "done"})]
    payloads = [
        b'{"id": "1", "type": "placed", "v": {"major": 1}}',
        b'{"id": "2", "type": "done"}',
        b'{"type": "placed"}',
    ]
    placed, done, other = JsonDecoder(choices, "dlq").decode(payloads)
    assert (type(placed), type(done)) == (Placed, Done)
    assert isinstance(other, Misfit)
    assert other.reason == "unmatched"
    assert JsonDecoder(choices, "ignore").decode([b'{"type": 1}', b"[]"])[0] is None

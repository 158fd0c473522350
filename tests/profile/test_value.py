"""How values are written, counted in units, and shown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from c360.profile.attribute import ValueType
from c360.profile.value import SHAPES, Unfit, divided, time_text, units_of, units_text
from tests.profile.oracle import PLUS_TWO, encoded, shown

aware = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(PLUS_TWO))
finite = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**60), max_value=10**60)


@given(aware)
def test_a_datetime_is_its_instant_in_utc_with_microseconds_if_there_are_any(when: datetime) -> None:
    text = SHAPES["datetime"].text(when)
    assert text == shown("datetime", when)
    assert datetime.fromisoformat(text) == when
    assert SHAPES["datetime"].text(when.astimezone(UTC)) == text


@given(aware, aware)
def test_texts_of_datetimes_are_ordered_as_instants(a: datetime, b: datetime) -> None:
    shape = SHAPES["datetime"]
    assert shape.order is not None
    for one, other in ((a, b), (a, a.replace(microsecond=0)), (a, a + timedelta(microseconds=1))):
        assert (shape.order(shape.text(one)) < shape.order(shape.text(other))) == (one < other)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_event_times_are_shown_with_milliseconds_if_there_are_any(at_ms: int) -> None:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    spec = "milliseconds" if at_ms % 1000 else "seconds"
    assert time_text(at_ms) == when.isoformat(timespec=spec).replace("+00:00", "Z")


@given(finite)
def test_decimals_are_written_plain_and_count_as_equal_when_they_are(number: Decimal) -> None:
    shape = SHAPES["decimal"]
    assert shape.text(number) == format(number, "f")
    normal = shape.normal(number)
    assert Decimal(normal) == number
    assert normal == shape.normal(Decimal(normal + ("0" if "." in normal else ".00")))
    assert normal == shown("decimal", number, normal=True)


@pytest.mark.parametrize("kind", ["int", "float", "decimal"])
@given(data=st.data(), scale=st.integers(0, 18))
def test_units_are_rounded_once_half_even_and_shown_exactly(kind: ValueType, data: st.DataObject, scale: int) -> None:
    numbers: dict[str, st.SearchStrategy[Any]] = {
        "int": st.integers(-(10**60), 10**60),
        "float": st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.125, 2.675, -0.5, 1.5]),
        "decimal": finite | st.sampled_from([Decimal("0.125"), Decimal("-0.135"), Decimal("2.5")]),
    }
    number = data.draw(numbers[kind])
    exact = Fraction(Decimal(str(number))) * 10**scale
    units = units_of(kind, scale)(number)
    assert units == round(exact)  # of a Fraction: half even
    text = units_text(units, scale)
    assert Fraction(text) * 10**scale == units
    assert len(text.partition(".")[2]) == scale


@pytest.mark.parametrize(
    ("units", "scale", "text"),
    [
        (0, 0, "0"),
        (0, 2, "0.00"),
        (5, 2, "0.05"),
        (-5, 2, "-0.05"),
        (-123, 2, "-1.23"),
        (-1, 0, "-1"),
        (100, 2, "1.00"),
    ],
)
def test_units_are_shown_as_decimal_numbers(units: int, scale: int, text: str) -> None:
    assert units_text(units, scale) == text


@given(st.integers(-1000, 1000), st.integers(1, 20))
def test_division_rounds_half_even(units: int, n: int) -> None:
    assert divided(units, n) == round(Fraction(units, n))


@given(st.text() | st.sampled_from(['"', "\\", "\x00\x1f\x7f", "\u2028"]))
def test_the_encoding_of_a_text_is_its_json_and_is_read_back(text: str) -> None:
    shape = SHAPES["text"]
    assert shape.encoding(text) == encoded(text)
    assert shape.decoded(shape.encoding(text)) == text


@pytest.mark.parametrize(
    ("kind", "value", "text", "json"),
    [
        ("int", 2**70, str(2**70), 2**70),
        ("float", -0.0, "0.0", 0.0),
        ("float", 3, "3.0", 3.0),
        ("float", 1e22, "1e+22", 1e22),
        ("decimal", 17, "17", "17"),
        ("date", date(26, 1, 2), "0026-01-02", "0026-01-02"),
        ("bool", True, "true", True),
        ("bool", False, "false", False),
        ("json", {"b": [1, None], "a": "é"}, '{"a":"é","b":[1,null]}', {"a": "é", "b": [1, None]}),
    ],
)
def test_texts_of_values_and_their_json(kind: ValueType, value: Any, text: str, json: Any) -> None:
    shape = SHAPES[kind]
    assert shape.text(value) == text
    assert repr(shape.decoded(shape.encoding(text))) == repr(json) or kind == "json"
    assert shape.shown(text) == json


@given(st.datetimes(timezones=st.timezones() | st.sampled_from([UTC, timezone(timedelta(hours=2, minutes=30))])))
def test_a_time_as_governed_json_holds_it_is_the_time(value: datetime) -> None:
    offset = value.utcoffset()
    assume(offset is not None and not offset.total_seconds() % 60)  # RFC 3339 has no seconds in an offset
    text = SHAPES["datetime"].text
    try:
        expected = text(value)
    except Unfit:
        with pytest.raises(Unfit):
            text(msgspec.to_builtins(value))
    else:
        assert text(msgspec.to_builtins(value)) == expected

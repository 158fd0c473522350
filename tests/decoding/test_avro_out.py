"""JSON values as Avro: what goes in comes out, equal values are equal bytes, and Avro's own library reads them."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.codecs.avro_out import avro_names, frame, optional_fields, reader_of, writer_of
from c360.errors import Misfit
from c360.profile.attribute import Attribute, Kind, ValueType
from c360.profile.avro import DIGITS, profile_schema, type_of
from c360.profile.value import SHAPES, time_text, units_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    "int": st.integers(-(1 << 63), (1 << 63) - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
    "datetime": MOMENTS,
    "date": st.dates(),
    "text": TEXT,
    "bool": st.booleans(),
    "json": JSON,
}
KINDS: list[tuple[Kind, ValueType]] = [
    ("count", "int"), ("flag", "int"), ("distinct", "text"), ("total", "decimal"), ("average", "float"),
    *((kind, type_) for kind in ("newest", "collect") for type_ in VALUES),
]  # fmt: skip


@st.composite
def shown(draw: st.DrawFn, attribute: Attribute) -> Any:
    """A value of an attribute, as a profile's record has it."""
    shape = SHAPES[attribute.type]
    one = VALUES[attribute.type].map(lambda value: shape.shown(shape.text(value)))
    match attribute.kind:
        case "count" | "distinct":
            return draw(st.integers(0, 1 << 40))
        case "flag":
            return draw(st.booleans())
        case "total" | "average":
            return units_text(draw(st.integers(1 - 10**DIGITS, 10**DIGITS - 1)), attribute.scale)
        case "collect":
            return draw(st.lists(one, max_size=4))
        case _:
            return draw(st.none() | one)


@st.composite
def profiles(draw: st.DrawFn) -> tuple[Any, Any]:
    """The schema of a view, and a profile."""
    chosen = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    names = draw(st.lists(st.from_regex(r"[a-zåé_][a-z0-9é_]{0,5}", fullmatch=True), min_size=len(chosen),
                          max_size=len(chosen), unique=True))  # fmt: skip
    attributes = [
        Attribute(name, kind, type_, scale=draw(st.integers(0, 18)))
        for name, (kind, type_) in zip(names, chosen, strict=True)
    ]
    labels = draw(st.lists(TEXT, max_size=3))
    value = {
        "profile_id": draw(TEXT), "projection": "customer", "version": draw(st.integers(1, 99)), "purpose": "marketing",
        "subjects": labels, "subjects_total": len(labels), "identifiers": labels,
        "attributes": {a.name: draw(shown(a)) for a in attributes},
        "as_of": draw(st.none() | MOMENTS.map(lambda at: time_text((at - EPOCH) // timedelta(milliseconds=1)))),
    }  # fmt: skip
    return profile_schema("shop.customer", attributes, {}, optional_fields), value


@given(profiles())
def test_a_profile_comes_back_as_it_went_and_equal_ones_are_equal_bytes(made: tuple[Any, Any]) -> None:
    schema, value = made
    schema = json.loads(json.dumps(schema))  # as it comes from a registry
    write = writer_of(schema)
    data = write(value, b"")
    assert reader_of(schema)(data) == value
    assert write(_other_way_round(value), b"") == data
    assert type(reader_of(schema)(data)["attributes"]) is dict


@given(profiles())
def test_avros_own_library_reads_and_would_write_the_same_bytes(made: tuple[Any, Any]) -> None:
    schema, value = made
    parsed = fastavro.parse_schema(schema)
    data = writer_of(schema)(value, b"")
    stream = io.BytesIO(data)
    found: Any = fastavro.schemaless_reader(stream, parsed, None)
    assert stream.read() == b""
    again = io.BytesIO()
    fastavro.schemaless_writer(again, parsed, found)
    assert again.getvalue() == data


def _other_way_round(value: Any) -> Any:
    """The same, with the keys of objects in another order."""
    if isinstance(value, dict):
        return {key: _other_way_round(value[key]) for key in reversed(value)}
    return [_other_way_round(one) for one in value] if isinstance(value, list) else value


@given(profiles(), st.data())
def test_attributes_that_come_and_go_are_read_by_older_and_newer_schemas(
    made: tuple[Any, Any], data: st.DataObject
) -> None:
    schema, value = made
    fields = schema["fields"][7]["type"]["fields"]
    fewer = json.loads(json.dumps(schema))
    kept = data.draw(st.lists(st.sampled_from(fields), unique_by=lambda field: field["name"]))
    fewer["fields"][7]["type"]["fields"] = [*kept, {"name": "new_one", "type": ["null", "long"], "default": None}]
    stream = io.BytesIO(writer_of(schema)(value, b""))
    found: Any = fastavro.schemaless_reader(stream, fastavro.parse_schema(schema), fastavro.parse_schema(fewer))
    assert found["attributes"].keys() == {field["name"] for field in kept} | {"new_one"}


def test_a_total_is_avros_decimal_and_times_are_instants() -> None:
    attributes = [
        Attribute("spend", "total", "decimal", scale=2), Attribute("seen", "newest", "datetime"),
        Attribute("day", "newest", "date"), Attribute("price", "newest", "decimal"),
    ]  # fmt: skip
    schema = profile_schema("a.b", attributes, {}, optional_fields)
    value = {
        "profile_id": "crm:7", "projection": "b", "version": 1, "purpose": "p", "subjects": [],
        "subjects_total": 0, "identifiers": [],
        "attributes": {"spend": "-0.05", "seen": "2026-11-02T10:00:00.000001+01:00", "day": "2026-11-02", "price": "9.50"},
        "as_of": "2026-11-02T09:15:00.123Z",
    }  # fmt: skip
    data = writer_of(schema)(value, frame(7))
    assert data[:5] == b"\0\0\0\0\7"
    found: Any = fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(schema), None)
    assert found["attributes"] == {
        "spend": Decimal("-0.05"), "seen": datetime(2026, 11, 2, 9, 0, 0, 1, tzinfo=UTC), "day": date(2026, 11, 2),
        "price": "9.50",
    }  # fmt: skip
    assert found["as_of"] == datetime(2026, 11, 2, 9, 15, 0, 123_000, tzinfo=UTC)
    same = {**value, "attributes": {**value["attributes"], "seen": "2026-11-02T09:00:00.000001Z"}}  # type: ignore[dict-item]
    assert writer_of(schema)(same, frame(7)) == data


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("long", 1 << 63), ("long", True), ("long", "7"), ("int", 1 << 31), ("double", float("nan")), ("double", 1 << 60),
        ("boolean", 1), ("string", 7), ("string", "\ud800"),
        (type_of(Attribute("a", "total", "decimal", scale=2)), "9.5"),
        (type_of(Attribute("a", "total", "decimal", scale=2)), f"{10**36}.00"),
        (type_of(Attribute("a", "newest", "datetime")), "2026-11-02T09:00:00"),
        (type_of(Attribute("a", "newest", "datetime")), 7),
        (type_of(Attribute("a", "newest", "date")), "soon"),
        (type_of(Attribute("a", "collect", "int")), {}),
        (type_of(Attribute("a", "collect", "int")), [None]),
        ({"type": "map", "values": "long"}, []),
        ({"type": "long", "logicalType": "timestamp-millis"}, "2026-11-02T09:00:00.000001Z"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_schema_is_told_by_the_name_of_its_field(type_: Any, value: Any) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "amount", "type": type_}]}
    with pytest.raises(Misfit, match="amount") as refused:
        writer_of(schema)({"amount": value}, b"")
    assert refused.value.reason == "not-in-schema"
    with pytest.raises(Misfit, match="fields that its schema has not"):
        writer_of({**schema, "fields": []})({"amount": value}, b"")


def test_names_are_told_apart_however_they_are_written() -> None:
    names = ["plain", "café", "caf_u00e9", "a-b", "7up", ""]
    made = avro_names(names)
    assert made == ["plain", "caf_u00e9_", "caf_u00e9", "a_u002db", "_7up", "_"]
    schema = {"type": "record", "name": "R", "fields": optional_fields(dict.fromkeys(names, "long"))}
    fastavro.parse_schema(schema)
    value = {name: i for i, name in enumerate(names)}
    assert reader_of(schema)(writer_of(schema)(value, b"")) == value


def test_numbers_that_are_none_are_null_as_in_json() -> None:
    write = writer_of(["null", "double"])
    assert [write(value, b"") for value in (float("nan"), float("inf"), None)] == [b"\0"] * 3
    assert write(-0.0, b"") == write(0, b"") == write(0.0, b"")


def test_a_zone_is_no_part_of_an_instant() -> None:
    schema = type_of(Attribute("a", "newest", "datetime"))
    at = datetime(2026, 11, 2, 9, tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert writer_of(schema)(at.isoformat(), b"") == writer_of(schema)(there.isoformat(), b"")

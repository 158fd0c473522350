"""What is wrong with reading by one schema what another wrote: what the official checker says, and what it does not."""

from __future__ import annotations

import json
import warnings
from typing import Any

import avro.compatibility
import avro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.codecs.compatibility import (
    OFFICIAL,
    RULES,
    NotASchema,
    Schema,
    classes_said,
    compare,
    defined,
    inlined,
    parsed,
    unknown_classes,
    wanted,
)

LONG, TEXT = "long", "string"
PERSONAL = {"c360.class": "personal"}
MILLIS, MICROS = ({"type": LONG, "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros"))
DAY = {"type": "int", "logicalType": "date"}


def decimal(precision: int, scale: int | None, **more: Any) -> Any:
    said = {"type": "bytes", "logicalType": "decimal", "precision": precision, **more}
    return said if scale is None else {**said, "scale": scale}


def timestamp(unit: str, kind: str = "timestamp") -> Any:
    return {"type": LONG, "logicalType": f"{kind}-{unit}"}


def debezium(name: str) -> Any:
    return {"type": LONG, "connect.name": f"io.debezium.time.{name}"}


def enum(*symbols: str, **more: Any) -> Any:
    return {"type": "enum", "name": "State", "symbols": [*symbols], **more}


def record(*fields: Any, name: str = "Order", **more: Any) -> Any:
    return {"type": "record", "name": name, "namespace": "shop", "fields": [*fields], **more}


def of(kind: Any, name: str = "it", **more: Any) -> Any:
    return {"name": name, "type": kind, **more}


def officially_fine(before: Any, now: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader, writer = (avro.schema.parse(json.dumps(schema)) for schema in (now, before))
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    result = checker.get_compatibility(reader, writer)
    return result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible


def told(before: Any, now: Any, *, key: bool = False) -> list[tuple[str, str, str]]:
    return [(d.severity, d.rule, d.place) for d in compare(Schema(now), Schema(before), key=key)]


# By what is wrong: the type of a field before and now.
TYPES = {
    "error decimal-scale": [
        (decimal(9, 2), decimal(9, 4)),
        (decimal(9, None), decimal(9, 2)),
        (
            {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2},
            {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 3},
        ),
    ],
    "error decimal-precision": [(decimal(9, 2), decimal(7, 2))],
    "error unit": [
        (timestamp("millis"), timestamp("micros")),
        (timestamp("micros"), timestamp("millis")),
        (timestamp("micros", "local-timestamp"), timestamp("millis", "local-timestamp")),
        (timestamp("millis"), timestamp("nanos")),
    ],
    "error logical-type": [
        (LONG, timestamp("millis")),
        (timestamp("millis"), LONG),
        (timestamp("millis"), timestamp("millis", "local-timestamp")),
        (DAY, timestamp("millis")),
        (DAY, "int"),
        ("bytes", decimal(9, 2)),
        (decimal(9, 2), "bytes"),
        (debezium("Timestamp"), debezium("MicroTimestamp")),
    ],
    "warning logical-type": [
        (TEXT, {"type": TEXT, "logicalType": "uuid"}),
        ({"type": TEXT, "logicalType": "uuid"}, TEXT),
    ],
    "error class": [
        ({"type": TEXT, **PERSONAL}, TEXT),
        ({"type": TEXT, "c360.class": "sensitive"}, {"type": TEXT, **PERSONAL}),
    ],
    "error name": [(record(of(TEXT, "a"), name="other.In"), record(of(TEXT, "a"), name="shop.In"))],
    "error default": [
        (enum("A", "B", default="A"), enum("A", "B", default="B")),
    ],
    "warning enum": [(enum("A", "B", "C"), enum("A", "B", default="A"))],
    "warning promotion": [
        (LONG, "double"), ("int", "float"), (LONG, "float"), ("bytes", TEXT), (TEXT, "bytes"),
        ([LONG, "null"], ["double", "null"]),
    ],
    "warning nullable": [(TEXT, ["null", TEXT]), ([TEXT, LONG], [TEXT, LONG, "null"])],
}  # fmt: skip
# By what is wrong: all fields before, and all now.
FIELDS = {
    "error default": [
        ([of(LONG, default=1)], [of(LONG, default=2)]),
        ([of(["null", TEXT], default=None)], [of([TEXT, "null"], default="x")]),
        ([of("boolean", default=True)], [of("boolean", default=False)]),
    ],
    "error aliases": [
        ([of(TEXT, "it"), of(TEXT, "b")], [of(TEXT, "it", aliases=["b"]), of(TEXT, "b", aliases=["it"])]),
        ([of(TEXT, "it"), of(TEXT, "b")], [of(TEXT, "it", aliases=["b"])]),
        ([of(TEXT, "it", aliases=["old"], default="")], [of(TEXT, "it", default="")]),
    ],
    "error class": [
        ([of(TEXT, **PERSONAL)], [of(TEXT)]),
        ([of(TEXT, **{"c360.class": "sensitive"})], [of(TEXT, **PERSONAL)]),
        ([of(TEXT, "old", **PERSONAL)], [of(TEXT, "it", aliases=["old"])]),
    ],
    "warning order": [([of(TEXT)], [of(TEXT, order="descending")])],
}
CASES = [
    *((said, [of(before)], [of(now)]) for said, pairs in TYPES.items() for before, now in pairs),
    *((said, before, now) for said, pairs in FIELDS.items() for before, now in pairs),
]


@pytest.mark.parametrize(("said", "before", "now"), CASES)
def test_what_the_official_checker_passes_is_told(said: str, before: Any, now: Any) -> None:
    """Whoever reads it is misled, and nobody would say so."""
    severity, rule = said.split()
    assert officially_fine(record(*before), record(*now))
    found = told(record(*before), record(*now))
    assert {place for *_, place in found} == ({"it", "b"} if len(found) == 2 else {"it"})
    assert {found[:2] for found in found} == {(severity, rule)}


def test_every_rule_of_ours_is_shown_to_be_missed_by_it() -> None:
    assert {said.split()[1] for said, *_ in CASES} == RULES.keys() - {OFFICIAL, "key"}


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda kind: {"type": "array", "items": kind}, "it[]"),
        (lambda kind: {"type": "map", "values": kind}, "it{}"),
        (lambda kind: ["null", kind], "it"),
        (lambda kind: [kind, {"type": "map", "values": TEXT}], "it"),
        (lambda kind: {"type": "array", "items": record(of(kind, "at"), name="Line")}, "it[].at"),
        (lambda kind: ["null", record(of({"type": "map", "values": kind}, "at"), name="Line")], "it.at{}"),
    ],
)
def test_a_rule_holds_wherever_the_type_stands(wrap: Any, place: str) -> None:
    before, now = (record(of(wrap(timestamp(unit)))) for unit in ("millis", "micros"))
    assert told(before, now) == [("error", "unit", place)]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], [of(TEXT)]),
        ([of(TEXT)], [of("int")]),
        ([of(["null", TEXT])], [of(TEXT)]),
        ([of(enum("A", "B"))], [of(enum("A"))]),
        ([of([TEXT, LONG])], [of([TEXT, "boolean"])]),
        ([of({"type": "fixed", "name": "F", "size": 4})], [of({"type": "fixed", "name": "F", "size": 5})]),
        ([of(record(of(TEXT), name="A"))], [of(record(of(TEXT), name="B"))]),
        ([of(TEXT, "it")], [of(TEXT, "other")]),
    ],
)
def test_what_cannot_be_read_at_all_is_told_by_the_official_checker(before: Any, now: Any) -> None:
    assert ("error", OFFICIAL, "") in told(record(*before), record(*now))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([of(TEXT, "a")], [of(TEXT, "a"), of(TEXT, default="x")]),
        ([of(TEXT, "a"), of(TEXT)], [of(TEXT)]),
        ([of(TEXT, "a"), of(LONG)], [of(LONG), of(TEXT, "a")]),
        ([of("int")], [of(LONG)]),
        ([of(TEXT)], [of(TEXT, doc="explained", **PERSONAL)]),
        ([of(TEXT, "old")], [of(TEXT, "it", aliases=["old"])]),
        ([of(enum("A"))], [of(enum("A", "B"))]),
        ([of(decimal(7, 2))], [of(decimal(9, 2))]),
        ([of(decimal(7, 0))], [of(decimal(7, None))]),
        ([of(record(of(TEXT, **PERSONAL), name="In"))], [of(record(of(TEXT), name="In"), **PERSONAL)]),
        ([of(TEXT, "it", aliases=["new"])], [of(TEXT, "new", aliases=["it"])]),
        ([of(record(of(TEXT), name="old.In"))], [of(record(of(TEXT), name="In", aliases=["old.In"]))]),
        ([of(record(of(TEXT), name="In"))], [of(record(of(TEXT), name="Inner", aliases=["In"]))]),
        ([of(record(of(TEXT), name="In"))], [of([record(of(TEXT), name="x.Inner", aliases=["shop.In"])])]),
        ([of("double", default=1)], [of("double", default=1.0)]),
    ],
)
def test_what_harms_nobody_is_not_told(before: Any, now: Any) -> None:
    assert told(record(*before), record(*now)) == []


def test_an_alias_without_namespace_is_of_the_namespace_of_its_type() -> None:
    assert told(record(of(TEXT)), record(of(TEXT), name="Bought", aliases=["Order"])) == []
    (found,) = told(record(of(TEXT)), record(of(TEXT), name="Bought", aliases=["store.Order"]))
    assert found == ("error", OFFICIAL, "")


def test_where_it_cannot_be_told_which_branch_reads_another_only_the_official_checker_speaks() -> None:
    before = record(of(["null", record(of(MILLIS), name="A")]))
    now = record(of(["null", record(of(MICROS), name="B"), record(of(MICROS), name="C")]))
    assert told(before, now) == [("error", OFFICIAL, "")]


def test_a_namespace_that_moves_is_told_once() -> None:
    inner = {"type": "record", "name": "Line", "fields": [of(TEXT)]}
    before = record(of(inner))
    assert told(before, {**before, "namespace": "store"}) == [("error", "name", "")]


@pytest.mark.parametrize("now", [record(of(TEXT, doc="x")), record(of(TEXT), of(TEXT, "b", default=""))])
def test_a_key_may_not_change_at_all(now: Any) -> None:
    """Its bytes begin with the schema's id, and say where a record goes."""
    assert told(record(of(TEXT)), now, key=True) == [("error", "key", "")]
    assert told(now, json.loads(json.dumps(now, sort_keys=True)), key=True) == []


# ---------------------------------------------------------------------------------------------------- odd schemas
TREE = record(of(TEXT, "at"), of(["null", {"type": "array", "items": "Order"}], "children", default=None))


def test_a_type_that_contains_itself_is_looked_into_once() -> None:
    now = json.loads(json.dumps(TREE).replace('"type": "string"', '"type": "bytes"'))
    assert told(TREE, now) == [("warning", "promotion", "at")]
    assert told(TREE, TREE) == []


def test_two_types_that_contain_each_other_end() -> None:
    two = record(of(["null", record(of(["null", "shop.Order"], "up"), of(LONG, "n"), name="Part")], "part"))
    now = json.loads(json.dumps(two).replace('"long"', '"double"'))
    assert told(two, now) == [("warning", "promotion", "part.n")]


@pytest.mark.timeout(60)
def test_ten_thousand_fields_are_compared() -> None:
    fields = [of(["null", TEXT], f"f{n}", default=None) for n in range(10_000)]
    now = [*fields[:-1], of(["null", TEXT], "f9999", default=None, order="ignore")]
    assert told(record(*fields), record(*now)) == [("warning", "order", "f9999")]


def nested(depth: int) -> str:
    return '{"type": "array", "items": ' * depth + '"int"' + "}" * depth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("{", "not JSON"),
        ("version https://git-lfs.github.com/spec/v1", "not JSON"),
        ('{"type": "record"}', "no Avro schema"),
        ('{"type": "record", "name": "A"}', "no Avro schema"),
        ('{"type": "record", "name": "A", "fields": 5}', "no Avro schema"),
        ('{"type": "record", "name": "A", "fields": [5]}', "no Avro schema"),
        ('{"type": "record", "name": 5, "fields": []}', "no Avro schema"),
        ('{"type": {"type": {}}}', "no Avro schema"),
        ('{"type": "record", "name": "A", "fields": [{"name": "x", "type": "int", "default": "a"}]}', "no Avro schema"),
        ('{"type": "enum", "name": "A", "symbols": "abc d"}', "no Avro schema"),
        ('{"name": "A"}', "no Avro schema"),
        ("5", "no Avro schema"),
        ("null", "no Avro schema"),
        ('"com.acme.Order"', "uses com.acme.Order, which nothing defines"),
        ('["null", "Order"]', "uses Order"),
        (nested(201), "nested too deeply"),
        (nested(100_000), "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_no_schema_says_why(text: str, said: str) -> None:
    with pytest.raises(NotASchema, match=said):
        Schema(parsed(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["record", "int", "array", "A", "", "enum", "x.y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "name", "fields", "items", "namespace", "symbols", "aliases", "c360.class", "values"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_json_is_a_schema_or_is_refused(before: Any, now: Any) -> None:
    try:
        schemas = Schema(inlined(now, {})), Schema(before)
    except NotASchema:
        return
    compare(*schemas)


# ------------------------------------------------------------------------------------------------------ references
def test_types_of_other_files_are_put_where_they_are_first_used() -> None:
    money = {
        "type": "record",
        "name": "Money",
        "namespace": "shop",
        "fields": [of("Currency", "in"), of(LONG, "cents")],
    }
    currency = {"type": "enum", "name": "Currency", "namespace": "shop", "symbols": ["EUR"]}
    order = record(of("Money", "paid"), of(["null", "shop.Money"], "back"))
    assert wanted(order) == {"shop.Money"}
    assert wanted(money) == {"shop.Currency"}
    whole = inlined(order, defined(money) | defined(currency))
    assert wanted(whole) == set()
    assert [*defined(whole)] == ["shop.Order", "shop.Money", "shop.Currency"]
    assert Schema(whole).root.fields["back"].node.inside[1].fields["cents"].node.kind == LONG
    wider = {**money, "fields": [of("Currency", "in"), of("double", "cents")]}
    assert told(whole, inlined(order, defined(wider) | defined(currency))) == [("warning", "promotion", "paid.cents")]


def test_a_type_without_namespace_keeps_none_where_it_is_used() -> None:
    plain = {"type": "enum", "name": "Plain", "symbols": ["A"]}
    outer = {"type": "record", "name": "Outer", "fields": [of("Plain", "p")]}
    assert told(outer | {"fields": [of(plain, "p")]}, inlined(outer, defined(plain))) == []


# --------------------------------------------------------------------------------------------------------- classes
def test_a_class_that_does_not_exist_is_told() -> None:
    schema = Schema(
        record(of(TEXT, **{"c360.class": "secret"}), of({"type": "array", "items": {"type": TEXT, **PERSONAL}}, "b"))
    )
    assert [*classes_said(schema)] == [("it", "secret"), ("b[]", "personal")]
    (found,) = unknown_classes(schema)
    assert (found.rule, found.severity, found.place) == ("class", "error", "it")
    assert "personal or sensitive" in found.message


def test_a_class_around_what_is_inside_is_lost_once() -> None:
    inner = record(of({"type": TEXT, **PERSONAL}, "name"), name="Who")
    assert told(record(of(inner, **PERSONAL)), record(of(record(of(TEXT, "name"), name="Who")))) == [
        ("error", "class", "it")
    ]

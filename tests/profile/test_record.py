"""The profile record: keys in one order, compact JSON, raw Unicode."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from c360.profile.attribute import Attribute
from c360.profile.fold import Folding, Reader
from c360.profile.record import LEFT_OUT, ProfileView, ProfileWriter, as_of_text, attributes_type, same_values


def test_a_record_has_the_keys_of_the_api_page_in_its_order() -> None:
    write = ProfileWriter("customer", 3, ["email", "orders", "spend", "interests"])
    record = write(
        "crm:7",
        ["crm:7", "cookie:9f"],
        2,
        ["crm:7", "email:~k3v"],
        ["zoë", 12, "310.40", []],
        1793610900000,
        purpose="service",
    )
    assert record.decode() == (
        '{"profile_id":"crm:7","projection":"customer","version":3,"purpose":"service",'
        '"subjects":["crm:7","cookie:9f"],"subjects_total":2,"identifiers":["crm:7","email:~k3v"],'
        '"attributes":{"email":"zoë","orders":12,"spend":"310.40","interests":[]},"as_of":"2026-11-02T09:15:00Z"}'
    )


def test_the_internal_record_has_no_purpose_and_times_have_milliseconds_if_any() -> None:
    record = json.loads(ProfileWriter("p", 1, [])("s", ["s"], 1, ["s"], [], 1793610900007))
    assert record["purpose"] is None
    assert record["as_of"] == "2026-11-02T09:15:00.007Z"
    assert json.loads(ProfileWriter("p", 1, [])("s", [], 0, [], [], None))["as_of"] is None


def test_numbers_beyond_what_json_readers_hold_are_written_in_full() -> None:
    folding = Folding([Attribute("most", "maximum", "int"), Attribute("sum", "total", "decimal", scale=0)])
    fold, fragment = folding.folder([Reader(0, 0, int), Reader(1, 0, Decimal)], rows=False), folding.empty()
    fold(fragment, 2**200, 0, 1, 0)
    record = ProfileWriter("p", 1, ["most", "sum"])("s", [], 1, [], folding.values(fragment, 0), None)
    assert b'"attributes":{"most":%d,"sum":"%d"}' % (2**200, 2**200) in record


PAGE = Path(__file__).parents[2] / "docs" / "purposes.md"


def test_what_purposes_see_is_written_as_the_page_on_purposes_has_it() -> None:
    (golden,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith('{"profile_id"')]
    write = ProfileWriter("customer", 3, ["pages", "orders", "each", "greeting"])
    at = 1793610900000
    seen = ProfileView(["crm:7"], 1, ["crm:7"], attributes_type(["pages"])(["/"]), as_of_text(at - 60_000))
    both = ["cookie:9f", "crm:7"]
    views = {"marketing": seen, "service": None}
    values = [["/", "/a"], 1, "9.50", LEFT_OUT]
    assert write("crm:7", both, 2, both, values, at, views=views).decode() == golden
    assert write("crm:7", both, 2, both, values, at, views={}).decode() == golden.partition(',"views"')[0] + "}"


def test_values_are_the_same_where_they_are_written_alike() -> None:
    assert same_values([1, {"a": []}], [1, {"a": []}])
    assert not same_values([1], [1.0])
    assert not same_values([True], [1])

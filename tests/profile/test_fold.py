"""What a folding refuses: declarations that no fold can keep, records that do not fit, bytes of another."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pytest

from c360.errors import DeclarationError, Misfit, NeedsOperator
from c360.profile.attribute import Attribute
from c360.profile.fold import FIRST, Folding, Reader
from c360.profile.value import time_text
from tests.profile.folds import as_of, present


class NoOffset(tzinfo):
    def utcoffset(self, when: datetime | None) -> None:
        return None

    tzname = dst = utcoffset


@pytest.mark.parametrize(
    ("attribute", "says"),
    [
        (Attribute("spend", "total", "text"), "adds numbers"),
        (Attribute("spend", "total", "bool"), "adds numbers"),
        (Attribute("spend", "average", "json"), "adds numbers"),
        (Attribute("spend", "minimum", "json"), "with an order"),
        (Attribute("spend", "maximum", "json"), "with an order"),
        (Attribute("spend", "count", within_days=-1), "within is -1 days"),
        (Attribute("spend", "distinct", limit=0), "limit=0"),
        (Attribute("spend", "top", n=0), "n=0"),
        (Attribute("spend", "total", "int", scale=-1), "scale=-1"),
        (Attribute("spend", "total", "int", scale=19), "scale=19"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused_by_name(attribute: Attribute, says: str) -> None:
    with pytest.raises(DeclarationError, match=f"^spend: .*{says}"):
        Folding([Attribute("orders", "count"), attribute])


def test_bounds_of_declarations_are_taken() -> None:
    for attribute in (
        Attribute("a", "total", "float", scale=18),
        Attribute("a", "average", "int", scale=0, within_days=1),
        Attribute("a", "top", n=1, limit=1),
    ):
        assert len(Folding([attribute]).values({}, 0)) == 1


def test_two_attributes_of_one_name_are_refused() -> None:
    with pytest.raises(DeclarationError, match=r"^spend: two attributes"):
        Folding([Attribute("spend", "count"), Attribute("spend", "flag")])


NOTHING = [
    (Attribute("a", "count"), 0),
    (Attribute("a", "flag"), False),
    (Attribute("a", "total", "int"), "0.00"),
    (Attribute("a", "total", "int", scale=0), "0"),
    (Attribute("a", "average", "int"), None),
    (Attribute("a", "minimum", "int"), None),
    (Attribute("a", "maximum", "int"), None),
    (Attribute("a", "first"), None),
    (Attribute("a", "newest"), None),
    (Attribute("a", "prefer"), None),
    (Attribute("a", "top"), []),
    (Attribute("a", "distinct"), 0),
    (Attribute("a", "collect"), []),
]


@pytest.mark.parametrize(("attribute", "value"), NOTHING, ids=lambda x: x.kind if isinstance(x, Attribute) else "")
def test_none_is_nothing_and_nothing_has_a_value(attribute: Attribute, value: Any) -> None:
    for within in (0, 30):
        folding = Folding([replace(attribute, within_days=within)])
        assert folding.values(folding.empty(), 0) == [value]
        for rows in (False, True):
            fold, fragment = folding.folder([Reader(0, 0, lambda r: None)], rows=rows), folding.empty()
            fold(fragment, "record", 5, 1, 0)
            assert folding.values(fragment, 0) == [value]
            assert present(folding, fragment)
            assert as_of(folding, fragment) == 5
            assert fragment[0][FIRST] == folding._blank[FIRST]


def test_a_count_takes_what_is_there_and_a_flag_what_is_true() -> None:
    folding = Folding([Attribute("count", "count", "bool"), Attribute("flag", "flag", "bool")])
    fold = folding.folder([Reader(0, 0, lambda r: r), Reader(1, 0, lambda r: r)], rows=False)
    fragment = folding.empty()
    fold(fragment, False, 0, 1, 0)
    assert folding.values(fragment, 0) == [1, False]
    fold(fragment, True, 0, 1, 0)
    assert folding.values(fragment, 0) == [2, True]


def test_events_are_never_taken_back_and_a_sign_is_a_sign() -> None:
    folding = Folding([Attribute("orders", "count")])
    readers = [Reader(0, 0, lambda r: r)]
    for rows, sign in ((False, -1), (False, 0), (True, 0), (True, 2)):
        fragment = folding.empty()
        with pytest.raises(AssertionError):
            folding.folder(readers, rows=rows)(fragment, 1, 0, sign, 0)
        assert fragment == {}


UNFIT: list[tuple[Attribute, Any, str]] = [
    (Attribute("a", "total", "int"), True, "takes int, found bool"),
    (Attribute("a", "total", "float"), True, "takes int, found bool"),
    (Attribute("a", "total", "int"), "17", "takes int, found str"),
    (Attribute("a", "total", "int"), 10**400, "up to 400 digits"),
    (Attribute("a", "total", "decimal"), Decimal("1E+400"), "up to 400 digits"),
    (Attribute("a", "total", "decimal"), Decimal("1E+999999"), "up to 400 digits"),
    (Attribute("a", "newest", "decimal"), Decimal("1E-999999"), "up to 400 digits"),
    (Attribute("a", "total", "decimal"), Decimal("NaN"), "finite"),
    (Attribute("a", "total", "decimal"), Decimal("sNaN"), "finite"),
    (Attribute("a", "average", "decimal"), Decimal("-Infinity"), "finite"),
    (Attribute("a", "total", "decimal"), 1.5, "takes int, found float"),
    (Attribute("a", "average", "float"), float("inf"), "finite"),
    (Attribute("a", "maximum", "float"), float("nan"), "finite"),
    (Attribute("a", "maximum", "float"), 10**399, "a float can hold"),
    (Attribute("a", "newest", "datetime"), datetime(2026, 1, 1), "with a time zone"),
    (Attribute("a", "newest", "datetime"), datetime(2026, 1, 1, tzinfo=NoOffset()), "with a time zone"),
    (Attribute("a", "newest", "datetime"), date(2026, 1, 1), "takes datetime, found date"),
    (Attribute("a", "top", "datetime"), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
    (Attribute("a", "top", "datetime"), datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=1))), "years 1 to"),
    (Attribute("a", "minimum", "date"), datetime(2026, 1, 1, tzinfo=UTC), "takes date, found datetime"),
    (Attribute("a", "distinct", "text"), 17, "takes text, found int"),
    (Attribute("a", "first", "bool"), 1, "takes bool, found int"),
    (Attribute("a", "collect", "json"), float("nan"), "plain JSON"),
    (Attribute("a", "collect", "json"), {"a": {1, 2}}, "plain JSON"),
]


@pytest.mark.parametrize(
    ("attribute", "value", "says"), UNFIT, ids=lambda x: f"{x.kind}-{x.type}" if isinstance(x, Attribute) else ""
)
def test_a_value_that_does_not_fit_is_a_misfit_that_changes_nothing_and_is_not_told(
    attribute: Attribute, value: Any, says: str
) -> None:
    folding = Folding([Attribute("orders", "count"), attribute])
    readers = [Reader(0, 0, lambda r: 1), Reader(1, 0, lambda r: r)]
    for rows in (False, True):
        fold, fragment = folding.folder(readers, rows=rows), folding.empty()
        with pytest.raises(Misfit, match=says) as caught:
            fold(fragment, value, 0, 1, 0)
        assert fragment == {}
        assert str(caught.value).startswith("attribute a takes ")
        assert caught.value.reason == "unfit-value"
        assert caught.value.__suppress_context__


def test_what_a_reader_raises_comes_through_and_changes_nothing() -> None:
    folding = Folding([Attribute("orders", "count"), Attribute("spend", "total", "int")])
    fold = folding.folder([Reader(0, 0, lambda r: 1), Reader(1, 0, lambda r: 1 // r)], rows=False)
    fragment = folding.empty()
    fold(fragment, 1, 0, 1, 0)
    before = deepcopy(fragment)
    with pytest.raises(ZeroDivisionError):
        fold(fragment, 0, 9, 1, 0)
    assert fragment == before


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [(-62_135_596_800_000, "0001-01-01T00:00:00Z"), (253_402_300_799_999, "9999-12-31T23:59:59.999Z")],
)
def test_event_times_are_those_that_have_a_date(at_ms: int, text: str) -> None:
    folding = Folding([Attribute("a", "newest", "int"), Attribute("b", "prefer", "int")])
    fold, fragment = folding.folder([Reader(0, 0, read_7), Reader(1, 9_999, read_7)], rows=False), folding.empty()
    fold(fragment, None, at_ms, 1, 0)
    assert folding.values(fragment, 0) == [7, 7]
    assert time_text(at_ms) == text
    for beyond in (-62_135_596_800_001, 253_402_300_800_000):
        with pytest.raises(Misfit, match="years 1 to 9999") as caught:
            fold(fragment, None, beyond, 1, 0)
        assert caught.value.reason == "unfit-time"


def read_7(record: None) -> int:
    return 7


def test_there_are_only_so_many_ranks() -> None:
    with pytest.raises(AssertionError, match="rank 10000"):
        Folding([Attribute("a", "prefer", "int")]).folder([Reader(0, 10_000, read_7)], rows=False)


class Name(str):
    def __str__(self) -> str:
        return "never this"


def test_texts_of_a_class_of_the_user_are_kept_as_plain_text() -> None:
    for kind in ("newest", "top", "collect", "maximum"):
        folding = Folding([Attribute("names", kind, "text")])
        for rows in (False, True):
            fragment = folding.empty()
            folding.folder([Reader(0, 0, lambda r: r)], rows=rows)(fragment, Name("ann"), 0, 1, 0)
            assert folding.decode(folding.encode(fragment)) == fragment
            assert folding.values(fragment, 0) in (["ann"], [["ann"]])


def test_bytes_of_another_declaration_or_format_are_not_read() -> None:
    one, two = Folding([Attribute("a", "count")]), Folding([Attribute("a", "count"), Attribute("b", "count")])
    fragment = one.empty()
    one.folder([Reader(0, 0, read_7)], rows=False)(fragment, None, 0, 1, 0)
    data = one.encode(fragment)
    assert one.decode(data) == fragment
    with pytest.raises(NeedsOperator, match="1 cells instead of 2"):
        two.decode(data)
    with pytest.raises(NeedsOperator, match="format 1"):
        one.decode(data.replace(b"\x93\x02", b"\x93\x01", 1))


def test_attributes_that_count_the_same_values_share_a_cell() -> None:
    same = "Event.sku"
    folding = Folding(
        [
            Attribute("different", "distinct", "text", of=same),
            Attribute("events", "count"),
            Attribute("favourite", "top", "text", n=1, of=same),
            Attribute("few", "top", "text", limit=1, of=same),  # keeps another sample
            Attribute("of_late", "top", "text", within_days=30, of=same),
            Attribute("elsewhere", "top", "text", of="Event.colour"),
            Attribute("alone", "top", "text"),
        ]
    )
    fold = folding.folder([Reader(i, 0, lambda r: r) for i in range(7)], rows=False)
    fragment = folding.empty()
    for value in ("a", "b", "b"):
        fold(fragment, value, 0, 1, 0)
    cells = fragment[0][FIRST:]
    assert len(cells) == 6
    assert cells[0] == {"a": 1, "b": 2}, "counted once"
    values = folding.values(fragment, 0)
    assert values[:3] == [2, 3, ["b"]]
    assert values[4:] == [["b", "a"]] * 3


def test_a_shared_cell_is_filled_also_by_a_type_that_only_a_later_attribute_names() -> None:
    """Readers come per record type; the first attribute's are there whenever the others' are, as both read the same."""
    folding = Folding([Attribute("top", "top", "text", of="x"), Attribute("distinct", "distinct", "text", of="x")])
    one = folding.folder([Reader(0, 0, lambda r: r[0]), Reader(1, 0, lambda r: r[0])], rows=False)
    other = folding.folder([Reader(1, 0, lambda r: r[1]), Reader(0, 0, lambda r: r[1])], rows=True)
    fragment = folding.empty()
    one(fragment, ("a", "b"), 0, 1, 0)
    other(fragment, ("a", "b"), 0, 1, 0)
    assert folding.values(fragment, 0) == [["a", "b"], 2]


def test_an_empty_text_in_a_window_is_a_value() -> None:
    folding = Folding([Attribute("least", "minimum", "text", within_days=7)])
    fold = folding.folder([Reader(0, 0, lambda r: r)], rows=False)
    fragment = folding.empty()
    fold(fragment, "", 0, 1, 0)
    assert folding.values(fragment, 0) == [""]
    assert folding.values(folding.merge(fragment, folding.empty()), 0) == [""]
    assert folding.values(folding.merge(folding.empty(), fragment), 0) == [""]

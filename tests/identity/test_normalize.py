"""Normalisers: what is one value is one text, what identifies nobody is None, and normal text stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import DeclarationError
from c360.identity import normalize as n

GERMAN = n.phone("DE")
NORMALIZERS: dict[str, Callable[[str], str | None]] = {
    "text": n.text,
    "lower": n.lower,
    "opaque": n.opaque,
    "device": n.device,
    "email": n.email,
    "email_by_provider": n.email_by_provider(),
    "phone": GERMAN,
    "folded": n.folded,
}
values = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[A-Za-z.+]{1,8}@(gmail|googlemail|shop)\.(com|test)", fullmatch=True),
    st.from_regex(r"(\+49|0)[ -]?[1-9][0-9]{5,11}", fullmatch=True),
    st.uuids().map(str),
)


@pytest.mark.parametrize("name", NORMALIZERS)
@given(value=values)
def test_what_is_normal_stays_as_it_is_and_blanks_around_it_do_not_count(name: str, value: str) -> None:
    normal = NORMALIZERS[name](value)
    if normal is not None:
        assert normal
        assert NORMALIZERS[name](normal) == normal
        assert NORMALIZERS[name](f" {value}\t") == normal


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (" Ana@Shop.TEST ", "ana@shop.test"),
        ("ana@bücher.example", "ana@xn--bcher-kva.example"),
        ("ａｎａ@shop.test", "ana@shop.test"),
        ("a.na+news@gmail.com", "a.na+news@gmail.com"),
        ("ana", None),
        ("@shop.test", None),
        ("ana@", None),
        ("ana@x@shop.test", None),
        ("a na@shop.test", None),
    ],
)
def test_e_mail(value: str, normal: str | None) -> None:
    assert n.email(value) == normal


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("A.na+news@GoogleMail.com", "ana@gmail.com"),
        ("a.na+news@icloud.com", "a.na@icloud.com"),
        ("ana-news@yahoo.com", "ana@yahoo.com"),
        ("a.na+news@shop.test", "a.na+news@shop.test"),
        ("+news@gmail.com", None),
    ],
)
def test_e_mail_by_what_its_provider_tells_apart(value: str, normal: str | None) -> None:
    assert n.email_by_provider(version=1)(value) == normal


def test_a_version_of_provider_rules_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"there are versions 1"):
        n.email_by_provider(version=9)


@pytest.mark.parametrize(
    ("region", "value", "normal"),
    [
        ("DE", "030 / 901820", "+4930901820"),
        ("DE", "+49 (0)30 901820", "+4930901820"),
        ("DE", "0049 30 901820", "+4930901820"),
        ("US", "(650) 253-0000", "+16502530000"),
        (None, "+1 650 253 0000", "+16502530000"),
        (None, "030 901820", None),
        ("DE", "123", None),
        ("DE", "ring me", None),
        ("DE", "+49 1", None),
    ],
)
def test_phone(region: str | None, value: str, normal: str | None) -> None:
    assert n.phone(region)(value) == normal


def test_a_region_that_is_none_is_refused() -> None:
    with pytest.raises(DeclarationError, match="two capital letters"):
        n.phone("Germany")


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("6F9619FF-8B86-D011-B42D-00CF4FC964FF", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        ("6F9619FF8B86D011B42D00CF4FC964FF", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
        ("00000000-0000-0000-0000-000000000000", None),
        ("aabbaabb", None),
        ("abc", None),
        ("Android-77", "android-77"),
    ],
)
def test_device(value: str, normal: str | None) -> None:
    assert n.device(value) == normal


def test_an_opaque_id_keeps_its_case() -> None:
    assert n.opaque(" aBc9xY ") == "aBc9xY"
    assert [n.opaque(v) for v in ("aBc9x", "ababab", "")] == [None, None, None]


def test_a_composite_is_one_value_of_all_its_parts_and_none_if_one_is_missing() -> None:
    assert n.composite(["Ana  María", "1980-02-01", " 10115"]) == "ana maría|1980-02-01|10115"
    assert n.composite(["ANA MARÍA", "1980-02-01", "10115"]) == "ana maría|1980-02-01|10115"
    for missing in (None, "", "  "):
        assert n.composite(["Ana", missing, "10115"]) is None
    assert n.composite([]) is None


@given(
    st.lists(st.text("ab|\\ ", min_size=1), min_size=1, max_size=3), st.lists(st.text("ab|\\ ", min_size=1), max_size=3)
)
def test_different_parts_are_different_composites(one: list[str], two: list[str]) -> None:
    first, second = n.composite(one), n.composite(two)
    if first is not None and first == second:
        assert [n.folded(part) for part in one] == [n.folded(part) for part in two]

"""Decisions out of plain records, Segment calls and TC strings; what cannot be used says what to do, and names no value."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.clock import DAY_MS
from c360.errors import DeclarationError, Misfit
from c360.governance.consent import AHEAD_MS, Decision
from c360.governance.inputs import FromTcf, check_categories, decided_at, plain, segment, tcf
from c360.governance.purposes import Purpose, Purposes
from c360.governance.tcf import Restriction, Vendors, decode_core

PURPOSES = Purposes([Purpose("marketing"), Purpose("analytics"), Purpose("service", "contract")])
LATEST = 10**13
AT = 1_793_610_000_000
GOOD: dict[str, Any] = {"purpose": "marketing", "status": "granted", "at": AT}


def misfit(make: Callable[[], object]) -> Misfit:
    with pytest.raises(Misfit) as caught:
        make()
    return caught.value


def decided(record: dict[str, Any], *identifiers: str, appended: int = LATEST) -> tuple[Decision, ...]:
    return plain(record, identifiers=identifiers or ("email:a",), purposes=PURPOSES, source="web", appended=appended)


# --------------------------------------------------------------------------------------------------------------- plain
def test_a_plain_record_is_a_decision() -> None:
    assert decided(GOOD) == (Decision("email:a", "marketing", "granted", AT, "web"),)
    end = datetime(2027, 1, 1, tzinfo=UTC)
    at = datetime(2026, 11, 2, 10, 0, tzinfo=timezone(timedelta(hours=1)))
    (found,) = decided({"purpose": "analytics", "granted": False, "at": at, "expires_at": end})
    assert found == Decision("email:a", "analytics", "denied", AT, "web", 1_798_761_600_000)


def test_a_record_of_several_identifiers_decides_for_each_once() -> None:
    assert [d.identifier for d in decided(GOOD, "email:a", "crm:1", "email:a")] == ["crm:1", "email:a"]


def test_a_grant_from_the_future_counts_as_of_when_it_came_and_a_refusal_up_to_five_minutes_later() -> None:
    refusal = {**GOOD, "status": "withdrawn"}
    assert decided(GOOD, appended=AT - 5)[0].at == AT - 5
    assert decided(refusal, appended=AT - 5)[0].at == AT
    assert decided(refusal, appended=AT - AHEAD_MS - 5)[0].at == AT - 5


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"purpose": "SECRET"}, "unknown-purpose", "declare it with app.purpose"),
        ({"purpose": None}, "missing-field", "send the name of one that the app declares"),
        ({"purpose": ["SECRET"]}, "wrong-type", "send the name of a declared purpose"),
        ({"status": "SECRET"}, "not-consent", "send one of granted, denied, withdrawn"),
        ({"status": ["SECRET"]}, "not-consent", "send one of granted, denied, withdrawn"),
        ({"status": None}, "missing-field", "send one of granted, denied, withdrawn"),
        ({"granted": True}, "not-consent", "both status and granted; send one"),
        ({"status": None, "granted": "SECRET"}, "wrong-type", "neither true nor false"),
        ({"at": None}, "missing-field", "send when the customer decided"),
        ({"at": "SECRET"}, "wrong-type", "send ISO 8601 with a zone"),
        ({"at": True}, "wrong-type", "send ISO 8601 with a zone"),
        ({"at": -1}, "out-of-range", "between 1970 and 9999"),
        ({"at": 1 << 70}, "out-of-range", "between 1970 and 9999"),
        ({"at": datetime(2026, 11, 2)}, "no-zone", "send one, such as Z"),
        ({"expires_at": "SECRET"}, "wrong-type", "the field expires_at"),
        ({"expires_at": 1 << 70}, "out-of-range", "the field expires_at"),
    ],
)
def test_bad_input_is_a_misfit_that_says_what_to_do_and_no_value(
    change: dict[str, Any], reason: str, says: str
) -> None:
    error = misfit(lambda: decided({**GOOD, **change}))
    assert error.reason == reason
    assert says in str(error)
    assert "SECRET" not in str(error)


@pytest.mark.parametrize("identifiers", [[], [""]])
def test_consent_without_identifier_is_about_nobody(identifiers: list[str]) -> None:
    error = misfit(lambda: plain(GOOD, identifiers=identifiers, purposes=PURPOSES, source="web", appended=LATEST))
    assert (error.reason, "send an identifier" in str(error)) == ("no-subject", True)


# ------------------------------------------------------------------------------------------------------------- Segment
CATEGORIES = {"Advertising": "marketing", "DataSharing": "marketing", "Analytics": "analytics", "Functional": None}


def call(preferences: Any) -> dict[str, Any]:
    return {"type": "track", "context": {"ip": "::1", "consent": {"categoryPreferences": preferences}}}


def from_segment(of: dict[str, Any]) -> tuple[dict[str, str], str | None]:
    found = segment(of, identifiers=["cookie:c"], categories=CATEGORIES, at=AT, source="web", appended=LATEST)
    assert all((d.identifier, d.at, d.source) == ("cookie:c", AT, "web") for d in found.decisions)
    return {d.purpose: d.status for d in found.decisions}, found.misfit.reason if found.misfit else None


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        ({"Advertising": True, "Analytics": False, "Functional": True, "DataSharing": False},  # Segment's own example
         {"marketing": "denied", "analytics": "denied"}),
        ({"Advertising": True, "DataSharing": True}, {"marketing": "granted"}),
        ({"Advertising": True}, {}),  # the other half of marketing is not decided on: missing is never yes
        ({"Advertising": False}, {"marketing": "denied"}),
        ({"Analytics": True, "Functional": False}, {"analytics": "granted"}),
        ({}, {"marketing": "denied", "analytics": "denied"}),  # as Segment reads it
    ],
)  # fmt: skip
def test_a_segment_call_decides_by_its_categories(preferences: dict[str, bool], expected: dict[str, str]) -> None:
    assert from_segment(call(preferences)) == (expected, None)


@pytest.mark.parametrize("of", [{}, {"context": None}, {"context": {}}, {"context": {"consent": {}}}])
def test_a_segment_call_without_consent_decides_nothing_and_needs_no_identifier(of: dict[str, Any]) -> None:
    found = segment(of, identifiers=[], categories=CATEGORIES, at=AT, source="web", appended=LATEST)
    assert found == ((), None)


def test_a_category_that_nobody_mapped_is_a_misfit_beside_what_counts() -> None:
    assert from_segment(call({"New": True, "Analytics": False})) == ({"analytics": "denied"}, "unknown-purpose")


@pytest.mark.parametrize("value", ["false", "true", 1, None, {}])
def test_what_is_neither_true_nor_false_counts_as_refused_and_is_a_misfit(value: object) -> None:
    assert from_segment(call({"Analytics": value})) == ({"analytics": "denied"}, "wrong-type")


@pytest.mark.parametrize("of", [{"context": 1}, {"context": {"consent": "yes"}}, call([True])])
def test_a_consent_object_of_another_shape_is_a_misfit(of: dict[str, Any]) -> None:
    error = misfit(lambda: from_segment(of))
    assert (error.reason, "as Segment documents it" in str(error)) == ("wrong-type", True)


def test_segment_s_decisions_need_an_identifier_and_are_clamped() -> None:
    preferences = call({"Analytics": True})
    error = misfit(
        lambda: segment(preferences, identifiers=[], categories=CATEGORIES, at=AT, source="w", appended=LATEST)
    )
    assert error.reason == "no-subject"
    found = segment(preferences, identifiers=["c:1"], categories=CATEGORIES, at=AT, source="w", appended=AT - 1)
    assert found.decisions[0].at == AT - 1


def test_categories_are_mapped_to_declared_purposes() -> None:
    assert check_categories(CATEGORIES, PURPOSES, "source Click") == CATEGORIES
    with pytest.raises(
        DeclarationError, match=r"source Click: .*'adverts'.*declared are: analytics, marketing, service"
    ):
        check_categories({"Advertising": "adverts"}, PURPOSES, "source Click")


# ----------------------------------------------------------------------------------------------------------------- TCF
def members(vendors: Vendors) -> list[int]:
    return [v for first, last in vendors.ranges for v in range(first, last + 1)]


# Strings and what is in them as the public specification and other implementations of it have them.
def test_the_specification_s_string_with_segments_is_read() -> None:
    core = decode_core(
        "COw4XqLOw4XqLAAAAAENAXCAAAAAAAAAAAAAAAAAAAAA.IFukWSQgAIQwgI0QEByFAAAAeIAACAIgSAAQAIAg.YAAAAAAAAAA"
    )
    assert (core.created, core.last_updated) == (1_585_246_887_500, 1_585_246_887_500)
    assert (core.cmp_id, core.vendor_list_version, core.policy_version, core.service_specific) == (0, 23, 2, False)
    assert not core.purposes_consent | core.purposes_li_transparency
    assert not members(core.vendors_consent) + members(core.vendors_li)


def test_the_specification_s_string_with_a_publisher_segment_is_read() -> None:
    core = decode_core(
        "CLcVDxRMWfGmWAVAHCENAXCkAKDAADnAABRgA5mdfCKZuYJez-NQm0TBMYA4oCAAGQYIAAAAAAEAIAEgAA.argAC0gAAAAAAAAAAAA"
    )
    assert (core.created // 1000, core.last_updated // 1000) == (1_228_644_257, 1_326_215_413)
    assert (core.cmp_id, core.vendor_list_version) == (21, 23)
    assert core.purposes_consent == {1, 3, 9, 10}
    assert core.restrictions == ()


def test_a_string_with_times_and_many_vendors_is_read() -> None:
    core = decode_core("CGL23UdMFJzvuA9ACCENAXCEAC0AAGrAAA5YA5ht7-_d_7_vd-f-nrf4_4A4hM4JCKoK4YhmAqABgAEgAA")
    assert (core.created, core.last_updated, core.cmp_id) == (664_138_268_500, 1_297_135_921_400, 61)
    assert core.purposes_consent == {3, 5, 6, 8}
    assert core.purposes_li_transparency == {2, 3, 5, 7, 9, 10}
    consented = members(core.vendors_consent)
    assert (consented[:9], len(consented), consented[-3:]) == ([4, 5, 7, 8, 10, 11, 12, 13, 15], 91, [113, 114, 115])
    assert members(core.vendors_li) == [
        4, 7, 8, 11, 12, 13, 19, 22, 27, 31, 33, 35, 37, 43, 45, 47, 48, 49, 54, 55, 59, 64, 65, 68, 69, 77, 79, 81, 94, 95,
        110, 113,
    ]  # fmt: skip


def test_a_bit_field_of_vendors_is_read() -> None:
    core = decode_core("COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA")
    assert core.last_updated == 1_582_243_059_300
    assert (core.cmp_id, core.vendor_list_version) == (27, 15)
    assert core.purposes_consent == {1, 2, 3}
    assert not core.purposes_li_transparency
    assert (members(core.vendors_consent), members(core.vendors_li)) == ([2, 6, 8], [2, 6, 8])


def test_ranges_of_vendors_and_restrictions_are_read() -> None:
    core = decode_core(
        "COw4XqLOw4XqLAAAAAENAXCf-v-gAAAfwIAAACngAI8AEFABgACAA4A.IAPPwAPrwA.QAPPwAPrwA.cAEAPAAAC7gAHw4AAA"
    )
    assert core.purposes_consent == {1, 2, 3, 4, 5, 6, 7, 8, 9, 11}
    assert core.purposes_li_transparency == {12, 13, 14, 15, 16, 17, 18}
    assert (members(core.vendors_consent), members(core.vendors_li)) == ([2, 3, 4, 5], [1, 2, 3, 4])
    assert core.restrictions == (Restriction(1, 1, Vendors(((1, 7),))),)


Ranges = list[tuple[int, int]]


def written(
    consent: set[int],
    transparency: set[int] = frozenset(),  # type: ignore[assignment]  # empty, never changed
    vendors: Ranges | None = None,
    li: Ranges | None = None,
    restrictions: list[tuple[int, int, Ranges]] | None = None,
    *,
    updated: int = AT - AT % DAY_MS,
    specific: int = 1,
    version: int = 2,
    field: bool = False,
    most_of_consent: int | None = None,
) -> str:
    """A TC string by the specification's table, as text of bits. `most_of_consent`: a MaxVendorId that is not true."""

    def number(value: int, bits: int) -> str:
        return format(value, f"0{bits}b")

    def entries(ranges: Ranges) -> str:
        each = [
            "0" + number(first, 16) if first == last else "1" + number(first, 16) + number(last, 16)
            for first, last in ranges
        ]
        return number(len(ranges), 12) + "".join(each)

    def section(ranges: Ranges, most: int | None = None) -> str:
        most = max((last for _, last in ranges), default=0) if most is None else most
        if field:
            return (
                number(most, 16)
                + "0"
                + "".join("1" if any(a <= v <= b for a, b in ranges) else "0" for v in range(1, most + 1))
            )
        return number(most, 16) + "1" + entries(ranges)

    bits = number(version, 6) + 2 * number(updated // 100, 36) + number(5, 12) + number(1, 12) + number(1, 6)
    bits += number(4, 6) + number(13, 6) + number(99, 12) + number(4, 6) + str(specific) + "0" + "0" * 12
    bits += "".join("1" if p in consent else "0" for p in range(1, 25))
    bits += "".join("1" if p in transparency else "0" for p in range(1, 25))
    bits += "0" + number(3, 6) + number(4, 6) + section(vendors or [], most_of_consent) + section(li or [])
    bits += number(len(restrictions or []), 12)
    for purpose, kind, ranges in restrictions or []:
        bits += number(purpose, 6) + number(kind, 2) + entries(ranges)
    bits += "0" * (-len(bits) % 8)
    return base64.urlsafe_b64encode(int(bits, 2).to_bytes(len(bits) // 8, "big")).decode().rstrip("=")


spans = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 40)).map(lambda p: (p[0], p[0] + p[1])), max_size=5)
some = st.sets(st.integers(1, 24))


@given(some, some, spans, spans, st.booleans())
def test_what_was_written_is_read(
    consent: set[int], li: set[int], vendors: Ranges, others: Ranges, field: bool
) -> None:
    core = decode_core(written(consent, li, vendors, others, [(3, 2, vendors)], field=field))
    assert core.purposes_consent == consent
    assert core.purposes_li_transparency == li
    for v in range(1, 260):
        assert core.vendors_consent.holds(v) is any(a <= v <= b for a, b in vendors)
        assert core.vendors_li.holds(v) is any(a <= v <= b for a, b in others)
    assert core.restrictions == (Restriction(3, 2, Vendors(tuple(vendors))),)


def test_a_range_beyond_the_greatest_vendor_is_a_misfit() -> None:
    assert decode_core(written({1}, vendors=[(2, 9)], most_of_consent=9)).vendors_consent.holds(9)
    assert misfit(lambda: decode_core(written({1}, vendors=[(2, 9)], most_of_consent=8))).reason == "not-consent"


FULL = written({1, 2}, {7}, [(1, 9)], [(1, 9)])


@given(st.integers(0, len(FULL) - 1))
def test_a_string_that_was_cut_is_a_misfit(length: int) -> None:
    """Down to the last byte that is not only filling."""
    if length <= len(FULL) - 3:
        error = misfit(lambda: decode_core(FULL[:length]))
        assert (error.reason, "send the string as it is, uncut" in str(error)) == ("not-consent", True)


@given(st.text(max_size=40) | st.text("ABCCCxyz019-_.=", max_size=300))
def test_garbage_is_read_or_a_misfit_and_never_anything_else(text: str) -> None:
    with suppress(Misfit):
        assert decode_core(text).created >= 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("not a string!", "characters"),
        ("CAAAA", "not base64"),
        ("A" * 100_001, "longer than"),
        (written({1}, version=1), "its version is not 2"),
        (written({1}, vendors=[(9, 5)]), "a range of vendors ends before it begins"),
        (written({1}, vendors=[(0, 5)]), "a range of vendors ends before it begins"),
    ],
)
def test_a_string_that_cannot_be_read_says_why(text: str, says: str) -> None:
    assert says in str(misfit(lambda: decode_core(text)))


MARKETING = FromTcf(consent=frozenset({3, 4}), legitimate_interest=frozenset({7}), vendor=5)


def from_tcf(text: str, wanted: FromTcf = MARKETING) -> str:
    (found,) = tcf(text, identifiers=["c:1"], purposes={"marketing": wanted}, seen=AT, source="cmp", appended=LATEST)
    assert (found.identifier, found.purpose, found.source) == ("c:1", "marketing", "cmp")
    return found.status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (written({3, 4, 7}, set(), [(5, 5)]), "granted"),
        (written({3, 4}, {7}, [(5, 5)], [(1, 9)]), "granted"),
        (written({3, 4}, {7}, [(5, 5)], [(6, 9)]), "denied"),  # no legitimate interest of our vendor
        (written({3, 4}, set(), [(5, 5)], [(1, 9)]), "denied"),  # objected to 7
        (written({3, 7}, set(), [(5, 5)]), "denied"),  # not 4
        (written({3, 4, 7}, set(), [(1, 4), (6, 9)]), "denied"),  # not our vendor
        (written({3, 4, 7}, set(), [(5, 5)], [], [(4, 0, [(5, 5)])]), "denied"),  # the publisher does not allow it
        (written({3, 4, 7}, set(), [(5, 5)], [], [(4, 2, [(1, 9)])]), "denied"),  # it is not left to consent
        (written({3, 4, 7}, set(), [(5, 5)], [], [(4, 1, [(1, 9)])]), "granted"),  # consent it is
        (
            written({3, 4, 7}, set(), [(5, 5)], [], [(4, 0, [(6, 6)]), (2, 0, [(5, 5)])]),
            "granted",
        ),  # others' restrictions
        (written({3, 4}, {7}, [(5, 5)], [(5, 5)], [(7, 1, [(5, 5)])]), "denied"),  # 7 only by consent here
        (written(set()), "denied"),
    ],
)
def test_a_tc_string_grants_exactly_if_all_that_is_asked_for_is_there(text: str, expected: str) -> None:
    assert from_tcf(text) == expected


def test_without_a_vendor_purposes_alone_decide() -> None:
    assert from_tcf(written({3}), FromTcf(consent=frozenset({3}))) == "granted"
    assert from_tcf(written(set(), {7}), FromTcf(legitimate_interest=frozenset({7}))) == "granted"
    assert from_tcf(written(set(), {7}), FromTcf(consent=frozenset({7}))) == "denied"


def test_a_string_of_global_scope_is_invalid() -> None:
    assert "IsServiceSpecific" in str(misfit(lambda: from_tcf(written({3, 4, 7}, specific=0))))


def test_a_tc_string_without_identifier_is_about_nobody() -> None:
    error = misfit(
        lambda: tcf(FULL, identifiers=[], purposes={"marketing": MARKETING}, seen=AT, source="c", appended=LATEST)
    )
    assert error.reason == "no-subject"


def test_a_tc_string_from_the_future_is_clamped() -> None:
    (refused,) = tcf(
        FULL, identifiers=["c:1"], purposes={"m": MARKETING}, seen=AT, source="c", appended=AT - 9 - AHEAD_MS
    )
    assert (refused.status, refused.at) == ("denied", AT - 9)
    granting = written({3, 4, 7}, set(), [(5, 5)])
    (granted,) = tcf(granting, identifiers=["c:1"], purposes={"m": MARKETING}, seen=AT, source="c", appended=AT - 9)
    assert (granted.status, granted.at) == ("granted", AT - 9)


@pytest.mark.parametrize(("consent", "vendor"), [(set(), None), ({0}, None), ({25}, None), ({1}, 0), ({1}, 1 << 16)])
def test_a_mapping_that_asks_for_nothing_that_exists_is_refused(consent: set[int], vendor: int | None) -> None:
    with pytest.raises(DeclarationError, match="a mapping from TCF"):
        FromTcf(consent=frozenset(consent), vendor=vendor)


DAY = AT - AT % DAY_MS


@pytest.mark.parametrize(
    ("updated", "seen", "granted", "denied"),
    [
        (DAY + 100, DAY + 5000, DAY + 100, DAY + 100),  # a time of day is one
        (DAY, DAY + 5000, DAY + 5000, DAY + 5000),  # a day, and sent on it
        (DAY, DAY + DAY_MS - 1, DAY + DAY_MS - 1, DAY + DAY_MS - 1),
        (DAY, DAY + DAY_MS, DAY, DAY + DAY_MS - 1),  # sent later: a grant from its beginning, a refusal from its end
        (DAY, DAY - 1, DAY, DAY),  # a clock that is behind
    ],
)
def test_a_tc_string_was_decided_on_its_day(updated: int, seen: int, granted: int, denied: int) -> None:
    assert decided_at(updated, seen, "granted") == granted
    assert decided_at(updated, seen, "denied") == denied

"""Purposes: their declarations, and what of a projection a purpose may see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import DeclarationError
from c360.governance.purposes import Purpose, Purposes, check_view, states_of, view_of

ALL = Purposes([Purpose("service", "contract"), Purpose("marketing"), Purpose("analytics")])
S, M = frozenset({"service"}), frozenset({"marketing", "service"})
PERMITTED = {"Click": M, "Order": M, "Claim": S, "Draft": frozenset[str]()}
STATES = states_of(
    {
        "orders": ["Order"],
        "last_seen": ["Click", "Order", "Claim"],
        "claims": ["Claim"],
        "draft": ["Draft"],
        "odd": ["New"],
    },
    PERMITTED,
)


@pytest.mark.parametrize("name", ["", "Marketing", "9lives", "a b", "a-b", "a.b", "x" * 41, "marketing\n"])
def test_a_name_that_is_no_topic_s_end_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="write a lower-case letter"):
        Purpose(name)


def test_a_purpose_cannot_take_the_place_of_the_parts_topic() -> None:
    with pytest.raises(DeclarationError, match="use another"):
        Purpose("parts")


def test_a_basis_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(DeclarationError, match=r"'hope' is none; write one of consent, contract, legal_obligation"):
        Purpose("marketing", "hope")  # type: ignore[arg-type]  # as a user without a type checker writes


def test_without_a_word_a_purpose_asks_people() -> None:
    assert Purpose("marketing").asks
    assert not Purpose("service", "contract").asks


def test_a_purpose_is_declared_once() -> None:
    with pytest.raises(DeclarationError, match="declared twice"):
        Purposes([Purpose("marketing"), Purpose("marketing", "contract")])


def test_purposes_that_nobody_declares_are_named_with_the_place() -> None:
    assert ALL.permitted(["service"], "source Click") == S
    assert ALL.permitted([], "source Click") == frozenset()
    with pytest.raises(
        DeclarationError, match=r"source Click: purposes= names 'marketng'.*analytics, marketing, service"
    ):
        ALL.permitted(["service", "marketng"], "source Click")


@given(st.sets(st.sampled_from(ALL.names)))
def test_a_purpose_set_comes_back_from_its_bits(names: set[str]) -> None:
    assert ALL.of_mask(ALL.mask(names)) == names


def test_bits_do_not_depend_on_the_order_of_declarations() -> None:
    other = Purposes(reversed(ALL.by_name.values()))
    assert other.mask({"service"}) == ALL.mask({"service"}) == 4


def test_a_mask_of_other_purposes_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="not declared"):
        ALL.of_mask(8)


def test_an_attribute_has_a_state_per_distinct_purpose_set_of_its_sources() -> None:
    assert dict(STATES) == {
        "orders": (M,),
        "last_seen": (M, S),
        "claims": (S,),
        "draft": (frozenset(),),
        "odd": (frozenset(),),  # of a source that says nothing
    }


def test_a_view_has_what_its_purpose_may_use_and_nothing_else() -> None:
    marketing = view_of(STATES, "marketing")
    assert marketing.states == {"orders": (M,), "last_seen": (M,)}
    assert marketing.whole == {"orders"}
    service = view_of(STATES, "service")
    assert service.states == {"orders": (M,), "last_seen": (M, S), "claims": (S,)}
    assert service.whole == {"orders", "last_seen", "claims"}


def test_a_view_that_could_never_hold_anything_is_refused() -> None:
    assert check_view(STATES, "marketing", "projection Profile") == view_of(STATES, "marketing")
    with pytest.raises(
        DeclarationError, match=r"projection Profile: .*'analytics'.*add analytics to purposes= of a source"
    ):
        check_view(STATES, "analytics", "projection Profile")


sources = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.sampled_from(ALL.names)))
attributes = st.dictionaries(st.sampled_from("xyz"), st.sets(st.sampled_from("abcde"), min_size=1))


@given(attributes, sources, st.sampled_from(ALL.names))
def test_a_record_is_in_a_view_exactly_if_its_source_permits_the_purpose(
    attributes: dict[str, set[str]], permitted: dict[str, frozenset[str]], purpose: str
) -> None:
    """Read off source by source, and by the bits that the engine compares."""
    view = view_of(states_of(attributes, permitted), purpose)
    for attribute, its in attributes.items():
        for source in its:
            purposes = permitted.get(source, frozenset())
            seen = purposes in view.states.get(attribute, ())
            assert seen is (purpose in purposes)
            bit = ALL.mask({purpose})
            assert seen is (ALL.mask(purposes) & bit == bit)
        assert (attribute in view.whole) is all(purpose in permitted.get(source, ()) for source in its)

"""Facts are a semilattice, and their records come back as they were."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import NeedsOperator
from c360.identity.facts import CANNOT, LINK, Claim, Claims, Fact, cannot, decode_fact, encode_fact, join, link

claims = st.builds(Claim, st.integers(0, 3), st.booleans(), st.integers(0, 2), st.integers(0, 1))
facts = st.builds(
    Fact,
    st.just("customer:1"),
    st.sampled_from([LINK, CANNOT]),
    st.sampled_from(["email:a", "email:b"]),
    st.sampled_from(["crm", "web"]),
    claims,
)


def joined(said: list[Fact]) -> Claims:
    known: Claims = {}
    for fact in said:
        join(known, fact)
    return known


@given(st.lists(facts, max_size=12), st.data())
def test_any_order_and_repetition_is_one_set(said: list[Fact], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(said), max_size=6)) if said else []
    order = data.draw(st.permutations(said + again))
    assert joined(order) == joined(said)


@given(st.lists(facts, max_size=12))
def test_what_changes_nothing_says_so(said: list[Fact]) -> None:
    known = joined(said)
    before = dict(known)
    assert not any(join(known, fact) for fact in said)
    assert known == before


@given(claims, claims)
def test_the_newer_wins_and_of_one_version_the_dead(a: Claim, b: Claim) -> None:
    [winner] = joined([link("customer:1", "email:a", "crm", c) for c in (a, b)]).values()
    assert winner.version == max(a.version, b.version)
    if a.version == b.version:
        assert winner.dead == (a.dead or b.dead)


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(texts, texts, texts, claims)
def test_a_record_comes_back(subject: str, other: str, source: str, claim: Claim) -> None:
    fact = link(subject, other, source, claim)
    assert decode_fact(*encode_fact(fact)) == fact


def test_a_record_has_these_bytes() -> None:
    key, value = encode_fact(cannot("customer:4|2", "customer:7", "crm#50%", Claim(1_793_610_000_000, True, 5, 1)))
    assert key == b"customer:4%7C2|cannot|customer:7|crm#50%25"
    assert value.hex() == "920194cf000001a19b7ca680c30501"


def test_keys_of_different_facts_are_different() -> None:
    assert encode_fact(link("a|b", "c", "d", Claim(1)))[0] != encode_fact(link("a", "b|c", "d", Claim(1)))[0]
    assert link("customer:1", "email:a", "crm", Claim(3)).id == "customer:1|link|email:a|crm@3"


def test_a_record_of_another_format_needs_an_operator() -> None:
    key, _ = encode_fact(link("customer:1", "email:a", "crm", Claim(1)))
    with pytest.raises(NeedsOperator, match="format"):
        decode_fact(key, msgspec.msgpack.encode((2, Claim(1))))

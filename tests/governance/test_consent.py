"""Consent: the truth table, any order and any repeats, and a slow oracle that keeps every decision."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import NeedsOperator
from c360.governance.consent import (
    REASONS,
    STATUSES,
    Decision,
    State,
    Verdict,
    conflicts,
    decode_state,
    encode_state,
    join,
    joined,
    newest,
    verdict,
)
from c360.governance.purposes import BASES, Purpose
from tests.governance import slow

MARKETING = Purpose("marketing")
NOW = 100


def states_of(decisions: Iterable[Decision]) -> dict[str, State]:
    states: dict[str, State] = {}
    for decision in decisions:
        join(states.setdefault(decision.identifier, {}), decision)
    return states


def decision(text: str) -> Decision:
    """`cookie granted @10 !50 shop`: identifier, status, at, and if said, when it expires and its source."""
    identifier, status, at, *rest = text.split()
    ends = [int(word[1:]) for word in rest if word[0] == "!"]
    source = next((word for word in rest if word[0] != "!"), "web")
    assert status in STATUSES
    return Decision(f"{identifier}:1", "marketing", status, int(at[1:]), source, ends[0] if ends else None)


# ---------------------------------------------------------------------------------------------------------- the table
TABLE: list[tuple[str, list[str], Verdict]] = [
    # one identifier, one decision
    ("nothing is known", [], Verdict(False, "unknown")),
    ("granted", ["email granted @10"], Verdict(True, "granted", ("email:1",))),
    ("denied", ["email denied @10"], Verdict(False, "denied", ("email:1",))),
    ("withdrawn", ["email withdrawn @10"], Verdict(False, "withdrawn", ("email:1",))),
    # one identifier, newest
    ("granted, then withdrawn", ["email granted @10", "email withdrawn @11"], Verdict(False, "withdrawn", ("email:1",))),
    ("withdrawn, then granted", ["email withdrawn @10", "email granted @11"], Verdict(True, "granted", ("email:1",))),
    ("granted after a denial that came late", ["email granted @11", "email denied @10"],
     Verdict(True, "granted", ("email:1",))),
    # one identifier, one instant
    ("a tie denies", ["email granted @10", "email denied @10 crm"], Verdict(False, "conflict", ("email:1",))),
    ("a tie with a withdrawal", ["email granted @10", "email withdrawn @10 crm"], Verdict(False, "conflict", ("email:1",))),
    ("two refusals are no conflict", ["email denied @10", "email withdrawn @10"], Verdict(False, "withdrawn", ("email:1",))),
    ("a newer grant ends a conflict", ["email granted @10", "email denied @10", "email granted @11"],
     Verdict(True, "granted", ("email:1",))),
    ("of two grants the earlier end", ["email granted @10 !200", "email granted @10 !150", "email granted @10"],
     Verdict(True, "granted", ("email:1",), 150)),
    ("of two refusals the later end", ["email denied @10 !150", "email withdrawn @10", "cookie granted @10"],
     Verdict(False, "withdrawn", ("email:1",))),
    # expiry
    ("granted, with an end", ["email granted @10 !101"], Verdict(True, "granted", ("email:1",), 101)),
    ("granted until now", ["email granted @10 !100"], Verdict(False, "expired", ("email:1",))),
    ("an expired grant does not wake an older one", ["email granted @9", "email granted @10 !50"],
     Verdict(False, "expired", ("email:1",))),
    ("an expired refusal does not wake an older grant", ["email granted @9", "email denied @10 !50"],
     Verdict(False, "expired", ("email:1",))),
    ("an expired conflict grants nothing", ["email granted @10", "email denied @10 !50"],
     Verdict(False, "expired", ("email:1",))),
    ("denied, with an end, and nobody grants", ["email denied @10 !200"], Verdict(False, "denied", ("email:1",))),
    ("expired before it was given", ["email granted @10 !5"], Verdict(False, "expired", ("email:1",))),
    # profiles of several
    ("two grants", ["email granted @10", "cookie granted @20"], Verdict(True, "granted", ("cookie:1", "email:1"))),
    ("any denied is no", ["email granted @10", "cookie denied @1"], Verdict(False, "denied", ("cookie:1",))),
    ("any withdrawn is no, however old", ["email granted @90", "cookie withdrawn @1"],
     Verdict(False, "withdrawn", ("cookie:1",))),
    ("the plainest refusal is named", ["email denied @1", "cookie withdrawn @1", "phone granted @1"],
     Verdict(False, "withdrawn", ("cookie:1", "email:1"))),
    ("a denial is plainer than a conflict", ["email denied @1", "cookie granted @1", "cookie withdrawn @1"],
     Verdict(False, "denied", ("cookie:1", "email:1"))),
    ("an expired denial does not count", ["email granted @10", "cookie denied @1 !50"],
     Verdict(True, "granted", ("email:1",))),
    ("an expired grant does not count", ["email denied @10", "cookie granted @1 !50"],
     Verdict(False, "denied", ("email:1",))),
    ("all expired", ["email granted @10 !50", "cookie denied @1 !60"], Verdict(False, "expired", ("cookie:1", "email:1"))),
    ("the last grant to end decides when", ["email granted @10 !150", "cookie granted @1 !170"],
     Verdict(True, "granted", ("cookie:1", "email:1"), 170)),
    ("one grant without end", ["email granted @10 !150", "cookie granted @1"],
     Verdict(True, "granted", ("cookie:1", "email:1"))),
    ("a refusal that ends frees a grant that does not", ["email denied @10 !150", "cookie granted @1"],
     Verdict(False, "denied", ("email:1",), 150)),
    ("all refusals must end", ["email denied @10 !150", "phone denied @10 !160", "cookie granted @1"],
     Verdict(False, "denied", ("email:1", "phone:1"), 160)),
    ("a grant that ends with the refusal is not freed", ["email denied @10 !150", "cookie granted @1 !150"],
     Verdict(False, "denied", ("email:1",))),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_truth_table_in_any_order_of_arrival(said: list[str], expected: Verdict) -> None:
    for order in permutations([decision(text) for text in said]):
        assert verdict(MARKETING, states_of(order), NOW) == expected


@pytest.mark.parametrize("statuses", list(product(["nothing", *STATUSES], repeat=3)))
def test_every_combination_of_three_identifiers(statuses: tuple[str, ...]) -> None:
    said = [decision(f"n{i} {s} @{10 + i}") for i, s in enumerate(statuses) if s != "nothing"]
    found = verdict(MARKETING, states_of(said), NOW)
    refused = "denied" in statuses or "withdrawn" in statuses
    assert found.allowed is ("granted" in statuses and not refused)
    assert found.reason in REASONS


def test_merged_profiles_are_refused_together_and_each_has_its_own_back_when_parted() -> None:
    states = states_of([decision("email granted @10"), decision("cookie denied @10")])
    assert not verdict(MARKETING, states, NOW).allowed
    assert verdict(MARKETING, {"email:1": states["email:1"]}, NOW).allowed
    assert verdict(MARKETING, {"cookie:1": states["cookie:1"]}, NOW) == Verdict(False, "denied", ("cookie:1",))


@pytest.mark.parametrize("basis", [basis for basis in BASES if basis != "consent"])
def test_a_purpose_on_another_basis_is_not_affected(basis: str) -> None:
    purpose = Purpose("marketing", basis)  # type: ignore[arg-type]  # from the table of all bases
    for said in (["email denied @10"], ["email withdrawn @10"], []):
        assert verdict(purpose, states_of(map(decision, said)), NOW) == Verdict(True, "basis")


def test_a_decision_counts_for_its_purpose_only() -> None:
    states = states_of([Decision("email:1", "analytics", "granted", 1, "web")])
    assert verdict(MARKETING, states, NOW) == Verdict(False, "unknown")


def test_a_conflict_is_visible_with_both_sources_and_gone_with_a_newer_word() -> None:
    states = states_of([decision("email granted @10 web"), decision("email denied @10 crm")])
    assert conflicts(states["email:1"]) == ("marketing",)
    known = states["email:1"]["marketing"]
    assert known.grant is not None
    assert known.refusal is not None
    assert (known.grant.source, known.refusal.source) == ("web", "crm")
    join(states["email:1"], decision("email denied @11"))
    assert conflicts(states["email:1"]) == ()


# What is said, in minutes: appended, what, and the time in it. A clock may be ahead; nobody decides after the append.
AHEAD: list[tuple[str, list[tuple[int, str, int]], str]] = [
    ("granted ahead, and withdrawn within these minutes", [(10, "granted", 14), (11, "withdrawn", 11)], "withdrawn"),
    ("granted far ahead, and withdrawn at once", [(10, "granted", 9000), (10, "withdrawn", 10)], "conflict"),
    ("granted far ahead, and withdrawn later", [(10, "granted", 9000), (20, "withdrawn", 20)], "withdrawn"),
    ("withdrawn ahead, and granted within these minutes", [(10, "withdrawn", 14), (12, "granted", 12)], "withdrawn"),
    ("withdrawn ahead, and granted by the same clock", [(10, "withdrawn", 14), (12, "granted", 16)], "withdrawn"),
    ("withdrawn ahead, and granted after these minutes", [(10, "withdrawn", 14), (15, "granted", 15)], "granted"),
    ("withdrawn far ahead counts for five minutes", [(10, "withdrawn", 9000), (16, "granted", 16)], "granted"),
    ("withdrawn far ahead, and granted in the fifth minute", [(10, "withdrawn", 9000), (15, "granted", 99)], "conflict"),
    ("both far ahead at one moment", [(10, "withdrawn", 8000), (10, "granted", 9000)], "withdrawn"),
    ("both of the past are as they say", [(10, "withdrawn", 3), (10, "granted", 4)], "granted"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "expected"), [row[1:] for row in AHEAD], ids=[row[0] for row in AHEAD])
def test_the_truth_table_of_clocks_that_are_ahead(said: list[tuple[int, str, int]], expected: str) -> None:
    given = [decision(f"email {status} @{at * 60_000}").clamped(appended * 60_000) for appended, status, at in said]
    for order in permutations([*given, *given]):  # each also twice
        found = verdict(MARKETING, states_of(order), 10_000 * 60_000)
        assert (found.reason, found.allowed) == (expected, expected == "granted")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), min_size=1), st.integers(0, 20), st.integers(0, 40))
def test_no_grant_that_came_before_a_refusal_of_now_beats_it(
    grants: list[tuple[int, int]], later: int, ahead: int
) -> None:
    """Whatever times are in the grants: who refuses now, has refused."""
    minute = 60_000
    given = [decision(f"email granted @{at * minute}").clamped(came * minute) for came, at in grants]
    now = (max(came for came, _ in grants) + later) * minute
    given.append(decision(f"email withdrawn @{now + ahead * minute}").clamped(now))
    assert not verdict(MARKETING, states_of(given), now + 10_000 * minute).allowed


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(STATUSES))
def test_to_clamp_again_changes_nothing(at: int, appended: int, status: str) -> None:
    once = decision(f"email {status} @{at}").clamped(appended)
    assert once.clamped(appended) == once
    assert once.at <= at


# -------------------------------------------------------------------------------------------------------- the oracle
decisions = st.builds(
    Decision,
    st.sampled_from(["crm:1", "email:a", "cookie:c"]),
    st.sampled_from(["marketing", "analytics"]),
    st.sampled_from(STATUSES),
    st.integers(0, 3),
    st.sampled_from(["crm", "web"]),
    st.none() | st.integers(0, 8),
)


@given(
    st.lists(decisions, max_size=12),
    st.sets(st.sampled_from(["crm:1", "email:a", "cookie:c", "new:1"])),
    st.integers(0, 9),
)
def test_every_profile_gets_the_answer_of_the_oracle(said: list[Decision], profile: set[str], now: int) -> None:
    states = states_of(said)
    found = verdict(MARKETING, {i: states[i] for i in profile if i in states}, now)
    assert found.allowed == slow.allowed(said, profile, "marketing", now)
    assert found.changes_at == slow.changes_at(said, sorted(profile), "marketing", now)


@given(st.lists(decisions, max_size=12), st.sets(st.sampled_from(["crm:1", "email:a", "cookie:c"])), st.integers(0, 9))
def test_who_decided_suffices_for_the_answer(said: list[Decision], profile: set[str], now: int) -> None:
    """And without them it is another, or has another reason."""
    states = states_of(said)
    here = {i: states[i] for i in profile if i in states}
    found = verdict(MARKETING, here, now)
    words = {slow.word_of(said, i, "marketing", now) for i in found.by}
    expected = {"granted": {"yes"}, "unknown": set(), "expired": {"nothing"}}.get(found.reason, {"no"})
    assert words == expected
    rest = verdict(MARKETING, {i: state for i, state in here.items() if i not in found.by}, now)
    assert not found.by or (rest.allowed, rest.reason) != (found.allowed, found.reason)


@given(st.lists(decisions, max_size=10), st.data())
def test_any_order_and_any_repeats_give_equal_bytes(said: list[Decision], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(said), max_size=6)) if said else []
    order = data.draw(st.permutations(said + again))
    assert {i: encode_state(s) for i, s in states_of(order).items()} == {
        i: encode_state(s) for i, s in states_of(said).items()
    }


@given(st.lists(decisions, min_size=3, max_size=3))
def test_joining_is_a_semilattice(said: list[Decision]) -> None:
    a, b, c = map(newest, said)
    assert joined(a, b) == joined(b, a)
    assert joined(joined(a, b), c) == joined(a, joined(b, c))
    assert joined(joined(a, b), b) == joined(a, b)


@given(st.lists(decisions, max_size=10))
def test_what_changes_nothing_says_so(said: list[Decision]) -> None:
    states = states_of(said)
    before = {i: encode_state(s) for i, s in states.items()}
    assert not any(join(states[d.identifier], d) for d in said)
    assert {i: encode_state(s) for i, s in states.items()} == before


def test_what_changes_something_says_so() -> None:
    state: State = {}
    assert join(state, decision("email granted @10"))
    assert join(state, decision("email denied @10"))
    assert join(state, decision("email denied @11"))


# -------------------------------------------------------------------------------------------------------- the record
@given(st.lists(decisions, max_size=10))
def test_a_record_comes_back(said: list[Decision]) -> None:
    for state in states_of(said).values():
        assert decode_state(encode_state(state)) == state


def test_a_record_has_these_bytes() -> None:
    state: State = {}
    join(state, Decision("email:a", "marketing", "granted", 1_793_610_000_000, "web", 1_825_146_000_000))
    join(state, Decision("email:a", "analytics", "denied", 7, "crm"))
    assert encode_state(state) == bytes.fromhex(
        "9201"  # format 1
        "92"  # two purposes, by name
        "92a9616e616c79746963739307c093a664656e696564a363726dc0"
        "92a96d61726b6574696e6793cf000001a19b7ca68093a76772616e746564a3776562cf000001a8f32dd280c0"
    )  # fmt: skip


def test_a_tombstone_is_what_nothing_is_known_of() -> None:
    assert encode_state({}) is None
    assert decode_state(None) == {}
    assert decode_state(b"") == {}


def test_what_has_expired_stays_in_the_record() -> None:
    """Or an older grant that comes late would count again."""
    states = states_of([decision("email denied @10 !20")])
    assert encode_state(states["email:1"]) is not None
    join(states["email:1"], decision("email granted @9"))
    assert verdict(MARKETING, states, NOW) == Verdict(False, "expired", ("email:1",))


@pytest.mark.parametrize("value", [b"garbage", b"\x92\x02\x90", b"\x90", b"{}"])
def test_a_record_of_another_format_stops_with_what_to_do(value: bytes) -> None:
    with pytest.raises(NeedsOperator, match="run the version that wrote it"):
        decode_state(value)

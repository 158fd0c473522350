"""The fence: what a door may deliver, and that nothing appended before it is missing, in any schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c360.errors import NeedsOperator
from c360.governance.fence import (
    WHYS,
    Answer,
    Place,
    Statement,
    Taken,
    ask,
    decode_statement,
    encode_statement,
    kept,
    recheck,
)

WEB0, WEB1, ERASE = Place("web.consent", 0), Place("web.consent", 1), Place("privacy.requests", 0)
OUT0, OUT1, SUPPRESSED = Place("shop.consent", 0), Place("shop.consent", 1), Place("shop.suppressed", 0)
AGE = 1000
NOW = 50_000


def said(at: int, end: int, place: Place = WEB0, out: Place = OUT0) -> Statement:
    return Statement(place, at, ((out, end),))


def asked(statements: list[Statement], copied: dict[Place, int], *inputs: Place, now: int = NOW) -> Answer:
    by_input: dict[Place, list[Statement]] = {}
    for statement in statements:
        by_input.setdefault(statement.input, []).append(statement)
    return ask(inputs or (WEB0,), by_input, copied, now=now, fence_max_age_ms=AGE)


def test_a_young_statement_that_is_reached_opens_and_says_until_when() -> None:
    assert asked([said(NOW - 300, 7)], {OUT0: 7}) == Answer(True, "open", WEB0, NOW - 300 + AGE + 1)


def test_an_agent_that_never_said_anything_keeps_the_door_shut() -> None:
    assert asked([], {OUT0: 7}) == Answer(False, "silent", WEB0)


def test_a_stopped_agent_shuts_the_door_although_everything_it_wrote_is_here() -> None:
    statements, copied = [said(NOW - AGE, 7)], {OUT0: 7}
    assert asked(statements, copied).deliver
    assert asked(statements, copied, now=NOW + 1) == Answer(False, "stale", WEB0)


def test_a_copy_that_is_behind_shuts_the_door() -> None:
    assert asked([said(NOW, 7)], {OUT0: 6}) == Answer(False, "behind", WEB0)
    assert asked([said(NOW, 1)], {}) == Answer(False, "behind", WEB0)


def test_an_output_that_never_had_a_record_needs_no_copy() -> None:
    assert asked([said(NOW, 0)], {}).deliver


def test_every_output_partition_counts() -> None:
    statement = Statement(WEB0, NOW, ((OUT0, 7), (OUT1, 3)))
    assert asked([statement], {OUT0: 7, OUT1: 2}) == Answer(False, "behind", WEB0)
    assert asked([statement], {OUT0: 7, OUT1: 3}).deliver


def test_an_earlier_statement_that_is_reached_serves_while_it_is_young() -> None:
    statements = [said(NOW - 900, 5), said(NOW - 100, 9)]
    assert asked(statements, {OUT0: 6}) == Answer(True, "open", WEB0, NOW - 900 + AGE + 1)
    assert asked(statements, {OUT0: 6}, now=NOW + 101) == Answer(False, "behind", WEB0)
    assert asked(statements, {OUT0: 9}, now=NOW + 101).deliver


def test_all_inputs_must_hold_and_the_oldest_says_until_when() -> None:
    statements = [said(NOW - 100, 5), said(NOW - 400, 2, WEB1, OUT1), said(NOW - 200, 1, ERASE, SUPPRESSED)]
    copied = {OUT0: 5, OUT1: 2, SUPPRESSED: 1}
    inputs = (WEB0, WEB1, ERASE)
    assert asked(statements, copied, *inputs) == Answer(True, "open", WEB1, NOW - 400 + AGE + 1)
    assert asked(statements[:2], copied, *inputs) == Answer(False, "silent", ERASE)
    assert asked(statements, copied | {SUPPRESSED: 0}, *inputs) == Answer(False, "behind", ERASE)
    assert asked(statements, copied | {OUT1: 1}, *inputs) == Answer(False, "behind", WEB1)


def test_the_reason_does_not_depend_on_the_order_of_inputs() -> None:
    assert asked([], {}, WEB1, ERASE, WEB0) == asked([], {}, WEB0, WEB1, ERASE) == Answer(False, "silent", ERASE)


def test_a_door_whose_clock_is_behind_does_not_take_a_last_word_for_young() -> None:
    assert asked([said(NOW + AGE, 7)], {OUT0: 7}).deliver
    assert asked([said(NOW + AGE + 1, 7)], {OUT0: 7}) == Answer(False, "clock", WEB0)


def test_a_fence_without_inputs_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="always be open"):
        ask((), {}, {}, now=NOW, fence_max_age_ms=AGE)


def test_what_says_nothing_more_is_not_kept() -> None:
    statements = [said(NOW, 9), said(NOW - 500, 5), said(NOW - 900, 3)]
    assert [s.at for s in kept(statements, {OUT0: 6})] == [NOW - 500, NOW]
    assert [s.at for s in kept(statements, {OUT0: 9})] == [NOW]
    assert [s.at for s in kept(statements, {})] == [NOW - 900, NOW - 500, NOW]


# ------------------------------------------------------------------------------------------------------- before commit
OPEN = Answer(True, "open", WEB0, NOW + AGE)


def test_before_the_commit_the_fence_must_still_be_held() -> None:
    taken = Taken(frozenset({"email:a"}), None)
    assert recheck(taken, OPEN, (), now=NOW) == OPEN
    shut = Answer(False, "stale", WEB0)
    assert recheck(taken, shut, (), now=NOW) == shut
    assert recheck(Taken(frozenset({"email:a"}), NOW), shut, {"email:a"}, now=NOW) == shut


def test_before_the_commit_no_decision_may_have_expired() -> None:
    taken = Taken(frozenset({"email:a"}), NOW)
    assert recheck(taken, OPEN, (), now=NOW - 1) == OPEN
    assert recheck(taken, OPEN, (), now=NOW) == Answer(False, "expired")


def test_before_the_commit_nobody_in_it_may_have_changed_their_mind() -> None:
    taken = Taken(frozenset({"email:a", "crm:1"}), None)
    assert recheck(taken, OPEN, {"email:b"}, now=NOW) == OPEN
    assert recheck(taken, OPEN, {"email:b", "crm:1"}, now=NOW) == Answer(False, "news")


def test_every_reason_says_what_to_do() -> None:
    assert all(len(text) > 15 for text in WHYS.values())


# -------------------------------------------------------------------------------------------------------------- bytes
def test_a_statement_has_these_bytes_and_comes_back() -> None:
    statement = Statement(WEB0, 1000, ((OUT0, 7), (OUT1, 3)), "i")
    data = bytes.fromhex(
        "920194"
        "92ab7765622e636f6e73656e7400"
        "cd03e8"
        "92"
        "9292ac73686f702e636f6e73656e740007"
        "9292ac73686f702e636f6e73656e740103"
        "a169"
    )  # fmt: skip
    assert encode_statement(statement) == data
    assert decode_statement(data) == statement


@pytest.mark.parametrize("value", [b"", b"garbage", b"\x92\x02\xc0"])
def test_a_statement_of_another_format_stops_with_what_to_do(value: bytes) -> None:
    with pytest.raises(NeedsOperator, match="run the same version"):
        decode_statement(value)


# ------------------------------------------------------------------------------------------------------- any schedule
@given(st.data())
def test_whenever_a_door_delivers_it_has_all_that_was_appended_before_the_fence(data: st.DataObject) -> None:
    """A world in small steps: people append, agents copy to the output and speak the truth, or stop; the door reads on.

    What must hold is looked up in the world, not in what was said: a record appended earlier than `now - AGE` is copied.
    """
    inputs = [WEB0, WEB1]
    appended: dict[Place, list[int]] = {place: [] for place in inputs}  # when
    done = dict.fromkeys(inputs, 0)  # of each input, how many are in the output
    output: list[tuple[Place, int]] = []  # input and number of each record in OUT0
    spoken: dict[Place, list[Statement]] = {place: [] for place in inputs}
    copied, now = 0, NOW
    for _ in range(data.draw(st.integers(1, 25))):
        now += data.draw(st.sampled_from([0, 1, AGE // 3, AGE]))
        place = data.draw(st.sampled_from(inputs))
        step = data.draw(st.sampled_from(["append", "copy", "speak", "read", "all", "all"]))
        if step == "append":
            appended[place].append(now)
        if step in ("copy", "all") and done[place] < len(appended[place]):
            output.append((place, done[place]))
            done[place] += 1
        if step in ("speak", "all"):
            # True is any time before which nothing is left to copy.
            rest = appended[place][done[place] :]
            at = min(rest[0], now) if rest else now
            spoken[place].append(Statement(place, at, ((OUT0, len(output)),)))
        if step in ("read", "all"):
            copied = data.draw(st.integers(copied, len(output)))
        answer = ask(inputs, spoken, {OUT0: copied}, now=now, fence_max_age_ms=AGE)
        trimmed = {place: kept(statements, {OUT0: copied}) for place, statements in spoken.items()}
        assert ask(inputs, trimmed, {OUT0: copied}, now=now, fence_max_age_ms=AGE) == answer
        if answer.deliver:
            here = set(output[:copied])
            due = {(p, n) for p in inputs for n, when in enumerate(appended[p]) if when < now - AGE}
            assert due <= here
            assert answer.until is not None
            assert not ask(inputs, spoken, {OUT0: copied}, now=answer.until, fence_max_age_ms=AGE).deliver

"""The consent agent on the production engine: every form and every bad input of docs/consent.md, accidents, the fence."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from c360.engine.partition import partition_of
from c360.engine.transport import TP, TopicSpec
from c360.errors import NeedsOperator, TransactionAborted
from c360.governance.consent import decode_state
from c360.governance.fence import Place, Statement, ask, decode_statement
from c360.testing import TestDriver
from tests.governance.decided import (
    CONSENT,
    DLQ,
    FENCE,
    NOW_MS,
    RAW,
    call,
    choice,
    compacted,
    driver,
    grow,
    look,
    states,
    statuses,
)
from tests.governance.test_inputs import written as tc_string

GRANTING = tc_string({3, 4, 8}, vendors=[(1, 9)])


def misfits(t: TestDriver) -> list[str]:
    return sorted(letter["reason"] for letter in t.topic(DLQ))


# ------------------------------------------------------------------------------------------------------------ forms
FORMS: dict[str, tuple[str, str | None, dict[str, Any], dict[str, dict[str, str]]]] = {
    "plain": ("choices", None, choice("crm:7"), {"crm:7": {"marketing": "granted"}}),
    "namespace and value apart": (
        "choices", None, choice({"ns": "crm", "value": 7}, "withdrawn"), {"crm:7": {"marketing": "withdrawn"}},
    ),
    "several identifiers, each once": (
        "choices", None, choice("email:a@b.org", "denied", crm="7", emails=["A@B.org", "c@d.org"]),
        {i: {"marketing": "denied"} for i in ("crm:7", "email:a@b.org", "email:c@d.org")},
    ),
    "a boolean": ("choices", None, choice("crm:7", granted=False, status=None), {"crm:7": {"marketing": "denied"}}),
    "by the key": (
        "forms", "7", {"kind": "consent", "purpose": "analytics", "granted": True, "at": NOW_MS},
        {"crm:7": {"analytics": "granted"}},
    ),
    "by a field, and so not by the key": (
        "forms", "7", {"kind": "consent", "customer": "8", "purpose": "analytics", "granted": True, "at": NOW_MS},
        {"crm:8": {"analytics": "granted"}},
    ),
    "not claimed, and left out": ("forms", "7", {"kind": "newsletter"}, {}),
    "segment": (
        "web.calls", None, call({"Advertising": True, "Sharing": True, "Analytics": False}),
        {"cookie:c-1": {"analytics": "denied", "marketing": "granted"}},
    ),
    "segment, one of two categories": ("web.calls", None, call({"Sharing": True, "Video": True}), {}),
    "segment, no categories at all": (
        "web.calls", None, call({}), {"cookie:c-1": {"analytics": "denied", "marketing": "denied"}},
    ),
    "segment, nothing said of consent": ("web.calls", None, call(None), {}),
    "segment, of nobody, nothing said of consent": ("web.calls", None, {"context": {}}, {}),
    "tcf": ("cmp", None, {"cookie": "c-1", "tc_string": GRANTING},
            {"cookie:c-1": {"analytics": "granted", "marketing": "granted"}}),
    "tcf, a bit that is not set": (
        "cmp", None, {"cookie": "c-1", "tc_string": tc_string({3}, vendors=[(1, 9)])},
        {"cookie:c-1": {"analytics": "denied", "marketing": "denied"}},
    ),
    "tcf, no string": ("cmp", None, {"cookie": "c-1"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_decisions_in_every_form_are_bound_to_their_identifiers(form: str) -> None:
    topic, key, record, expected = FORMS[form]
    with driver() as t:
        t.send(topic, key, record)
        assert statuses(t) == expected
        assert t.topic(DLQ) == []
        t.verify()


def test_segment_s_and_platforms_decisions_count_as_of_when_they_were_sent_unless_the_record_says_when() -> None:
    with driver() as t:
        t.send("web.calls", None, call({"Analytics": True}, userId="7"))
        t.send("web.calls", None, call({"Analytics": False}, userId="7", originalTimestamp="2026-11-01T00:00:00Z"))
        assert statuses(t)["crm:7"] == {"analytics": "granted"}
        assert states(t)["crm:7"]["analytics"].at == NOW_MS


# -------------------------------------------------------------------------------------------------------- bad input
BAD: dict[str, tuple[str, str | None, Any, str, dict[str, dict[str, str]]]] = {
    "a purpose that is not declared": ("choices", None, choice("crm:7", purpose="parties"), "unknown-purpose", {}),
    "a category without mapping": (
        "web.calls", None, call({"Parties": True, "Analytics": True}), "unknown-purpose",
        {"cookie:c-1": {"analytics": "granted"}},
    ),
    "a category that is neither true nor false": (
        "web.calls", None, call({"Advertising": "yes", "Sharing": True}), "wrong-type",
        {"cookie:c-1": {"marketing": "denied"}},
    ),
    "preferences that are no object": ("web.calls", None, call([True]), "wrong-type", {}),  # type: ignore[arg-type]
    "no identifier": ("choices", None, choice(None), "no-subject", {}),
    "no identifier in a call": ("web.calls", None, call({"Analytics": True}, anonymousId=None), "no-subject", {}),
    "no key": (
        "forms", None, {"kind": "consent", "purpose": "analytics", "granted": True, "at": NOW_MS}, "no-subject", {},
    ),
    "a blank value": ("choices", None, choice("crm: "), "no-subject", {}),
    "a blank value beside a good one": (
        "choices", None, choice("email:nobody", "denied", crm="7"), "no-subject", {"crm:7": {"marketing": "denied"}},
    ),
    "a namespace that is not declared": ("choices", None, choice("phone:7"), "unknown-namespace", {}),
    "no namespace": ("choices", None, choice("7"), "unknown-namespace", {}),
    "a namespace with a colon": ("choices", None, choice({"ns": "crm:1", "value": "7"}), "unknown-namespace", {}),
    "an identifier that is none": ("choices", None, choice({"ns": "crm"}), "missing-field", {}),
    "no status": ("choices", None, choice("crm:7", status=None), "missing-field", {}),
    "two statuses": ("choices", None, choice("crm:7", granted=True), "not-consent", {}),
    "an unknown status": ("choices", None, choice("crm:7", "perhaps"), "not-consent", {}),
    "no time": ("choices", None, choice("crm:7", at=None), "missing-field", {}),
    "a time without zone": ("choices", None, choice("crm:7", at="2026-11-02T08:00:00"), "no-zone", {}),
    "a time that is none": ("choices", None, choice("crm:7", at="soon"), "out-of-range", {}),
    "a time as a number, not declared": ("choices", None, choice("crm:7", at=NOW_MS), "wrong-type", {}),
    "a status of another type": ("choices", None, choice("crm:7", status=1), "wrong-type", {}),
    "no JSON": ("choices", None, b"{", "not-json", {}),
    "no value": ("choices", None, None, "empty", {}),
    "a TC string that is cut": ("cmp", None, {"cookie": "c-1", "tc_string": GRANTING[:40]}, "not-consent", {}),
    "garbage in place of a TC string": ("cmp", None, {"cookie": "c-1", "tc_string": "?"}, "not-consent", {}),
    "a TC string of version 1": (
        "cmp", None, {"cookie": "c-1", "tc_string": tc_string({3}, version=1)}, "not-consent", {},
    ),
    "a TC string of global scope": (
        "cmp", None, {"cookie": "c-1", "tc_string": tc_string({3}, specific=0)}, "not-consent", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_a_dead_letter_and_what_can_be_read_counts(bad: str) -> None:
    topic, key, record, reason, expected = BAD[bad]
    with driver() as t:
        t.send(topic, key, record)
        t.send("choices", None, choice("crm:good"))
        assert statuses(t) == {**expected, "crm:good": {"marketing": "granted"}}
        assert misfits(t) == [reason]
        t.verify()


def test_a_dead_letter_has_its_stage_and_its_record() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", purpose="parties"), partition=1)
        (letter,) = t.topic(DLQ)
        assert (letter["stage"], letter["topic"], letter["partition"], letter["offset"]) == ("consent", "choices", 1, 0)
        assert json.loads(base64.b64decode(letter["value"]))["purpose"] == "parties"
        assert "parties" not in letter["error"]


def test_a_grant_from_the_future_counts_as_of_when_it_came_and_a_refusal_five_minutes_later() -> None:
    with driver() as t:
        for who in ("crm:7", "crm:8", "crm:9"):
            t.send("choices", None, choice(who, at="2026-11-02T09:04:00Z"))  # four minutes ahead
        t.send("choices", None, choice("crm:8", "denied", at="2098-01-01T00:00:00Z"))
        assert states(t)["crm:7"]["marketing"].at == NOW_MS
        assert states(t)["crm:8"]["marketing"].at == NOW_MS + 5 * 60_000
        t.advance(timedelta(minutes=1))
        t.send("choices", None, choice("crm:7", "withdrawn", at="2026-11-02T09:01:00Z"))
        t.send("choices", None, choice("crm:8", at="2099-01-01T00:00:00Z"))
        assert statuses(t) == {
            "crm:7": {"marketing": "withdrawn"}, "crm:8": {"marketing": "denied"}, "crm:9": {"marketing": "granted"},
        }  # fmt: skip
        before = compacted(t)
        t.reset("consent")
        assert compacted(t) == before
        t.verify()
        t.advance(timedelta(minutes=5))
        t.send("choices", None, choice("crm:8", at="2026-11-02T09:06:00Z"))
        assert statuses(t)["crm:8"] == {"marketing": "granted"}
        t.verify()


def test_a_contradiction_is_refused_and_shown_until_a_newer_decision_comes() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7"), partition=0)
        t.send("forms", "7", {"kind": "consent", "purpose": "marketing", "granted": False, "at": NOW_MS - 3_600_000})
        known = states(t)["crm:7"]["marketing"]
        assert known.conflict
        assert (known.holds.status, known.grant and known.grant.source, known.refusal and known.refusal.source) == (
            "denied", "choices", "forms",
        )  # fmt: skip
        t.send("choices", None, choice("crm:7", at="2026-11-02T08:00:01Z"))
        assert statuses(t) == {"crm:7": {"marketing": "granted"}}


def test_an_end_before_the_decision_is_kept_as_expired() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", expires_at="2026-11-01T00:00:00Z"))
        known = states(t)["crm:7"]["marketing"]
        assert known.holds.end < known.at
        t.verify()


# ------------------------------------------------------------------------------------------------- no more than news
def test_a_repeated_or_an_older_decision_writes_nothing() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "denied"))
        t.settle()
        before = list(t.read(CONSENT))
        t.send("choices", None, choice("crm:7", "denied"), partition=1)
        t.send("choices", None, choice("crm:7", at="2026-11-02T07:59:59Z"))
        t.settle()
        assert list(t.read(CONSENT)) == before
        assert len(before) == 1


def test_an_identifier_is_written_once_for_all_decisions_of_a_commit() -> None:
    with driver() as t:
        for second in range(50):
            t.send(
                "choices", None, choice("crm:7", ["granted", "denied"][second % 2], at=f"2026-11-02T08:00:{second:02}Z")
            )
        assert statuses(t) == {"crm:7": {"marketing": "denied"}}
        assert len(list(t.read(CONSENT))) == 1


def test_what_was_aborted_is_not_said() -> None:
    with driver() as t:
        t.settle()
        t.send("choices", None, choice("crm:7"))
        (loop,) = t.loops
        while not loop.uncommitted:
            loop.turn(0.0)
        (task,) = loop.tasks.values()
        processor: Any = task.processor
        assert list(processor.changed) == ["crm:7"]
        loop._recover(TransactionAborted("injected"))
        assert list(processor.changed) == []
        assert statuses(t) == {"crm:7": {"marketing": "granted"}}


# -------------------------------------------------------------------------------------------------- inputs that come
def test_a_partition_that_is_added_is_read_and_told_of() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7"))
        t.settle()
        new = grow(t, "choices")
        t.send("choices", None, choice("crm:8"), partition=new.partition)
        assert statuses(t) == {"crm:7": {"marketing": "granted"}, "crm:8": {"marketing": "granted"}}
        assert Place(*new) in said(t)
        t.verify()
        t.lose_disk()
        t.send("choices", None, choice("crm:9"), partition=new.partition)
        assert len(states(t)) == 3
        t.verify()


def test_a_topic_that_is_created_later_is_read() -> None:
    with driver() as t:
        t.stop()
        admin = t.cluster.admin()
        admin.delete(["cmp"])
        t.start()
        t.send("choices", None, choice("crm:7"))
        assert list(statuses(t)) == ["crm:7"]
        assert not any(place.topic == "cmp" for place in said(t))
        admin.create([TopicSpec("cmp", 1)])
        t.send("cmp", None, {"cookie": "c-1", "tc_string": GRANTING})
        look(t)
        assert list(statuses(t)) == ["cookie:c-1", "crm:7"]
        assert Place("cmp", 0) in said(t)
        t.verify()


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_a_raw_topic_that_is_gone_or_made_anew_needs_an_operator(*, stopped: bool, again: bool) -> None:
    t = driver()
    t.send("choices", None, choice("crm:7", "denied"))
    t.settle()
    if stopped:
        t.stop()
    t.cluster.admin().delete(["choices"])
    if again:
        t.cluster.admin().create([TopicSpec("choices", 1)])
    if stopped:
        t.start()
    look(t)
    how = " and created again" if again else ""
    with pytest.raises(NeedsOperator, match=f"choices has been deleted{how}: consent has read it"):
        t.settle()


# ------------------------------------------------------------------------------------------------------- the fence
def said(t: TestDriver) -> dict[Place, Statement]:
    """The newest statement of each input."""
    t.settle()
    found = [decode_statement(value) for _, value in t.read(FENCE) if value is not None]
    return {statement.input: statement for statement in found}


def ends(t: TestDriver, topic: str = CONSENT) -> dict[Place, int]:
    count = t.cluster.admin().topics()[topic]
    found = t.cluster.reader().ends([TP(topic, p) for p in range(count)])
    return {Place(*tp): end for tp, end in found.items()}


def test_every_partition_of_every_input_is_told_of_and_who_has_read_the_output_may_deliver() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "withdrawn"))
        statements = said(t)
        inputs = [Place(topic, p) for topic in RAW for p in range(2)] + [Place("shop.consent-commands", 0)]
        assert sorted(statements) == sorted(inputs)
        assert all(place.topic == CONSENT for s in statements.values() for place, _ in s.ends)
        of = {place: [statement] for place, statement in statements.items()}
        held = ends(t)
        assert ask(inputs, of, held, now=NOW_MS, fence_max_age_ms=1000).why == "open"
        assert ask(inputs, of, held, now=NOW_MS + 1001, fence_max_age_ms=1000).why == "stale"
        assert ask([*inputs, Place("choices", 2)], of, held, now=NOW_MS, fence_max_age_ms=1000).why == "silent"


def test_a_copy_that_has_not_read_the_withdrawal_is_behind() -> None:
    with driver() as t:
        t.settle()
        before = ends(t)
        t.now_ms += 250
        t.send("choices", None, choice("crm:7", "withdrawn"), partition=0)
        statements = {place: [statement] for place, statement in said(t).items()}
        answer = ask([Place("choices", 0)], statements, before, now=t.now_ms, fence_max_age_ms=1000)
        assert answer.why == "behind"


# -------------------------------------------------------------------------------------------------- any order, accidents
def history(random: random.Random) -> list[tuple[str, str | None, Any]]:
    """Raw records of every form about few people at few instants, so that they meet."""
    people = ["crm:1", "crm:2", "email:a@b.org", "cookie:c-1"]
    made: list[tuple[str, str | None, Any]] = []
    for _ in range(random.randrange(1, 60)):
        at = f"2026-11-02T08:00:0{random.randrange(4)}Z"
        if random.random() < 0.1:
            at = "2099-01-01T00:00:00Z"
        match random.choice(RAW):
            case "choices":
                end = random.choice([None, None, "2026-12-01T00:00:00Z", "2027-12-01T00:00:00Z"])
                status = random.choice(["granted", "granted", "denied", "withdrawn", "perhaps"])
                purpose = random.choice(["marketing", "analytics", "service", "parties"])
                record = choice(random.choice(people), status, at=at, purpose=purpose, expires_at=end)
                made.append(("choices", None, record))
            case "forms":
                kind, purpose = random.choice(["consent", "other"]), random.choice(["marketing", "analytics"])
                granted = random.choice([True, False])
                record = {"kind": kind, "purpose": purpose, "granted": granted, "at": NOW_MS - 3_600_000}
                made.append(("forms", random.choice(["1", "2", None]), record))
            case "web.calls":
                names = random.sample(["Advertising", "Sharing", "Analytics", "Video", "Parties"], random.randrange(6))
                answers = {name: random.choice([True, True, False, "yes"]) for name in names}
                about = {"anonymousId": random.choice(["c-1", None]), "userId": random.choice(["1", None])}
                when = {"originalTimestamp": random.choice([at, None])}
                made.append(("web.calls", None, call(random.choice([answers, None]), **about, **when)))
            case "cmp":
                wanted = set(random.sample([3, 4, 8], random.randrange(4)))
                text = tc_string(wanted, vendors=[(1, random.choice([2, 9]))])
                made.append(("cmp", None, {"cookie": "c-1", "tc_string": random.choice([text, text[:50], None])}))
    return made


ACCIDENTS: list[Callable[[TestDriver], object]] = [
    TestDriver.crash,
    TestDriver.lose_disk,
    TestDriver.rebalance,
    TestDriver.settle,
    lambda t: grow(t, "choices"),
    lambda t: t.reset("consent"),
]


def outcome(records: list[tuple[str, str | None, Any]], seed: int, *, rough: bool) -> dict[bytes, bytes]:
    chosen = random.Random(seed)
    with driver() as t:
        for topic, key, value in records:
            partition = chosen.randrange(t.cluster.admin().topics()[topic])
            t.send(topic, key, value, partition=partition)
            if rough and chosen.random() < 0.1:
                chosen.choice(ACCIDENTS)(t)
        t.settle()
        t.verify()
        return compacted(t)


@pytest.mark.parametrize("seed", range(25))
def test_order_repeats_and_accidents_change_no_byte(seed: int) -> None:
    chosen = random.Random(seed)
    records = history(chosen)
    plain = outcome(records, seed, rough=False)
    again = records + chosen.sample(records, len(records) // 2)
    chosen.shuffle(again)
    assert outcome(again, seed + 1, rough=True) == plain
    assert all(key.decode() in {"crm:1", "crm:2", "email:a@b.org", "cookie:c-1"} for key in plain)


def test_a_reset_forgets_nothing_that_retention_has_cut() -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "withdrawn"), partition=0)
        t.send("choices", None, choice("crm:7", at="2026-11-02T07:00:00Z"), partition=0)
        t.settle()
        t.cluster.admin().delete_records({TP("choices", 0): 1})
        t.reset("consent")
        assert statuses(t) == {"crm:7": {"marketing": "withdrawn"}}
        assert len(list(t.read(CONSENT))) == 1


# ------------------------------------------------------------------------------------------------------------ verify
def altered(t: TestDriver, key: bytes, value: bytes | None) -> None:
    t.producer.produce(CONSENT, key, value, partition_of(key, 3))
    t.producer.flush()


@pytest.mark.parametrize("how", ["altered", "lost", "unexpected", "garbage"])
def test_verify_finds_what_the_agent_has_not_written(how: str) -> None:
    with driver() as t:
        t.send("choices", None, choice("crm:7", "denied"))
        t.send("choices", None, choice("crm:8"))
        t.verify("consent")
        mine, other = compacted(t)[b"crm:7"], compacted(t)[b"crm:8"]
        assert decode_state(mine) != decode_state(other)
        key = b"crm:9" if how == "unexpected" else b"crm:7"
        altered(t, key, {"altered": other, "lost": None, "unexpected": other, "garbage": b"\x00"}[how])
        with pytest.raises(AssertionError, match="1 differences"):
            t.verify("consent")

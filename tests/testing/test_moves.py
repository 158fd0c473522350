"""Profiles follow assignments, on the production engine: merged, taken apart, through accidents, resets and midnights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from c360.engine.transport import TP
from c360.errors import NeedsOperator
from c360.ops import reset
from c360.profile.parts import Add, Drop, encode_part
from c360.testing import TestDriver
from tests.testing.moves import ASSIGNMENTS, OUTPUT, PARTS, PLAN, app, assign, on, profiles, shown, undisturbed, visit
from tests.testing.shop import change
from tests.testing.world import NOW

ANN, BOB, CID, DAN = on(0), on(1), on(2), on(1, 1)  # three partitions, two subjects on one of them
PEOPLE = (ANN, BOB, CID, DAN)


@pytest.fixture
def t() -> Iterator[TestDriver]:
    with TestDriver(app, now=NOW) as driver:
        yield driver


def traffic(t: TestDriver, since: int = 0) -> None:
    for n, subject in enumerate(PEOPLE * 3, since):
        name = subject.removeprefix("crm:")
        t.send("visits", name, visit(n, name, f"/{n % 7}", f"2026-11-{1 + n % 2:02}T08:00:{n % 60:02}Z"))
        row = {"id": n % 5 + 1, "customer": name, "amount": f"{n}.50", "placed": "2026-11-01T12:00:00Z"}
        t.send("orders", f'{{"id": {n % 5 + 1}}}', change("u", n + 1, row, table="orders"))  # rows change hands


def merge_all(t: TestDriver, seq: int = 1) -> None:
    for subject in PEOPLE:
        assign(t.producer, subject, seq, ANN, "email:family@example.org")


def letters(t: TestDriver) -> list[Any]:
    return t.topic(PLAN.dlq)


def test_subjects_of_three_partitions_are_one_profile(t: TestDriver) -> None:
    traffic(t)
    before = t.topic(OUTPUT)
    assert {record["profile_id"] for record in before} == set(PEOPLE)
    merge_all(t)
    t.settle()
    (record,) = shown(t.cluster).values()
    assert (record["profile_id"], record["subjects"], record["subjects_total"]) == (ANN, sorted(PEOPLE), 4)
    assert record["identifiers"] == sorted([*PEOPLE, "email:family@example.org"])
    assert record["attributes"]["visits"] == 12
    assert record["attributes"]["orders"] == 5
    traffic(t, since=100)
    t.settle()
    (record,) = shown(t.cluster).values()
    assert record["attributes"]["visits"] == 24
    assert profiles(t.cluster) == undisturbed(t.cluster, t.now_ms)


@pytest.mark.parametrize("own", [True, False], ids=["assigned to itself", "unassigned"])
def test_taken_apart_they_are_as_if_they_had_never_met(t: TestDriver, own: bool) -> None:
    with TestDriver(app, now=NOW) as never:
        traffic(never)
        traffic(never, since=100)
        never.settle()
        traffic(t)
        t.settle()
        merge_all(t)
        t.settle()
        traffic(t, since=100)
        t.settle()
        for subject in PEOPLE:
            assign(t.producer, subject, 2, subject if own else None)
        t.settle()
        assert len(profiles(t.cluster)) == 4
        assert profiles(t.cluster) == profiles(never.cluster)


ACCIDENTS: dict[str, Callable[[TestDriver], None]] = {
    "crash": TestDriver.crash,
    "lose_disk": TestDriver.lose_disk,
    "rebalance": TestDriver.rebalance,
    "reset": lambda t: t.reset("customer@1"),
}


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_accidents_change_no_profile(t: TestDriver, accident: Callable[[TestDriver], None]) -> None:
    traffic(t)
    merge_all(t)
    for turn in range(6):  # in the middle of a move, too
        for loop in t.loops[: turn % 2 + 1]:
            loop.turn(0.0)
    accident(t)
    traffic(t, since=100)
    assign(t.producer, DAN, 2, BOB)
    accident(t)
    t.settle()
    assert set(shown(t.cluster)) == {ANN, BOB}
    assert profiles(t.cluster) == undisturbed(t.cluster, t.now_ms)
    assert letters(t) == []


def test_a_reset_removes_what_was_merged_by_assignments_that_are_gone(t: TestDriver) -> None:
    """Also where a partition has nothing to read again: it compares all the same."""
    stranger = on(2, 7)
    traffic(t)
    for subject in PEOPLE:
        assign(t.producer, subject, 1, stranger)
    t.settle()
    assert set(shown(t.cluster)) == {stranger}
    partitions = [TP(ASSIGNMENTS, p) for p in range(PLAN.partitions)]
    t.cluster.admin().delete_records(t.cluster.reader().ends(partitions))
    t.reset("customer@1")
    t.settle()
    assert set(shown(t.cluster)) == set(PEOPLE)
    assert profiles(t.cluster) == undisturbed(t.cluster, t.now_ms)


def test_a_window_of_a_merged_profile_closes_without_any_record(t: TestDriver) -> None:
    traffic(t)
    merge_all(t)
    assert t.profile(ANN).visits_7d == 12
    t.advance(timedelta(days=6))
    assert t.profile(ANN).visits_7d == 6
    t.advance(timedelta(days=1))
    assert (t.profile(ANN).visits_7d, t.profile(ANN).visits) == (0, 12)
    for subject in PEOPLE:
        assign(t.producer, subject, 2, subject)
    t.reset("customer@1")
    t.settle()
    assert profiles(t.cluster) == undisturbed(t.cluster, t.now_ms)


def test_the_newest_assignment_holds_whatever_comes_after_it(t: TestDriver) -> None:
    traffic(t)
    assign(t.producer, BOB, 7, ANN)
    assign(t.producer, BOB, 6, CID)
    t.settle()
    assert shown(t.cluster)[ANN]["subjects"] == sorted([ANN, BOB])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (BOB.encode(), b"not json"),
        (BOB.encode(), b'{"seq": "9", "profile": "crm:1"}'),
        (BOB.encode(), b'{"seq": 9, "profile": "", "change": "moved", "cause": ""}'),
        (b"\xff", b'{"seq": 9, "profile": "crm:1", "change": "moved", "cause": ""}'),
    ],
)
def test_what_is_no_assignment_is_put_aside_and_moves_nobody(t: TestDriver, key: bytes, value: bytes) -> None:
    traffic(t)
    assign(t.producer, BOB, 1, ANN)
    t.producer.produce(ASSIGNMENTS, key, value, 1)
    t.producer.flush()
    assign(t.producer, CID, 1, ANN)
    t.settle()
    assert shown(t.cluster)[ANN]["subjects"] == sorted([ANN, BOB, CID])
    assert [(letter["reason"], letter["stage"]) for letter in letters(t)] == [("no-assignment", "customer@1")]


@pytest.mark.parametrize(
    ("key", "message", "why"),
    [
        (ANN, encode_part(Add(BOB, 9, (), b"")), "an Add that does not follow what is held.*`c360 reset`"),
        (ANN, encode_part(Drop(CID)), "a Drop for a place that is empty.*`c360 reset`"),
        (ANN, b"?", "none that this version of c360 writes.*`c360 reset`"),
        (ANN, None, "none that this version of c360 writes.*`c360 reset`"),
        (None, encode_part(Drop(CID)), "has no key.*`c360 reset`"),
    ],
)
def test_a_message_that_cannot_follow_stops_the_task_and_a_reset_mends_it(
    t: TestDriver, key: str | None, message: bytes | None, why: str
) -> None:
    traffic(t)
    assign(t.producer, BOB, 1, ANN)
    t.settle()
    before = profiles(t.cluster)
    t.producer.produce(PARTS, None if key is None else key.encode(), message, 0)
    t.producer.flush()
    with pytest.raises(NeedsOperator, match=why):
        t.settle()
    assert profiles(t.cluster) == before
    t.stop()
    t.start()
    with pytest.raises(NeedsOperator):  # it is still there
        t.settle()
    t.stop()
    reset.execute_reset(PLAN, t.cluster, reset.plan_reset(PLAN, t.cluster, "customer@1"))
    t.start()
    t.settle()
    assert profiles(t.cluster) == before


def test_a_projection_with_a_condition_is_the_same_in_every_process() -> None:
    """Its fingerprint once had the address of the condition in it, so that no worker took up another's state."""
    program = "from tests.testing.moves import PLAN; print(PLAN.agent('customer@1').fingerprint)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == PLAN.agent("customer@1").fingerprint


def test_who_was_never_merged_costs_no_message(t: TestDriver) -> None:
    traffic(t)
    for subject in PEOPLE:
        assign(t.producer, subject, 1, subject, "email:a@example.org")
    assert len(t.topic(PLAN.dlq)) == 0
    assert list(t.read(PARTS)) == []
    assert json.loads(profiles(t.cluster)[BOB])["identifiers"] == sorted([BOB, "email:a@example.org"])


@pytest.mark.parametrize("merged", [True, False])
def test_a_condition_that_raises_puts_its_record_aside_and_no_other_counts_twice(t: TestDriver, merged: bool) -> None:
    traffic(t)
    if merged:
        merge_all(t)
    t.settle()
    name, before = BOB.removeprefix("crm:"), t.profile(ANN if merged else BOB).visits
    for n, page in enumerate(("/", "/a", "", "/b"), 900):
        t.send("visits", name, visit(n, name, page))
    t.settle()
    assert t.profile(ANN if merged else BOB).visits == before + 3
    assert [(letter["reason"], letter["stage"]) for letter in letters(t)] == [("failed", "customer@1")]

"""The benchmark's own parts: the same input for the same seed, an oracle that is right, a checker that finds faults."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import orjson
import pytest

from benchmarks.check import C360, PLAIN, Written, differences, found_in
from benchmarks.oracle import Outcome, Profile, is_poison, outcome
from benchmarks.peers.c360.app import app
from benchmarks.workload import BEGIN_MS, RECENT, Raw, records
from c360.testing import TestDriver

EVENTS, CUSTOMERS = 6_000, 400


@pytest.fixture(scope="module")
def raw() -> list[Raw]:
    return list(records(EVENTS, CUSTOMERS))


@pytest.fixture(scope="module")
def right(raw: list[Raw]) -> Outcome:
    return outcome(raw)


def written(right: Outcome) -> tuple[list[Written], list[Written]]:
    """Profiles and dead letters as a peer writes them."""
    profiles: list[Written] = [
        (name.encode(), orjson.dumps({"customer_id": name, **profile._asdict()}))
        for name, profile in right.profiles.items()
    ]
    return profiles, [(None, value) for value in right.dead.elements()]


def event(id: str, at: int, *, customer: str = "c1", kind: str = "page_view", **more: object) -> Raw:
    value = {"event_id": id, "customer_id": customer, "type": kind, "ts": at, **more}
    return customer.encode(), orjson.dumps(value)


# ---------------------------------------------------------------------------------------------------------- workload
def test_a_seed_gives_the_same_input_and_another_seed_another(raw: list[Raw]) -> None:
    assert list(records(EVENTS, CUSTOMERS)) == raw
    assert list(records(100, CUSTOMERS, seed=1)) != raw[:100]


def test_the_input_has_what_the_specification_says(raw: list[Raw], right: Outcome) -> None:
    values = Counter(value for _, value in raw)
    repeats = sum(values.values()) - len(values)
    assert 0.01 < repeats / (EVENTS - RECENT) < 0.03
    assert 0 < sum(right.dead.values()) < EVENTS * 0.003
    assert right.accepted + right.duplicates + sum(right.dead.values()) == EVENTS
    events = [orjson.loads(value) for value in values if not is_poison(value)]
    share = Counter(e["type"] for e in events)
    assert 0.08 < share["order"] / len(events) < 0.12
    assert 0.15 < sum("email" in e for e in events) / len(events) < 0.25
    assert 300 < sum(map(len, values)) / len(values) < 400
    assert max(p.distinct_skus for p in right.profiles.values()) <= 50
    assert any(p.opted_out for p in right.profiles.values())


# ------------------------------------------------------------------------------------------------------------ oracle
def test_the_rules_give_what_they_say_for_a_customer_worked_out_by_hand() -> None:
    at = BEGIN_MS
    found = outcome(
        [
            event("1", at + 20, kind="order", props={"sku": "b", "amount": 19.99}, email="new@x"),
            event("2", at, kind="order", props={"sku": "a", "amount": 0.29}, email="old@x"),
            event("2", at, kind="order", props={"sku": "a", "amount": 0.29}, email="old@x"),
            event("3", at + 30, kind="consent", consent={"profiling": False}),
            event("4", at + 10, kind="consent", consent={"profiling": True}),
            event("5", at + 5, props={"sku": "c"}),
            (b"c1", b'{"event_id":"6","customer_id":"c1","type":"order","ts":"yesterday"}'),
            (b"c1", b'{"event_id":"7"'),
        ]
    )
    assert found.profiles == {"c1": Profile(5, True, 2, 2028, at, at + 30, 3, "a", "new@x")}
    assert sorted(found.dead.elements())[0] == b'{"event_id":"6","customer_id":"c1","type":"order","ts":"yesterday"}'
    assert (found.accepted, found.duplicates, sum(found.dead.values())) == (5, 1, 2)


def test_no_order_of_arrival_shows_in_the_outcome(raw: list[Raw], right: Outcome) -> None:
    backwards = outcome(reversed(raw))
    assert backwards.profiles == right.profiles
    assert backwards.dead == right.dead


def test_events_of_one_time_are_decided_by_their_values() -> None:
    at = BEGIN_MS
    one = event("1", at, kind="consent", consent={"profiling": False}, email="a@x")
    other = event("2", at, kind="consent", consent={"profiling": True}, email="b@x")
    for order in ([one, other], [other, one]):
        profile = outcome(order).profiles["c1"]
        assert (profile.opted_out, profile.email) == (False, "b@x")


# ----------------------------------------------------------------------------------------------------------- checker
def test_what_is_right_has_no_differences(right: Outcome) -> None:
    profiles, dead = written(right)
    assert differences(right, found_in(profiles, dead, PLAIN)) == []


@pytest.mark.parametrize("field", Profile._fields)
def test_one_wrong_value_is_found_and_named(right: Outcome, field: str) -> None:
    profiles, dead = written(right)
    name = next(iter(right.profiles))
    altered = {**orjson.loads(profiles[0][1] or b""), field: "planted"}
    profiles.append((name.encode(), orjson.dumps(altered)))  # the last record of a key counts
    told = differences(right, found_in(profiles, dead, PLAIN))
    assert len(told) == 1
    assert told[0].startswith(f"1 wrong: {name}.{field} is 'planted'")


def test_a_lost_and_an_invented_profile_are_found(right: Outcome) -> None:
    profiles, dead = written(right)
    lost = profiles.pop()[0]
    told = differences(right, found_in(profiles, dead, PLAIN))
    assert told == [f"1 lost: {(lost or b'').decode()}"]
    profiles, dead = written(right)
    profiles.append((b"nobody", profiles[0][1]))
    assert differences(right, found_in(profiles, dead, PLAIN)) == ["1 invented: nobody"]


def test_a_lost_and_a_doubled_dead_letter_are_found(right: Outcome) -> None:
    profiles, dead = written(right)
    assert "1 dead letters lost" in differences(right, found_in(profiles, dead[1:], PLAIN))[0]
    assert "1 dead letters too many" in differences(right, found_in(profiles, [*dead, dead[0]], PLAIN))[0]


# -------------------------------------------------------------------------------------------------------------- c360
def test_the_app_of_the_benchmark_equals_its_oracle(raw: list[Raw], right: Outcome) -> None:
    with TestDriver(app, partitions=4, now=datetime(2026, 6, 1, tzinfo=UTC)) as driver:
        for at, (key, value) in enumerate(raw):
            driver.send("events", key, value)
            if at == EVENTS // 2:
                driver.crash()
        driver.settle()
        found = found_in(driver.read("bench.profile.v1"), driver.read("bench.dlq"), C360)
        assert differences(right, found) == []
        driver.verify()

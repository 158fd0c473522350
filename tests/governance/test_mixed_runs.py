"""Customers in records of every format are forgotten, with accidents; and what waits holds up no erasure."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.governance.mixed_runs import Run, run
from tests.sources.registry import FakeRegistry


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_left_of_the_forgotten_in_any_format_and_nobody_else_loses(seed: int) -> None:
    run(seed)


def test_records_that_wait_for_their_schema_hold_up_no_erasure_and_bring_nobody_back() -> None:
    one = Run(0)
    driver, registry = one.driver, one.driver.registry
    assert isinstance(registry, FakeRegistry)
    for who in (1, 2):
        one.p.order(f"who-{who}-", f"mine-{who}-street")
    driver.settle()
    known = registry.schemas[int.from_bytes(one.p.frames["orders"][1:], "big")]
    newer = registry.publish("newer", {**json.loads(known.text), "doc": "newer"})
    one.p.frames["orders"] = b"\0" + newer.to_bytes(4, "big")
    registry.away = True
    for who in (1, 2):
        one.p.order(f"who-{who}-", f"mine-{who}-waits")
    driver.settle()
    orders = {key: json.loads(value or b"")["attributes"]["orders"] for key, value in driver.read("mixed.customer.v1")}
    assert orders == {b"crm:who-1-": 1, b"crm:who-2-": 1}
    assert driver.erase("crm:who-1-") is not None
    registry.away = False
    driver.advance(timedelta(minutes=1))
    assert driver.record("crm:who-1-") is None
    assert driver.profile("crm:who-2-").orders == 2
    assert driver.topic("mixed.dlq") == []
    driver.verify()

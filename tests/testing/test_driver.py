"""The driver of API.md, as the owner of an app would use it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from c360.errors import UsageError
from c360.testing import TestDriver
from examples.shop.app import app

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


def click(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"k{n}", "cookie": "c1", "customer": "7", "login": None, "category": "shoes/1",
            "ts": "2026-11-02T08:59:00Z", **more}  # fmt: skip


def order(n: int, amount: str, *, op: str = "c", lsn: int | None = None) -> dict[str, Any]:
    placed = int(NOW.timestamp() * 1_000_000)
    row = {"id": n, "customer_id": "7", "amount": amount, "placed_at": placed}
    return {"before": None, "after": None if op == "d" else row, "op": op, "ts_ms": placed // 1000,
            "source": {"connector": "postgresql", "db": "shop", "schema": "public", "table": "orders",
                       "ts_ms": placed // 1000, "snapshot": "false", "lsn": lsn or n, "txId": n}}  # fmt: skip


def some_traffic(t: TestDriver) -> None:
    for n in range(20):
        t.send("web.clicks", "7", click(n))
    for n in range(1, 6):
        t.send("shop.public.orders", f'{{"id": {n}}}', order(n, "10.50"))


def test_a_profile_has_the_types_that_the_class_says() -> None:
    with TestDriver(app, now=NOW) as t:
        some_traffic(t)
        profile = t.profile("crm:7")
        assert (profile.clicks, profile.orders, profile.spend) == (20, 5, Decimal("52.50"))
        assert profile.last_seen == NOW
        assert profile.basket == Decimal("10.50")
        assert profile.interests == ["shoes"]
        assert t.profile("crm:8") is None
        assert t.topic("shop.dlq") == []
        t.verify()


@pytest.mark.parametrize(
    "accident",
    [TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance, lambda t: t.reset("customer@1")],
    ids=["crash", "lose_disk", "rebalance", "reset"],
)
def test_accidents_change_no_profile(accident: Callable[[TestDriver], None]) -> None:
    with TestDriver(app, now=NOW) as t:
        some_traffic(t)
        t.settle()
        some_traffic(t)  # ids and rows that were there already: every one is a repeat
        t.send("web.clicks", "7", click(99))
        accident(t)
        assert t.profile("crm:7").clicks == 21
        assert t.profile("crm:7").orders == 5
        t.verify()


def test_a_crash_comes_between_the_work_and_its_commit() -> None:
    with TestDriver(app, now=NOW) as t:
        t.settle()
        some_traffic(t)
        before = [loop.metrics.commits for loop in t.loops]
        old = t.loops
        t.crash()
        assert any(loop.uncommitted for loop in old)
        assert [loop.metrics.commits for loop in old] == before


def test_windows_close_as_the_clock_moves() -> None:
    with TestDriver(app, now=NOW) as t:
        some_traffic(t)
        assert t.profile("crm:7").spend_30d == Decimal("52.50")
        t.advance(timedelta(days=30))
        assert t.profile("crm:7").spend_30d == Decimal(0)
        assert t.profile("crm:7").spend == Decimal("52.50")
        t.verify()


def test_what_does_not_fit_is_in_the_dead_letter_topic() -> None:
    with TestDriver(app, now=NOW) as t:
        t.send("web.clicks", "7", b"not json")
        t.send("web.clicks", "7", click(1, ts="yesterday"))
        assert [letter["reason"] for letter in t.topic("shop.dlq")] == ["not-json", "out-of-range"]
        assert t.profile("crm:7") is None


def test_a_difference_is_an_error_that_says_what_differs() -> None:
    with TestDriver(app, now=NOW) as t:
        some_traffic(t)
        t.settle()
        topic, key, wrong = "shop.customer.v1", b"crm:7", b'{"profile_id": "crm:7"}'
        t.producer.produce(topic, key, wrong)
        t.producer.flush()
        with pytest.raises(AssertionError, match=r"customer@1: 1 differences[\s\S]*altered: shop\.customer\.v1"):
            t.verify("customer@1")


def test_mistakes_are_answered_with_what_there_is() -> None:
    with TestDriver(app, now=NOW) as t:
        with pytest.raises(UsageError, match=r"web\.click.*reads .*web\.clicks"):
            t.send("web.click", "7", click(1))
        with pytest.raises(UsageError, match="crm"):
            t.profile("customer:7")
        with pytest.raises(UsageError, match="other"):
            t.topic("other")

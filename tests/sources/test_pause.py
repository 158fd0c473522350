"""A source that is paused: nothing of it is read, nothing is lost, and all others go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from c360.errors import UsageError
from c360.ops import dlq, sources
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.clear_shop import app


@pytest.fixture
def t() -> Iterator[TestDriver]:
    with TestDriver(app) as driver:
        yield driver


def click(number: int) -> dict[str, Any]:
    return {
        "id": f"e{number}", "cookie": "k1", "customer": "7", "login": None, "category": "a/b", "ts": "2026-11-02T09:00:00Z"
    }  # fmt: skip


def send(t: TestDriver, *numbers: int) -> None:
    for number in numbers:
        t.send("web.clicks", "7", click(number))


def row(t: TestDriver, city: str, lsn: int) -> None:
    source = {"connector": "postgresql", "lsn": lsn, "ts_ms": 1_000, "snapshot": "false"}
    after = {"id": "7", "name": "Ann", "email": None, "city": city}
    t.send("crm.public.customers", '{"id": "7"}', {"op": "u", "before": None, "after": after, "source": source})


def test_nothing_of_it_is_read_until_it_is_resumed_and_nothing_is_lost(t: TestDriver) -> None:
    send(t, 1, 2)
    assert t.profile("crm:7").clicks == 2
    t.pause("web.clicks")
    send(t, 3, 4)
    row(t, "Lund", 1)
    found = t.profile("crm:7")
    assert (found.clicks, found.city) == (2, "Lund"), "other sources go on"
    t.crash()
    send(t, 5)
    assert t.profile("crm:7").clicks == 2, "also for who starts later"
    (status,) = [s for s in sources.statuses(t.plan, t.cluster) if s.source == "web.clicks"]
    assert (status.paused, status.lag) == (True, {"govern": 3})
    t.resume("web.clicks")
    assert t.profile("crm:7").clicks == 5
    t.verify()


def test_dead_letters_that_are_sent_back_wait_as_well(t: TestDriver) -> None:
    t.send("web.clicks", "7", {"id": "e1"})
    assert len(t.topic("shop.dlq")) == 1
    t.pause("web.clicks")
    sent = dlq.replay(t.plan, t.cluster, topic=None, reason=None)
    assert sent["replayed"] == 1
    assert len(t.topic("shop.dlq")) == 1
    t.resume("web.clicks")
    assert len(t.topic("shop.dlq")) == 2, "it was looked at, and still does not fit"


def test_a_source_is_named_by_its_name_and_no_other(t: TestDriver) -> None:
    with pytest.raises(UsageError, match=r"no source 'web\.click'; did you mean 'web\.clicks'"):
        t.pause("web.click")


def test_the_worker_says_which_sources_are_paused(t: TestDriver) -> None:
    t.pause("web.clicks")
    page = page_of(t.loops, {}, 0)
    assert 'c360_source_paused{source="web.clicks"} 1' in page
    assert 'c360_source_paused{source="crm.public.customers"} 0' in page

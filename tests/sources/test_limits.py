"""Sources that survive their producers: a rate, a quarantine, and a flood of what does not fit."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from c360 import App, Projection, Record, count
from c360.agents.control import Pause, pause_key
from c360.agents.govern import SHARE_OF, Govern, GovernTask
from c360.engine.pace import Bucket
from c360.engine.transport import TP, Batch
from c360.errors import DeclarationError
from c360.ops import audit, control, sources, topics
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.sources.registry import FakeRegistry
from tests.sources.test_avro import ORDER, order, shop

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)


def app_of(*, rate: str | None = None, quarantine: float | None = None) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.source("events", event_id="id", subject="customer", rate=rate, quarantine=quarantine)
    class Event(Record):
        id: str
        customer: Crm

    @app.source("others", event_id="id", subject="customer")
    class Other(Record):
        id: str
        customer: Crm

    @app.projection("customer")
    class Customer(Projection):
        events: int = count(Event)
        others: int = count(Other)

    return app


def send(t: TestDriver, topic: str, first: int, end: int) -> None:
    for n in range(first, end):
        t.producer.produce(topic, b"7", b'{"id": "%d", "customer": "7"}' % n, 0)
    t.producer.flush()


def send_bad(t: TestDriver, number: int) -> None:
    for n in range(number):
        t.producer.produce("events", None, b'{"id": %d' % n, 0)
    t.producer.flush()


def paused(t: TestDriver, source: str) -> bool:
    t.settle()
    return control.read(t.plan, t.cluster).is_paused(source)


# ------------------------------------------------------------------------------------------------------------- a rate
def test_a_bucket_gives_so_many_a_second_and_at_most_a_second_of_them_at_once() -> None:
    now = [100.0]
    bucket = Bucket(10.0, lambda: now[0])
    assert [bucket.take(4), bucket.take(100), bucket.take(100)] == [4, 6, 0]
    now[0] += 0.25
    assert bucket.take(100) == 2
    now[0] += 3600
    assert bucket.take(100) == 10
    slow = Bucket(0.1, lambda: now[0])
    given = []
    for _ in range(100):
        given.append(slow.take(100))
        now[0] += 1.0
    assert sum(given) == 10
    assert max(given) == 1


def task_of(app: App, partitions: int, monotonic: Callable[[], float] | None) -> GovernTask:
    plan = app.plan()
    there = {t.name: partitions for t in plan.topics}
    agent = Govern(plan, lambda: there, monotonic=monotonic)
    agent.lead_topics()
    task = agent.processor(agent.task(TP("events", 0)))
    assert isinstance(task, GovernTask)
    return task


def batch_of(topic: str, number: int) -> Batch:
    return Batch(TP(topic, 0), list(range(number)), [None] * number, [b"{}"] * number, [0] * number, lambda _: [])


def test_each_partition_has_its_part_of_a_rate_and_dead_letters_that_are_sent_back_do_not_count() -> None:
    now = [0.0]
    task = task_of(app_of(rate="120/min"), 4, lambda: now[0])
    taken = []
    for _ in range(60):
        taken.append(task.takes(batch_of("events", 500)))
        now[0] += 1.0
    assert sum(taken) == 30, "two a second, over four partitions, for a minute"
    assert task.takes(batch_of(task.replay, 500)) == 500
    assert task_of(app_of(rate="120/min"), 4, None).takes(batch_of("events", 500)) == 500
    assert task_of(app_of(), 4, lambda: 0.0).takes(batch_of("events", 500)) == 500


@pytest.mark.parametrize("rate", ["500", "0/s", "-1/s", "5/d", "1e3/s", ""])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(DeclarationError, match='write for example "500/s"'):
        app_of(rate=rate)


def test_what_waits_for_its_rate_is_read_in_order_and_nothing_is_lost() -> None:
    with TestDriver(app_of(rate="10/s"), now=NINE) as t:
        now = [0.0]
        for loop in t.loops:
            if isinstance(loop.agent, Govern):
                loop.agent.monotonic = lambda: now[0]
        send(t, "events", 0, 100)
        send(t, "others", 0, 50)
        found = t.profile("crm:7")
        assert (found.events, found.others) == (5, 50), "others go on"
        counted = []
        for _ in range(25):
            now[0] += 1.0
            counted.append(t.profile("crm:7").events)
        assert counted == [min(100, 10 + 5 * n) for n in range(25)]
        t.verify()


# ------------------------------------------------------------------------------------------------------- a quarantine
def test_a_source_of_which_too_much_does_not_fit_is_paused_and_that_is_told() -> None:
    with TestDriver(app_of(quarantine=0.2), now=NINE) as t:
        send(t, "events", 0, 2 * SHARE_OF)
        send_bad(t, SHARE_OF // 10)
        assert not paused(t, "events")
        send_bad(t, 2 * SHARE_OF)
        assert paused(t, "events")
        (status,) = [s for s in sources.statuses(t.plan, t.cluster) if s.paused]
        assert status.source == "events"
        assert re.fullmatch(r"quarantine: \d+% of the last 1,000 records do not fit", status.reason or "")
        before = len(t.topic("shop.dlq"))
        send_bad(t, 500)
        send(t, "others", 0, 3)
        assert t.profile("crm:7").others == 3
        assert len(t.topic("shop.dlq")) == before
        lines, _ = audit.tail(t.plan, t.cluster, 1, set())
        (record,) = [line.record for line in lines if line.record is not None]
        assert (record.entry.who, record.entry.what) == ("c360 worker", "source-pause")


def test_a_source_that_was_resumed_is_judged_anew() -> None:
    with TestDriver(app_of(quarantine=0.2), now=NINE) as t:
        send_bad(t, SHARE_OF)
        assert paused(t, "events")
        t.resume("events")
        send(t, "events", 0, 2 * SHARE_OF)
        assert not paused(t, "events")
        assert t.profile("crm:7").events == 2 * SHARE_OF
        send_bad(t, 2 * SHARE_OF)
        assert paused(t, "events")


def test_one_without_a_quarantine_goes_on_whatever_it_is_sent() -> None:
    with TestDriver(app_of(), now=NINE) as t:
        send_bad(t, 2 * SHARE_OF)
        send(t, "events", 0, 1)
        assert not paused(t, "events")
        assert t.profile("crm:7").events == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 20])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(DeclarationError, match="a share of records, between 0 and 1"):
        app_of(quarantine=share)


# ------------------------------------------------------------------------------------------------------------ attacks
def test_a_pause_outlives_the_control_topic() -> None:
    with TestDriver(app_of(), now=NINE) as t:
        t.pause("events")
        t.cluster.admin().delete([t.plan.control])
        t.settle()
        topics.apply(t.plan, t.cluster.admin())
        send(t, "events", 0, 5)
        send(t, "others", 0, 1)
        assert t.profile("crm:7").events == 0
        assert control.read(t.plan, t.cluster).is_paused("events"), "the worker has said it again"
        t.resume("events")
        assert t.profile("crm:7").events == 5


def test_pausing_twice_is_pausing_once_and_resuming_what_is_read_does_nothing() -> None:
    with TestDriver(app_of(), now=NINE) as t:
        t.resume("events")
        t.pause("events")
        t.pause("events")
        t.resume("events")
        send(t, "events", 0, 2)
        assert t.profile("crm:7").events == 2


def test_a_pause_of_a_source_that_is_no_more_harms_nobody() -> None:
    with TestDriver(app_of(), now=NINE) as t:
        control.write(t.plan, t.cluster, [(pause_key("gone"), Pause(1))])
        send(t, "events", 0, 2)
        assert t.profile("crm:7").events == 2


def test_a_flood_of_garbage_leaves_no_more_metrics_than_there_are_reasons_and_schemas() -> None:
    dice = random.Random(1)
    registry = FakeRegistry()
    number = registry.register(ORDER)
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        for n in range(2_000):
            t.producer.produce("orders", dice.randbytes(8), b"\0" + dice.randbytes(dice.randrange(40)), n % 2)
            t.producer.produce("orders", b"7", b"\1" + dice.randbytes(30), n % 2)
        t.producer.flush()
        t.send("orders", "7", registry.write(number, order(1)))
        assert t.profile("crm:7").orders == 1
        page = page_of(t.loops, {}, 0)
        assert len(re.findall(r"^c360_schema_", page, re.MULTILINE)) <= 2 * len(registry.schemas)
        assert len(re.findall(r"^c360_misfits_total", page, re.MULTILINE)) < 8

"""Who hosts a copy of what is asked: a worker on a thread that outlives its loops, the driver in its rounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from c360 import App, Projection, Record, count
from c360.assembly import Worker, governance_of
from c360.engine.global_table import GlobalTable
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TopicSpec
from c360.errors import NeedsOperator, Stale
from c360.governance.fence import Place, decode_statement, statement_key
from c360.serving.metrics import page_of
from c360.serving.web import why_not_whole
from c360.tables.store import MemoryStores
from c360.testing import TestDriver

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)

app = App("asking", partitions=3)
marketing = app.purpose("marketing")


@app.identifier("crm", priority=1, unique=True)
class CrmId(str): ...


@app.source("events", subject="customer", purposes=[marketing])
class Event(Record):
    customer: CrmId
    page: str


@app.consent("choices")
class Choice(Record):
    customer: CrmId
    purpose: str
    granted: bool
    at: datetime


@app.projection("customer", purposes=[marketing])
class Profile(Projection):
    events: int = count(Event)


TOPICS = ("asking.consent", "asking.fence")
SAID = [statement_key(Place("choices", p), "asking.consent") for p in range(2)]


def said(t: TestDriver, value: str) -> None:
    t.producer.produce("asking.consent", b"crm:7", value.encode())
    t.producer.flush()


def copy(t: TestDriver) -> GlobalTable:
    ((table,),) = (process.tables for process in t.processes)
    return table


# ============================================================================================================= driver
def test_the_drivers_copy_holds_all_there_is_when_everything_has_come_to_rest() -> None:
    with TestDriver(app, now=NOW) as t:
        assert copy(t).topics == TOPICS
        for value in ("a", "b"):
            said(t, value)
            t.settle()
            assert copy(t).get(b"crm:7") == value.encode()
        t.advance(timedelta(days=30))
        assert copy(t).age() > 0
        t.settle()
        assert copy(t).age() == 0
        assert copy(t).get(b"crm:7") == b"b"


@pytest.mark.parametrize("accident", [TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance])
def test_after_an_accident_a_process_has_a_copy_of_its_own(accident: Callable[[TestDriver], None]) -> None:
    with TestDriver(app, now=NOW) as t:
        for n in range(100):
            said(t, str(n))
        said(t, "a")
        t.settle()
        before = copy(t)
        accident(t)
        assert copy(t) is not before
        t.settle()
        assert copy(t).get(b"crm:7") == b"a"
        assert (copy(t).copied.records > 100) == (accident is not TestDriver.crash), "a disk that is kept is read on"


def test_coming_to_rest_takes_no_time_because_of_a_copy() -> None:
    with TestDriver(app, now=NOW) as t:
        begun = time.monotonic()
        for _ in range(20):
            t.settle()
        assert time.monotonic() - begun < 1.0, "a tenth of a second for each round would be 8 s"


def test_an_app_without_rights_has_no_copy() -> None:
    plain = App("plain")

    @plain.identifier("crm", priority=1, unique=True)
    class Number(str): ...

    @plain.source("events", subject="customer")
    class Seen(Record):
        customer: Number

    with TestDriver(plain, now=NOW) as t:
        assert [process.tables for process in t.processes] == [[]]


def test_only_processes_that_ask_have_a_copy() -> None:
    plan, cluster = app.plan(), MemoryCluster()

    def has(*only: str) -> bool:
        return governance_of(plan, cluster, MemoryStores(), lambda: 0, only) is not None

    assert has()
    assert has("identity", "customer@1:marketing")
    assert has("govern")
    assert not has("customer@1", "consent")


# ============================================================================================================= worker
def worker(cluster: MemoryCluster, **how: Any) -> Worker:
    cluster.admin().create([TopicSpec(name, 2) for name in ("events", "choices")])
    made = Worker(app.plan(), cluster, MemoryStores(), "one", **how)
    made.prepare()
    return made


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_worker_follows_and_says_in_its_metrics_how_old_the_copy_is() -> None:
    running = worker(MemoryCluster())
    (table,) = running.tables
    assert why_not_whole(table) == "copying"
    assert 'c360_copy_age_seconds{table="governance"} +Inf' in page_of([], {}, 0, [table])
    running.start()
    until(lambda: table.age() < 1)
    assert why_not_whole(table) == ""
    assert "+Inf" not in page_of([], {}, 0, [table])
    running.stop()
    running.join()
    with pytest.raises(Stale):
        table.get(b"k")


def test_the_last_commits_of_loops_can_still_ask_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    running = worker(MemoryCluster())
    (table,), asked = running.tables, []

    def slow_to_leave(stopped: Callable[[], bool]) -> None:
        until(stopped)
        threading.Event().wait(0.3)
        asked.append(table.get(b"k"))

    for loop in running.loops:
        monkeypatch.setattr(loop, "run", slow_to_leave)
    running.start()
    until(lambda: table.age() < 1)
    running.stop()
    running.join()
    assert asked == [None] * len(running.loops)


def test_a_copy_that_cannot_go_on_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(self: GlobalTable) -> bool:
        raise NeedsOperator("the disk refuses")

    monkeypatch.setattr(GlobalTable, "turn", turn)
    cluster = MemoryCluster()
    cluster.admin().create([TopicSpec(name, 2) for name in ("events", "choices")])
    with pytest.raises(NeedsOperator, match="the disk refuses"):
        Worker(app.plan(), cluster, MemoryStores(), "one").run()
    assert not [thread for thread in threading.enumerate() if thread.name in ("governance", "govern", "topics")]


# ================================================================================================= how far an agent is
def test_of_agents_that_are_told_of_the_worker_tells_and_the_driver_too() -> None:
    with TestDriver(app, now=NOW) as t:
        for _ in range(3):
            t.advance(timedelta(seconds=1))
            t.settle()
            for key in SAID:
                value = copy(t).get(key, "asking.fence")
                assert value is not None
                assert decode_statement(value).at == t.now_ms
    running = worker(MemoryCluster())
    (teller,), (table,) = running.tellers, running.tables
    running.start()
    until(lambda: teller.age() < 1 and table.age() < 1 and table.get(SAID[1], "asking.fence"))
    running.stop()
    running.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("told-")]

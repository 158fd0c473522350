"""Which versions run, which is live, and what is told when logic has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

import pytest

from c360 import App, Projection, Record, assembly, count, total
from c360.agents.control import (
    Controls,
    Live,
    Logic,
    VersionState,
    drift,
    encode,
    live_key,
    version_key,
)
from c360.assembly import Worker
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, TopicSpec
from c360.errors import BrokerAway, DeclarationError, EngineFatal, NeedsOperator
from c360.ops import control, topics
from c360.plan import Plan
from c360.tables.store import MemoryStores
from c360.testing.faults import At, FaultyCluster
from tests.engine.test_crash import every_step


def shop(versions: int = 2, *, cents: bool = False, enriched: str = "") -> Plan:
    app = App("shop", partitions=2)

    @app.identifier("crm", unique=True)
    class Crm(str): ...

    @app.source("orders", event_id="id", subject="crm")
    class Order(Record):
        id: int
        crm: Crm
        amount: Decimal

    if enriched == "more":

        @app.enrich(Order)
        def large(order: Order) -> bool:
            return order.amount > 100

    elif enriched:

        @app.enrich(Order)
        def large(order: Order) -> bool:
            return order.amount >= 100

    class First(Projection):
        spend: Decimal = total(Order.amount, scale=4) if cents else total(Order.amount)

    class Second(Projection):
        orders: int = count(Order)

    for version, record in enumerate([First, Second][:versions], 1):
        app.projection("customer", version=version)(record)
    return app.plan()


def controls(plan: Plan, live: Live | None = None, **states: VersionState) -> Controls:
    values = {version_key(f"customer@{name[1:]}"): encode(state) for name, state in states.items()}
    return Controls(values if live is None else values | {live_key("customer"): encode(live)})


@pytest.mark.parametrize(
    ("live", "second", "stages", "running"),
    [
        (None, None, ("new", "live"), {2}),
        (Live(1), None, ("live", "new"), {1}),
        (Live(1), VersionState("building"), ("live", "building"), {1}),
        (Live(1), VersionState("ready"), ("live", "ready"), {1, 2}),
        (Live(2, 1), VersionState("ready"), ("previous", "live"), {1, 2}),
        (Live(1), VersionState("retired"), ("live", "retired"), {1}),
        (Live(1, 2), VersionState("ready"), ("live", "previous"), {1, 2}),
    ],
)
def test_a_version_runs_unless_it_is_not_built_or_no_more(
    live: Live | None, second: VersionState | None, stages: tuple[str, str], running: set[int]
) -> None:
    plan = shop()
    said = controls(plan, live, **({} if second is None else {"v2": second}))
    assert tuple(said.stage(plan, "customer", version) for version in (1, 2)) == stages
    assert {v for v in (1, 2) if said.runs(plan, f"customer@{v}")} == running
    assert said.runs(plan, "govern")
    assert not said.runs(plan, "govern", ["customer@2"])
    assert said.runs(plan, "customer@2", ["customer@2"]) == (stages[1] != "retired")


def test_two_classes_are_two_versions_and_a_number_is_used_once() -> None:
    plan = shop()
    assert [p.agent for p in plan.versions_of("customer")] == ["customer@1", "customer@2"]
    assert {"shop.customer.v1", "shop.customer.v2"} <= {t.name for t in plan.topics}
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    @app.source("orders", subject="crm")
    class Order(Record):
        crm: Crm

    class First(Projection):
        orders: int = count(Order)

    class Second(Projection):
        orders: int = count(Order)

    app.projection("customer")(First)
    with pytest.raises(
        DeclarationError, match="version 1 of 'customer' is already declared by First; give the new one"
    ):
        app.projection("customer")(Second)
    with pytest.raises(DeclarationError, match="First is already customer@1"):
        app.projection("customer", version=2)(First)


def begun(cluster: MemoryCluster, plan: Plan, *, accept_drift: bool = False) -> list[str]:
    topics.apply(plan, cluster.admin())
    return control.begin(plan, cluster, control.read(plan, cluster), plan.agents, accept_drift=accept_drift)


def test_the_first_worker_writes_what_is_live_and_a_version_that_comes_later_does_not_change_it() -> None:
    cluster = MemoryCluster()
    assert begun(cluster, shop(1)) == []
    begun(cluster, plan := shop(2))
    said = control.read(plan, cluster)
    assert (said.said_live("customer"), said.stage(plan, "customer", 2)) == (Live(1), "new")


def test_the_live_version_must_stay_declared_until_another_is_promoted() -> None:
    cluster = MemoryCluster()
    begun(cluster, plan := shop(2))
    control.write(plan, cluster, [(live_key("customer"), Live(2, 1))])
    with pytest.raises(NeedsOperator, match="customer@2 is live, and 'shop' declares customer@1 only"):
        begun(cluster, shop(1))


def test_logic_that_has_changed_under_its_number_is_refused_with_the_difference() -> None:
    cluster = MemoryCluster()
    begun(cluster, shop(1))
    with pytest.raises(NeedsOperator) as refused:
        begun(cluster, shop(1, cents=True))
    said = str(refused.value)
    assert "- attribute spend: total(Order.amount) of decimal, n=3 limit=1000 within_days=0 scale=2" in said
    assert "+ attribute spend: total(Order.amount) of decimal, n=3 limit=1000 within_days=0 scale=4" in said
    assert "c360 rebuild customer@2" in said
    accepted = begun(cluster, shop(1, cents=True), accept_drift=True)
    assert len(accepted) == 2
    assert begun(cluster, shop(1, cents=True)) == []


def test_an_enrichment_may_come_and_go_and_may_not_change() -> None:
    cluster = MemoryCluster()
    begun(cluster, shop(1))
    assert begun(cluster, shop(1, enriched="more")) == []
    with pytest.raises(
        NeedsOperator, match=r"govern is not what it was(.|\n)*order.amount > 100(.|\n)*order.amount >= 100"
    ):
        begun(cluster, shop(1, enriched="as much"))
    assert begun(cluster, shop(1)) == []


def test_what_is_only_added_is_no_drift_where_lines_stand_for_themselves() -> None:
    before = Logic(["a: 1", "b: 2"])
    assert drift(before, ["b: 2", "c: 3"], may_grow=True) == []
    assert drift(before, ["a: 2", "c: 3"], may_grow=True) == ["- a: 1", "+ a: 2"]
    assert drift(before, ["a: 1", "b: 2", "c: 3"], may_grow=False) == ["+ c: 3"]


def test_a_worker_says_again_what_was_decided_when_the_topic_is_made_again() -> None:
    cluster, plan = MemoryCluster(), shop()
    begun(cluster, plan)
    control.write(plan, cluster, [(live_key("customer"), Live(1))])
    watch = control.Watch(plan, cluster)
    assert watch.turn()
    assert not watch.turn()
    before = watch.controls
    assert before.live(plan, "customer") == 1
    cluster.admin().delete([plan.control])
    assert not watch.turn()
    topics.apply(plan, cluster.admin())
    watch.turn()
    assert (watch.controls, control.read(plan, cluster)) == (before, before)


def test_a_broker_that_goes_away_while_it_is_read_hides_nothing_that_was_decided() -> None:
    """A worker that looked again knew of nothing: it would have said itself which version is live, and run what was reset."""
    for plan_of in every_step(lambda: BrokerAway("away")):
        inner, plan = MemoryCluster(), shop()
        begun(inner, plan)
        control.write(plan, inner, [(live_key("customer"), Live(1))])
        right = control.read(plan, inner)
        cluster = FaultyCluster(inner, plan_of)
        watch = control.Watch(plan, cluster)
        turned(watch)
        assert watch.controls == right
        inner.admin().delete([plan.control])
        turned(watch)
        topics.apply(plan, inner.admin())
        turned(watch)
        assert (watch.controls, control.read(plan, inner)) == (right, right)


def turned(watch: control.Watch) -> None:
    try:
        watch.turn()
    except BrokerAway:
        watch.turn()


def test_nobody_guesses_which_version_is_live_where_several_have_run() -> None:
    cluster, plan = MemoryCluster(), shop()
    topics.apply(plan, cluster.admin())
    cluster.admin().set_group_offsets(plan.agent("customer@1").group, {TP(plan.tasks, 0): 1})
    begun(cluster, plan)
    assert control.read(plan, cluster).said_live("customer") == Live(1)
    control.write(plan, cluster, [(live_key("customer"), None)])
    cluster.admin().set_group_offsets(plan.agent("customer@2").group, {TP(plan.tasks, 0): 1})
    with pytest.raises(NeedsOperator, match="c360 promote customer@1"):
        begun(cluster, plan)


def test_a_worker_starts_what_is_built_and_stops_what_is_retired_while_it_runs() -> None:
    cluster, plan = MemoryCluster(), shop()
    topics.apply(plan, cluster.admin())
    cluster.admin().create([TopicSpec("orders", 2)])
    control.write(plan, cluster, [(live_key("customer"), Live(1))])
    worker = Worker(plan, cluster, MemoryStores(), "one")
    thread = threading.Thread(target=worker.run)
    thread.start()

    def run(*names: str) -> bool:
        return {loop.agent.name for loop in worker.loops} == {"govern", *names}

    def decide(state: Literal["ready", "retired"]) -> None:
        control.write(plan, cluster, [(version_key("customer@2"), VersionState(state))])

    try:
        wait_until(lambda: run("customer@1"))
        decide("ready")
        wait_until(lambda: run("customer@1", "customer@2"))
        decide("retired")
        wait_until(lambda: run("customer@1"))
        decide("ready")
        wait_until(lambda: run("customer@1", "customer@2"))
    finally:
        worker.stop()
        thread.join()
    assert worker.error is None


def test_a_worker_does_not_make_topics_again_that_go_with_a_version_while_it_looks() -> None:
    """It looks what is decided four times a second, and at topics at other times: one that was retired in between came back."""
    cluster, plan = MemoryCluster(), shop()
    topics.apply(plan, cluster.admin())
    control.write(plan, cluster, [(live_key("customer"), Live(1)), (version_key("customer@2"), VersionState("ready"))])
    worker = Worker(plan, cluster, MemoryStores(), "one")
    worker.prepare()
    gone = plan.topics_of(next(p for p in plan.projections if p.version == 2))
    control.write(plan, cluster, [(version_key("customer@2"), VersionState("retired"))])
    cluster.admin().delete([*gone, plan.dlq])
    assert worker._make_topics() == [plan.dlq]
    assert cluster.admin().topics().keys().isdisjoint(gone)
    for loop in worker.loops:
        loop.close()
    worker.watch.close()


def test_a_worker_makes_topics_later_that_could_not_be_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that does so ended in silence, and with it the trimming of loops."""
    monkeypatch.setattr(assembly, "LOOK_S", 0.02)
    cluster, plan = MemoryCluster(), shop(1)
    refusing = At(
        0, lambda: EngineFatal("creating orders.replay: not enough brokers"), frozenset({"before create"}), fired=True
    )
    worker = Worker(plan, FaultyCluster(cluster, refusing), MemoryStores(), "one")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: len(worker.loops) == 2)
        refusing.fired = False
        cluster.admin().create([TopicSpec("orders", 2)])
        wait_until(lambda: refusing.fired and plan.replay(plan.sources[0]) in cluster.topics)
    finally:
        worker.stop()
        thread.join()
    assert worker.error is None


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_is_the_first_to_say_what_is_live_goes_by_that_at_once() -> None:
    cluster, plan = MemoryCluster(), shop()
    topics.apply(plan, cluster.admin())
    cluster.admin().set_group_offsets(plan.agent("customer@1").group, {TP(plan.tasks, 0): 1})
    worker = Worker(plan, cluster, MemoryStores(), "one")
    worker.prepare()
    try:
        assert {loop.agent.name for loop in worker.loops} == {"govern", "customer@1"}
        assert worker.watch.controls.live(plan, "customer") == 1
    finally:
        for loop in worker.loops:
            loop.close()
        worker.watch.close()

"""A process that was paused right before its commit, and wakes up in another life of its agent: what it said is void."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from c360.agents.identity import LIFE
from c360.engine.loop import Loop
from c360.errors import Fenced, NeedsOperator
from c360.ops import control
from c360.ops.beginning import begin_life
from c360.ops.reset import order_reset, plan_reset, plan_undo, undo
from c360.testing import TestDriver
from c360.testing.faults import Crash, FaultyProducer
from tests.governance.door_shop import Street
from tests.ops.test_reset import ANN, BOB, LOG, say, vanished
from tests.testing.moves import PARTS, PLAN, app, assign, profiles
from tests.testing.people import app as people
from tests.testing.world import NOW


def loop_of(t: TestDriver, agent: str) -> Loop:
    return next(loop for loop in t.loops if loop.agent.name == agent)


def pause(t: TestDriver, agent: str, send: Callable[[], None]) -> Loop:
    """The worker hangs with all of a transaction of this agent in the log but its decision; nobody hears of it any more."""
    t.settle()
    loop = loop_of(t, agent)
    assert loop.producer is not None

    def step(name: str) -> None:
        if name == "before commit":
            raise Crash

    loop.producer = FaultyProducer(loop.producer, step)
    send()
    with pytest.raises(Crash):
        t.settle()
    for one in t.loops:
        t.cluster.expire(one.consumer)
    t.processes = []
    return loop


def wake(loop: Loop) -> None:
    assert isinstance(loop.producer, FaultyProducer)
    loop.producer.inner.commit()


def open_in(t: TestDriver, topic: str) -> bool:
    return any(log.open for log in t.cluster.topics[topic].partitions)


@pytest.mark.parametrize("wakes", ["before it is begun", "when it was begun", "when it has run"])
def test_parts_and_profiles_that_a_projection_said_before_are_void(wakes: str) -> None:
    t = TestDriver(app, now=NOW)
    say(t, 0)
    t.settle()

    def send() -> None:
        for subject in (ANN, BOB):
            assign(t.producer, subject, 1, ANN)
        say(t, 100)

    zombie = pause(t, "customer@1", send)
    assert open_in(t, PARTS)
    assert open_in(t, LOG)
    order_reset(PLAN, t.cluster, plan_reset(PLAN, t.cluster, "customer@1"))
    assert not open_in(t, LOG), "it was ended"
    for now in ("before it is begun", "when it was begun", "when it has run"):
        if now == "when it was begun":
            begin_life(PLAN, t.cluster, "customer@1")
        if now == "when it has run":
            t.start()
            t.settle()
        if now == wakes:
            with pytest.raises(Fenced):
                wake(zombie)
    t.verify("govern", "customer@1")
    with TestDriver(app, now=NOW) as never:
        say(never, 0)
        for subject in (ANN, BOB):
            assign(never.producer, subject, 1, ANN)
        say(never, 100)
        never.settle()
        assert profiles(t.cluster) == profiles(never.cluster)
    assert vanished(t) == set()


def test_what_wakes_up_before_the_order_is_in_the_journal_and_is_undone_to_there() -> None:
    t = TestDriver(app, now=NOW)
    say(t, 0)
    zombie = pause(t, "customer@1", lambda: say(t, 100))
    planned = plan_reset(PLAN, t.cluster, "customer@1")
    wake(zombie)
    with pytest.raises(NeedsOperator, match="has gone on since it was looked at: nothing was changed"):
        order_reset(PLAN, t.cluster, planned)
    assert control.read(PLAN, t.cluster).resets == {}
    order_reset(PLAN, t.cluster, plan_reset(PLAN, t.cluster, "customer@1"))
    undo(PLAN, t.cluster, plan_undo(PLAN, t.cluster, "customer@1"))
    t.start()
    t.verify("govern", "customer@1")


def visit(n: int, emails: list[str]) -> dict[str, object]:
    ts = f"2026-11-02T08:00:{n:02}Z"
    return {"id": f"v{n}", "cookie": f"aaaa{n % 5}", "customer": None, "emails": emails, "page": "/", "ts": ts}


def test_assignments_that_an_identity_said_before_are_below_those_of_its_new_life_or_void() -> None:
    t = TestDriver(people, now=NOW)
    plan = t.plan
    topic = plan.assignments(plan.identities[0])
    agent = plan.identities[0].agent
    for n in range(5):
        t.send("visits", None, visit(n, [f"e{n}@mail.de"]))

    def send() -> None:
        for n in range(5, 10):
            t.send("visits", None, visit(n, ["e0@mail.de"]))

    zombie = pause(t, agent, send)
    assert open_in(t, topic)
    order_reset(plan, t.cluster, plan_reset(plan, t.cluster, agent))
    t.start()
    t.settle()
    with pytest.raises(Fenced):
        wake(zombie)
    t.verify()
    last = {key: json.loads(value) for key, value in t.read(topic) if value is not None}
    lives = {said["seq"] >> LIFE for said in last.values()}
    assert len(lives) == 1
    assert lives.pop() > 0
    assert len({said["profile"] for said in last.values()}) == 1


def test_what_a_door_had_not_decided_to_let_go_does_not_leave() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.customer(1, "Ann")
        t.settle()
        assert list(t.view("marketing")) == ["crm:1"]
        view = "customer@1:marketing"
        leaves = next(t.plan.leaves(door) for door in t.plan.doors if door.agent == view)
        zombie = pause(t, view, lambda: t.customer(1, "Changed"))
        assert open_in(t, leaves)
        order_reset(t.plan, t.cluster, plan_reset(t.plan, t.cluster, view))
        t.rights.decide("crm:1", "marketing", "withdrawn")
        t.start()
        t.settle()
        with pytest.raises(Fenced):
            wake(zombie)
        assert t.view("marketing") == {}
        assert b"Changed" not in b"".join(value or b"" for _, value in t.read(leaves))

"""Doors, read with the eye of an opponent: what is large, what is many, what has changed beside them."""

from __future__ import annotations

from typing import Any

import pytest

from c360.agents.door import PROFILES_PER_COMMIT, DoorAgent
from c360.engine.transport import TopicSpec
from tests.governance.door_shop import SECOND, Street
from tests.governance.test_doors import door_of, shared_record


def loop_of(t: Street, agent: DoorAgent) -> Any:
    (loop,) = (loop for loop in t.loops if loop.agent is agent)
    return loop


def test_what_is_too_large_for_any_topic_does_not_leave_and_stops_nobody_else() -> None:
    with Street() as t:
        sink = t.plan.doors[-1].sink
        t.stop()
        object.__setattr__(sink, "function", lambda profile: "x" * (16_100_000 if profile.name == "Large" else 3))
        t.start()
        t.customer(1, "Large")
        t.customer(2, "Small")
        t.rights.state()
        assert t.sink("crm-sync") == {}
        for n in (1, 2):  # nothing comes in: it is looked at again for what was decided
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert t.sink("crm-sync") == {"crm:2": "xxx"}
        (letter,) = (r for r in t.topic("doors.dlq") if r["stage"] == "sink:crm-sync")
        assert letter["reason"] == "too-large"


def test_everybody_who_withdraws_while_a_door_is_shut_is_taken_back_however_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("c360.agents.door.TAKEN_BACK", 5)
    with Street() as t:
        for n in range(20):
            t.customer(n, f"N{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert len(t.sink("crm-sync")) == 20
        t.rights.stopped = True
        t.advance(10 * SECOND)
        for n in range(18):  # they say it again
            t.rights.append(f"crm:{n}", "marketing", "granted", at=t.now_ms)
        for n in (18, 19):
            t.rights.append(f"crm:{n}", "marketing", "withdrawn", at=t.now_ms)
        for _ in range(8):
            t.advance(2 * SECOND)
            t.settle()
        assert t.sink("crm-sync").keys() == t.view("marketing").keys() == {f"crm:{n}" for n in range(18)}


def test_of_those_who_share_an_identifier_all_are_taken_back_while_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c360.agents.door.TAKEN_BACK", 5)
    with Street() as t:
        topic = t.plan.projected(t.plan.projections[0])
        t.rights.decide("cookie:shared", "marketing", "granted")
        for n in range(20):
            t.rights._write(topic, f"crm:{n}", shared_record(n))
        t.rights.state()
        assert len(t.sink("crm-sync")) == 20
        t.rights.stopped = True
        t.advance(10 * SECOND)
        t.rights.append("cookie:shared", "marketing", "withdrawn", at=t.now_ms)
        for _ in range(10):
            t.advance(2 * SECOND)
            t.settle()
        assert t.sink("crm-sync") == {}


def test_where_nobody_can_tell_who_was_decided_on_all_are_looked_at_also_while_shut() -> None:
    with Street() as t:
        for n in range(6):
            t.customer(n, f"N{n}")
            t.rights.append(f"crm:{n}", "marketing", "granted")
        t.rights.state()
        assert len(t.sink("crm-sync")) == 6
        t.rights.stopped = True
        admin = t.cluster.admin()
        admin.delete([t.plan.consent])
        admin.create([TopicSpec(t.plan.consent, t.plan.partitions)])
        t.rights.append("crm:1", "marketing", "granted")
        for _ in range(4):
            t.advance(10 * SECOND)
            t.settle()
        assert t.sink("crm-sync").keys() == {"crm:1"}, "of the others nothing is known any more"


def test_a_door_that_somebody_in_each_of_its_large_transactions_decides_on_gets_on_with_small_ones() -> None:
    with Street() as t:
        topic = t.plan.projected(t.plan.projections[0])
        for n in range(3_000):
            t.producer.produce(topic, b"crm:%d" % n, shared_record(n), n % t.plan.partitions)
        t.rights.decide("cookie:shared", "marketing", "granted")
        agent = door_of(t, "sink:crm-sync")
        loop = loop_of(t, agent)
        delivered: list[int] = []
        named = {agent.judge.named(f"crm:{n}"): f"crm:{n}" for n in range(3_000)}

        def gate() -> None:
            """One decision comes for each 200 profiles: as many as while so many are looked at and written."""
            made, copy = agent.made, t.processes[0].tables[0]
            for label in sorted(made.labels & named.keys())[: made.delivered // 200]:
                t.rights.decide(named[label], "marketing", "granted", at=t.now_ms + len(delivered))
            for _ in range(3):
                copy.turn()
            agent.gate()
            delivered.append(made.delivered)

        loop.gate = gate
        t.settle()
        assert agent.counters.shut["news"] > 2
        assert sum(delivered) == len(t.sink("crm-sync")) == 3_000
        assert agent.most < PROFILES_PER_COMMIT
        for n in range(40):  # when it is calm they grow again
            t.rights.decide("crm:1", "marketing", "denied" if n % 2 else "granted", at=t.now_ms + 10_000 + n)
            t.settle()
        assert agent.most == PROFILES_PER_COMMIT

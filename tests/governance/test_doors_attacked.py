"""Doors, read with the eye of an opponent: what is large, what is many, what has changed beside them."""

from __future__ import annotations

from typing import Any

import pytest

from c360 import App, Projection, Record, newest
from c360.agents.door import PROFILES_PER_COMMIT, DoorAgent
from c360.assembly import Stepping
from c360.engine.transport import TopicSpec
from c360.errors import NeedsOperator
from c360.ops.reset import execute_reset, plan_reset
from c360.testing import TestDriver
from tests.governance.door_shop import NOW, SECOND, Street, inputs_of
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


def test_everybody_who_withdraws_while_a_door_is_shut_is_taken_back_in_portions(
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


def test_of_those_who_share_an_identifier_all_are_taken_back_in_portions_while_shut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


# ------------------------------------------------------------------------------------------ what was declared is another
def stall(
    *, of: str = "customer", purposes: tuple[str, ...] = ("service",), orders: tuple[str, ...] = ("service",)
) -> App:
    """Nobody is asked. `orders`: what orders may be used for."""
    app = App("stall", partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    said = {name: app.purpose(name, basis="contract") for name in ("service", "ads")}

    @app.source("visits", subject="customer", purposes=[*said.values()])
    class Visit(Record):
        customer: CrmId
        page: str

    @app.source("orders", subject="customer", purposes=[said[name] for name in orders])
    class Order(Record):
        customer: CrmId
        page: str

    @app.projection(of, purposes=[said[name] for name in purposes])
    class Profile(Projection):
        page: str | None = newest(Visit.page, Order.page)

    @app.sink("mail", projection=Profile, purpose=said["service"])
    def mail(profile: Profile) -> dict[str, Any]:
        return {"page": profile.page}

    return app


class Doors(TestDriver):
    """Only the doors, of an app that is another by now: as workers with `--only`, which know nothing of the projection."""

    __test__ = False

    def __init__(self, before: TestDriver, app: App) -> None:
        self.plan, self.now_ms = app.plan(), before.now_ms
        self.cluster, self.stores, self.producer = before.cluster, before.stores, before.producer
        self.slots, self.random, self.vault, self.registry = 7, before.random, before.vault, before.registry
        self.start()

    def _process(self) -> Stepping:
        made = super()._process()
        for loop in made.loops:
            if not isinstance(loop.agent, DoorAgent):
                loop.close()
        return Stepping([loop for loop in made.loops if isinstance(loop.agent, DoorAgent)], made.tables)


@pytest.mark.parametrize(
    "after", [{"purposes": ("service", "ads")}, {"purposes": ("service", "ads"), "orders": ("service", "ads")}]
)
def test_a_door_refuses_records_that_were_made_by_other_rules(after: dict[str, Any]) -> None:
    with TestDriver(stall(), now=NOW) as t:
        t.send("visits", value={"customer": "1", "page": "/"})
        t.advance(SECOND)
        t.send("orders", value={"customer": "1", "page": "/secret"})
        assert t.view("service")["crm:1"]["attributes"] == {"page": "/secret"}
    later = Doors(t, stall(**after))
    with pytest.raises(NeedsOperator, match="c360 reset customer@1"):
        later.settle()
    assert list(later.read("stall.customer.v1.ads")) == []


def test_a_sink_that_is_given_another_projection_begins_anew_and_takes_back_whom_that_has_not() -> None:
    with TestDriver(stall(), now=NOW) as t:
        t.send("visits", value={"customer": "1", "page": "/"})
        assert t.sink("mail") == {"crm:1": {"page": "/"}}
        t.producer.produce("stall.activation.mail", b"crm:7", b'{"page":"/"}', 0)
    t.plan = stall(of="visitor").plan()
    t.start()
    with pytest.raises(NeedsOperator, match="c360 reset sink:mail --to-earliest"):
        t.settle()
    t.stop()
    execute_reset(t.plan, t.cluster, plan_reset(t.plan, t.cluster, "sink:mail"))
    t.start()
    assert t.sink("mail") == {"crm:1": {"page": "/"}}


# ------------------------------------------------------------------------------------------------------------ the fence
def test_an_input_that_a_door_can_see_no_more_still_counts() -> None:
    with Street() as t:
        t.rights.decide("crm:1", "marketing", "granted")
        t.customer(1, "Ann")
        t.settle()
        t.advance(2 * SECOND)
        agent = door_of(t, "customer@1:marketing")
        assert agent.fence is not None
        everything = agent.fence.partitions
        agent.fence.partitions = lambda: {t: n for t, n in everything().items() if t != "choices"}  # an ACL hides it
        for place, output in inputs_of(t.plan, t.cluster.admin().topics()):
            if place.topic != "choices":  # and the agent is behind there
                t.rights.say(place, t.now_ms, t.rights.ends(output))
        t.producer.flush()
        t.customer(1, "Changed")
        assert t.view("marketing")["crm:1"]["attributes"]["name"] == "Ann"
        t.rights.state()
        assert t.view("marketing")["crm:1"]["attributes"]["name"] == "Changed"

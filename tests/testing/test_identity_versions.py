"""Versions of identity: a new rule beside the old one, each with the version of a projection that follows it."""

from __future__ import annotations

import json
import random

import pytest

from c360 import App, Projection, collect, count
from c360.engine.memory import MemoryCluster
from c360.errors import NeedsOperator
from c360.ops import control, topics
from c360.plan import Plan
from c360.testing import TestDriver
from tests.testing.people import Account, Cookie, Email, Visit, who
from tests.testing.test_rule_sets import assigned, disturbed, groups, latest, send, told
from tests.testing.world import NOW

OLD, NEW = "sets.assignments.v1", "sets.assignments.v2"


class First(Projection):
    visits: int = count(Visit)
    names: list[str] = collect(Account.name)


class Second(Projection):
    visits: int = count(Visit)
    names: list[str] = collect(Account.name)


def versions(*wanted: int) -> App:
    """An app with these versions of identity, and of the projection that follows each."""
    app = who("sets")
    if 1 in wanted:
        app.projection("customer", version=1, identity=app.identity())(First)
    if 2 in wanted:
        two = app.identity(version=2, changes={Email: {"limit": 1}, Cookie: {"hub_at": 3}}, cap=6)
        app.projection("customer", version=2, identity=two)(Second)
    return app


def followed(t: TestDriver, version: int, answer: str) -> None:
    """Profiles have the members that the rules of their version say."""
    profiles = {key: json.loads(value) for key, value in latest(t, f"sets.customer.v{version}").items()}
    members = {subject: key for key, record in profiles.items() for subject in record["subjects"]}
    said = {subject: profile for subject, (profile, *_) in assigned(t, answer).items() if subject in members}
    assert said == {subject: profile for subject, profile in members.items() if subject in said}
    assert any(record["subjects_total"] > 1 for record in profiles.values())


@pytest.mark.parametrize("seed", range(3))
def test_each_version_of_a_projection_follows_its_version_of_the_rules(seed: int) -> None:
    with TestDriver(versions(1, 2), now=NOW) as t:
        said = told(seed, versions(1, 2))
        disturbed(t, said, random.Random(seed))
        t.verify()
        assert groups(assigned(t, OLD)) != groups(assigned(t, NEW)), "the rules tell customers apart"
        followed(t, 1, OLD)
        followed(t, 2, NEW)
        for version, answer in ((1, OLD), (2, NEW)):
            with TestDriver(versions(version), now=NOW) as alone:
                send(alone, said)
                assert latest(alone, answer) is not None
                assert assigned(alone, answer) == assigned(t, answer)
                assert latest(alone, f"sets.customer.v{version}") == latest(t, f"sets.customer.v{version}")


def test_the_new_one_is_built_beside_from_what_was_governed_and_the_old_one_does_not_notice() -> None:
    with TestDriver(versions(1, 2), now=NOW) as whole, TestDriver(versions(1), now=NOW) as t:
        said = told(3, versions(1, 2))
        send(whole, said)
        send(t, said)
        t.settle()
        before = {topic: len(list(t.read(topic))) for topic in (OLD, "sets.customer.v1")}
        t.stop()
        t.plan = versions(1, 2).plan()
        t.start()
        t.settle()
        assert {topic: len(list(t.read(topic))) for topic in before} == before
        for topic in ("sets.customer.v1", "sets.customer.v2"):
            assert latest(t, topic) == latest(whole, topic)
        t.verify()


def begun(cluster: MemoryCluster, plan: Plan) -> None:
    topics.apply(plan, cluster.admin())
    control.begin(plan, cluster, control.read(plan, cluster), plan.agents)


def changed(**limits: int) -> Plan:
    app = who("sets")
    app.projection("customer", identity=app.identity(changes={Email: limits} if limits else None))(First)
    return app.plan()


def test_a_rule_that_has_changed_under_its_number_is_refused_and_named() -> None:
    cluster = MemoryCluster()
    begun(cluster, changed())
    with pytest.raises(NeedsOperator) as refused:
        begun(cluster, changed(limit=1, hub_at=7))
    lines = str(refused.value).splitlines()
    assert lines[0] == "identity@1 is not what it was when it first ran:"
    told = [line.strip() for line in lines[1:-1]]
    assert "+ email.limit: 1" in told
    assert "+ email.hub_at: 7" in told
    assert {line[2:].partition(":")[0] for line in told} == {"email.limit", "email.hub_at", "email.most"}, (
        "nothing else"
    )
    assert lines[-1] == "Give it a new version, version=2"

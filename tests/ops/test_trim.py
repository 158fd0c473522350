"""What loops have read is deleted, never more: in memory, and of a real broker."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.identity.rules import DEFAULTS, Rules
from c360.ops.trim import trim
from c360.plan import Plan
from tests.identity.stage import plan_of

LOOP_RECORDS = 10


@pytest.fixture(params=["memory", "kafka"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "memory":
        return MemoryCluster()
    return KafkaCluster(request.getfixturevalue("kafka"))


def planned(cluster: Cluster) -> Plan:
    """An app with records in its loop and in its links."""
    plan = plan_of(Rules("default", DEFAULTS), 2, f"t{uuid.uuid4().hex[:10]}")
    admin, producer = cluster.admin(), cluster.producer()
    admin.create([TopicSpec(topic.name, 2, topic.config) for topic in plan.topics])
    for tp in tps(plan):
        for i in range(LOOP_RECORDS):
            producer.produce(tp.topic, b"key %d" % i, b"value", tp.partition)
    producer.flush()
    producer.close()
    admin.close()
    return plan


def tps(plan: Plan) -> list[TP]:
    return [TP(topic, p) for topic in (plan.loop(plan.identities[0]), plan.links) for p in range(2)]


def test_what_is_below_the_committed_offsets_goes_and_nothing_else(cluster: Cluster) -> None:
    plan = planned(cluster)
    admin, reader = cluster.admin(), cluster.reader()
    group, (first, second, *links) = plan.agents[0].group, tps(plan)
    done: dict[TP, int] = {}
    trim(plan, admin, done)
    assert set(reader.starts(tps(plan)).values()) == {0}, "nobody has committed anything"
    admin.set_group_offsets(group, {first: 7, links[0]: 9})
    trim(plan, admin, done)
    assert reader.starts(tps(plan)) == {first: 7, second: 0, links[0]: 0, links[1]: 0}
    assert done == {first: 7}
    admin.set_group_offsets(group, {first: LOOP_RECORDS, second: 1})
    trim(plan, admin, done)
    assert reader.starts([first, second]) == {first: LOOP_RECORDS, second: 1}
    reader.close()
    admin.close()


def test_it_asks_the_broker_only_when_something_has_moved() -> None:
    cluster = MemoryCluster()
    plan = planned(cluster)
    admin, asked = cluster.admin(), list[dict[TP, int]]()
    delete = admin.delete_records
    admin.delete_records = lambda before: asked.append(dict(before)) or delete(before)  # type: ignore[method-assign, func-returns-value]
    admin.set_group_offsets(plan.agents[0].group, {tps(plan)[0]: 3})
    done: dict[TP, int] = {}
    for _ in range(3):
        trim(plan, admin, done)
    assert asked == [{tps(plan)[0]: 3}]


def test_a_topic_that_two_agents_read_keeps_what_one_of_them_has_not() -> None:
    plan = plan_of(Rules("default", DEFAULTS), 2)
    cluster = MemoryCluster()
    cluster.admin().create([TopicSpec(topic.name, 2, topic.config) for topic in plan.topics])
    other = replace(plan.agents[0], name="other", group="other")
    both = replace(plan, agents=(plan.agents[0], other))
    first = tps(plan)[0]
    producer, admin = cluster.producer(), cluster.admin()
    for _ in range(5):
        producer.produce(first.topic, b"key", b"value", first.partition)
    producer.flush()
    admin.set_group_offsets(plan.agents[0].group, {first: 5})
    trim(both, admin, {})
    assert cluster.reader().starts([first]) == {first: 0}
    admin.set_group_offsets("other", {first: 2})
    trim(both, admin, {})
    assert cluster.reader().starts([first]) == {first: 2}

"""Settings of members in Kafka's two group protocols: who is told what, and what comes of a refusal."""

from __future__ import annotations

import logging
import uuid

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.kafka_settings import ClientSettings
from c360.engine.transport import TP, TopicSpec
from tests.contract.test_transport import Member, until

NEW = {"group.protocol": "consumer"}


def test_in_the_classic_protocol_a_member_says_it_all() -> None:
    settings = ClientSettings("b:1", {"session.timeout.ms": "7000"})
    assert settings.group() == {}
    member = settings.consumer("g", "slot")
    assert (member["session.timeout.ms"], member["group.instance.id"]) == ("7000", "slot")


def test_in_the_new_one_time_outs_go_to_the_group_and_nobody_is_static() -> None:
    settings = ClientSettings("b:1", {**NEW, "session.timeout.ms": "7000"})
    assert settings.group() == {"consumer.heartbeat.interval.ms": "500", "consumer.session.timeout.ms": "7000"}
    member = settings.consumer("g", "slot")
    assert member["max.poll.interval.ms"] == "60000"
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & member.keys()
    assert "group.instance.id" not in member


def test_a_time_out_that_the_broker_refuses_is_told_and_the_member_joins(
    kafka: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker of the tests takes sessions from 1 s on."""
    name = f"t{uuid.uuid4().hex[:10]}"
    cluster = KafkaCluster(kafka, {**NEW, "session.timeout.ms": "900"})
    cluster.admin().create([TopicSpec(name, 1)])
    member = Member(cluster.consumer(name))
    with caplog.at_level(logging.WARNING, "c360.kafka"):
        member.consumer.subscribe([name], member)
    assert f"{name}: the broker keeps its own consumer.session.timeout.ms, as it refuses 900" in caplog.text
    assert "heartbeat" not in caplog.text
    until(lambda: member.owned == {TP(name, 0)}, member)
    member.consumer.close()

"""What a producer makes of a fence that the broker put up by itself."""

from __future__ import annotations

import time
import uuid

import pytest

from c360.engine.kafka import KafkaCluster, KafkaProducer
from c360.engine.transport import TP, TopicSpec
from c360.errors import BrokerAway, Evicted
from tests.contract.test_transport import read, values, write


def test_a_transaction_that_the_broker_has_ended_for_its_length_is_no_proof_of_a_second_process(kafka: str) -> None:
    """A worker that was frozen wakes up to it. It is to go on with a new producer, not to give its slot up (exit 3)."""
    name = f"t{uuid.uuid4().hex[:10]}"
    cluster, tp = KafkaCluster(kafka, {"transaction.timeout.ms": "1000"}), TP(name, 0)
    cluster.admin().create([TopicSpec(name, 1)])
    slow, plain = cluster.producer(name), cluster.producer()
    assert isinstance(slow, KafkaProducer)
    slow.begin()
    write(slow, name, "late")
    slow._live().flush(10)
    write(plain, name, "after")
    plain.flush()
    plain.close()
    assert values(read(cluster, tp)) == [b"after"]  # waits until the transaction is over, 11 s at the most
    with pytest.raises(Evicted):
        slow.commit()
    slow.close()
    again = cluster.producer(name)
    again.begin()
    write(again, name, "again")
    again.commit()
    again.close()
    assert values(read(cluster, tp)) == [b"after", b"again"]


def test_waiting_for_acknowledgements_can_be_given_up() -> None:
    """Nobody listens there. Without a limit it takes as long as a record may wait to be sent: minutes."""
    producer = KafkaCluster("127.0.0.1:9").producer()
    producer.produce("t", b"k", b"v", 0)
    begun = time.monotonic()
    with pytest.raises(BrokerAway, match=r"not acknowledged within 0\.3 s"):
        producer.flush(0.3)
    assert time.monotonic() - begun < 5
    producer.close()

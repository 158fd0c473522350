"""A broker for one story, or an app of its own on the one that all share."""

import uuid
from collections.abc import Iterator

import pytest

from c360.engine.kafka import KafkaCluster
from c360.ops import dev_kafka
from tests.stories.sent import Sent


@pytest.fixture
def broker(kafka: str) -> Iterator[str]:
    """A broker of our own: raw topics have the names that the shop gives them. (`kafka`: where one can run at all.)"""
    with dev_kafka.start() as running:
        yield running.bootstrap


@pytest.fixture
def sent(kafka: str) -> Iterator[Sent]:
    """The notes app under a name of its own, with its raw topics."""
    sent = Sent(f"story-{uuid.uuid4().hex[:10]}", KafkaCluster(kafka))
    yield sent
    sent.producer.close()

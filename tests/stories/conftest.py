"""A broker for one story."""

from collections.abc import Iterator

import pytest

from c360.ops import dev_kafka


@pytest.fixture
def broker(kafka: str) -> Iterator[str]:
    """A broker of our own: raw topics have the names that the shop gives them. (`kafka`: where one can run at all.)"""
    with dev_kafka.start() as running:
        yield running.bootstrap

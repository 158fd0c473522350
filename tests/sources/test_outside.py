"""Enrichments that ask outside, through the production engine and the production calls, without Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from c360.testing import TestDriver
from tests.sources.outside_shop import MONTH, NOW, Far, Firm, Score, app, choose, click, customer, far, scores

Accident = Callable[[TestDriver], None]
ACCIDENTS = [TestDriver.crash, TestDriver.lose_disk, TestDriver.rebalance]
ANN = Firm(name="Mail Inc", size=12, owner="Olga Owner")


@pytest.fixture
def driver() -> Iterator[TestDriver]:
    for each in (far, scores):
        each.__dict__.update(Far().__dict__)
    far.said["ann@mail.org"] = ANN
    with TestDriver(app, now=NOW) as started:
        yield started


def test_an_answer_is_in_the_profile(driver: TestDriver) -> None:
    customer(driver, "7", "Ann@Mail.org", 1)
    profile = driver.profile("crm:7")
    assert (profile.firm, profile.firm_size, profile.owner) == ("Mail Inc", 12, "Olga Owner")
    assert profile.boss == "Olga Owner of Mail Inc", "govern sees an answer in clear"
    assert far.asked == ["ann@mail.org"], "as its namespace writes it"
    assert driver.topic("outer.dlq") == []
    driver.verify()

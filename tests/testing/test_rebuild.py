"""A version that is built beside is what the live one is, byte for byte, whatever happens while it is built."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from benchmarks.rebuild_app import shop
from c360.engine.transport import TP
from c360.ops import rebuild
from c360.ops.control import read
from c360.ops.traffic import traffic
from c360.testing import TestDriver

SEEDS = 30
NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)
ONE, TWO = shop(1), shop(2)


def profiles(driver: TestDriver, version: int) -> dict[bytes, bytes]:
    """As they are, but for what says which version it is."""
    found: dict[bytes, bytes] = {}
    for key, value in driver.read(f"shop.customer.v{version}"):
        assert key is not None
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value.replace(b'"version":%d,' % version, b"", 1)
    return found


class Town:
    """The shop's traffic, and a driver that first has version 1 alone."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.driver = TestDriver(ONE, now=NOW)
        read = {source.topic for source in self.driver.plan.sources}
        sent = traffic(3_000, seed=seed, end_ms=self.driver.now_ms + 90 * 86_400_000)
        self.records = (record for record in sent if record.topic in read)

    def send(self, most: int) -> None:
        for _ in range(self.random.randrange(most)):
            if (record := next(self.records, None)) is not None:
                self.driver.send(record.topic, record.key, record.value, headers=record.headers or None)

    def deploy(self) -> rebuild.Course:
        """The app with version 2 beside, and what `c360 rebuild` does before its processes start."""
        driver = self.driver
        driver.settle()
        driver.stop()
        driver.plan = TWO.plan()
        course = rebuild.begin(driver.plan, driver.cluster, "customer@2")
        driver.start()
        return course

    def accident(self) -> None:
        driver, what = self.driver, self.random.randrange(6)
        if what == 0:
            driver.crash()
        elif what == 1:
            driver.lose_disk()
        elif what == 2:
            driver.rebalance()
        elif what == 3:
            driver.advance(timedelta(days=self.random.randrange(1, 20)))
        elif what == 4:
            driver.settle()
        else:  # stopped on the way, as by a rebuild that is killed: its worker begins again where it was
            for process in driver.processes:
                process.turn()
            driver.crash()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_built_under_traffic_crashes_and_rebalances_is_what_is_live(seed: int) -> None:
    town = Town(seed)
    for _ in range(3):
        town.send(120)
        town.driver.advance(timedelta(days=town.random.randrange(20)))
    course = town.deploy()
    for _ in range(8):
        town.send(60)
        town.accident()
    driver = town.driver
    driver.settle()
    assert profiles(driver, 1) == profiles(driver, 2) != {}
    look = rebuild.Look(course, driver.cluster.admin(), driver.cluster.reader())
    standing = look()
    assert (standing.phase, standing.done) == ("ready", standing.total)
    assert read(driver.plan, driver.cluster).stage(driver.plan, "customer", 1) == "live"
    driver.stop()


def test_nothing_is_written_before_it_has_caught_up_and_then_each_profile_once() -> None:
    town = Town(7)
    town.send(2_000)
    town.deploy()
    town.driver.settle()
    written = Counter(key for key, _ in town.driver.read("shop.customer.v2"))
    assert set(written.values()) == {1}
    assert max(Counter(key for key, _ in town.driver.read("shop.customer.v1")).values()) > 1
    town.driver.stop()


def test_the_progress_that_is_shown_never_goes_back() -> None:
    town = Town(11)
    for _ in range(5):
        town.send(200)
    course = town.deploy()
    look = rebuild.Look(course, town.driver.cluster.admin(), town.driver.cluster.reader())
    phases, seen = [], []
    for turn in range(400):
        for process in town.driver.processes:
            process.turn()
        if turn % 7 == 0:
            standing = look()
            phases.append(standing.phase)
            seen.append(standing.done)
            assert sum(done for done, _ in standing.partitions.values()) == standing.done <= standing.total
    assert seen == sorted(seen)
    assert phases[-1] == "ready"
    assert phases == sorted(phases, key=("folding", "writing", "views", "ready").index)
    reader = town.driver.cluster.reader()
    assert course.total == sum(
        end - at for tp, end in course.upto.items() for at in [reader.starts([TP(*tp)])[tp]]
    )  # fmt: skip
    town.driver.stop()

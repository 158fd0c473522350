"""The loop under seeds: whatever happens, in the end everything was counted once."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import Later
from c360.testing.simulation import Simulation
from tests.engine.toy import POISON, Clock, Toy, World, toy_dlq

STEPS = 1000
SEEDS = 60


class ToyStage:
    """The toy's world, with a bad record now and then."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.world = World(self.cluster, Toy(inputs=("in", "other")), 3)
        self.bad = 0

    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        return [self.world.loop(stores, slot=slot, cluster=cluster, settings=settings, executor=Later())]

    def feed(self, dice: random.Random) -> None:
        tp = dice.choice(self.world.tps)
        topic = tp.topic.rpartition(".")[2]
        if dice.random() < 0.05:
            self.world.feed("bad", topic=topic, partition=tp.partition, value=POISON)
            self.bad += 1
        else:
            self.world.feed(*dice.choices("abcd", k=dice.randint(1, 9)), topic=topic, partition=tp.partition)

    def changelogs(self) -> Sequence[str]:
        return [self.world.toy.log]

    def idle(self) -> bool:
        return self.world.idle()

    def check(self) -> None:
        self.world.check()
        assert len(self.world.read(toy_dlq(self.world.toy))) == self.bad


def test_the_cleaner_of_the_log_in_memory_keeps_a_deletion_for_a_day() -> None:
    clock = Clock(0)
    cluster = MemoryCluster(now_ms=clock)
    cluster.admin().create(
        [TopicSpec("log", 1, {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"})]
    )
    producer = cluster.producer()
    for value in (b"1", None):
        producer.produce("log", b"key", value)
    producer.flush()
    kept = []
    for clock.ms in (0, 24 * 3_600_000, 24 * 3_600_000 + 1):
        cluster.compact("log")
        kept.append(
            [value for batches in cluster.reader().read({TP("log", 0): 0}) for b in batches for value in b.values]
        )
    assert kept == [[None], [None], []]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_everything_is_counted_once(seed: int) -> None:
    stage = ToyStage()
    Simulation(stage, seed).run(STEPS)
    world = stage.world
    for loop in world.loops:
        loop.close()
    world.loops.clear()
    world.until(world.idle, world.loop(MemoryStores()))  # and what it left can be continued
    world.check()
    world.close()

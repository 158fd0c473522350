"""Workers that come, hang, die and return while errors rain, from one seed; in the end everything was counted once."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, field

import pytest

from c360.engine import loop as loop_module
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.errors import BrokerAway, Fenced, OutcomeUnknown, TaskCorrupted, TaskMigrated, TransactionAborted
from c360.tables.store import MemoryStores
from tests.engine.faults import Crash, FaultyCluster, FaultyStores
from tests.engine.toy import POISON, Later, Toy, World, toy_dlq

STEPS = 1000
SEEDS = 60
SLOTS = ("0", "1", "2")
MAY_FAIL: dict[str, tuple[type[BaseException], ...]] = {
    "before begin": (BrokerAway,),
    "before produce": (BrokerAway, TransactionAborted),
    "before offsets": (BrokerAway, TransactionAborted, TaskMigrated),
    "after offsets": (BrokerAway, TransactionAborted),
    "before commit": (TransactionAborted, TaskMigrated, OutcomeUnknown),
    "after commit": (OutcomeUnknown,),
    "before abort": (OutcomeUnknown,),
    "after abort": (OutcomeUnknown,),
    "before read": (BrokerAway,),
    "before ends": (BrokerAway,),
    "before get": (TaskCorrupted,),
    "before write": (TaskCorrupted,),
    "after write": (TaskCorrupted,),
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "AWAY_S", 0.0)
    monkeypatch.setattr(loop_module, "STORE_TRIES", 1_000_000)  # here disks fail as often as the dice say


def later(loop: Loop) -> Later:
    assert isinstance(loop.executor, Later)
    return loop.executor


@dataclass
class Simulation:
    seed: int
    world: World = field(init=False)
    loops: dict[str, Loop] = field(default_factory=dict)
    zombies: list[Loop] = field(default_factory=list)  # replaced in their slot, and not aware of it
    disks: dict[str, MemoryStores] = field(default_factory=dict)
    bad: int = 0
    calm: bool = False
    happened: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.world = World(MemoryCluster(), Toy(inputs=("in", "other")), 3)
        self.fault_rate = self.dice.choice((0.0, 0.002, 0.01))

    def plan(self, step: str) -> BaseException | None:
        if self.calm or self.dice.random() >= self.fault_rate or step not in (*MAY_FAIL, "before producer"):
            return None
        if self.dice.random() < 0.3:
            return Crash()
        error = self.dice.choice(MAY_FAIL.get(step, (BrokerAway,)))
        self.happened.add(error.__name__)
        return error("injected")

    def start(self, slot: str) -> None:
        stores = self.disks.setdefault(slot, MemoryStores())
        settings = LoopSettings(
            batch_records=self.dice.choice((1, 7, 1000)), commit_s=self.dice.choice((0.0, 3600.0)), commit_records=30
        )
        cluster = FaultyCluster(self.world.cluster, self.plan)
        self.loops[slot] = self.world.loop(
            FaultyStores(stores, self.plan), slot=slot, cluster=cluster, settings=settings, executor=Later()
        )

    def expire(self, loop: Loop) -> None:
        assert isinstance(self.world.cluster, MemoryCluster)
        self.world.cluster.expire(loop.consumer)

    def gone(self, loop: Loop) -> None:
        """Its process has ended: the session runs out, and so does the transaction."""
        self.expire(loop)
        self.time_out(loop)
        self.world.loops.remove(loop)

    def time_out(self, loop: Loop) -> None:
        """A transaction that nobody will end ends; the others would wait for it, in this one thread."""
        self.world.cluster.producer(loop.transactional_id)

    def step(self) -> None:
        dice, slot = self.dice, self.dice.choice(SLOTS)
        loop = self.loops.get(slot)
        match dice.random():
            case x if x < 0.15:
                self.feed()
            case x if x < 0.50 and loop is None:
                self.start(slot)
            case x if x < 0.17 and loop is not None:
                self.stop(slot, loop)
            case x if x < 0.18 and loop is not None:
                self.gone(self.loops.pop(slot))
            case x if x < 0.19 and loop is not None:
                self.expire(loop)  # hung, and goes on
            case x if x < 0.195 and loop is not None:
                self.zombies.append(loop)
                self.disks[slot] = deepcopy(self.disks[slot])  # a disk is one process's; this one has a copy
                self.expire(loop)
                self.start(slot)
            case x if x < 0.55 and loop is None:
                self.disks.pop(slot, None)
            case x if x < 0.20:
                assert isinstance(self.world.cluster, MemoryCluster)
                self.world.cluster.compact(self.world.toy.log)
            case x if x < 0.22 and self.zombies:
                self.wake(dice.choice(self.zombies))
            case _ if loop is not None:
                self.turn(slot, loop)

    def feed(self) -> None:
        dice, world = self.dice, self.world
        tp = dice.choice(world.tps)
        topic = tp.topic.rpartition(".")[2]
        if dice.random() < 0.05:
            world.feed("bad", topic=topic, partition=tp.partition, value=POISON)
            self.bad += 1
        else:
            world.feed(*dice.choices("abcd", k=dice.randint(1, 9)), topic=topic, partition=tp.partition)

    def stop(self, slot: str, loop: Loop) -> None:
        try:
            loop.commit_or_abort()
            loop.close()
        except (Crash, Fenced):
            pass
        self.gone(self.loops.pop(slot))

    def turn(self, slot: str, loop: Loop) -> None:
        try:
            if self.calm or self.dice.random() < 0.5:
                later(loop).work()
            loop.turn(0.0)
        except (Crash, Fenced) as end:  # fenced: a zombie met an unknown outcome, and took the slot back
            self.happened.add(type(end).__name__)
            self.gone(self.loops.pop(slot))
        else:
            if loop.producer is None:
                self.time_out(loop)

    def wake(self, zombie: Loop) -> None:
        """It may read, and try; it may not write."""
        try:
            later(zombie).work()
            zombie.turn(0.0)
        except (Fenced, Crash) as end:
            self.happened.add(f"zombie: {type(end).__name__}")
            self.zombies.remove(zombie)
            self.gone(zombie)
        else:
            if zombie.producer is None:
                self.time_out(zombie)

    def end(self) -> None:
        self.calm = True
        for zombie in self.zombies:
            self.gone(zombie)
        self.world.feed_all()
        for _ in range(10_000):
            for slot in SLOTS:
                if slot not in self.loops:
                    self.start(slot)
                self.turn(slot, self.loops[slot])
            if self.world.idle():
                return
        raise AssertionError("it did not come to rest")


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_everything_is_counted_once(seed: int) -> None:
    simulation = Simulation(seed)
    for _ in range(STEPS):
        simulation.step()
    simulation.end()
    world = simulation.world
    world.check()
    assert len(world.read(toy_dlq(world.toy))) == simulation.bad
    world.close()
    world.until(world.idle, world.loop(MemoryStores()))  # and what it left can be continued
    world.check()

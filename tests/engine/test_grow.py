"""Inputs that come while a task runs are read from their beginning, and nothing is counted twice or lost for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from c360.engine.agent import Task
from c360.engine.kafka import KafkaCluster
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP
from c360.errors import BrokerAway, OutcomeUnknown, TransactionAborted
from c360.tables.store import MemoryStores
from c360.testing.faults import Crash, FaultyCluster, FaultyStores
from tests.engine.test_crash import SOMETIMES, die, every_step
from tests.engine.toy import OFTEN, Toy, World

LATE = LoopSettings(commit_s=3600.0, commit_share=0.0, away_s=0.0)


@dataclass
class Growing(Toy):
    """Reads `late` once it is told that there is such a topic."""

    inputs: tuple[str, ...] = ("in", "late")
    grown: bool = False

    def task(self, lead: TP) -> Task:
        return Task(lead, tuple(TP(self.topic(t), lead.partition) for t in self.inputs[: 2 if self.grown else 1]))


def grow(world: World, *loops: Loop) -> None:
    assert isinstance(world.toy, Growing)
    world.toy.grown = True
    for loop in loops:
        loop._look_again = 0.0


def fed() -> World:
    world = World(MemoryCluster(), Growing())
    world.feed_all(3)  # also what nobody reads yet
    return world


def first_read(world: World) -> Callable[[], bool]:
    """Whether what is read from the beginning is committed."""
    early = [tp for tp in world.tps if tp.topic == world.toy.topic("in")]
    return lambda: all(world.group().get(tp, 0) >= end for tp, end in world.ends(early).items())


@pytest.mark.parametrize("settings", [OFTEN, SOMETIMES, LATE], ids=["often", "sometimes", "late"])
def test_what_is_not_committed_yet_is_committed_before_a_task_begins_anew(settings: LoopSettings) -> None:
    world = fed()
    loop = world.loop(MemoryStores(), settings=settings)
    grow_after_a_while(world, loop)
    assert all(len(task.task.inputs) == 2 for task in loop.tasks.values())
    world.check()
    world.close()


def test_a_process_may_end_at_any_step_of_it() -> None:
    for plan in every_step(Crash):
        world, stores = fed(), MemoryStores()
        loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan), settings=SOMETIMES)
        try:
            grow_after_a_while(world, loop)
        except Crash:
            die(world, loop)
            grow(world)
            world.until(world.idle, world.loop(stores))
        world.check()
        world.close()


COMMIT = ("before offsets", "before commit", "after commit")


@pytest.mark.parametrize(
    ("error", "steps"),
    [(TransactionAborted, COMMIT[:2]), (OutcomeUnknown, COMMIT[1:]), (BrokerAway, ("before starts", "before read"))],
)
def test_an_error_at_any_step_of_it_changes_nothing(error: type[BaseException], steps: tuple[str, ...]) -> None:
    for plan in every_step(lambda: error("injected"), *steps):
        world = fed()
        loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, plan), settings=SOMETIMES)
        grow_after_a_while(world, loop)
        world.check()
        world.close()


def grow_after_a_while(world: World, loop: Loop) -> None:
    """With something that is not committed, if it comes to that."""
    world.until(lambda: loop.uncommitted or first_read(world)(), loop)

    def idle() -> bool:
        grow(world, loop)  # a look while a task is restored finds none that has grown, and the next is 5 s later
        return world.idle()

    world.until(idle, loop)


def test_a_broker_gives_a_running_task_the_inputs_that_came(kafka: str) -> None:
    cluster = KafkaCluster(kafka, {"heartbeat.interval.ms": "50"})
    world = World(cluster, Growing(f"g{uuid.uuid4().hex[:10]}"))
    loop = world.loop(MemoryStores(), executor=ThreadPoolExecutor(1))
    world.feed_all(3)
    world.until(first_read(world), loop, wait_s=0.02)
    grow(world, loop)
    world.feed_all(2)
    world.until(world.idle, loop, wait_s=0.02)
    world.check()
    loop.close()
    again = world.loop(MemoryStores(), executor=ThreadPoolExecutor(1))
    world.feed_all()
    world.until(world.idle, again, wait_s=0.02)
    world.check()
    world.close()

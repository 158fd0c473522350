"""An input that has to wait with a record: the others go on, nothing is lost, doubled or out of order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

import pytest

from c360.engine.agent import Task
from c360.engine.memory import MemoryCluster
from c360.engine.transport import Batch
from c360.errors import BrokerAway, TransactionAborted
from c360.tables.store import MemoryStores
from c360.testing.faults import At, FaultyCluster
from tests.engine.toy import OFTEN, POISON, Counting, Toy, World

STRANGE = b"strange"  # a value that nobody knows what to do with, until they do
SETTINGS = replace(OFTEN, held_s=0.0)


class Choosing(Counting):
    def takes(self, batch: Batch) -> int:
        assert isinstance(self.toy, ChoosingToy)
        self.toy.asked += 1
        if self.toy.knows or STRANGE not in batch.values:
            return len(batch)
        return batch.values.index(STRANGE)


@dataclass
class ChoosingToy(Toy):
    knows: bool = False
    asked: int = field(default=0)

    def processor(self, task: Task) -> Choosing:
        return Choosing(self, self.clock)


def world_of(**toy: object) -> tuple[World, ChoosingToy]:
    made = ChoosingToy(**toy)  # type: ignore[arg-type]
    return World(MemoryCluster(), made), made


def test_what_is_before_it_and_all_other_inputs_go_on_and_the_rest_follows_in_order() -> None:
    world, toy = world_of()
    loop = world.loop(MemoryStores(), settings=SETTINGS)
    world.feed("a", "b", partition=0)
    world.feed("c", partition=0, value=STRANGE)
    world.feed("a", "d", partition=0)
    for partition in (1, 2):
        world.feed("a", "b", "a", partition=partition)
    for _ in range(30):
        loop.turn(0.0)
    assert {key: says[-1] for key, says in world.said().items()} == {
        b"a-0": 1, b"b-0": 1, b"a-1": 2, b"b-1": 1, b"a-2": 2, b"b-2": 1,
    }  # fmt: skip
    assert world.group()[world.tps[0]] == 2
    toy.knows = True
    world.until(world.idle, loop)
    world.check()
    world.close()


def test_it_is_asked_again_after_a_moment_and_not_in_each_turn() -> None:
    world, toy = world_of()
    loop = world.loop(MemoryStores(), settings=replace(OFTEN, held_s=3600.0))
    world.feed("c", value=STRANGE)
    for _ in range(50):
        loop.turn(0.0)
    assert toy.asked == 1
    world.close()


@pytest.mark.parametrize("seed", range(60))
def test_faults_and_members_that_come_and_go_while_it_waits(seed: int) -> None:
    dice = Random(seed)
    world, toy = world_of()
    stores = MemoryStores()
    error = dice.choice([BrokerAway, TransactionAborted])
    faulty = FaultyCluster(
        world.cluster, At(dice.randrange(6), lambda: error("injected"), frozenset({"before commit"}))
    )
    slots = count(1)
    loops = [world.loop(stores, settings=SETTINGS, cluster=faulty)]
    for _ in range(60):
        match dice.randrange(6):
            case 0:
                toy.knows = not toy.knows
            case 1:
                world.feed("a", dice.choice("xyz"), partition=dice.randrange(3), value=dice.choice([b"v", STRANGE]))
            case 2 if len(loops) == 1:
                loops.append(world.loop(MemoryStores(), slot=str(next(slots)), settings=SETTINGS))
            case 3 if len(loops) == 2:
                gone = loops.pop(dice.randrange(2))
                gone.close()
                world.loops.remove(gone)
            case 4:
                world.feed("p", partition=dice.randrange(3), value=POISON)
            case _:
                for loop in loops:
                    loop.turn(0.0)
    toy.knows = True
    world.until(world.idle, *loops)
    world.check()
    world.close()

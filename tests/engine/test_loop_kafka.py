"""The loop on real brokers: what memory cannot prove. Short; `test_loop` has the stories, `test_crash` every step."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.loop import Loop, LoopSettings, Phase
from c360.errors import BrokerAway, Fenced, NeedsOperator, OutcomeUnknown, TransactionAborted
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import At, Crash, FaultyCluster, FaultyStores, Later
from tests.engine.toy import OFTEN, POISON, Toy, World, toy_dlq

LATE = LoopSettings(commit_s=3600.0, commit_share=0.0)


@pytest.fixture
def world(kafka: str) -> Iterator[World]:
    cluster = KafkaCluster(kafka, {"heartbeat.interval.ms": "50"})
    world = World(cluster, Toy(f"t{uuid.uuid4().hex[:10]}"))
    yield world
    world.close()


@pytest.fixture
def impatient(kafka: str) -> KafkaCluster:
    """The same log for members that are out when they have not polled for 1.5 s."""
    waits = {"session.timeout.ms": "1500", "heartbeat.interval.ms": "50", "max.poll.interval.ms": "1500"}
    return KafkaCluster(kafka, waits)


@pytest.fixture
def start(world: World) -> Callable[..., Loop]:
    def start(stores: Stores, *, slot: str = "0", cluster: object = None, settings: LoopSettings = OFTEN) -> Loop:
        own = cluster if isinstance(cluster, KafkaCluster | FaultyCluster) else world.cluster
        return world.loop(stores, slot=slot, cluster=own, settings=settings, executor=ThreadPoolExecutor(1))

    return start


def drive(world: World, done: Callable[[], object], *loops: Loop) -> None:
    world.until(done, *loops, wait_s=0.02)


def running(loop: Loop) -> set[int]:
    return {lead.partition for lead, task in loop.tasks.items() if task.phase is Phase.RUNNING}


def test_workers_come_and_go_and_the_changelog_alone_brings_everything_back(
    world: World, start: Callable[..., Loop], tmp_path: Path
) -> None:
    first = start(RocksStores(tmp_path / "first"))
    world.feed_all(3)
    world.feed("bad", value=POISON)
    world.feed_all()
    drive(world, world.idle, first)
    second = start(RocksStores(tmp_path / "second"), slot="1")
    drive(world, lambda: len(running(second)) == 1 and len(running(first)) == 2, first, second)
    world.feed_all(3)
    drive(world, world.idle, first, second)
    first.close()
    world.feed_all(3)
    drive(world, world.idle, second)
    assert running(second) == {0, 1, 2}
    second.close()
    world.check()
    shutil.rmtree(tmp_path / "second")
    third = start(RocksStores(tmp_path / "second"), slot="1")
    world.feed_all()
    drive(world, world.idle, third)
    world.check()
    assert third.metrics.restored_records >= 3 * 3
    assert [(k, v) for _, k, v in world.read(toy_dlq(world.toy))] == [(b"bad-0", b"ValueError")]


@pytest.mark.parametrize("step", ["after produce", "before offsets", "after offsets", "after commit"])
def test_a_process_that_ends_in_the_middle_is_continued_by_the_next(
    world: World, start: Callable[..., Loop], tmp_path: Path, step: str
) -> None:
    plan = At(1, Crash, frozenset({step}))
    stores = RocksStores(tmp_path)
    loop = start(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan))
    world.feed_all(3)
    with pytest.raises(Crash):
        drive(world, world.idle, loop)
    # Its transaction stays open. That it leaves its group spares the wait for its session's end.
    world.loops.remove(loop)
    loop.consumer.close()
    for task in loop.tasks.values():
        task.close()
    drive(world, world.idle, start(stores))
    world.check()


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (BrokerAway, "before offsets"),
        (TransactionAborted, "after offsets"),
        (OutcomeUnknown, "before commit"),
        (OutcomeUnknown, "after commit"),
        (OutcomeUnknown, "before abort"),
    ],
)
def test_an_error_in_the_middle_is_mended(
    world: World, start: Callable[..., Loop], error: type[Exception], step: str
) -> None:
    plan = At(0, lambda: error("injected"), frozenset({step}))
    loop = start(MemoryStores(), cluster=FaultyCluster(world.cluster, plan))
    world.feed_all(2)
    world.feed("bad", value=POISON)
    world.feed_all(2)
    drive(world, world.idle, loop)
    assert plan.fired
    world.check()


def hung_in_a_transaction(
    world: World, start: Callable[..., Loop], impatient: KafkaCluster, settings: LoopSettings = LATE
) -> Loop:
    """A worker with all tasks that has begun a transaction and is not turned any more."""
    hung = start(MemoryStores(), cluster=impatient, settings=settings)
    drive(world, lambda: running(hung) == {0, 1, 2}, hung)
    world.feed_all()
    drive(world, lambda: hung.in_transaction, hung)
    return hung


def test_two_workers_of_one_slot_take_it_from_each_other_until_one_stops(
    world: World, start: Callable[..., Loop], impatient: KafkaCluster
) -> None:
    """As dynamic members; static ones take it from each other as members, too, which takes longer."""
    hung = hung_in_a_transaction(world, start, impatient, replace(LATE, static=False))
    successor = start(MemoryStores(), settings=replace(OFTEN, static=False))
    drive(world, lambda: world.idle() and running(successor) == {0, 1, 2}, successor)
    world.check()

    def wake() -> None:
        drive(world, world.feed_all, hung, successor)

    with pytest.raises(Fenced):
        wake()
    gone, left = (hung, successor) if hung.metrics.recoveries["Evicted"] == 3 else (successor, hung)
    gone.close()
    world.feed_all()
    drive(world, world.idle, left)
    world.check()


def test_an_heir_ends_the_transaction_of_a_hung_worker_which_begins_anew_when_it_wakes(
    world: World, start: Callable[..., Loop], impatient: KafkaCluster
) -> None:
    hung = hung_in_a_transaction(world, start, impatient)
    heir = start(MemoryStores(), slot="1")
    drive(world, lambda: world.idle() and running(heir) == {0, 1, 2}, heir)
    world.check()
    drive(world, lambda: hung.metrics.recoveries["Evicted"] and running(hung), hung, heir)
    world.feed_all()
    drive(world, world.idle, hung, heir)
    world.check()


def test_a_worker_that_was_away_too_long_loses_its_tasks_and_joins_again(
    world: World, start: Callable[..., Loop], impatient: KafkaCluster
) -> None:
    hung = hung_in_a_transaction(world, start, impatient)
    other = start(MemoryStores(), slot="1")
    drive(world, lambda: len(other.tasks) == 3, other)  # without the other's consent
    drive(world, lambda: running(hung) and running(other), hung, other)
    world.feed_all(2)
    drive(world, world.idle, hung, other)
    world.check()


def test_positions_moved_behind_our_back_need_an_operator(world: World, start: Callable[..., Loop]) -> None:
    loop = start(MemoryStores())
    world.feed_all()
    drive(world, world.idle, loop)
    loop.close()
    world.admin.set_group_offsets(world.toy.group, {world.tps[0]: 1})
    again = start(MemoryStores())

    def go_on() -> None:
        drive(world, lambda: running(again), again)

    with pytest.raises(NeedsOperator, match="stands at 1 in"):
        go_on()


def test_a_reset_begins_everything_anew(world: World, start: Callable[..., Loop]) -> None:
    stores = MemoryStores()
    for incarnation in (0, 1):
        if incarnation:
            world.reset(incarnation)
        loop = start(stores)
        world.feed_all()
        drive(world, world.idle, loop)
        loop.close()
        world.check()


def test_partitions_that_stay_where_they_are_go_on_while_others_move(world: World, start: Callable[..., Loop]) -> None:
    first = start(MemoryStores())
    world.feed_all()
    drive(world, lambda: world.idle() and len(running(first)) == 3, first)
    later = Later()  # the second's restore does not end before we say so
    second = world.loop(MemoryStores(), slot="1", settings=OFTEN, executor=later)
    drive(world, lambda: len(second.tasks) == 1 and len(first.tasks) == 2, first, second)
    (moved,) = {lead.partition for lead in second.tasks}
    stay = [tp for tp in world.tps if tp.partition != moved]
    world.feed_all()
    ends = world.ends(stay)
    drive(world, lambda: all(world.group().get(tp, 0) >= ends[tp] for tp in stay), first, second)
    assert running(first) == {tp.partition for tp in stay}
    assert not running(second)
    later.work()
    drive(world, world.idle, first, second)
    world.check()

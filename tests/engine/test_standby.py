"""Copies of what others run: a take-over reads a tail, and nothing that befalls a copy reaches what is true."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from c360.engine.kafka import KafkaCluster
from c360.engine.loop import Loop, Phase
from c360.engine.memory import MemoryCluster
from c360.engine.standby import Standby
from c360.errors import BrokerAway, NeedsOperator, TaskCorrupted
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import At, Crash, FaultyCluster, FaultyStores
from tests.engine.test_crash import die, every_step, finish
from tests.engine.toy import OFTEN, Toy, World, content

STANDBY = replace(OFTEN, standby=True, standby_s=0.0)


def of(world: World, stores: Stores, *, cluster: object = None) -> Standby:
    """Copies of everything, without a loop."""
    own = cluster if isinstance(cluster, FaultyCluster) else world.cluster
    return Standby(world.toy, own, stores, world.toy.clock, every_s=0.0)


def worked(*, rounds: int = 3) -> tuple[World, Loop]:
    world = World(MemoryCluster(), Toy(inputs=("in", "other")), 3)
    owner = world.loop(MemoryStores())
    world.feed_all(rounds)
    world.until(world.idle, owner)
    return world, owner


def same(world: World, stores: MemoryStores) -> None:
    """The copies hold what the changelog says, up to its end, or to the mark of a transaction before it."""
    counts, _ = world.logged()
    found: dict[bytes, int] = {}
    for lead in world.leads:
        had, position = content(stores.open(world.toy.store_name(lead)))
        found |= had
        assert world.ends([world.toy.changelog(lead)]).popitem()[1] - position in (0, 1)
    assert found == counts


def running(loop: Loop) -> set[int]:
    return {lead.partition for lead, task in loop.tasks.items() if task.phase is Phase.RUNNING}


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[World, Loop, Loop]]:
    """A world, and two workers with copies of each other's tasks."""
    if request.param == "memory":
        world = World(MemoryCluster())
        yield (
            world,
            world.loop(MemoryStores(), settings=STANDBY),
            world.loop(MemoryStores(), slot="1", settings=STANDBY),
        )
        return
    cluster = KafkaCluster(request.getfixturevalue("kafka"), {"heartbeat.interval.ms": "50"})
    world = World(cluster, Toy(f"t{uuid.uuid4().hex[:10]}"))
    loops = [
        world.loop(RocksStores(tmp_path / slot), slot=slot, settings=STANDBY, executor=ThreadPoolExecutor(1))
        for slot in ("0", "1")
    ]
    yield world, loops[0], loops[1]
    world.close()


def test_a_take_over_reads_what_the_copy_lacks_and_who_gives_up_a_task_keeps_a_copy(
    two: tuple[World, Loop, Loop],
) -> None:
    world, first, second = two
    assert first.standby is not None
    assert second.standby is not None
    world.until(
        lambda: len(running(first)) in (1, 2) and len(running(first)) + len(running(second)) == 3, *two[1:], wait_s=0.02
    )
    world.feed_all(20)
    world.until(world.idle, first, second, wait_s=0.02)

    def copied() -> bool:
        theirs = [world.toy.changelog(lead) for lead in first.tasks]
        ends, states = world.ends(theirs), second.standby.states if second.standby else {}
        stands = {world.toy.changelog(lead): state.next for lead, state in list(states.items())}
        # A mark ends each transaction, and is no record: the copy may stand before it.
        return all(stands.get(log, 0) >= ends[log] - 1 for log in theirs)

    world.until(copied, first, second, wait_s=0.02)
    before = second.metrics.restored_records
    first.close()
    world.until(lambda: len(running(second)) == 3, second, wait_s=0.02)
    assert second.metrics.restored_records == before, "the copies had everything"
    assert second.standby.copies.records > 20
    world.feed_all()
    world.until(world.idle, second, wait_s=0.02)
    world.check()


def test_a_copy_is_never_ahead_of_what_is_committed() -> None:
    world, owner = worked()
    stores = MemoryStores()
    standby = of(world, stores)
    standby.follow(())
    same(world, stores)
    before = {lead: content(stores.open(world.toy.store_name(lead))) for lead in world.leads}
    producer = world.cluster.producer("another")
    producer.begin()
    producer.produce(world.toy.log, b"\x01open", b"7", 0)
    standby.follow(())
    assert {lead: content(stores.open(world.toy.store_name(lead))) for lead in world.leads} == before
    producer.abort()
    owner.close()
    standby.close()


def test_a_process_with_copies_may_end_at_any_step_of_copying() -> None:
    for plan in every_step(
        Crash, "before ends", "before starts", "before read", "before get", "before write", "after write"
    ):
        world, owner = worked()
        stores = MemoryStores()
        standby = of(world, FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan))
        try:
            standby.follow(())
            world.feed_all(2)
            world.until(world.idle, owner)
            standby.follow(())
        except Crash:
            pass
        again = of(world, stores)  # its next life goes on from there
        again.follow(())
        same(world, stores)
        again.close()
        world.feed("bad", value=b"poison")
        world.until(world.idle, owner)
        die(world, owner)
        finish(world, stores)


@pytest.mark.parametrize(("error", "step"), [(TaskCorrupted, "before write"), (TaskCorrupted, "after write"),
                         (TaskCorrupted, "before get"), (BrokerAway, "before ends"), (BrokerAway, "before read"),
                         (NeedsOperator, "before write")])  # fmt: skip
def test_a_copy_that_fails_is_made_again_and_ends_nobody(error: type[Exception], step: str) -> None:
    """Such as on a full disk."""
    world, owner = worked()
    stores = MemoryStores()
    plan = At(0, lambda: error("injected"), frozenset({step}))
    standby = of(world, FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan))
    for _ in range(4):
        standby.follow(())
    assert plan.fired
    assert standby.copies.failures == (0 if error is BrokerAway else 1)
    same(world, stores)
    standby.close()
    owner.close()


def test_copies_of_a_process_that_was_stopped_for_a_day_begin_anew() -> None:
    """A deletion may have been compacted away meanwhile; the copy would keep what was deleted for ever."""
    world, owner = worked()
    stores = MemoryStores()
    standby = of(world, stores)
    standby.follow(())
    for lead in world.leads:
        stores.open(world.toy.store_name(lead)).write([(b"\x01deleted meanwhile", b"1")])
    for hours in (19, 19):  # nothing new, but it has looked
        world.toy.clock.ms += hours * 3_600_000
        standby.follow(())
    with pytest.raises(AssertionError):
        same(world, stores)
    world.toy.clock.ms += 21 * 3_600_000
    standby.follow(())
    same(world, stores)
    standby.close()
    owner.close()


def test_a_changelog_that_was_cut_or_made_anew_while_the_copy_was_away_is_copied_from_its_start() -> None:
    world, owner = worked()
    stores = MemoryStores()
    first = of(world, stores)
    first.follow(())
    first.close()
    owner.close()
    world.feed_all()
    world.reset(incarnation=2)
    for key in world.written:
        world.written[key] = 0
    standby = of(world, stores)
    standby.follow(())
    for lead in world.leads:
        assert content(stores.open(world.toy.store_name(lead)))[0] == {}
    standby.close()


def test_the_owner_of_a_copied_task_may_be_a_zombie() -> None:
    """It hangs while its transaction is open, and another takes the task over from its copy."""
    world, owner = worked()
    heir = world.loop(MemoryStores(), slot="1", settings=STANDBY)
    world.until(lambda: bool(heir.standby and heir.standby.copies.tasks) and not heir.restored, heir, owner)
    world.feed_all(2)
    world.until(world.idle, heir, owner)
    assert isinstance(world.cluster, MemoryCluster)
    world.cluster.expire(owner.consumer)
    world.feed_all(2)
    world.until(lambda: len(running(heir)) == 3, heir)
    world.until(world.idle, heir)
    world.until(world.idle, heir, owner)  # it wakes up
    world.feed_all()
    world.until(world.idle, heir, owner)
    world.check()

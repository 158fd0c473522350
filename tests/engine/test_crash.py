"""Exactly once, whatever ends the process or fails at whatever step: every step is tried, in one thread, on memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest

from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP
from c360.errors import BrokerAway, C360Error, OutcomeUnknown, TaskCorrupted, TaskMigrated, TransactionAborted
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import At, Crash, FaultyCluster, FaultyStores
from tests.engine.toy import OFTEN, POISON, Toy, World, content, toy_dlq

# Some commits hold several batches
SOMETIMES = LoopSettings(batch_records=7, commit_s=3600.0, commit_share=0.0, commit_records=12, away_s=0.0)


def begun(stores: Stores, *, rounds: int = 2) -> World:
    """A world in which a worker has been, so that there is state to lose; with more to do, and one bad record in it."""
    world = World(MemoryCluster(), Toy(inputs=("in", "other")), 2)
    world.feed_all()
    loop = world.loop(stores)
    world.until(world.idle, loop)
    loop.close()
    world.feed_all(rounds)
    world.feed("bad", value=POISON)
    world.feed_all()
    return world


def die(world: World, loop: Loop) -> None:
    """The process is gone without a word: its transaction stays open, its session runs out."""
    assert isinstance(world.cluster, MemoryCluster)
    world.loops.remove(loop)
    world.cluster.expire(loop.consumer)


def finish(world: World, stores: Stores) -> Loop:
    """Another worker in the same place brings it to the end, and everything is as if nothing had happened."""
    loop = world.loop(stores)
    world.until(world.idle, loop)
    world.check()
    assert [(k, v) for _, k, v in world.read(toy_dlq(world.toy))] == [(b"bad-0", b"ValueError")]
    return loop


def every_step(error: Callable[[], BaseException], *named: str) -> Iterator[At]:
    """Plans that fail at the first step, the second …; the last one found no step left to fail at."""
    for n in range(10_000):
        plan = At(n, error, frozenset(named))
        yield plan
        if not plan.fired:
            assert n > 5, f"too few steps: {plan.met}"
            return


# ===================================================================================================== the process dies
@pytest.mark.parametrize("settings", [OFTEN, SOMETIMES], ids=["often", "sometimes"])
@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_process_may_end_at_any_step_and_another_goes_on(state: str, settings: LoopSettings) -> None:
    for plan in every_step(Crash):
        stores = MemoryStores()
        world = begun(stores)
        loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan), settings=settings)
        try:
            world.until(world.idle, loop)
        except Crash:
            die(world, loop)
        found = {name: content(store) for name, store in stores.stores.items()}
        for name, (_, position) in found.items():
            end = world.ends([TP(world.toy.log, int(name[-1]))]).popitem()[1]
            assert position <= end, "the disk is never ahead of the log"
        finish(world, stores if state == "kept" else MemoryStores())


def test_a_process_may_end_at_any_step_of_its_restore() -> None:
    for plan in every_step(Crash, "before ends", "before starts", "before read", "before write", "after write"):
        stores = MemoryStores()
        world = begun(MemoryStores())
        loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan))
        try:
            world.until(world.idle, loop)
        except Crash:
            die(world, loop)
        finish(world, stores)


def test_after_a_crash_with_its_disk_only_the_tail_of_the_changelog_is_read() -> None:
    stores = MemoryStores()
    world = begun(stores, rounds=20)
    plan = At(5, Crash, frozenset({"after commit"}))  # what is committed then is not on the disk
    loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan))
    with pytest.raises(Crash):
        world.until(world.idle, loop)
    die(world, loop)
    stands = {TP(world.toy.log, int(name[-1])): content(store)[1] for name, store in stores.stores.items()}
    tail = sum(len(batch) for batches in world.reader.read(stands) for batch in batches)
    whole = len(world.read(world.toy.log))
    assert finish(world, stores).metrics.restored_records == tail
    assert 0 < tail < whole / 3


def test_what_a_kill_leaves_of_a_rocksdb_is_behind_the_log_and_catches_up(tmp_path: Path) -> None:
    """Without a write-ahead log RocksDB loses what was in memory; the changelog has it."""
    steps = ("after produce", "before commit", "after commit", "after write")
    for n, step in product((0, 2), steps):
        plan = At(n, Crash, frozenset({step}))
        life, left = tmp_path / f"{n} {step}", tmp_path / f"{n} {step}, left"
        world = begun(RocksStores(life))
        loop = world.loop(FaultyStores(RocksStores(life), plan), cluster=FaultyCluster(world.cluster, plan))
        with pytest.raises(Crash):
            world.until(world.idle, loop)
        shutil.copytree(life, left)  # as the kill leaves it
        die(world, loop)
        finish(world, RocksStores(left)).close()
        for task in loop.tasks.values():
            task.close()


# ==================================================================================================== something fails
NOT_YET = ("before produce", "before offsets", "before commit")  # errors that say it did not happen


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        (TransactionAborted, (*NOT_YET, "after produce")),
        (TaskMigrated, ("before offsets", "before commit")),
        (BrokerAway, (*NOT_YET, "before begin", "before producer", "before ends", "before starts", "before read")),
        (OutcomeUnknown, ("before commit", "after commit")),
        (TaskCorrupted, ("before write", "after write", "before get")),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
@pytest.mark.parametrize("settings", [OFTEN, SOMETIMES], ids=["often", "sometimes"])
def test_an_error_at_any_step_is_mended_without_a_trace(
    error: type[C360Error], steps: Sequence[str], settings: LoopSettings
) -> None:
    for plan in every_step(lambda: error("injected"), *steps):
        stores = MemoryStores()
        world = begun(stores)
        loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan), settings=settings)
        world.until(world.idle, loop)
        if plan.fired:
            assert loop.metrics.recoveries or error is TaskCorrupted
        loop.close()
        finish(world, stores)  # what is on disk goes on as well
        finish(world, MemoryStores())


@pytest.mark.parametrize("error", [TransactionAborted, TaskMigrated, BrokerAway])
@pytest.mark.parametrize("at", ["before abort", "after abort"])
def test_an_abort_with_an_unknown_outcome_costs_a_new_producer(error: type[C360Error], at: str) -> None:
    for first in every_step(lambda: error("injected"), "before offsets"):
        second = At(0, lambda: OutcomeUnknown("the abort"), frozenset({at}))
        stores = MemoryStores()
        world = begun(stores)

        def plan(step: str, plans: Sequence[At] = (first, second)) -> BaseException | None:
            return plans[0](step) or plans[1](step)

        loop = world.loop(stores, cluster=FaultyCluster(world.cluster, plan))
        world.until(world.idle, loop)
        world.check()
        loop.close()

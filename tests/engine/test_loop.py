"""What the loop does with members that come and go, with state that is gone or wrong, and with errors, as stories."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from c360.engine import lag, owners, restore
from c360.engine import loop as loop_module
from c360.engine.agent import Outbox, Task
from c360.engine.loop import Loop, LoopSettings, Phase
from c360.engine.memory import MemoryCluster, MemoryConsumer
from c360.engine.state import (
    LOCAL,
    POSITIONS,
    RESET,
    Local,
    TaskState,
    decode_positions,
    encode_positions,
    encode_reset,
    partitions_of,
)
from c360.engine.transport import TP, Batch, Producer
from c360.errors import (
    BrokerAway,
    C360Error,
    EngineFatal,
    Fenced,
    NeedsOperator,
    OutcomeUnknown,
    OutOfLog,
    TaskCorrupted,
)
from c360.tables.rocks import RocksStores
from c360.tables.store import MemoryStore, MemoryStores, Store, Stores
from c360.tables.table import Table
from c360.testing.faults import At, FaultyCluster, FaultyProducer, FaultyStores, Later
from tests.engine.cut import CutCluster
from tests.engine.toy import COUNTS, OFTEN, POISON, REMIND, REMIND_MS, Counting, Toy, World, content, toy_dlq

WHOLE = LoopSettings(batch_records=1000, commit_s=0.0, behind_s=0.0, away_s=0.0)
# Commits when there is nothing more to read, or when it must.
LATE = LoopSettings(commit_s=3600.0, commit_share=0.0, away_s=0.0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World(MemoryCluster())
    yield world
    world.close()


@pytest.fixture(params=["memory", "rocks"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    return MemoryStores() if request.param == "memory" else RocksStores(tmp_path / "state")


def memory(world: World) -> MemoryCluster:
    assert isinstance(world.cluster, MemoryCluster)
    return world.cluster


def work(world: World, stores: Stores, *, rounds: int = 1) -> None:
    """A whole life of a worker: feed, count, stop."""
    world.feed_all(rounds)
    loop = world.loop(stores)
    world.until(world.idle, loop)
    loop.close()


@contextmanager
def first_store(world: World, stores: Stores) -> Iterator[Store]:
    """The store of the first task, between two lives of a worker."""
    store = stores.open(world.toy.store_name(world.leads[0]))
    yield store
    store.close()


def running(loop: Loop) -> set[int]:
    return {lead.partition for lead, task in loop.tasks.items() if task.phase is Phase.RUNNING}


# =============================================================================================================== state
def test_everything_is_counted_once_and_log_group_and_disk_agree(world: World, stores: Stores) -> None:
    work(world, stores, rounds=3)
    world.check()
    for lead, log in zip(world.leads, world.logs, strict=True):
        store = stores.open(world.toy.store_name(lead))
        counts, at = content(store)
        assert counts == {k: n for k, n in world.written.items() if k.endswith(f"-{lead.partition}".encode())}
        assert at == world.ends([log])[log] - 1  # all but the marker of the last transaction
        store.close()
    work(world, stores)
    world.check()


def test_state_that_was_deleted_comes_back_from_the_changelog_alone(world: World, tmp_path: Path) -> None:
    work(world, RocksStores(tmp_path), rounds=3)
    memory(world).compact(world.toy.log)
    shutil.rmtree(tmp_path / world.toy.name)
    stores = RocksStores(tmp_path)
    world.feed_all()
    loop = world.loop(stores)
    world.until(world.idle, loop)
    world.check()
    assert loop.metrics.restored_records == 3 * 3  # of each partition two counts and its positions
    loop.close()


def test_notes_of_the_last_commit_are_there_again_after_a_restore(world: World, stores: Stores) -> None:
    work(world, stores)
    work(world, MemoryStores())
    seen = [decode_positions(v).notes["seen"] for _, k, v in world.read(world.toy.log) if k == POSITIONS and v]
    assert max(seen) == 6


def test_a_store_that_is_behind_reads_only_what_it_missed(world: World, tmp_path: Path) -> None:
    work(world, RocksStores(tmp_path / "old"), rounds=5)
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    work(world, RocksStores(tmp_path / "new"))
    everything = len([1 for _, key, _ in world.read(world.toy.log) if key])
    world.feed_all()
    loop = world.loop(RocksStores(tmp_path / "old"))
    world.until(world.idle, loop)
    world.check()
    assert 0 < loop.metrics.restored_records < everything / 2
    loop.close()


@pytest.mark.parametrize("by", [1, 1_000_000])
def test_a_store_ahead_of_its_changelog_is_of_another_life_and_begins_from_nothing(
    world: World, stores: Stores, by: int
) -> None:
    work(world, stores)
    with first_store(world, stores) as store:
        local = Local(world.ends(world.logs)[world.logs[0]] + by, 0, world.toy.clock())
        store.write([(LOCAL, msgspec.json.encode(local)), (COUNTS + b"a-0", b"77"), (COUNTS + b"phantom", b"1")])
    work(world, stores)
    world.check()
    with first_store(world, stores) as store:
        assert b"phantom" not in content(store)[0]


def test_a_store_that_was_away_too_long_begins_from_nothing(world: World, stores: Stores) -> None:
    """A deletion may have been compacted away meanwhile; the store would keep what was deleted for ever."""
    work(world, stores)
    with first_store(world, stores) as store:
        store.write([(COUNTS + b"deleted meanwhile", b"1")])
    world.toy.clock.ms += 21 * 3_600_000
    work(world, stores)
    world.check()
    with first_store(world, stores) as store:
        assert b"deleted meanwhile" not in content(store)[0]


def test_a_store_behind_what_the_changelog_still_holds_begins_from_nothing(world: World, stores: Stores) -> None:
    work(world, stores)
    before = world.ends(world.logs)
    work(world, MemoryStores())
    memory(world).compact(world.toy.log)
    world.admin.delete_records({log: n + 2 for log, n in before.items()})
    with first_store(world, stores) as store:
        store.write([(COUNTS + b"phantom", b"1")])
    loop = world.loop(stores)
    world.until(lambda: running(loop) == {0, 1, 2}, loop)
    loop.close()
    with first_store(world, stores) as store:
        assert b"phantom" not in content(store)[0]


@pytest.mark.parametrize("copied", [False, True])
def test_a_changelog_that_is_cut_while_it_is_read_is_read_anew(world: World, stores: Stores, copied: bool) -> None:
    """Deleting records is not fenced: a worker that had begun a new life, and was fenced, once cut another's restore."""
    work(world, stores)
    work(world, MemoryStores())
    before = world.ends(world.logs)
    work(world, MemoryStores())
    cuts: list[object] = []

    def cut() -> None:
        if not cuts:
            cuts.append(world.admin.delete_records(before))  # type: ignore[func-returns-value]

    cluster = CutCluster(world.cluster, lambda step: None, cut)
    loop = world.loop(stores if copied else MemoryStores(), cluster=cluster)
    world.until(lambda: running(loop) == {0, 1, 2}, loop)
    assert cuts
    world.feed_all()
    world.until(world.idle, loop)
    loop.close()
    world.check()


class Asking(Toy):
    """It asks the broker which inputs a task has, as consent and erasure do."""

    away = 0  # so many questions from now on find it away

    def task(self, lead: TP) -> Task:
        if self.away:
            self.away -= 1
            raise BrokerAway("which topics there are")
        return super().task(lead)


@pytest.mark.parametrize("away", [1, 2, 3, 4])
def test_what_is_assigned_while_the_broker_is_away_is_taken_up_when_it_is_back(away: int) -> None:
    """It was once owned and never read: its agent stood still until somebody restarted the worker."""
    toy = Asking()
    world = World(MemoryCluster(), toy)
    world.feed_all()
    loop = world.loop(MemoryStores())
    toy.away = away
    world.until(world.idle, loop)
    other = world.loop(MemoryStores(), slot="1")
    toy.away = away
    world.feed_all()
    world.until(lambda: running(other) and world.idle(), loop, other)
    toy.away = 0
    other.close()
    world.feed_all()
    world.until(lambda: running(loop) == {0, 1, 2} and world.idle(), loop)
    world.check()
    world.close()


def test_a_changelog_that_is_cut_again_and_again_stops_the_worker(world: World) -> None:
    work(world, MemoryStores())

    def cut() -> None:
        reader = world.cluster.reader()
        world.admin.delete_records({log: n + 1 for log, n in reader.starts(world.logs).items()})

    loop = world.loop(MemoryStores(), cluster=CutCluster(world.cluster, lambda step: None, cut))
    with pytest.raises(OutOfLog, match="is not in the log any more"):
        world.until(lambda: running(loop), loop)


def test_who_looks_how_far_something_is_looks_again_where_a_log_is_cut_meanwhile(world: World) -> None:
    """Loops are cut below what was read, every minute; a command that looked just then ended with exit code 4."""
    work(world, MemoryStores())
    starts, ends = world.reader.starts(world.logs), world.ends(world.logs)
    cuts = iter([ends])

    def cut() -> None:
        if (before := next(cuts, None)) is not None:
            world.admin.delete_records(before)

    reader = CutCluster(world.cluster, lambda step: None, cut).reader()
    assert restore.last_positions(reader, world.logs[0]) is None
    assert lag.ends_of_records(reader, starts) == ends
    assert lag.records_left(reader, starts) == dict.fromkeys(starts, 0)


def test_a_reset_voids_every_store_of_the_life_before(world: World, stores: Stores) -> None:
    work(world, stores)
    copy = MemoryStores()
    work(world, copy)
    world.reset(1)
    work(world, stores)  # counts the records of both rounds again, from nothing
    world.check()
    work(world, copy)
    world.check()
    world.reset(2)
    work(world, MemoryStores())
    work(world, stores)
    world.check()


def test_what_stands_before_a_reset_in_one_batch_with_it_is_void() -> None:
    table: Table[int] = Table(COUNTS, lambda n: str(n).encode(), int)
    store = MemoryStore()
    store.write([(COUNTS + b"x", b"1"), (LOCAL, msgspec.json.encode(Local(2, 0, 0)))])
    tp, positions = TP("in", 0), [encode_positions({TP("in", 0): n}, "f", {}) for n in (5, 0, 1)]
    keys: list[bytes | None] = [COUNTS + b"a", POSITIONS, RESET, POSITIONS, COUNTS + b"b", POSITIONS]
    values: list[bytes | None] = [b"5", positions[0], encode_reset(7), positions[1], b"1", positions[2]]
    for size in (1, 3, 6):
        state = TaskState(store, [table], lambda: 0)
        state.open()
        for i in range(0, 6, size):
            offsets = list(range(2 + i, 2 + i + size))
            state.apply(Batch(TP("log", 0), offsets, keys[i : i + size], values[i : i + size], offsets, lambda i: []))
        assert content(store) == ({b"b": 1}, 8)
        assert partitions_of(state.positions.positions) == {tp: 1}
        assert state.incarnation == 7


# ============================================================================================== news from somewhere else
class Hearing(Counting):
    """Says what it hears of, such as from a global table; no record of its inputs moves for it."""

    toy: Listener
    heard = partition = 0

    def resume(self, notes: Mapping[str, Any]) -> None:
        super().resume(notes)
        self.heard = notes.get("heard", 0)

    def notes(self) -> dict[str, Any]:
        return super().notes() | ({"heard": self.heard} if self.toy.noted else {})

    def wants(self, now_ms: int) -> bool:
        return self.heard < self.toy.news

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.wants(now_ms):
            self.heard = self.toy.news
            out.send(self.toy.out, b"news", str(self.heard).encode(), self.partition)


@dataclass
class Listener(Toy):
    news: int = 0
    noted: bool = False

    def processor(self, task: Task) -> Hearing:
        made = Hearing(self, self.clock)
        made.partition = task.lead.partition
        return made


@pytest.mark.parametrize("noted", [False, True])
@pytest.mark.parametrize("fed", [False, True])
def test_what_is_said_without_a_record_carries_the_positions_of_who_says_it(noted: bool, fed: bool) -> None:
    """Each transaction is refused when its partitions are another's; it is so only by the positions in it."""
    listener = Listener(noted=noted)
    world = World(MemoryCluster(), listener)
    loop = world.loop(MemoryStores())
    if fed:
        world.feed_all()
        world.until(world.idle, loop)
    world.until(lambda: running(loop) == {0, 1, 2}, loop)
    before = world.group()
    assert bool(before) == fed
    steps: list[str] = []
    assert loop.producer is not None
    loop.producer = FaultyProducer(loop.producer, steps.append)
    listener.news = 1
    for _ in range(3):
        loop.turn(0.0)
    assert steps.count("before commit") == steps.count("before offsets") == 1, (
        "one transaction, with positions, and then there is nothing more to say"
    )
    assert sorted(p for p, key, _ in world.read(listener.out) if key == b"news") == [0, 1, 2]
    assert world.group() == world.logged()[1] == (before or dict.fromkeys(world.tps, 0))


def test_news_that_a_zombie_hears_of_is_said_by_the_heir_only() -> None:
    listener = Listener(noted=True)
    world = World(MemoryCluster(), listener)
    zombie = world.loop(MemoryStores(), slot="0")
    world.feed_all()
    world.until(world.idle, zombie)
    memory(world).expire(zombie.consumer)
    heir = world.loop(MemoryStores(), slot="1")
    world.until(lambda: running(heir) == {0, 1, 2}, heir)
    listener.news = 1
    with pytest.raises(C360Error):
        zombie.commit()
    zombie.close()
    world.until(lambda: len([1 for _, key, _ in world.read(listener.out) if key == b"news"]) == 3, heir)
    heir.turn(0.0)
    assert len([1 for _, key, _ in world.read(listener.out) if key == b"news"]) == 3


# ========================================================================================================= membership
def test_two_workers_share_the_work_and_what_one_gives_up_the_other_continues(world: World) -> None:
    first = world.loop(MemoryStores(), slot="0")
    world.feed_all(3)
    world.until(world.idle, first)
    second = world.loop(MemoryStores(), slot="1")
    world.feed_all(3)
    world.until(lambda: world.idle() and running(first) and running(second), first, second)
    assert running(first) | running(second) == {0, 1, 2}
    assert running(first).isdisjoint(running(second))
    world.feed_all(3)
    world.until(world.idle, first, second)
    second.close()
    world.feed_all(3)
    world.until(world.idle, first)
    world.check()


def test_what_was_processed_is_committed_before_a_partition_goes(world: World) -> None:
    first, second = world.loop(MemoryStores(), settings=LATE), world.loop(MemoryStores(), slot="1")
    world.until(lambda: running(first) == {0, 1, 2}, first)
    world.feed_all()
    first.turn(0)
    assert first.uncommitted == 9
    world.until(lambda: len(second.tasks) == 1, second, first)
    assert first.metrics.commits == 1
    assert not first.metrics.recoveries
    world.until(lambda: world.idle() and running(second), first, second)
    world.check()
    assert len(world.toy.batches) == 3  # nothing was processed twice


def worked(world: World) -> Loop:
    """A worker of slot 0 that has counted all there is."""
    loop = world.loop(MemoryStores(), slot="0")
    world.feed_all()
    world.until(world.idle, loop)
    return loop


def begun(loop: Loop) -> Producer:
    """Its producer, in a transaction."""
    loop._begin()
    assert loop.producer is not None
    return loop.producer


def taken_over(world: World, settings: LoopSettings = OFTEN) -> Loop:
    """Another worker, that has all tasks and has counted all there is."""
    heir = world.loop(MemoryStores(), slot="1", settings=settings)
    world.until(lambda: running(heir) == {0, 1, 2}, heir)
    world.feed_all()
    world.until(world.idle, heir)
    return heir


def test_one_that_was_overtaken_while_it_hung_joins_again_although_what_it_read_is_gone() -> None:
    """What loops have read is deleted; of who wakes up, the fetcher may know it before the membership does. It ended."""
    cluster = MemoryCluster()
    world = World(cluster)
    hung = world.loop(MemoryStores())
    world.feed_all()
    world.until(world.idle, hung)
    cluster.expire(hung.consumer)
    world.feed_all()
    heir = world.loop(MemoryStores(), slot="1")
    world.until(world.idle, heir)
    world.admin.delete_records(world.group())
    assert isinstance(hung.consumer, MemoryConsumer)
    hung.consumer.unheard()
    hung.turn(0.0)
    assert hung.metrics.recoveries["TaskMigrated"] == 1
    world.until(lambda: running(hung) and running(heir), hung, heir)
    world.feed_all()
    world.until(world.idle, hung, heir)
    world.check()
    world.close()


def test_who_reads_what_is_gone_and_was_not_overtaken_stops(world: World) -> None:
    loop = world.loop(MemoryStores())
    world.feed_all()
    world.until(world.idle, loop)
    world.feed_all()
    world.admin.delete_records({tp: n + 1 for tp, n in world.group().items()})
    with pytest.raises(OutOfLog, match="is not in the log"):
        world.until(world.idle, loop)


def leave_open(world: World, loop: Loop) -> None:
    """As if the worker were killed in the middle of a commit: what it has said is in the log, and nobody decides."""
    producer = begun(loop)
    for lead in loop.tasks:
        log = world.toy.changelog(lead)
        producer.produce(log.topic, COUNTS + b"a-0", b"99", log.partition)
    memory(world).expire(loop.consumer)


def test_an_heir_ends_the_transaction_that_a_dead_owner_left_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the broker to do so, 15 to 25 s, and so did all readers."""
    monkeypatch.setattr(restore, "PATIENCE_S", 0.05)
    dead = worked(world)
    leave_open(world, dead)
    heir = taken_over(world)
    # It was frozen only, and wakes up
    world.until(lambda: "Evicted" in dead.metrics.recoveries and running(dead), dead, heir)
    assert dead.metrics.recoveries["Evicted"] == 1
    world.feed_all()
    world.until(world.idle, dead, heir)
    world.check()


def test_an_heir_ends_a_transaction_that_has_offsets_already(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asked for the group's offsets first, and that waited for the broker to end it: 20 s."""
    monkeypatch.setattr(restore, "PATIENCE_S", 0.05)
    dead = worked(world)
    producer, log = begun(dead), world.toy.changelog(TP(world.toy.lead, 0))
    producer.produce(log.topic, COUNTS + b"a-0", b"99", log.partition)
    producer.send_offsets(dict.fromkeys(world.tps, 99), dead.consumer.group())
    memory(world).expire(dead.consumer)
    taken_over(world)
    world.check()


def test_an_heir_ends_a_transaction_that_has_nothing_but_offsets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner died with its changelog records still in its memory; the group's offsets were not told for 18 s."""
    monkeypatch.setattr(loop_module, "PATIENCE_S", 0.05)
    dead = worked(world)
    begun(dead).send_offsets(dict.fromkeys(world.tps, 99), dead.consumer.group())
    memory(world).expire(dead.consumer)
    taken_over(world)
    world.check()


def test_an_heir_also_ends_a_transaction_that_has_output_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its changelogs are at rest, so no restore has to wait; the readers of its output waited for 22 s."""
    monkeypatch.setattr(owners, "LOOK_S", 0.0)
    dead = worked(world)
    begun(dead).produce(world.toy.out, b"a", b"never decided", 0)
    memory(world).expire(dead.consumer)
    heir = taken_over(world, replace(OFTEN, abandoned_s=5.0))
    began = world.admin.transaction_since("toy.group.0")
    assert began is not None, "not yet: a worker that is behind has one open for as long"
    world.toy.clock.ms = began + 5_000
    world.until(lambda: world.admin.transaction_since("toy.group.0") is None, heir)
    world.check()


def test_who_has_just_taken_over_is_known_to_the_next_and_the_one_before_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "PATIENCE_S", 0.05)
    first = world.loop(MemoryStores(), slot="0")
    world.feed_all()
    world.until(world.idle, first)
    second = world.loop(MemoryStores(), slot="1")
    world.until(lambda: running(first) and running(second), first, second)
    leave_open(world, second)  # before it has processed anything
    world.until(lambda: running(first) == {0, 1, 2}, first)
    world.feed_all()
    world.until(world.idle, first)
    assert not first.metrics.recoveries
    world.until(lambda: "Evicted" in second.metrics.recoveries and running(second), first, second)
    assert second.metrics.recoveries["Evicted"] == 1
    world.check()


def test_nothing_of_a_lost_partition_is_committed(world: World) -> None:
    hung, other = world.loop(MemoryStores(), settings=LATE), world.loop(MemoryStores(), slot="1")
    world.until(lambda: running(hung) == {0, 1, 2}, hung)
    world.feed_all()
    hung.turn(0)
    assert hung.uncommitted == 9
    memory(world).expire(hung.consumer)
    world.feed_all()
    # The other one's restore waits only for transactions with offsets in them; this one's has none yet.
    world.until(lambda: running(other) == {0, 1, 2} and world.idle(), other)
    assert not hung.metrics.commits
    world.until(lambda: running(hung) and running(other), hung, other)
    world.feed_all()
    world.until(world.idle, hung, other)
    world.check()


def test_a_worker_whose_slot_was_taken_stops(world: World) -> None:
    zombie = world.loop(MemoryStores())
    world.feed_all()
    world.until(world.idle, zombie)
    successor = world.loop(MemoryStores())
    world.feed_all()

    def go_on() -> None:
        world.until(lambda: False, successor, zombie)

    with pytest.raises(Fenced):
        go_on()
    zombie.close()
    world.until(world.idle, successor)
    world.check()


def test_a_stop_is_heard_while_the_outcome_of_a_commit_is_unknown_and_the_broker_away(world: World) -> None:
    """The loop once waited for its next producer and for nothing else."""
    met: list[str] = []

    def away(step: str) -> Exception | None:
        met.append(step)
        if step == "before commit":
            return OutcomeUnknown("injected")
        return BrokerAway("injected") if step == "before producer" and "before commit" in met else None

    loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, away))
    world.feed_all()
    loop.run(lambda: met[-3:] == ["before producer"] * 3)
    assert loop.tasks == {}
    world.until(world.idle, world.loop(MemoryStores()))
    world.check()


def test_records_that_come_with_a_failed_revocation_are_not_lost(world: World) -> None:
    """One poll may bring both: callbacks that end in an abort, and records of partitions that stay."""
    plan = At(0, lambda: OutcomeUnknown("injected"), frozenset({"before commit"}))
    first = world.loop(MemoryStores(), settings=LATE, cluster=FaultyCluster(world.cluster, plan))
    second = world.loop(MemoryStores(), slot="1")
    world.until(lambda: running(first) == {0, 1, 2}, first)
    world.feed_all()
    first.turn(0)
    assert first.uncommitted == 9
    second.turn(0)
    world.feed_all()
    first.turn(0)  # gives one partition up, fails to commit, and reads what was just written
    assert plan.fired
    world.until(world.idle, first, second)
    world.check()


def test_after_an_abort_only_rewound_partitions_come_again(world: World) -> None:
    """A partition whose restore ends in the same turn in which another's work is aborted loses no first record."""
    executor = Later()
    plan = At(0, lambda: BrokerAway("injected"), frozenset({"before commit"}))
    first = world.loop(MemoryStores(), settings=LATE, cluster=FaultyCluster(world.cluster, plan), executor=executor)
    second = world.loop(MemoryStores(), slot="1")
    world.until(lambda: len(second.tasks) == 3, second)
    world.until(lambda: first.tasks, first, second)
    executor.work()
    world.until(lambda: running(first), first, second)
    held = running(first)
    world.feed_all()
    first.turn(0)
    assert first.uncommitted == 3 * len(held)
    second.close()
    first.turn(0)  # the rest is assigned, and waits for its restore; the commit fails
    executor.work()
    world.feed_all()
    world.until(world.idle, first)
    assert plan.fired
    world.check()
    for tp in world.tps:
        given = [offset for at, offsets in world.toy.batches if at == tp for offset in offsets]
        assert given == ([0, 1, 2] if tp.partition in held else []) + [0, 1, 2, 3, 4, 5]


def test_a_partition_revoked_while_it_is_restored_disturbs_no_other_and_may_come_back(
    world: World, tmp_path: Path
) -> None:
    """The store was once closed under the restore, which took it for a damaged disk and deleted all the others."""
    work(world, RocksStores(tmp_path))
    moved: list[str] = []

    def meanwhile(step: str) -> None:
        """Another thread's turn, in the middle of the restore."""
        if step == "before write" and not moved:
            moved.append(step)
            world.until(lambda: len(loop.tasks) == 2, loop, other)
            other.close()
            world.until(lambda: len(loop.tasks) == 3, loop)

    executor = Later()
    loop = world.loop(FaultyStores(RocksStores(tmp_path / "new"), meanwhile), executor=executor)
    other = world.loop(MemoryStores(), slot="1")
    world.until(lambda: len(loop.tasks) == 3, loop)
    while not (moved and running(loop) == {0, 1, 2}):
        executor.work()
        loop.turn(0)
        assert not any(task.store_failures for task in loop.tasks.values())
    world.feed_all()
    world.until(world.idle, loop)
    world.check()
    assert not loop.metrics.recoveries


def test_a_partition_revoked_between_two_attempts_to_restore_it_is_let_go(world: World) -> None:
    """Its state of the first attempt was once taken for a restored one, that stood at no offset."""
    work(world, MemoryStores())
    executor = Later()
    plan = At(0, lambda: BrokerAway("injected"), frozenset({"before read"}))
    cluster = FaultyCluster(world.cluster, plan)
    loop = world.loop(FaultyStores(MemoryStores(), lambda step: None), cluster=cluster, executor=executor)
    world.until(lambda: len(loop.tasks) == 3, loop)
    executor.work()
    loop.turn(0)  # hears of it, and has another attempt waiting
    other = world.loop(MemoryStores(), slot="1")
    world.until(lambda: len(loop.tasks) == 2 and other.tasks, loop, other)
    while not (running(loop) and running(other)):
        executor.work()
        loop.turn(0)
        other.turn(0)
    world.feed_all()
    world.until(world.idle, loop, other)
    world.check()


def test_a_restore_that_others_overtake_is_no_matter_for_an_operator(world: World) -> None:
    """The session ran out unnoticed: others have the tasks already, and commit while this one still reads."""
    work(world, MemoryStores())
    overtaken: list[str] = []

    def meanwhile(step: str) -> None:
        if step == "before ends" and not overtaken:
            overtaken.append(step)
            memory(world).expire(loop.consumer)
            world.feed_all()
            world.until(world.idle, other)

    other = world.loop(MemoryStores(), slot="1")
    loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, meanwhile), executor=(executor := Later()))
    world.until(lambda: len(loop.tasks) == 3, loop)
    executor.work()
    assert overtaken
    while not (running(loop) and running(other)):
        loop.turn(0)
        other.turn(0)
        executor.work()
    world.feed_all()
    world.until(world.idle, loop, other)
    world.check()


def test_a_broker_that_is_away_in_a_restore_is_waited_for_with_the_same_database(world: World, tmp_path: Path) -> None:
    work(world, RocksStores(tmp_path))
    for step in ("before ends", "before starts", "before read"):
        plan = At(1 if step == "before starts" else 0, lambda: BrokerAway("injected"), frozenset({step}))
        world.feed_all()
        loop = world.loop(RocksStores(tmp_path), cluster=FaultyCluster(world.cluster, plan))
        world.until(world.idle, loop)
        assert plan.fired or step == "before read"
        loop.close()
    world.check()


# ============================================================================================================== errors
@pytest.mark.parametrize("settings", [WHOLE, LATE, LoopSettings(batch_records=4)], ids=["whole", "late", "small"])
def test_bad_records_are_found_among_good_ones_and_put_aside(world: World, settings: LoopSettings) -> None:
    for n in range(40):
        world.feed("bad", value=POISON) if n in (0, 13, 14, 39) else world.feed("good")
    world.feed_all()
    loop = world.loop(MemoryStores(), settings=settings)
    world.until(world.idle, loop)
    world.check()
    assert [(k, v) for _, k, v in world.read(toy_dlq(world.toy))] == [(b"bad-0", b"ValueError")] * 4
    assert loop.metrics.recoveries["TransactionAborted"] <= 4 * 7  # halving, not one by one
    (task,) = (t for lead, t in loop.tasks.items() if lead.partition == 0)
    assert not task.limit
    assert not task.condemned


def test_a_bad_record_that_retention_takes_meanwhile_is_forgotten(world: World) -> None:
    world.feed("a")
    world.feed("bad", value=POISON)
    world.feed("b")
    loop = world.loop(MemoryStores(), settings=WHOLE)
    world.until(lambda: loop.tasks and loop.tasks[world.leads[0]].condemned, loop)
    memory(world).topics[world.toy.topic("in")].partitions[0].keep([0, 2])  # as compaction may
    world.until(world.idle, loop)
    world.check()
    assert not loop.tasks[world.leads[0]].condemned


def test_a_commit_whose_outcome_is_unknown_is_looked_up_in_the_log(world: World) -> None:
    for step in ("before commit", "after commit"):
        plan = At(2, lambda: OutcomeUnknown("injected"), frozenset({step}))
        world.feed_all(4)
        loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, plan))
        world.until(world.idle, loop)
        assert loop.metrics.recoveries == {"OutcomeUnknown": 1}
        loop.close()
        world.check()


def test_a_disk_that_is_full_after_a_commit_loses_nothing(world: World, tmp_path: Path) -> None:
    """What was committed is in the log: the database is made again from it, and the next record counts on."""
    stores = FullDisk(tmp_path)
    world.feed_all()
    loop = world.loop(stores)
    world.until(world.idle, loop)
    assert len(stores.opened) == 3
    for store in stores.opened:
        store.full = True
    world.feed_all()
    world.until(world.idle, loop)
    assert len(stores.opened) == 6
    world.feed_all()
    world.until(world.idle, loop)
    world.check()
    loop.close()
    work(world, RocksStores(tmp_path))
    world.check()


class FullDisk(RocksStores):
    """Databases whose disk fills up when told so."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.opened: list[Filling] = []

    def open(self, name: str) -> Filling:  # type: ignore[override]  # all a loop asks of a store
        store = Filling(super().open(name))
        self.opened.append(store)
        return store


class Filling:
    def __init__(self, store: Any) -> None:
        self.store, self.full = store, False

    def write(self, entries: Any) -> None:
        if self.full:
            raise TaskCorrupted("writing failed: No space left on device")
        self.store.write(entries)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_a_disk_that_stays_full_ends_the_process_with_advice(world: World) -> None:
    stores = FaultyStores(MemoryStores(), lambda step: TaskCorrupted("full") if step == "before write" else None)
    world.feed_all()
    loop = world.loop(stores)

    def go_on() -> None:
        world.until(lambda: False, loop)

    with pytest.raises(NeedsOperator, match="C360_STATE_DIR"):
        go_on()
    loop.close()
    world.until(world.idle, world.loop(MemoryStores()))
    world.check()


def test_a_store_that_fails_between_the_pieces_of_a_bad_batch_stops_the_batch(world: World) -> None:
    """The pieces after it were once counted by a task that was being restored: their output came twice."""
    for n in range(4):
        plan = At(n, lambda: TaskCorrupted("injected"), frozenset({"after write"}))
        world.feed(*"abcdefgh")
        world.feed("bad", value=POISON)
        world.feed(*"abcdefgh")
        executor = Later()
        loop = world.loop(FaultyStores(MemoryStores(), plan), settings=WHOLE, executor=executor)
        while not world.idle():
            executor.work()
            loop.turn(0)
        assert plan.fired
        loop.close()
        world.check()


@pytest.mark.parametrize("error", [NeedsOperator, EngineFatal, Fenced])
def test_what_nothing_here_can_mend_ends_the_loop_and_leaves_no_transaction_open(
    world: World, error: type[C360Error]
) -> None:
    plan = At(0, lambda: error("injected"), frozenset({"before offsets"}))
    world.feed_all()
    loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, plan))

    def go_on() -> None:
        loop.run(lambda: False)

    with pytest.raises(error, match="injected"):
        go_on()
    assert world.read(world.toy.out) == []  # a reader waits for an open transaction: there is none
    work(world, MemoryStores())
    world.check()


# =========================================================================================================== positions
def refuses(world: World, stores: Stores, *words: str, settings: LoopSettings = WHOLE) -> None:
    loop = world.loop(stores, settings=settings)

    def go_on() -> None:
        world.until(lambda: running(loop), loop)

    said = (world.said(), world.logged())
    with pytest.raises(NeedsOperator) as refused:
        go_on()
    for word in words:
        assert word in str(refused.value)
    loop.close()
    assert (world.said(), world.logged()) == said


@pytest.mark.parametrize("to", [0, 2, 4])
def test_positions_that_the_group_and_the_changelog_disagree_about_need_an_operator(
    world: World, stores: Stores, to: int
) -> None:
    work(world, stores)
    tp = world.tps[1]
    world.admin.set_group_offsets(world.toy.group, {tp: to})
    refuses(world, stores, f"stands at {to} in toy.in/1, its state at 3", "c360 reset toy", "--adopt")
    refuses(world, MemoryStores(), f"stands at {to} in toy.in/1, its state at 3")
    world.feed_all()
    loop = world.loop(stores, settings=LoopSettings(adopt=True))  # goes on from the state
    world.until(world.idle, loop)
    world.check()
    loop.close()
    work(world, stores)  # and they agree again
    world.check()


def test_adopted_positions_are_the_group_s_even_when_nothing_moves(world: World, stores: Stores) -> None:
    work(world, stores)
    before = world.admin.group_offsets(world.toy.group)
    world.admin.set_group_offsets(world.toy.group, {world.tps[1]: 0})
    loop = world.loop(stores, settings=LoopSettings(adopt=True))
    world.until(lambda: world.admin.group_offsets(world.toy.group) == before, loop)
    loop.close()


def test_group_offsets_that_have_expired_need_an_operator(world: World, stores: Stores) -> None:
    work(world, stores)
    world.admin.delete_group(world.toy.group)
    refuses(world, stores, "stands at no offset", "--adopt")


def test_a_changelog_that_is_gone_needs_an_operator_even_to_adopt(world: World, stores: Stores) -> None:
    work(world, stores)
    world.admin.delete_records(world.ends(world.logs))
    refuses(world, MemoryStores(), "its state at no offset")
    refuses(world, MemoryStores(), "its state at no offset", settings=LoopSettings(adopt=True))


def test_another_fold_than_the_state_was_made_with_needs_an_operator(world: World, stores: Stores) -> None:
    work(world, stores)
    world.toy.fingerprint = "f2"
    refuses(world, stores, "attributes", "c360 reset toy")


def test_records_that_retention_has_cut_unread_need_an_operator(world: World, stores: Stores) -> None:
    work(world, stores)
    world.feed_all(2)
    world.admin.delete_records({world.tps[0]: 5})
    refuses(world, stores, "toy.in/0 was read up to 3, but begins at 5")


def test_a_new_group_starts_where_the_log_does(world: World) -> None:
    world.feed_all(2)
    world.admin.delete_records({world.tps[0]: 3})
    loop = world.loop(MemoryStores())
    world.until(world.idle, loop)
    assert world.said()[b"a-0"] == [1, 2]
    assert world.said()[b"a-1"] == [1, 2, 3, 4]


def test_an_aborted_first_commit_leaves_no_position_that_the_group_does_not_have() -> None:
    """The changelog once claimed positions of inputs whose only commit had failed; the next start refused to go on."""
    world = World(MemoryCluster(), Toy(inputs=("in", "other")), 1)
    plan = At(0, lambda: BrokerAway("injected"), frozenset({"before commit"}))
    loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, plan))
    world.until(lambda: running(loop), loop)
    world.feed("a", topic="in")
    world.feed("b", topic="other")
    world.until(lambda: plan.fired, loop)
    consumer = loop.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.unfetch([TP("toy.other", 0)])  # it comes later than the other
    world.until(lambda: world.group(), loop)
    assert world.group() == world.logged()[1] == {TP("toy.in", 0): 1}
    loop.close()
    work(world, MemoryStores())
    world.check()


def test_all_positions_are_committed_now_and_then_so_that_none_expires() -> None:
    world = World(MemoryCluster(), Toy(inputs=("in", "other")), 2)
    world.feed("a", partition=1)
    loop = world.loop(MemoryStores())
    world.until(world.idle, loop)
    assert world.group() == {TP("toy.in", 1): 1}
    commits = loop.metrics.commits
    loop.recommitted -= 2 * loop_module.RECOMMIT_S
    world.feed("a", partition=1)
    loop.turn(0)
    assert world.group() == {**dict.fromkeys(world.tps, 0), TP("toy.in", 1): 2}
    for _ in range(5):
        loop.turn(0)
    assert loop.metrics.commits == commits + 1
    loop.close()
    work(world, MemoryStores())
    world.check()


# ============================================================================================================== timers
def test_what_a_timer_says_is_committed_with_a_position_and_said_once(world: World) -> None:
    """Without input and without a change of any table the transaction was once left open until the next record."""
    stores = MemoryStores()
    world.feed("a", value=REMIND)
    loop = world.loop(stores)
    world.until(world.idle, loop)
    assert b"reminder" not in world.said()
    world.toy.clock.ms += REMIND_MS
    loop.turn(0)
    assert not loop.in_transaction
    for _ in range(5):
        loop.turn(0)
    assert world.said()[b"reminder"] == [1]
    memory(world).expire(loop.consumer)
    again = world.loop(MemoryStores())
    world.until(lambda: running(again), again)
    for _ in range(5):
        again.turn(0)
    assert world.said()[b"reminder"] == [1]


def test_a_timer_that_goes_off_beside_another_tasks_work_is_remembered(world: World) -> None:
    world.feed("a", value=REMIND)
    loop = world.loop(MemoryStores())
    world.until(world.idle, loop)
    world.feed("b", partition=1)
    world.toy.clock.ms += REMIND_MS
    world.until(world.idle, loop)
    assert world.said()[b"reminder"] == [1]
    memory(world).expire(loop.consumer)
    again = world.loop(MemoryStores())
    world.until(lambda: running(again), again)
    for _ in range(5):
        again.turn(0)
    assert world.said()[b"reminder"] == [1]


def test_a_stopped_loop_has_committed_what_it_had_and_left_its_group(world: World, stores: Stores) -> None:
    world.feed_all()
    loop = world.loop(stores, settings=LATE)
    turns = iter(range(100))

    def stopped() -> bool:
        return loop.uncommitted > 0 or next(turns) > 90

    loop.run(stopped)
    assert world.admin.group_members(world.toy.group) == 0
    world.check()
    loop.close()  # twice is fine

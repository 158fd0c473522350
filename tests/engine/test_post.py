"""Messages between tasks, numbered from each to each: whatever happens, none is lost, doubled or passed by."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from c360.engine.agent import AnyTable, Outbox, Task
from c360.engine.loop import InlineExecutor, Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.post import Post
from c360.engine.transport import TP, Batch, Cluster, TopicSpec
from c360.errors import TransactionAborted
from c360.tables.store import MemoryStores, Stores
from c360.tables.table import Table
from c360.testing.faults import Later
from c360.testing.simulation import Simulation
from tests.mutant import Mutant

PARTITIONS = 3
SEEDS = int(os.environ.get("C360_TEST_SEEDS", "1000")) // 5
LOOP = "r.loop"
POISON, LATE_POISON = 99, 98  # for `process`, and for `settle`


# ------------------------------------------------------------------------------------------------- a loop of messages
class Relay:
    """Each input sets off a message that goes on from task to task, so many times. All are numbered, by pair of tasks.

    What is passed on goes out at once, when all settle, or as the last thing before the commit, as its number has it.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.heard: Table[int] = Table(b"h", _text, int)  # from whom → last number
        self.told: Table[int] = Table(b"t", _text, int)
        self.tables: Sequence[AnyTable] = [self.heard, self.told]
        self.later: list[tuple[int, int]] = []
        self.last: list[tuple[int, int]] = []

    def resume(self, notes: Mapping[str, Any]) -> None:
        self.later.clear()
        self.last.clear()

    def notes(self) -> dict[str, Any]:
        return {}

    def process(self, batch: Batch, out: Outbox) -> None:
        for value in batch.values:
            assert value is not None
            if batch.tp.topic != LOOP:
                target, left = map(int, value.split())
                self._tell(target, left, out)
                continue
            source, number, left = map(int, value.split())
            if left == POISON:
                raise ValueError("no task takes this")
            if left == LATE_POISON:
                self.later.append((-1, left))
                continue
            self.heard.put(b"%d" % source, number)
            out.send("r.out", b"%d" % source, b"%d" % number, self.partition)
            if left:
                passed_on = (self.partition + left) % PARTITIONS, left - 1
                if number % 3:
                    (self.later if number % 3 == 1 else self.last).append(passed_on)
                else:
                    self._tell(*passed_on, out)

    def _tell(self, target: int, left: int, out: Outbox) -> None:
        number = (self.told.get(b"%d" % target) or 0) + 1
        self.told.put(b"%d" % target, number)
        out.send(LOOP, b"", b"%d %d %d" % (self.partition, number, left), target)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        (value,) = batch.values
        source, number, _ = map(int, (value or b"").split())
        self.heard.put(b"%d" % source, number)
        out.send("r.bad", b"%d" % source, b"%d" % number, self.partition)

    def settle(self, out: Outbox) -> None:
        if any(target < 0 for target, _ in self.later):
            raise ValueError("nor what follows from this")
        self._tell_all(self.later, out)

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        self._tell_all(self.last, out)

    def _tell_all(self, passed_on: list[tuple[int, int]], out: Outbox) -> None:
        for target, left in passed_on:
            self._tell(target, left, out)
        passed_on.clear()

    def wants(self, now_ms: int) -> bool:
        return False


def _text(number: int) -> bytes:
    return b"%d" % number


class RelayAgent:
    name, group, fingerprint = "relay", "r.group", "1"
    loops: Sequence[str] = (LOOP,)

    def lead_topics(self) -> Sequence[str]:
        return ["r.tasks"]

    def task(self, lead: TP) -> Task:
        return Task(lead, (TP("r.in", lead.partition), TP(LOOP, lead.partition)))

    def changelog(self, lead: TP) -> TP:
        return TP("r.log", lead.partition)

    def store_name(self, lead: TP) -> str:
        return f"r/{lead.partition}"

    def processor(self, task: Task) -> Relay:
        return Relay(task.lead.partition)


@dataclass
class RelayStage:
    """What is simulated."""

    now_ms: int = 0
    sent: int = 0  # messages that the inputs lead to
    mail: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(now_ms=lambda: self.now_ms)
        self.admin, self.reader, self.producer = self.cluster.admin(), self.cluster.reader(), self.cluster.producer()
        names = ("r.tasks", "r.in", LOOP, "r.out", "r.bad", "r.log")
        self.admin.create([TopicSpec(name, PARTITIONS) for name in names])
        self.made: list[Loop] = []

    def loop(self, stores: Stores, slot: str = "0", **settings: Any) -> Loop:
        return self._loop(
            self.cluster, stores, slot, LoopSettings(commit_s=3600.0, commit_share=0.0, **settings), InlineExecutor()
        )

    def _loop(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings, executor: Any) -> Loop:
        loop = Loop(
            RelayAgent(), cluster, stores, slot=slot, clock=lambda: self.now_ms, settings=settings, executor=executor
        )
        self.made.append(loop)
        return loop

    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        return [self._loop(cluster, stores, slot, settings, Later())]

    def feed(self, dice: random.Random) -> None:
        self.now_ms += 10
        for _ in range(dice.randint(1, 5)):
            self.say(dice.randrange(PARTITIONS), dice.randrange(PARTITIONS), dice.choice((0, 1, 3, 12)))

    def say(self, partition: int, target: int, left: int) -> None:
        self.producer.produce("r.in", None, b"%d %d" % (target, left), partition)
        self.producer.flush()
        self.sent += left + 1

    def changelogs(self) -> Sequence[str]:
        return ["r.log"]

    def idle(self) -> bool:
        inputs = [TP(topic, p) for topic in ("r.in", LOOP) for p in range(PARTITIONS)]
        positions = {**self.reader.starts(inputs), **self.admin.group_offsets(RelayAgent.group)}
        return not any(self.reader.read({tp: positions[tp] for tp in inputs}))

    def read(self, topic: str) -> Iterator[tuple[int, bytes | None, bytes | None]]:
        for batches in self.reader.read(self.reader.starts([TP(topic, p) for p in range(PARTITIONS)])):
            for batch in batches:
                for key, value in zip(batch.keys, batch.values, strict=True):
                    yield batch.tp.partition, key, value

    def check(self) -> None:
        heard = defaultdict(list)
        for partition, key, value in self.read("r.out"):
            heard[key, partition].append(int(value or b""))
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in heard.values())
        assert sum(map(len, heard.values())) == self.sent
        self.mail["by hand"] += sum(loop.metrics.mail for loop in self.made)
        self.mail["in the log"] += sum(1 for _ in self.read(LOOP))


def simulated(seed: int) -> RelayStage:
    stage = RelayStage()
    Simulation(stage, seed).run(250)
    return stage


def settle(stage: RelayStage, loop: Loop) -> None:
    for _ in range(100):
        if not loop.turn(0.0) and stage.idle():
            return
    raise AssertionError("it does not come to rest")


# --------------------------------------------------------------------------------------------------------------- by hand
def test_after_the_first_message_through_the_log_they_go_by_hand_and_one_commit_has_them_all() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores())
    stage.say(0, 1, 0)
    settle(stage, loop)
    stage.say(2, 2, 0)
    settle(stage, loop)
    assert (len(list(stage.read(LOOP))), loop.metrics.mail) == (2, 0)
    commits = loop.metrics.commits
    for _ in range(5):
        stage.say(0, 1, 0)
    settle(stage, loop)
    stage.check()
    assert (len(list(stage.read(LOOP))), loop.metrics.mail) == (2, 5)
    assert loop.metrics.commits == commits + 1


def test_what_is_too_much_for_a_commit_goes_through_the_log_and_by_hand_again_later() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores(), mail_records=4)
    for _ in range(40):
        stage.say(0, 1, 12)
        settle(stage, loop)
    stage.check()
    assert min(stage.mail.values()) > 100


def test_a_message_that_no_task_takes_is_put_aside_and_from_then_on_all_have_offsets() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores())
    for left in (0, 0, POISON, 0):
        stage.say(0, 1, left)
        settle(stage, loop)
    assert list(stage.read("r.bad")) == [(1, b"0", b"3")]
    assert [value for _, _, value in stage.read("r.out")] == [b"1", b"2", b"4"]
    assert loop.metrics.mail == 1
    assert len(list(stage.read(LOOP))) == 3


def test_after_an_abort_partitions_open_again_although_more_and_more_comes() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores(), batch_records=20, commit_records=9)
    for turn in range(60):
        for partition in range(PARTITIONS):
            for target in range(PARTITIONS):
                stage.say(partition, target, 1)
        if turn == 20:
            loop._recover(TransactionAborted("a rebalance"))
        loop.turn(0.0)
    assert len(loop.post.open) == PARTITIONS
    settle(stage, loop)
    stage.check()
    assert stage.mail["by hand"] > 3 * stage.mail["in the log"]


def test_one_task_that_says_too_much_at_once_says_it_through_the_log() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores(), mail_records=50)
    for target in range(PARTITIONS):
        stage.say(0, target, 0)
    settle(stage, loop)
    by_hand = loop.metrics.mail
    for _ in range(60):
        stage.say(0, 1, 0)
    settle(stage, loop)
    stage.check()
    assert loop.metrics.mail == by_hand


def test_what_follows_from_a_message_and_fails_when_all_settle_is_the_message_s() -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores())
    for left in (0, 0, LATE_POISON, 0):
        stage.say(0, 1, left)
        settle(stage, loop)
    assert list(stage.read("r.bad")) == [(1, b"0", b"3")]
    assert [value for _, _, value in stage.read("r.out")] == [b"1", b"2", b"4"]


def test_mail_is_given_up_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = RelayStage()
    loop = stage.loop(MemoryStores())
    for left in (0, POISON, 0, 0):
        stage.say(0, 1, left)
        settle(stage, loop)
    assert loop.post.topics == frozenset()
    monkeypatch.setattr("c360.engine.loop.CALM_S", 0.0)
    for _ in range(4):
        stage.say(0, 1, 0)
        settle(stage, loop)
    assert loop.post.topics == {LOOP}
    assert loop.metrics.mail > 0


# ------------------------------------------------------------------------------------------------------ whatever happens
def test_messages_arrive_once_and_in_order_whatever_happens() -> None:
    ways = Counter[str]()
    for seed in range(SEEDS):
        try:
            ways += simulated(seed).mail
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert min(ways["by hand"], ways["in the log"]) > SEEDS * 5


MUTANTS = [
    Mutant("open from the first", Post, "take", " and tp in self.open", ""),
    Mutant("it never closes", Post, "close", "self.open.clear()", "pass"),
    Mutant("only the first is waited for", Post, "_wrote", "max(self._until[tp], offset)", "max(0, self._until[tp])"),
    Mutant("what was spilt may be passed by", Post, "spill", "self.open.discard(tp)", "pass"),
    Mutant("aborted mail is delivered", Loop, "_forget_transaction", "self.post.forget()", "pass"),
    Mutant("aborted reading counts", Loop, "_forget_transaction", "self.post.close(self.owners)", "pass"),
    Mutant("new tasks change nothing", Loop, "_adopt_restored", "self.post.close(self.owners)",
           "self.post.open or self.post.close(self.owners)"),
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.what)
def test_a_guard_taken_away_is_noticed(mutant: Mutant) -> None:
    with mutant.at_work():
        for seed in range(400):
            try:
                simulated(seed)
            except Exception:
                return
    raise AssertionError(f"nobody noticed: {mutant.what}")

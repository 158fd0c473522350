"""An agent whose output may leave only while its gate is open: nothing of it is seen before, and all of it once after."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from c360.engine.agent import Outbox, Task
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Batch, Cluster
from c360.errors import BrokerAway, C360Error, OutcomeUnknown, Shut, TaskMigrated, TransactionAborted
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import Crash, FaultyCluster, FaultyStores, Later
from c360.testing.simulation import Simulation
from tests.engine.test_crash import die, every_step
from tests.engine.toy import OFTEN, REMIND, REMIND_MS, Counting, Toy, World
from tests.mutant import Mutant

NOW = replace(OFTEN, shut_s=0.0, shut_most_s=0.0)
LATE = LoopSettings(commit_s=3600.0, commit_share=0.0, away_s=0.0, shut_s=0.0, shut_most_s=0.0)


class Guarded(Counting):
    toy: Door

    def resume(self, notes: Mapping[str, Any]) -> None:
        super().resume(notes)
        self.toy.made.clear()
        self.toy.reminds = False

    def process(self, batch: Batch, out: Outbox) -> None:
        if self.toy.refuses == "process":
            self.toy.ask()
        super().process(batch, out)
        self.toy.made += batch.offsets

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.toy.refuses == "finish" and self.toy.made:
            self.toy.ask()
        self.toy.reminds = self.toy.reminds or self.wants(now_ms)
        super().finish(positions, now_ms, out)


@dataclass
class Door(Toy):
    """The toy behind a gate. `refuses`: who asks whether it is open."""

    shut: Callable[[], bool] = lambda: False
    refuses: str = "gate"
    asked: int = 0
    made: list[int] = field(default_factory=list)  # of which records, since the last commit or abort
    reminds: bool = False  # since then
    steps: list[str] = field(default_factory=list)

    def gate(self) -> None:
        self.steps.append("gate")
        if self.refuses == "gate":
            self.ask()
        self.made.clear()
        self.reminds = False

    def ask(self) -> None:
        self.asked += 1
        if self.shut():
            raise Shut("closed", "the door is closed; wait")

    def processor(self, task: Task) -> Guarded:
        return Guarded(self, self.clock)


def behind_a_door(**how: Any) -> tuple[World, Door]:
    door = Door(**how)
    return World(MemoryCluster(), door), door


def watched(world: World, door: Door) -> Cluster:
    """The steps of its transactions are noted."""

    def note(step: str) -> None:
        door.steps.append(step)

    return FaultyCluster(world.cluster, note)


def turn(loop: Loop, times: int = 20) -> None:
    for _ in range(times):
        loop.turn(0.0)


# ============================================================================================================ what it is
def test_the_gate_is_asked_last_when_nothing_but_the_decision_is_left() -> None:
    world, door = behind_a_door()
    world.feed_all()
    world.until(world.idle, world.loop(MemoryStores(), cluster=watched(world, door)))
    commits = [i for i, step in enumerate(door.steps) if step == "before commit"]
    assert commits
    assert {tuple(door.steps[i - 2 : i]) for i in commits} == {("after offsets", "gate")}
    world.check()


@pytest.mark.parametrize("refuses", ["gate", "finish", "process"])
@pytest.mark.parametrize("settings", [NOW, LATE], ids=["often", "late"])
def test_behind_a_shut_gate_nothing_is_seen_and_then_all_of_it_once(refuses: str, settings: LoopSettings) -> None:
    shut = True
    world, door = behind_a_door(shut=lambda: shut, refuses=refuses)
    world.feed_all(3)
    loop = world.loop(MemoryStores(), settings=settings)
    turn(loop)
    world.until(lambda: loop.shut, loop)  # else its transaction is open, and readers wait
    assert door.asked > 1
    assert (world.said(), world.logged()[1], world.group()) == ({}, {}, {})
    assert loop.metrics.commits == 0
    shut = False
    world.until(world.idle, loop)
    world.check()
    assert loop.shut is None


def test_while_it_is_shut_no_record_is_read_again_and_the_gate_is_asked_in_peace() -> None:
    shut = True
    world, door = behind_a_door(shut=lambda: shut)
    world.feed_all(3)
    loop = world.loop(MemoryStores(), settings=replace(OFTEN, shut_s=3600.0))
    world.until(lambda: loop.shut, loop)
    read, asked = len(door.batches), door.asked
    turn(loop, 50)
    assert (len(door.batches), door.asked) == (read, asked), "not before its time"
    assert loop.shut is not None
    loop.settings = replace(loop.settings, shut_s=0.0)
    loop.shut.ask = 0.0
    world.feed_all()
    turn(loop, 50)
    assert len(door.batches) == read, "nothing is folded in vain"
    assert door.asked == asked + 50
    assert loop.metrics.recoveries == {"Shut": 1}
    assert loop.shut_s > 0
    shut = False
    world.until(world.idle, loop)
    world.check()
    assert loop.shut_s == 0


def test_what_opens_when_asked_and_shuts_on_what_is_made_is_tried_ever_more_seldom() -> None:
    world, door = behind_a_door()
    door.shut = lambda: bool(door.made)
    world.feed_all()
    loop = world.loop(MemoryStores(), settings=replace(OFTEN, shut_s=0.001, shut_most_s=3600.0))
    pauses: list[float] = []
    while len(pauses) < 6:
        loop.turn(0.0)
        if loop.shut is not None and loop.shut_in_a_row > len(pauses):
            pauses.append(loop.shut.ask - loop.shut.since)
    assert pauses == pytest.approx([0.001 * 2**n for n in range(6)])
    door.shut = lambda: False
    world.until(world.idle, loop)
    world.check()
    assert loop.shut_in_a_row == 0


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "c360.engine")
    world, _ = behind_a_door(shut=lambda: True)
    world.feed_all()
    turn(world.loop(MemoryStores(), settings=NOW))
    assert [r.message for r in caplog.records if "closed" in r.message] == [
        "toy: nothing leaves (closed): the door is closed; wait; waiting"
    ]


def test_what_takes_back_may_pass_a_gate_that_is_shut_for_all_else() -> None:
    """A reminder is due: no input moves for it, and it is said although what was read waits."""
    world, door = behind_a_door()
    world.feed("r", value=REMIND)
    loop = world.loop(MemoryStores(), settings=NOW)
    world.until(world.idle, loop)
    before = world.group()
    door.shut = lambda: bool(door.made) or not door.reminds
    world.feed_all()
    world.until(lambda: loop.shut, loop)
    turn(loop)
    door.clock.ms += REMIND_MS
    world.until(lambda: b"reminder" in world.said(), loop)
    assert world.group() == before
    door.shut = lambda: False
    world.until(world.idle, loop)
    assert world.said().pop(b"reminder") == [1]


def test_an_agent_may_have_a_pace_of_its_own() -> None:
    class Hurried(Toy):
        def settings(self, given: LoopSettings) -> LoopSettings:
            return replace(given, behind_s=min(given.behind_s, 0.2))

    for toy, behind_s in ((Hurried(), 0.2), (Toy(), 6.0)):
        world = World(MemoryCluster(), toy)
        loop = world.loop(MemoryStores(), settings=LoopSettings(commit_records=7))
        assert (loop.settings.behind_s, loop.settings.commit_records) == (behind_s, 7)
        loop.close()


# ====================================================================================================== ends of all kinds
def test_a_stop_while_it_is_shut_leaves_at_once_and_leaves_nothing() -> None:
    world, _ = behind_a_door(shut=lambda: True)
    world.feed_all()
    for settings in (NOW, LATE):
        loop = world.loop(MemoryStores(), settings=settings)
        turns = iter([False] * 5)
        loop.run(lambda turns=turns: next(turns, True))  # type: ignore[misc]
        assert world.said() == {}
    assert world.cluster.admin().group_members("toy.group") == 0


def test_a_stop_with_work_in_hand_that_may_not_leave_aborts_it() -> None:
    shut = True
    world, door = behind_a_door(shut=lambda: shut)
    loop = world.loop(MemoryStores(), settings=LATE)
    world.until(lambda: len(loop.owners) == 3, loop)
    world.feed_all()
    loop.turn(0.0)
    assert loop.uncommitted
    assert not loop.commit_or_abort()
    loop.close()
    assert (world.said(), world.group()) == ({}, {})
    shut = False
    world.until(world.idle, world.loop(MemoryStores(), settings=NOW))
    world.check()
    assert door.asked > 1


@pytest.mark.parametrize("settings", [NOW, LATE], ids=["often", "late"])
def test_a_rebalance_while_it_is_shut_moves_the_tasks_and_nothing_else(settings: LoopSettings) -> None:
    shut = True
    world, _ = behind_a_door(shut=lambda: shut)
    first = world.loop(MemoryStores(), slot="0", settings=settings)
    world.feed_all(2)
    world.until(lambda: first.shut, first)
    second = world.loop(MemoryStores(), slot="1", settings=settings)
    world.until(lambda: len(second.tasks) == 1 and second.shut, second, first)
    assert first.shut
    assert len(first.tasks) == 2
    assert (world.said(), world.group()) == ({}, {})
    first.close()
    world.until(lambda: len(second.tasks) == 3, second)
    turn(second)
    assert world.said() == {}
    shut = False
    world.until(world.idle, second)
    world.check()


def test_a_partition_that_is_to_go_goes_also_with_work_that_may_not_leave() -> None:
    shut = True
    world, _ = behind_a_door(shut=lambda: shut)
    first = world.loop(MemoryStores(), slot="0", settings=replace(LATE, shut_s=3600.0))
    world.until(lambda: len(first.owners) == 3, first)
    world.feed_all()
    first.turn(0.0)
    assert first.uncommitted == 9
    second = world.loop(MemoryStores(), slot="1", settings=LATE)
    world.until(lambda: len(second.owners) == 1 and second.shut, second, first)
    assert first.metrics.recoveries == {"Shut": 1}
    assert first.shut is not None
    assert world.said() == {}
    shut, first.shut.ask = False, 0.0
    world.until(world.idle, first, second)
    world.check()


def shut_often(door: Door) -> Callable[[], bool]:
    """Shut for two of three questions that are asked with something made."""
    return lambda: bool(door.made) and door.asked % 3 != 0


@pytest.mark.parametrize("settings", [NOW, replace(LATE, commit_records=5)], ids=["often", "late"])
def test_a_process_may_end_at_any_step_of_a_gate_that_shuts(settings: LoopSettings) -> None:
    for plan in every_step(Crash):
        world, door = behind_a_door()
        door.shut = shut_often(door)
        world.feed_all(2)
        stores = MemoryStores()
        loop = world.loop(FaultyStores(stores, plan), cluster=FaultyCluster(world.cluster, plan), settings=settings)
        try:
            world.until(world.idle, loop)
        except Crash:
            die(world, loop)
        world.until(world.idle, world.loop(stores, settings=settings))
        world.check()


@pytest.mark.parametrize("error", [TransactionAborted, TaskMigrated, BrokerAway, OutcomeUnknown])
def test_an_error_at_any_step_of_a_gate_that_shuts_is_mended(error: type[C360Error]) -> None:
    steps = ("before abort", "after abort") if error is OutcomeUnknown else ("before produce", "before offsets")
    for plan in every_step(lambda: error("injected"), *steps):
        world, door = behind_a_door()
        door.shut = shut_often(door)
        world.feed_all(2)
        loop = world.loop(MemoryStores(), cluster=FaultyCluster(world.cluster, plan), settings=NOW)
        world.until(world.idle, loop)
        world.check()
        loop.close()


# ===================================================================================================== whatever happens
class DoorStage:
    """The toy behind a gate that opens and shuts as the dice say."""

    def __init__(self, seed: int) -> None:
        self.cluster = MemoryCluster()
        self.door = Door()
        self.world = World(self.cluster, self.door)
        self.dice = random.Random(f"gate {seed}")
        self.calm = False
        self.door.shut = self.shut
        self.commits = self.shuts = 0

    def shut(self) -> bool:
        found = not self.calm and self.dice.random() < 0.6
        self.shuts += found
        return found

    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        return [self.world.loop(stores, slot=slot, cluster=cluster, settings=settings, executor=Later())]

    def feed(self, dice: random.Random) -> None:
        tp = dice.choice(self.world.tps)
        self.world.feed(*dice.choices("abcd", k=dice.randint(1, 9)), partition=tp.partition)

    def changelogs(self) -> Sequence[str]:
        return [self.door.log]

    def idle(self) -> bool:
        self.calm = True
        return self.world.idle()

    def check(self) -> None:
        self.world.check()


def simulated(seed: int) -> int:
    stage = DoorStage(seed)
    Simulation(stage, seed).run(400)
    return stage.shuts


def test_whatever_happens_to_it_everything_is_counted_once() -> None:
    assert sum(map(simulated, range(40))) > 1000


MUTANTS = [
    Mutant("what was made stays", Loop, "_shut_out", "self._abort_and_rewind()", "self._abort_quietly()"),
    Mutant("reading does not begin again", Loop, "_try_gate", "self.consumer.fetch(task.base)", "pass"),
    Mutant("its answer is not looked at", Loop, "commit", "self.gate()", "pass"),
    Mutant("only some commits ask", Loop, "commit", "if self.gate is not None:", "if self.gate and not self.uncommitted:"),
]  # fmt: skip


def behind_a_shut_gate() -> None:
    for refuses in ("gate", "finish"):
        test_behind_a_shut_gate_nothing_is_seen_and_then_all_of_it_once(refuses, NOW)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.what)
def test_a_guard_taken_away_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.engine.toy.DEADLINE_S", 1.0)
    with mutant.at_work(), pytest.raises((AssertionError, IndexError)):
        behind_a_shut_gate()

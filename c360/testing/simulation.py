"""Workers that come, hang, die and return while errors rain, in one thread, from one seed.

The production loops run on an in-memory log and stores whose calls may fail at any step. A process is a slot's loops
with one disk; it may be killed between any two steps, lose its disk, hang for longer than its session and wake up as a
zombie beside its successor. At the end the faults stop, everything comes to rest, and the stage says whether all is right.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Cluster
from c360.errors import BrokerAway, Fenced, OutcomeUnknown, TaskCorrupted, TaskMigrated, TransactionAborted
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import Crash, FaultyCluster, FaultyStores, Later

SLOTS = ("0", "1", "2")
LOOPS = (
    3  # of a process, of which one has a turn in a step; of more, more have, as else they would die before they commit
)
REST_ROUNDS = 10_000
MAY_FAIL: dict[str, tuple[type[BaseException], ...]] = {
    "before producer": (BrokerAway,),
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


class Stage(Protocol):
    """What is simulated: its log, its loops, what comes in, and what must be so in the end."""

    @property
    def cluster(self) -> MemoryCluster: ...

    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        """One process's loops, each with an executor `Later` of its own."""

    def feed(self, dice: random.Random) -> None:
        """Append some records, or let time pass."""

    def changelogs(self) -> Sequence[str]: ...

    def idle(self) -> bool: ...

    def check(self) -> None:
        """Raises AssertionError."""


@dataclass(eq=False)
class Process:
    """The loops of one slot, until they die."""

    slot: str
    loops: Sequence[Loop]


class Simulation:
    """One seed on one stage: `run` it, or `step` and `end`."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.dice = random.Random(seed)
        self.fault_rate = self.dice.choice((0.0, 0.002, 0.01))
        self.processes: dict[str, Process] = {}
        self.zombies: list[Process] = []  # replaced in their slot, and not aware of it
        self.disks: dict[str, MemoryStores] = {}
        self.calm = False
        self.happened: Counter[str] = Counter()
        self.reached: dict[str, dict[TP, int]] = {}

    def run(self, steps: int) -> None:
        """Raises AssertionError where something was lost, doubled or moved back; NeedsOperator if a worker gave up."""
        for _ in range(steps):
            self.step()
        self.end()
        self.stage.check()

    # -------------------------------------------------------------------------------------------------------- faults
    def _plan(self, step: str) -> BaseException | None:
        if self.calm or self.dice.random() >= self.fault_rate or step not in MAY_FAIL:
            return None
        if self.dice.random() < 0.3:
            return Crash()
        error = self.dice.choice(MAY_FAIL[step])
        self.happened[error.__name__] += 1
        return error("injected")

    def start(self, slot: str) -> None:
        stores = self.disks.setdefault(slot, MemoryStores())
        settings = LoopSettings(
            batch_records=self.dice.choice((1, 7, 1000)),
            commit_s=self.dice.choice((0.0, 3600.0)),
            commit_share=0.0,
            behind_s=0.0,
            commit_records=30,
            mail_records=self.dice.choice((0, 3, 1000)),
            away_s=0.0,
            abandoned_s=0.0,  # its measure is real time
            standby=self.dice.random() < 0.15,
            standby_s=0.0,
            shut_s=0.0,
            shut_most_s=0.0,
            store_tries=1_000_000,  # here disks fail as often as the dice say
        )
        cluster = FaultyCluster(self.stage.cluster, self._plan)
        try:
            loops = self.stage.loops(cluster, FaultyStores(stores, self._plan), slot, settings)
        except BrokerAway:  # it will be started again
            return
        self.processes[slot] = Process(slot, loops)

    def _gone(self, process: Process) -> None:
        """The process has ended: its sessions run out, and so do its transactions."""
        for loop in process.loops:
            self.stage.cluster.expire(loop.consumer)
            self._time_out(loop)

    def _time_out(self, loop: Loop) -> None:
        """A transaction that nobody will end ends; the others would wait for it, in this one thread."""
        self.stage.cluster.producer(loop.transactional_id)

    # --------------------------------------------------------------------------------------------------------- steps
    def step(self) -> None:
        """One thing happens."""
        dice, slot = self.dice, self.dice.choice(SLOTS)
        process = self.processes.get(slot)
        match dice.random():
            case x if x < 0.15:
                self.stage.feed(dice)
            case x if x < 0.50 and process is None:
                self.start(slot)
            case x if x < 0.17 and process is not None:
                self._stop(process)
            case x if x < 0.18 and process is not None:
                self.happened["killed"] += 1
                self._gone(self.processes.pop(slot))
            case x if x < 0.19 and process is not None:
                self.happened["hung"] += 1
                self._expire(process)
            case x if x < 0.195 and process is not None:
                self._replace(process)
            case x if x < 0.55 and process is None:
                self.happened["disk lost"] += self.disks.pop(slot, None) is not None
            case x if x < 0.20:
                for topic in self.stage.changelogs():
                    self.stage.cluster.compact(topic)
            case x if x < 0.22 and self.zombies:
                self._wake(dice.choice(self.zombies))
            case _ if process is not None:
                self._turns(process, max(1, round(len(process.loops) / LOOPS)))

    def _turns(self, process: Process, count: int) -> None:
        """So many of its loops have a turn, unless it dies of one."""
        for _ in range(count):
            if self.processes.get(process.slot) is process:
                self._turn(process)

    def _expire(self, process: Process) -> None:
        for loop in process.loops:
            self.stage.cluster.expire(loop.consumer)

    def _replace(self, process: Process) -> None:
        """It hangs; another is started in its slot, on a copy of its disk, as a disk is one process's."""
        self.happened["zombie"] += 1
        self.zombies.append(self.processes.pop(process.slot))
        self.disks[process.slot] = deepcopy(self.disks[process.slot])
        self._expire(process)
        self.start(process.slot)

    def _stop(self, process: Process) -> None:
        for loop in process.loops:
            try:
                loop.commit_or_abort()
                loop.close()
            except (Crash, Fenced):
                break
        self._gone(self.processes.pop(process.slot))

    def _turn(self, process: Process) -> None:
        loop = self.dice.choice(process.loops)
        try:
            if self.calm or self.dice.random() < 0.5:
                _later(loop).work()
            loop.turn(0.0)
        except (Crash, Fenced) as end:  # fenced: a zombie met an unknown outcome, and took the slot back
            self.happened[type(end).__name__] += 1
            self._gone(self.processes.pop(process.slot))
        else:
            if loop.producer is None:
                self._time_out(loop)
        self._look(loop)

    def _look(self, loop: Loop) -> None:
        """Committed positions never go back."""
        group = loop.agent.group
        now, before = self.stage.cluster.admin().group_offsets(group), self.reached.get(group, {})
        assert all(now.get(tp, -1) >= offset for tp, offset in before.items()), f"{group} moved back: {before} → {now}"
        self.reached[group] = now

    def _wake(self, zombie: Process) -> None:
        """It may read, and try; it may not write."""
        loop = self.dice.choice(zombie.loops)
        try:
            _later(loop).work()
            loop.turn(0.0)
        except (Fenced, Crash) as end:
            self.happened[f"zombie: {type(end).__name__}"] += 1
            self.zombies.remove(zombie)
            self._gone(zombie)
        else:
            if loop.producer is None:
                self._time_out(loop)

    def end(self) -> None:
        """No more faults; everybody works until everything has come to rest."""
        self.calm = True
        for zombie in self.zombies:
            self._gone(zombie)
        self.stage.feed(self.dice)
        for _ in range(REST_ROUNDS):
            for slot in SLOTS:
                if slot not in self.processes:
                    self.start(slot)
                self._turns(self.processes[slot], len(self.processes[slot].loops))
            if self.stage.idle():
                return
        raise AssertionError("it did not come to rest")


def _later(loop: Loop) -> Later:
    assert isinstance(loop.executor, Later)
    return loop.executor

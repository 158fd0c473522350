"""`simulate(app, seed)`: an app's own agents under a seeded schedule of records, faults and deaths, then the oracle."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from c360.agents.wire import ConsentCommand, Question, decode_question, encode
from c360.app import App
from c360.assembly import Shared, agents_of, governance_of, tellers_of
from c360.engine.agent import Agent
from c360.engine.global_table import GlobalTable
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.governance.purposes import Purpose
from c360.identity.facts import Claim, cannot, encode_fact, link
from c360.ops import topics
from c360.ops.keys import vault_in_memory
from c360.ops.load import RawRecord
from c360.ops.progress import at_rest
from c360.outside import Outside
from c360.plan import OPERATOR, Plan
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import Later
from c360.testing.records import Maker
from c360.testing.simulation import Simulation

STEPS = 200
OPERATED = 0.05  # of the times that records come, an operator says something, too
WITHHELD, TWICE, DECIDED = 0.8, 0.1, 0.5  # of questions; of those withheld; and of the times that there were some
RAW_PARTITIONS = 2
START_MS = 1_793_610_000_000  # 2026-11-02T09:00:00Z
PAUSES_MS = (0, 1, 50, 1_000, 60_000, 3_600_000, 86_400_000)

Records = Callable[[int], RawRecord]
"""The next record of a raw topic, for a time in epoch milliseconds."""


@dataclass(frozen=True)
class Simulated:
    """What happened under one seed."""

    seed: int
    records: int
    happened: dict[str, int]  # faults and deaths, by name


class Served(Loop):
    """A loop that turns its process's copy before itself: one thread, and whoever dies takes the others along.

    `log`: without faults, for what tells how far it is.
    """

    def __init__(self, *args: Any, table: GlobalTable | None, log: Cluster, **how: Any) -> None:
        super().__init__(*args, **how)
        self.table, self.tellers = table, tellers_of([self], log, every_s=0.0, pass_s=0.0)

    def turn(self, timeout_s: float) -> int:
        if self.table is not None:
            self.table.turn()
        done = super().turn(timeout_s)
        for teller in self.tellers:
            teller.turn()
        return done


class AppStage:
    """An app on an in-memory log whose clock moves with its records."""

    def __init__(self, plan: Plan, records: Records, subject: Callable[[], str] | None = None) -> None:
        """`subject`: gives one that operators say something about; None: they say nothing."""
        self.plan, self.next_record, self.subject = plan, records, subject
        self.now_ms, self.records = START_MS, 0
        self.called: dict[TP, int] = {}  # questions below it were taken up
        self.questions: list[Question] = []
        self.cluster = MemoryCluster(now_ms=self._now, quiet_s=0.0)
        self.admin, self.reader, self.producer = self.cluster.admin(), self.cluster.reader(), self.cluster.producer()
        self.admin.create([TopicSpec(topic.name, RAW_PARTITIONS) for topic in plan.topics if not topic.owned])
        topics.apply(plan, self.admin)
        self.vault = vault_in_memory(plan, self.cluster, random.Random(0).randbytes)
        unread = governance_of(plan, self.cluster, MemoryStores(), self._now)  # of agents that are only looked at
        self.agents: list[Agent] = agents_of(
            plan, self.admin, shared=Shared(self.cluster, unread, self.vault, self._now)
        )

    def _now(self) -> int:
        return self.now_ms

    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        table = governance_of(self.plan, cluster, stores, self._now, monotonic=lambda: self.now_ms / 1000, look_s=0.0)
        shared = Shared(cluster, table, self.vault, self._now, inputs_s=0.0)
        names = {agent.name for agent in self.agents}
        agents = (
            [a for a in agents_of(self.plan, self.admin, shared=shared) if a.name in names] if table else self.agents
        )
        return [
            Served(
                agent,
                cluster,
                stores,
                slot=slot,
                clock=self._now,
                settings=settings,
                executor=Later(),
                table=table,
                log=self.cluster,
            )
            for agent in agents
        ]

    def feed(self, dice: random.Random) -> None:
        self.now_ms += dice.choice(PAUSES_MS)
        for _ in range(dice.randint(1, 6)):
            record = self.next_record(self.now_ms)
            self.producer.produce(record.topic, record.key, record.value, None, record.headers, timestamp=self.now_ms)
            self.records += 1
        if self.plan.identities and self.subject is not None and dice.random() < OPERATED:
            self._operate(dice, self.subject(), self.subject())
        for outside in self.plan.outsides:
            if outside.purpose is not None and outside.purpose.asks:
                self._call(dice, outside, outside.purpose)
        self.producer.flush()

    def _call(self, dice: random.Random, outside: Outside, purpose: Purpose) -> None:
        """In place of who calls: some questions were answered, most withheld; then people decide, of whom some were asked."""
        topic = self.plan.questions(outside)
        starts = self.reader.starts([TP(topic, p) for p in range(self.plan.partitions)]) | self.called
        asked = {tp: start for tp, start in starts.items() if tp.topic == topic}
        for batches in self.reader.read(asked):
            if not batches:  # the rest is in a transaction that is open
                break
            for batch in batches:
                self.called[batch.tp] = batch.offsets[-1] + 1
                self.questions += [decode_question(value) for value in batch.values if value is not None]
                for value in batch.values:
                    for _ in range((dice.random() < WITHHELD) + (dice.random() < TWICE)):
                        key = decode_question(value or b"").subject.encode()
                        self.producer.produce(self.plan.withheld(outside), key, value)
        if self.questions and dice.random() < DECIDED:
            label = dice.choice(dice.choice(self.questions).labels)
            ends = dice.choice((None, None, self.now_ms + dice.choice(PAUSES_MS[3:])))
            said = ConsentCommand(
                identifier=label,
                purpose=purpose.name,
                status=dice.choice(("granted", "granted", "denied", "withdrawn")),
                at=self.now_ms,
                expires_at=ends,
            )
            self.producer.produce(self.plan.consent_commands, label.encode(), encode(said), 0, timestamp=self.now_ms)

    def _operate(self, dice: random.Random, one: str, two: str) -> None:
        """An operator says of two subjects that they are one customer, or not, or takes that back."""
        if one == two:
            return
        claim = Claim(self.now_ms, dead=dice.random() < 0.3, first_seen=self.now_ms)
        case = f"{OPERATOR}:case-{dice.randrange(3)}"
        apart = cannot(min(one, two), max(one, two), "operator", claim)
        facts = [apart] if dice.random() < 0.5 else [link(s, case, "operator", claim) for s in (one, two)]
        for fact in facts:
            key, value = encode_fact(fact)
            place = partition_of(fact.subject.encode(), self.plan.partitions)
            self.producer.produce(self.plan.links, key, value, place, timestamp=self.now_ms)

    def changelogs(self) -> Sequence[str]:
        return [topic for agent in self.plan.agents for topic in agent.changelogs]

    def idle(self) -> bool:
        return at_rest(self.plan, self.admin, self.reader, [agent.name for agent in self.agents])

    def check(self) -> None:
        from c360.ops.verify import verify  # here: it imports the oracle, which lives beside this module

        report = verify(
            self.plan, self.cluster, [agent.name for agent in self.plan.agents], vault=self.vault, clock=self._now
        )
        assert not report.differences, report.to_text()
        assert report.complete, report.to_text()


def simulate(
    app: App, seed: int, *, steps: int = STEPS, records: Callable[[random.Random], Records] | None = None
) -> Simulated:
    """Run an app's agents through one seed's schedule, and recompute in the end what they should have made.

    The schedule: crashes between any two steps, lost sessions, zombies that wake up, lost disks, failed and unknown
    outcomes of commits, failing produce, reads and writes; time passes. `records` makes the source of records from the
    seed's dice; by default they are made up from the declared types. The same seed gives the same run, with one value
    of PYTHONHASHSEED. Raises AssertionError with the differences; whatever else ends a worker is raised as it is.
    """
    plan, dice = app.plan(), random.Random(f"records {seed}")
    maker = Maker(plan, dice)
    stage = AppStage(plan, maker.record if records is None else records(dice), maker.subject)
    simulation = Simulation(stage, seed)
    simulation.run(steps)
    return Simulated(seed, stage.records, dict(simulation.happened))

"""Doors under faults: workers come, hang, die and return, agents stop, clocks move, and who has said no is never delivered.

`python -m tests.governance.door_runs [--runs N] [--from SEED]`

Two checkers look from outside. One reads every commit at its start, which is the time of delivery: at that moment, by all that
was appended to the raw inputs more than `fence_max_age` before, and by whatever later words a copy may have had, might it
leave? The other compares what the far side holds in the end with what should be there, by an oracle that knows no rule but
those of the design.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from c360 import App, Projection, Record, newest
from c360.assembly import Shared, agents_of, governance_of
from c360.engine.global_table import GlobalTable
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster, MemoryProducer
from c360.engine.transport import TP, Cluster, Producer, TopicSpec
from c360.errors import C360Error
from c360.governance.consent import Decision, State, Status, encode_state, join
from c360.governance.fence import Place, Statement, encode_statement, statement_key
from c360.governance.suppressed import Hold, Suppressed, encode_suppressed
from c360.ops import keys, topics
from c360.plan import Plan
from c360.tables.store import MemoryStores, Stores
from c360.testing.faults import Later
from c360.testing.simulation import Simulation
from tests.governance.door_shop import inputs_of
from tests.seeds import run_seeds

AGE_MS = 1000  # fence_max_age
STEPS = 250
BEGAN_MS = 1_700_000_000_000
PROFILES, COOKIES = 6, 5
NEVER = 1 << 62


def _app() -> App:
    app = App("doors", partitions=2)

    @app.identifier("crm", priority=1)
    class CrmId(str): ...

    service, marketing = app.purpose("service", basis="contract"), app.purpose("marketing")

    @app.source("clicks", event_id="id", key=CrmId, purposes=[service, marketing])
    class Click(Record):
        id: str
        about: str

    @app.projection("customer", purposes=[service, marketing])
    class Profile(Projection):
        about: str | None = newest(Click.about)

    @app.erasure("requests")
    class Forget(Record):
        id: CrmId

    @app.sink("crm-sync", projection=Profile, purpose=marketing)
    def crm_sync(profile: Profile) -> dict[str, Any]:
        return {"about": profile.about}

    return app


class Word(NamedTuple):
    """What stands in a raw input, appended at `ms`: a decision, or, None, a suppression or its lift."""

    ms: int
    label: str
    decision: Decision | None
    lift: bool = False


class Watched(MemoryProducer):
    """Its transactions are looked at when they begin to commit; and something may happen right before."""

    def __init__(self, cluster: Log, transactional_id: str | None) -> None:
        super().__init__(cluster, transactional_id)
        self.log, self.said = cluster, list[tuple[str, bytes | None, bytes | None]]()

    def begin(self) -> None:
        super().begin()
        self.said = []

    def produce(self, topic: str, key: bytes | None, value: bytes | None, *more: Any, **named: Any) -> None:
        self.said.append((topic, key, value))
        super().produce(topic, key, value, *more, **named)

    def send_offsets(self, offsets: Mapping[TP, int], group: Any) -> None:
        super().send_offsets(offsets, group)
        self.log.stage.meanwhile()

    def commit(self) -> None:
        self._open()
        self.log.stage.delivered(self.said)
        super().commit()


class Log(MemoryCluster):
    """Tells the stage of every commit."""

    stage: DoorStage

    def producer(self, transactional_id: str | None = None) -> Producer:
        if transactional_id is None:
            return super().producer()
        with self.lock:
            if before := self._producers.get(transactional_id):
                before.fence()
            made = self._producers[transactional_id] = Watched(self, transactional_id)
        return made


class DoorStage:
    """Two doors of one purpose that asks, one of a purpose that does not; their inputs, and both agents, played by the test."""

    def __init__(self, seed: int, app: App | None = None) -> None:
        self.dice = random.Random(seed)
        self.now_ms = BEGAN_MS
        self.plan: Plan = (app or _app()).plan()
        self.doors = [door for door in self.plan.doors if app is None or door.sink is not None]
        self.cluster = Log(now_ms=lambda: self.now_ms, quiet_s=0.0)
        self.cluster.stage = self
        self.held: dict[str, dict[bytes, bytes]] = {self.plan.leaves(door): {} for door in self.doors}
        self.purpose = {self.plan.leaves(door): door.purpose for door in self.doors}
        admin = self.cluster.admin()
        admin.create([TopicSpec(topic.name, 2) for topic in self.plan.topics if not topic.owned])
        topics.apply(self.plan, admin)
        self.vault = keys.vault_in_memory(self.plan, self.cluster, random.Random(0).randbytes)
        assert self.vault is not None
        self.veil = self.vault.names.veil
        self.writer = self.cluster.producer()
        self.raw: list[Word] = []  # all that was ever said
        self.done = self.worked = 0  # so many of them the agents have read; and worked on
        self.running = True
        self.states: dict[str, State] = {}
        self.suppressed: dict[str, Suppressed] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.tables: list[GlobalTable] = []
        self.happened: Counter[str] = Counter()
        self.busy = False
        self.rest = 0

    # -------------------------------------------------------------------------------------------------------- a worker
    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        shared = self.shared()
        agents = agents_of(self.plan, cluster.admin(), [door.agent for door in self.doors], shared=shared)
        return [
            Loop(agent, cluster, stores, slot=slot, clock=self._clock, settings=settings, executor=Later())
            for agent in agents
        ]

    def shared(self) -> Shared:
        """What a process has."""
        table = governance_of(self.plan, self.cluster, MemoryStores(), self._clock, monotonic=self._clock_s, look_s=0.0)
        assert table is not None
        table.kept = self.dice.choice((3, 100_000))  # then it cannot say what has changed, and all is to be looked at
        self.tables.append(table)
        return Shared(self.cluster, table, self.vault, self._clock, fence_max_age_ms=AGE_MS, inputs_s=0.0)

    def _clock(self) -> int:
        return self.now_ms

    def _clock_s(self) -> float:
        return self.now_ms / 1000

    def changelogs(self) -> Sequence[str]:
        return [f"{topic}.changelog" for topic in self.held]

    # ---------------------------------------------------------------------------------------------------- what happens
    def feed(self, dice: random.Random) -> None:
        for _ in range(dice.randrange(1, 4)):
            self._one(dice)

    def _one(self, dice: random.Random) -> None:
        match dice.randrange(12):
            case 0 | 1 | 2:
                self._project(dice)
            case 3 | 4:
                self._say(dice)
            case 5 | 6 | 7:
                self._work(dice)
            case 8 | 9:
                self._follow(dice)
            case 10:
                self.now_ms += dice.choice((1, 30, 300, 700, 1500))
            case 11:
                self.running = dice.random() < 0.7
                self.happened["agents stopped"] += not self.running

    def meanwhile(self) -> None:
        """Between a decision and the question whether it may leave."""
        if self.busy or self.dice.random() < 0.6:
            return
        self.busy = True
        for _ in range(self.dice.randrange(3)):
            self._say(self.dice)
        if self.dice.random() < 0.5:
            self.now_ms += self.dice.choice((1, 400, 1001, 1500))
        if self.dice.random() < 0.6:
            self._work(self.dice)
            for table in self.tables:
                table.turn()
        self.busy = False

    def _project(self, dice: random.Random) -> None:
        who = f"crm:{dice.randrange(PROFILES)}"
        if dice.random() < 0.1:
            self.records.pop(who, None)
            self._write(self.plan.projected(self.plan.projections[0]), who, None)
            return
        labels = sorted({who, *(f"cookie:{dice.randrange(COOKIES)}" for _ in range(dice.randrange(3)))})
        record: dict[str, Any] = {
            "profile_id": who,
            "projection": "customer",
            "version": 1,
            "purpose": None,
            "subjects": labels,
            "subjects_total": len(labels),
            "identifiers": labels,
            "attributes": {"about": f"{' '.join(labels)} {dice.randrange(4)}"},
            "as_of": None,
        }
        if dice.random() < 0.1:
            record["views"] = {"marketing": None}
        self.records[who] = record
        self._write(self.plan.projected(self.plan.projections[0]), who, json.dumps(record).encode())

    def _say(self, dice: random.Random) -> None:
        label = dice.choice([f"crm:{dice.randrange(PROFILES)}", f"cookie:{dice.randrange(COOKIES)}"])
        if dice.random() < 0.12:
            self.raw.append(Word(self.now_ms, label, None, lift=dice.random() < 0.6))
            return
        status: Status = dice.choice(("granted", "granted", "granted", "denied", "withdrawn"))
        ends = self.now_ms + dice.randrange(3000) if dice.random() < 0.3 else None
        at = self.now_ms - dice.choice((0, 0, 0, 1, 5000))
        self.raw.append(Word(self.now_ms, label, Decision(label, "marketing", status, at, "test", ends)))

    def _work(self, dice: random.Random) -> None:
        """The agents, if they run: some of what was said, and perhaps a statement of how far they are."""
        if not self.running:
            return
        self.done = min(len(self.raw), self.done + dice.choice((0, 1, 2, 100)))
        for word in self.raw[self.worked : self.done]:
            if word.decision is not None:
                join(self.states.setdefault(word.label, {}), word.decision)
                self._write(self.plan.consent, word.label, encode_state(self.states[word.label]))
            else:
                self.suppressed[word.label] = said = _suppressed_by(self.suppressed.get(word.label), word)
                self._write(self.plan.suppressed, self.veil(word.label), encode_suppressed(said))
                self.has_suppressed(word.label, said)
        self.worked = self.done
        if dice.random() < 0.8:
            self._state()

    def has_suppressed(self, label: str, said: Suppressed) -> None:
        """For an erasure that follows, where there is one."""

    def _state(self) -> None:
        at = self.raw[self.done].ms if self.done < len(self.raw) else self.now_ms
        reader = self.cluster.reader()
        admin = self.cluster.admin()
        counts = admin.topics()
        for place, output in inputs_of(self.plan, counts):
            ends = reader.ends([TP(output, p) for p in range(counts[output])])
            of = admin.topic_ids([output])[output]
            statement = Statement(place, at, tuple(sorted((Place(*tp), end) for tp, end in ends.items())), of)
            key = statement_key(place, output).decode()
            self._write(self.plan.fence, key, encode_statement(statement), 0)

    def _follow(self, dice: random.Random) -> None:
        for table in self.tables:
            if dice.random() < 0.7:
                table.turn()

    def _write(self, topic: str, key: str, value: bytes | None, partition: int | None = None) -> None:
        self.writer.produce(topic, key.encode(), value, partition)
        self.writer.flush()

    # ---------------------------------------------------------------------------------------------------- the checkers
    def delivered(self, said: Sequence[tuple[str, bytes | None, bytes | None]]) -> None:
        """A transaction begins to commit."""
        for topic, key, value in said:
            if topic not in self.held:
                continue
            assert key is not None
            held = self.held[topic]
            assert held.get(key) != value, "what is there already was said again, or taken back twice"
            if value is None:
                del held[key]
                continue
            held[key] = value
            about = json.loads(value)
            labels = about.get("attributes", about)["about"].split()[:-1]
            asks = self.purpose[topic].asks
            self.happened["delivered"] += 1
            assert self.might_leave(labels, asks), f"{labels} were delivered to {topic}"

    def might_leave(self, labels: Sequence[str], asks: bool) -> bool:
        """By all that was said more than AGE_MS ago, and by any part of what was said since of each identifier."""
        granted = not asks
        for label in labels:
            mine = [word for word in self.raw if word.label == label]
            must = sum(word.ms < self.now_ms - AGE_MS for word in mine)
            ways = [self.stands(mine[:n]) for n in range(must, len(mine) + 1)]
            if all(suppressed for _, suppressed in ways):
                return False
            if asks and all(status in ("denied", "withdrawn") for status, _ in ways):
                return False
            granted = granted or any(status == "granted" for status, _ in ways)
        return granted

    def stands(self, said: Sequence[Word]) -> tuple[str | None, bool]:
        """What an identifier's words add up to now: the status that holds, and whether it is suppressed."""
        suppressed = None
        decisions = []
        for word in said:
            if word.decision is None:
                suppressed = _suppressed_by(suppressed, word)
            else:
                decisions.append(word.decision)
        newest_at = max((d.at for d in decisions), default=None)
        last = [d for d in decisions if d.at == newest_at]
        refusals = [d for d in last if d.status != "granted"]
        ends = [NEVER if d.expires_at is None else d.expires_at for d in refusals or last]
        live = bool(last) and self.now_ms < (max(ends) if refusals else min(ends))
        status = (refusals or last)[0].status if live else None
        return status, suppressed is not None and suppressed.stands

    def expected(self) -> dict[str, dict[str, str]]:
        """What each far side should hold now: by profile, what its record is about."""
        found: dict[str, dict[str, str]] = {}
        for topic, purpose in self.purpose.items():
            found[topic] = {}
            for who, record in self.of_live().items():
                ways = [self.stands([w for w in self.raw if w.label == label]) for label in record["identifiers"]]
                statuses = {status for status, _ in ways}
                agreed = "granted" in statuses and not statuses & {"denied", "withdrawn"}
                hidden = purpose.asks and record.get("views") == {"marketing": None}
                if not any(gone for _, gone in ways) and (agreed or not purpose.asks) and not hidden:
                    found[topic][who] = record["attributes"]["about"]
        return found

    def of_live(self) -> dict[str, dict[str, Any]]:
        """The records that doors deliver of."""
        return self.records

    # ---------------------------------------------------------------------------------------------------------- the end
    def idle(self) -> bool:
        """Asked in the end, after each round: the agents work, copies follow, and nothing moves any more."""
        self.running = self.busy = True  # nothing happens in between any more
        before = self._outputs()
        while self.worked < len(self.raw):
            self._work(self.dice)
        self._state()
        for table in self.tables:
            table.turn()
        self.rest = self.rest + 1 if before == self.last else 0
        self.last = before
        return self.rest > 30

    last: object = None

    def _outputs(self) -> object:
        admin = self.cluster.admin()
        return [admin.group_offsets(topic) for topic in self.held], {t: dict(h) for t, h in self.held.items()}

    def check(self) -> None:
        found: dict[str, dict[str, str]] = {}
        for topic in self.held:
            held: dict[bytes, bytes | None] = {}
            reader = self.cluster.reader()
            for batches in reader.read(reader.starts([TP(topic, p) for p in range(2)])):
                for batch in batches:
                    held |= {key: value for key, value in zip(batch.keys, batch.values, strict=True) if key is not None}
            found[topic] = {
                key.decode(): about.get("attributes", about)["about"]
                for key, value in held.items()
                if value is not None
                for about in [json.loads(value)]
            }
        assert found == self.expected()


def _suppressed_by(known: Suppressed | None, word: Word) -> Suppressed:
    life = 0 if known is None else known.life
    return Suppressed(life + (not word.lift), {"request": Hold(word.ms, word.ms if word.lift else 0)})


def run(seed: int, steps: int = STEPS) -> Counter[str]:
    """Raises AssertionError where somebody was delivered who may not be, or where what is held in the end is wrong."""
    stage = DoorStage(seed)
    simulation = Simulation(stage, seed)
    simulation.run(steps)
    return stage.happened + simulation.happened


if __name__ == "__main__":
    sys.exit(
        run_seeds(
            run,
            None,
            program="tests.governance.door_runs",
            about=__doc__,
            runs=200,
            failures=(AssertionError, C360Error),  # type: ignore[arg-type]
        )
    )

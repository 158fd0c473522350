"""The identity agent in its engine, without the rest of an app: facts are written to the log as govern would.

`IdentityStage` is a stage of `c360.testing.simulation`, and what other tests build on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

import msgspec

from c360.agents.identity import NODES, IdentityAgent, IdentityTask
from c360.agents.shelves import EVIDENCE, HOLDERS, LENT, NEIGHBOURS, TOLD, WAITING, owner
from c360.agents.wire import Assignment, IdentityChange, decode_assignment, decode_identity_change
from c360.clock import Clock
from c360.engine.loop import InlineExecutor, Loop, LoopSettings, Phase
from c360.engine.memory import MemoryCluster
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Cluster, TopicSpec
from c360.identity.facts import Fact, encode_fact
from c360.identity.node import Node, decode_node
from c360.identity.resolve import Standing
from c360.identity.rules import OK, Rules
from c360.ops import topics
from c360.ops.progress import at_rest
from c360.ops.records import records
from c360.plan import Identity, Plan, _agents, _topics
from c360.tables.shelf import OWNER_BYTES
from c360.tables.store import Store, Stores
from c360.testing.faults import Later
from c360.testing.oracle.identity import answer

START_MS = 1_793_610_000_000
LATE = LoopSettings(commit_s=3600.0, commit_share=0.0, behind_s=0.0, away_s=0.0)


def plan_of(rules: Rules, partitions: int, app: str = "t") -> Plan:
    """An app that has identity and nothing else."""
    bare = Plan(app, partitions, {}, (), (), (), (), (), identities=(Identity("default", 1, rules),))
    return replace(bare, topics=_topics(bare), agents=_agents(bare))


class Said(NamedTuple):
    """A record of the assignments topic; None: taken back."""

    partition: int
    subject: str
    assignment: Assignment | None


class IdentityStage:
    """A log, the agent, and what it was told. `apart` and `piece_bytes` as `IdentityTask` has them."""

    def __init__(
        self,
        rules: Rules,
        *,
        partitions: int = 3,
        apart: int = 64,
        piece_bytes: int = 256 << 10,
        cluster: Cluster | None = None,
        app: str = "t",
    ) -> None:
        self.rules, self.partitions, self.apart, self.piece_bytes = rules, partitions, apart, piece_bytes
        self.plan = plan_of(rules, partitions, app)
        (self.identity,) = self.plan.identities
        self.now_ms = START_MS
        self.clock: Clock = lambda: self.now_ms
        self.cluster = MemoryCluster(now_ms=lambda: self.now_ms)
        self.log: Cluster = cluster or self.cluster
        self.admin, self.reader, self.producer = self.log.admin(), self.log.reader(), self.log.producer()
        topics.apply(self.plan, self.admin)
        self.admin.create([TopicSpec(self.plan.dlq, partitions)])
        self.facts: list[Fact] = []
        self.coming: list[Fact] = []  # that `feed` is still to say
        self.made: list[Loop] = []

    def loop(
        self,
        stores: Stores,
        *,
        slot: str = "0",
        cluster: Cluster | None = None,
        settings: LoopSettings = LATE,
        executor: Executor | None = None,
    ) -> Loop:
        loop = Loop(
            IdentityAgent(self.plan, self.identity, apart=self.apart, piece_bytes=self.piece_bytes),
            cluster or self.log,
            stores,
            slot=slot,
            clock=self.clock,
            settings=settings,
            executor=executor or InlineExecutor(),
        )
        self.made.append(loop)
        return loop

    def close(self) -> None:
        """All loops leave, whatever state they are in."""
        for loop in self.made:
            loop.close()
        self.made.clear()

    def say(self, facts: Iterable[Fact]) -> None:
        """As govern writes them."""
        for fact in facts:
            key, value = encode_fact(fact)
            self.producer.produce(self.plan.links, key, value, partition_of(fact.subject.encode(), self.partitions))
            self.facts.append(fact)
        self.producer.flush()

    def settle(self, *loops: Loop) -> None:
        """Turn until nothing is left to read, and nothing to do."""
        for _ in range(100_000):
            done = [loop.turn(0.0) for loop in loops]
            if not any(done) and self.idle():
                return
        raise AssertionError("it does not come to rest")

    # ----------------------------------------------------------------------------------------- stage of a simulation
    def loops(self, cluster: Cluster, stores: Stores, slot: str, settings: LoopSettings) -> Sequence[Loop]:
        return [self.loop(stores, slot=slot, cluster=cluster, settings=settings, executor=Later())]

    def feed(self, dice: random.Random) -> None:
        self.now_ms += dice.choice((0, 1, 50, 1000))
        count = dice.randint(1, 6)
        now, self.coming = self.coming[:count], self.coming[count:]
        self.say(now)

    def changelogs(self) -> Sequence[str]:
        return self.plan.agents[0].changelogs

    def idle(self) -> bool:
        return at_rest(self.plan, self.admin, self.reader)

    # ------------------------------------------------------------------------------------------------- what there is
    def read(self, topic: str) -> Iterator[tuple[int, bytes | None, bytes | None]]:
        partitions = [TP(topic, p) for p in range(self.partitions)]
        for tp, _, key, value in records(self.reader, self.reader.starts(partitions)):
            yield tp.partition, key, value

    def assignments(self) -> Iterator[Said]:
        for partition, key, value in self.read(self.plan.assignments(self.identity)):
            assert key is not None
            yield Said(partition, key.decode(), None if value is None else decode_assignment(value))

    def changes(self) -> Iterator[tuple[str, IdentityChange]]:
        for _, key, value in self.read(self.plan.identity_changes(self.identity)):
            assert key is not None
            assert value is not None
            yield key.decode(), decode_identity_change(value)

    def standings(self) -> dict[str, Standing]:
        """By subject, as last published."""
        found: dict[str, Standing] = {}
        for _, subject, said in self.assignments():
            found.pop(subject, None)
            if said is not None:
                found[subject] = Standing(said.profile, tuple(said.identifiers), tuple(said.deferred))
        return found

    def misfits(self) -> int:
        return sum(1 for _ in self.read(self.plan.dlq))

    def check(self) -> None:
        """What was published last is what the oracle says; every word was news."""
        right = answer(self.facts, self.rules).standings
        assert {s: (t.profile, t.identifiers, t.deferred) for s, t in self.standings().items()} == right
        last: dict[str, Assignment] = {}
        for partition, subject, said in self.all_said():
            assert partition == partition_of(subject.encode(), self.partitions)
            before = last.get(subject)
            assert said.was == (before.profile if before else None), "a word that does not follow from the last one"
            assert (said.change == "created") == (before is None)
            assert (said.change == "detail") == (before is not None and said.profile == before.profile)
            assert said.cause
            if before is not None:
                assert said.seq > before.seq
                assert msgspec.structs.replace(said, seq=0, was=None, change="", cause="") != msgspec.structs.replace(
                    before, seq=0, was=None, change="", cause=""
                ), "the same was said twice"
            last[subject] = said
        told = Counter(
            (said.profile, subject, said.change, said.was, said.cause) for _, subject, said in self.all_said()
        )
        status: dict[str, str] = {}
        for key, change in self.changes():
            if change.change == "status":
                assert key == change.subject
                assert status.get(key, OK) != change.status
                status[key] = change.status or ""
            elif change.change == "conflict":
                assert change.deferred
            else:
                told[key, change.subject, change.change, change.was, change.cause] -= 1
        assert not any(told.values()), "changes are not those of the assignments"
        refused = {
            subject
            for subject, standing in self.standings().items()
            if any(reason != "identifier_inactive" for _, reason in standing.deferred)
        }
        assert refused <= {change.subject for _, change in self.changes() if change.change == "conflict"}

    def all_said(self) -> Iterator[tuple[int, str, Assignment]]:
        for partition, subject, said in self.assignments():
            assert said is not None
            yield partition, subject, said

    def check_state(self, loops: Sequence[Loop]) -> None:
        """Of loops that have all tasks: pointers, contents, totals; no row belongs to nobody."""
        statuses = {k: s for k, s in answer(self.facts, self.rules).status.items() if s != OK}
        totals: Counter[str] = Counter()
        found: dict[str, str] = {}
        tasks = [task for loop in loops for task in loop.tasks.values() if task.phase is Phase.RUNNING]
        assert len(tasks) == self.partitions
        for task in tasks:
            processor, state = task.processor, task.state
            assert isinstance(processor, IdentityTask)
            assert state is not None
            totals += processor.totals
            assert min(processor.totals.values(), default=1) > 0
            for node in nodes_in(state.store, processor):
                if node.evidence is not None and node.evidence.status != OK:
                    found[node.key] = node.evidence.status
        assert found == statuses
        assert {name: totals[name] for name in ("hub", "shared") if totals[name]} == Counter(statuses.values())
        refused = [reason for s in self.standings().values() for _, reason in s.deferred]
        assert sum(n for name, n in totals.items() if name.startswith("deferred ")) == len(refused)


ROWS = (NEIGHBOURS, WAITING, LENT, EVIDENCE, HOLDERS, TOLD)


def nodes_in(store: Store, task: IdentityTask) -> Iterator[Node]:
    """The nodes of a store, each with as many rows as it says, and no row without a node."""
    rows: dict[bytes, Counter[bytes]] = {prefix: Counter() for prefix in ROWS}
    for prefix in ROWS:
        for key, _ in store.scan(prefix, bytes([prefix[0] + 1])):
            rows[prefix][key[1 : 1 + OWNER_BYTES]] += 1
    rules, members = task.rules, 0
    for _, data in store.scan(NODES, bytes([NODES[0] + 1])):
        node = decode_node(data, rules, task.shelves)
        mine = {prefix: rows[prefix].pop(owner(node.key), 0) for prefix in ROWS}
        assert node.home == node.key or rules.of(node.home).rank < rules.of(node.key).rank, "a pointer does not descend"
        assert node.home == node.key or node.lead is None, "content without a leader"
        neighbours, lead = node.neighbours, node.lead
        apart = neighbours is not None and neighbours.shelved
        assert (mine[NEIGHBOURS], mine[WAITING]) == (
            (neighbours.degree + neighbours.naming, neighbours.waits) if neighbours is not None and apart else (0, 0)
        )
        assert mine[LENT] == (sum(neighbours.sizes.spread.values()) if neighbours is not None and apart else 0)
        if lead is not None and lead.block.shelves is not None:
            evidence = list(lead.block.evidence().values())
            assert mine[EVIDENCE] == lead.block.size == len(evidence)
            assert mine[HOLDERS] == sum(len(e.links) for e in evidence)
            assert mine[TOLD] == sum(rules.of(e.node).subject for e in evidence)
        else:
            assert not mine[EVIDENCE] + mine[HOLDERS] + mine[TOLD], "rows of a block that is not there"
        members += lead.block.size if lead is not None else 0
        yield node
    assert not any(any(left.values()) for left in rows.values()), "rows without a node"
    assert members == task.totals["members"]

"""A toy stage for tests of the loop: it counts records by key and says each new count. And a world to run it in.

Exactly once is visible from outside: for every key the output reads 1, 2, 3 … up to the number of records written.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from c360.engine.agent import AnyTable, Outbox, Task
from c360.engine.loop import InlineExecutor, Loop, LoopSettings
from c360.engine.state import LOCAL, POSITIONS, RESET, decode_local, decode_positions, encode_positions, encode_reset
from c360.engine.transport import TP, Batch, Cluster, TopicSpec
from c360.tables.store import Store, Stores
from c360.tables.table import Table

DEADLINE_S = 30.0
POISON = b"poison"  # a value that makes the processor raise, wherever it stands in the batch
REMIND = b"remind"  # a value that asks for a reminder REMIND_MS later
REMIND_MS = 1000
COUNTS = b"\x01"
OFTEN = LoopSettings(batch_records=7, commit_s=0.0, behind_s=0.0, away_s=0.0)  # a commit in every turn


def _encode(count: int) -> bytes:
    return str(count).encode()


@dataclass
class Clock:
    """Moves when told to."""

    ms: int = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


class Counting:
    """The processor: one table, one output, one timer."""

    def __init__(self, toy: Toy, clock: Clock) -> None:
        self.toy, self.clock = toy, clock
        self.counts: Table[int] = Table(COUNTS, _encode, int)
        self.tables: Sequence[AnyTable] = [self.counts]
        self.seen = 0
        self.due: int | None = None

    def resume(self, notes: Mapping[str, Any]) -> None:
        self.seen, self.due = notes.get("seen", 0), notes.get("due")

    def notes(self) -> dict[str, Any]:
        return {"seen": self.seen} | ({} if self.due is None else {"due": self.due})

    def process(self, batch: Batch, out: Outbox) -> None:
        toy = self.toy
        toy.batches.append((batch.tp, list(batch.offsets)))
        for key, value in zip(batch.keys, batch.values, strict=True):
            assert key is not None
            if value == POISON:
                raise ValueError("the user's mistake")
            if value == REMIND:
                self.due = self.clock() + REMIND_MS
            count = (self.counts.get(key) or 0) + 1
            self.counts.put(key, count)
            self.seen += 1
            out.send(toy.out, key, _encode(count), batch.tp.partition)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        assert len(batch) == 1
        self.seen += 1
        out.send(toy_dlq(self.toy), batch.keys[0], type(error).__name__.encode(), batch.tp.partition)

    def settle(self, out: Outbox) -> None:
        pass

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.wants(now_ms):
            self.due = None
            out.send(self.toy.out, b"reminder", b"1", 0)

    def wants(self, now_ms: int) -> bool:
        return self.due is not None and now_ms >= self.due


@dataclass
class Toy:
    """The agent. `name` prefixes all its topics and its group, so that tests can share a broker."""

    name: str = "toy"
    inputs: tuple[str, ...] = ("in",)
    fingerprint: str = "f1"
    loops: Sequence[str] = ()
    clock: Clock = field(default_factory=Clock)
    batches: list[tuple[TP, list[int]]] = field(default_factory=list)  # all that any processor was given

    def __post_init__(self) -> None:
        self.group, self.lead = f"{self.name}.group", f"{self.name}.tasks"
        self.out, self.log = f"{self.name}.out", f"{self.name}.log"

    def topic(self, name: str) -> str:
        return f"{self.name}.{name}"

    def lead_topics(self) -> Sequence[str]:
        return [self.lead]

    def task(self, lead: TP) -> Task:
        return Task(lead, tuple(TP(self.topic(t), lead.partition) for t in self.inputs))

    def changelog(self, lead: TP) -> TP:
        return TP(self.log, lead.partition)

    def store_name(self, lead: TP) -> str:
        return f"{self.name}/{lead.partition}"

    def processor(self, task: Task) -> Counting:
        return Counting(self, self.clock)


def toy_dlq(toy: Toy) -> str:
    return f"{toy.name}.dlq"


@dataclass
class World:
    """A cluster with the toy's topics, and what was written there."""

    cluster: Cluster
    toy: Toy = field(default_factory=Toy)
    partitions: int = 3
    written: defaultdict[bytes, int] = field(default_factory=lambda: defaultdict(int))  # key -> records
    loops: list[Loop] = field(default_factory=list)

    def __post_init__(self) -> None:
        toy, n = self.toy, self.partitions
        compact = {"cleanup.policy": "compact"}
        self.admin, self.reader = self.cluster.admin(), self.cluster.reader()
        plain = [toy.lead, toy.out, toy_dlq(toy), *map(toy.topic, toy.inputs)]
        self.admin.create([*(TopicSpec(name, n) for name in plain), TopicSpec(toy.log, n, compact)])
        self.leads = [TP(toy.lead, p) for p in range(n)]
        self.logs = [TP(toy.log, p) for p in range(n)]
        self.tps = [TP(toy.topic(t), p) for t in toy.inputs for p in range(n)]
        self.producer = self.cluster.producer()

    def feed(self, *keys: str, topic: str = "in", partition: int = 0, value: bytes = b"v") -> None:
        """One record per key. A key belongs to one partition: its name gets it as a suffix."""
        for key in keys:
            full = f"{key}-{partition}".encode()
            self.producer.produce(self.toy.topic(topic), full, value, partition)
            if value != POISON:
                self.written[full] += 1
        self.producer.flush()

    def feed_all(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            for tp in self.tps:
                self.feed("a", "b", "a", topic=tp.topic.rpartition(".")[2], partition=tp.partition)

    def loop(
        self,
        stores: Stores,
        *,
        slot: str = "0",
        cluster: Cluster | None = None,
        settings: LoopSettings = OFTEN,
        executor: Executor | None = None,
    ) -> Loop:
        loop = Loop(
            self.toy,
            cluster or self.cluster,
            stores,
            slot=slot,
            clock=self.toy.clock,
            settings=settings,
            executor=executor or InlineExecutor(),
        )
        self.loops.append(loop)
        return loop

    def close(self) -> None:
        for loop in self.loops:
            loop.close()
        self.producer.close()
        self.reader.close()
        self.admin.close()

    # ------------------------------------------------------------------------------------------------- what there is
    def read(self, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
        """Committed records (partition, key, value) of a topic, whole."""
        tps = [TP(topic, p) for p in range(self.partitions)]
        found = []
        for batches in self.reader.read(self.reader.starts(tps)):
            for b in batches:
                found += [(b.tp.partition, k, v) for k, v in zip(b.keys, b.values, strict=True)]
        return found

    def said(self) -> dict[bytes, list[int]]:
        """Output by key, in order."""
        said: dict[bytes, list[int]] = {}
        for _, key, value in self.read(self.toy.out):
            assert key is not None
            assert value is not None
            said.setdefault(key, []).append(int(value))
        return said

    def ends(self, tps: Sequence[TP]) -> dict[TP, int]:
        return self.reader.ends(tps)

    def group(self) -> dict[TP, int]:
        return self.admin.group_offsets(self.toy.group)

    def logged(self) -> tuple[dict[bytes, int], dict[TP, int]]:
        """What the changelog says: counts by key, and input positions."""
        counts: dict[bytes, int] = {}
        positions: dict[int, dict[str, int]] = {}
        for partition, key, value in self.read(self.toy.log):
            assert key is not None
            assert value is not None
            if key == POSITIONS:
                positions[partition] = decode_positions(value).positions
            elif key != RESET:
                assert key[:1] == COUNTS
                counts[key[1:]] = int(value)
        named = {name: n for found in positions.values() for name, n in found.items()}
        return counts, {TP(t, int(p)): n for name, n in named.items() for t, _, p in [name.rpartition("/")]}

    def idle(self) -> bool:
        """The group has read and committed all there is (aborted records and markers count as well)."""
        committed = self.group()
        return all(committed.get(tp, 0) >= end for tp, end in self.ends(self.tps).items())

    def until(self, done: Callable[[], object], *loops: Loop, wait_s: float = 0.0) -> None:
        """Turn loops until something is so."""
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline, "it did not happen in time"
            for loop in loops:
                loop.turn(wait_s)

    def check(self) -> None:
        """All that was written was counted once, in the output, in the changelog and in the positions."""
        assert self.said() == {key: list(range(1, n + 1)) for key, n in self.written.items()}
        counts, positions = self.logged()
        assert counts == self.written
        assert positions == self.group()

    def reset(self, incarnation: int) -> None:
        """As `c360 reset` does it: an empty changelog that begins anew, and the group at the start."""
        self.admin.delete_records(self.ends([*self.logs, *(TP(self.toy.out, p) for p in range(self.partitions))]))
        for log in self.logs:
            own = {tp: 0 for tp in self.tps if tp.partition == log.partition}
            self.producer.produce(log.topic, RESET, encode_reset(incarnation), log.partition)
            positions = encode_positions(own, self.toy.fingerprint, {})
            self.producer.produce(log.topic, POSITIONS, positions, log.partition)
        self.producer.flush()
        self.admin.set_group_offsets(self.toy.group, dict.fromkeys(self.tps, 0))


def content(store: Store) -> tuple[dict[bytes, int], int]:
    """A store's counts, and the changelog offset it stands at (0: empty)."""
    counts = {key[1:]: int(value) for key, value in store.scan(COUNTS, b"\x02")}
    (local,) = store.get_many([LOCAL])
    return counts, 0 if local is None else decode_local(local).next

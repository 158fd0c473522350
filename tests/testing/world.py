"""A small app on the in-memory cluster with the production agents, and ways to break what they wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from c360 import App
from c360.assembly import stepping_loops
from c360.engine.loop import Loop, LoopSettings
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Admin, Batch, Cluster, Consumer, Headers, Producer, Reader, TopicSpec
from c360.ops.verify import Report, verify
from c360.tables.store import MemoryStores

NOW = 1_793_610_000_000  # 2026-11-02T09:00:00Z


class World:
    """An app, its topics and its agents, turned by the test."""

    def __init__(self, app: App, *, raw_partitions: int = 2) -> None:
        self.plan = app.plan()
        self.now = NOW
        self.cluster = MemoryCluster(now_ms=lambda: self.now)
        raw = [TopicSpec(s.topic, raw_partitions) for s in self.plan.sources]
        self.cluster.admin().create(raw)
        self.stores = MemoryStores()
        self.producer = self.cluster.producer()
        self.start()

    def start(self) -> None:
        self.loops: list[Loop] = stepping_loops(
            self.plan, self.cluster, self.stores, slot="0", clock=lambda: self.now, settings=LoopSettings(commit_s=0.0)
        )

    def stop(self) -> None:
        for loop in self.loops:
            loop.commit_or_abort()
            loop.close()

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: Any,
        *,
        timestamp: int | None = None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Produce a raw record; a value that is neither bytes nor None is written as JSON."""
        data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        raw_key = key.encode() if isinstance(key, str) else key
        self.producer.produce(topic, raw_key, data, partition, headers, timestamp=timestamp)
        self.producer.flush()

    def settle(self) -> None:
        """Turn until nothing moves."""
        quiet = 0
        for _ in range(10_000):
            if quiet == 4:
                return
            done = sum(loop.turn(0.0) for loop in self.loops)
            busy = done or any(loop.in_transaction for loop in self.loops)
            careful = any(t.limit or t.condemned for loop in self.loops for t in loop.tasks.values())
            quiet = 0 if busy or careful else quiet + 1
        raise AssertionError("the loops did not come to rest")

    def verify(self, *agents: str, edit: Edit | None = None, archive: Sequence[Any] = ()) -> Report:
        """What `verify` says, of the cluster as it is or as edited."""
        cluster: Cluster = self.cluster if edit is None else Edited(self.cluster, edit)
        return verify(self.plan, cluster, agents, archive=archive)

    def latest(self, topic: str) -> dict[str, Any]:
        """The last JSON value of each key of a topic, tombstones taken out."""
        found: dict[str, Any] = {}
        for batch in read(self.cluster, topic):
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None
                found[key.decode()] = None if value is None else json.loads(value)
        return {key: value for key, value in found.items() if value is not None}

    def values(self, topic: str) -> list[Any]:
        return [json.loads(v) for batch in read(self.cluster, topic) for v in batch.values if v is not None]


def read(cluster: Cluster, topic: str) -> Iterator[Batch]:
    reader = cluster.reader()
    partitions = [TP(topic, p) for p in range(cluster.admin().topics()[topic])]
    for batches in reader.read(reader.starts(partitions)):
        yield from batches


# ------------------------------------------------------------------------------------------------------ broken topics
Edit = Callable[[Batch], Batch]
"""What a reader gets instead of a batch."""


class Edited:
    """A cluster whose readers see edited batches: a record lost, doubled or altered on its way to the disk."""

    def __init__(self, cluster: MemoryCluster, edit: Edit) -> None:
        self.cluster, self.edit, self.name = cluster, edit, cluster.name

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer:
        return self.cluster.consumer(group, instance=instance)

    def producer(self, transactional_id: str | None = None) -> Producer:
        return self.cluster.producer(transactional_id)

    def reader(self) -> Reader:
        return EditedReader(self.cluster.reader(), self.edit)

    def admin(self) -> Admin:
        return self.cluster.admin()


class EditedReader:
    def __init__(self, reader: Reader, edit: Edit) -> None:
        self.reader, self.edit = reader, edit

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        return self.reader.ends(partitions)

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        return self.reader.starts(partitions)

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        for batches in self.reader.read(positions, ends):
            yield [b for b in map(self.edit, batches) if len(b)]

    def close(self) -> None:
        self.reader.close()


def _with(batch: Batch, rows: Sequence[tuple[int, bytes | None]]) -> Batch:
    """A batch of these (index, value)."""
    indexes = [i for i, _ in rows]
    return Batch(
        batch.tp,
        [batch.offsets[i] for i in indexes],
        [batch.keys[i] for i in indexes],
        [value for _, value in rows],
        [batch.times[i] for i in indexes],
        lambda i: batch.headers(indexes[i]),
    )


class At:
    """Edits of the nth record of a topic, counted over all partitions from the first, or of the last of a key."""

    def __init__(self, cluster: Cluster, topic: str, n: int) -> None:
        records = [(b.tp, offset) for b in read(cluster, topic) for offset in b.offsets]
        self.tp, self.offset = records[n]

    def _edit(self, batch: Batch, change: Callable[[bytes | None], list[bytes | None]]) -> Batch:
        if batch.tp != self.tp or self.offset not in batch.offsets:
            return batch
        rows: list[tuple[int, bytes | None]] = []
        for i, (offset, value) in enumerate(zip(batch.offsets, batch.values, strict=True)):
            rows += [(i, v) for v in (change(value) if offset == self.offset else [value])]
        return _with(batch, rows)

    def lost(self, batch: Batch) -> Batch:
        return self._edit(batch, lambda value: [])

    def doubled(self, batch: Batch) -> Batch:
        return self._edit(batch, lambda value: [value, value])

    def altered(self, old: bytes, new: bytes) -> Edit:
        def change(value: bytes | None) -> list[bytes | None]:
            assert value is not None
            assert old in value
            return [value.replace(old, new)]

        return lambda batch: self._edit(batch, change)

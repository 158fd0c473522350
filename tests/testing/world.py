"""A small app on the in-memory cluster with the production agents, and ways to break what they wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from c360 import App
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Admin, Batch, Cluster, Consumer, Producer, Reader
from c360.ops.verify import Report, verify
from c360.testing import TestDriver

NOW_MS = 1_793_610_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)  # 2026-11-02T09:00:00Z


class World(TestDriver):
    """A driver whose topics can be broken before they are verified."""

    def __init__(self, app: App, *, raw_partitions: int = 2) -> None:
        super().__init__(app, partitions=raw_partitions, now=NOW)

    def report(self, *agents: str, edit: Edit | None = None, archive: Sequence[Any] = ()) -> Report:
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

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        for batches, reached in self.reader.follow(positions):
            yield [b for b in map(self.edit, batches) if len(b)], reached

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

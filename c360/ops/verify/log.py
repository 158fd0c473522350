"""The cluster's topics as a verification reads them: committed records, positions of tasks, dead letters, archive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from c360.engine.partition import partition_of
from c360.engine.state import POSITIONS, RESET, Positions, decode_positions
from c360.engine.transport import TP, Cluster, Headers
from c360.errors import BrokerAway
from c360.ops.load import RawRecord, read_lines
from c360.testing.oracle.plain import parse

QUIET_S = 120.0  # an open transaction is over by then
TAIL = 1000  # records of a changelog's end that are read first, to find its last positions


class Entry(NamedTuple):
    """One record of a topic."""

    tp: TP
    offset: int
    key: bytes | None
    value: bytes | None
    time: int
    headers: Callable[[], Headers]


class Log:
    """Committed records of the cluster's topics."""

    def __init__(self, cluster: Cluster) -> None:
        self.reader = cluster.reader()
        self.counts = cluster.admin().topics()

    def partitions(self, topic: str) -> list[TP]:
        return [TP(topic, p) for p in range(self.counts.get(topic, 0))]

    def start(self, tp: TP) -> int:
        return self.reader.starts([tp])[tp]

    def read(self, partitions: Iterable[TP], start: int | None = None, stop: int | None = None) -> Iterator[Entry]:
        """Records of partitions, each in order: from `start` or the first, up to `stop` or what is the end now.

        To be read to its end before the next is begun: there is one consumer. Raises BrokerAway where a transaction
        stays open.
        """
        exist = [tp for tp in partitions if tp.partition < self.counts.get(tp.topic, 0)]
        if not exist:
            return
        starts = self.reader.starts(exist)
        ends = self.reader.ends(exist)
        if start is not None:
            starts = {tp: max(n, start) for tp, n in starts.items()}
        if stop is not None:
            ends = {tp: min(n, stop) for tp, n in ends.items()}
        waiting = time.monotonic()
        for batches in self.reader.read(starts, ends):
            if batches:
                waiting = time.monotonic()
            elif time.monotonic() - waiting > QUIET_S:
                raise BrokerAway(f"a transaction in one of {', '.join(sorted({tp.topic for tp in exist}))} stays open")
            for batch in batches:
                for i, offset in enumerate(batch.offsets):
                    headers = partial(batch.headers, i)
                    yield Entry(batch.tp, offset, batch.keys[i], batch.values[i], batch.times[i], headers)

    def last_positions(self, changelog: TP) -> tuple[int, Positions] | None:
        """The last record `positions` of a changelog and its offset. It ends a transaction, so it is near the end."""
        if changelog.partition >= self.counts.get(changelog.topic, 0):
            return None
        start, stop, tail = self.start(changelog), self.reader.ends([changelog])[changelog], TAIL
        while True:
            found = None
            for entry in self.read([changelog], stop - tail, stop):
                if entry.key == POSITIONS and entry.value is not None:
                    found = (entry.offset, decode_positions(entry.value))
            if found is not None or stop - tail <= start:
                return found
            tail *= 8

    def was_reset(self, changelog: str) -> bool:
        """Whether a reset began this changelog anew: what lies before the starts of topics was cleared then."""
        first = [e.key for tp in self.partitions(changelog) for e in self.read([tp], None, self.start(tp) + TAIL)]
        return RESET in first


class DeadLetters:
    """How often each raw or governed record was put aside, by stage; read again only when there is more."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self.cut = any(log.start(tp) for tp in log.partitions(topic))  # some were deleted
        self.ends: dict[TP, int] = {}
        self.counts: dict[str, dict[TP, Counter[int]]] = {}
        self.large: set[tuple[str, TP, int]] = set()  # stage, partition, offset of what could not be written

    def of(self, stage: str, tp: TP) -> Counter[int]:
        """By offset, how many dead letters this stage wrote of records of a partition."""
        partitions = self.log.partitions(self.topic)
        ends = self.log.reader.ends(partitions) if partitions else {}
        if ends != self.ends:
            self.counts = {}
            for entry in self.log.read(partitions):
                said = parse(entry.value or b"{}")
                if said.get("offset", -1) >= 0:
                    at = TP(said["topic"], said["partition"])
                    self.counts.setdefault(said["stage"], {}).setdefault(at, Counter())[said["offset"]] += 1
                    if said["reason"] == "too-large":
                        self.large.add((said["stage"], at, said["offset"]))
            self.ends = ends
        return self.counts.get(stage, {}).get(tp, Counter())


class Archive:
    """Raw records from files, as far as they can be told to be the beginning of a partition."""

    def __init__(self, log: Log, paths: Sequence[Path], topics: Sequence[str]) -> None:
        self.log = log
        self.records: dict[TP, list[RawRecord]] = {}
        self.unplaced: set[str] = set()
        for path in paths:
            for record in read_lines(path):
                count = log.counts.get(record.topic, 0)
                if record.topic not in topics or not count:
                    continue
                if record.key is None or record.timestamp is None:
                    self.unplaced.add(record.topic)
                else:
                    tp = TP(record.topic, partition_of(record.key, count))
                    self.records.setdefault(tp, []).append(record)

    def before(self, tp: TP, start: int) -> list[RawRecord] | None:
        """The records of offsets 0 to `start` - 1; None if they are not here, or do not go on as the log does."""
        records = self.records.get(tp, [])
        if tp.topic in self.unplaced or len(records) < start:
            return None
        goes_on = True
        for entry in self.log.read([tp], start, len(records)):
            same = records[entry.offset]
            goes_on = goes_on and (same.key, same.value, same.timestamp) == (entry.key, entry.value, entry.time)
        return records[:start] if goes_on else None

"""The transport in one process's memory: isolates, fences and stores as Kafka does, and forgets all with the process.

For the demo, the test driver and simulation. One lock guards the whole cluster; consumers and readers wait on one
condition. Knows what `tests/contract/test_transport.py` asks of any transport; nothing of files, sockets or retention.

Kept as in Kafka, since code above could lean on it: commit and abort markers take an offset each; an open transaction
holds read_committed readers back from everything after its first record; offsets in a transaction are pending until it
ends; partitions move cooperatively, first revoked, then assigned; callbacks run in `poll` only; delivery reports come
with the commit. Left out: transactions do not time out. A producer that is dropped with one open holds readers back
until the next of its id.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

from c360.clock import Clock, system
from c360.engine.partition import partition_of
from c360.engine.transport import (
    TP,
    Admin,
    Batch,
    Consumer,
    Delivered,
    Headers,
    Producer,
    Reader,
    Rebalance,
    TopicSpec,
    out_of_log,
)
from c360.errors import BrokerAway, EngineFatal, Evicted, NeedsOperator, OutOfLog, TaskMigrated, TransactionAborted

MAX_RECORD_BYTES: Final = 1_048_588  # a broker's default
FRAME_BYTES: Final = 70  # a record's own overhead, about
LOOK_S: Final = 0.01  # plain records wake nobody before a flush: waiting consumers look this often, as a linger
QUIET_S: Final = 0.1  # so often a reader says that nothing came
READ_RECORDS: Final = 10_000
DELETE_RETENTION_MS: Final = 24 * 3_600_000  # a broker's default


# ========================================================================================================= the log
class _Partition:
    """Records as columns. Offsets have gaps: markers, and records that were aborted or compacted away."""

    __slots__ = ("headers", "keys", "next", "offsets", "open", "start", "times", "values")

    def __init__(self) -> None:
        self.start = self.next = 0
        self.offsets: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.times: list[int] = []
        self.headers: list[Headers | None] = []
        self.open: dict[_Transaction, list[int]] = {}  # offsets of transactions that have not ended

    @property
    def stable(self) -> int:
        """What read_committed may see ends here."""
        return min(offsets[0] for offsets in self.open.values()) if self.open else self.next

    def append(self, key: bytes | None, value: bytes | None, time_ms: int, headers: Headers | None) -> int:
        offset = self.next
        self.next = offset + 1
        self.offsets.append(offset)
        self.keys.append(key)
        self.values.append(value)
        self.times.append(time_ms)
        self.headers.append(headers)
        return offset

    def end(self, transaction: _Transaction, *, commit: bool) -> None:
        """The marker of a transaction that wrote here."""
        written = self.open.pop(transaction)
        self.next += 1
        if not commit:
            gone = set(written)
            self.keep([i for i, offset in enumerate(self.offsets) if offset not in gone])

    def keep(self, indexes: Sequence[int]) -> None:
        self.offsets = [self.offsets[i] for i in indexes]
        self.keys = [self.keys[i] for i in indexes]
        self.values = [self.values[i] for i in indexes]
        self.times = [self.times[i] for i in indexes]
        self.headers = [self.headers[i] for i in indexes]

    def cut(self, before: int) -> None:
        assert before <= self.next, "records that do not exist cannot be deleted"
        self.start = max(self.start, before)
        self.keep(range(bisect_left(self.offsets, self.start), len(self.offsets)))

    def compact(self, before_ms: int) -> None:
        """Keep the last committed record of each key, and of tombstones those that are not older."""
        stable = bisect_left(self.offsets, self.stable)
        last = {key: i for i, key in enumerate(self.keys[:stable])}
        kept = sorted(i for i in last.values() if self.values[i] is not None or self.times[i] >= before_ms)
        self.keep([*kept, *range(stable, len(self.offsets))])

    def read(self, tp: TP, offset: int, limit: int, until: int) -> tuple[Batch | None, int]:
        """Committed records from an offset on, below `until`; and the offset to go on from."""
        stable = min(self.stable, until)
        if offset >= stable:
            return None, offset
        first = bisect_left(self.offsets, offset)
        last = min(bisect_left(self.offsets, stable), first + limit)
        if first == last:
            return None, stable
        headers = self.headers[first:last]
        batch = Batch(
            tp,
            self.offsets[first:last],
            self.keys[first:last],
            self.values[first:last],
            self.times[first:last],
            lambda i: headers[i] or [],
        )
        return batch, batch.offsets[-1] + 1


class _Topic:
    def __init__(self, spec: TopicSpec, id: int) -> None:
        self.name, self.config, self.id = spec.name, dict(spec.config), f"topic-{id}"
        self.partitions = [_Partition() for _ in range(spec.partitions)]
        self.append_time = spec.config.get("message.timestamp.type") == "LogAppendTime"
        self.compacted = "compact" in spec.config.get("cleanup.policy", "")
        self.max_bytes = int(spec.config.get("max.message.bytes", MAX_RECORD_BYTES))
        self.keyless = count()  # records without a key go round


@dataclass(eq=False)
class _Transaction:
    """What one open transaction has touched, and when it began."""

    began_ms: int
    partitions: set[_Partition] = field(default_factory=set)
    offsets: dict[_Group, dict[TP, int]] = field(default_factory=dict)

    def end(self, *, commit: bool) -> None:
        for partition in self.partitions:
            partition.end(self, commit=commit)
        for group, offsets in self.offsets.items():
            group.pending.subtract(offsets.keys())
            if commit:
                group.offsets |= offsets


# ========================================================================================================== groups
class _Membership(NamedTuple):
    group: str
    member: str
    generation: int


@dataclass(eq=False)
class _Group:
    """A group's coordinator. `target`: who should have a partition; `owned`: who has it, until they gave it up."""

    name: str
    members: dict[str, MemoryConsumer] = field(default_factory=dict)
    generation: int = 0
    target: dict[TP, str] = field(default_factory=dict)
    owned: dict[TP, str] = field(default_factory=dict)
    changes: int = 0  # of target or owned: members look again when it moves
    offsets: dict[TP, int] = field(default_factory=dict)
    pending: Counter[TP] = field(default_factory=Counter)  # in transactions that have not ended

    def rebalance(self, topics: Mapping[str, _Topic]) -> None:
        """A new generation. Everybody keeps what they have, as far as shares stay even (within one)."""
        self.generation += 1
        self.changes += 1
        members = self.members
        wanted = sorted({name for m in members.values() for name in m.topics if name in topics})
        everything = [TP(name, p) for name in wanted for p in range(len(topics[name].partitions))]
        target = {tp: m for tp in everything if (m := self.target.get(tp)) in members and tp.topic in members[m].topics}
        load = Counter(dict.fromkeys(members, 0))
        load.update(target.values())
        for tp in everything:
            able = [m for m in members if tp.topic in members[m].topics]
            least = min(able, key=load.__getitem__)
            has = target.get(tp)
            if has is None or load[has] > load[least] + 1:
                target[tp] = least
                load[least] += 1
                if has is not None:
                    load[has] -= 1
        self.target = target

    def remove(self, member: str, topics: Mapping[str, _Topic]) -> None:
        del self.members[member]
        self.owned = {tp: m for tp, m in self.owned.items() if m != member}
        self.rebalance(topics)

    def check(self, membership: _Membership) -> None:
        if membership.member not in self.members:
            raise TaskMigrated(f"{self.name}: {membership.member} is not a member")
        if membership.generation != self.generation:
            raise TransactionAborted(f"{self.name}: generation {membership.generation} is over")


class MemoryConsumer:
    """A group member. All calls from one thread, except `committed`."""

    def __init__(self, cluster: MemoryCluster, group: str) -> None:
        self.topics: frozenset[str] = frozenset()
        self._cluster, self._lock, self._changed = cluster, cluster.lock, cluster.changed
        self._group = cluster.group(group)
        self._listener: Rebalance | None = None
        self._member: str | None = None
        self._owned: set[TP] = set()
        self._seen = -1
        self._positions: dict[TP, int] = {}

    def subscribe(self, topics: Sequence[str], listener: Rebalance) -> None:
        with self._lock:
            self.topics, self._listener = frozenset(topics), listener
            if self._member is None and not self._owned:  # one that was expired hears of it first
                self._join()
            else:
                self._group.rebalance(self._cluster.topics)
            self._changed.notify_all()

    def _join(self) -> None:
        self._member = f"member-{next(self._cluster.ids)}"
        self._group.members[self._member] = self
        self._group.rebalance(self._cluster.topics)

    def unsubscribe(self) -> None:
        with self._lock:
            if self._member is not None:
                self._group.remove(self._member, self._cluster.topics)
                self._member = None
            self._listener, self.topics = None, frozenset()
            self._owned.clear()
            self._positions.clear()
            self._changed.notify_all()

    def expire(self) -> None:
        """Under the lock: the coordinator has not heard of this member for too long."""
        if self._member is None:
            return
        self._group.remove(self._member, self._cluster.topics)
        self._member = None
        self._seen = -1

    def unheard(self) -> None:
        """Its next poll reads first, and hears later of what has become of the group: a process that hung wakes up so."""
        self._seen = self._group.changes

    def poll(self, max_records: int, timeout_s: float) -> list[Batch]:
        deadline = time.monotonic() + timeout_s
        while True:
            while self._listener is not None and self._seen != self._group.changes:
                self._rebalance(self._listener)
            with self._lock:
                batches = self._take(max_records)
                left = deadline - time.monotonic()
                if batches or left <= 0:
                    return batches
                if self._listener is None or self._seen == self._group.changes:
                    self._changed.wait(min(left, LOOK_S))

    def _rebalance(self, listener: Rebalance) -> None:
        """One step towards the group's target: what is to go goes, then what is free comes. Tells without the lock."""
        group = self._group
        with self._lock:
            member, self._seen = self._member, group.changes
            gone = sorted(tp for tp in self._owned if member is None or group.target.get(tp) != member)
        try:
            if gone:
                (listener.lost if member is None else listener.revoked)(gone)
        finally:
            with self._lock:
                came = self._step(member, gone)
                self._changed.notify_all()
        if came:
            listener.assigned(came)

    def _step(self, was: str | None, gone: Sequence[TP]) -> list[TP]:
        """Give up partitions of the member this one was, take what is free for the one it is; returns what came."""
        group = self._group
        self._owned.difference_update(gone)
        for tp in gone:
            self._positions.pop(tp, None)
            if was is not None and group.owned.get(tp) == was:
                del group.owned[tp]
                group.changes += 1
        if was is None:
            self._join()
        member = self._member
        if member is None:  # expired while it was telling: the next step sees to it
            return []
        came = sorted(tp for tp, m in group.target.items() if m == member and tp not in group.owned)
        group.owned |= dict.fromkeys(came, member)
        self._owned.update(came)
        return came

    def _take(self, room: int) -> list[Batch]:
        batches = []
        for tp in list(self._positions):
            partition = self._cluster.find(tp)
            if partition is None:
                continue
            offset = self._positions.pop(tp)
            if not partition.start <= offset <= partition.next:
                raise OutOfLog(f"{tp.topic}/{tp.partition}: offset {offset} is not in the log (any more)")
            batch, offset = partition.read(tp, offset, room, partition.next)
            self._positions[tp] = offset  # at the end: next time the others come first
            if batch is not None:
                batches.append(batch)
                room -= len(batch)
                if room <= 0:
                    break
        return batches

    def fetch(self, positions: Mapping[TP, int]) -> None:
        with self._lock:
            self._positions |= positions

    def unfetch(self, partitions: Sequence[TP]) -> None:
        with self._lock:
            for tp in partitions:
                self._positions.pop(tp, None)

    def committed(self, partitions: Sequence[TP], timeout_s: float) -> dict[TP, int | None]:
        group = self._group
        with self._changed:
            if not self._changed.wait_for(lambda: not any(group.pending[tp] > 0 for tp in partitions), timeout_s):
                raise BrokerAway(f"committed offsets of {group.name}: a transaction is still open")
            return {tp: group.offsets.get(tp) for tp in partitions}

    def group(self) -> _Membership:
        with self._lock:
            if self._member is None:
                raise TaskMigrated(f"{self._group.name}: this consumer is not a member of its group")
            return _Membership(self._group.name, self._member, self._group.generation)

    def close(self) -> None:
        self.unsubscribe()


# ======================================================================================================= producing
class MemoryProducer:
    """One producer, one thread."""

    def __init__(self, cluster: MemoryCluster, transactional_id: str | None) -> None:
        self._cluster, self._lock = cluster, cluster.lock
        self._id = transactional_id
        self._transaction: _Transaction | None = None
        self._reports: list[tuple[Delivered, int, int | None]] = []
        self._fenced = False

    @property
    def since_ms(self) -> int | None:
        return self._transaction.began_ms if self._transaction is not None else None

    def begin(self) -> None:
        assert self._id is not None, "this producer has no transactional id"
        assert self._transaction is None, "a transaction is open already"
        self._transaction = _Transaction(self._cluster.now_ms())

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
        delivered: Delivered | None = None,
        timestamp: int | None = None,
    ) -> None:
        with self._lock:
            if self._fenced:
                raise self._fenced_error()
            transaction = self._transaction
            assert transaction is not None or self._id is None, "begin a transaction first"
            to = self._cluster.topics.get(topic)
            if to is None:
                raise EngineFatal(f"producing to {topic}: there is no such topic")
            size = len(key or b"") + len(value or b"") + FRAME_BYTES
            assert size <= to.max_bytes, f"a record of {size} bytes; {topic} takes {to.max_bytes}: check before"
            assert key is not None or not to.compacted, f"{topic} is compacted: its records need keys"
            if partition is None:
                n = len(to.partitions)
                partition = next(to.keyless) % n if key is None else partition_of(key, n)
            log = to.partitions[partition]
            time_ms = self._cluster.now_ms() if timestamp is None or to.append_time else timestamp
            offset = log.append(key, value, time_ms, headers)
            if transaction is not None:
                if (written := log.open.get(transaction)) is None:
                    log.open[transaction] = [offset]
                    transaction.partitions.add(log)
                else:
                    written.append(offset)
            if delivered is not None:
                self._reports.append((delivered, offset, time_ms if to.append_time else None))

    def send_offsets(self, offsets: Mapping[TP, int], group: Any) -> None:
        with self._lock:
            transaction = self._open()
            assert isinstance(group, _Membership)
            found = self._cluster.group(group.group)
            found.check(group)
            sent = transaction.offsets.setdefault(found, {})
            found.pending.update(offsets.keys() - sent.keys())
            sent |= offsets

    def commit(self) -> None:
        with self._lock:
            self._open().end(commit=True)
            self._transaction = None
            self._cluster.changed.notify_all()
        self._report()

    def abort(self) -> None:
        with self._lock:
            self._open()
            self._roll_back()

    def _roll_back(self) -> None:
        if self._transaction is not None:
            self._transaction.end(commit=False)
            self._transaction = None
            self._cluster.changed.notify_all()
        self._reports.clear()

    def flush(self, timeout_s: float | None = None) -> None:
        with self._lock:
            self._cluster.changed.notify_all()
        self._report()

    def close(self) -> None:
        """As in Kafka an open transaction stays open; the next producer of this id aborts it."""

    def fence(self) -> None:
        """Under the lock: another producer took this one's transactional id."""
        self._roll_back()
        self._fenced = True

    def _fenced_error(self) -> Evicted:
        return Evicted(f"another process uses the transactional id {self._id}")

    def _open(self) -> _Transaction:
        if self._fenced:
            raise self._fenced_error()
        assert self._transaction is not None, "no transaction is open"
        return self._transaction

    def _report(self) -> None:
        reports, self._reports = self._reports, []
        for delivered, offset, appended_ms in reports:
            delivered(offset, appended_ms)


# ========================================================================================================= reading
class MemoryReader:
    """Reads what it is told to, committed records only."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    def ends(self, partitions: Sequence[TP]) -> dict[TP, int]:
        with self._cluster.lock:
            return {tp: self._cluster.get(tp).next for tp in partitions}

    def starts(self, partitions: Sequence[TP]) -> dict[TP, int]:
        with self._cluster.lock:
            return {tp: self._cluster.get(tp).start for tp in partitions}

    def read(self, positions: Mapping[TP, int], ends: Mapping[TP, int] | None = None) -> Iterator[list[Batch]]:
        """As promised by the protocol. Raises OutOfLog for a position before the first retained offset."""
        ends = self.ends(list(positions)) if ends is None else ends
        todo = {tp: offset for tp, offset in positions.items() if offset < ends[tp]}
        for tp, start in self.starts(list(todo)).items():
            if todo[tp] < start:
                raise out_of_log(tp, todo[tp], start)
        return self._read(todo, ends)

    def _read(self, todo: dict[TP, int], ends: Mapping[TP, int]) -> Iterator[list[Batch]]:
        lock, changed = self._cluster.lock, self._cluster.changed
        quiet = time.monotonic() + self._cluster.quiet_s
        while todo:
            batches = []
            with lock:
                for tp, offset in list(todo.items()):
                    log = self._cluster.get(tp)
                    if offset < log.start:
                        raise out_of_log(tp, offset, log.start)
                    batch, todo[tp] = log.read(tp, offset, READ_RECORDS, ends[tp])
                    if batch is not None:
                        batches.append(batch)
                    if todo[tp] >= ends[tp]:
                        del todo[tp]
                if todo and not batches and time.monotonic() < quiet:
                    changed.wait(LOOK_S)
                    continue
            if batches or todo:
                yield batches
            quiet = time.monotonic() + self._cluster.quiet_s

    def follow(self, positions: Mapping[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        for tp, start in self.starts(list(positions)).items():
            if positions[tp] < start:
                raise out_of_log(tp, positions[tp], start)
        return self._follow(dict(positions))

    def _follow(self, at: dict[TP, int]) -> Iterator[tuple[list[Batch], dict[TP, int]]]:
        lock, changed = self._cluster.lock, self._cluster.changed
        said: dict[TP, int] = {}
        quiet = time.monotonic() + self._cluster.quiet_s
        while True:
            batches = []
            with lock:
                for tp, offset in at.items():
                    log = self._cluster.get(tp)
                    if not log.start <= offset <= log.next:
                        raise out_of_log(tp, offset, log.start)
                    batch, at[tp] = log.read(tp, offset, READ_RECORDS, log.next)
                    if batch is not None:
                        batches.append(batch)
                reached = {tp: n for tp, n in at.items() if said.get(tp) != n and n >= self._cluster.get(tp).stable}
                if not batches and not reached and time.monotonic() < quiet:
                    changed.wait(LOOK_S)
                    continue
            said |= reached
            yield batches, reached
            quiet = time.monotonic() + self._cluster.quiet_s

    def close(self) -> None:
        """Nothing is held."""


# ===================================================================================================== the cluster
class MemoryAdmin:
    """Topics and groups."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    def topics(self) -> dict[str, int]:
        with self._cluster.lock:
            return {name: len(topic.partitions) for name, topic in self._cluster.topics.items()}

    def topic_ids(self, names: Sequence[str]) -> dict[str, str]:
        with self._cluster.lock:
            topics = self._cluster.topics
            return {name: topics[name].id for name in names if name in topics}

    def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        with self._cluster.lock:
            topics = self._cluster.topics
            return {name: dict(topics[name].config) for name in names if name in topics}

    def create(self, topics: Sequence[TopicSpec]) -> None:
        with self._cluster.lock:
            new = {
                spec.name: _Topic(spec, next(self._cluster.ids))
                for spec in topics
                if spec.name not in self._cluster.topics
            }
            self._cluster.topics |= new
            self._cluster.topics_changed(new.keys())

    def delete(self, names: Sequence[str]) -> None:
        with self._cluster.lock:
            for name in names:
                self._cluster.topics.pop(name, None)
            for group in self._cluster.groups.values():  # as brokers do
                group.offsets = {tp: n for tp, n in group.offsets.items() if tp.topic not in names}
            self._cluster.topics_changed(names)

    def group_members(self, group: str) -> int:
        with self._cluster.lock:
            found = self._cluster.groups.get(group)
            return len(found.members) if found else 0

    def group_offsets(self, group: str) -> dict[TP, int]:
        with self._cluster.lock:
            found = self._cluster.groups.get(group)
            return dict(found.offsets) if found else {}

    def set_group_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        with self._cluster.lock:
            self._inactive(group)
            self._cluster.group(group).offsets |= offsets

    def delete_group(self, group: str) -> None:
        with self._cluster.lock:
            self._inactive(group)
            if found := self._cluster.groups.get(group):  # consumers made for it may still join
                found.offsets.clear()

    def _inactive(self, group: str) -> None:
        if members := self.group_members(group):
            raise NeedsOperator(f"the group {group} has {members} members: stop its workers first")

    def offsets_for_time(self, partitions: Sequence[TP], time_ms: int) -> dict[TP, int]:
        found = {}
        with self._cluster.lock:
            for tp in partitions:
                log = self._cluster.get(tp)
                later = (offset for offset, at in zip(log.offsets, log.times, strict=True) if at >= time_ms)
                found[tp] = next(later, log.next)
        return found

    def transaction_since(self, transactional_id: str) -> int | None:
        with self._cluster.lock:
            return self._cluster.transaction_since(transactional_id)

    def delete_records(self, before: Mapping[TP, int]) -> None:
        with self._cluster.lock:
            for tp, offset in before.items():
                self._cluster.get(tp).cut(offset)

    def set_quota(self, client_id: str, quota: Mapping[str, float]) -> None:
        """Kept, and not enforced."""
        self._cluster.quotas.pop(client_id, None)
        if quota:
            self._cluster.quotas[client_id] = dict(quota)

    def topic_bytes(self, names: Sequence[str]) -> dict[str, int] | None:
        return None

    def close(self) -> None:
        """Nothing is held."""


class MemoryCluster:
    """A log of its own, shared by the clients made here. `now_ms` is the broker's clock."""

    name = "embedded"

    def __init__(self, *, now_ms: Clock = system, quiet_s: float = QUIET_S) -> None:
        """`quiet_s`: how long readers wait before they say that nothing came; 0 for a caller that steps in one thread."""
        self.now_ms, self.quiet_s = now_ms, quiet_s
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.topics: dict[str, _Topic] = {}
        self.groups: dict[str, _Group] = {}
        self.quotas: dict[str, dict[str, float]] = {}  # by client id
        self.ids = count(1)
        self._producers: dict[str, MemoryProducer] = {}

    def consumer(self, group: str, *, instance: str | None = None) -> Consumer:
        """`instance` changes nothing here: a member that leaves is gone at once, and one that comes costs nothing."""
        with self.lock:
            return MemoryConsumer(self, group)

    def producer(self, transactional_id: str | None = None) -> Producer:
        with self.lock:
            producer = MemoryProducer(self, transactional_id)
            if transactional_id is not None:
                if before := self._producers.get(transactional_id):
                    before.fence()
                self._producers[transactional_id] = producer
            return producer

    def reader(self) -> Reader:
        return MemoryReader(self)

    def admin(self) -> Admin:
        return MemoryAdmin(self)

    def expire(self, member: Consumer) -> None:
        """End a member's session, as if its process had hung: others get its partitions, its next poll tells it."""
        assert isinstance(member, MemoryConsumer)
        with self.lock:
            member.expire()
            self.changed.notify_all()

    def compact(self, topic: str) -> None:
        """Run the cleaner to its end: the last committed record of each key stays, and a deletion for a day."""
        with self.lock:
            for log in self.topics[topic].partitions:
                log.compact(self.now_ms() - DELETE_RETENTION_MS)

    # ------------------------------------------------------------------------ for the clients above, under the lock
    def group(self, name: str) -> _Group:
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = _Group(name)
        return found

    def find(self, tp: TP) -> _Partition | None:
        topic = self.topics.get(tp.topic)
        return topic.partitions[tp.partition] if topic and tp.partition < len(topic.partitions) else None

    def transaction_since(self, transactional_id: str) -> int | None:
        producer = self._producers.get(transactional_id)
        return producer.since_ms if producer is not None else None

    def get(self, tp: TP) -> _Partition:
        found = self.find(tp)
        if found is None:
            raise BrokerAway(f"the topic {tp.topic} does not exist (yet)")
        return found

    def topics_changed(self, names: Iterable[str]) -> None:
        for group in self.groups.values():
            if any(not member.topics.isdisjoint(names) for member in group.members.values()):
                group.rebalance(self.topics)
        self.changed.notify_all()

"""A full copy of small compacted topics on this machine, and what it may be trusted for: everything up to when.

One thread follows the topics (`run`, in rounds of `turn`), any thread reads. Entries, changes and positions land in one
write. What a copy cannot know (a topic made anew, deletions that may have left the log unseen) it copies again from the
start; until it is whole, and where it is older than was asked for, readers get `Stale`: the doors stay shut.

A key lives in one partition of its topic. A topic that is deleted and created again is noticed within IDS_S, or when
its offsets do not fit, whichever comes first.
"""

from __future__ import annotations

import logging
import math
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition, Event
from typing import Any, NamedTuple

import msgspec

from c360.clock import Clock
from c360.engine.restore import begin
from c360.engine.state import AWAY_MS
from c360.engine.transport import TP, Admin, Batch, Cluster, Reader
from c360.errors import BrokerAway, C360Error, NeedsOperator, OutOfLog, Stale, TaskCorrupted
from c360.tables.store import Entry, Store, Stores
from c360.tables.table import after

log = logging.getLogger("c360.engine")

IDS_S = 5.0  # between two looks at whether the topics are still the same ones
AWAY_S = 0.5  # between two tries while the broker is away
MARK_MS = 60_000  # so often a copy without news notes that it has looked
KEPT = 100_000  # changes that are kept, by partition, in offsets; who is further behind looks at everything
PORTION = 1_000  # entries read or written at a time: readers wait for a write

FOLLOWED, ENTRIES, CHANGES = b"\x00followed", b"\x01", b"\x02"
_CHANGE = struct.Struct(">BHQ")  # topic, partition, offset


class Part(msgspec.Struct):
    """One partition: the offset to go on from, and the offset from which its changes are kept."""

    next: int = 0
    floor: int = 0


class Topic(msgspec.Struct):
    id: str = ""
    parts: list[Part] = []


class Followed(msgspec.Struct):
    """The entry `followed`: where the copy stands. `since_ms`: when everything was held last, or the copy begun."""

    topics: dict[str, Topic] = {}
    since_ms: int = 0
    whole: bool = False


class Changes(NamedTuple):
    """What a listener is told. `anew`: it cannot be told what has changed; it has to look at everything once.

    `seen`: JSON values, to be kept with what the listener made of the changes, and given back when it asks again.
    """

    keys: list[tuple[str, bytes]]
    seen: dict[str, Any]
    anew: bool


@dataclass
class Copied:
    """For metrics."""

    records: int = 0
    rebuilds: int = 0
    failures: int = 0


@dataclass
class _Partition:
    """What `restore.begin` asks of a copy of one partition: forgetting one is forgetting its topic."""

    part: Part
    forget: Callable[[], None]

    @property
    def next(self) -> int:
        return self.part.next


@dataclass(frozen=True)
class _Look:
    """Where the topics ended at some moment."""

    at_s: float
    at_ms: int
    ends: Mapping[TP, int]


@dataclass(eq=False)
class GlobalTable:
    """`clock`: epoch ms, for what may have left the log; `monotonic`: seconds, for ages.

    `name`: of its place among the stores. `look_s`: between two looks at where the topics end.
    """

    name: str
    topics: Sequence[str]
    cluster: Cluster
    stores: Stores
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    look_s: float = 0.1
    away_ms: int = AWAY_MS
    kept: int = KEPT
    # Topics that leave no trace of a key that is deleted: of the first nobody is told any changes, of the second no deletions.
    silent: Collection[str] = ()
    traceless: Collection[str] = ()
    # Topics that nobody can write again, and what to say of one that is made anew while it is followed: it ends this copy.
    lasting: Mapping[str, str] = field(default_factory=dict)
    copied: Copied = field(default_factory=Copied)
    version: int = 0  # goes up with each change: a cheap question whether there is something to ask for
    trouble: str = ""  # why it does not get on, for messages

    def __post_init__(self) -> None:
        self.topics = tuple(self.topics)
        assert 0 < len(self.topics) < 256
        self._numbers = {topic: n for n, topic in enumerate(self.topics)}
        self._moved = Condition()  # guards all below that readers look at
        self._store: Store | None = None
        self._followed = Followed()
        self._reached: dict[TP, int] = {}
        self._as_of_s = -math.inf
        self._look: _Look | None = None
        self._looked = self._asked = -math.inf
        self._reader: Reader | None = None
        self._admin: Admin | None = None
        self._reading: Iterator[tuple[list[Batch], dict[TP, int]]] | None = None
        self._written_ms = 0
        self._met: dict[str, str] = {}  # ids of the lasting ones, as this process found them

    # ================================================================================================ reading, any thread
    def get(self, key: bytes, topic: str | None = None) -> bytes | None:
        """The value of a key of a topic (default: the first). Raises Stale while there is no whole copy."""
        return self.get_many([key], topic)[0]

    def get_many(self, keys: Sequence[bytes], topic: str | None = None) -> list[bytes | None]:
        """As they were at one moment."""
        prefix = self._prefix(ENTRIES, topic)
        with self._moved:
            return self._whole().get_many([prefix + key for key in keys])

    def scan(self, prefix: bytes = b"", topic: str | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose keys begin so, in order. Read in portions, each as it is at that moment."""
        own = self._prefix(ENTRIES, topic)
        start, stop = own + prefix, after(own + prefix)
        while True:
            with self._moved:
                found = [e for e, _ in zip(self._whole().scan(start, stop), range(PORTION), strict=False)]
            for key, value in found:
                yield key[len(own) :], value
            if len(found) < PORTION:
                return
            start = found[-1][0] + b"\0"

    def reached(self) -> dict[TP, int]:
        """Offsets below which everything committed is held."""
        with self._moved:
            return dict(self._reached)

    def ids(self) -> dict[str, str]:
        """Ids of the topics that the copy is of; one that is deleted and created again is another."""
        with self._moved:
            return {name: topic.id for name, topic in self._followed.topics.items()}

    def age(self) -> float:
        """Seconds since the last moment of which it is known that everything appended before it is held."""
        return self.monotonic() - self._as_of_s

    def fresh(self, max_age_s: float) -> None:
        """Raises Stale when the copy is older than that, or not whole."""
        with self._moved:
            self._whole()
            age = self.age()
        if age > max_age_s:
            raise self._stale(f"is {age:.1f} s old, {max_age_s:g} s is allowed")

    def wait_until(self, offsets: Mapping[TP, int], deadline: float) -> None:
        """Return when everything below these offsets is held; `deadline` as `monotonic` has it. Raises Stale after it."""
        with self._moved:
            while not self._holds(offsets):
                left = deadline - self.monotonic()
                if left <= 0:
                    raise self._stale("does not hold what was asked for in time")
                self._moved.wait(min(left, 0.1))
            self._whole()

    def _holds(self, offsets: Mapping[TP, int]) -> bool:
        return all(self._reached.get(tp, -1) >= offset for tp, offset in offsets.items())

    def _whole(self) -> Store:
        if self._store is None or not self._followed.whole:
            raise self._stale("is not whole yet")
        return self._store

    def _stale(self, what: str) -> Stale:
        why = f" ({self.trouble})" if self.trouble else ""
        return Stale(
            f"{self.name}: the copy of {', '.join(self.topics)} {what}{why}. Nothing is let out on what it says;"
            " it goes on by itself when the broker answers and no transaction is left open there"
        )

    def _prefix(self, kind: bytes, topic: str | None) -> bytes:
        return kind + bytes([self._numbers[topic] if topic is not None else 0])

    # --------------------------------------------------------------------------------------------------- listeners
    def mark(self) -> dict[str, Any]:
        """Where a listener stands that is about to look at everything. Raises Stale while there is no whole copy."""
        with self._moved:
            self._whole()
            return self._mark()

    def _mark(self) -> dict[str, Any]:
        topics = self._followed.topics
        return {
            "ids": {name: topic.id for name, topic in topics.items()},
            "next": {name: [part.next for part in topic.parts] for name, topic in topics.items()},
            "ms": self._followed.since_ms,
        }

    def changes(self, seen: Mapping[str, Any] | None, limit: int = PORTION) -> Changes:
        """Keys that changed since `seen`, at most so many; a key may come twice. Raises Stale while there is no whole copy.

        Asked with the same `seen` it tells the same again: what a listener has lost with its transaction is not lost.
        """
        with self._moved:
            store, now = self._whole(), self._mark()
            if seen is None or self._lost(seen):
                return Changes([], now, True)
            keys: list[tuple[str, bytes]] = []
            drained = True
            for name, topic in self._followed.topics.items():
                before = seen["next"][name]
                for number, part in enumerate(topic.parts):
                    start = before[number] if number < len(before) else 0
                    rows = store.scan(
                        self._change(name, number, start), self._change(name, number, max(start, part.next))
                    )
                    room = limit - len(keys)
                    found = [row for row, _ in zip(rows, range(room), strict=False)]
                    keys += [(name, key) for _, key in found]
                    if len(found) == room:  # there may be more: go on behind the last one
                        part_next = _CHANGE.unpack(found[-1][0][1:])[2] + 1 if found else start
                    else:
                        part_next = max(start, part.next)
                    now["next"][name][number] = part_next
                    drained = drained and part_next == part.next
            if not drained:
                now["ms"] = seen["ms"]
            return Changes(keys, now, False)

    def _lost(self, seen: Mapping[str, Any]) -> bool:
        """Whether changes since then may be unknown here."""
        topics = self._followed.topics
        if (
            seen["ids"] != {name: topic.id for name, topic in topics.items()}
            or self.clock() - seen["ms"] > self.away_ms
        ):
            return True
        return any(
            (before[number] if number < len(before) else 0) < part.floor
            for name, topic in topics.items()
            for before in [seen["next"][name]]
            for number, part in enumerate(topic.parts)
        )

    def _change(self, topic: str, partition: int, offset: int) -> bytes:
        return CHANGES + _CHANGE.pack(self._numbers[topic], partition, offset)

    # =========================================================================================== following, one thread
    def run(self, stopped: Event) -> None:
        """Follow until told to stop. Raises what no retry in this process can mend; readers are told of it as well."""
        try:
            while not stopped.is_set():
                if not self.turn():
                    stopped.wait(AWAY_S)
        except BaseException as error:
            self.trouble = f"nobody follows any more: {error or type(error).__name__}"
            raise
        finally:
            self.close()

    def turn(self) -> bool:
        """One round; waits at most about 0.1 s, as long as readers of the cluster do.

        False when it could not get on and should be left alone for a while.
        """
        try:
            if self._reading is None:
                self._connect()
            self._turn()
        except OutOfLog as error:  # cut between two looks at where it begins
            self._failed(error)
            return False
        except NeedsOperator:
            self._whole_no_more()
            raise
        except TaskCorrupted as error:
            self._failed(error)
            with self._moved:
                store, self._store = self._store, None
                self._followed, self._as_of_s = Followed(), -math.inf
                if store is not None:
                    store.destroy()
            return False
        except BrokerAway as error:
            self._failed(error)
            return False
        self.trouble = ""
        return True

    def _whole_no_more(self) -> None:
        with self._moved:
            self._followed.whole, self._as_of_s, self._reached = False, -math.inf, {}

    def _turn(self) -> None:
        # 1 where does everything end, and is it still the same
        now_s, now_ms = self.monotonic(), self.clock()
        if now_ms - self._followed.since_ms > self.away_ms or (
            now_s - self._asked >= IDS_S and self._names() != self._known()
        ):
            self._disconnect()
            return
        if self._look is None and now_s - self._looked >= self.look_s:
            assert self._reader is not None
            self._look, self._looked = _Look(now_s, now_ms, self._reader.ends(list(self._parts()))), now_s
        # 2 take what there is
        assert self._reading is not None
        try:
            batches, reached = next(self._reading)
        except OutOfLog as error:  # cut while it was read: connecting finds out what is to be done
            log.info("%s: %s", self.name, error)
            self._disconnect()
            return
        for batch in batches:
            for start in range(0, len(batch), PORTION):
                self._apply(batch.slice(start, min(start + PORTION, len(batch))))
        # 3 say how far it is
        parts = self._parts()
        with self._moved:
            for tp, offset in reached.items():
                parts[tp].next = max(parts[tp].next, offset)
            self._reached = {tp: part.next for tp, part in parts.items()}
            look = self._look
            if look is not None and self._holds(look.ends):
                self._as_of_s, self._followed.since_ms, self._look = look.at_s, look.at_ms, None
                first, self._followed.whole = not self._followed.whole, True
                if first or look.at_ms - self._written_ms >= MARK_MS:
                    self._write([])
            self._moved.notify_all()

    def _apply(self, batch: Batch) -> None:
        """A batch, the keys it changed and the position after it, in one write."""
        topic, partition = batch.tp
        part = self._followed.topics[topic].parts[partition]
        prefix, floor = self._prefix(ENTRIES, topic), part.floor
        entries: list[Entry] = []
        for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
            if key is not None:
                entries.append((prefix + key, value))
                if offset >= floor and topic not in self.silent:
                    entries.append((self._change(topic, partition, offset), key))
        gone = (
            {k for k, v in zip(batch.keys, batch.values, strict=True) if v is None} if topic in self.traceless else ()
        )
        with self._moved:
            assert self._store is not None
            if gone:
                entries = [(row, None if row[:1] == CHANGES and key in gone else key) for row, key in entries]
                told = self._store.scan(self._change(topic, partition, 0), self._change(topic, partition, part.next))
                entries += [(row, None) for row, key in told if key in gone]
            part.next = batch.offsets[-1] + 1
            if part.next - floor > 2 * self.kept:
                part.floor = part.next - self.kept
                old = self._store.scan(self._change(topic, partition, 0), self._change(topic, partition, part.floor))
                entries += [(row, None) for row, _ in old]
            self._write(entries)
            self.copied.records += len(batch)
            self.version += 1

    def _write(self, entries: list[Entry]) -> None:
        assert self._store is not None
        self._store.write([*entries, (FOLLOWED, msgspec.json.encode(self._followed))])
        self._written_ms = self._followed.since_ms

    # ------------------------------------------------------------------------------------------------- connections
    def _connect(self) -> None:
        """Open the copy, forget of it what is not of these topics any more, and begin to read."""
        if self._store is None:
            self._open()
        self._reader = self._reader or self.cluster.reader()
        names, followed, now_ms = self._names(), self._followed, self.clock()
        away = followed.since_ms and now_ms - followed.since_ms > self.away_ms
        if away or not followed.since_ms:
            followed.since_ms = now_ms
        for name, (topic_id, partitions) in names.items():
            topic = followed.topics.setdefault(name, Topic(topic_id))
            if name in self.lasting and self._met.setdefault(name, topic_id) != topic_id:
                raise NeedsOperator(f"{name} was deleted and created again: {self.lasting[name]}")
            if away or topic.id != topic_id or len(topic.parts) > partitions:
                self._forget(name)
            topic.id = topic_id
            with self._moved:
                del topic.parts[partitions:]
                topic.parts += [Part() for _ in range(partitions - len(topic.parts))]
        parts = self._parts()
        copies = {tp: _Partition(part, lambda name=tp.topic: self._forget(name)) for tp, part in parts.items()}  # type: ignore[misc]
        positions, ends = begin(self._reader, copies)
        for tp, part in parts.items():
            if not part.next:
                part.floor = max(positions[tp], ends[tp] - self.kept)  # of what is older nobody is told one by one
        self._reading = self._reader.follow(positions)

    def _open(self) -> None:
        store = self.stores.open(self.name)
        try:
            (data,) = store.get_many([FOLLOWED])
            found = msgspec.json.decode(data, type=Followed) if data is not None else Followed()
            # Numbered otherwise: of another declaration
            if list(found.topics) != list(self.topics)[: len(found.topics)]:
                store.write([(key, None) for key, _ in store.scan(b"", b"\x03")])
                found = Followed()
            if len(found.topics) < len(self.topics):
                found.whole = False
        except TaskCorrupted:
            store.destroy()
            raise
        with self._moved:
            self._store, self._followed = store, found

    def _names(self) -> dict[str, tuple[str, int]]:
        """Id and number of partitions of each topic. Raises BrokerAway while one does not exist."""
        self._admin = self._admin or self.cluster.admin()
        ids, counts = self._admin.topic_ids(self.topics), self._admin.topics()
        if missing := [name for name in self.topics if name not in ids or name not in counts]:
            raise BrokerAway(f"the topic {', '.join(missing)} does not exist (yet)")
        self._asked = self.monotonic()
        return {name: (ids[name], counts[name]) for name in self.topics}

    def _known(self) -> dict[str, tuple[str, int]]:
        return {name: (topic.id, len(topic.parts)) for name, topic in self._followed.topics.items()}

    def _parts(self) -> dict[TP, Part]:
        topics = self._followed.topics.items()
        return {TP(name, number): part for name, topic in topics for number, part in enumerate(topic.parts)}

    def _forget(self, name: str) -> None:
        """Nothing of a topic is known; one write, so that nobody and no crash sees a part of it."""
        log.warning("%s: %s is copied again from its start", self.name, name)
        topic = self._followed.topics[name]
        with self._moved:
            assert self._store is not None
            for part in topic.parts:
                part.next = part.floor = 0
            self._followed.whole, self._as_of_s, self._look = False, -math.inf, None
            self._reached = {tp: n for tp, n in self._reached.items() if tp.topic != name}
            gone: list[Entry] = []
            for kind in (ENTRIES, CHANGES):
                prefix = self._prefix(kind, name)
                gone += [(key, None) for key, _ in self._store.scan(prefix, after(prefix))]
            self._write(gone)
            self.copied.rebuilds += 1
            self.version += 1

    def _failed(self, error: C360Error) -> None:
        if str(error) != self.trouble:
            log.warning("%s: %s; waiting", self.name, error)
        self.trouble = str(error)
        self.copied.failures += 1
        self._disconnect()

    def _disconnect(self) -> None:
        """Clients that have met an error may never learn better; the next round makes new ones."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()  # type: ignore[attr-defined]  # a generator with every reader
        reader, self._reader = self._reader, None
        admin, self._admin = self._admin, None
        self._look = None
        for client in (reader, admin):
            if client is not None:
                client.close()

    def close(self) -> None:
        """Let go of everything; what is on disk stays. Readers get Stale from now on."""
        self._disconnect()
        with self._moved:
            store, self._store = self._store, None
            if store is not None:
                store.close()
            self._moved.notify_all()

"""The production task on its own, over a store in memory: one call of `step` is one transaction.

A batch of inputs goes in, messages and records come out; nothing lasts before `commit`. A crash is a new task over the
same store. Records are handed over as they are: how they are decoded is not what is looked at here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from c360.agents.folding import SourceFold
from c360.agents.moves import MoveCounters
from c360.agents.profiles import PROFILES, ProfileState, notes_of_reset, written_before
from c360.agents.projection import Compiled, ProjectionCounters, ProjectionTask
from c360.agents.render import Renderer, Sight
from c360.agents.wire import Assignment, encode
from c360.engine import agent
from c360.engine.partition import partition_of
from c360.engine.transport import TP, Batch, Headers
from c360.profile.fold import Fold
from c360.profile.home import Home
from c360.profile.parts import Assigned, Erased, encode_part
from c360.profile.record import ProfileWriter
from c360.profile.slots import Owner
from c360.tables.store import MemoryStore
from tests.profile.folds import Folder
from tests.profile.oracle import Item, Rule

NOTES = b"\x00notes"


class Record(NamedTuple):
    subject: str
    item: Item
    sign: int = 1
    life: int = 0

    @property
    def at(self) -> int:
        return self.item.at

    @property
    def mask(self) -> int:
        return self.item.mask

    @property
    def cause(self) -> int:
        return self.item.at


class Day(NamedTuple):
    day: int


class Unassigned(NamedTuple):
    """A tombstone in the assignments."""


Input = tuple[str, Any]  # key; Record, Assigned, Unassigned, Erased, Day, or bytes from `parts`


class Rules:
    """What is compiled once per projection."""

    def __init__(self, rules: Sequence[Rule], partitions: int, listed: int = 100) -> None:
        self.rules, self.partitions, self.listed = rules, partitions, listed
        self.folder = Folder(rules)
        self.folding = self.folder.folding
        self.names = names = [rule.attribute.name for rule in rules]
        every = range(len(names))
        self.sights = [Sight("one", 1, tuple(every)), Sight("two", 2, tuple(every[::2]))]
        self.write = ProfileWriter("customer", 1, names)
        self.compiled = Compiled(
            agent="customer@1",
            output="customer",
            dlq="dlq",
            days="days",
            assignments="assignments",
            parts="parts",
            erase=None,
            receipts="receipts",
            partitions=partitions,
            folding=self.folding,
            sources={s: SourceFold(lambda record: record, {Record: _on_item(f)}) for s, f in self.folder.folds.items()},
            renderer=Renderer(self.folding, names, self.write, sights=self.sights),
            listed=listed,
        )
        self.owner = Owner(self.folding, self.compiled.views, listed)

    def partition(self, key: str) -> int:
        return partition_of(key.encode(), self.partitions)


def _on_item(fold: Fold) -> Fold:
    """Here it is a record that has a mask, not its source: so masks meet as they would between sources."""
    return lambda fragment, record, at, sign, _: fold(fragment, record.item, at, sign, record.mask)


def _said(key: str, value: Any) -> tuple[str, Any]:
    """The topic of an input, and its value there."""
    match value:
        case Record():
            return value.item.source, value
        case Assigned():
            ids = list(value.identifiers)
            return "assignments", encode(
                Assignment(seq=value.seq, profile=value.profile, identifiers=ids, change="moved", cause="")
            )
        case Unassigned():
            return "assignments", None
        case Erased():
            return "parts", encode_part(value)
        case Day():
            return "days", b"%d" % value.day
        case bytes():
            return "parts", value
    raise ValueError("no input")


class Broken(Exception):
    """Nothing can be said."""


class Outcome:
    """What a step has said, as an Outbox; it breaks after `most` records."""

    def __init__(self, most: int | None = None) -> None:
        self.parts: list[tuple[str, bytes]] = []  # key, message
        self.records: list[tuple[str, bytes | None]] = []  # profile, record
        self.most = most

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        if self.most is not None and len(self.parts) + len(self.records) >= self.most:
            raise Broken
        assert key is not None
        if topic == "parts":
            assert value is not None
            self.parts.append((key.decode(), value))
        else:
            assert topic == "customer"
            self.records.append((key.decode(), value))


class Task:
    def __init__(self, rules: Rules, partition: int, store: MemoryStore) -> None:
        self.rules, self.partition, self.store = rules, partition, store
        self.counters = ProjectionCounters()
        self.processor = ProjectionTask(rules.compiled, agent.Task(TP("tasks", partition), ()), self.counters)
        for table in self.processor.tables:
            table.bind(store)
        self._resume()

    def _resume(self) -> None:
        (found,) = self.store.get_many([NOTES])
        notes, positions = msgspec.json.decode(found) if found is not None else ({}, {})
        self.positions = Counter[str](positions)  # by topic
        self.processor.resume(notes)

    def step(self, batch: Iterable[Input], *, most: int | None = None) -> Outcome:
        """Raises Broken where more than `most` records are said."""
        said = list(batch)
        out = Outcome(most)
        for topic, items in groupby(((k, *_said(k, value)) for k, value in said), key=lambda item: item[1]):
            self._process(topic, [(key, value) for key, _, value in items], out)
        subjects = {key for key, value in said if not isinstance(value, bytes)}
        self.news = sorted(subjects | {key.decode() for key in self.processor.moves.news})  # subjects that were touched
        positions = {TP(topic, self.partition): n for topic, n in self.positions.items()}
        self.processor.settle(out)
        self.processor.finish({TP(t, self.partition): 0 for t in self._topics()} | positions, 0, out)
        return out

    def _topics(self) -> list[str]:
        return [*self.rules.compiled.sources, "assignments", "days"]

    def _process(self, topic: str, items: Sequence[tuple[str, Any]], out: Outcome) -> None:
        first = self.positions[topic]
        self.positions[topic] += len(items)
        keys: list[bytes | None] = [key.encode() for key, _ in items]
        offsets = list(range(first, first + len(items)))
        batch = Batch(
            TP(topic, self.partition), offsets, keys, [value for _, value in items], [0] * len(items), lambda i: []
        )
        self.processor.process(batch, out)

    def commit(self) -> None:
        notes = msgspec.json.encode((self.processor.notes(), self.positions))
        entries = [entry for table in self.processor.tables for entry in table.changes()]
        self.store.write([*entries, (NOTES, notes)])
        for table in self.processor.tables:
            table.committed()

    def abort(self) -> None:
        """Forget the step, or what it had done until it failed."""
        for table in self.processor.tables:
            table.rolled_back()
        self._resume()

    # ------------------------------------------------------------------------------------------------------ look
    @property
    def today(self) -> int:
        return self.processor.today

    @property
    def moves(self) -> MoveCounters:
        return self.counters.moves

    @property
    def is_behind(self) -> bool:
        """Whether it has more to do by itself, as it catches up or days have come."""
        return bool(self.processor.catch_up) or self.processor.wants(0)

    def state(self, key: str) -> ProfileState:
        """What lies there, for looking at only."""
        return self.processor.profiles.get(key.encode()) or ProfileState({})

    def home(self, key: str) -> Home | None:
        return self.state(key).home

    def life(self, key: str) -> int:
        home = self.home(key)
        return 0 if home is None else home.life

    def written(self) -> dict[bytes, int]:
        """Rows that the step has changed, by table."""
        return {table.prefix: len(table.dirty) for table in self.processor.tables if table.dirty}


def rewound(rules: Rules, catch_up: Mapping[str, int], digests: Mapping[str, bytes]) -> MemoryStore:
    """What a reset leaves of a task: what it has to catch up with, and digests of what it has written."""
    store = MemoryStore()
    store.write([(PROFILES + key.encode(), written_before(rules.folding, digest)) for key, digest in digests.items()])
    store.write([(NOTES, msgspec.json.encode((notes_of_reset(catch_up), {})))])
    return store

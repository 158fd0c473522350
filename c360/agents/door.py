"""door: profiles leave, as a purpose may see them or as a sink's function gives them, while people let them.

    projection's topic ──► held ──┐          of versions that are not live: beside
    consent, suppressed ──news────┼──► due ──► judge ──► delivered? ──► record, tombstone, nothing
    ends of decisions ────────────┘                        the fence: in `finish`, and at the gate

One task per partition of profiles. `process` only notes the newest record of each; `finish` decides, as late as can be, so
that what was decided on is seconds younger than the backlog. Net changes leave: a record that is another than the last, a
tombstone for what was delivered. Right before its commit the gate asks again: is the fence held, has anything been decided
on somebody in this transaction since, has a decision expired? Then nothing of it leaves. What only takes back may always.

What a task has learnt of the copies (`seen`) is in its notes, in the transaction that acts on it: what it learnt right before
it crashed it learns again. While it may not deliver, it takes back and learns nothing for good.

Erased: `Erase` comes to the task of the identifier's partition. It removes the profile of that name, and those it holds that
list the identifier, and says so in a receipt, in one transaction, once its copy has the suppression; one that was lifted
meanwhile removes nothing, as what is here may be of the life that began then. Profiles elsewhere that
list it are not delivered any more, by the suppression, which every task knows; their rows go when the projection has written
them without it. So a receipt is of what this task held; the erasure agent asks for each subject, and ids of profiles are such.
Nothing of the identifier leaves by this task after its receipt, as long as the suppression stands.

Versions: a sink reads all versions of its projection, and delivers of the live one. Its rows are of that one's reading
(`readings`), with what was delivered; the newest records of the others are `beside`, and decide nothing. When another version
is live, a task goes over once it has read that as far as it went when this was noticed: from then on whatever profile is due
changes places, the live version's record with the row's, and is decided on against what was delivered; a sweep over rows and
records beside makes all of them due. So what leaves are net changes, whichever versions have been live in between. A sweep
under way begins anew when the live version changes again, and both tables say by reading what is whose.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import merge
from itertools import groupby, islice
from typing import Any

import msgspec

from c360.agents.audit import Chain, DoorLog
from c360.agents.cloud import Told, event_id
from c360.agents.contracts import Wire
from c360.agents.fencing import INPUTS_S, Fence, shut_by, staters_of
from c360.agents.judging import Judge, labels_of
from c360.agents.readings import Readings
from c360.agents.wire import CAUSE, MisfitRecord, encode, misfit_in, read_of
from c360.clock import Clock
from c360.engine.agent import Copartitioned, Outbox, Processor, Task
from c360.engine.global_table import GlobalTable
from c360.engine.loop import LoopSettings
from c360.engine.transport import TP, Batch, Headers
from c360.errors import NeedsOperator, Shut, Stale
from c360.governance.fence import Answer, Taken, recheck
from c360.governance.messages import Erase, Receipt, decode_erase, encode_receipt
from c360.governance.names import Vault
from c360.governance.suppressed import Suppressed, decode_suppressed
from c360.plan import Plan
from c360.profile.format import digest_of
from c360.rights import Door
from c360.tables.inverse import Inverse
from c360.tables.table import Table
from c360.tables.timers import Timers

log = logging.getLogger("c360.doors")

HELD, BESIDE, HOLDERS, ENDS, BEGINS = b"h", b"v", b"i", b"e", b"b"  # tables
PROFILES_PER_COMMIT = (
    5_000  # at most: fewer where somebody in so many decides again and again before they are committed
)
BEHIND_S = 0.2
NEWS = 1_000  # keys asked for at a time
TAKEN_BACK = 20_000  # profiles looked at while shut, at a time; and identifiers that are to be looked up
OPEN = Answer(True, "open")
JSON, AVRO = "application/json", "application/avro"  # content types


# ------------------------------------------------------------------------------------------------------------- state
class Held(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is kept of a profile: its internal record, as it came, and what became of it.

    record: b"" after a reset, until it is read again. digest: of what was delivered; b"" nothing. why: it does not leave.
    at: when it is to be looked at again, since what lets it leave ends then (`leaves`), or what does not. reading: of which
    version the record is; 0 none. event: id of the last CloudEvent about it; b"" where it had none.
    """

    record: bytes
    digest: bytes = b""
    why: str = ""
    at: int | None = None
    leaves: bool = False
    reading: int = 0
    event: bytes = b""


def place(reading: int, key: bytes = b"") -> bytes:
    """Where a profile's record of a reading is kept beside the rows."""
    return reading.to_bytes(4, "big") + key


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Held).decode


def held_before(digest: bytes) -> bytes:
    """The row of a profile of which nothing is known but what was delivered last: with it a reset begins."""
    return _pack(Held(b"", digest))


def notes_of_reset(catch_up: Mapping[str, int]) -> dict[str, Any]:
    """What a task begins with: inputs ("topic/partition") to be read up to an offset, then all profiles to be compared."""
    return {"catch_up": dict(catch_up)} if catch_up else {"sweep": ""}


@dataclass
class DoorCounters:
    """What became of profiles in this process, for metrics; work that was aborted counts again."""

    delivered: int = 0
    removed: int = 0
    unchanged: int = 0
    misfits: int = 0
    timers: int = 0  # that have come
    swept: int = 0
    beside: int = 0  # records of versions that are not live
    swapped: int = 0  # profiles whose record is of another version since
    receipts: int = 0
    newest_cause: int = 0
    held_back: Counter[str] = field(default_factory=Counter)  # profiles that do not leave, by reason, when looked at
    shut: Counter[str] = field(default_factory=Counter)  # times that nothing might leave, by reason


@dataclass
class Made:
    """What is in the open transaction, of all tasks."""

    labels: set[str] = field(default_factory=set)  # of profiles that are delivered, also as suppressed has them
    changes_at: int | None = None
    mark: dict[str, Any] | None = None  # of the copies, before anything was decided
    delivered: int = 0
    removed: int = 0


@dataclass
class TakingBack:
    """How far a task that may not deliver has looked for what may not stay. Not kept: once it may, it looks at all again."""

    seen: dict[str, Any] | None  # of the copies
    rest: list[tuple[str, str]]  # identifiers, and from which of their profiles on
    sweep: str | None = None  # where nobody can tell who was decided on: the profile from which on all are looked at


# -------------------------------------------------------------------------------------------------------------- task
class DoorTask:
    """One partition of the profiles of a projection."""

    def __init__(self, door: DoorAgent, task: Task) -> None:
        self.door, self.judge, self.counters = door, door.judge, door.counters
        self.partition = task.lead.partition
        self.held: Table[Held] = Table(HELD, _pack, _unpack)
        self.beside: Table[bytes] = Table(BESIDE, bytes, bytes)  # records of other readings than the rows are of
        self.holders = Inverse(HOLDERS)  # of an identifier, as suppressed has it
        self.ends, self.begins = Timers(ENDS), Timers(BEGINS)
        self.tables = (self.held, self.beside, self.holders, self.ends, self.begins)
        self.versions = {tp.topic: v for v, topic in door.topics.items() for tp in task.inputs if tp.topic == topic}
        self.log = door.log_of(self.partition)
        self.resume({})

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        # reading → profile → newest record, append time of its cause
        self.noted: dict[int, dict[bytes, tuple[bytes | None, int]]] = {}
        self.erasing: list[Erase] = []
        self.seen: dict[str, Any] | None = notes.get("seen")
        self.rest: list[tuple[str, str]] = [(name, start) for name, start in notes.get("rest", ())]
        self.sweep: str | None = notes.get("sweep")
        self.catch_up: dict[str, int] = dict(notes.get("catch_up", {}))
        self.back: TakingBack | None = None
        self.readings = Readings.resume(notes, self.versions.values())
        self.awaited: tuple[int, Mapping[TP, int]] | None = None  # a version that is live, and how far it is to be read
        self.function: str | None = notes.get("function")  # what makes of rows that which leaves
        if self.readings.rows is None:
            self.readings.rows = self.readings.of.get(self.door.live())
        if (version := self.readings.version) is not None:
            if self.function not in (None, self.judge.fingerprint(version)):
                self.sweep = ""
            self.function = self.judge.fingerprint(version)
        self.log.resume(notes)

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = self.readings.notes()
        if self.function is not None:
            notes["function"] = self.function
        if self.seen is not None:
            notes["seen"] = self.seen
        if self.rest:
            notes["rest"] = [list(one) for one in self.rest]
        if self.sweep is not None:
            notes["sweep"] = self.sweep
        if self.catch_up:
            notes["catch_up"] = self.catch_up
        return notes | self.log.notes()

    def process(self, batch: Batch, out: Outbox) -> None:
        if batch.tp.topic == self.door.erase:
            for key, value in zip(batch.keys, batch.values, strict=True):
                if key is not None and value is not None:
                    self.erasing.append(decode_erase(key, value))
            return
        noted = self._noted(batch.tp.topic)
        for at, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            assert key is not None, "a record of a projection is about a profile"
            noted[key] = value, _cause_of(batch.headers(at))

    def _noted(self, topic: str) -> dict[bytes, tuple[bytes | None, int]]:
        return self.noted.setdefault(self.readings.of[self.versions[topic]], {})

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        """What cannot be held is not delivered, nor is what was delivered of it before."""
        out.send(self.door.dlq, batch.keys[0], misfit_in(self.door.name, batch, 0, error))
        if batch.tp.topic != self.door.erase and batch.keys[0] is not None:
            self._noted(batch.tp.topic)[batch.keys[0]] = None, -1

    def settle(self, out: Outbox) -> None:
        self.door.begin()

    def wants(self, now_ms: int) -> bool:
        if self.ends.wants(now_ms):
            return True
        if self.door.is_shut and (back := self.back) is not None:
            return back.sweep is not None or bool(back.rest) or self.door.has_news(back.seen)
        return (
            self.sweep is not None
            or bool(self.rest)
            or bool(self.readings.gone)
            or self.readings.of.get(self.door.live(), self.readings.rows) != self.readings.rows
            or self.begins.wants(now_ms)
            or self.door.has_news(self.seen)
            or (not self.door.is_shut and self.log.wants(now_ms))
        )

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        try:
            self._finish(positions, now_ms, out)
        except Shut as shut:
            self.counters.shut[shut.reason] += 1
            raise
        except Stale as stale:
            self.counters.shut["copy"] += 1
            raise self.door.stays_shut(Shut("copy", str(stale))) from stale

    def _finish(self, positions: Mapping[TP, int], now: int, out: Outbox) -> None:
        came = bool(self.noted)
        self._follow_live(positions)
        due = self._take_in(out)
        if self.catch_up and all(positions[_tp(name)] >= end for name, end in self.catch_up.items()):
            self.catch_up, self.sweep = {}, ""
        answer = OPEN if self.catch_up else self.door.ask(now)
        if not answer.deliver:
            if due or not (came or self.door.is_shut):
                raise self.door.stays_shut(shut_by(answer))
            self._take_back(now, out)
        elif self.catch_up or self.readings.version is None:
            self._take_back(now, out)
            self._learn()  # what is to be delivered, the sweep will find
            self.back = None
        else:
            self.back = None
            self._due_by_news(due)
            self._due_by_time(now, due)
            rest = self._due_by_sweep(self.sweep, due, self.door.most, beside=True)
            self._decide(due, now, out)
            self.sweep = rest
            self._drop_gone()
        self._erase(positions, out)
        if answer.deliver:
            self.log.finish(now, out)

    # ------------------------------------------------------------------------------------------------- what is held
    def mixed(self) -> bool:
        """Whether rows may be of other readings, and records beside of that which they are to be of."""
        return self.sweep is not None or bool(self.catch_up)

    def _follow_live(self, positions: Mapping[TP, int]) -> None:
        """Go over to the live version, when it has been read as far as it went when this was noticed.

        What was not read yet would be missing, and taken back. Raises NeedsOperator where its records mean something else.
        """
        version, readings = self.door.live(), self.readings
        reading = readings.of.get(version)
        if reading is None or reading == readings.rows:
            self.awaited = None
            return
        if readings.rows is not None:
            if self.awaited is None or self.awaited[0] != version:
                self.door.check(version, self.partition)
                tp = TP(self.door.topics[version], self.partition)
                self.awaited = version, self.door.ends({tp: positions[tp]})
            if any(positions[tp] < end for tp, end in self.awaited[1].items()):
                return
            self.sweep = ""
        self.awaited, readings.rows, self.function = None, reading, self.judge.fingerprint(version)

    def _take_in(self, out: Outbox) -> dict[bytes, int | None]:
        """Hold the newest records; those profiles that are due for it, with what caused that."""
        due: dict[bytes, int | None] = {}
        for reading, noted in self.noted.items():
            if self.mixed() and self.readings.rows is not None:
                self._swap(noted, due)
            if reading == self.readings.rows:
                self._take_live(noted, due, out)
            else:
                self._take_beside(reading, noted)
        self.noted = {}
        return due

    def _take_live(
        self, noted: Mapping[bytes, tuple[bytes | None, int]], due: dict[bytes, int | None], out: Outbox
    ) -> None:
        rows, reading = self.held.load(noted), self.readings.rows
        assert reading is not None
        for key, (record, cause) in noted.items():
            row = rows[key]
            before = labels_of(row.record) if row is not None and row.record else frozenset[str]()
            after = labels_of(record) if record is not None else frozenset[str]()
            self._index(key, before, after, reading)
            if record is not None:
                row = Held(record, reading=reading) if row is None else msgspec.structs.replace(row, record=record)
                self.held.put(key, row)
                due[key] = cause
            elif row is not None and self.catch_up and row.digest:
                self._schedule(key, row, None, leaves=False)
                # an old end may be followed by a new beginning
                self.held.put(key, Held(b"", row.digest, reading=reading, event=row.event))
            elif row is not None:
                self._remove(key, row, out, cause)

    def _take_beside(self, reading: int, noted: Mapping[bytes, tuple[bytes | None, int]]) -> None:
        """Of a version that is not live: nothing is due for it."""
        records = self.beside.load([place(reading, key) for key in noted])
        for key, (record, _) in noted.items():
            before = labels_of(records[place(reading, key)] or b"")
            after = labels_of(record) if record is not None else frozenset[str]()
            self._index(key, before, after, reading)
            if record is None:
                self.beside.delete(place(reading, key))
            else:
                self.beside.put(place(reading, key), record)
        self.counters.beside += len(noted)

    def _swap(self, keys: Collection[bytes], due: dict[bytes, int | None]) -> None:
        """Rows of these profiles become those of the reading that rows are of; what changes is due."""
        reading, known = self.readings.rows, self.readings.of.values()
        assert reading is not None
        rows = self.held.load(keys)
        records = self.beside.load([place(reading, key) for key in keys])
        for key in keys:
            row, record = rows[key], records[place(reading, key)] or b""
            if row is None:
                if not record:
                    continue
                self.held.put(key, Held(record, reading=reading))
            elif row.reading == reading:
                continue
            else:
                if row.record and row.reading in known:
                    self.beside.put(place(row.reading, key), row.record)
                elif row.record:
                    self._index(key, labels_of(row.record), (), row.reading)
                self.held.put(key, msgspec.structs.replace(row, record=record, reading=reading))
            if record:
                self.beside.delete(place(reading, key))
            self.counters.swapped += 1
            due.setdefault(key, None)

    def _drop_gone(self) -> None:
        """What is kept of a reading of a version that is read no more, a portion."""
        gone = self.readings.gone
        if not gone:
            return
        found = list(islice(self.beside.scan(place(gone[0]), place(gone[0] + 1)), self.door.most))
        for row, record in found:
            self._index(row[len(place(0)) :], labels_of(record), (), gone[0])
            self.beside.delete(row)
        if len(found) < self.door.most:
            self.readings.gone = gone[1:]

    def _index(self, key: bytes, before: Collection[str], after: Collection[str], reading: int) -> None:
        """Of a profile's record of one reading, whose identifiers it was and is."""
        named = self.judge.named
        gone = [label for label in before if label not in after]
        if gone and len(self.readings.all) > 1:
            others = self._labels_but(key, reading)
            gone = [label for label in gone if label not in others]
        for label in gone:
            self.holders.remove(named(label).encode(), key)
        for label in after:
            if label not in before:
                self.holders.add(named(label).encode(), key)

    def _labels_but(self, key: bytes, reading: int) -> set[str]:
        """Of a profile's records of all readings but one."""
        places = [place(other, key) for other in self.readings.all if other != reading]
        records = self.beside.load(places)
        found = [records[at] or b"" for at in places]
        row = self.held.get(key)
        if row is not None and row.reading != reading:
            found.append(row.record)
        return set[str]().union(*map(labels_of, found))

    def _schedule(self, key: bytes, row: Held, at: int | None, *, leaves: bool) -> None:
        """Have it looked at when a decision ends; what was planned before is no more."""
        if row.at is not None and (row.at, row.leaves) != (at, leaves):
            (self.ends if row.leaves else self.begins).cancel(row.at, key)
        if at is not None:
            (self.ends if leaves else self.begins).schedule(at, key)

    def _remove(self, key: bytes, row: Held, out: Outbox, cause: int | None = None) -> int:
        """All of a profile; how many tombstones it took."""
        sent, _ = self._send(key, None, b"", row, cause, out)
        self._schedule(key, row, None, leaves=False)
        self.held.delete(key)
        return int(sent)

    # ------------------------------------------------------------------------------------------------- what is due
    def _learn(self) -> Iterable[bytes] | None:
        """Identifiers decided on since `seen`, as `holders` has them, which moves on; None: any may have been."""
        if not self.door.has_news(self.seen):
            return ()
        keys, self.seen, anew = self.door.news(self.seen)
        if anew:
            self.sweep = ""
            return None
        return keys

    def _due_by_news(self, due: dict[bytes, int | None]) -> None:
        if not self.rest:
            self.rest = [(key.decode(), "") for key in dict.fromkeys(self._learn() or ())]
        self._due_by_name(self.rest, due, 2 * self.door.most)

    def _due_by_name(self, rest: list[tuple[str, str]], due: dict[bytes, int | None], most: int) -> None:
        """Profiles of these identifiers, until so many are due; what is left of `rest` is to be done."""
        done = 0
        for name, start in rest:
            if (room := most - len(due)) <= 0:
                break
            members = self.holders.members(name.encode(), room, start.encode())
            for member in members:
                due.setdefault(member, None)
            if len(members) == room:
                rest[done] = name, members[-1].decode() + "\0"
                break
            done += 1
        del rest[:done]

    def _due_by_time(self, now: int, due: dict[bytes, int | None]) -> None:
        for timers in (self.ends, self.begins):
            if timers.wants(now):
                for _, key, _ in timers.pop(now, self.door.most):
                    self.counters.timers += 1
                    due.setdefault(key, None)

    def _due_by_sweep(
        self, sweep: str | None, due: dict[bytes, int | None], most: int, *, beside: bool = False
    ) -> str | None:
        """The next so many profiles; from which on it goes on. `beside`: also those that have no row yet."""
        if sweep is None:
            return None
        keys: Iterable[bytes] = (key for key, _ in self.held.scan(sweep.encode()))
        if beside and len(self.readings.all) > 1:
            reading = self.readings.rows
            assert reading is not None
            there = self.beside.scan(place(reading, sweep.encode()), place(reading + 1))
            keys = (key for key, _ in groupby(merge(keys, (at[len(place(0)) :] for at, _ in there))))
        found = list(islice(keys, most))
        for key in found:
            due.setdefault(key, None)
        self.counters.swept += len(found)
        return found[-1].decode() + "\0" if len(found) == most else None

    # --------------------------------------------------------------------------------------------------- decisions
    def _decide(self, due: dict[bytes, int | None], now: int, out: Outbox) -> None:
        if not due:
            return
        self.door.about_to_decide()
        if self.mixed():
            self._swap(list(due), due)
        rows, version = self.held.load(due), self.readings.version
        assert version is not None
        judged = self.judge.judge({key: row.record for key in due if (row := rows[key]) and row.record}, version, now)
        for key, cause in due.items():
            row = rows[key]
            if row is None:
                continue
            if (said := judged.get(key)) is None:  # of before a reset, and not read since; or another version has it
                self._remove(key, row, out)
                continue
            ruling, value, why, failed, as_of = said
            digest = b"" if value is None else digest_of(value)
            if failed is not None and (cause is not None or row.why != why):
                out.send(self.door.dlq, key, self._misfit(version, why, failed))
                self.counters.misfits += 1
            if value is None:
                self.counters.held_back[why] += 1
                if row.why != why or row.digest:  # looked at again, it is no other refusal
                    self.log.deny(why, now)
            sent, event = self._send(key, value, digest, row, cause, out, as_of)
            if sent and value is not None:
                self.door.takes(ruling.labels, ruling.changes_at)
            why = why if value is None or failed else ""
            self._keep(key, row, digest, why, ruling.changes_at, ruling.allowed, event)

    def _keep(self, key: bytes, row: Held, digest: bytes, why: str, at: int | None, leaves: bool, event: bytes) -> None:
        self._schedule(key, row, at, leaves=leaves)
        after = Held(row.record, digest, why, at, leaves, row.reading, event)
        if after != row:
            self.held.put(key, after)

    def _send(
        self,
        key: bytes,
        value: bytes | None,
        digest: bytes,
        row: Held,
        cause: int | None,
        out: Outbox,
        as_of: str | None = None,
    ) -> tuple[bool, bytes]:
        """What is another than what was delivered; whether anything was, and the id of the last CloudEvent of it."""
        if digest == row.digest:
            self.counters.unchanged += 1
            return False, row.event
        headers = [] if cause is None or cause < 0 else [(CAUSE, b"%d" % cause)]
        event = row.event
        if (told := self.door.told) is not None:
            event = event_id(row.event, key, digest, cause)
            headers += told.headers(event, key, as_of, removal=value is None)
        out.send(self.door.output, key, value, self.partition, headers or None)
        self.door.sends(removal=value is None)
        if value is not None and cause is not None:
            self.counters.newest_cause = max(self.counters.newest_cause, cause)
        return True, event

    def _take_back(self, now: int, out: Outbox) -> None:
        """While nothing may be delivered: what may not stay is removed. What else there is to do stays to be done."""
        due: dict[bytes, int | None] = {}
        if self.ends.wants(now):
            due = dict.fromkeys(key for _, key, _ in self.ends.pop(now, TAKEN_BACK))
        if self.back is None:
            self.back = TakingBack(self.seen, list(self.rest))
        back, door = self.back, self.door
        if not back.rest and back.sweep is None and door.has_news(back.seen):
            keys, back.seen, anew = door.news(back.seen, limit=TAKEN_BACK)
            back.rest, back.sweep = [(key.decode(), "") for key in dict.fromkeys(keys)], "" if anew else None
        self._due_by_name(back.rest, due, TAKEN_BACK)
        back.sweep = self._due_by_sweep(back.sweep, due, TAKEN_BACK)
        rows = self.held.load(due)
        rulings = self.judge.rule({key: row.record for key in due if (row := rows[key]) and row.record}, now)
        for key, ruling in rulings.items():
            row = rows[key]
            assert row is not None
            if not ruling.allowed:
                self.log.deny(ruling.reason, now)
                _, event = self._send(key, None, b"", row, None, out)
                self._keep(key, row, b"", ruling.reason, ruling.changes_at, False, event)
            elif row.at is not None and row.at <= now:  # it was taken; what holds now ends later
                self._keep(key, row, row.digest, row.why, ruling.changes_at, True, row.event)

    def _misfit(self, version: int, reason: str, failed: tuple[str, str | None]) -> bytes:
        said, places = failed
        return encode(
            MisfitRecord(
                stage=self.door.name,
                topic=self.door.topics[version],
                partition=self.partition,
                offset=-1,
                timestamp=-1,
                reason=reason,
                error=said,
                traceback=places,
            )
        )

    # ----------------------------------------------------------------------------------------------------- erasure
    def _erase(self, positions: Mapping[TP, int], out: Outbox) -> None:
        for erase in self.erasing:
            stands = self.door.knows(erase)
            name = self.judge.named(erase.identifier).encode()
            count = 0
            while stands:
                members = {erase.identifier.encode(), *self.holders.members(name, PROFILES_PER_COMMIT)}
                found = False
                for key in members:
                    found = self._forget_beside(key, erase.identifier) or found
                    row = self.held.get(key)
                    if row is not None and _is_of(row.record, key, erase.identifier):
                        self._index(key, labels_of(row.record), (), row.reading)
                        count, found = count + self._remove(key, row, out), True
                if not found:
                    break
            read = read_of(positions, self.door.erase)
            out.send(self.door.receipts, *_receipt(erase, self.door, count, read))
            self.door.sends(removal=True)
            self.counters.receipts += 1
        self.erasing = []

    def _forget_beside(self, key: bytes, label: str) -> bool:
        """The records of a profile that list somebody, of versions that are not live. Whether there was one."""
        places = {place(reading, key): reading for reading in self.readings.all}
        records, found = self.beside.load(places), False
        for at, reading in places.items():
            record = records[at]
            if record is not None and _is_of(record, key, label):
                self._index(key, labels_of(record), (), reading)
                self.beside.delete(at)
                found = True
        return found


def _is_of(record: bytes, key: bytes, label: str) -> bool:
    return key == label.encode() or label in labels_of(record)


def _receipt(erase: Erase, door: DoorAgent, count: int, read: dict[str, int]) -> tuple[bytes, bytes]:
    tombstones = {door.output: count} if count else {}
    return encode_receipt(Receipt(erase.request, erase.identifier, erase.life, door.name, tombstones, read))


def _is_label(key: bytes) -> bool:
    """Whether a key names somebody: whoever else writes into topics of decisions must not stop doors."""
    try:
        return ":" in key.decode()
    except UnicodeDecodeError:
        return False


def _cause_of(headers: Headers) -> int:
    for name, value in headers:
        if name == CAUSE:
            return int(value)
    return -1


def _no_ends(starts: Mapping[TP, int]) -> Mapping[TP, int]:
    raise AssertionError("only doors that run ask how far a version goes")


def _tp(said: str) -> TP:
    topic, _, partition = said.rpartition("/")
    return TP(topic, int(partition))


# ------------------------------------------------------------------------------------------------------------- agent
class DoorAgent(Copartitioned):
    """One view, or one sink."""

    loops: Sequence[str] = ()

    def __init__(
        self,
        plan: Plan,
        door: Door,
        governance: GlobalTable | None,
        vault: Vault | None = None,
        *,
        clock: Clock,
        partitions: Callable[[], Mapping[str, int]],
        folded_by: Callable[[TP], str | None],
        ends: Callable[[Mapping[TP, int]], Mapping[TP, int]] | None = None,
        live: Callable[[str], int] | None = None,
        retired: Callable[[str], bool] | None = None,
        reset: Callable[[str], bool] = lambda agent: False,
        fence_max_age_ms: int = 1000,
        inputs_s: float = INPUTS_S,
        random: Callable[[int], bytes] = os.urandom,
        wire: Wire | None = None,
        cloudevents: bool = False,
    ) -> None:
        """`governance`: the process's copy of `plan.governance`; None where the app has none. `partitions`: of each topic
        at the broker. `folded_by`: the fingerprint in a changelog partition, None in one that has none yet. `vault`: of an
        app that needs keys. `ends`: behind the last records that there are, from these offsets on. `live`: the version of a
        projection that sinks deliver; `retired`, `reset`: whether a projection's agent is. `random`: of which its chains in
        the audit log have their names. `wire`: how values are written; None: as JSON. `cloudevents`: whether their attributes
        are in the headers.
        """
        planned = plan.agent(door.agent)
        self.plan, self.governance, self.clock = plan, governance, clock
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        (self.lead,), self.reads, (self.log,) = planned.lead, planned.reads, planned.changelogs
        self.projections = {projection.version: projection for projection in door.versions}
        self.topics = {version: plan.projected(projection) for version, projection in self.projections.items()}
        self.output, self.folded_by, self.ends = plan.leaves(door), folded_by, ends or _no_ends
        newest = max(self.topics)
        self.live: Callable[[], int] = lambda: newest
        if door.sink is not None and live is not None:
            self.live = partial(live, door.projection.name)
        self.retired, self.reset = retired or (lambda agent: False), reset
        self.erase, self.receipts, self.dlq, self.random = plan.erase, plan.receipts, plan.dlq, random
        self.judge = Judge(plan, door, governance, vault, wire)
        self.told = None if not cloudevents else Told(plan.app, door.agent, JSON if wire is None else AVRO)
        self.fence: Fence | None = None
        if staters_of(plan, door.purpose):
            assert governance is not None, "a door that asks needs the copies to ask"
            self.fence = Fence(
                plan, door.purpose, governance, partitions, max_age_ms=fence_max_age_ms, inputs_s=inputs_s
            )
        self.counters = DoorCounters()
        self.made = Made()
        self.is_shut = False
        self.most = PROFILES_PER_COMMIT  # profiles in a commit, as it goes
        self._at: tuple[int, dict[str, Any]] | None = None  # version of the copies, and where they stand

    # ------------------------------------------------------------------------------------------------------- agent
    def task(self, lead: TP) -> Task:
        """Topics of versions that were retired are deleted."""
        retired = {
            self.topics[v] for v, p in self.projections.items() if len(self.topics) > 1 and self.retired(p.agent)
        }
        return Task(lead, tuple(tp for tp in Copartitioned.task(self, lead).inputs if tp.topic not in retired))

    def rereads(self, tp: TP) -> bool:
        """What is kept of a version is dropped where it is not read any more."""
        return tp.topic in self.topics.values()

    def processor(self, task: Task) -> Processor:
        """Raises NeedsOperator where the records that it would read do not mean what they would mean by this plan.

        A record says of a purpose only how it sees other than the whole. So of a purpose that the projection did not have
        when it was written, it says nothing; and of one that a source has lost since, too much.
        """
        live, read = self.live(), {tp.topic for tp in task.inputs}
        for version in [version for version, topic in self.topics.items() if topic in read]:
            try:
                self.check(version, task.lead.partition)
            except (NeedsOperator, Stale) as foreign:
                if version == live:
                    raise
                log.warning("%s; while it is not live, nothing leaves of it", foreign)
        return DoorTask(self, task)

    def check(self, version: int, partition: int) -> None:
        """Raises NeedsOperator where the records of a version do not mean what they would mean by this plan; Stale while they
        will, as it is being reset."""
        folded = self.plan.agent(self.projections[version].agent)
        by = self.folded_by(TP(f"{self.topics[version]}.changelog", partition))
        if by not in (None, folded.fingerprint):
            if self.reset(folded.name):
                raise Stale(f"{folded.name} is reset, and has not begun anew yet: {self.name} waits for its worker")
            raise NeedsOperator(
                f"{self.name} would read what another declaration of {folded.name} has made: its attributes, or purposes="
                f" of it or of its sources, were others. Give it a new version, or fold again from the start:"
                f" c360 reset {folded.name} --to-earliest --execute"
            )

    def log_of(self, partition: int) -> DoorLog:
        """What a task tells the audit log."""
        plan = self.plan
        personal = {namespace.name for namespace in plan.identifiers.values() if namespace.personal}
        chain = Chain(plan.app, plan.audit, f"{self.name}/{partition}", personal=personal, random=self.random)
        return DoorLog(chain, self.name)

    def settings(self, given: LoopSettings) -> LoopSettings:
        """Small commits: what is in one was decided on at once, and is young when it leaves."""
        batch, most = min(given.batch_records, self.most), min(given.commit_records, self.most)
        return replace(given, batch_records=batch, commit_records=most, behind_s=min(given.behind_s, BEHIND_S))

    # ------------------------------------------------------------------------------------ the transaction, and its gate
    def begin(self) -> None:
        """A commit begins: nothing is in it yet."""
        self.made = Made()

    def about_to_decide(self) -> None:
        if self.made.mark is None and self.governance is not None and self.judge.topics:
            self.made.mark = self.governance.mark()

    def sends(self, *, removal: bool) -> None:
        if removal:
            self.made.removed += 1
            self.counters.removed += 1
        else:
            self.made.delivered += 1
            self.counters.delivered += 1

    def takes(self, labels: Collection[str], changes_at: int | None) -> None:
        """Somebody is delivered: whose change of mind this transaction must not survive."""
        made = self.made
        made.labels.update(map(self.judge.named, labels))
        if changes_at is not None:
            made.changes_at = changes_at if made.changes_at is None else min(made.changes_at, changes_at)

    def gate(self) -> None:
        made, self.made = self.made, Made()
        if made.removed and not made.delivered:
            return
        now = self.clock()
        try:
            if self.judge.keys.awaits is not None and not self.judge.keys.awaits():
                raise Shut("copy", "this door's copy is catching up with what was missing there; wait")
            self.judge.keys.awaits = None
            answer = self.ask(now)
            if answer.deliver and made.delivered:
                answer = recheck(Taken(frozenset(made.labels), made.changes_at), answer, self._since(made), now=now)
        except Stale as stale:
            self.counters.shut["copy"] += 1
            raise self.stays_shut(Shut("copy", str(stale))) from stale
        if answer.deliver:
            self.is_shut = False
            if made.delivered:
                self.most = min(PROFILES_PER_COMMIT, self.most + self.most // 4 + 1)
            return
        self.counters.shut[answer.why] += 1
        if answer.why == "news":  # or it would never get on: who decides, is in a smaller one less likely
            self.most = max(1, min(self.most, made.delivered) // 2)
        if answer.why in ("expired", "news"):  # of what was to be delivered, not of all
            raise shut_by(answer)
        raise self.stays_shut(shut_by(answer))

    def ask(self, now: int) -> Answer:
        if self.live() not in self.topics:
            return Answer(False, "version")
        return OPEN if self.fence is None else self.fence.held(now)

    def stays_shut(self, why: Shut) -> Shut:
        """For whatever is to be delivered, until the gate opens: tasks need not say so again."""
        self.is_shut = True
        return why

    def _since(self, made: Made) -> set[str]:
        """Who was decided on since this transaction's first decision, as `holders` has them."""
        if made.mark is None:
            return set()
        news: set[str] = set()
        seen: dict[str, Any] | None = made.mark
        anew = False
        while not anew:
            keys, seen, anew = self.news(seen, limit=NEWS)
            news.update(key.decode() for key in keys)
            if len(keys) < NEWS:
                return news
        return made.labels  # nobody can tell: all of them may have been

    # ------------------------------------------------------------------------------------------------ what copies know
    def has_news(self, seen: Mapping[str, Any] | None) -> bool:
        """Whether there is anything that a task should know; while there is no copy, it cannot be said."""
        topics = self.judge.topics
        if not topics or self.governance is None:
            return False
        try:
            now = self._where()
        except Stale:
            return False
        if seen is None or any(seen["ids"].get(topic) != now["ids"][topic] for topic in topics):
            return True
        return any(
            offset > (before[number] if number < len(before) else 0)
            for topic in topics
            for before in [seen["next"][topic]]
            for number, offset in enumerate(now["next"][topic])
        )

    def news(
        self, seen: Mapping[str, Any] | None, limit: int = NEWS
    ) -> tuple[list[bytes], dict[str, Any] | None, bool]:
        """Who was decided on since then, as `holders` has them; what to ask with next; whether any may have been.

        Only of topics that matter here: the others, the fence above all, say something four times a second.
        """
        assert self.governance is not None
        topics, asked = self.judge.topics, None
        if seen is not None:
            now = self.governance.mark()
            asked = {
                "ids": {topic: seen["ids"].get(topic, gone) if topic in topics else gone for topic, gone in now["ids"].items()},
                "next": {
                    topic: seen["next"].get(topic, []) if topic in topics else ends for topic, ends in now["next"].items()
                },
                "ms": seen["ms"],
            }  # fmt: skip
        told = self.governance.changes(asked, limit)
        keys = [
            key if topic == self.plan.suppressed else self.judge.named(key.decode()).encode()
            for topic, key in told.keys
            if topic in topics and _is_label(key)
        ]
        return keys, self._noted(told.seen), told.anew

    def _noted(self, seen: Mapping[str, Any]) -> dict[str, Any]:
        topics = self.judge.topics
        return {
            "ids": {topic: seen["ids"][topic] for topic in topics},
            "next": {topic: seen["next"][topic] for topic in topics},
            "ms": seen["ms"],
        }

    def _where(self) -> dict[str, Any]:
        """Where the copies stand, asked once for all tasks."""
        assert self.governance is not None
        version = self.governance.version
        if self._at is None or self._at[0] != version:
            self._at = version, self.governance.mark()
        return self._at[1]

    def knows(self, erase: Erase) -> bool:
        """Whether the suppression that an erasure rests on stands. Raises Shut until this door's copy has it: then nothing
        comes back."""
        if not self._has(erase):
            self.judge.keys.awaits = partial(self._has, erase)
            raise Shut(
                "behind", "the suppression of an erasure has not been read yet; this door's copy is catching up, wait"
            )
        said = self._suppressed(erase)
        return said is not None and said.stands

    def _has(self, erase: Erase) -> bool:
        said = self._suppressed(erase)
        return said is not None and said.life >= erase.life

    def _suppressed(self, erase: Erase) -> Suppressed | None:
        assert self.governance is not None
        value = self.governance.get(self.judge.named(erase.identifier).encode(), self.plan.suppressed)
        return None if value is None else decode_suppressed(value)

"""The audit log as commands write and read it: nothing is done that is not told there first.

One run of a command is a writer with a chain of its own (`c360.governance.audit`). It reads the log before it acts, so a
log that is not there stops it; then there are two ways, by what the command does:

* It writes records only (`separate`, `join`): they and the entry are one transaction, `done` or not there.
* It does more, which no transaction takes in (`reset` moves offsets of a group, `topics apply` makes topics): the entry
  `intended` comes before, `done` or `failed` after. An `intended` that nothing follows is a command that was killed in
  between, or is at work.

What is refused is an entry too. A mistyped command is none: it could not have done anything.
"""

from __future__ import annotations

import contextlib
import json
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from c360.clock import Clock, system
from c360.engine.transport import TP, Batch, Cluster, Producer
from c360.errors import BrokerAway, C360Error, NeedsOperator, OutcomeUnknown, TransactionAborted, UsageError
from c360.governance.audit import (
    Entry,
    Finding,
    Head,
    Problem,
    Record,
    chained,
    check,
    decode_record,
    encode_record,
    examine,
    head_of,
    tips_of,
    without_personal,
)
from c360.ops.records import Message, records
from c360.plan import Plan

Stage = Literal["intended", "done", "failed", "refused"]

READ_BACK = 100_000  # offsets that a run of a command reads for what it names: about 1 s
NAME_BYTES = 8  # of randomness in the name of a run
TRIES = 3
HEADS_FORMAT = "c360 audit heads 1"


def personal_of(plan: Plan) -> frozenset[str]:
    """Namespaces whose identifiers are written as tokens only."""
    return frozenset(namespace.name for namespace in plan.identifiers.values() if namespace.personal)


# ------------------------------------------------------------------------------------------------------------- writing
@dataclass(frozen=True)
class Told:
    """What an entry says of what a command does; who and why are those of the run. All texts; nothing personal."""

    what: str
    about: tuple[str, ...] = ()
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


class Run:
    """One run of a command that does something, and its chain. Used as a context: leaving it closes its clients.

    Making one raises NeedsOperator when the app's audit log does not exist, BrokerAway when it cannot be read now.
    """

    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        *,
        who: str,
        reason: str = "",
        random: Callable[[int], bytes],
        clock: Clock = system,
    ) -> None:
        self.app, self.topic, self.writer = plan.app, plan.audit, f"cli/{random(NAME_BYTES).hex()}"
        self._personal, self._who, self._reason, self._clock = personal_of(plan), who, reason, clock
        check(self._entry(Told("")), self._personal)
        self._seen = tips_of(self.app, _values(cluster, self.topic, back=READ_BACK))
        self._head: Head | None = None
        self.transactional_id = f"{plan.app}.audit.{self.writer.replace('/', '.')}"
        self._producer = cluster.producer(self.transactional_id)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()

    def say(self, stage: Stage, told: Told, messages: Iterable[Message] = (), *, so: str = "nothing was done") -> None:
        """One entry, and with it these records, in one transaction.

        Raises UsageError when something personal would be told, NeedsOperator when the log does not take it: then
        neither is written. `so`: how things stand then, for people.
        """
        entry = self._entry(replace(told, after={"stage": stage, **told.after}))
        check(entry, self._personal)
        record = chained(self.app, entry, self.writer, self._head, self._seen)
        own = Message(self.topic, record.writer.encode(), encode_record(record), 0)
        try:
            _in_one(self._producer, [own, *messages])
        except OutcomeUnknown as error:
            raise OutcomeUnknown(
                f"{error}. Whether it was done `c360 audit tail` says: look for {self.writer}"
            ) from None
        except C360Error as error:
            remedy = BrokerAway if isinstance(error, BrokerAway) else NeedsOperator
            raise remedy(f"{so}: the audit log {self.topic} cannot be written ({error})") from error
        self._head, self._seen = head_of(record), {}  # once is enough: the chain holds it

    @contextlib.contextmanager
    def acting(self, told: Told) -> Iterator[dict[str, str]]:
        """Around what no transaction takes in. What the body puts into the mapping is told with the end."""
        more: dict[str, str] = {}
        self.say("intended", told)
        try:
            yield more
        except (Exception, KeyboardInterrupt) as error:
            with contextlib.suppress(C360Error):  # what went wrong first is what is to be known
                self.say("failed", replace(told, after={**told.after, **more, "error": type(error).__name__}))
            raise
        self.say("done", replace(told, after={**told.after, **more}), so="it was done, but that is not told")

    @contextlib.contextmanager
    def refusing(self, told: Told) -> Iterator[None]:
        """Around the look before the act: what needs an operator is refused, and that is told."""
        try:
            yield
        except NeedsOperator as refused:
            why = without_personal(self._entry(Told("", after={"why": str(refused)})), self._personal).after
            self.say("refused", replace(told, after={**told.after, **why}), so=f"{refused}. That is not told")
            raise

    def _entry(self, told: Told) -> Entry:
        return Entry(
            who=self._who, what=told.what, at=self._clock(), reason=self._reason, about=told.about,
            before=dict(told.before), after=dict(told.after),
        )  # fmt: skip


def _in_one(producer: Producer, messages: Sequence[Message]) -> None:
    """All of these or none. What holds readers back is ended also when it fails."""
    for attempt in range(1, TRIES + 1):
        try:
            producer.begin()
            for message in messages:
                producer.produce(*message)
            producer.commit()
            return
        except OutcomeUnknown:
            raise
        except (C360Error, KeyboardInterrupt) as error:
            with contextlib.suppress(C360Error):
                producer.abort()
            if attempt == TRIES or not isinstance(error, TransactionAborted):
                raise


# ------------------------------------------------------------------------------------------------------------- reading
class Line(NamedTuple):
    """A record of the log where it lies. record: None if it is none. at: append time by the broker, ms."""

    offset: int
    at: int
    record: Record | None


def partition_of(cluster: Cluster, topic: str) -> TP:
    """Raises NeedsOperator when there is none."""
    if topic not in cluster.admin().topics():
        raise NeedsOperator(f"there is no audit log {topic}: `c360 topics apply` makes it, and so does a worker")
    return TP(topic, 0)


def _values(cluster: Cluster, topic: str, *, back: int) -> Iterator[bytes]:
    """The last offsets of the log."""
    tp = partition_of(cluster, topic)
    reader = cluster.reader()
    try:
        start = max(reader.starts([tp])[tp], reader.ends([tp])[tp] - back)
        for found in records(reader, {tp: start}):
            yield found.value or b""  # a tombstone is no record
    finally:
        reader.close()


def _lines(batches: Iterable[Batch]) -> Iterator[Line]:
    for batch in batches:
        for offset, at, value in zip(batch.offsets, batch.times, batch.values, strict=True):
            try:
                yield Line(offset, at, decode_record(value or b""))
            except msgspec.DecodeError:
                yield Line(offset, at, None)


def tail(plan: Plan, cluster: Cluster, n: int, about: Collection[str] = ()) -> tuple[list[Line], int]:
    """The last `n` records, and the offset from which to follow. `about`: of all, only those about one of these labels."""
    tp = partition_of(cluster, plan.audit)
    reader = cluster.reader()
    try:
        start, end = reader.starts([tp])[tp], reader.ends([tp])[tp]
        look = end if about else 4 * n + 64
        while True:  # marks of transactions are no records
            begin = max(start, end - look)
            found = [
                line
                for batches in reader.read({tp: begin}, {tp: end})
                for line in _lines(batches)
                if not about or is_about(line, about)
            ]
            if begin == start or len(found) >= n:
                return found[max(0, len(found) - n) :], end
            look *= 8
    finally:
        reader.close()


def is_about(line: Line, labels: Collection[str]) -> bool:
    return line.record is not None and not set(labels).isdisjoint(line.record.entry.about)


def follow(plan: Plan, cluster: Cluster, offset: int) -> Iterator[Line]:
    """Records from an offset on, for ever."""
    reader = cluster.reader()
    try:
        for batches, _ in reader.follow({partition_of(cluster, plan.audit): offset}):
            yield from _lines(batches)
    finally:
        reader.close()


# ----------------------------------------------------------------------------------------------------------- verifying
PROBLEMS: Mapping[Problem, str] = {
    "unreadable": "is no record of an audit log",
    "foreign": "is of another app's log",
    "altered": "is not what it was when it was written",
    "missing": "was taken out",
    "reordered": "comes after one that is later in its chain, or after one that had seen it",
    "doubled": "is there twice",
    "cut": "was there, and is not any more",
}


@dataclass(frozen=True)
class Report:
    """What `verify` found. heads: the last record of each chain. whole: the log begins with its first record."""

    records: int
    whole: bool
    heads: Mapping[str, Head]
    findings: Sequence[tuple[Finding, int | None]]  # with the offset where it lies

    def to_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "chains": len(self.heads),
            "findings": [
                {"problem": f.problem, "writer": f.writer, "number": f.number, "offset": offset}
                for f, offset in self.findings
            ],
            "whole": self.whole,
            "heads": _plain_heads(self.heads),
        }


def verify(plan: Plan, cluster: Cluster, heads: Mapping[str, Head] | None = None) -> Report:
    """Read all of the log once and check it. heads: those that were kept. Raises NeedsOperator if there is no log."""
    tp = partition_of(cluster, plan.audit)
    reader = cluster.reader()
    offsets = array("q")

    def read(start: int) -> Iterator[bytes]:
        for found in records(reader, {tp: start}):
            offsets.append(found.offset)
            yield found.value or b""

    try:
        start = reader.starts([tp])[tp]
        examined = examine(plan.app, read(start), heads=heads, whole=start == 0)
    finally:
        reader.close()
    found = [(f, offsets[f.place] if f.place >= 0 else None) for f in examined.findings]
    return Report(examined.records, start == 0, examined.heads, found)


def _plain_heads(heads: Mapping[str, Head]) -> dict[str, list[Any]]:
    return {writer: [head.number, head.hash] for writer, head in sorted(heads.items())}


class _Heads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of heads that is kept elsewhere."""

    format: str
    app: str
    heads: dict[str, Head]


def read_heads(path: Path, app: str) -> Mapping[str, Head]:
    """Heads that were kept. Raises UsageError when the file is none, or is of another app."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Heads)
    except OSError as error:
        raise UsageError(f"the file of heads {path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{path} is no file of heads as `c360 audit verify --write-heads` makes it: {error}"
        ) from error
    if kept.format != HEADS_FORMAT:
        raise UsageError(f"{path} has the format {kept.format!r}, which this version of c360 does not read")
    if kept.app != app:
        raise UsageError(f"{path} has the heads of {kept.app!r}; this is {app!r}")
    return kept.heads


def write_heads(path: Path, app: str, heads: Mapping[str, Head]) -> None:
    """Keep heads, in the place of what the file had; a crash leaves one or the other. Raises UsageError."""
    said = {"format": HEADS_FORMAT, "app": app, "heads": _plain_heads(heads)}
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"the heads cannot be kept in {path}: {error.strerror}") from error

"""projection: governed records in, one record per profile out. One task per partition of subjects.

A subject is its own profile until identity says otherwise; then its fragment moves (`agents.moves`), and a profile that
several are in is the merge of theirs. What a profile holds is decided in `c360.profile`; this module folds batches into
fragments, and at each commit writes the profiles whose record is another than the last.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from c360.agents.folding import SourceFold, source_fold, stored
from c360.agents.moves import MoveCounters, Moves
from c360.agents.profiles import DAY_BYTES, DUE, PROFILES, Head, ProfileCodec, ProfileState
from c360.agents.render import Renderer, renderer_of
from c360.agents.suppression import Suppression, Watch
from c360.agents.wire import CAUSE, MisfitRecord, decode_assignment, encode, misfit_in, read_of
from c360.clock import DAY_MS
from c360.declare import ProjectionDeclaration
from c360.engine.agent import Copartitioned, Outbox, Processor, Task
from c360.engine.transport import TP, Batch
from c360.errors import Misfit, NeedsOperator
from c360.governance.messages import Receipt, decode_erase, encode_receipt
from c360.plan import Plan, windowed
from c360.profile import home as homes
from c360.profile.fold import Folding
from c360.profile.format import digest_of
from c360.profile.parts import Assigned
from c360.profile.rows import Rows
from c360.profile.slots import LISTED, LISTED_TO_ASK, Owner
from c360.tables.table import Table
from c360.tables.timers import Timers

SWEPT_PER_COMMIT = 2_000
NO_LIVES: dict[bytes, int] = {}

log = logging.getLogger("c360.projection")


@dataclass(frozen=True)
class Compiled:
    """What is made once per projection and shared by its tasks. Topics are None where there is no such input."""

    agent: str
    output: str
    dlq: str
    days: str | None
    assignments: str | None
    parts: str | None
    erase: str | None
    receipts: str
    partitions: int
    folding: Folding
    sources: Mapping[str, SourceFold]  # by governed topic
    renderer: Renderer
    listed: int = LISTED  # subjects and identifiers that a record lists

    @property
    def views(self) -> tuple[int, ...]:
        """Who looks at profiles, as the bits that the mask of a record must have: all, and each purpose."""
        return (0, *(sight.bit for sight, _ in self.renderer.sights))


def compile_projection(plan: Plan, projection: ProjectionDeclaration) -> Compiled:
    plan = plan.at(projection.govern)
    folding = Folding(stored(plan, projection))
    followed = plan.identity_of(projection)
    asks = any(plan.purposes.by_name[purpose].asks for purpose in projection.purposes)
    return Compiled(
        agent=projection.agent,
        output=plan.projected(projection),
        dlq=plan.dlq,
        days=plan.days if windowed(projection) else None,
        assignments=None if followed is None else plan.assignments(followed),
        parts=None if followed is None else plan.parts(projection),
        erase=plan.erase if plan.erases else None,
        receipts=plan.receipts,
        partitions=plan.partitions,
        folding=folding,
        sources={plan.governed(s): source_fold(plan, s, projection, folding) for s in plan.sources_of(projection)},
        renderer=renderer_of(plan, projection, folding),
        listed=LISTED_TO_ASK if asks else LISTED,
    )


@dataclass
class ProjectionCounters:
    """What became of governed records in this process, for metrics; work that was aborted counts again."""

    folded: int = 0
    written: int = 0
    unchanged: int = 0
    tombstones: int = 0
    void: int = 0  # records of lives that had been erased
    newest_cause: int = 0
    large: int = 0  # fragments stored with more than LARGE_BYTES
    largest: int = 0
    moves: MoveCounters = field(default_factory=MoveCounters)

    def large_fragment(self, size: int) -> None:
        if not self.large:
            log.warning(
                "a fragment has %d bytes: each of its records costs reading and writing all of it. Who is it about? An"
                " attribute over rows has no bound; over events give it a smaller limit",
                size,
            )
        self.large += 1
        self.largest = max(self.largest, size)


class Erasing(msgspec.Struct):
    """An erasure that was begun here. `waiting`: profiles of other tasks that still have to say that they hold it no longer,
    and since which life. `requests`: who is to have a receipt, and of which; `tombstones`: by topic.
    """

    requests: dict[str, int]
    waiting: dict[str, int]
    tombstones: dict[str, int]


class ProjectionTask:
    """One partition of subjects, and of profiles."""

    def __init__(
        self, compiled: Compiled, task: Task, counters: ProjectionCounters, suppression: Suppression | None = None
    ) -> None:
        self.agent, self.compiled, self.counters = compiled.agent, compiled, counters
        self.partition = task.lead.partition
        self.days, self.windowed = compiled.days, compiled.days is not None
        self.folding, self.sources, self.renderer = compiled.folding, compiled.sources, compiled.renderer
        codec = ProfileCodec(self.folding, counters.large_fragment)
        self.profiles: Table[ProfileState] = Table(PROFILES, codec.encode, codec.decode)
        self.due = Timers(DUE, DAY_BYTES)
        self.touched: dict[bytes, int] = {}  # profile -> append time of the newest cause
        self.moves = Moves(
            Owner(self.folding, compiled.views, compiled.listed),
            Rows(self.folding),
            compiled.parts or "",
            self.partition,
            compiled.partitions,
            self.profiles,
            self.touched,
            counters.moves,
        )
        self.tables = (self.profiles, self.due, *self.moves.tables)
        self.watch = None if suppression is None else Watch(suppression)
        self.erasing: dict[str, Erasing] = {}  # by subject
        self.announced = 0
        self.catch_up: dict[str, int] = {}  # after a reset: "topic/partition" -> offset before which nothing is written
        self.cut: dict[str, int] = {}  # inputs that are folded only from an offset on, as a reset said
        self.sweep: str | None = None  # after it: the profile from which on all records are still to be compared

    @property
    def today(self) -> int:
        return self.moves.today

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.touched.clear()
        self.moves.resume(notes.get("slots", 0), notes.get("today", 0))
        self.announced = 0
        self.catch_up = dict(notes.get("catch_up", {}))
        self.cut = dict(notes.get("cut", {}))
        self.sweep = notes.get("sweep")
        self.erasing = msgspec.convert(notes.get("erasing", {}), dict[str, Erasing])
        if self.watch is not None:
            self.watch.again()

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {}
        if self.today:
            notes["today"] = self.today
        if self.moves.held:
            notes["slots"] = self.moves.held
        if self.catch_up:
            notes["catch_up"] = self.catch_up
        if self.cut:
            notes["cut"] = self.cut
        if self.sweep is not None:
            notes["sweep"] = self.sweep
        if self.windowed and self.due.wants(self.today):
            notes["expiring"] = True  # for who compares: profiles are still to be written though no input is left
        if self.erasing:
            notes["erasing"] = msgspec.to_builtins(self.erasing)
        return notes

    def process(self, batch: Batch, out: Outbox) -> None:
        topic = batch.tp.topic
        if self.watch is not None:
            self.watch.begin()
        if (source := self.sources.get(topic)) is not None:
            self._fold(source, batch, out)
        elif topic == self.days:
            self.moves.today = max([self.today, *(int(v) for v in batch.values if v)])
        elif topic == self.compiled.assignments:
            self._assign(batch, out)
        elif topic == self.compiled.erase:
            self._erase(batch)
        else:
            assert topic == self.compiled.parts, "a batch of no input"
            self.moves.hear(batch)
            self._hear_forgotten()

    # ----------------------------------------------------------------------------------------------------- erasure
    def _erase(self, batch: Batch) -> None:
        assert self.watch is not None
        for key, value in zip(batch.keys, batch.values, strict=True):
            if key is None or value is None:
                continue
            erase = decode_erase(key, value)
            if not self.watch.suppression.due(erase):
                continue
            self.profiles.load({key})
            waiting = self.moves.erase(key, erase.life)
            erasing = self.erasing.setdefault(erase.identifier, Erasing({}, {}, {}))
            erasing.requests[erase.request] = erase.life
            erasing.waiting |= dict.fromkeys(waiting or (), erase.life)
            if waiting is not None:
                erasing.tombstones = {f"{self.compiled.output}.changelog": 1, self.compiled.output: 1}
        self._hear_forgotten()

    def _hear_forgotten(self) -> None:
        for subject, profile, life in self.moves.forgotten:
            erasing = self.erasing.get(subject)
            if erasing is not None and life >= erasing.waiting.get(profile, life + 1):
                del erasing.waiting[profile]
        self.moves.forgotten.clear()

    def _say_erased(self, positions: Mapping[TP, int], out: Outbox) -> None:
        """Receipts for what is in no record and no state any more."""
        self._hear_forgotten()
        assert self.compiled.erase is not None
        read = read_of(positions, self.compiled.erase)
        for identifier, erasing in sorted(self.erasing.items()):
            if erasing.waiting:
                continue
            for request, life in sorted(erasing.requests.items()):
                receipt = Receipt(request, identifier, life, self.agent, erasing.tombstones, read)
                out.send(self.compiled.receipts, *encode_receipt(receipt), 0)
            del self.erasing[identifier]

    def _outlived(self, key: bytes, state: ProfileState) -> bool:
        """Whether the row holds nothing but that its subject was erased, which the suppressed table knows as well."""
        home = state.home
        if self.watch is None or home is None or state.fragment or state.digest or state.shared:
            return False
        if not homes.is_bare(key.decode(), home):
            return False
        said = self.watch.suppression.look(key.decode())
        return said is not None and said.life >= home.life

    def _lives(self, subjects: Collection[bytes], profiles: Mapping[bytes, ProfileState | None]) -> dict[bytes, int]:
        """Of subjects of which nothing is kept that says so: how often they were erased."""
        if self.watch is None or not self.watch.suppression:
            return NO_LIVES
        bare = [key for key in subjects if (state := profiles[key]) is None or state.home is None]
        lives = self.watch.suppression.lives(key.decode() for key in bare)
        return {subject.encode(): life for subject, life in lives.items()}

    # -------------------------------------------------------------------------------------------------------- fold
    def _fold(self, source: SourceFold, batch: Batch, out: Outbox) -> None:
        keys: list[bytes] = batch.keys  # type: ignore[assignment]  # governed records always have a key: their subject
        views = list(map(source.decode, batch.values))  # type: ignore[arg-type]  # and always a value
        subjects = set(keys)
        profiles = self.profiles.load(subjects)
        lives = self._lives(subjects, profiles)
        folds, mask, empty, touched = source.folds, source.mask, self.folding.empty, self.touched
        folded = 0
        try:
            for at, (key, view) in enumerate(zip(keys, views, strict=True)):
                fold = folds.get(type(view))
                if fold is None:
                    continue
                if lives and view.life < lives.get(key, 0):
                    self.counters.void += 1
                    continue
                state = profiles[key]
                if state is None:
                    state = profiles[key] = ProfileState(empty())
                try:
                    if not (state.told or view.life):
                        fold(state.fragment, view, view.at, view.sign, mask)
                    elif not self.moves.fold(key, state, fold, view, mask):
                        continue
                except Misfit as misfit:
                    self._put_aside(batch, at, misfit, out)
                    continue
                cause = view.cause
                if touched.get(key, -1) < cause:
                    touched[key] = cause
                folded += 1
        finally:  # also where it ends on the way: what has changed is to be forgotten
            self.profiles.touch(subjects & touched.keys())
        self.counters.folded += folded

    def _assign(self, batch: Batch, out: Outbox) -> None:
        self.profiles.load({key for key in batch.keys if key is not None})
        for at, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            try:
                subject, assigned = _assignment(key, value)
            except Misfit as misfit:
                self._put_aside(batch, at, misfit, out)
            else:
                self.moves.assign(subject, assigned)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        if batch.tp.topic == self.compiled.parts:
            raise NeedsOperator(
                f"{self.agent} cannot take in the message {batch.tp.topic}/{batch.tp.partition}@{batch.offsets[0]}"
                f" ({type(error).__name__}: {error if isinstance(error, Misfit) else 'see the log'}). Without it its"
                f" profiles would be wrong for good. When its cause is mended, start again, or run `c360 reset` for it"
            ) from error
        self._put_aside(batch, 0, error, out)

    def _put_aside(self, batch: Batch, i: int, error: BaseException, out: Outbox) -> None:
        out.send(self.compiled.dlq, batch.keys[i], misfit_in(self.agent, batch, i, error))

    def wants(self, now_ms: int) -> bool:
        if self.sweep is not None:
            return True
        return self.windowed and (max(self.today, self.announced) < now_ms // DAY_MS or self.due.wants(self.today))

    def settle(self, out: Outbox) -> None:
        self.moves.place()
        self.moves.flush(out)

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.windowed:
            self._announce(now_ms // DAY_MS, out)
            self._expire()
        if self.catch_up:
            self._settle_only()
            if all(positions[TP(t, self.partition)] >= end for t, end in self._ends()):
                self.catch_up, self.sweep = {}, ""
        else:
            if self.sweep is not None:
                self._sweep()
            self._write_all(out)
            if self.erasing and self.sweep is None:
                self._say_erased(positions, out)
        self.touched.clear()

    def _announce(self, day: int, out: Outbox) -> None:
        """Say which day it is, to all tasks of this partition and to every rebuild: a record, not a clock, moves windows."""
        if max(self.today, self.announced) < day:
            assert self.days is not None
            out.send(self.days, str(self.partition).encode(), str(day).encode(), self.partition)
            self.announced = day

    # ----------------------------------------------------------------------------------------------------- writing
    def _write_all(self, out: Outbox) -> None:
        profiles, today = self.profiles.load(self.touched), self.today
        changed = []
        try:
            for key, cause in self.touched.items():
                if self._write(key, profiles[key], cause, today, out):
                    changed.append(key)
        finally:
            self.profiles.touch(changed)

    def _write(self, key: bytes, state: ProfileState | None, cause: int, today: int, out: Outbox) -> bool:
        """Write the profile if its record is another than the last; whether its state has changed."""
        assert state is not None
        head: Head = state
        fragment, listings = state.fragment, None
        if state.home is not None or state.shared:
            head, fragment, listings, due = self.moves.settle(key, state)
        else:
            due = self.folding.expire(fragment, today) if self.windowed else None
        record, failed = self.renderer.render(key.decode(), fragment, listings, today)
        digest = b"" if record is None else digest_of(record)
        # What is said comes before what is changed: it may fail, and what is not yet marked as changed is not forgotten.
        written = digest != head.digest
        if written:
            if failed is not None:
                out.send(self.compiled.dlq, key, self._derived_misfit(key, failed))
            headers = [(CAUSE, b"%d" % cause)] if cause >= 0 else None
            out.send(self.compiled.output, key, record, None, headers)
            head.digest = digest
            self.counters.written += 1
            self.counters.tombstones += record is None
            self.counters.newest_cause = max(self.counters.newest_cause, cause)
        else:
            self.counters.unchanged += 1
        indexed = due is not None and self._index(key, head, due)
        if not fragment and (state.is_nothing() or self._outlived(key, state)):
            self.profiles.delete(key)
            return False
        return head is state and (written or indexed)

    def _derived_misfit(self, key: bytes, failed: Exception) -> bytes:
        return encode(
            MisfitRecord(
                stage=self.agent,
                topic=self.compiled.output,
                partition=self.partition,
                offset=-1,
                timestamp=-1,
                reason="derived-failed",
                error=f"a @derived value of {self.agent} raised {type(failed).__name__}; it is null in the profile",
                traceback="".join(traceback.format_exception(failed))[-8000:],
            )
        )

    # ----------------------------------------------------------------------------------------------------- windows
    def _index(self, key: bytes, head: Head, due: int) -> bool:
        """Have the profile looked at again on the day its first bucket stops counting; whether that is another day now.

        Entries of earlier days stay until they have come, and do no harm.
        """
        if due == head.due:
            return False
        self.due.schedule(due, key)
        head.due = due
        return True

    def _expire(self) -> None:
        for _, key, _ in self.due.pop(self.today, SWEPT_PER_COMMIT):
            if self.profiles.get(key) is not None:
                self.touched.setdefault(key, -1)

    # ----------------------------------------------------------------------------------------------- after a reset
    def _ends(self) -> list[tuple[str, int]]:
        return [(name.rpartition("/")[0], end) for name, end in self.catch_up.items()]

    def _settle_only(self) -> None:
        """While catching up: keep profiles that several are in; the sweep will compare all with their records."""
        for key in self.touched:
            state = self.profiles.get(key)
            if state is not None and state.shared:
                head, *_, due = self.moves.settle(key, state)
                if due is not None:
                    self._index(key, head, due)

    def _sweep(self) -> None:
        """Caught up: compare every profile with its record in the output topic, some per commit."""
        assert self.sweep is not None
        start = self.sweep.encode()
        found = [e[0] for e in zip(self.profiles.scan(start), range(SWEPT_PER_COMMIT), strict=False)]
        self.profiles.load({key for key, _ in found})
        for key, _ in found:
            self.touched.setdefault(key, -1)
        self.sweep = found[-1][0].decode() + "\x00" if len(found) == SWEPT_PER_COMMIT else None


def _assignment(key: bytes | None, value: bytes | None) -> tuple[bytes, Assigned | None]:
    """A record of the assignments topic. Raises Misfit: then the subject stays where it was."""
    try:
        assert key is not None
        key.decode()
        if value is None:
            return key, None
        said = decode_assignment(value)
        assert said.profile
    except (AssertionError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Misfit("no-assignment", "this is no assignment of a subject to a profile") from error
    return key, Assigned(said.seq, said.profile, tuple(said.identifiers))


# ------------------------------------------------------------------------------------------------------------ agent
class ProjectionAgent(Copartitioned):
    """The agent of one version of one projection."""

    def __init__(self, plan: Plan, projection: ProjectionDeclaration, suppression: Suppression | None = None) -> None:
        """`suppression`: of an app that erases."""
        self.plan, self.projection, self.suppression = plan, projection, suppression
        planned = plan.agent(projection.agent)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        (self.lead,), self.reads, (self.log,) = planned.lead, planned.reads, planned.changelogs
        self.compiled = compile_projection(plan, projection)
        self.loops: Sequence[str] = () if self.compiled.parts is None else (self.compiled.parts,)
        self.counters = ProjectionCounters()

    def processor(self, task: Task) -> Processor:
        return ProjectionTask(self.compiled, task, self.counters, self.suppression)

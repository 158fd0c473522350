"""projection: governed records in, one record per profile out. One task per partition of subjects.

Here a subject is its own profile: its fragment is the profile's. What a profile holds is decided in `c360.profile`;
this module folds batches into fragments, and at each commit writes the profiles whose record is another than the last.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

import msgspec

from c360.agents.wire import CAUSE, MisfitRecord, encode, misfit_record
from c360.clock import DAY_MS
from c360.codecs.record import Condition, FieldInfo, Record, fields_of
from c360.declare import Input, Projection, ProjectionDeclaration, Source, Where, value_type
from c360.engine.agent import Outbox, Processor, Task
from c360.engine.transport import TP, Batch
from c360.errors import Misfit
from c360.plan import Plan, windowed
from c360.profile.attribute import Attribute, ValueType
from c360.profile.fold import AS_OF, RECORDS, Folding, Fragment, Reader
from c360.profile.format import DIGEST_BYTES, digest_of
from c360.profile.record import ProfileWriter
from c360.tables.table import Table

PROFILES, DUE = b"p", b"d"
SWEPT_PER_COMMIT = 2_000
_DAY = struct.Struct(">i")
_NO_DUE = -(1 << 31)
# Types that JSON holds as text.
PLAIN: Mapping[ValueType, Any] = {"decimal": Decimal, "datetime": datetime, "date": date}
OF_TEXT: Mapping[ValueType, Callable[[str], Any]] = {
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


# --------------------------------------------------------------------------------------------------------- decoding
class View(msgspec.Struct, kw_only=True):
    """What a projection reads of every governed record; subclasses add what it needs of `record` and `enriched`."""

    at: int
    cause: int
    sign: int = 1
    mask: int = 0


def looked_at(conditions: Iterable[Where]) -> frozenset[str] | None:
    """The fields that conditions look at; None: perhaps all, they are to see the record as the user has declared it."""
    seen = [c.fields if isinstance(c, Condition) else None for c in conditions]
    return None if None in seen else frozenset[str]().union(*(s for s in seen if s is not None))


def view_type(record: type[Record], inputs: Sequence[Input], typed: frozenset[str] | None) -> type[View]:
    """The part of a governed record type that inputs and conditions need; `typed`: as `looked_at` has it."""
    infos = {f.name: f for f in fields_of(record)}
    needed = sorted({i.name for i in inputs if i.name is not None and not i.enriched} | (typed or frozenset()))
    fields: list[Any] = []
    if typed is None:
        fields.append(("record", record))
    elif needed:
        parts = [(n, infos[n].wire if n in typed else _plain_wire(infos[n]), None) for n in needed]
        fields.append(("record", msgspec.defstruct(f"{record.__name__}Fields", parts)))
    enriched = sorted({i.name for i in inputs if i.name is not None and i.enriched})
    if enriched:
        parts = [(n, Any, None) for n in enriched]
        fields.append(("enriched", msgspec.defstruct(f"{record.__name__}Enriched", parts), msgspec.field(
            default_factory=msgspec.defstruct("Nothing", parts))))  # fmt: skip
    name = record.__name__
    made = msgspec.defstruct(name, fields, bases=(View,), tag_field="type", tag=name, kw_only=True)
    return cast(type[View], made)


def _plain_wire(info: FieldInfo) -> Any:
    """What to decode a field as, so that it is text or plain JSON where an attribute wants that."""
    kind = value_type(info.annotation)
    if kind == "json":
        return Any
    wire = str if kind in ("text", "datetime") else info.wire  # a time's text is what attributes keep of it
    return wire | None if info.optional else wire


def ignored_type(record: type[Record]) -> type[msgspec.Struct]:
    """A governed type that the projection does not use: only its tag is read."""
    return msgspec.defstruct(f"Ignored{record.__name__}", [], tag_field="type", tag=record.__name__)


def read_of(item: Input, kind: ValueType, typed: frozenset[str] | None) -> Callable[[Any], Any] | str:
    """How a value is read from a view: the path to it, or a function. `typed`: as `looked_at` has it."""
    if item.name is None:
        return ""
    path = f"{'enriched' if item.enriched else 'record'}.{item.name}"
    get = attrgetter(path)
    if item.enriched:
        plain = PLAIN.get(kind)
        return path if plain is None else lambda view: None if (v := get(view)) is None else msgspec.convert(v, plain)
    if kind not in ("text", "json") or (typed is not None and item.name not in typed):
        return path
    # as the user has declared it, which may be an Enum or a record where JSON has text or an object
    return lambda view: v if (v := get(view)) is None or type(v) is str else msgspec.to_builtins(v)


def _on_record(where: Callable[[Any], Any]) -> Callable[[Any], Any]:
    holds = where.holds if isinstance(where, Condition) else where
    return lambda view: holds(view.record)


@dataclass(frozen=True)
class SourceFold:
    """How one governed topic is folded: its decoder, and per view type the function that folds a record."""

    decode: Callable[[bytes], Any]
    folds: Mapping[type, Callable[[Fragment, Any, int, int, int], None]]


def source_fold(source: Source, projection: ProjectionDeclaration, folding: Folding) -> SourceFold:
    union: Any = None
    folds: dict[type, Callable[[Fragment, Any, int, int, int], None]] = {}
    for declared in source.types:
        used = [
            (index, rank, item, declaration.where)
            for index, declaration in enumerate(projection.declarations)
            for rank, item in enumerate(declaration.inputs)
            if item.record is declared.record
        ]
        if used:
            typed = looked_at([where for *_, where in used if where is not None])
            view: Any = view_type(declared.record, [item for _, _, item, _ in used], typed)
            # Conditions of one text are one; so are values of one field.
            tests = {repr(where): _on_record(where) for *_, where in used if where is not None}
            reads = {
                (item, kind): read_of(item, kind, typed)
                for index, _, item, _ in used
                for kind in [projection.attributes[index].type]
            }
            readers = [
                Reader(index, rank, reads[item, projection.attributes[index].type], tests.get(repr(where)))
                for index, rank, item, where in used
            ]
            folds[view] = folding.folder(readers, rows=source.kind == "rows")
        else:
            view = ignored_type(declared.record)
        union = view if union is None else union | view
    return SourceFold(msgspec.json.Decoder(union).decode, folds)


# ------------------------------------------------------------------------------------------------------------ state
class ProfileState:
    """A profile's fragment, the digest of its last record (b"" without one), and the day it is in the index of due days."""

    __slots__ = ("digest", "due", "fragment")

    def __init__(self, fragment: Fragment, digest: bytes = b"", due: int = _NO_DUE) -> None:
        self.fragment, self.digest, self.due = fragment, digest, due


class ProfileCodec:
    """Bytes of a profile's state: due day, digest (or 16 zero bytes), fragment."""

    def __init__(self, folding: Folding) -> None:
        self.fragment_bytes, self.fragment_of = folding.encode, folding.decode

    def encode(self, state: ProfileState) -> bytes:
        return _DAY.pack(state.due) + (state.digest or bytes(DIGEST_BYTES)) + self.fragment_bytes(state.fragment)

    def decode(self, data: bytes) -> ProfileState:
        digest = data[4 : 4 + DIGEST_BYTES]
        return ProfileState(
            self.fragment_of(data[4 + DIGEST_BYTES :]), digest if any(digest) else b"", _DAY.unpack(data[:4])[0]
        )


# ------------------------------------------------------------------------------------------------------- the record
class Renderer:
    """The profile record of a fragment, derived values included."""

    def __init__(self, projection: ProjectionDeclaration, folding: Folding) -> None:
        self.folding = folding
        self.names = [a.name for a in projection.attributes]
        self.derived = projection.derived
        self.instance = lazily_typed(projection) if projection.derived else None
        self.write = ProfileWriter(projection.name, projection.version, (*self.names, *projection.derived))

    def render(self, subject: str, fragment: Fragment, today: int) -> tuple[bytes | None, Exception | None]:
        """The record's bytes, None for a profile without records; and what a derived value raised, if one did."""
        cells = self.folding.seen(fragment)
        if cells[RECORDS] <= 0:
            return None, None
        values = self.folding.show(cells, today)
        failed = None
        if self.instance is not None:
            derived, failed = self._derived(self.instance(**dict(zip(self.names, values, strict=True))))
            values += derived
        return self.write(subject, (subject,), 1, (subject,), values, cells[AS_OF]), failed

    def _derived(self, instance: Projection) -> tuple[list[Any], Exception | None]:
        computed: list[Any] = []
        failed: Exception | None = None
        for name in self.derived:
            try:
                computed.append(plain_value(getattr(instance, name)))
            except Exception as error:  # the user's code; the value is null, the reason goes to the dead-letter topic
                computed.append(None)
                failed = failed or error
        return computed, failed


def lazily_typed(projection: ProjectionDeclaration) -> type[Projection]:
    """The user's class, made of plain values; one becomes Decimal, datetime or date when it is asked for."""
    typed = ((a.name, _typed(a)) for a in projection.attributes)
    views = {name: _view(name, of) for name, of in typed if of is not None}
    return type(projection.record.__name__, (projection.record,), views)


def _view(name: str, of: Callable[[Any], Any]) -> property:
    def get(instance: Projection) -> Any:
        value = instance.__dict__[name]
        return None if value is None else of(value)

    return property(get)


def plain_value(value: Any) -> Any:
    """A Python value as JSON holds it: Decimals in plain notation, times as RFC 3339 in UTC."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("a derived Decimal is not finite")
        return format(value, "f")
    return msgspec.to_builtins(value)


def _typed(attribute: Attribute) -> Callable[[Any], Any] | None:
    """What makes a plain value as the annotation says it: Decimal, datetime and date of their text. None: nothing."""
    if attribute.kind in ("count", "flag", "distinct"):
        return None
    if attribute.kind in ("total", "average"):
        return Decimal
    if attribute.type not in OF_TEXT:
        return None
    of = OF_TEXT[attribute.type]
    return lambda value: [of(v) for v in value] if isinstance(value, list) else of(value)


# ------------------------------------------------------------------------------------------------------------- task
@dataclass
class ProjectionCounters:
    """What became of governed records in this process, for metrics; work that was aborted counts again."""

    folded: int = 0
    written: int = 0
    unchanged: int = 0
    tombstones: int = 0
    newest_cause: int = 0


class ProjectionTask:
    """One partition of subjects."""

    def __init__(
        self,
        plan: Plan,
        projection: ProjectionDeclaration,
        task: Task,
        parts: ProjectionParts,
        counters: ProjectionCounters,
    ) -> None:
        self.agent, self.dlq = projection.agent, plan.dlq
        self.partition = task.lead.partition
        self.output, self.days = plan.projected(projection), plan.days
        self.windowed = windowed(projection)
        self.folding, self.sources, self.renderer = parts.folding, parts.sources, parts.renderer
        codec = ProfileCodec(self.folding)
        self.profiles: Table[ProfileState] = Table(PROFILES, codec.encode, codec.decode)
        self.due: Table[bool] = Table(DUE, lambda _: b"", lambda _: True)
        self.tables = (self.profiles, self.due)
        self.counters = counters
        self.touched: dict[bytes, int] = {}  # profile -> append time of the newest cause
        self.today = 0
        self.announced = 0
        self.catch_up: dict[str, int] = {}  # after a reset: "topic/partition" -> offset before which nothing is written
        self.sweep: str | None = None  # after it: the profile from which on all records are still to be compared

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.touched.clear()
        self.today = notes.get("today", 0)
        self.announced = 0
        self.catch_up = dict(notes.get("catch_up", {}))
        self.sweep = notes.get("sweep")

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {}
        if self.today:
            notes["today"] = self.today
        if self.catch_up:
            notes["catch_up"] = self.catch_up
        if self.sweep is not None:
            notes["sweep"] = self.sweep
        return notes

    def process(self, batch: Batch, out: Outbox) -> None:
        if batch.tp.topic == self.days:
            self.today = max([self.today, *(int(v) for v in batch.values if v)])
            return
        source = self.sources[batch.tp.topic]
        keys: list[bytes] = batch.keys  # type: ignore[assignment]  # governed records always have a key: their subject
        views = list(map(source.decode, batch.values))  # type: ignore[arg-type]  # and always a value
        profiles = self.profiles.load(set(keys))
        folds, empty, touched = source.folds, self.folding.empty, self.touched
        folded = 0
        for at, (key, view) in enumerate(zip(keys, views, strict=True)):
            fold = folds.get(type(view))
            if fold is None:
                continue
            state = profiles[key]
            if state is None:
                state = profiles[key] = ProfileState(empty())
            try:
                fold(state.fragment, view, view.at, view.sign, view.mask)
            except Misfit as misfit:
                self._put_aside(batch, at, misfit, out)
                continue
            cause = view.cause
            if touched.get(key, -1) < cause:
                touched[key] = cause
            folded += 1
        self.profiles.touch(touched)
        self.counters.folded += folded

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        self._put_aside(batch, 0, error, out)

    def _put_aside(self, batch: Batch, i: int, error: BaseException, out: Outbox) -> None:
        value = misfit_record(
            self.agent,
            batch.tp,
            batch.offsets[i],
            batch.times[i],
            batch.keys[i],
            batch.values[i],
            batch.headers(i),
            error,
        )
        out.send(self.dlq, batch.keys[i], value)

    def wants(self, now_ms: int) -> bool:
        if self.sweep is not None:
            return True
        return self.windowed and (max(self.today, self.announced) < now_ms // DAY_MS or self._first_due() <= self.today)

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        if self.windowed:
            self._announce(now_ms // DAY_MS, out)
            self._expire()
        if self.catch_up:
            if all(positions[TP(t, self.partition)] >= end for t, end in self._ends()):
                self.catch_up, self.sweep = {}, ""
            self.touched.clear()
            return
        if self.sweep is not None:
            self._sweep()
        profiles = self.profiles.load(self.touched)
        changed = [key for key, cause in self.touched.items() if self._write(key, profiles[key], cause, out)]
        self.profiles.touch(changed)
        self.touched.clear()

    def _announce(self, day: int, out: Outbox) -> None:
        """Say which day it is, to all tasks of this partition and to every rebuild: a record, not a clock, moves windows."""
        if max(self.today, self.announced) < day:
            out.send(self.days, str(self.partition).encode(), str(day).encode(), self.partition)
            self.announced = day

    # ----------------------------------------------------------------------------------------------------- writing
    def _write(self, key: bytes, state: ProfileState | None, cause: int, out: Outbox) -> bool:
        """Write the profile if its record is another than the last; whether its state has changed."""
        assert state is not None
        indexed = self.windowed and self._index(key, state)
        record, failed = self.renderer.render(key.decode(), state.fragment, self.today)
        digest = b"" if record is None else digest_of(record)
        if digest == state.digest:
            self.counters.unchanged += 1
            return indexed
        headers = [(CAUSE, b"%d" % cause)] if cause >= 0 else None
        out.send(self.output, key, record, None, headers)
        state.digest = digest
        self.counters.written += 1
        self.counters.tombstones += record is None
        self.counters.newest_cause = max(self.counters.newest_cause, cause)
        if failed is not None:
            out.send(self.dlq, key, self._derived_misfit(key, failed))
        return True

    def _derived_misfit(self, key: bytes, failed: Exception) -> bytes:
        return encode(
            MisfitRecord(
                stage=self.agent,
                topic=self.output,
                partition=self.partition,
                offset=-1,
                timestamp=-1,
                reason="derived-failed",
                error=f"a @derived value of {self.agent} raised {type(failed).__name__}; it is null in the profile",
                traceback="".join(traceback.format_exception(failed))[-8000:],
            )
        )

    # ----------------------------------------------------------------------------------------------------- windows
    def _index(self, key: bytes, state: ProfileState) -> bool:
        """Have the profile looked at again on the day its first bucket stops counting; whether that is another day now."""
        due = self.folding.expire(state.fragment, self.today)
        if due is None or due == state.due:
            return False
        self.due.put(_day_key(due) + key, True)
        state.due = due
        return True

    def _first_due(self) -> int:
        for key, _ in self.due.scan():
            return _day_of(key)
        return 1 << 31

    def _expire(self) -> None:
        found = [k for k, _ in zip(self.due.scan(b"", _day_key(self.today + 1)), range(SWEPT_PER_COMMIT), strict=False)]
        for entry, _ in found:
            key = entry[4:]
            self.due.delete(entry)
            state = self.profiles.get(key)
            if state is not None:
                state.due = _NO_DUE
                self.profiles.touch((key,))
                self.touched.setdefault(key, -1)

    # ----------------------------------------------------------------------------------------------- after a reset
    def _ends(self) -> list[tuple[str, int]]:
        return [(name.rpartition("/")[0], end) for name, end in self.catch_up.items()]

    def _sweep(self) -> None:
        """Caught up: compare every profile with its record in the output topic, some per commit."""
        assert self.sweep is not None
        start = self.sweep.encode()
        found = [e[0] for e in zip(self.profiles.scan(start), range(SWEPT_PER_COMMIT), strict=False)]
        self.profiles.load({key for key, _ in found})
        for key, _ in found:
            self.touched.setdefault(key, -1)
        self.sweep = found[-1][0].decode() + "\x00" if len(found) == SWEPT_PER_COMMIT else None


def _day_key(day: int) -> bytes:
    return struct.pack(">I", day + (1 << 31))


def _day_of(key: bytes) -> int:
    day: int = struct.unpack(">I", key[:4])[0]
    return day - (1 << 31)


# ------------------------------------------------------------------------------------------------------------ agent
@dataclass(frozen=True)
class ProjectionParts:
    """What is compiled once per projection and shared by its tasks."""

    folding: Folding
    sources: Mapping[str, SourceFold]
    renderer: Renderer


def compile_projection(plan: Plan, projection: ProjectionDeclaration) -> ProjectionParts:
    folding = Folding(projection.attributes)
    sources = {plan.governed(s): source_fold(s, projection, folding) for s in plan.sources_of(projection)}
    return ProjectionParts(folding, sources, Renderer(projection, folding))


class ProjectionAgent:
    """The agent of one version of one projection."""

    def __init__(self, plan: Plan, projection: ProjectionDeclaration) -> None:
        self.plan, self.projection = plan, projection
        planned = plan.agent(projection.agent)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        self.reads = planned.reads
        self.parts = compile_projection(plan, projection)
        self.counters = ProjectionCounters()

    def lead_topics(self) -> Sequence[str]:
        return (self.plan.tasks,)

    def task(self, lead: TP) -> Task:
        return Task(lead, tuple(TP(t, lead.partition) for t in self.reads))

    def changelog(self, lead: TP) -> TP:
        return TP(f"{self.plan.projected(self.projection)}.changelog", lead.partition)

    def store_name(self, lead: TP) -> str:
        return f"{self.group}/{lead.partition}"

    def processor(self, task: Task) -> Processor:
        return ProjectionTask(self.plan, self.projection, task, self.parts, self.counters)

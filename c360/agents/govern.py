"""govern: raw records in, governed records out. One task per raw topic-partition.

Per record: decode and check against the declared type; find its subject, time and id; enrich; drop repeats; write it
keyed by its subject. What does not fit goes to the dead-letter topic with its reason, and the rest goes on. Rows of
databases are kept, so that an update is the old row taken back and the new one added, and a delete takes back what is
kept here, never what the event claims the row was.

Order decides only what order must: of two deliveries of one id the first in the partition counts; of two states of one
row the later source position. Everything else is left to the projections, which do not look at order.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from c360.agents.answers import AnswersDecoder
from c360.agents.links import ALWAYS, NEVER, LinkReader, LinkWriter, Saying, Words, subject_labels
from c360.agents.opening import Opening
from c360.agents.sealing import LETTERS, RecordSeal, SealedValue, TaskKeys, opened, sealed_types
from c360.agents.suppression import Suppression, Watch
from c360.agents.wire import (
    GOVERNED_BYTES,
    MISFIT_BYTES,
    ORIGIN,
    SEALED,
    TIME,
    Governed,
    Original,
    Truncate,
    decode_enclosed,
    decode_json,
    decode_truncate,
    encode,
    governed_decoder,
    governed_type,
    is_unread,
    misfit_record,
    original_of,
)
from c360.codecs.avro import AvroDecoder, JsonOfAvro, NoRegistry, Registry, RegistryDecoder, Values
from c360.codecs.cloudevents import CloudEventsDecoder
from c360.codecs.debezium import Change, DebeziumDecoder, Unfit
from c360.codecs.json import Choice, JsonDecoder
from c360.codecs.quick import EPOCH
from c360.codecs.record import Record, fields_of
from c360.codecs.segment import SegmentDecoder
from c360.declare import Enrichment, Source, SourceType, without_none
from c360.engine.agent import AnyTable, Outbox, Processor, Task
from c360.engine.global_table import GlobalTable
from c360.engine.pace import Bucket
from c360.engine.transport import TP, Batch
from c360.errors import C360Error, Misfit, NeedsOperator, Shut
from c360.governance.keys import NO_LIVES, life_of
from c360.governance.messages import Passed, Receipt, encode_passed, encode_receipt
from c360.governance.names import Names, Vault
from c360.governance.sealing import DataKey
from c360.governance.suppressed import Suppressed, life_if_kept
from c360.governance.tokens import MARK
from c360.identity.namespace import Namespace, shown
from c360.plan import Plan, sealed_of
from c360.tables.ids import IdTable, id_key
from c360.tables.table import Table

MS = timedelta(milliseconds=1)
AHEAD_MS = 5 * 60_000  # how far an event's time may be after its append time
SHARE_OF = 1000  # records
LOOKED_AT = 500  # rows, in one step: about 20 ms, in which no record is governed (docs/decisions/0018)
IDS, ROWS, MISFITS = b"iI", b"r", b"m"
ROW = "row"  # in place of a namespace
HIDDEN = f"{ROW}:{MARK}".encode()
V = TypeVar("V")
NOTHING: dict[str, Any] = {}  # shared, never changed
_OFFSET = struct.Struct(">q")


class RowState(msgspec.Struct, array_like=True):
    """The last state of one row. `governed` None: deleted; kept so that older states do not come back.

    `revision` counts its changes; `links`: labels of the identifiers that it says are its subject's; `missed`: columns that
    states since have sent, and were put aside.
    """

    position: str
    subject: str
    governed: bytes | None
    revision: int = 1
    links: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()

    def pairs(self) -> list[tuple[str, str]]:
        return [(self.subject, label) for label in self.links]


@dataclass
class GovernCounters:
    """What became of the records of a source in this process, for metrics; work that was aborted counts again."""

    governed: int = 0
    retracted: int = 0
    duplicates: int = 0
    stale: int = 0
    ignored: int = 0
    links: int = 0
    records: int = 0  # of the raw topic, whatever became of them
    bytes: int = 0  # of their values
    suppressed: int = 0  # records of customers who are to be forgotten: dropped
    misfits: Counter[str] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)  # values that identify nobody, by namespace


Said = tuple[str, bytes, int, Mapping[str, Any]]
"""What a record is to us: its subject, its bytes as a governed record, its time, what enrichments made of it."""


class Forgotten(Exception):
    """The record is about somebody who is suppressed, or names them: it is dropped, and counted."""

    def __init__(self, subject: str) -> None:
        self.subject = subject


Judge = Callable[[str, Any, Mapping[str, Any]], int]
"""Of a record's subject, the record and what enrichments made of it: the life that it is of. Raises Forgotten."""


class RecordReader:
    """Compiled for one record type: subject, id, time, enrichments and links of its records."""

    def __init__(self, plan: Plan, source: Source, declared: SourceType, names: Names) -> None:
        def labels(namespace: Namespace) -> Callable[..., str]:
            return subject_labels(plan, namespace, names, tenants=source.tenant is not None)

        enrichments = source.enrichments
        self.name = declared.name
        self.links = LinkReader(plan, source, declared, names) if plan.links_of.get(declared.record) else None
        self.seal = RecordSeal(plan, declared.record, enrichments) or None
        self.governed: Any = governed_type(declared.record)
        fields = {f.name: f for f in fields_of(declared.record)}
        self.subjects = [
            (attrgetter(name), labels(plan.identifiers[without_none(fields[name].annotation)]))
            for name in declared.subject
        ]
        self.subject_names = declared.subject
        self.key = None if source.key is None else labels(source.key)
        if source.format == "answers":
            self.key = str  # it is the subject's label already
        self.tenant = None if source.tenant is None else attrgetter(source.tenant)
        self.id = attrgetter(declared.event_id) if declared.event_id else None
        self.at = attrgetter(declared.at) if declared.at else None
        self.enrichments = _by_time([e for e in enrichments if e.record is declared.record])

    def govern(
        self,
        record: Record,
        raw_key: bytes | None,
        said_id: str | None,
        at: int,
        append: int,
        origin: tuple[int, int],
        keys: Callable[[str], DataKey] | None = None,
        judge: Judge | None = None,
    ) -> Said:
        """The record as it is to be written, sealed where something of it is. `at`: its time where none is declared.

        `keys`: of subjects; None: nothing is sealed, as what comes of it is not written. Raises Misfit; with a judge,
        Forgotten."""
        if self.at is not None and (time := self.at(record)) is not None:
            at = (time - EPOCH) // MS  # rounded down
        if at > append + AHEAD_MS and append >= 0:
            at = append + AHEAD_MS  # so that no wrong clock wins for ever
        subject = self.subject(record, raw_key)
        try:
            enriched = self._enriched(record, at) if self.enrichments else NOTHING
        except Misfit:
            if judge is not None:  # of somebody suppressed it must not become a dead letter
                judge(subject, record, NOTHING)
            raise
        written: Mapping[str, Any] = enriched
        life = 0 if judge is None else judge(subject, record, enriched)
        if self.seal is not None and keys is not None and self.seal.wanted(record):
            record, written = self.seal.seal(record, enriched, keys(subject))
        value = encode(
            self.governed(id=said_id, at=at, cause=append, origin=origin, life=life, enriched=written, record=record)
        )
        if len(value) > GOVERNED_BYTES:
            raise Misfit("too-large", f"{self.name}: governed, it is larger than {GOVERNED_BYTES} bytes")
        return subject, value, at, enriched

    def labels(self, subject: str, record: Record, enriched: Mapping[str, Any], refused: Counter[str]) -> list[str]:
        """As `LinkReader.labels`."""
        if self.links is None:
            return []
        return self.links.labels(subject, self.links.values(record, enriched), refused)

    def subject(self, record: Record, raw_key: bytes | None) -> str:
        """The label of the subject. Raises Misfit when there is none."""
        tenant = self.tenant
        for read, label in self.subjects:
            value = read(record)
            if value is not None:
                return label(value) if tenant is None else label(value, tenant(record) or "")
        if self.key is None:
            names = " and ".join(f"{self.name}.{n}" for n in self.subject_names)
            raise Misfit("no-subject", f"{names} has no value, so the record is about nobody")
        if raw_key is None:
            raise Misfit("no-subject", f"the record has no key, and {self.name} takes its subject from the key")
        try:
            key = raw_key.decode()
            return self.key(key) if tenant is None else self.key(key, tenant(record) or "")
        except UnicodeDecodeError:
            raise Misfit(
                "no-subject", f"the key is not UTF-8, and {self.name} takes its subject from the key"
            ) from None

    def _enriched(self, record: Record, at: int) -> dict[str, Any]:
        """Values of the enrichments. Raises Misfit with the user's exception as its cause."""
        values = {}
        for since, functions in self.enrichments:  # mostly there is one; a record of today is of the first in any case
            if at < since:
                continue
            for name, function in functions:
                try:
                    value = function(record)
                    encode(value)
                except Exception as error:
                    raise Misfit(
                        "enrichment-failed", f"@app.enrich({self.name}) {name} raised {type(error).__name__}"
                    ) from error
                if value is not None:
                    values[name] = value
            break
        return values


def _by_time(enrichments: Sequence[Enrichment]) -> list[tuple[int, list[tuple[str, Callable[[Any], Any]]]]]:
    """From which event time on, the newest first, these are what gives values; [] where there are none."""
    changes = {since for e in enrichments if (since := e.since_ms) is not None} | {ALWAYS}
    return [
        (since, [(e.name, function) for e in enrichments if (function := e.at(since)) is not None])
        for since in sorted(changes, reverse=True)
        if enrichments
    ]


def _portion(entries: Iterator[tuple[bytes, V]]) -> tuple[list[tuple[bytes, V]], bytes | None]:
    """The next of them, and the key to go on with; None: that was all."""
    found = list(islice(entries, LOOKED_AT + 1))
    return found[:LOOKED_AT], found[LOOKED_AT][0] if len(found) > LOOKED_AT else None


def _of_tenant(reader: RecordReader, record: Record, event_id: str) -> str:
    """What an id is known by where tenants may use the same ones."""
    assert reader.tenant is not None
    return f"{reader.name}\0{reader.tenant(record)}\0{event_id}"


@dataclass(frozen=True)
class SourceParts:
    """What is compiled once per source and shared by its tasks."""

    source: Source
    readers: Mapping[type, RecordReader]
    decoder: JsonDecoder | DebeziumDecoder

    @property
    def schemas(self) -> Values | None:
        """Of a source whose values may name one: the reader of those."""
        if isinstance(self.decoder, RegistryDecoder):
            return self.decoder.values
        if isinstance(self.decoder, DebeziumDecoder) and self.decoder.avro is not None:
            return self.decoder.avro.values
        return None


def compile_source(
    plan: Plan, source: Source, names: Names, registry: Registry | None = None, opening: Opening | None = None
) -> SourceParts:
    """`registry`: of schemas that values name; None: there is none. `opening`: of an app that needs keys."""
    readers = {t.record: RecordReader(plan, source, t, names) for t in source.types}
    return SourceParts(source, readers, decoder_of(source, registry, opening))


def decoder_of(
    source: Source, registry: Registry | None = None, opening: Opening | None = None
) -> JsonDecoder | DebeziumDecoder:
    """What makes records of a source's values."""
    asked = registry or NoRegistry()
    if source.kind == "rows":
        (declared,) = source.types
        return DebeziumDecoder(declared.record, declared.key, JsonOfAvro(asked))
    if source.format == "answers":
        (declared,) = source.types
        return AnswersDecoder(declared.record, source.name, opening)
    if source.format == "protobuf":
        from c360.codecs.protobuf import MessageChoice, ProtobufDecoder  # needs c360[protobuf]

        messages = [MessageChoice(t.record, t.when, t.message) for t in source.types]
        return ProtobufDecoder(messages, source.unmatched, asked)
    choices = [Choice(t.record, t.when) for t in source.types]
    if source.format == "avro":
        reader = None if source.schema is None else msgspec.json.decode(source.schema)
        return AvroDecoder(choices, source.unmatched, asked, reader)
    kinds: Mapping[str, type[JsonDecoder]] = {"segment": SegmentDecoder, "cloudevents": CloudEventsDecoder}
    return kinds.get(source.format, JsonDecoder)(choices, source.unmatched)


@dataclass
class _Removal:
    """Of the newly suppressed, in portions: a task may hold millions of rows. `at`: what to go on with; None: it is over.

    Until it is over the task's notes say nothing of it, so that it begins again wherever the task goes on.
    """

    doomed: Mapping[str, Suppressed]  # by veiled label
    seen: list[int]  # to be kept when it is over
    at: bytes | None = b""  # in the rows, then in the keys
    rows: bool = True
    removed: Counter[str] = field(default_factory=Counter)  # by veiled label


class GovernTask:
    """One raw partition: its ids or rows, and the misfits that may be replayed."""

    def __init__(
        self,
        plan: Plan,
        parts: SourceParts,
        task: Task,
        raw_partitions: Callable[[], int],
        counters: GovernCounters,
        vault: Vault | None,
        governance: GlobalTable | None,
        suppression: Suppression | None = None,
    ) -> None:
        source = parts.source
        self.raw = task.lead
        self.raw_partitions = raw_partitions
        self.output, self.dlq = plan.governed(source), plan.dlq
        self.replay, self.truncates = plan.replay(source), plan.truncates(source)
        self.readers = parts.readers
        self.ids = IdTable(IDS, source.window // MS)
        self.rows: Table[RowState] = Table(
            ROWS, msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(RowState).decode
        )
        self.hidden: Callable[[str], bytes] | None = None  # from a row id to the key of a deleted row
        if suppression is not None and vault is not None:
            token = vault.names.token
            self.hidden = lambda row_id: token(f"{ROW}:{row_id}").encode()
        self.misfits: Table[bool] = Table(MISFITS, lambda _: b"", lambda _: True)
        self.links = LinkWriter(plan, source.name, None if vault is None else vault.names)
        self.suppression = suppression
        self.judge: Judge | None = None  # of this batch; None while nobody was ever erased
        self.log = plan.govern_changelog(source)
        self.plan = plan
        self.watch = None if suppression is None else Watch(suppression)
        self.handled: list[int] = []  # where the copy stood when its rows were looked at last
        self.seen: list[int] = []  # what of the suppressed table its rows were compared with
        self.passed: dict[str, int] = {}  # by its partition, what was said
        self.removal: _Removal | None = None  # that is not over
        if suppression is not None:
            self.links.lives = self._life
        self.keys = None if vault is None else TaskKeys(plan, vault, self.raw, governance)
        self.seals = self.keys is not None and any(reader.seal for reader in self.readers.values())
        self.at_hand: dict[str, DataKey] = {}  # keys of the subjects of this batch
        self.key_of: Callable[[str], DataKey] | None = None
        self.personal = (source.key is not None and source.key.personal) or bool(sealed_of(plan, source))
        self.tables: Sequence[AnyTable] = (self.ids, self.rows, self.misfits, self.links.table)
        if self.keys is not None:
            self.tables = (*self.tables, self.keys.table)
        self.counters = counters
        self.truncated = ""
        self.process_raw: Callable[[_Arrivals, Outbox], None]
        self.ready: Callable[[Batch], int] = len
        self.paused: Callable[[], bool] = _never
        self.bucket: Bucket | None = None  # of a source that has a rate
        self.share: MisfitShare | None = None  # of a source that pauses itself
        if isinstance(parts.decoder, RegistryDecoder):
            asking = parts.decoder
            self.ready = lambda batch: asking.ready(batch.values, batch.headers)
        if isinstance(parts.decoder, DebeziumDecoder):
            (self.reader,) = self.readers.values()
            self.changes = changes = parts.decoder
            self.ready = lambda batch: changes.ready(batch.values, batch.keys, batch.headers)
            record = source.types[0].record
            self.decode_governed = governed_decoder([governed_type(t) for t in sealed_types(plan, source)])
            self.decode_held = governed_decoder([governed_type(record, msgspec.Raw)])  # whatever was declared then
            self.read_record = msgspec.json.Decoder(record).decode
            self.process_raw = self._rows
        else:
            self.decoder = parts.decoder
            self.process_raw = self._events

    # --------------------------------------------------------------------------------------------------- processor
    def resume(self, notes: Mapping[str, Any]) -> None:
        self.ids.resume(notes.get("stream_time"), notes.get("sequence", 0))
        self.truncated = notes.get("truncated", "")
        self.links.forget()
        if self.keys is not None:
            self.keys.forget()
        if self.watch is not None:
            self.watch.again()
        self.handled, self.removal = [], None
        self.seen, self.passed = list(notes.get("suppressed", [])), dict(notes.get("passed", {}))

    def notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {"sequence": self.ids.sequence}
        if self.ids.stream_time is not None:
            notes["stream_time"] = self.ids.stream_time
        if self.truncated:
            notes["truncated"] = self.truncated
        if self.seen:
            notes["suppressed"] = self.seen
        if self.passed:
            notes["passed"] = self.passed
        return notes

    def wants(self, now_ms: int) -> bool:
        return self.removal is not None or (self.suppression is not None and self.suppression.reached() != self.handled)

    def settle(self, out: Outbox) -> None:
        """Its tasks have nothing to tell each other."""

    def finish(self, positions: Mapping[TP, int], now_ms: int, out: Outbox) -> None:
        """All is said as it comes, but what is to be said of customers who are to be forgotten."""
        if self.watch is not None:
            with suppress(Shut):  # nothing was made of records; it is asked again
                self._begin(self.watch)
                self._forget(self.watch.suppression, out)

    # ----------------------------------------------------------------------------------------------- the suppressed
    def _begin(self, watch: Watch) -> None:
        """Know who is suppressed. Raises Shut while that is not known."""
        watch.begin()
        if watch.suppression and self.judge is None:
            self.judge = self._judge

    def _judge(self, subject: str, record: Any, enriched: Mapping[str, Any]) -> int:
        assert self.suppression is not None
        reader = self.readers[type(record)]
        labels = reader.labels(subject, record, enriched, Counter())
        life = life_if_kept(subject, labels, self.suppression.look)
        if life is None:
            raise Forgotten(subject)
        return life

    def _life(self, label: str) -> int:
        assert self.suppression is not None
        said = self.suppression.look(label)
        return 0 if said is None else said.life

    def _forget(self, suppression: Suppression, out: Outbox) -> None:
        """Remove what is kept of those who are newly suppressed, say so, and say what this task has passed.

        What it makes from now on is made with at least what is known here: that is what passing means.
        """
        held = suppression.held
        now = [held.get(tp, -1) for tp in suppression.partitions]
        if self.removal is None and now != self.handled:
            self.handled = now
            self._find_doomed(suppression)
        for tp, offset in held.items():
            if offset > 0 and self.passed.get(str(tp.partition)) != offset:
                self.passed[str(tp.partition)] = offset
                task = self.plan.govern_task(*self.raw)
                out.send(self.plan.passed, *encode_passed(Passed(task, tp.partition, offset)), 0)
        if self.removal is not None:
            self._remove_some(self.removal, suppression.hide)
            if self.removal.at is None:
                self._give_receipts(self.removal, out)
                self.seen, self.removal = self.removal.seen, None

    def _find_doomed(self, suppression: Suppression) -> None:
        news = suppression.news(self.seen)
        said = {veiled: found for veiled in news.veiled if (found := suppression.of(veiled)) is not None}
        if said:
            self.links.forget()  # of another life they are news again
        doomed = {veiled: found for veiled, found in said.items() if found.stands}
        if doomed:
            self.removal = _Removal(doomed, news.seen)
        else:
            self.seen = news.seen

    def _give_receipts(self, removal: _Removal, out: Outbox) -> None:
        task, removed = self.plan.govern_task(*self.raw), removal.removed
        read = {f"{self.plan.suppressed}/{p}": offset for p, offset in enumerate(removal.seen) if offset > 0}
        for veiled, found in sorted(removal.doomed.items()):
            for request, hold in sorted(found.holds.items()):
                if not (hold.lifted or hold.proven):
                    tombstones = {self.log: removed[veiled]} if veiled in removed else {}
                    receipt = Receipt(request, veiled, found.life, f"govern:{task}", tombstones, read)
                    out.send(self.plan.receipts, *encode_receipt(receipt), 0)

    def _remove_some(self, removal: _Removal, veil: Callable[[str], str]) -> None:
        """The next rows of these customers, then their keys. Identifiers of theirs leave the rows of others."""
        assert removal.at is not None
        if removal.rows:
            removal.at = self._remove_rows(removal, removal.at, veil)
            if removal.at is None and self.keys is not None:
                removal.rows, removal.at = False, b""
        else:
            assert self.keys is not None
            removal.at = self._remove_keys(removal, removal.at, self.keys, veil)

    def _remove_rows(self, removal: _Removal, at: bytes, veil: Callable[[str], str]) -> bytes | None:
        doomed = removal.doomed
        portion, after = _portion(self.rows.scan(at))
        for row_id, row in portion:
            subject = veil(row.subject) if row.subject else ""
            if row.governed is None:
                if not row_id.startswith(HIDDEN):  # written before deleted ones were hidden
                    self._put(row_id.decode(), row)
            elif subject in doomed:
                self.rows.delete(row_id)
                removal.removed[subject] += 1
            elif row.links and any(veil(shown(label)) in doomed for label in row.links):
                links = tuple(label for label in row.links if veil(shown(label)) not in doomed)
                self.rows.put(row_id, msgspec.structs.replace(row, links=links))
        return after

    def _remove_keys(self, removal: _Removal, at: bytes, keys: TaskKeys, veil: Callable[[str], str]) -> bytes | None:
        portion, after = _portion(keys.table.scan(at))
        for key, held in portion:
            if key.decode().startswith(LETTERS):
                continue  # of dead letters: nobody's
            owner = veil(key.decode())
            if owner in removal.doomed and life_of(held.value) < removal.doomed[owner].life:
                keys.destroy(key.decode())
                removal.removed[owner] += 1
        return after

    def takes(self, batch: Batch) -> int:
        """Records whose schema cannot be asked for now wait, and what is behind them in their partition. A paused source waits
        with all of them; who is forgotten is forgotten meanwhile."""
        if self.paused() and batch.tp.topic != self.truncates:
            return 0
        if batch.tp != self.raw:
            return len(batch)
        ready = self.ready(batch)
        return ready if self.bucket is None else self.bucket.take(ready)

    def process(self, batch: Batch, out: Outbox) -> None:
        if self.watch is not None:
            self._begin(self.watch)
        if batch.tp.topic == self.truncates:
            for value in batch.values:
                if value is not None:
                    self._truncate(decode_truncate(value), out)
        elif batch.tp.topic == self.replay:
            self._replayed(batch, out)
        else:
            before = 0 if self.share is None else self.counters.misfits.total()
            self.process_raw(_Arrivals(batch, self.raw, batch.offsets, batch.times), out)
            self.counters.records += len(batch)
            self.counters.bytes += sum(map(len, filter(None, batch.values)))
            if self.share is not None:
                self.share.add(len(batch), self.counters.misfits.total() - before)

    def divert(self, batch: Batch, error: BaseException, out: Outbox) -> None:
        self._misfit(_Arrivals(batch, self.raw, batch.offsets, batch.times), 0, error, out)

    # ------------------------------------------------------------------------------------------------------ events
    def _events(self, arrivals: _Arrivals, out: Outbox) -> None:
        batch = arrivals.batch
        fresh: list[tuple[int, bytes, bytes]] = []  # index, subject, governed bytes
        news: dict[int, tuple[LinkReader, Words, int]] = {}  # by index, what may be said of links for the first time
        anonymous: set[int] = set()  # those of them without an id
        ids: list[bytes] = []  # of the others
        id_times: list[int] = []
        readers, raw, heard = self.readers, self.raw.partition, self.links.heard
        keys, times, offsets = batch.keys, arrivals.times, arrivals.offsets
        records = self.decoder.decode(batch.values, batch.headers)
        own_ids, own_times = self.decoder.ids, self.decoder.times
        lives = self.decoder.lives if self.judge is not None and isinstance(self.decoder, AnswersDecoder) else None
        key_of = self._keys_for(zip(records, keys, strict=True), out) if self.seals else None
        for i, record in enumerate(records):
            if record is None:
                self.counters.ignored += 1
                continue
            try:
                if isinstance(record, Misfit):
                    raise record
                reader = readers[type(record)]
                time = times[i]
                event_id = None if reader.id is None or (named := reader.id(record)) is None else str(named)
                said_at = time
                if own_ids is not None:  # what the envelope says, where the record does not
                    event_id = own_ids[i] if reader.id is None else event_id
                    said_at = time if (said := own_times[i]) is None else said
                origin = raw, offsets[i]
                subject, value, at, enriched = reader.govern(
                    record, keys[i], event_id, said_at, time, origin, key_of, self.judge
                )
                if lives is not None and lives[i] < self._life(subject):
                    raise Forgotten(subject)
            except Misfit as misfit:
                self._misfit(arrivals, i, misfit, out)
                continue
            except Forgotten:
                self.counters.suppressed += 1
                if arrivals.replayed:
                    self.misfits.delete(_OFFSET.pack(offsets[i]))
                continue
            if event_id is None:
                anonymous.add(i)
            else:
                name = f"{reader.name}\0{event_id}" if reader.tenant is None else _of_tenant(reader, record, event_id)
                ids.append(id_key(name))
                id_times.append(time)
            fresh.append((i, subject.encode(), value))
            links = reader.links
            if links is not None:
                plain = links.plain
                words = subject, plain(record) if plain is not None else links.values(record, enriched), links.name
                if heard.get(words, NEVER) > at:
                    news[i] = links, words, at
        answers = iter(self.ids.admit(ids, id_times))
        send, output = out.send, self.output
        repeats = 0
        for i, key, value in fresh:
            if i in anonymous or next(answers):
                send(output, key, value)
            else:
                repeats += 1
                news.pop(i, None)
            if arrivals.replayed:
                self.misfits.delete(_OFFSET.pack(offsets[i]))
        self.counters.governed += len(fresh) - repeats
        self.counters.duplicates += repeats
        if news:
            self._listen(news.values(), out)

    def _keys_for(self, records: Iterable[tuple[Any, bytes | None]], out: Outbox) -> Callable[[str], DataKey]:
        """Data keys of the subjects of records that have something to seal, all at once: a service may have to be asked.

        None of a record that will be dropped, as its subject may be known by nothing else: the forgotten under a new cookie.
        """
        assert self.keys is not None
        subjects: dict[str, None] = {}
        for record, raw_key in records:
            reader = self.readers.get(type(record))
            if reader is not None and reader.seal is not None and reader.seal.wanted(record):
                with suppress(Misfit, Forgotten):  # it is said again when its turn comes
                    subject = reader.subject(record, raw_key)
                    # Of a record that is dropped a key would be all that stays.
                    if self.judge is not None and subject not in subjects and not self.keys.has(subject):
                        self.judge(subject, record, NOTHING)
                    subjects[str(subject)] = None
        lives = self._lives(subjects)
        self.at_hand = self.keys.keys(subjects, out, lives) if subjects else {}
        return lambda subject: self._key_of(subject, out)

    def _lives(self, subjects: dict[str, None]) -> Mapping[str, int]:
        """Of subjects that were erased before. Those that are suppressed are left out of `subjects`: no key is made."""
        if self.judge is None:
            return NO_LIVES
        assert self.suppression is not None
        found = {}
        for subject in list(subjects):
            said = self.suppression.look(subject)
            if said is not None and said.stands:
                del subjects[subject]
            elif said is not None:
                found[subject] = said.life
        return found

    def _key_of(self, subject: str, out: Outbox) -> DataKey:
        key = self.at_hand.get(subject)
        if key is None:  # of a row whose columns were not all sent, or of a letter
            assert self.keys is not None
            wanted = {str(subject): None}
            lives = self._lives(wanted)
            key = self.at_hand[subject] = self.keys.keys(wanted, out, lives)[subject]
        return key

    def _listen(self, news: Iterable[tuple[LinkReader, Words, int]], out: Outbox) -> None:
        """Say what events say of links that no earlier one has said."""
        sayings: list[Saying] = []
        for reader, words, at in news:
            if self.links.recall(words) > at:
                subject, values, _ = words
                refused: Counter[str] = Counter()
                labels = reader.labels(subject, values, refused)
                known = None if refused else words  # what is refused counts each time
                sayings.append(Saying(known, subject, labels, at))
                self.counters.blocked += refused
        self.counters.links += self.links.events(sayings, out)

    # -------------------------------------------------------------------------------------------------------- rows
    def _rows(self, arrivals: _Arrivals, out: Outbox) -> None:
        batch = arrivals.batch
        changes = self.changes.decode(batch.values, batch.keys, batch.headers)
        self._load_rows({c.row_id for c in changes if isinstance(c, Change | Unfit)})
        sent = ((c.record, k) for c, k in zip(changes, batch.keys, strict=True) if type(c) is Change)
        self.key_of = self._keys_for(sent, out) if self.seals else None
        for i, change in enumerate(changes):
            if change is None:
                self.counters.ignored += 1
                continue
            try:
                if isinstance(change, Misfit):
                    raise change
                if change.op == "truncate":
                    self._spread(change, arrivals, i, out)
                else:
                    self._row(self._held(change.row_id), change, arrivals, i, out)
            except Misfit as misfit:
                self._miss(change)
                self._misfit(arrivals, i, misfit, out)
                continue
            except Forgotten as forgotten:
                assert isinstance(change, Change)
                self.counters.suppressed += 1
                self._drop(change.row_id, forgotten.subject, arrivals, i, out)
            if arrivals.replayed:
                self.misfits.delete(_OFFSET.pack(arrivals.offsets[i]))

    def _miss(self, change: Change | Misfit) -> None:
        """What a state that is put aside has sent cannot be taken from the one before any more, for columns left out later."""
        if isinstance(change, Misfit) and not isinstance(change, Unfit):
            return  # nobody knows of which row it is
        held = self._held(change.row_id)
        if held is None or held.governed is None or change.position <= held.position:
            return
        sent = change.sent if isinstance(change, Unfit) else self.changes.sent(change)
        if not sent <= set(held.missed):
            missed = tuple(sorted(sent.union(held.missed)))
            self._put(change.row_id, msgspec.structs.replace(held, missed=missed))

    def _load_rows(self, row_ids: Collection[str]) -> None:
        """Have what is known of rows in memory, with few reads."""
        live = self.rows.load({row_id.encode() for row_id in row_ids})
        if self.hidden is not None:
            self.rows.load({self.hidden(row_id) for row_id in row_ids if live[row_id.encode()] is None})

    def _held(self, row_id: str) -> RowState | None:
        """What is known of a row. A deleted one lies under a hash where customers are forgotten: its primary key may be the
        customer's number, and what it was about is not kept."""
        held = self.rows.get(row_id.encode())
        return self.rows.get(self.hidden(row_id)) if held is None and self.hidden is not None else held

    def _put(self, row_id: str, state: RowState) -> None:
        key = row_id.encode()
        if self.hidden is not None and (state.governed is None or self.rows.get(key) is None):
            gone, key = (key, self.hidden(row_id)) if state.governed is None else (self.hidden(row_id), key)
            if self.rows.get(gone) is not None:
                self.rows.delete(gone)
        self.rows.put(key, state)

    def _drop(self, row_id: str, subject: str, arrivals: _Arrivals, i: int, out: Outbox) -> None:
        """A row that is about somebody suppressed now is taken back from whom it was about before.

        One that was about the same subject stays as it is: unlinked, it would hide who is still to be found. If the subject
        is suppressed, or will be, its rows are removed for that.
        """
        held = self._held(row_id)
        if held is None or held.governed is None or held.subject == subject:
            return
        if self.suppression is not None and (said := self.suppression.look(held.subject)) is not None and said.stands:
            return
        append = arrivals.times[i]
        self._retract(held, append, (self.raw.partition, arrivals.offsets[i]), out)
        if held.links:
            self.counters.links += self.links.row(row_id, held.revision + 1, held.pairs(), [], append, out)
        self.rows.delete(row_id.encode())

    def _row(self, held: RowState | None, change: Change, arrivals: _Arrivals, i: int, out: Outbox) -> None:
        """An update takes back what is held and adds what is new; a state not newer than the held one changes nothing."""
        position = change.position if held is None or arrivals.replayed else change.placed(held.position)
        if position <= self.truncated or (held is not None and position <= held.position):
            self.counters.stale += 1
            return
        append = arrivals.times[i]
        origin = (self.raw.partition, arrivals.offsets[i])
        old = held.governed if held is not None else None
        revision = held.revision + 1 if held is not None else 1
        if change.op == "delete":
            if held is not None and old is not None:
                self._retract(held, append, origin, out)
            self._keep(change.row_id, held, RowState(position, "", None, revision), append, out)
            return
        record: Any = change.record
        if change.unchanged:
            before = None
            if held is not None and old is not None and not set(change.unchanged).intersection(held.missed):
                before = self._clear(held.subject, old)
            if before is None and self.judge is not None and (sent := self.changes.without(change)) is not None:
                self._drop_misfit(sent, arrivals.batch.keys[i], self.judge)
            record = self.changes.complete(change, before)
        reader = self.reader
        subject, value, at, enriched = reader.govern(
            record, arrivals.batch.keys[i], change.row_id, change.at_ms, append, origin, self.key_of, self.judge
        )
        if held is not None and old is not None:
            if change.snapshot and held.subject == subject and self._same(old, value, record):
                # A row read again, not changed: only its position is news, and no profile is written.
                self._put(change.row_id, RowState(position, held.subject, old, held.revision, held.links))
                self.counters.stale += 1
                return
            self._retract(held, append, origin, out)
        out.send(self.output, subject.encode(), value)
        self.counters.governed += 1
        labels = reader.labels(subject, record, enriched, self.counters.blocked)
        self._keep(change.row_id, held, RowState(position, str(subject), value, revision, tuple(labels)), at, out)

    def _drop_misfit(self, sent: Record, raw_key: bytes | None, judge: Judge) -> None:
        """Raises Forgotten for the part of a row that was sent of somebody suppressed, whose row before is gone for that: it
        must not become a dead letter."""
        with suppress(Misfit):  # nobody can tell whom it is about
            judge(self.reader.subject(sent, raw_key), sent, NOTHING)

    def _same(self, old: bytes, new: bytes, record: Record) -> bool:
        """Whether two states of a row say the same; sealed values do if their bytes are equal."""
        mine = record if self.reader.seal is None else self.decode_governed(new).record
        try:
            return bool(self.decode_governed(old).record == mine)
        except msgspec.ValidationError:  # other fields were sealed when it was written
            return False

    def _clear(self, subject: str, governed: bytes) -> Record:
        """The record of a state that is kept, opened with the keys of this task. Raises Misfit where they are gone."""
        seal, keys = self.reader.seal, self.keys
        held = self.decode_held(governed).record
        try:
            if seal is not None and keys is not None:
                held = encode(opened(decode_json(held), seal.tree, lambda value, name: keys.open(value, subject, name)))
            record: Record = self.read_record(held)
        except msgspec.ValidationError:
            raise Misfit(
                "unknown-row",
                f"{self.reader.name}: the row before was kept as it was declared then; read the table again",
            ) from None
        return record

    def _keep(self, row_id: str, held: RowState | None, now: RowState, at: int, out: Outbox) -> None:
        """Keep a row's new state, and say what links it brought and took."""
        was = held.pairs() if held is not None else []
        if was or now.links:
            self.counters.links += self.links.row(row_id, now.revision, was, now.pairs(), at, out)
        self._put(row_id, now)

    def _retract(self, held: RowState, cause: int, origin: tuple[int, int], out: Outbox) -> None:
        """The held record again, same in all that folds, with the sign turned."""
        assert held.governed is not None
        governed: Governed = self.decode_held(held.governed)
        governed.sign, governed.cause, governed.origin = -1, cause, origin
        out.send(self.output, held.subject.encode(), encode(governed))
        self.counters.retracted += 1

    def _spread(self, change: Change, arrivals: _Arrivals, i: int, out: Outbox) -> None:
        """A truncate arrives on one partition and concerns all: each task of the source hears of it in its own."""
        value = encode(Truncate(change.position, arrivals.times[i], (self.raw.partition, arrivals.offsets[i])))
        for partition in range(self.raw_partitions()):
            out.send(self.truncates, None, value, partition)

    def _truncate(self, said: Truncate, out: Outbox) -> None:
        for key, row in list(self.rows.scan()):
            if row.position < said.position and row.governed is not None:
                self._retract(row, said.cause, said.origin, out)
                self._keep(key.decode(), row, RowState(said.position, "", None, row.revision + 1), said.cause, out)
        self.truncated = max(self.truncated, said.position)

    # ----------------------------------------------------------------------------------------------------- misfits
    def _misfit(self, arrivals: _Arrivals, i: int, error: BaseException, out: Outbox) -> None:
        batch, offset, time = arrivals.batch, arrivals.offsets[i], arrivals.times[i]
        key, keys = batch.keys[i], self.keys
        seal: Callable[[bytes], SealedValue] | None = None
        if keys is not None and (self.personal or is_unread(error)):
            task_keys = keys

            def seal(content: bytes) -> SealedValue:
                return task_keys.seal_letter(time, content, out)

        value = misfit_record(
            self.plan.govern_agent, self.raw, offset, time, key, batch.values[i], batch.headers(i), error, seal
        )
        out.send(self.dlq, None if key is None or seal is not None or len(key) > MISFIT_BYTES else key, value)
        self.misfits.put(_OFFSET.pack(offset), True)
        self.counters.misfits[error.reason if isinstance(error, Misfit) else "failed"] += 1

    def _replayed(self, batch: Batch, out: Outbox) -> None:
        """Misfits sent back after a fix. Only what is a misfit now counts, so neither a second replay nor a rebuild
        that already took the raw record doubles it."""
        taken: list[Original] = []
        at, offsets, times = [], [], []
        for i in range(len(batch)):
            headers = dict(batch.headers(i))
            try:
                offset, time = int(headers[ORIGIN]), int(headers[TIME])
                original = self._original(batch, i)
            except (KeyError, ValueError, Misfit):
                self.counters.ignored += 1
                continue
            if self.misfits.get(_OFFSET.pack(offset)) and offset not in offsets:
                taken.append(original)
                at.append(batch.offsets[i])
                offsets.append(offset)
                times.append(time)
            else:
                self.counters.duplicates += 1
        if taken:
            keys, values = [o.key for o in taken], [o.value for o in taken]
            chosen = Batch(batch.tp, at, keys, values, times, lambda i: taken[i].headers)
            self.process_raw(_Arrivals(chosen, self.raw, offsets, times, replayed=True), out)

    def _original(self, batch: Batch, i: int) -> Original:
        """The raw record that a replay brings back. Raises Misfit where it is sealed and cannot be opened."""
        said = batch.headers(i)
        value = batch.values[i]
        if not any(name == SEALED for name, _ in said):
            return Original(batch.keys[i], value, [h for h in said if h[0] not in (ORIGIN, TIME)])
        if self.keys is None or value is None:
            raise Misfit("not-sealed", "a replayed record says that it is sealed, and has nothing in it")
        return original_of(decode_enclosed(self.keys.open_letter(decode_json(value))))


@dataclass(frozen=True)
class _Arrivals:
    """A batch with the raw offsets and times of its records: their own, or those a replay remembers."""

    batch: Batch
    raw: TP
    offsets: list[int]
    times: list[int]
    replayed: bool = False


@dataclass
class MisfitShare:
    """Of the records of a source in this process: whether more than a share of them are misfits, asked of each SHARE_OF."""

    most: float
    records: int = 0
    misfits: int = 0
    failing: float | None = None  # the share, where it was above; until somebody has acted on it

    def add(self, records: int, misfits: int) -> None:
        self.records += records
        self.misfits += misfits
        if self.records >= SHARE_OF:
            share = self.misfits / self.records
            if share > self.most:
                self.failing = share
            self.records = self.misfits = 0


def _never() -> bool:
    return False


class Govern:
    """The agent: which topics, which task."""

    loops: Sequence[str] = ()

    def __init__(
        self,
        plan: Plan,
        topics: Callable[[], Mapping[str, int]],
        vault: Vault | None = None,
        governance: GlobalTable | None = None,
        suppression: Suppression | None = None,
        registry: Registry | None = None,
        paused: Callable[[str], bool] = lambda source: False,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """`topics` gives the names and partition counts of what exists now. `vault`: of an app that needs keys, and
        `governance` the process's copy of its topics; `suppression`: of one that erases. `paused`: whether a source is.
        `monotonic`: seconds, for the rates of sources; None: they are read as fast as it goes."""
        assert vault is not None or not plan.needs_keys, "nothing of it may be written in clear"
        self.plan, self.vault, self.governance, self.suppression = plan, vault, governance, suppression
        names = Names() if vault is None else vault.names
        self.topics, self.paused, self.registry, self.monotonic = topics, paused, registry, monotonic
        self.counts: Mapping[str, int] = {}  # partitions, as of the last look
        self.shares = {s.name: MisfitShare(s.quarantine) for s in plan.sources if s.quarantine is not None}
        planned = plan.agent(plan.govern_agent)
        self.name, self.group, self.fingerprint = planned.name, planned.group, planned.fingerprint
        self.by_topic = {s.topic: s for s in plan.sources}
        opening = None if vault is None or governance is None else Opening(plan, governance, vault)
        self.parts = {s.topic: compile_source(plan, s, names, registry, opening) for s in plan.sources}
        self.counters = {s.name: GovernCounters() for s in plan.sources}

    def schemas(self, source: str) -> Values | None:
        """Of a source by name, whose values may name their schema: what has read them."""
        return next(parts.schemas for parts in self.parts.values() if parts.source.name == source)

    def lead_topics(self) -> Sequence[str]:
        """The raw topics that exist, with the topics that go with them. Raises NeedsOperator when a count has changed."""
        self.counts = found = self.topics()
        ready = []
        for topic, source in self.by_topic.items():
            if topic not in found:
                continue
            companion = self.plan.replay(source)
            if companion not in found:
                continue
            if found[topic] != found[companion]:
                raise NeedsOperator(
                    f"{topic} has {found[topic]} partitions, but had {found[companion]} when govern first read it: ids and"
                    " rows would be looked for in the wrong task. Copy it to a topic with the old count under another name,"
                    " or start a new generation: an App with a new name over the same raw topics"
                )
            ready.append(topic)
        return ready

    def task(self, lead: TP) -> Task:
        source = self.by_topic.get(lead.topic)
        if source is None:
            raise C360Error(f"govern was assigned {lead.topic}, which it did not ask for")
        beside = [self.plan.replay(source)]
        if source.kind == "rows":
            beside.append(self.plan.truncates(source))
        return Task(lead, (lead, *(TP(t, lead.partition) for t in beside)))

    def changelog(self, lead: TP) -> TP:
        return TP(self.plan.govern_changelog(self.by_topic[lead.topic]), lead.partition)

    def store_name(self, lead: TP) -> str:
        return f"{self.group}/{self.by_topic[lead.topic].name}-{lead.partition}"

    def processor(self, task: Task) -> Processor:
        parts = self.parts[task.lead.topic]
        source = parts.source
        # Asked for only when a table was truncated: it is a request to the broker, and a worker has many tasks.
        counters = self.counters[source.name]
        made = GovernTask(
            self.plan,
            parts,
            task,
            lambda: self.topics()[source.topic],
            counters,
            self.vault,
            self.governance,
            self.suppression,
        )
        made.paused = partial(self.paused, source.name)
        made.share = self.shares.get(source.name)
        if source.rate is not None and self.monotonic is not None:
            made.bucket = Bucket(source.rate / self.counts.get(source.topic, 1), self.monotonic)
        return made

"""Governed records, misfits and link facts of one raw partition, from the whole of its input.

Events: everything that fits, less repeats of ids. Rows: what each change adds and takes back.

A misfit that was replayed counts at the place of its raw record, as if it had fitted at once: that is where a rebuild
with today's code would put it. Where the true moment shows (which of two records with one id came first; what a
truncate found), several outputs are right, and `either` and `live` say so instead of `effects`; and `linked` instead of
`facts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, NamedTuple

from c360.codecs.record import Record, fields_of
from c360.declare import Enrichment, Source, SourceType, without_none
from c360.identity.facts import Claim
from c360.identity.namespace import Namespace
from c360.plan import Plan
from c360.testing.oracle.envelope import Change, Position, read_change, unsent
from c360.testing.oracle.formats import Schemas, Understood, in_json, understand
from c360.testing.oracle.links import Linking, Slot, enrich, row_source
from c360.testing.oracle.plain import parse, simple, written
from c360.testing.oracle.profiles import as_json
from c360.testing.oracle.sealing import Shut, Sight, as_sealed, at_place, clear_label, label_in, shut_of
from c360.testing.oracle.values import (
    NoFit,
    at_path,
    meaning,
    record_from_governed,
    record_from_payload,
    values_from_payload,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
AHEAD = 5 * 60_000  # ms that an event's time may be after its append time
LARGEST = 1_000_000  # bytes of a governed record; a larger one is a misfit


# --------------------------------------------------------------------------------------------------------- the input
class Delivery(NamedTuple):
    """A raw record as it lies in its topic, or as a replay brought it back. `time`: append time of the raw one, ms."""

    key: bytes | None
    value: bytes | None
    time: int
    headers: Sequence[tuple[str, bytes]] = ()


class Arrival(NamedTuple):
    """A raw record with its replays, in the order they were tried."""

    offset: int
    deliveries: tuple[Delivery, ...]


class Truncated(NamedTuple):
    """A truncate that was spread to the task."""

    position: Position


# -------------------------------------------------------------------------------------------------------- the output
class Content(NamedTuple):
    """What a governed record says, but for its sign, cause and origin: what a retract repeats."""

    subject: str
    digest: str


class Effect(NamedTuple):
    """One governed record. `cause`: append time of the raw record behind it."""

    sign: int
    cause: int
    content: Content


Said = tuple[Slot, Claim]
Link = tuple[str, str]  # subject, label


@dataclass
class Expected:
    """What one raw partition must have led to."""

    effects: dict[int, list[Effect]] = field(default_factory=dict)  # by raw offset
    misfits: set[int] = field(default_factory=set)  # raw offsets
    either: list[dict[int, Effect]] = field(default_factory=list)  # one or more of these, by raw offset
    maybe: dict[int, Effect] = field(default_factory=dict)  # may be repeats of what retention has cut, by raw offset
    maybe_misfits: set[int] = field(default_factory=set)  # raw offsets; order against truncates decides
    live: Counter[Content] | None = None  # rows whose order against truncates or replays is not known: what is left

    facts: dict[int, list[Said]] = field(default_factory=dict)  # by raw offset; they hold if its record was admitted
    linked: set[Slot] | None = None  # with `live`: which links there are in the end, whatever their versions
    # Of misfits, and rows with columns left out: whom they name
    about: dict[int, set[str]] = field(default_factory=dict)
    same: dict[Content, Content] = field(default_factory=dict)  # another content that may be there -> the one in `live`

    def net(self) -> Counter[Content]:
        """What is left when all is added and taken back."""
        if self.live is not None:
            return self.live
        net: Counter[Content] = Counter()
        for effect in (e for each in self.effects.values() for e in each):
            net[effect.content] += effect.sign
        return +net


# ------------------------------------------------------------------------------------------------- parts of a record
def digest(*parts: Any) -> str:
    return sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Named(NamedTuple):
    """A subject's label, and whether its value is hidden and says nothing: then it joins nobody."""

    label: str
    nobody: bool


class TypeOracle:
    """What the declarations say of records of one type.

    The id of a row is govern's own name for its primary key; nothing reads it, so it is not compared.
    """

    def __init__(self, source: Source, declared: SourceType, plan: Plan, sight: Sight | None) -> None:
        self.source, self.declared, self.identifiers = source, declared, plan.identifiers
        self.linking, self.sight = Linking(plan, sight), sight
        self.shut = shut_of(plan, source, declared)
        self.annotations = {f.name: f.annotation for f in fields_of(declared.record)}
        self.enrichments = [e for e in source.enrichments if e.record is declared.record]

    def subject(self, record: Record, key: bytes | None) -> Named:
        tenant = None if self.source.tenant is None else getattr(record, self.source.tenant) or ""
        for name in self.declared.subject:
            value = getattr(record, name)
            if value is not None:
                return self._named(self.identifiers[without_none(self.annotations[name])], value, tenant)
        if self.source.format == "answers" and key is not None:
            return Named(key.decode(), False)
        if self.source.key is None or key is None:
            raise NoFit
        return self._named(self.source.key, key.decode(), tenant)

    def _named(self, namespace: Namespace, value: str, tenant: Any) -> Named:
        clear = clear_label(namespace, value, tenant)
        hidden = namespace.personal or tenant is not None
        nobody = hidden and self.linking.blocked_everywhere(clear_label(namespace, value))
        return Named(label_in(self.sight, namespace, clear), nobody)

    def time(self, record: Record, otherwise: int, append: int) -> int:
        value = getattr(record, self.declared.at) if self.declared.at is not None else None
        at = otherwise if value is None else (value - EPOCH) // MILLISECOND
        return min(at, append + AHEAD) if append >= 0 else at

    def effect(self, record: Record, event_id: str | None, at: int, key: bytes | None, append: int) -> Effect:
        """The governed record of a record. Raises NoFit, or what a function of the user raises."""
        subject = self.subject(record, key).label
        enriched: Mapping[str, Any] = {
            e.name: as_json(value) for e in self.enrichments if (value := enrich(e, record, at)) is not None
        }
        said = {"type": self.declared.name, "id": event_id, "at": at, "cause": append, "origin": [0, 0],
                "enriched": enriched, "record": as_json(record)}  # fmt: skip
        if len(written(as_sealed(said, self.shut, subject)).encode()) > LARGEST:
            raise NoFit
        fields: Any = record
        if self.sight is not None and subject in self.sight.lost:
            fields, enriched = in_clear(self.shut, {n: getattr(record, n) for n in self.annotations}, enriched)
        content = digest(
            self.declared.name, event_id, at, 0, enriched_meaning(enriched, self.enrichments), meaning(fields)
        )
        return Effect(1, append, Content(subject, content))

    def links(self, record: Record, key: bytes | None, at: int) -> list[Link]:
        """What the record says that its subject has. `at`: its time. Raises what a function of the user raises."""
        subject, nobody = self.subject(record, key)
        if nobody:
            return []
        return [(subject, label) for label in self.linking.labels(self.source, record, subject, at)]

    def whom(self, record: Record, key: bytes | None) -> set[str]:
        """Labels of the subject of a record, or of a part of one, and of what else it names; empty if nobody can tell."""
        found = set[str]()
        with suppress(Exception):  # whatever a function of the user raises
            found.add(self.subject(record, key).label)
            found.update(label for _, label in self.links(record, key, 0))
        return found


def in_clear(
    shut: Sequence[Shut], fields: Mapping[str, Any], enriched: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The same without what is sealed: of such a field no more than whether there is something."""
    closed, hidden = fields_in(shut), {place.path[1] for place in shut if place.path[0] == "enriched"}
    kept = {name: (value is not None) if name in closed else value for name, value in fields.items()}
    return kept, {name: value for name, value in enriched.items() if name not in hidden}


def fields_in(shut: Sequence[Shut]) -> set[str]:
    """The fields of a record that are sealed, or have sealed parts."""
    return {place.path[1] for place in shut if place.path[0] == "record"}


def enriched_meaning(enriched: Mapping[str, Any], enrichments: Iterable[Enrichment]) -> Any:
    """Enriched values in one form per meaning: a Decimal and a time may be written in several ways."""
    types = {e.name: e.type for e in enrichments}
    found = {}
    for name, value in enriched.items():
        if isinstance(value, str) and types.get(name) == "decimal":
            value = Decimal(value)
        elif isinstance(value, str) and types.get(name) == "datetime":
            value = datetime.fromisoformat(value)
        found[name] = meaning(value)
    return sorted(found.items())


def read_governed(
    source: Source, key: bytes, value: bytes, shut: Mapping[str, Sequence[Shut]], sight: Sight | None
) -> tuple[tuple[int, int], Effect]:
    """Origin (raw partition, offset) and effect of an actual governed record. A broken one raises anything.

    `shut`: by record type, what must be sealed. Of a subject of whom something cannot be opened any more, which is noted in
    `sight`, only what is in clear counts: read its records again that were read before that was known.
    """
    said = sealed = parse(value)
    declared = next(t for t in source.types if t.name == said["type"])
    places, subject = shut[said["type"]], key.decode()
    enriched: Mapping[str, Any] = simple(said.get("enriched", {}))
    for place in places:
        assert sight is not None

        def opened(value: Any, field: str = place.field) -> Any:
            text = sight.open(value, subject, field)
            if text is None:
                sight.lost.add(subject)
            return None if text is None else parse(text)

        said = at_place(said, place.path, opened)
    if sight is not None and subject in sight.lost:
        closed = fields_in(places)
        clear = record_from_governed(declared.record, sealed["record"], closed)
        names = [f.name for f in fields_of(declared.record)]
        found = {n: sealed["record"].get(n) if n in closed else getattr(clear, n) for n in names}
        record, enriched = in_clear(places, found, enriched)
    else:
        record, enriched = record_from_governed(declared.record, said["record"]), simple(said.get("enriched", {}))
    enrichments = [e for e in source.enrichments if e.record is declared.record]
    content = digest(
        said["type"],
        said.get("id") if source.kind == "events" else None,
        said["at"],
        said.get("life", 0),
        enriched_meaning(enriched, enrichments),
        meaning(record),
    )
    partition, offset = said["origin"]
    return (partition, offset), Effect(said.get("sign", 1), said["cause"], Content(key.decode(), content))


# ------------------------------------------------------------------------------------------------------------ events
class Memory:
    """Ids and when they were last admitted.

    A repeat was admitted at a time within `window` of this one, not before the horizon = stream time - 2 × window.
    Stream time is the greatest time so far; one record moves it by `window` at most.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.stream: int | None = None
        self.admitted: dict[tuple[str, str], int] = {}

    def is_new(self, key: tuple[str, str], time: int) -> bool:
        if self.stream is None:
            self.stream = time
        self.stream = max(self.stream, min(time, self.stream + self.window))
        before = self.admitted.get(key)
        if before is not None and abs(time - before) <= self.window and before >= self.stream - 2 * self.window:
            return False
        self.admitted[key] = time
        return True


IGNORED = object()


def message_of(declared: SourceType) -> str | None:
    """Of Protobuf: the name of the message that a type is made of."""
    return None if declared.message is None else str(declared.message.DESCRIPTOR.full_name)


def claims(declared: SourceType, payload: Any) -> bool:
    """Whether a payload is of a type, by its `when`."""
    return all(
        type(said := at_path(payload, path)) is type(wanted) and said == wanted
        for path, wanted in (declared.when or {}).items()
    )


def read_answer(source: Source, value: bytes, sight: Sight | None) -> tuple[Understood, Record] | None:
    """What was answered outside; None of somebody who was forgotten: it cannot be opened any more. Raises for a misfit."""
    said = parse(value)
    inner = said["record"]
    if "~sealed" in inner:
        assert sight is not None
        text = sight.open(inner, inner["subject"], source.name)
        if text is None:
            sight.lost.add(inner["subject"])
            return None
        inner = parse(text)
    record: Record = record_from_governed(source.types[0].record, inner)
    return Understood({}, {}, said["id"]), record


class Events:
    """A source of events."""

    def __init__(self, source: Source, plan: Plan, sight: Sight | None = None, schemas: Schemas | None = None) -> None:
        self.source, self.schemas, self.sight = source, schemas, sight
        self.types = [TypeOracle(source, t, plan, sight) for t in source.types]

    def expected(self, arrivals: Iterable[Arrival], *, whole: bool = True) -> Expected:
        """All that must come of these raw records, in offset order; `whole`: from the first of their partition on."""
        out = Expected()
        memory = Memory(self.source.window // MILLISECOND)
        by_id: dict[tuple[str, str], dict[int, Effect]] = {}
        unsure: set[tuple[str, str]] = set()
        for offset, deliveries in arrivals:
            whom: set[str] = set()
            for delivery in deliveries:
                found = self._read(delivery, whom)
                if found is not None:
                    break
            else:
                out.misfits.add(offset)
                out.about[offset] = whom
                continue
            if found is IGNORED:
                continue
            key, effect, out.facts[offset] = found
            if key is None:
                out.effects[offset] = [effect]
                continue
            if not whole:
                out.maybe[offset] = effect
                continue
            by_id.setdefault(key, {})[offset] = effect
            if len(deliveries) > 1:
                unsure.add(key)
            if memory.is_new(key, deliveries[0].time):
                out.effects[offset] = [effect]
        for key in unsure:
            out.either.append(by_id[key])
            for offset in by_id[key]:
                out.effects.pop(offset, None)
        return out

    def _read(self, delivery: Delivery, whom: set[str]) -> Any:
        """(type and id, effect, facts); IGNORED; None for a misfit, then `whom` gets those that it names."""
        kind = record = None
        try:
            if self.source.format == "answers":
                answer = read_answer(self.source, delivery.value or b"", self.sight)
                if answer is None:
                    return IGNORED
                found, record = answer
                kind = self.types[0]
            else:
                found = understand(self.source, delivery.value, delivery.headers, self.schemas)
                said = [t for t in self.types if message_of(t.declared) == found.message]
                claiming = next((t for t in said if claims(t.declared, found.payload)), None)
                if claiming is None:
                    return IGNORED if self.source.unmatched == "ignore" else None
                kind, record = claiming, record_from_payload(claiming.declared.record, found.fields)
            own = getattr(record, kind.declared.event_id) if kind.declared.event_id else found.id
            event_id = None if own is None else str(own)
            at = kind.time(record, delivery.time if found.at_ms is None else found.at_ms, delivery.time)
            effect = kind.effect(record, event_id, at, delivery.key, delivery.time)
            links = kind.links(record, delivery.key, at)
        except Exception:  # it does not fit, or a function of the user raised: a misfit in both cases
            if kind is not None and record is not None:
                whom |= kind.whom(record, delivery.key)
            return None
        facts = [(Slot(s, "link", label, self.source.name), Claim(-at, first_seen=at)) for s, label in links]
        if event_id is not None and self.source.tenant is not None:
            event_id = f"{getattr(record, self.source.tenant)}\0{event_id}"  # tenants may use the same ones
        return (None if event_id is None else (kind.declared.name, event_id)), effect, facts


# -------------------------------------------------------------------------------------------------------------- rows
class Row(NamedTuple):
    """The last state of a row. `record` None: deleted. `changes`: how many there were, but for rows read again."""

    position: Position
    content: Content | None
    record: Record | None
    changes: int
    links: Sequence[Link] = ()
    missed: frozenset[str] = frozenset()  # fields that later states, which do not fit, have sent


def same_row(held: Row, effect: Effect, record: Record) -> bool:
    """Whether a row that was read again is as it was; its new position alone is not worth a record."""
    if held.content is None or held.content.subject != effect.content.subject:
        return False
    return held.record == record


class Rows:
    """A source of rows of one table."""

    def __init__(self, source: Source, plan: Plan, sight: Sight | None = None, schemas: Schemas | None = None) -> None:
        self.source, self.declared, self.schemas = source, source.types[0], schemas
        self.type = TypeOracle(source, self.declared, plan, sight)

    def expected(self, arrivals: Sequence[Arrival], truncates: Sequence[Truncated] = ()) -> Expected:
        """All that must come of these raw records, given in offset order from the beginning of their partition.

        A truncate of the past makes what is before its position stale, whenever that arrives. When it was read shows
        on the way, in what was added and taken back; in misfits among the stale; and where a snapshot read a row after
        the truncate as it was before: its old record may have been taken for the same.
        """
        late: dict[str, Row] = {}
        out = self._expected(arrivals, None, late)
        if not truncates:
            return out
        rows: dict[str, Row] = {}
        misfits, out = out.misfits, self._expected(arrivals, max(t.position for t in truncates), rows)
        out.maybe_misfits = misfits - out.misfits
        for row_id, row in rows.items():
            other = late.get(row_id)
            if other is None or other.position != row.position or other.content is None or row.content is None:
                continue
            out.same[other.content] = row.content
        return out

    def _expected(self, arrivals: Iterable[Arrival], floor: Position | None, rows: dict[str, Row]) -> Expected:
        """`rows` is filled with the last state of each."""
        out = Expected()
        replayed = False
        for offset, deliveries in arrivals:
            replayed = replayed or len(deliveries) > 1
            for delivery in deliveries:
                try:
                    late = delivery is not deliveries[0]
                    out.effects[offset], out.facts[offset] = self._apply(rows, floor, delivery, late)
                    break
                except Exception:  # it does not fit, or a function of the user raised: a misfit in both cases
                    continue
            else:
                out.misfits.add(offset)
            if whom := set[str]().union(*(self._whom(delivery) for delivery in deliveries)):
                out.about[offset] = whom
        if floor is not None or replayed:
            out.live = Counter(row.content for row in rows.values() if row.content is not None)
            out.linked = {slot for row_id, row in rows.items() for slot, _ in self._facts(row_id, row.links, Claim(0))}
            out.effects.clear()
            out.facts.clear()
        return out

    def _whom(self, delivery: Delivery) -> set[str]:
        """Whom a row names of which some columns were not sent, or which an enrichment refuses."""
        kind = self.declared.record
        with suppress(Exception):  # whatever is wrong with it
            change = self._change(delivery)
            if change is not None and change.op not in ("truncate", "delete"):
                missing = unsent(kind, change.after)
                if missing or self.type.enrichments:
                    sent = values_from_payload(kind, change.after, without=missing)
                    return self.type.whom(kind(**sent, **dict.fromkeys(missing)), delivery.key)
        return set()

    def truncate(self, arrival: Arrival) -> Truncated | None:
        """What a raw record says of a truncate, if it is one."""
        for delivery in arrival.deliveries:
            try:
                change = self._change(delivery)
            except Exception:  # a misfit is no truncate
                continue
            return Truncated(change.position) if change is not None and change.op == "truncate" else None
        return None

    def _change(self, delivery: Delivery) -> Change | None:
        key, value = in_json(delivery.key, delivery.value, delivery.headers, self.schemas)
        return read_change(self.declared, key, value)

    def _apply(
        self, rows: dict[str, Row], floor: Position | None, delivery: Delivery, late: bool
    ) -> tuple[list[Effect], list[Said]]:
        """The effects and facts of one change; `rows` is brought up to date. Raises for a misfit. `late`: it is replayed."""
        change = self._change(delivery)
        if change is None or change.op == "truncate":
            return [], []
        kind = self.declared.record
        missing = unsent(kind, change.after)
        try:
            return self._row(rows, floor, delivery, late, change, missing)
        except Exception:
            held = rows.get(change.row_id)
            if held is not None and held.record is not None and change.position > held.position:
                missed = held.missed | {f.name for f in fields_of(kind)} - missing
                rows[change.row_id] = held._replace(missed=missed)
            raise

    def _row(
        self,
        rows: dict[str, Row],
        floor: Position | None,
        delivery: Delivery,
        late: bool,
        change: Change,
        missing: set[str],
    ) -> tuple[list[Effect], list[Said]]:
        """As `_apply`, of a change whose `missing` fields were not sent."""
        kind = self.declared.record
        sent = {} if change.op == "delete" else values_from_payload(kind, change.after, without=missing)
        held = rows.get(change.row_id)
        if held is not None and change.first and not late and change.position < held.position:
            change = replace(change, position=(held.position[0], *change.position[1:]))  # after what was read
        if (floor is not None and change.position <= floor) or (held is not None and change.position <= held.position):
            return [], []
        back = [] if held is None or held.content is None else [Effect(-1, delivery.time, held.content)]
        changes, was = (1, ()) if held is None else (held.changes + 1, held.links)
        if change.op == "delete":
            rows[change.row_id] = Row(change.position, None, None, changes)
            return back, self._facts(change.row_id, was, Claim(changes, dead=True))
        if missing and (held is None or held.record is None or missing & held.missed):
            raise NoFit
        record = kind(**sent, **{name: getattr(held.record, name) for name in missing} if held is not None else {})
        at = self.type.time(record, change.at_ms, delivery.time)
        effect = self.type.effect(record, None, at, delivery.key, delivery.time)
        links = self.type.links(record, delivery.key, at)
        if change.snapshot and held is not None and same_row(held, effect, record):
            rows[change.row_id] = held._replace(position=change.position, missed=frozenset())
            return [], []
        rows[change.row_id] = Row(change.position, effect.content, record, changes, links)
        gone = self._facts(change.row_id, [link for link in was if link not in links], Claim(changes, dead=True))
        new = [link for link in links if link not in was]
        return [*back, effect], gone + self._facts(change.row_id, new, Claim(changes, first_seen=at))

    def _facts(self, row_id: str, links: Iterable[Link], claim: Claim) -> list[Said]:
        source = row_source(self.source, row_id)
        return [(Slot(subject, "link", label, source), claim) for subject, label in links]

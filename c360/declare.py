"""What a user can say: identifiers, sources, enrichments, projections and their attributes, as frozen facts.

Checked here as far as one declaration can be checked alone; what several add up to is `c360.plan`. Nothing here reads a
setting, opens a connection or knows a topic of ours.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from c360.codecs.quick import EPOCH
from c360.codecs.record import FieldInfo, FieldRef, Record, fields_of, unmarked
from c360.errors import DeclarationError
from c360.governance.purposes import Purpose
from c360.identity.namespace import Namespace
from c360.identity.rules import BLOCKED
from c360.profile.attribute import Attribute, Kind, ValueType

if TYPE_CHECKING:
    from c360.outside import Outside
    from c360.rights import ConsentSource, ErasureSource, SinkDeclaration

T = TypeVar("T")
When = Mapping[str, str | int | bool]
Where = Callable[[Any], bool]
SourceKind = Literal["events", "rows"]
Format = Literal["json", "debezium", "avro", "protobuf", "segment", "cloudevents", "answers"]  # the last: of our own

PLAIN_TYPES: Mapping[type, ValueType] = {
    bool: "bool",
    int: "int",
    float: "float",
    Decimal: "decimal",
    datetime: "datetime",
    date: "date",
    str: "text",
    UUID: "text",
    bytes: "text",
}


# ------------------------------------------------------------------------------------------------------ event times
MS = timedelta(milliseconds=1)


def time_in_ms(since: datetime) -> int:
    """A moment that logic changed at, as event times are kept: milliseconds since 1970."""
    return (since - EPOCH) // MS


def check_since(said: str, since: Any, before: Any) -> None:
    """Raises DeclarationError for a `since` that no event time could be compared with, or a `before` of no moment."""
    if since is None:
        if before is not None:
            raise DeclarationError(
                f"{said} has before= and no since=: say from which event time on it is as it is here"
            )
        return
    if not isinstance(since, datetime):
        raise DeclarationError(
            f"{said}: since= is an event time, such as datetime(2026, 3, 1, tzinfo=UTC); not {since!r}"
        )
    if since.utcoffset() is None:
        raise DeclarationError(f"{said}: since={since} says no time zone; write datetime(…, tzinfo=UTC)")
    try:
        since.astimezone(UTC)
    except OverflowError:
        raise DeclarationError(f"{said}: since={since} is outside of the years 1 to 9999 in UTC") from None
    if (since - EPOCH) % MS:
        raise DeclarationError(f"{said}: since={since} is no whole millisecond, and event times are kept in those")


# ------------------------------------------------------------------------------------------------------ enrichments
@dataclass(frozen=True)
class Enrichment:
    """A value computed in govern for each record of a type and stored beside it; usable in attributes like a field."""

    record: type[Record]
    name: str
    function: Callable[[Any], Any]
    type: ValueType
    returns: Any = None  # its annotation
    since: datetime | None = None  # records of before this event time get what `before` gives, None: nothing
    before: Callable[[Any], Any] | None = None
    govern: int | None = None  # the version of govern that it is of; None: every one

    def __call__(self, record: Record) -> Any:
        return self.function(record)

    @property
    def since_ms(self) -> int | None:
        return None if self.since is None else time_in_ms(self.since)

    def at(self, at_ms: int) -> Callable[[Any], Any] | None:
        """The function for records of this event time; None: it gives them nothing."""
        return self.function if (since := self.since_ms) is None or at_ms >= since else self.before


# ---------------------------------------------------------------------------------------------------------- sources
@dataclass(frozen=True)
class SourceType:
    """One record type of a source: which payloads are of it, and what its subject, id and time are."""

    record: type[Record]
    when: When | None
    subject: tuple[str, ...]  # fields, the first that is present names the subject; () = the raw key
    event_id: str | None
    at: str | None
    key: tuple[str, ...] = ()  # primary key, rows only
    message: Any = None  # of Protobuf: the generated class that its values are read by

    @property
    def name(self) -> str:
        return self.record.__name__


@dataclass(frozen=True)
class Source:
    """A raw topic and the record types read from it."""

    name: str
    topic: str
    kind: SourceKind
    types: tuple[SourceType, ...]
    key: Namespace | None  # what a raw key is, if the source says so
    unmatched: Literal["dlq", "ignore"]
    window: timedelta
    enrichments: tuple[Enrichment, ...] = ()
    purposes: frozenset[str] = frozenset()  # what its records may be used for
    tenant: str | None = None  # field that says whose customer it is
    region: str | None = None  # where its records must stay
    format: Format = "json"
    schema: str | None = None  # of Avro: the one the app was written for, as JSON
    rate: float | None = None  # records a second that are read at most, of all partitions
    quarantine: float | None = None  # share of misfits above which it is paused


@dataclass(frozen=True)
class LinkField:
    """Where a record type has identifiers of its subject: a field, or an enrichment, typed with an identifier class."""

    name: str
    namespace: Namespace
    enriched: bool = False
    many: bool = False  # a list of them


def link_fields(
    declared: SourceType, enrichments: Iterable[Enrichment], identifiers: Mapping[type, Namespace]
) -> tuple[LinkField, ...]:
    """The fields of a record type that may link its subject. The first subject field never does: it is the subject."""
    found = []
    for info in fields_of(declared.record):
        kind, many = identifier_in(info.annotation, identifiers)
        if kind is not None and info.name not in declared.subject[:1]:
            found.append(LinkField(info.name, kind, many=many))
    for enrichment in enrichments:
        if enrichment.record is declared.record:
            kind, many = identifier_in(enrichment.returns, identifiers)
            if kind is not None:
                found.append(LinkField(enrichment.name, kind, enriched=True, many=many))
    return tuple(found)


def identifier_in(annotation: Any, identifiers: Mapping[type, Namespace]) -> tuple[Namespace | None, bool]:
    """The namespace of an identifier class, or of a list of it, and whether it is a list; `| None` is allowed."""
    kind = without_none(annotation)
    many = typing.get_origin(kind) is list
    if many:
        kind = without_none(typing.get_args(kind)[0])
    return (identifiers.get(kind), many) if isinstance(kind, type) else (None, many)


# --------------------------------------------------------------------------------------------------------- identity
@dataclass(frozen=True, eq=False)
class IdentityDeclaration:
    """A rule set as written: what of the declared identifiers is other in it, which values it blocks, its cap."""

    name: str
    version: int
    changes: Mapping[type, Mapping[str, Any]] = field(default_factory=dict)  # by identifier class, settings by name
    blocked: tuple[str, ...] = BLOCKED
    cap: int = 1000
    govern: int | None = None  # the version of govern whose links it decides over; None: the lowest


# ------------------------------------------------------------------------------------------------------- attributes
@dataclass(frozen=True)
class Input:
    """Where an attribute takes values from: a record type, and a field of it, an enrichment, or the record itself."""

    record: type[Record]
    name: str | None
    enriched: bool = False

    def __str__(self) -> str:
        return f"{self.record.__name__}.{self.name}" if self.name else self.record.__name__


@dataclass(frozen=True)
class Era:
    """What an attribute takes of records from an event time on, up to that of the era after it."""

    inputs: tuple[Input, ...]  # in order of trust
    where: Where | None = None
    since: datetime | None = None  # None: from ever on

    @property
    def since_ms(self) -> int | None:
        return None if self.since is None else time_in_ms(self.since)


@dataclass(frozen=True)
class AttributeDeclaration:
    """An attribute as written; the projection gives it its name."""

    kind: Kind
    eras: tuple[Era, ...]  # the newest first; without `since=` there is one. A record of before the last counts nowhere
    within: timedelta | None
    n: int = 3
    limit: int = 1000
    scale: int = 2

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that it takes values from in any era, each once."""
        return tuple(dict.fromkeys(item for era in self.eras for item in era.inputs))

    def era(self, at_ms: int) -> Era | None:
        """The one that a record of this event time is of."""
        return next((era for era in self.eras if (since := era.since_ms) is None or at_ms >= since), None)


def _input(kind: str, of: Any) -> Input:
    if isinstance(of, FieldRef):
        return Input(of.record, of.name)
    if isinstance(of, Enrichment):
        return Input(of.record, of.name, enriched=True)
    if isinstance(of, type) and issubclass(of, Record):
        if kind not in ("count", "flag"):
            raise DeclarationError(f"{kind}({of.__name__}) needs a field: write {kind}({of.__name__}.some_field)")
        return Input(of, None)
    raise DeclarationError(
        f"{kind}(…) takes fields of record types, such as {kind}(Order.amount), or enrichments; not {type(of).__name__}"
    )


def _attribute(
    kind: Kind,
    of: tuple[Any, ...],
    where: Where | None,
    within: timedelta | None,
    since: datetime | None,
    before: Any,
    **options: int,
) -> Any:
    if not of:
        raise DeclarationError(
            f"{kind}() needs at least one field or record type: {kind}(Order) or {kind}(Order.amount)"
        )
    if where is not None and not callable(where):
        raise DeclarationError(
            f"{kind}(where=…) takes a condition on fields (Order.amount > 100) or a function of the record"
        )
    if within is not None and (within <= timedelta(0) or within % timedelta(days=1)):
        raise DeclarationError(f"{kind}(within=…) takes whole days, such as timedelta(days=30); it was {within}")
    check_since(f"{kind}(…)", since, before)
    era = Era(tuple(_input(kind, o) for o in of), where, since)
    declared = AttributeDeclaration(kind, (era,), within, **options)
    return declared if before is None else replace(declared, eras=(era, *_eras_before(declared, before)))


def _eras_before(declared: AttributeDeclaration, before: Any) -> tuple[Era, ...]:
    """The eras of what an attribute was `before`. Raises DeclarationError where they could not be kept as one."""
    kind, (era,) = declared.kind, declared.eras
    if not isinstance(before, AttributeDeclaration):
        raise DeclarationError(
            f"{kind}(before=…) takes what the attribute was before, such as {kind}({era.inputs[0]}); not {before!r}. Left"
            " out, older records do not count"
        )
    if replace(declared, eras=()) != replace(before, eras=()):
        raise DeclarationError(
            f"{kind}(before={before.kind}(…)): both must be of one kind, with the same within, n, limit and scale, for all"
            " records are kept together; only fields, order of trust and where may be others"
        )
    assert era.since is not None
    if (newest := before.eras[0].since) is not None and newest >= era.since:
        raise DeclarationError(
            f"{kind}(since={era.since}, before={kind}(…, since={newest})): the one before must begin earlier"
        )
    return before.eras


def count(
    *of: Any,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: int | None = None,
) -> int:
    """How many records: `count(Order)`; or how many have the field: `count(Click.login)`."""
    return typing.cast(int, _attribute("count", of, where, within, since, before))


def flag(
    *of: Any,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: bool | None = None,
) -> bool:
    """Whether there is any: `flag(Order)`; or any with the field true: `flag(Click.consented)`."""
    return typing.cast(bool, _attribute("flag", of, where, within, since, before))


def total(
    *of: Any,
    where: Any = None,
    within: timedelta | None = None,
    scale: int = 2,
    since: datetime | None = None,
    before: Decimal | None = None,
) -> Decimal:
    """Exact sum of a number, each value rounded once, half even, to `scale` decimal places."""
    return typing.cast(Decimal, _attribute("total", of, where, within, since, before, scale=scale))


def average(
    *of: Any,
    where: Any = None,
    within: timedelta | None = None,
    scale: int = 2,
    since: datetime | None = None,
    before: Decimal | None = None,
) -> Decimal | None:
    """Exact average, rounded once, half even, to `scale` decimal places; None of nothing."""
    return typing.cast("Decimal | None", _attribute("average", of, where, within, since, before, scale=scale))


def minimum(
    *of: T | None,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: T | None = None,
) -> T | None:
    """The least value."""
    return typing.cast("T | None", _attribute("minimum", of, where, within, since, before))


def maximum(
    *of: T | None,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: T | None = None,
) -> T | None:
    """The greatest value."""
    return typing.cast("T | None", _attribute("maximum", of, where, within, since, before))


def first(
    *of: T | None,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: T | None = None,
) -> T | None:
    """The value of the earliest record; of one time, the least."""
    return typing.cast("T | None", _attribute("first", of, where, within, since, before))


def newest(
    *of: T | None,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: T | None = None,
) -> T | None:
    """The value of the latest record; of one time, the greatest."""
    return typing.cast("T | None", _attribute("newest", of, where, within, since, before))


def prefer(
    *of: T | None,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: T | None = None,
) -> T | None:
    """The newest value of the most trusted source that has one; sources in order of trust."""
    return typing.cast("T | None", _attribute("prefer", of, where, within, since, before))


def top(
    *of: T | None,
    n: int = 3,
    limit: int = 1000,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: list[T] | None = None,
) -> list[T]:
    """The `n` most frequent values, most frequent first. Of events exact up to `limit` different values, then a sample."""
    return typing.cast("list[T]", _attribute("top", of, where, within, since, before, n=n, limit=limit))


def distinct(
    *of: Any,
    limit: int = 1000,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: int | None = None,
) -> int:
    """How many different values. Of events exact up to `limit`, then an estimate (relative error about 1/√limit)."""
    return typing.cast(int, _attribute("distinct", of, where, within, since, before, limit=limit))


def collect(
    *of: T | None,
    limit: int = 1000,
    where: Any = None,
    within: timedelta | None = None,
    since: datetime | None = None,
    before: list[T] | None = None,
) -> list[T]:
    """All different values, sorted. Of events at most `limit`, then a sample."""
    return typing.cast("list[T]", _attribute("collect", of, where, within, since, before, limit=limit))


# ------------------------------------------------------------------------------------------------------ projections
class Projection:
    """Base of a projection: class attributes say how fields of records fold into one profile per customer.

    Instances exist only to compute `@derived` values and carry the attribute values as Python types.
    """

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


if TYPE_CHECKING:
    derived = property
else:

    class derived(property):
        """A value computed from the attributes of one profile, each time the profile is written. Pure and deterministic."""


@dataclass(frozen=True)
class ProjectionDeclaration:
    """A named, versioned set of attributes."""

    name: str
    version: int
    record: type[Projection]
    attributes: tuple[Attribute, ...]
    declarations: tuple[AttributeDeclaration, ...]  # parallel to attributes
    derived: tuple[str, ...]
    identity: IdentityDeclaration | None = None  # the rule set it was declared with
    purposes: tuple[str, ...] = ()  # who looks at it, by name: each has a view
    region: str | None = None  # where its topics are
    replay: timedelta | None = None  # how far back a rebuild of it must be able to read events; None: all of them
    govern: int = 1  # the version of govern whose records it folds

    @property
    def agent(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True)
class UserAgent:
    """A Faust agent of the app: `function` consumes a stream of the values of `topic`."""

    name: str
    topic: str
    function: Callable[[Any], Any]


@dataclass
class Declarations:
    """Everything one app says, in the order it was said."""

    identifiers: dict[type, Namespace] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)  # by topic
    enrichments: list[Enrichment] = field(default_factory=list)
    outsides: list[Outside] = field(default_factory=list)
    identities: list[IdentityDeclaration] = field(default_factory=list)
    projections: list[ProjectionDeclaration] = field(default_factory=list)
    agents: list[UserAgent] = field(default_factory=list)
    purposes: list[Purpose] = field(default_factory=list)
    consents: list[ConsentSource] = field(default_factory=list)
    erasures: list[ErasureSource] = field(default_factory=list)
    sinks: list[SinkDeclaration] = field(default_factory=list)
    governs: tuple[int, ...] = (1,)  # the versions of govern that run beside each other, the lowest first


# --------------------------------------------------------------------------------------------------- value types
def without_none(annotation: Any) -> Any:
    """The type T of `T | None`, `Optional[T]` or `Personal[T]`; other annotations as they are."""
    annotation = unmarked(annotation)
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        kept = [a for a in typing.get_args(annotation) if a is not type(None)]
        return without_none(kept[0]) if len(kept) == 1 else annotation
    return annotation


def value_type(annotation: Any) -> ValueType:
    """How values of this annotation are folded and compared; lists, records and the like are "json"."""
    kind = without_none(annotation)
    if typing.get_origin(kind) is Literal:
        kinds = {type(a) for a in typing.get_args(kind)}
        return PLAIN_TYPES.get(kinds.pop(), "json") if len(kinds) == 1 else "json"
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            kinds = {type(member.value) for member in kind}
            return PLAIN_TYPES.get(kinds.pop(), "json") if len(kinds) == 1 else "json"
        for base in kind.__mro__:
            if base in PLAIN_TYPES:
                return PLAIN_TYPES[base]
    return "json"


def field_named(record: type[Record], name: str, said: str) -> FieldInfo:
    """The field of a record type. Raises DeclarationError with the names that exist, `said` being what the user wrote."""
    fields = {f.name: f for f in fields_of(record)}
    if name not in fields:
        raise DeclarationError(f"{said}: {record.__name__} has no field {name!r}; it has {', '.join(fields)}")
    return fields[name]


RESULT_TYPES: Mapping[Kind, tuple[Any, ...]] = {
    "count": (int,),
    "distinct": (int,),
    "flag": (bool,),
    "total": (Decimal,),
    "average": (Decimal,),
    "top": (list,),
    "collect": (list,),
}


def _input_type(item: Input, enrichments: Iterable[Enrichment], said: str) -> ValueType:
    if item.name is None:
        return "bool"
    if item.enriched:
        found = [e.type for e in enrichments if e.record is item.record and e.name == item.name]
        if not found:
            raise DeclarationError(f"{said}: {item} is of another version of govern than the projection (govern=)")
        return found[0]
    return value_type(field_named(item.record, item.name, said).annotation)


def declare_projection(
    name: str,
    version: int,
    record: type[Projection],
    enrichments: Sequence[Enrichment],
    identity: IdentityDeclaration | None = None,
    purposes: Iterable[str] = (),
    region: str | None = None,
    replay: timedelta | None = None,
    govern: int = 1,
) -> ProjectionDeclaration:
    """Read the class body of a projection. Raises DeclarationError naming class and attribute."""
    if not (isinstance(record, type) and issubclass(record, Projection)):
        raise DeclarationError(f"@app.projection({name!r}) decorates a class that derives from c360.Projection")
    if version < 1:
        raise DeclarationError(f"{record.__name__}: version={version} is not a version; start with version=1")
    annotations = _annotations(record)
    attributes: list[Attribute] = []
    declarations: list[AttributeDeclaration] = []
    names = [n for n in vars(record) if isinstance(vars(record)[n], AttributeDeclaration)]
    for attribute in names:
        said = f"{record.__name__}.{attribute}"
        declaration: AttributeDeclaration = vars(record)[attribute]
        if attribute not in annotations:
            raise DeclarationError(f"{said} has no annotation: write `{attribute}: int = count(…)` or what fits")
        kinds = {_input_type(i, enrichments, said) for i in declaration.inputs}
        if declaration.kind in ("count", "flag"):
            kinds = {"bool"} if declaration.kind == "count" else kinds
        if len(kinds) > 1 and declaration.kind not in ("flag",):
            raise DeclarationError(
                f"{said}: {declaration.kind}(…) takes values of one type, here are {', '.join(sorted(kinds))}"
                f" from {', '.join(map(str, declaration.inputs))}"
            )
        _check_annotation(said, declaration, annotations[attribute])
        attributes.append(
            Attribute(
                name=attribute,
                kind=declaration.kind,
                type=kinds.pop() if len(kinds) == 1 else "json",
                n=declaration.n,
                limit=declaration.limit,
                within_days=declaration.within.days if declaration.within else 0,
                scale=declaration.scale,
                of=declaration.eras,
            )
        )
        declarations.append(declaration)
    for attribute in annotations:
        if attribute not in names:
            raise DeclarationError(
                f"{record.__name__}.{attribute} says no rule: give it one, such as `= newest(Click.ts)`, or make it @derived"
            )
    if not attributes:
        raise DeclarationError(f"{record.__name__} has no attributes: write for example `orders: int = count(Order)`")
    _check_replay(record.__name__, replay, attributes)
    computed = tuple(n for n, v in vars(record).items() if isinstance(v, derived))
    return ProjectionDeclaration(
        name,
        version,
        record,
        tuple(attributes),
        tuple(declarations),
        computed,
        identity,
        tuple(sorted(purposes)),
        region,
        replay,
        govern,
    )


def _check_replay(said: str, replay: Any, attributes: Sequence[Attribute]) -> None:
    if replay is None:
        return
    if not isinstance(replay, timedelta) or replay < timedelta(days=1):
        raise DeclarationError(
            f"{said}: replay= is how far back a rebuild must be able to read, a day or more, such as timedelta(days=400); not"
            f" {replay!r}"
        )
    widest = max(attributes, key=lambda a: a.within_days)
    if replay < timedelta(days=widest.within_days):
        raise DeclarationError(
            f"{said}: replay={replay.days} days is less than {widest.name} looks back: within={widest.within_days} days. A"
            " rebuild could not fill its window; say a longer replay="
        )


def _annotations(record: type[Projection]) -> dict[str, Any]:
    """Annotations of the class body, resolved where the names can be found (a class inside a function may hide some)."""
    own = inspect.get_annotations(record)
    try:
        resolved = inspect.get_annotations(record, eval_str=True)
    except (NameError, AttributeError, TypeError):
        return dict(own)
    return dict(resolved)


def _check_annotation(said: str, declaration: AttributeDeclaration, annotation: Any) -> None:
    expected = RESULT_TYPES.get(declaration.kind)
    if expected is None or isinstance(annotation, str):
        return
    kind = without_none(annotation)
    kind = typing.get_origin(kind) or kind
    if kind not in expected:
        raise DeclarationError(
            f"{said} is annotated {getattr(annotation, '__name__', annotation)}, but {declaration.kind}(…) gives"
            f" {expected[0].__name__}"
        )


def with_enrichments(source: Source, enrichments: Sequence[Enrichment]) -> Source:
    """The source with the enrichments of its record types."""
    records = {t.record for t in source.types}
    return replace(source, enrichments=tuple(e for e in enrichments if e.record in records))

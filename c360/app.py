"""`App`: how a customer data app is said. It holds declarations and runs nothing; importing an app does no I/O."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import EllipsisType
from typing import Any, Literal, TypeVar, cast, overload

import fastavro

from c360.codecs import segment
from c360.codecs.record import ATTRIBUTE, Record, fields_of
from c360.declare import (
    Declarations,
    Enrichment,
    IdentityDeclaration,
    Projection,
    Source,
    SourceType,
    UserAgent,
    When,
    check_since,
    declare_projection,
    field_named,
    value_type,
    without_none,
)
from c360.errors import DeclarationError
from c360.governance.inputs import Categories, FromTcf
from c360.governance.purposes import Basis, Purpose, Purposes
from c360.identity import normalize as normalizers
from c360.identity.facts import OPERATORS
from c360.identity.namespace import NAME, Namespace, Normalizer
from c360.identity.rules import BLOCKED, DEFAULTS
from c360.outside import Limits, declare_outside
from c360.plan import Plan, make_plan
from c360.rights import (
    ErasureSource,
    asked,
    check_consent,
    consent_source,
    purposes_said,
    sink_declaration,
)

R = TypeVar("R", bound=Record)
Id = TypeVar("Id", bound=str)
P = TypeVar("P", bound=Projection)
T = TypeVar("T")
C = TypeVar("C", bound=type)
APP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}\Z")
TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,200}\Z")
SINK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
WEEK = timedelta(days=7)
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def _returned(said: str, function: Callable[..., Any]) -> Any:
    """What a function is annotated to return. Raises DeclarationError, also for what is none."""
    if isinstance(function, Enrichment):
        raise DeclarationError(f"{said} is an enrichment itself; write a plain function")
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{said} is no plain function of the record")
    returns = inspect.get_annotations(function).get("return")
    if isinstance(returns, str):
        try:
            returns = eval(returns, getattr(inspect.unwrap(function), "__globals__", {}))  # its argument may be local
        except NameError as error:
            raise DeclarationError(f"{said}: the return annotation {returns!r} cannot be found") from error
    if returns is None:
        raise DeclarationError(f"{said}: annotate what it returns, such as `-> str`")
    return returns


def _type_name(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


class App:
    """A customer data app: `app = App("shop")`, then decorators. Broker, state directory and keys come from settings.

    `name` prefixes every topic, group and transactional id. `partitions` is the count of all topics keyed by subject,
    fixed when the app is first started: changing it is a new generation of the app. `govern`: the versions of govern that
    run: with (1, 2) a second one reads all raw topics from their beginning, beside the first (docs/operations.md).
    """

    def __init__(self, name: str, *, partitions: int = 12, govern: int | Sequence[int] = 1) -> None:
        if not APP_NAME.match(name):
            raise DeclarationError(f"App({name!r}): a name is lower case letters, digits, - and _, at most 40")
        if not 1 <= partitions <= 10_000:
            raise DeclarationError(f"App({name!r}, partitions={partitions}): partitions is 1 to 10000")
        self.name = name
        self.partitions = partitions
        governs = (govern,) if isinstance(govern, int) else tuple(sorted(govern))
        if not governs or governs[0] < 1 or len(set(governs)) < len(governs):
            raise DeclarationError(
                f"App({name!r}, govern={govern}): versions are numbers from 1 on, such as govern=(1, 2)"
            )
        self._said = Declarations(governs=governs)

    def plan(self) -> Plan:
        """Check everything together and name every topic, group and table. Raises DeclarationError."""
        return make_plan(self.name, self.partitions, self._said)

    # ------------------------------------------------------------------------------------------------ identifiers
    def identifier(
        self,
        namespace: str,
        *,
        priority: int | None = None,
        unique: bool | None = None,
        limit: int | None = None,
        shared_at: int | EllipsisType | None = ...,
        hub_at: int | EllipsisType | None = ...,
        links: bool = True,
        personal: bool | None = None,
        normalize: Normalizer = normalizers.text,
    ) -> Callable[[C], C]:
        """Declare a kind of identifier. Decorates a class that derives from `str`, to be used as a field's type.

        On a field beside its subject it says that this is the subject's, too, and joins those who have it in common.
        `normalize` takes the text of a value and gives its canonical form, or None when it identifies nobody.
        `priority`: the smaller, the earlier its links decide, and the better a name for a profile. `unique`: two of these
        are never one customer. `limit`: so many values in one profile. `shared_at`: so many different values of one unique
        kind seen with a value, and it joins nobody; `hub_at`: more neighbours than this, and it joins nobody; None turns
        either off. `links=False`: a value only forbids, such as a birth date with limit=1. `personal`: values are written as
        tokens, never in clear.
        What is left out is as the default namespace of that name has it (docs/identity.md), else as a custom one.
        """
        if not NAME.match(namespace):
            raise DeclarationError(
                f"@app.identifier({namespace!r}): a namespace is lower case letters, digits and _, at most 40"
            )

        known = DEFAULTS.get(namespace) or (DEFAULTS["user_id"] if unique else Namespace(namespace))
        said = {"priority": priority, "unique": unique, "limit": limit, "shared_at": shared_at, "hub_at": hub_at}
        said["personal"] = personal
        settings = {name: getattr(known, name) for name in said}
        settings |= {n: v for n, v in said.items() if v is not ... and (v is not None or n in ("shared_at", "hub_at"))}

        def declare(kind: C) -> C:
            if not (isinstance(kind, type) and issubclass(kind, str)):
                raise DeclarationError(f"@app.identifier({namespace!r}): write `class {kind.__name__}(str): ...`")
            for other, declared in self._said.identifiers.items():
                if declared.name == namespace or other is kind:
                    raise DeclarationError(
                        f"{kind.__name__}: namespace {declared.name!r} is already declared by {other.__name__}"
                    )
            self._said.identifiers[kind] = Namespace(namespace, normalize=normalize, links=links, **settings)
            return kind

        return declare

    # ---------------------------------------------------------------------------------------------------- sources
    def source(
        self,
        topic: str,
        *,
        event_id: str | None = None,
        at: str | None = None,
        subject: str | Sequence[str] | None = None,
        key: type[str] | None = None,
        name: str | None = None,
        format: Literal["json", "avro", "protobuf", "segment", "cloudevents"] = "json",
        event: str | None = None,
        schema: Mapping[str, Any] | str | type | None = None,
        when: When | None = None,
        unmatched: Literal["dlq", "ignore"] = "dlq",
        window: timedelta = WEEK,
        purposes: Iterable[Purpose] = (),
        tenant: str | None = None,
        region: str | None = None,
        rate: str | None = None,
        quarantine: float | None = None,
    ) -> Callable[[type[R]], type[R]]:
        """Declare a raw topic of events: things that happened.

        `format`: what its records are: JSON of any shape; Avro, or JSON, with a schema in a registry; Protobuf; Segment's
        calls, as subclasses of `segment.Track` and its like, of which `event` names one; or CloudEvents, whose data has the
        fields. Of the last two ids and times need not be said. `schema`: of Avro, the schema the app was written for: values
        of older and newer ones are read as it says, with its aliases and defaults; of Protobuf, the class that protoc made.
        `event_id`: field whose value is the same for every delivery of one event; repeats within `window` of record
        times are dropped. `at`: field with the event's time; without it, the record's timestamp. `subject`: field (or
        fields, the first that is present) that says whom the event is about; without it the raw key, whose namespace
        `key` names. `when`: payload paths and the values that make a payload of this type; `unmatched`: what happens
        to payloads that no type claims. `name`: short name of the source in topic names (default: the raw topic).
        `purposes`: what its records may be used for; none said, for none that asks. `tenant`: field that says whose customer it
        is: tenants never meet. `region`: its records leave only where the same is said.
        `rate`: how many records are read at most, as "500/s" or "100/min", of all partitions together and each its part; the
        rest waits in the topic. `quarantine`: the share of misfits (0.2: one in five of the last 1,000 records of a process)
        above which the source is paused until somebody resumes it.
        """
        if format not in ("json", "avro", "protobuf", "segment", "cloudevents"):
            raise DeclarationError(
                f"@app.source({topic!r}, format={format!r}): a format is json, avro, protobuf, segment or cloudevents;"
                " Debezium's envelopes are read by @app.cdc"
            )
        fits = _message_of(f"@app.source({topic!r})", schema) if format == "protobuf" else None
        reader = _schema_text(f"@app.source({topic!r})", format, schema) if fits is None else None

        def declare(record: type[R]) -> type[R]:
            said = f"@app.source({topic!r}) {record.__name__}"
            _check_format(said, record, format, event)
            about, id_field, at_field = when, event_id, at
            if format == "segment":
                about = {**(when or {}), **segment.when_of(record, event)}
                id_field, at_field = event_id or "message_id", at or "timestamp"
            declared = self._source_type(said, record, about, subject, key, id_field, at_field)
            if fits is not None:
                fits(said, record, about)
                declared = replace(declared, message=schema)
            source = Source(
                name or topic,
                topic,
                "events",
                (declared,),
                self._namespace(said, key),
                unmatched,
                window,
                format=format,
                schema=reader,
            )
            source = _limited(said, source, rate, quarantine)
            self._add_source(said, self._governed(said, source, purposes, tenant, region))
            return record

        return declare

    def cdc(
        self,
        topic: str,
        *,
        key: str | Sequence[str],
        subject: str | Sequence[str] | None = None,
        at: str | None = None,
        name: str | None = None,
        format: Literal["debezium"] = "debezium",
        purposes: Iterable[Purpose] = (),
        tenant: str | None = None,
        region: str | None = None,
        rate: str | None = None,
        quarantine: float | None = None,
    ) -> Callable[[type[R]], type[R]]:
        """Declare a raw topic of database changes (Debezium JSON envelopes, with or without schemas): rows that exist.

        `key`: the primary key's field or fields. `subject`: field (or fields, the first that is present) that says
        whom the row is about; without it the key, which then must be one field of an identifier type. `at`: field
        with the row's own time; without it, the database's commit time. `purposes`, `tenant`, `region`, `rate`,
        `quarantine`: as for `source`.
        """
        if format != "debezium":
            raise DeclarationError(
                f'@app.cdc({topic!r}, format={format!r}): only format="debezium" (JSON) is built yet'
            )

        def declare(record: type[R]) -> type[R]:
            said = f"@app.cdc({topic!r}) {record.__name__}"
            keys = (key,) if isinstance(key, str) else tuple(key)
            for part in keys:
                field_named(record, part, said)
            about = subject if subject is not None else keys[0] if len(keys) == 1 else None
            if about is None:
                raise DeclarationError(f"{said}: the key has several fields, so say whom a row is about: subject=…")
            declared = replace(self._source_type(said, record, None, about, None, None, at), key=keys)
            source = Source(name or topic, topic, "rows", (declared,), None, "dlq", WEEK, format=format)
            source = _limited(said, source, rate, quarantine)
            self._add_source(said, self._governed(said, source, purposes, tenant, region))
            return record

        return declare

    def _governed(
        self, said: str, source: Source, purposes: Iterable[Purpose], tenant: str | None, region: str | None
    ) -> Source:
        (declared,) = source.types
        if tenant is not None and value_type(field_named(declared.record, tenant, said).annotation) not in (
            "text",
            "int",
        ):
            raise DeclarationError(f"{said}: tenant {declared.record.__name__}.{tenant} must be a str or an int")
        names = purposes_said(said, purposes, self._said.purposes)
        return replace(source, purposes=names, tenant=tenant, region=region)

    def _source_type(
        self,
        said: str,
        record: type[Record],
        when: When | None,
        subject: str | Sequence[str] | None,
        key: type[str] | None,
        event_id: str | None,
        at: str | None,
    ) -> SourceType:
        if not (isinstance(record, type) and issubclass(record, Record)):
            raise DeclarationError(f"{said}: decorates a class that derives from c360.Record")
        subjects = () if subject is None else (subject,) if isinstance(subject, str) else tuple(subject)
        if not subjects and key is None:
            raise DeclarationError(
                f"{said}: whom is it about? Name the field with subject=…, or say what the raw key is with key=SomeId"
            )
        for part in subjects:
            kind = without_none(field_named(record, part, said).annotation)
            if kind not in self._said.identifiers:
                raise DeclarationError(
                    f"{said}: subject {record.__name__}.{part} is {getattr(kind, '__name__', kind)}, which is no identifier;"
                    " annotate it with a class decorated by @app.identifier, declared above"
                )
        if event_id is not None and value_type(field_named(record, event_id, said).annotation) not in ("text", "int"):
            raise DeclarationError(f"{said}: event_id {record.__name__}.{event_id} must be a str, an int or a UUID")
        if at is not None and without_none(field_named(record, at, said).annotation) is not datetime:
            raise DeclarationError(f"{said}: at {record.__name__}.{at} must be a datetime")
        return SourceType(record, when, subjects, event_id, at)

    def _namespace(self, said: str, key: type[str] | None) -> Namespace | None:
        if key is None:
            return None
        if key not in self._said.identifiers:
            raise DeclarationError(
                f"{said}: key={getattr(key, '__name__', repr(key))} is no identifier; decorate it with @app.identifier above"
            )
        return self._said.identifiers[key]

    def _add_source(self, said: str, source: Source) -> None:
        if not TOPIC_NAME.match(source.topic) or not TOPIC_NAME.match(source.name):
            raise DeclarationError(f"{said}: topic and name are letters, digits, '.', '_' and '-'")
        if source.name == OPERATORS:
            raise DeclarationError(f"{said}: the name {source.name!r} is that of what operators say; give name=…")
        record = source.types[0].record
        for other in self._said.sources.values():
            if any(t.record is record for t in other.types):
                raise DeclarationError(f"{said}: {record.__name__} is already read from {other.topic!r}")
            if other.name == source.name and other.topic != source.topic:
                raise DeclarationError(f"{said}: the name {source.name!r} is taken by {other.topic!r}; give name=…")
        old = self._said.sources.get(source.topic)
        if old is None:
            self._said.sources[source.topic] = source
            return
        if "rows" in (old.kind, source.kind):
            raise DeclarationError(f"{said}: a CDC topic carries the rows of one table, so it has one record type")
        if replace(old, types=()) != replace(source, types=()):
            raise DeclarationError(
                f"{said}: name, format, key, unmatched, window, purposes, tenant, region, rate and quarantine must be"
                f" the same as for {old.types[0].name} on this topic"
            )
        if any(t.name == record.__name__ for t in old.types):
            raise DeclarationError(f"{said}: two record types of one topic cannot both be named {record.__name__}")
        alike = [t for t in (*old.types, *source.types) if t.message is source.types[0].message]
        if len(alike) > 1 and any(t.when is None for t in alike):
            raise DeclarationError(f"{said}: several record types on one topic need when={{path: value}} each")
        self._said.sources[source.topic] = replace(old, types=old.types + source.types)

    # ------------------------------------------------------------------------------------------------ enrichments
    def _version_of_govern(self, said: str, govern: int | None) -> int | None:
        if govern is not None and govern not in self._said.governs:
            raise DeclarationError(
                f"{said}: govern={govern} is no version of govern; say App({self.name!r},"
                f" govern={(*self._said.governs, govern)})"
            )
        return govern

    @overload
    def enrich(
        self, record: type[R], *, since: datetime | None = None, govern: int | None = None
    ) -> Callable[[Callable[[R], T]], T]: ...

    @overload
    def enrich(
        self, record: type[R], *, since: datetime, before: Callable[[R], T], govern: int | None = None
    ) -> Callable[[Callable[[R], T]], T]: ...

    @overload
    def enrich(
        self,
        *,
        refresh: timedelta,
        purpose: Purpose | None = None,
        timeout: timedelta = timedelta(seconds=10),
        retries: int = 5,
        rate: float | None = None,
        concurrency: int = 8,
        region: str | None = None,
    ) -> Callable[[Callable[[Id], Coroutine[Any, Any, R | None]]], Callable[[Id], Coroutine[Any, Any, R | None]]]: ...

    def enrich(
        self,
        record: type[Any] | None = None,
        *,
        since: datetime | None = None,
        before: Callable[[Any], Any] | None = None,
        govern: int | None = None,
        refresh: timedelta | None = None,
        purpose: Purpose | None = None,
        timeout: timedelta = timedelta(seconds=10),
        retries: int = 5,
        rate: float | None = None,
        concurrency: int = 8,
        region: str | None = None,
    ) -> Callable[[Any], Any]:
        """Declare a value computed in govern from each record of a type: pure and deterministic, stored beside it.

        The decorated name can be used in attributes like a field: `top(section)`. A record whose enrichment raises
        goes to the dead-letter topic with the traceback. `since`: records whose event time is earlier get what `before`
        makes of them, a plain function with the same return type; without `before` they get none. `govern`: the one version
        of govern that adds it, so that one of the same name stands beside it in another.

        Without a record type, with `refresh`: declare an async function of an identifier that asks somebody else
        (docs/enrichments.md). What it returns is a record about the subject that the identifier came with, from a source of its
        own: `newest(Firm.size)`. Each identifier of a subject is asked about once, and again when a record has it after
        `refresh`; nothing that is read again asks. `purpose`: what for, and what the answers may be used for. `timeout`: of one
        call; `retries`: of a call that failed, ever later; `rate`: calls a second, and `concurrency`: calls at a time, of one
        process; of one identifier there is one at a time, in order. `region`: where it asks.
        """
        if record is None or refresh is not None:
            inline = {"a record type": record, "since=": since, "before=": before, "govern=": govern}
            said = [name for name, value in inline.items() if value is not None]
            if refresh is None or said:
                wrong = (
                    f"{said[0]} and refresh= do not go together" if said else "says neither a record type nor refresh="
                )
                raise DeclarationError(
                    f"@app.enrich: {wrong}. Write @app.enrich(Click) over a plain function of a record, or"
                    " @app.enrich(refresh=timedelta(days=30)) over an async function of an identifier"
                )
            limits = Limits(timeout.total_seconds(), retries, rate, concurrency)
            return lambda function: self._outside(function, refresh, purpose, limits, region)

        def declare(function: Callable[[R], T]) -> T:
            name = getattr(function, "__name__", "")
            said = f"@app.enrich({record.__name__}) {name}"
            if inspect.iscoroutinefunction(function):
                raise DeclarationError(
                    f"{said}: an async function asks somebody else: @app.enrich(refresh=timedelta(days=30)) over a function of"
                    " an identifier. What is computed from each record is a plain function"
                )
            self._version_of_govern(said, govern)
            for other in self._said.enrichments:
                same = other.record is record and other.name == name
                if same and (None in (govern, other.govern) or govern == other.govern):
                    raise DeclarationError(f"{said}: {record.__name__} already has an enrichment of this name")
            returns = _returned(said, function)
            check_since(said, since, before)
            if before is not None and (was := _returned(f"{said}, before=", before)) != returns:
                raise DeclarationError(
                    f"{said}: before= returns {_type_name(was)}, and this {_type_name(returns)}; annotate both as one type,"
                    " for attributes take their values alike"
                )
            enrichment = Enrichment(record, name, function, value_type(returns), returns, since, before, govern)
            self._said.enrichments.append(enrichment)
            return cast(T, enrichment)

        return declare

    def _outside(
        self, function: Any, refresh: timedelta, purpose: Purpose | None, limits: Limits, region: str | None
    ) -> Any:
        known, purposes = self._said.identifiers, self._said.purposes
        declared = declare_outside(
            function, known, purposes, refresh=refresh, purpose=purpose, limits=limits, region=region
        )
        said = f"@app.enrich(refresh=…) {declared.name}"
        if any(other.name == declared.name for other in self._said.outsides):
            raise DeclarationError(f"{said}: an outside enrichment of this name is declared already")
        self._add_source(said, declared.source(self.name))
        self._said.outsides.append(declared)
        return function

    # --------------------------------------------------------------------------------------------------- identity
    def identity(
        self,
        name: str = "default",
        *,
        version: int = 1,
        changes: Mapping[type[str], Mapping[str, Any]] | None = None,
        blocked: Sequence[str] = BLOCKED,
        cap: int = 1000,
        govern: int | None = None,
    ) -> IdentityDeclaration:
        """Declare a rule set that decides who is one customer; without any, there is `default` as identifiers say.

        Several may stand side by side over the same facts, also several versions of one: `risk = app.identity("risk",
        changes={Email: {"limit": 1}})`, and `@app.projection("account", identity=risk)` follows it. `changes`: settings of
        `@app.identifier` that are other here. `blocked`: regular expressions of whole values that join nobody. `cap`:
        above so many linked identifiers and subjects only unique ones join. A change needs a new version. `govern`: the version
        of govern whose links it decides over, default the lowest.
        """
        said = f"app.identity({name!r})"
        if not NAME.match(name):
            raise DeclarationError(f"{said}: a name is lower case letters, digits and _, at most 40")
        if version < 1:
            raise DeclarationError(f"{said}: version={version} is not a version; start with version=1")
        for kind, settings in (changes or {}).items():
            if kind not in self._said.identifiers:
                raise DeclarationError(
                    f"{said}: {getattr(kind, '__name__', kind)} is no identifier; decorate it with @app.identifier above"
                )
            if unknown := settings.keys() - {"priority", "unique", "limit", "shared_at", "hub_at", "links"}:
                raise DeclarationError(
                    f"{said}: {kind.__name__} has no setting {', '.join(sorted(unknown))}; there are priority, unique, limit,"
                    " shared_at, hub_at and links"
                )
        if any((d.name, d.version) == (name, version) for d in self._said.identities):
            raise DeclarationError(f"{said}: version {version} is already declared; give this one another version=…")
        self._version_of_govern(said, govern)
        declared = IdentityDeclaration(name, version, dict(changes or {}), tuple(blocked), cap, govern)
        self._said.identities.append(declared)
        return declared

    # ------------------------------------------------------------------------------------------------ projections
    def projection(
        self,
        name: str,
        *,
        version: int = 1,
        identity: IdentityDeclaration | None = None,
        purposes: Iterable[Purpose] = (),
        region: str | None = None,
        replay: timedelta | None = None,
        govern: int | None = None,
    ) -> Callable[[type[P]], type[P]]:
        """Declare a projection: one profile per customer in the topic `{app}.{name}.v{version}`.

        Several versions of one name may stand side by side, each a class of its own (docs/operations/change-a-profile.md).
        `identity`: the rule set that says who is one customer, default: the one named default. A change of its
        attributes, or of what it follows, needs a new version number. `purposes`: for each there is a view, the topic
        `{app}.{name}.v{version}.{purpose}`, with the profiles and values that it may have now. `region`: where its topics are.
        `replay`: how far back a rebuild of it must be able to read events, so that what is older need not be kept; default:
        all, for ever. `govern`: the version of govern whose records it folds, default the lowest (docs/operations.md).
        """
        if not re.match(r"[a-z][a-z0-9_]{0,39}\Z", name) or name in (
            "govern",
            "governed",
            "tasks",
            "days",
            "dlq",
            "replay",
            "links",
            "identity",
            "assignments",
            "consent",
            "erasure",
            "activation",
            "control",
            "outside",
        ):
            raise DeclarationError(
                f"@app.projection({name!r}): a name is lower case letters, digits and _, not one of ours"
            )

        def declare(record: type[P]) -> type[P]:
            said = f"@app.projection({name!r}) {getattr(record, '__name__', record)}"
            looking = purposes_said(said, purposes, self._said.purposes)
            of = self._version_of_govern(said, govern) or self._said.governs[0]
            enrichments = [e for e in self._said.enrichments if e.govern in (None, of)]
            declared = declare_projection(name, version, record, enrichments, identity, looking, region, replay, of)
            for other in self._said.projections:
                if (other.name, other.version) == (name, version):
                    raise DeclarationError(
                        f"{record.__name__}: version {version} of {name!r} is already declared by {other.record.__name__}; give"
                        f" the new one version={version + 1}, and both stand side by side until it is promoted"
                    )
                if other.record is record and other.name == name:
                    raise DeclarationError(
                        f"{record.__name__} is already {other.agent}: each version is a class of its own"
                    )
            self._said.projections.append(declared)
            return record

        return declare

    # ----------------------------------------------------------------------------------------------- user agents
    def agent(self, topic: str, *, name: str | None = None) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
        """Declare a Faust agent in the same worker: an `async def` over the stream of a topic, at least once.

        For a governed topic (`"shop.governed.orders"`, without its version) it gets record objects, else decoded JSON. It is
        done with a record when it asks for the next one (docs/agents.md).
        """

        def declare(function: Callable[[Any], T]) -> Callable[[Any], T]:
            called = name or str(getattr(function, "__name__", "agent"))
            written: Any = function
            if not (inspect.iscoroutinefunction(written) or inspect.isasyncgenfunction(written)):
                raise DeclarationError(f"@app.agent({topic!r}) {called}: write `async def {called}(stream): ...`")
            if any(a.name == called for a in self._said.agents):
                raise DeclarationError(f"@app.agent({topic!r}) {called}: this name is taken; give name=…")
            self._said.agents.append(UserAgent(called, topic, function))
            return function

        return declare

    # ------------------------------------------------------------------------------------------ purposes and rights
    def purpose(self, name: str, *, basis: Basis = "consent") -> Purpose:
        """Declare a use of data and its legal basis; people's decisions count where it is `consent`.

        To be given as `purposes=[…]` to sources (what their records may be used for) and projections (who looks at them).
        """
        purpose = Purpose(name, basis)
        Purposes([*self._said.purposes, purpose])  # refuses a name that is taken
        self._said.purposes.append(purpose)
        return purpose

    def consent(
        self,
        topic: str,
        *,
        key: type[str] | None = None,
        name: str | None = None,
        when: When | None = None,
        unmatched: Literal["dlq", "ignore"] = "dlq",
        categories: Categories | None = None,
        tcf: Mapping[str, FromTcf] | None = None,
        tenant: str | None = None,
    ) -> Callable[[type[R]], type[R]]:
        """Declare a raw topic of decisions: who (fields of identifier types), `purpose`, `granted` or `status`, `at`, perhaps
        `expires_at`.

        `categories`: the record is a Segment call, `preferences` its `context.consent.categoryPreferences`, and these are
        the purposes of its categories (None: none of ours). `tcf`: `tc_string` is a string of the IAB's framework, and these
        say when it grants which purpose. `key`: what the raw key is, where no field says who. The topic may be a source, too.
        """

        def declare(record: type[R]) -> type[R]:
            said = f"@app.consent({topic!r}) {getattr(record, '__name__', record)}"
            about = asked(
                said, topic, record, self._said.identifiers, name=name, key=self._namespace(said, key), when=when,
                unmatched=unmatched, tenant=tenant,
            )  # fmt: skip
            source = consent_source(said, about, categories, tcf)
            check_consent(source, Purposes(self._said.purposes), said)
            if any(s.asked.topic == topic for s in self._said.consents):
                raise DeclarationError(f"{said}: consent is already read from {topic!r}, as one record type")
            self._said.consents.append(source)
            return record

        return declare

    def erasure(
        self,
        topic: str,
        *,
        key: type[str] | None = None,
        name: str | None = None,
        when: When | None = None,
        unmatched: Literal["dlq", "ignore"] = "dlq",
        tenant: str | None = None,
    ) -> Callable[[type[R]], type[R]]:
        """Declare a raw topic of requests to be forgotten: each record names a customer by fields of identifier types."""

        def declare(record: type[R]) -> type[R]:
            said = f"@app.erasure({topic!r}) {getattr(record, '__name__', record)}"
            about = asked(
                said, topic, record, self._said.identifiers, name=name, key=self._namespace(said, key), when=when,
                unmatched=unmatched, tenant=tenant,
            )  # fmt: skip
            if any(s.asked.topic == topic for s in self._said.erasures):
                raise DeclarationError(f"{said}: requests are already read from {topic!r}, as one record type")
            self._said.erasures.append(ErasureSource(about))
            return record

        return declare

    def sink(
        self,
        name: str,
        *,
        projection: type[Projection],
        purpose: Purpose,
        sensitive: Sequence[str] = (),
        region: str | None = None,
    ) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
        """Declare what a far side is to hold of each profile: a function of the profile as the purpose may see it.

        What it gives (JSON) is written to `{app}.activation.{name}` under the profile's id when it is another than before;
        None is nothing: what was there is removed. `projection`: the class of any of its versions; the function is given
        profiles of the live one. `sensitive`: attributes that it takes although they are `Sensitive`.
        """

        def declare(function: Callable[[Any], T]) -> Callable[[Any], T]:
            said = f"@app.sink({name!r}) {getattr(function, '__name__', '')}".rstrip()
            if not SINK_NAME.match(name) or any(s.name == name for s in self._said.sinks):
                raise DeclarationError(
                    f"{said}: a name is lower case letters, digits, - and _, at most 40, and not taken"
                )
            purposes_said(said, [purpose], self._said.purposes)
            found = next((p for p in self._said.projections if p.record is projection), None)
            if found is None:
                raise DeclarationError(f"{said}: projection= is a class decorated by @app.projection, declared above")
            self._said.sinks.append(sink_declaration(said, name, found, purpose, function, sensitive, region))
            return function

        return declare


def _check_format(said: str, record: type[Record], format: str, event: str | None) -> None:
    """Whether a record type can be read in this format. Raises DeclarationError."""
    if format == "segment" and not (
        isinstance(record, type) and issubclass(record, segment.Call) and record.of and issubclass(record, Record)
    ):
        raise DeclarationError(
            f"{said}: a call of Segment derives from segment.Track, Identify, Page, Screen, Group or Alias"
        )
    if event is not None and not (format == "segment" and issubclass(record, segment.Track)):
        raise DeclarationError(f'{said}: event={event!r} is the name of a track call: format="segment", segment.Track')
    if format != "cloudevents" and isinstance(record, type) and issubclass(record, Record):
        attributes = [f.name for f in fields_of(record) if f.path.startswith(ATTRIBUTE)]
        if attributes:
            raise DeclarationError(
                f'{said}: {record.__name__}.{attributes[0]} is an attribute of a CloudEvent; say format="cloudevents"'
            )


def _limited(said: str, source: Source, rate: str | None, quarantine: float | None) -> Source:
    """The source with its rate in records a second, and the share of misfits that pauses it. Raises DeclarationError."""
    per_s = None
    if rate is not None:
        found = _RATE.fullmatch(rate)
        per_s = 0.0 if found is None else float(found[1]) / _SECONDS[found[2]]
        if not per_s:
            raise DeclarationError(f'{said}: rate={rate!r} is none; write for example "500/s", "100/min" or "10/h"')
    if quarantine is not None and not 0 < quarantine < 1:
        raise DeclarationError(f"{said}: quarantine={quarantine} is a share of records, between 0 and 1")
    return replace(source, rate=per_s, quarantine=quarantine)


def _message_of(said: str, schema: Any) -> Callable[[str, type[Record], When | None], None]:
    """What checks record types against a generated class. Raises DeclarationError for what is none."""
    try:
        from google.protobuf.message import Message

        from c360.codecs import fitting
    except ImportError as error:
        raise DeclarationError(
            f'{said}: format="protobuf" needs the package protobuf ({error}); install c360[protobuf]'
        ) from None
    if not (isinstance(schema, type) and issubclass(schema, Message) and schema is not Message):
        raise DeclarationError(
            f"{said}: Protobuf is read by a class that protoc made of the .proto; say schema=order_pb2.Order"
        )
    return partial(fitting.check, schema)


def _schema_text(said: str, format: str, schema: Mapping[str, Any] | str | type | None) -> str | None:
    """The schema as JSON. Raises DeclarationError for one that is none."""
    if schema is None:
        return None
    if isinstance(schema, type):
        raise DeclarationError(
            f'{said}: schema= is a class, {schema.__name__}; to read Protobuf by it say format="protobuf"'
        )
    if format != "avro":
        raise DeclarationError(f'{said}: schema= is an Avro schema, for format="avro"')
    try:
        found = json.loads(schema) if isinstance(schema, str) else dict(schema)
        fastavro.parse_schema(found)
    except Exception as error:
        raise DeclarationError(f"{said}: schema= is no Avro schema: {type(error).__name__}: {error}") from None
    return json.dumps(found)

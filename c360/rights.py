"""What a user can say of people's rights: where they decide, where they ask to be forgotten, and where profiles leave.

Checked as far as one declaration can be checked alone; what several add up to is `c360.plan`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from c360.codecs.record import AnyIdentifier, Record, fields_of
from c360.declare import LinkField, ProjectionDeclaration, When, identifier_in, without_none
from c360.errors import DeclarationError
from c360.governance.inputs import Categories, FromTcf, check_categories
from c360.governance.purposes import Purpose, Purposes
from c360.identity.namespace import Namespace

PREFERENCES, TC_STRING = "preferences", "tc_string"  # fields by which Segment's and the IAB's consent are known
Form = Literal["plain", "segment", "tcf"]


@dataclass(frozen=True)
class Asked:
    """Records in which people say something of themselves: which identifiers a record is about.

    `identifiers`: its fields typed with identifier classes; `any_identifier`: the one whose namespace is in the data. A record
    without either is about its raw key, whose namespace `key` is.
    """

    name: str
    topic: str
    record: type[Record]
    identifiers: tuple[LinkField, ...]
    any_identifier: str | None
    key: Namespace | None
    when: When | None = None
    unmatched: Literal["dlq", "ignore"] = "dlq"
    tenant: str | None = None


@dataclass(frozen=True)
class ConsentSource:
    """A raw topic of decisions. `categories`, `tcf`: what Segment's categories and the framework's purposes are of ours."""

    asked: Asked
    form: Form
    categories: Categories = field(default_factory=dict)
    tcf: Mapping[str, FromTcf] = field(default_factory=dict)


@dataclass(frozen=True)
class ErasureSource:
    """A raw topic of requests to be forgotten."""

    asked: Asked


@dataclass(frozen=True)
class SinkDeclaration:
    """What a far side is to hold of each profile: what `function` makes of it, nothing where it gives None.

    `sensitive`: names of sensitive attributes that it takes. `region`: where the far side is.
    """

    name: str
    projection: ProjectionDeclaration
    purpose: str
    function: Callable[[Any], Any]
    sensitive: tuple[str, ...] = ()
    region: str | None = None

    @property
    def agent(self) -> str:
        return f"sink:{self.name}"


@dataclass(frozen=True)
class Door:
    """Where profiles of a projection leave for a purpose: as its view, or through a sink.

    `versions`: of the projection, the lowest first. A view is of one; a sink has what the live one says.
    """

    projection: ProjectionDeclaration
    purpose: Purpose
    versions: tuple[ProjectionDeclaration, ...]
    sink: SinkDeclaration | None = None

    @property
    def of(self) -> str:
        """What it is a door of: a version, or of a sink a projection whatever its version."""
        return self.projection.agent if self.sink is None else self.projection.name

    @property
    def agent(self) -> str:
        return f"{self.projection.agent}:{self.purpose.name}" if self.sink is None else self.sink.agent


def asked(
    said: str,
    topic: str,
    record: type[Record],
    identifiers: Mapping[type, Namespace],
    *,
    name: str | None,
    key: Namespace | None,
    when: When | None,
    unmatched: Literal["dlq", "ignore"],
    tenant: str | None,
) -> Asked:
    """Read a record type of consent or erasure. Raises DeclarationError where it is about nobody."""
    if not (isinstance(record, type) and issubclass(record, Record)):
        raise DeclarationError(f"{said}: decorates a class that derives from c360.Record")
    found, anyone = [], None
    for info in fields_of(record):
        kind, many = identifier_in(info.annotation, identifiers)
        if kind is not None:
            found.append(LinkField(info.name, kind, many=many))
        elif without_none(info.annotation) is AnyIdentifier:
            anyone = info.name
    if not found and anyone is None and key is None:
        raise DeclarationError(
            f"{said}: who says so? Type a field with a class decorated by @app.identifier or with c360.AnyIdentifier, or say"
            " what the raw key is with key=SomeId"
        )
    if tenant is not None and tenant not in {info.name for info in fields_of(record)}:
        raise DeclarationError(f"{said}: tenant={tenant!r} is no field of {record.__name__}")
    return Asked(name or topic, topic, record, tuple(found), anyone, key, when, unmatched, tenant)


def consent_source(
    said: str, of: Asked, categories: Categories | None, tcf: Mapping[str, FromTcf] | None
) -> ConsentSource:
    """Which of the three forms a record type has. Raises DeclarationError, naming the field that is missing."""
    fields = {info.name: info for info in fields_of(of.record)}
    record = of.record.__name__
    if categories is not None and tcf is not None:
        raise DeclarationError(f"{said}: a record is Segment's (categories=) or the IAB's (tcf=), not both")
    if categories is not None:
        _need(said, record, fields, PREFERENCES, 'field("context.consent.categoryPreferences")')
        return ConsentSource(of, "segment", categories=dict(categories))
    if tcf is not None:
        _need(said, record, fields, TC_STRING, "str")
        return ConsentSource(of, "tcf", tcf=dict(tcf))
    _need(said, record, fields, "purpose", "str")
    _need(said, record, fields, "at", "datetime")
    if without_none(fields["at"].annotation) is not datetime:
        raise DeclarationError(f"{said}: {record}.at must be a datetime")
    if not {"status", "granted"} & fields.keys():
        raise DeclarationError(
            f'{said}: {record} does not say what was decided; add `granted: bool` or `status: Literal["granted", "denied",'
            ' "withdrawn"]` (with field("path") if the data has it elsewhere)'
        )
    return ConsentSource(of, "plain")


def _need(said: str, record: str, fields: Collection[str], name: str, hint: str) -> None:
    if name not in fields:
        raise DeclarationError(
            f"{said}: {record} needs a field named {name} ({hint}); give it its path in the data with field(…)"
        )


def check_consent(source: ConsentSource, purposes: Purposes, said: str) -> None:
    """Raises DeclarationError where a mapping names a purpose that is not declared."""
    check_categories(source.categories, purposes, said)
    check_categories({name: name for name in source.tcf}, purposes, said)


def sink_declaration(
    said: str,
    name: str,
    projection: ProjectionDeclaration,
    purpose: Purpose,
    function: Callable[[Any], Any],
    sensitive: Sequence[str],
    region: str | None,
) -> SinkDeclaration:
    """Raises DeclarationError for a function that is none, or a purpose that the projection has not."""
    written: Any = function
    if not callable(written) or inspect.iscoroutinefunction(written) or inspect.isasyncgenfunction(written):
        raise DeclarationError(f"{said}: decorates a plain function of a profile, `def {name}(profile) -> dict | None`")
    if purpose.name not in projection.purposes:
        raise DeclarationError(
            f"{said}: {projection.record.__name__} is not made for {purpose.name!r}; add it to purposes= of its @app.projection"
        )
    attributes = {a.name for a in projection.attributes}
    if unknown := sorted(set(sensitive) - attributes):
        raise DeclarationError(f"{said}: sensitive= names {', '.join(unknown)}, which is no attribute of it")
    return SinkDeclaration(name, projection, purpose.name, function, tuple(sensitive), region)


def purposes_said(said: str, purposes: Iterable[Any], declared: Iterable[Purpose]) -> frozenset[str]:
    """Names of purposes given as `purposes=[marketing]`. Raises DeclarationError for what is none of this app."""
    if isinstance(purposes, Purpose | str):
        raise DeclarationError(f"{said}: purposes= is a list, such as purposes=[marketing]")
    known, names = {p.name: p for p in declared}, set()
    for purpose in purposes:
        if not isinstance(purpose, Purpose) or known.get(purpose.name) != purpose:
            raise DeclarationError(
                f"{said}: purposes= takes what app.purpose(…) gave; declared are: {', '.join(sorted(known)) or 'none'}"
            )
        names.add(purpose.name)
    return frozenset(names)

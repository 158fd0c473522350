"""How a projection decodes and folds governed records: one decoder per topic, one compiled fold per record type.

Only what the projection needs of a record is decoded. What is sealed stays so: attributes keep it as plain JSON, an object
`{"~sealed": …, "subject": …}` or something that has such parts, and compare its canonical text. Knows no tables and no topics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

import msgspec

from c360.codecs.record import Condition, FieldInfo, Record, fields_of
from c360.declare import Input, ProjectionDeclaration, Source, Where, value_type
from c360.errors import Misfit
from c360.plan import Plan, class_of_field, class_of_input
from c360.profile.attribute import Attribute, ValueType
from c360.profile.fold import Fold, Folding, Reader

# Types that JSON holds as text.
PLAIN: Mapping[ValueType, Any] = {"decimal": Decimal, "datetime": datetime, "date": date}


class View(msgspec.Struct, kw_only=True):
    """What a projection reads of every governed record; subclasses add what it needs of `record` and `enriched`."""

    at: int
    cause: int
    sign: int = 1
    life: int = 0


def looked_at(conditions: Iterable[Where]) -> frozenset[str] | None:
    """The fields that conditions look at; None: perhaps all, they are to see the record as the user has declared it."""
    seen = [c.fields if isinstance(c, Condition) else None for c in conditions]
    return None if None in seen else frozenset[str]().union(*(s for s in seen if s is not None))


def stored(plan: Plan, projection: ProjectionDeclaration) -> tuple[Attribute, ...]:
    """The attributes of a projection as they are kept: what may be sealed, as JSON."""
    plan = plan.at(projection.govern)
    pairs = zip(projection.attributes, projection.declarations, strict=True)
    return tuple(
        replace(attribute, type="json") if any(class_of_input(plan, i) for i in declared.inputs) else attribute
        for attribute, declared in pairs
    )


def mask_of(projection: ProjectionDeclaration, source: Source) -> int:
    """What records of a source may be used for: a bit for each purpose of the projection, in the order of their names."""
    return sum(1 << i for i, purpose in enumerate(projection.purposes) if purpose in source.purposes)


SHUT = "sealed__"  # before the name of a field, where functions of the user's must not find it


def shut_type(record: type[Record], sealed: Collection[str]) -> Any:
    """A record type as functions of the user's see it where some fields are sealed: looking at one raises Misfit."""
    fields = [(SHUT + f.name if f.name in sealed else f.name, Any if f.name in sealed else f.wire, None)
              for f in fields_of(record)]  # fmt: skip
    own = {
        name: value
        for base in reversed(record.__mro__[: record.__mro__.index(Record)])
        for name, value in vars(base).items()
        if isinstance(value, property | staticmethod | classmethod) or (callable(value) and not name.startswith("__"))
    }
    refused = {name: property(_refusal(record.__name__, name)) for name in sealed}
    renamed = {SHUT + name: name for name in sealed}
    return msgspec.defstruct(
        record.__name__, fields, rename=renamed, namespace=own | refused, kw_only=True, frozen=True
    )


def _refusal(record: str, field: str) -> Callable[[Any], Any]:
    def refuse(self: Any) -> Any:
        raise Misfit(
            "sealed-field", f"a function of where= looked at {record}.{field}, which is sealed in a projection"
        )

    return refuse


def view_type(
    record: type[Record], inputs: Sequence[Input], typed: frozenset[str] | None, sealed: Collection[str] = ()
) -> type[View]:
    """The part of a governed record type that inputs and conditions need; `typed`: as `looked_at` has it; `sealed`: the
    fields that may be."""
    infos = {f.name: f for f in fields_of(record)}
    needed = sorted({i.name for i in inputs if i.name is not None and not i.enriched} | (typed or frozenset()))
    fields: list[Any] = []
    if typed is None:
        fields.append(("record", shut_type(record, sealed) if sealed else record))
    elif needed:
        parts = [
            (n, Any if n in sealed else infos[n].wire if n in typed else _plain_wire(infos[n]), None) for n in needed
        ]
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


def read_of(
    item: Input, kind: ValueType, typed: frozenset[str] | None, sealed: Collection[str] = ()
) -> Callable[[Any], Any] | str:
    """How a value is read from a view: the path to it, or a function. `typed` and `sealed`: as `view_type` has them."""
    if item.name is None:
        return ""
    if item.name in sealed and not item.enriched:
        return f"record.{SHUT if typed is None else ''}{item.name}"
    path = f"{'enriched' if item.enriched else 'record'}.{item.name}"
    get = attrgetter(path)
    if item.enriched:
        plain = PLAIN.get(kind)
        return path if plain is None else lambda view: None if (v := get(view)) is None else msgspec.convert(v, plain)
    if kind not in ("text", "json") or (typed is not None and item.name not in typed and not _is_made(item, kind)):
        return path
    # as the user has declared it, which may be an Enum or a record where JSON has text or an object
    return lambda view: v if (v := get(view)) is None or type(v) is str else msgspec.to_builtins(v)


def _is_made(item: Input, kind: ValueType) -> bool:
    """Whether a value beside sealed ones is decoded as something that is not plain JSON."""
    return kind == "json" and value_type({f.name: f for f in fields_of(item.record)}[str(item.name)].annotation) in (
        "decimal",
        "date",
    )


def _on_record(where: Callable[[Any], Any]) -> Callable[[Any], Any]:
    holds = where.holds if isinstance(where, Condition) else where
    return lambda view: holds(view.record)


@dataclass(frozen=True)
class SourceFold:
    """How one governed topic is folded: its decoder, per view type the function that folds a record, and their mask."""

    decode: Callable[[bytes], Any]
    folds: Mapping[type, Fold]
    mask: int = 0  # what its records may be used for: bits of the projection's own purposes


def source_fold(plan: Plan, source: Source, projection: ProjectionDeclaration, folding: Folding) -> SourceFold:
    """`folding` is of the attributes as they are `stored`."""
    union: Any = None
    folds: dict[type, Fold] = {}
    for declared in source.types:
        used = [
            (index, rank, item, era, until)
            for index, declaration in enumerate(projection.declarations)
            for era, until in zip(declaration.eras, (None, *(era.since_ms for era in declaration.eras)), strict=False)
            for rank, item in enumerate(era.inputs)
            if item.record is declared.record
        ]
        if used:
            conditions = [era.where for *_, era, _ in used if era.where is not None]
            typed = looked_at(conditions)
            sealed = [f.name for f in fields_of(declared.record) if class_of_field(plan, declared.record, f.name)]
            view: Any = view_type(declared.record, [item for _, _, item, *_ in used], typed, sealed)
            # Conditions of one text are one; so are values of one field.
            tests = {repr(where): _on_record(where) for where in conditions}
            reads = {
                (item, kind): read_of(item, kind, typed, sealed)
                for index, _, item, *_ in used
                for kind in [folding.attributes[index].type]
            }
            readers = [
                Reader(
                    index,
                    rank,
                    reads[item, folding.attributes[index].type],
                    tests.get(repr(era.where)),
                    era.since_ms,
                    until,
                )
                for index, rank, item, era, until in used
            ]
            folds[view] = folding.folder(readers, rows=source.kind == "rows")
        else:
            view = ignored_type(declared.record)
        union = view if union is None else union | view
    return SourceFold(msgspec.json.Decoder(union).decode, folds, mask_of(projection, source))

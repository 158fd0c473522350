"""How a projection decodes and folds governed records: one decoder per topic, one compiled fold per record type.

Only what the projection needs of a record is decoded. Knows no tables and no topics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

import msgspec

from c360.codecs.record import Condition, FieldInfo, Record, fields_of
from c360.declare import Input, ProjectionDeclaration, Source, Where, value_type
from c360.profile.attribute import ValueType
from c360.profile.fold import Fold, Folding, Reader

# Types that JSON holds as text.
PLAIN: Mapping[ValueType, Any] = {"decimal": Decimal, "datetime": datetime, "date": date}


class View(msgspec.Struct, kw_only=True):
    """What a projection reads of every governed record; subclasses add what it needs of `record` and `enriched`."""

    at: int
    cause: int
    sign: int = 1
    mask: int = 0
    life: int = 0


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
    folds: Mapping[type, Fold]


def source_fold(source: Source, projection: ProjectionDeclaration, folding: Folding) -> SourceFold:
    union: Any = None
    folds: dict[type, Fold] = {}
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

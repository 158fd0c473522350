"""Classes of fields: public (most), `Personal` and `Sensitive`, said with the type: `name: Personal[str]`.

To a type checker and to a decoder `Personal[str]` is `str`; what the class means is for those who ask `classified`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Collection, Hashable, Iterator
from enum import IntEnum
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from c360.codecs.record import Record, fields_of, is_record, is_union
from c360.errors import DeclarationError

T = TypeVar("T")


class FieldClass(IntEnum):
    """The greater, the closer."""

    PERSONAL = 1  # sealed until a door opens it
    SENSITIVE = 2  # and refused by sinks that do not say that they take it


Personal = Annotated[T, FieldClass.PERSONAL]
Sensitive = Annotated[T, FieldClass.SENSITIVE]


class Classified(NamedTuple):
    """A classified field. `path`: names from the record down; `[]` is each item of a list, `{}` each value of a dict."""

    path: tuple[str, ...]
    field_class: FieldClass

    def said(self, record: type[Record]) -> str:
        """How it is written, also in what is sealed: `Customer.addresses[].street`."""
        return record.__name__ + "".join(part if part in ("[]", "{}") else f".{part}" for part in self.path)


Kinds = Collection[type]
"""Types that are personal by themselves: identifiers of personal namespaces."""


def classified(record: type[Record], implied: Kinds = ()) -> tuple[Classified, ...]:
    """The classified fields of a record type, in the order of its fields, also those inside of records, lists and dicts.

    `implied`: types whose values are personal wherever they stand. A classified field is one value: what is inside of it is
    not listed, but lends it its class. Raises DeclarationError for what cannot be sealed: the keys of a dict, a part of a
    tuple or of a choice of several types.
    """
    return tuple(_in_fields(record, record.__name__, (), implied))


def classified_in(annotation: Any, said: str, implied: Kinds = ()) -> tuple[Classified, ...]:
    """The same of one value, such as an enrichment gives; paths begin at it."""
    return tuple(_in(annotation, said, (), implied))


def _in_fields(kind: type, said: str, path: tuple[str, ...], implied: Kinds) -> Iterator[Classified]:
    for name, annotation in _annotations(kind).items():
        yield from _in(annotation, f"{said}.{name}", (*path, name), implied)


def _annotations(kind: type) -> dict[str, Any]:
    """Of a record as they were written (the struct has the types on the wire), of another struct as they are."""
    if is_record(kind):
        return {field.name: field.annotation for field in fields_of(kind)}
    return typing.get_type_hints(kind, include_extras=True)


def _in(annotation: Any, said: str, path: tuple[str, ...], implied: Kinds) -> Iterator[Classified]:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        marks = [mark for mark in annotation.__metadata__ if isinstance(mark, FieldClass)]
        inside = list(_in(args[0], said, path, implied))
        if marks:
            yield Classified(path, max([*marks, *(found.field_class for found in inside)]))
        else:
            yield from inside
    elif is_union(annotation):
        yield from _in_union([a for a in args if a is not type(None)], said, path, implied)
    elif inspect.isclass(annotation) and annotation in implied:
        yield Classified(path, FieldClass.PERSONAL)
    elif inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        yield from _in_fields(annotation, said, path, implied)
    elif origin is list:
        yield from _in(args[0], f"{said}[]", (*path, "[]"), implied)
    elif origin is dict:
        if any(_in(args[0], said, path, implied)):
            raise DeclarationError(
                f"{said}: keys of a dict cannot be sealed; write Personal[dict[…]], or a list of records"
            )
        yield from _in(args[1], f"{said}{{}}", (*path, "{}"), implied)
    elif isinstance(annotation, typing.NewType):
        yield from _in(annotation.__supertype__, said, path, implied)
    elif origin is tuple and any(found for a in args if a is not Ellipsis for found in _in(a, said, path, implied)):
        raise DeclarationError(f"{said}: a part of a tuple cannot be sealed; write Personal[tuple[…]], or a list")
    elif any(_holds(part, said, implied, set()) for part in _parts(annotation, said)):
        raise DeclarationError(
            f"{said}: nothing can be sealed inside of {annotation}; write Personal[…] around all of it, or use a Record, a"
            " list or a dict"
        )


def _holds(annotation: Any, said: str, implied: Kinds, seen: set[Any]) -> bool:
    """Whether something is classified anywhere in a type that is not looked into otherwise."""
    if annotation in seen:
        return False
    seen.add(annotation)
    marked = any(isinstance(mark, FieldClass) for mark in getattr(annotation, "__metadata__", ()))
    if marked or annotation in implied:
        return True
    return any(_holds(part, said, implied, seen) for part in _parts(annotation, said))


def _parts(annotation: Any, said: str) -> list[Any]:
    """What a type is made of: what it stands for, its arguments, the fields of a class. Raises DeclarationError."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return []
    found = [part for part in typing.get_args(annotation) if isinstance(part, Hashable)]
    if isinstance(annotation, typing.NewType):
        found.append(annotation.__supertype__)
    kind = annotation if origin is None else origin
    if inspect.isclass(kind):
        if is_record(kind):
            return [*found, *_annotations(kind).values()]
        try:
            found += typing.get_type_hints(kind, include_extras=True).values()
        except NameError as error:
            raise DeclarationError(
                f"{said}: whether something in {kind.__name__} is personal cannot be told: {error}; define it above"
            ) from None
    return found


def _in_union(kinds: list[Any], said: str, path: tuple[str, ...], implied: Kinds) -> Iterator[Classified]:
    found = [list(_in(kind, said, path, implied)) for kind in kinds]
    if len(kinds) > 1 and any(found):
        raise DeclarationError(f"{said}: one of several types cannot be sealed; write Personal[…] around all of them")
    yield from (one for each in found for one in each)

"""What leaves through doors in Avro: each door's schema, by what the app declares, and the bytes of what it lets out.

A view's schema is made of its attributes; a sink's of the type that its function says it gives. A function that says none, or
one that has no fields, stays JSON. Knows no registry: ids of schemas are given.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from types import NoneType, SimpleNamespace, UnionType
from typing import Any
from uuid import UUID

import msgspec
from msgspec import inspect

from c360.agents.shape import Shape
from c360.codecs.avro import NoRegistry, Registry
from c360.codecs.avro_out import avro_names, frame, optional_fields, reader_of, writer_of
from c360.declare import ProjectionDeclaration
from c360.errors import Misfit
from c360.plan import Plan, classes_of
from c360.profile.attribute import ValueType
from c360.profile.avro import profile_schema
from c360.rights import Door

_DERIVED: dict[Any, ValueType] = {
    **{int: "int", float: "float", bool: "bool"},
    **dict.fromkeys((str, Decimal, datetime, date, UUID), "text"),  # as JSON has them
}
_IN_JSON = {"type": "string", "json": True}
_decode = msgspec.json.decode


@dataclass(frozen=True)
class Contract:
    """The schema of the values of a door's topic, and under which subject it is kept."""

    door: str
    subject: str
    text: str

    @cached_property
    def schema(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Wire:
    """How a door writes: by its contract, which has this id in its registry."""

    contract: Contract
    number: int

    @cached_property
    def _write(self) -> Callable[[Any, bytes], bytes]:
        return writer_of(self.contract.schema)

    @cached_property
    def _before(self) -> bytes:
        return frame(self.number)

    @cached_property
    def fingerprint(self) -> str:
        """Another one: all that was written before is to be written again."""
        return f"avro {self.number} {hashlib.sha256(self.contract.text.encode()).hexdigest()[:16]}"

    def encode(self, value: Any) -> bytes:
        """The bytes of a JSON value. Raises Misfit for what is not in the schema."""
        return self._write(value, self._before)


def contract_of(plan: Plan, door: Door) -> Contract | None:
    """None: what it lets out has no type, and stays JSON."""
    made = _of_view(plan, door) if door.sink is None else _of_sink(plan, door)
    return None if made is None else Contract(door.agent, f"{plan.leaves(door)}-value", json.dumps(made))


class Reading:
    """Reads what doors wrote, in JSON or in Avro, by the schemas that values name."""

    def __init__(self, registry: Registry | None) -> None:
        self.registry: Registry = registry or NoRegistry()
        self.known: dict[int, Callable[[bytes], Any]] = {}

    def read(self, value: bytes) -> Any:
        """The JSON value. Raises Misfit; Shut while its schema cannot be asked for; ValueError for what is no JSON."""
        if value[:1] != b"\0":
            return _decode(value)
        number = int.from_bytes(value[1:5], "big")
        if (read := self.known.get(number)) is None:
            schema = json.loads(self.registry.schema(number).text)
            try:
                read = self.known[number] = reader_of(schema)
            except Exception:  # whatever the registry has there
                raise Misfit("schema", "its schema is none that a door writes by") from None
        return read(value[5:])


def reading(contract: Contract) -> Callable[[bytes], Any]:
    """read(bytes that were written by it, with their frame) → the JSON value. Raises Misfit."""
    read = reader_of(contract.schema)
    return lambda value: read(value[5:])


def _namespace(*parts: str) -> str:
    return ".".join(avro_names([part.replace("-", "_")])[0] for part in parts)


def _of_view(plan: Plan, door: Door) -> Any:
    projection = door.projection
    taken = Shape(plan, projection, door.purpose.name).taken
    derived = {name: _derived(projection, name) for name in projection.derived}
    classes = {n: c.name.lower() for n, c in classes_of(plan.at(projection.govern), projection).items()}
    return profile_schema(_namespace(plan.app, projection.name), taken, derived, optional_fields, classes)


def _derived(projection: ProjectionDeclaration, name: str) -> ValueType:
    said = _said(vars(projection.record)[name].fget)
    return _DERIVED.get(said, "json") if isinstance(said, type) else "json"


def _said(function: Callable[..., Any]) -> Any:
    """The type that a function says it gives, where that is not None; Any if it says none that can be found."""
    written = SimpleNamespace(__annotations__={"return": function.__annotations__.get("return", Any)})
    try:
        said = typing.get_type_hints(written, getattr(function, "__globals__", {}))["return"]
    except Exception:  # a name that is known to type checkers only
        return Any
    if isinstance(said, UnionType) or typing.get_origin(said) is typing.Union:
        others = [kind for kind in typing.get_args(said) if kind is not NoneType]
        return others[0] if len(others) == 1 else Any
    return said


# ------------------------------------------------------------------------------------------------------------- sinks
def _of_sink(plan: Plan, door: Door) -> Any:
    assert door.sink is not None
    try:
        said = inspect.type_info(_said(door.sink.function))
    except Exception:  # what msgspec cannot say the fields of
        return None
    if not _has_fields(said):
        return None
    return _Types(_namespace(plan.app, "sink", door.sink.name)).of(said)


def _has_fields(said: inspect.Type) -> bool:
    if isinstance(said, inspect.StructType):
        config = said.cls.__struct_config__
        return not said.array_like and said.tag is None and not config.omit_defaults
    return isinstance(said, inspect.DataclassType | inspect.TypedDictType)


class _Types:
    """Python types as Avro's, as msgspec writes their values in JSON. A record is named by where it stands."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.names: set[str] = set()
        self.open: set[Any] = set()

    def of(self, said: inspect.Type, at: str = "Given") -> Any:
        """A type whose values can be anything, or hold themselves, is its JSON text."""
        match said:
            case inspect.Metadata():
                return self.of(said.type, at)
            case inspect.BoolType():
                return "boolean"
            case inspect.IntType():
                return "long"
            case inspect.FloatType():
                return "double"
            case inspect.DecimalType():
                return {"type": "string", "of": "decimal"}
            case inspect.DateTimeType():
                return {"type": "long", "logicalType": "timestamp-micros"}
            case inspect.DateType():
                return {"type": "int", "logicalType": "date"}
            case inspect.StrType() | inspect.UUIDType() | inspect.TimeType() | inspect.BytesType():
                return "string"
            case inspect.LiteralType() if all(isinstance(value, str) for value in said.values):
                return "string"
            case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
                return {"type": "array", "items": self.of(said.item_type, at)}
            case inspect.DictType() if isinstance(said.key_type, inspect.StrType):
                return {"type": "map", "values": self.of(said.value_type, at)}
            case inspect.UnionType() if len(others := _but_none(said)) == 1:
                return ["null", self.of(others[0], at)]
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() if _has_fields(said):
                return self._record(said, at)
            case _:
                return _IN_JSON

    def _record(self, said: inspect.StructType | inspect.DataclassType | inspect.TypedDictType, at: str) -> Any:
        if said.cls in self.open:
            return _IN_JSON
        self.open.add(said.cls)
        (name,) = avro_names([at])
        while name in self.names:
            name += "_"
        self.names.add(name)
        types: dict[str, Any] = {}
        for field in said.fields:
            kind = self.of(field.type, f"{at}_{field.encode_name}")
            types[field.encode_name] = kind[1] if isinstance(kind, list) else kind
        self.open.remove(said.cls)
        return {"type": "record", "name": name, "namespace": self.namespace, "fields": optional_fields(types)}


def _but_none(said: inspect.UnionType) -> list[inspect.Type]:
    return [kind for kind in said.types if not isinstance(kind, inspect.NoneType)]

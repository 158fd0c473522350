"""Records whose schema is in a registry: the id in front of the value, or in a header; then Avro, or JSON.

    0, id (4 bytes), data                    Confluent's wire format
    1, GUID (16 bytes), data                 the newer one
    header __value_schema_id: either's beginning

A writer's schema is compiled once. With `reader`, the schema that the app was written for, Avro's own resolution is done:
aliases, defaults, promotions. Then the fields of a record are laid over the value, as of JSON. Sources: Avro 1.11, "Schema
resolution"; Confluent, "Wire format".
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import fastavro
import msgspec
from fastavro import _read_py

from c360.codecs.json import Choice, HeadersOf, JsonDecoder
from c360.codecs.layout import DIGITS_MAX
from c360.codecs.objects import ObjectLayout, finite, matches
from c360.codecs.record import Record
from c360.errors import Misfit, Shut

MAGIC, MAGIC_GUID = 0, 1
VALUE_ID, KEY_ID = "__value_schema_id", "__key_schema_id"
SchemaRef = int | str
"""The id of a schema in its registry, or its GUID."""
# What fastavro raises for bytes that are no value of the schema.
UNREADABLE = (
    EOFError, IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError, StopIteration, ArithmeticError,
    AttributeError, fastavro.read.SchemaResolutionError,
)  # fmt: skip
_encode = msgspec.json.Encoder(decimal_format="string").encode


def _bounded(read: Callable[..., Any]) -> Callable[..., Any]:
    """As fastavro reads a Decimal, but not a very long one: to make one of a megabyte takes five minutes."""

    def decimal(data: bytes, writer: Any = None, reader: Any = None) -> Any:
        if len(data) > DIGITS_MAX:  # bytes
            raise Misfit("out-of-range", f"a number in the value has more than {DIGITS_MAX} digits")
        return read(data, writer, reader)

    return decimal


for _kind in ("bytes-decimal", "fixed-decimal"):
    fastavro.read.LOGICAL_READERS[_kind] = _bounded(fastavro.read.LOGICAL_READERS[_kind])

ReadValue = Callable[[bytes], Any]


@dataclass(frozen=True)
class WriterSchema:
    """A schema as its registry has it. `references`: texts of what it refers to, each after what it refers to itself."""

    kind: Literal["AVRO", "JSON", "PROTOBUF"]
    text: str
    references: tuple[str, ...] = ()


class Registry(Protocol):
    """Where schemas are kept."""

    def schema(self, ref: SchemaRef) -> WriterSchema:
        """Raises Misfit where there is none of this id, Shut while the registry does not answer."""
        ...


@runtime_checkable
class Counts(Protocol):
    """A registry that counts the questions about ids that it was asked, and those that got no answer."""

    questions: int
    unanswered: int


class NoRegistry:
    """Where none was named."""

    def schema(self, ref: SchemaRef) -> WriterSchema:
        raise Misfit("no-registry", "the value names a schema in a registry: set C360_REGISTRY to its URL")


def framed(
    value: bytes, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID, *, indexed: bool = False
) -> tuple[SchemaRef, bytes]:
    """The schema of a value, and its data. `indexed`: of Protobuf, whose indexes may follow the id in the header, too; they are
    in front of the data then as well. Raises Misfit for one that names none."""
    for name, said in headers:
        if name != header or not said:
            continue
        if (len(said) == 17 or (indexed and len(said) > 17)) and said[0] == MAGIC_GUID:
            return str(uuid.UUID(bytes=bytes(said[1:17]))), bytes(said[17:]) + value if indexed else value
        if (len(said) == 5 or (indexed and len(said) > 5)) and said[0] == MAGIC:
            return int.from_bytes(said[1:5], "big"), bytes(said[5:]) + value if indexed else value
    if len(value) >= 17 and value[0] == MAGIC_GUID:
        return str(uuid.UUID(bytes=value[1:17])), value[17:]
    if len(value) < 5 or value[0] != MAGIC:
        raise Misfit(
            "no-schema-id", "the value does not begin with 0 and the id of a schema; is its producer's format Avro?"
        )
    return int.from_bytes(value[1:5], "big"), value[5:]


# ------------------------------------------------------------------------------------------------------------ values
class Values:
    """Reads values by their schemas, each compiled when it is first met."""

    def __init__(self, registry: Registry, reader: Any = None, *, times: bool = True) -> None:
        """`reader`: the schema the app was written for; None: each value by its own. `times`: whether times and dates are
        made of the numbers that they are written as."""
        self.registry, self.times = registry, times
        self.reader = None if reader is None else fastavro.parse_schema(plainly(reader, times=times))
        self.known: dict[SchemaRef, ReadValue] = {}
        # For metrics: values read by the schemas that are known, and those of them that were none, or did not fit.
        self.records: dict[SchemaRef, int] = {}
        self.misfits: dict[SchemaRef, int] = {}

    def read(self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID) -> Any:
        """The value, as Python has it; of a JSON schema its bytes. Raises Misfit; Shut while its schema cannot be asked for."""
        ref, read, data = self.prepared(value, headers, header)
        self.records[ref] += 1
        return read(data)

    def prepared(
        self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID
    ) -> tuple[SchemaRef, ReadValue, bytes]:
        """Its schema, what reads the value, and of what bytes. Raises as `read`, where the schema is at fault."""
        ref, data = self.framed(value, headers, header)
        return ref, self._reader(ref), data

    def framed(self, value: bytes, headers: Sequence[tuple[str, bytes]], header: str) -> tuple[SchemaRef, bytes]:
        """As the function."""
        return framed(value, headers, header)

    def blame(self, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Count a misfit for the schema of its value, if that is known: others may be any number."""
        try:
            ref, _ = framed(value, headers)
        except Misfit:
            return
        if ref in self.known:
            self.misfits[ref] += 1

    def is_ready(self, value: bytes, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID) -> bool:
        """Whether it can be told what the value is, also that it is nothing."""
        try:
            self._reader(self.framed(value, headers, header)[0])
        except Misfit:
            pass
        except Shut:
            return False
        return True

    def _reader(self, ref: SchemaRef) -> ReadValue:
        read = self.known.get(ref)
        if read is None:
            read = self._compiled(self.registry.schema(ref))
            self.records[ref] = self.misfits[ref] = 0
            self.known[ref] = read
        return read

    def _compiled(self, schema: WriterSchema) -> ReadValue:
        if schema.kind == "JSON":
            return bytes  # looked at by whoever reads the JSON in it
        if schema.kind != "AVRO":
            return refuse(
                f'it is in {schema.kind.title()}; Avro and JSON are read, and format="protobuf" reads Protobuf'
            )
        try:
            named: dict[str, Any] = {}
            for text in schema.references:
                fastavro.parse_schema(plainly(json.loads(text), times=self.times), named_schemas=named)
            parsed = fastavro.parse_schema(plainly(json.loads(schema.text), times=self.times), named_schemas=named)
        except Exception as error:  # whatever the registry has there
            return refuse(f"its schema cannot be read: {type(error).__name__}")
        shape = _Shape(parsed, named)
        if shape.endless:
            return refuse("its schema has lists of values that take no space, which can be endless")
        # The compiled reader has no end of its stack but the process's.
        read = _read_py.schemaless_reader if shape.recursive else fastavro.schemaless_reader
        return _reading(read, parsed, self.reader, floats=shape.floats)


def refuse(why: str) -> ReadValue:
    def read(data: bytes) -> Any:
        raise Misfit("schema", f"the value cannot be read: {why}")

    return read


def _reading(read: Callable[..., Any], writer: Any, reader: Any, *, floats: bool) -> ReadValue:
    def value(data: bytes) -> Any:
        stream = io.BytesIO(data)
        try:
            found = read(stream, writer, reader)
        except UNREADABLE as error:
            raise Misfit("not-avro", f"the value is none of its schema ({type(error).__name__})") from None
        if stream.tell() != len(data):
            raise Misfit("not-avro", "the value is longer than its schema says: it is of another one")
        if floats and not finite(found):
            raise Misfit("out-of-range", "a number in the value is not finite")
        return found

    return value


class _Shape:
    """What of a schema decides how it is read."""

    def __init__(self, schema: Any, named: Mapping[str, Any]) -> None:
        self.recursive = self.endless = self.floats = False
        self._named, self._open = dict(named), list[str]()
        self._walk(schema)

    def _walk(self, schema: Any) -> bool:
        """Whether values of it may take no space."""
        if isinstance(schema, list):
            for branch in schema:
                self._walk(branch)
            return False  # the number of the branch takes a byte
        kind = schema["type"] if isinstance(schema, dict) else schema
        if isinstance(kind, dict | list):
            return self._walk(kind)
        if kind in ("float", "double"):
            self.floats = True
        if kind in ("array", "map"):
            empty = self._walk(schema["items" if kind == "array" else "values"])
            self.endless = self.endless or (empty and kind == "array")
            return False
        if kind in ("record", "error"):
            return self._record(schema)
        if kind == "fixed":
            self._named[schema["name"]] = schema
            return int(schema["size"]) == 0
        if kind == "enum":
            return False
        if kind in self._open:
            self.recursive = True
            return False
        if isinstance(schema, str) and (known := self._named.get(schema)) is not None:
            return self._walk(known)
        return bool(kind == "null")

    def _record(self, schema: Any) -> bool:
        name = schema["name"]
        self._named[name] = schema
        self._open.append(name)
        empty = [self._walk(field["type"]) for field in schema["fields"]]
        self._open.pop()
        return all(empty)


_TIMES = {
    f"{kind}{unit}" for kind in ("time-", "timestamp-", "local-timestamp-") for unit in ("millis", "micros", "nanos")
}
_TIMES.add("date")


def plainly(schema: Any, *, times: bool) -> Any:
    """The schema with UUIDs as the text that they are, and without `times` with times as the numbers that they are."""
    if isinstance(schema, list):
        return [plainly(branch, times=times) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    inside = ("type", "items", "values", "fields")
    kept = {name: plainly(said, times=times) if name in inside else said for name, said in schema.items()}
    if kept.get("logicalType") == "uuid" or (not times and kept.get("logicalType") in _TIMES):
        del kept["logicalType"]
    return kept


# ----------------------------------------------------------------------------------------------------------- decoder
Prepared = tuple[SchemaRef, ReadValue, bytes] | Misfit | None


def _any(payload: Any) -> bool:
    return True


class RegistryDecoder(JsonDecoder):
    """Values of one topic that name schemas, as `made` makes records of what they are."""

    def __init__(self, choices: Sequence[Choice], unmatched: Literal["dlq", "ignore"], values: Values) -> None:
        super().__init__(choices, unmatched)
        self.values = values
        self._looked: tuple[Sequence[bytes | None], list[Prepared]] | None = None  # values, and what `ready` found

    def decode(self, values: Sequence[bytes | None], headers: HeadersOf | None = None) -> list[Record | Misfit | None]:
        """As JsonDecoder. Raises Shut while the schema of one of them cannot be asked for."""
        looked, self._looked = self._looked, None
        if looked is not None and looked[0] is values and len(looked[1]) == len(values):
            return list(map(self._decoded, looked[1]))
        return [
            self._decoded(self._prepared(value, () if headers is None else headers(i)))
            for i, value in enumerate(values)
        ]

    def ready(self, values: Sequence[bytes | None], headers: HeadersOf) -> int:
        """How many of the first can be decoded now: the schema of the next cannot be asked for. If these are decoded next,
        their frames are not read again."""
        found: list[Prepared] = []
        with suppress(Shut):
            for i, value in enumerate(values):
                found.append(self._prepared(value, headers(i)))
        self._looked = values, found
        return len(found)

    def _prepared(self, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> Prepared:
        """What reads a value, and of what; or what is wrong with its schema. Raises Shut."""
        if not value:
            return None
        try:
            return self.values.prepared(value, headers)
        except Misfit as misfit:
            return misfit

    def _decoded(self, prepared: Prepared) -> Record | Misfit | None:
        if prepared is None:
            return self._empty()
        if isinstance(prepared, Misfit):
            return prepared
        ref, read, data = prepared
        self.values.records[ref] += 1
        try:
            found = read(data)
            if isinstance(found, bytes):
                (record,) = super().decode([found])
                if isinstance(record, Misfit):
                    self.values.misfits[ref] += 1
                return record
            return self.made(found)
        except Misfit as misfit:
            self.values.misfits[ref] += 1
            return misfit

    def made(self, found: Any) -> Record | Misfit | None:
        """The record of what a value is. Raises Misfit."""
        raise NotImplementedError


class AvroDecoder(RegistryDecoder):
    """Values of one topic as the first of `choices` that they match."""

    def __init__(
        self,
        choices: Sequence[Choice],
        unmatched: Literal["dlq", "ignore"],
        registry: Registry,
        reader: Any = None,
    ) -> None:
        super().__init__(choices, unmatched, Values(registry, reader))
        self.objects = [
            (matches(dict(choice.when)) if choice.when else _any, ObjectLayout(choice.record)) for choice in choices
        ]

    def made(self, found: Any) -> Record | Misfit | None:
        for fits, layout in self.objects:
            if fits(found):
                record: Record = layout.read(found)
                return record
        return self._unclaimed("value")


class JsonOfAvro:
    """Debezium's envelopes in Avro as the JSON that its other converter writes: numbers for times, text for Decimals."""

    def __init__(self, registry: Registry) -> None:
        self.values = Values(registry, times=False)

    def is_ready(self, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID) -> bool:
        """Whether it can be told what `text` is."""
        return not value or not _is_framed(value, headers, header) or self.values.is_ready(value, headers, header)

    def text(
        self, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), header: str = VALUE_ID
    ) -> bytes | None:
        """The same bytes where they name no schema. Raises Misfit and Shut as `Values.read`."""
        if not value or not _is_framed(value, headers, header):
            return value
        found = self.values.read(value, headers, header)
        return found if isinstance(found, bytes) else _encode(found)


def _is_framed(value: bytes, headers: Sequence[tuple[str, bytes]], header: str) -> bool:
    return value[0] in (MAGIC, MAGIC_GUID) or any(name == header for name, _ in headers)

"""Values in Protobuf, read by classes that protoc made. In front of each, as Confluent's clients write it:

    0, id (4 bytes), indexes, message           Confluent's wire format
    1, GUID (16 bytes), indexes, message        the newer one
    header __value_schema_id                    either's beginning with the indexes; then the value is the message

The indexes are the way to the message in the file of its schema: how many, then each, in zigzag varints; the first message of
a file, [0], is one byte 0. A class needs no registry to read. Where there is one it is asked once for each id, what kind of
schema that is and which message the indexes mean in the file that the writer had; else they mean what they do in the file of
the class.
Source: Confluent, "Wire format".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.message import Message

from c360.codecs.avro import (
    NoRegistry,
    ReadValue,
    Registry,
    RegistryDecoder,
    SchemaRef,
    Values,
    WriterSchema,
    framed,
    refuse,
)
from c360.codecs.json import Choice
from c360.codecs.messages import descriptor_of, file_in, file_of, message_reader
from c360.codecs.objects import Look, ObjectLayout, matches
from c360.codecs.record import Record, fields_of
from c360.errors import Misfit

DEEPEST = 100  # as deep as messages may be in each other
IDS_MOST = 1000  # ids that are told apart where no registry says which there are
OTHER: SchemaRef = "other"
FIRST = (0,)


@dataclass(frozen=True)
class Other:
    """A value of a message that nothing is read from. `names`: what it may be called."""

    names: tuple[str, ...]


def indexes_of(data: bytes) -> tuple[tuple[int, ...], int]:
    """The message indexes that data begins with, and where they end. Raises Misfit."""
    count, at = _varint(data, 0)
    if count == 0:
        return FIRST, at
    if not 0 < count <= DEEPEST:
        raise Misfit("not-protobuf", "the value does not say which message of its schema it is")
    found = []
    for _ in range(count):
        index, at = _varint(data, at)
        found.append(index)
    return tuple(found), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint of at most 32 bits, and where it ends."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
    raise Misfit("not-protobuf", "the value does not say which message of its schema it is")


class MessageValues(Values):
    """Reads values by generated classes: to the name of their message and what is in it, or to Other."""

    def __init__(self, registry: Registry, read: Mapping[type[Message], Collection[str]]) -> None:
        """`read`: of each class, the fields that are looked at."""
        super().__init__(registry)
        self.alone = isinstance(registry, NoRegistry)
        self.readers = {descriptor_of(made).full_name: message_reader(made, wanted) for made, wanted in read.items()}
        self.files = list(dict.fromkeys(file_of(descriptor_of(made)) for made in read))
        self.names = " or ".join(self.readers)

    def framed(self, value: bytes, headers: Sequence[tuple[str, bytes]], header: str) -> tuple[SchemaRef, bytes]:
        ref, data = framed(value, headers, header, indexed=True)
        if self.alone and ref not in self.known and len(self.known) >= IDS_MOST:
            ref = OTHER  # whoever sends any number of ids
        return ref, data

    def _reader(self, ref: SchemaRef) -> ReadValue:
        if not self.alone:
            return super()._reader(ref)
        read = self.known.get(ref)
        if read is None:
            self.records[ref] = self.misfits[ref] = 0
            read = self.known[ref] = self._by(self._names_by_class)
        return read

    def _compiled(self, schema: WriterSchema) -> ReadValue:
        if schema.kind != "PROTOBUF":
            return refuse(f"it is in {schema.kind.title()}, and {self.names} is in Protobuf")
        try:
            file = file_in(schema.text)
        except ValueError:
            return refuse("its schema is no .proto with messages")
        return self._by(file.names)

    def _names_by_class(self, indexes: tuple[int, ...]) -> list[str]:
        """By the files of the classes."""
        found = [file.names(indexes) for file in self.files]
        if sum(not self.readers.keys().isdisjoint(names) for names in found) > 1:
            raise Misfit("no-registry", f"which of {self.names} the value is, only a registry says: set C360_REGISTRY")
        return [name for names in found for name in names]

    def _by(self, names_of: Callable[[tuple[int, ...]], Sequence[str]]) -> ReadValue:
        known: dict[tuple[int, ...], tuple[str, Callable[[bytes], dict[str, Any]]]] = {}  # only what is read

        def read(data: bytes) -> Any:
            indexes, at = (FIRST, 1) if data[:1] == b"\0" else indexes_of(data)
            found = known.get(indexes)
            if found is None:
                names = names_of(indexes)
                name = next((name for name in names if name in self.readers), None)
                if name is None:
                    return Other(tuple(names))
                found = known[indexes] = name, self.readers[name]
            return found[0], found[1](data[at:])

        return read


@dataclass(frozen=True)
class MessageChoice(Choice):
    """A record type, the generated class whose messages it is made of, and which of them."""

    message: type[Message]


class ProtobufDecoder(RegistryDecoder):
    """Values of one topic as the first of `choices` whose message they are, and whose values they match."""

    def __init__(
        self, choices: Sequence[MessageChoice], unmatched: Literal["dlq", "ignore"], registry: Registry
    ) -> None:
        wanted: dict[type[Message], set[str]] = {}
        self.layouts_of: dict[str, list[tuple[Look, ObjectLayout]]] = {}
        for choice in choices:
            wanted.setdefault(choice.message, set()).update(names_read(choice.record, choice.when))
            chosen = matches(dict(choice.when)) if choice.when else _any
            layouts = self.layouts_of.setdefault(descriptor_of(choice.message).full_name, [])
            layouts.append((chosen, ObjectLayout(choice.record)))
        super().__init__(choices, unmatched, MessageValues(registry, wanted))

    def made(self, found: Any) -> Record | Misfit | None:
        if isinstance(found, Other):
            if self.unmatched == "ignore":
                return None
            said = f"{' or '.join(found.names)[:200]}" if found.names else "a message that its schema does not have"
            raise Misfit(
                "other-message", f"the value is {said}, and this topic is read as {' or '.join(self.layouts_of)}"
            )
        name, payload = found
        for fits, layout in self.layouts_of[name]:
            if fits(payload):
                record: Record = layout.read(payload)
                return record
        return self._unclaimed("value")


def _any(payload: Any) -> bool:
    return True


def names_read(record: type[Record], when: Mapping[str, Any] | None) -> set[str]:
    """The fields of a message that a record type looks at."""
    return {path.partition(".")[0] for path in (*(info.path for info in fields_of(record)), *(when or ()))}

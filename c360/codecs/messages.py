"""Messages of a class that protoc made, as values that payloads are made of: dicts, with times, Decimals and names of enums.

    a field without presence        is always there, at its default too
    one with presence               is there if it was set: messages, `optional`, members of a oneof, proto2
    enum                            the name; a number that has none stays a number, so no text
    Timestamp, Date                 datetime in UTC, cut to microseconds; date
    Duration                        Decimal, in seconds
    wrappers, Struct, Value         what is in them
    google.type.Decimal, confluent.type.Decimal     Decimal
    oneof                           its name: the name of the member that is set

Fields that a newer writer has are not seen. As in JSON, numbers must be finite; dicts of maps are in the order of their keys,
since a message has none. Sources: protobuf.dev, "Field Presence", "Well-Known Types".
"""

from __future__ import annotations

import base64
import keyword
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, Literal, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from c360.codecs.layout import DIGITS_MAX, EXACT, finite
from c360.codecs.objects import finite as all_finite
from c360.codecs.quick import EPOCH
from c360.errors import Misfit

Kind = Literal["text", "int", "float", "bool", "bytes", "enum", "time", "date", "decimal", "message", "json"]
"""What a single value is, for whoever says what may be made of it. `json`: anything that JSON has."""
ReadMessage = Callable[[Any], Any]
SECOND_NS = 1_000_000_000
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?\Z", re.ASCII)
LARGE, VALUES_MOST = 16_384, 250_000  # bytes from which on values are counted, and how many may be
WHOLE_MOST = 2**53  # up to here a double has each whole number


# -------------------------------------------------------------------------------------------------- well-known types
def _nanos(said: str, nanos: int, least: int = 0) -> int:
    if not least <= nanos < SECOND_NS:
        raise Misfit("out-of-range", f"a {said} in the value has nanos that are no part of a second")
    return nanos


def _time(message: Any) -> datetime:
    try:
        return EPOCH + timedelta(0, message.seconds, _nanos("google.protobuf.Timestamp", message.nanos) // 1000)
    except OverflowError:
        raise Misfit(
            "out-of-range", "a google.protobuf.Timestamp in the value is outside of the years 1 to 9999"
        ) from None


def _date(message: Any) -> date:
    try:
        return date(message.year, message.month, message.day)
    except (ValueError, OverflowError):
        raise Misfit("out-of-range", "a google.type.Date in the value is no whole date") from None


def _duration(message: Any) -> Decimal:
    nanos = message.seconds * SECOND_NS + _nanos("google.protobuf.Duration", message.nanos, 1 - SECOND_NS)
    return Decimal(format(EXACT.scaleb(Decimal(nanos), -9).normalize(EXACT), "f"))


def _decimal(message: Any) -> Decimal:
    """Of google.type: a text."""
    text = message.value
    if len(text) > 2 * DIGITS_MAX:
        raise Misfit("out-of-range", f"a number in the value has more than {DIGITS_MAX} digits")
    if text and not DECIMAL.match(text):
        raise Misfit("wrong-type", "a google.type.Decimal in the value is no number")
    return finite("a google.type.Decimal in the value", Decimal(text or 0))


def _unscaled(message: Any) -> Decimal:
    """Of confluent.type: a whole number in two's complement, and its scale."""
    if len(message.value) > DIGITS_MAX:  # bytes
        raise Misfit("out-of-range", f"a number in the value has more than {DIGITS_MAX} digits")
    unscaled = Decimal(int.from_bytes(message.value, "big", signed=True))
    return finite("a confluent.type.Decimal in the value", EXACT.scaleb(unscaled, -message.scale))


def _wrapped(message: Any) -> Any:
    return message.value


def _struct(message: Any) -> dict[str, Any]:
    fields = message.fields
    return {name: _value(fields[name]) for name in sorted(fields)}


def _values(message: Any) -> list[Any]:
    return [_value(one) for one in message.values]


def _value(message: Any) -> Any:
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "number_value":
            number = message.number_value
            return int(number) if number.is_integer() and abs(number) < WHOLE_MOST else number
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return _struct(message.struct_value)
        case "list_value":
            return _values(message.list_value)
    return None


SPECIAL: dict[str, tuple[Kind, ReadMessage]] = {
    "google.protobuf.Timestamp": ("time", _time),
    "google.protobuf.Duration": ("decimal", _duration),
    "google.protobuf.Struct": ("json", _struct),
    "google.protobuf.Value": ("json", _value),
    "google.protobuf.ListValue": ("json", _values),
    "google.type.Date": ("date", _date),
    "google.type.Decimal": ("decimal", _decimal),
    "confluent.type.Decimal": ("decimal", _unscaled),
    **{f"google.protobuf.{name}Value": ("int", _wrapped) for name in ("Int32", "Int64", "UInt32", "UInt64")},
    **{f"google.protobuf.{name}Value": ("float", _wrapped) for name in ("Float", "Double")},
    "google.protobuf.BoolValue": ("bool", _wrapped),
    "google.protobuf.StringValue": ("text", _wrapped),
    "google.protobuf.BytesValue": ("bytes", _wrapped),
}
_SCALARS: dict[int, Kind] = {
    FieldDescriptor.CPPTYPE_INT32: "int", FieldDescriptor.CPPTYPE_INT64: "int",
    FieldDescriptor.CPPTYPE_UINT32: "int", FieldDescriptor.CPPTYPE_UINT64: "int",
    FieldDescriptor.CPPTYPE_DOUBLE: "float", FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_BOOL: "bool", FieldDescriptor.CPPTYPE_ENUM: "enum", FieldDescriptor.CPPTYPE_MESSAGE: "message",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- descriptors
def kind_of(field: FieldDescriptor) -> Kind:
    """What one value of a field is."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return "bytes" if field.type == FieldDescriptor.TYPE_BYTES else "text"
    kind = _SCALARS[field.cpp_type]
    return SPECIAL.get(inner_of(field).full_name, (kind, None))[0] if kind == "message" else kind


def inner_of(field: FieldDescriptor) -> Descriptor:
    """The message that a field of that kind holds."""
    assert field.message_type is not None
    return field.message_type


def enum_of(field: FieldDescriptor) -> dict[int, str]:
    """Names of an enum by number; of several names of one the first."""
    assert field.enum_type is not None
    names: dict[int, str] = {}
    for value in field.enum_type.values:
        names.setdefault(value.number, value.name)
    return names


def descriptor_of(made: type[Message]) -> Descriptor:
    return cast(Descriptor, made.DESCRIPTOR)


def is_repeated(field: FieldDescriptor) -> bool:
    """Also of maps."""
    if hasattr(field, "is_repeated"):  # protobuf 6; 7 has no label
        return field.is_repeated
    return bool(cast(Any, field).label == FieldDescriptor.LABEL_REPEATED)


def entry_of(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """Key and value of a map; None: it is none."""
    kind = field.message_type
    if kind is None or not kind.GetOptions().map_entry:
        return None
    return kind.fields_by_name["key"], kind.fields_by_name["value"]


def oneofs(descriptor: Descriptor) -> list[str]:
    """Those that somebody wrote: `optional` makes one, too."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    made = {field.oneof_index for field in proto.field if field.proto3_optional}
    return [one.name for i, one in enumerate(proto.oneof_decl) if i not in made]


def _may_be_no_text(descriptor: Descriptor) -> bool:
    """Whether a string may be any bytes: only in proto3 parsing looks, for certain."""
    proto = FileDescriptorProto()
    descriptor.file.CopyToProto(proto)
    return proto.syntax != "proto3"


def _has_floats(descriptor: Descriptor, only: Collection[str] | None = None, seen: set[str] | None = None) -> bool:
    seen = set() if seen is None else seen
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        if only is None or field.name in only:
            kind = kind_of(field)
            if kind in ("float", "json") or (kind == "message" and _has_floats(inner_of(field), None, seen)):
                return True
    return False


def _size(message: Any, only: Collection[str] | None = None) -> int:
    """How many values it becomes, roughly: two bytes may be a message with all of its fields at their defaults."""
    size = len(message.DESCRIPTOR.fields)
    for field, value in message.ListFields():
        if field.message_type is None or (only is not None and field.name not in only):
            continue
        entry = entry_of(field)
        if entry is not None:
            size += sum(map(_size, value.values())) if entry[1].message_type is not None else 0
        else:
            size += sum(map(_size, value)) if is_repeated(field) else _size(value)
    return size


# ----------------------------------------------------------------------------------------------------------- reading
def message_reader(made: type[Message], wanted: Collection[str]) -> Callable[[bytes], dict[str, Any]]:
    """What reads messages of a generated class: these of its fields and oneofs. What it reads raises Misfit."""
    descriptor, parse = descriptor_of(made), made.FromString
    values = _compiled(descriptor, wanted, {})
    floats = _has_floats(descriptor, wanted)

    def read(data: bytes) -> dict[str, Any]:
        try:
            message = parse(data)
        except DecodeError:
            raise Misfit("not-protobuf", f"the value is no {descriptor.full_name}") from None
        if len(data) > LARGE and _size(message, wanted) > VALUES_MOST:
            raise Misfit("too-large", f"the value is made of more than {VALUES_MOST} values")
        found: dict[str, Any] = values(message)
        if floats and not all_finite(found):
            raise Misfit("out-of-range", "a number in the value is not finite")
        return found

    return read


@dataclass
class _Code:
    """Straight-line code that reads one message, as

    def read(m):
        out = {"id": m.id, "state": n2(v := m.state, v)}
        if has(m, "placed"): out["placed"] = c3(m.placed)
        return out

    Nothing that somebody wrote becomes code but the names of fields.
    """

    names: dict[str, Any]
    always: list[str]
    lines: list[str]


def _compiled(descriptor: Descriptor, only: Collection[str] | None, known: dict[str, ReadMessage]) -> ReadMessage:
    """`known`: of messages all of which is read; a message may have itself in it."""
    text = _checked_text if _may_be_no_text(descriptor) else None
    code = _Code({"has": GetMessageClass(descriptor).HasField}, [], [])
    for i, field in enumerate(descriptor.fields):
        if only is None or field.name in only:
            _read_field(code, i, field, known, text)
    for i, name in enumerate(oneofs(descriptor)):
        if only is None or name in only:
            code.lines.append(f"if (o{i} := m.WhichOneof({name!r})) is not None: out[{name!r}] = o{i}")
    lines = ["def read(m):", f"out = {{{', '.join(code.always)}}}", *code.lines, "return out"]
    exec(compile("\n    ".join(lines), "<message>", "exec"), code.names)
    read: ReadMessage = code.names["read"]
    return read


def _read_field(
    code: _Code, i: int, field: FieldDescriptor, known: dict[str, ReadMessage], text: ReadMessage | None
) -> None:
    name = field.name
    if keyword.iskeyword(name):
        code.names[f"get{i}"] = attrgetter(name)
        at = f"get{i}(m)"
    else:
        at = f"m.{name}"
    entry = entry_of(field)
    if entry is not None:
        key, value = entry
        text_key = "('false', 'true')[k]" if kind_of(key) == "bool" else "k"
        code.names["key"] = itemgetter(0)
        made = f"{{{text_key}: {_one(code, i, value, 'x', known, text)} for k, x in sorted({at}.items(), key=key)}}"
    elif is_repeated(field):
        each = _one(code, i, field, "x", known, text)
        made = f"list({at})" if each == "x" else f"[{each} for x in {at}]"
    else:
        made = _one(code, i, field, at, known, text)
        if field.has_presence:
            code.lines.append(f"if has(m, {name!r}): out[{name!r}] = {made}")
            return
    code.always.append(f"{name!r}: {made}")


def _one(
    code: _Code, i: int, field: FieldDescriptor, at: str, known: dict[str, ReadMessage], text: ReadMessage | None
) -> str:
    """The expression of one value that is at `at`."""
    kind = kind_of(field)
    if kind == "enum":
        code.names[f"n{i}"] = enum_of(field).get
        return f"n{i}(v := {at}, v)"
    if field.message_type is not None:
        code.names[f"c{i}"] = _of_message(field.message_type, known)
        return f"c{i}({at})"
    if kind == "text" and text is not None:
        code.names["text"] = text
        return f"text({at})"
    return at


def _of_message(descriptor: Descriptor, known: dict[str, ReadMessage]) -> ReadMessage:
    name = descriptor.full_name
    if name in SPECIAL:
        return SPECIAL[name][1]
    if name not in known:
        known[name] = lambda message: known[name](message)  # until it is compiled
        known[name] = _compiled(descriptor, None, known)
    return known[name]


def _checked_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Misfit("not-utf8", "a text in the value is not UTF-8")


# ---------------------------------------------------------------------------------------------------------- indexes
@dataclass(frozen=True)
class Node:
    """A message of a file, and those that are declared in it. `name` None: the entry of a map, which protoc makes."""

    name: str | None
    inner: tuple[Node, ...] = ()


@dataclass(frozen=True)
class File:
    """The messages of a .proto, in the order in which they stand."""

    package: str
    messages: tuple[Node, ...]

    def names(self, indexes: tuple[int, ...]) -> list[str]:
        """Full names of what message indexes mean, the likeliest first; none where there is no such message.

        Clients differ: those in Python and Go count the entries of maps among the messages inside of one, that in Java
        does not.
        """
        found = (_at(self.messages, indexes, entries=entries) for entries in (True, False))
        return list(dict.fromkeys(".".join(filter(None, (self.package, *path))) for path in found if path is not None))


def _at(messages: tuple[Node, ...], indexes: tuple[int, ...], *, entries: bool) -> list[str] | None:
    path = []
    for index in indexes:
        counted = [node for node in messages if entries or node.name is not None]
        if not 0 <= index < len(counted) or (name := counted[index].name) is None:
            return None
        path.append(name)
        messages = counted[index].inner
    return path or None


def file_of(descriptor: Descriptor) -> File:
    """The file of a generated class."""
    proto = FileDescriptorProto()
    descriptor.file.CopyToProto(proto)
    return _file(proto)


def _file(proto: FileDescriptorProto) -> File:
    return File(proto.package, tuple(map(_node, proto.message_type)))


def _node(proto: DescriptorProto) -> Node:
    if proto.options.map_entry:
        return Node(None)
    return Node(proto.name, tuple(map(_node, proto.nested_type)))


_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\s+|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<token>[A-Za-z0-9_.]+|.)""",
    re.DOTALL,
)


def file_in(text: str) -> File:
    """The messages of a schema: the text of a .proto, of which nothing else is looked at, or a descriptor in base64, as
    Confluent's client for Python registers it and some registries leave it. Nothing is run. Raises ValueError.

    Only a registry knows which message an index meant when it was written.
    """
    with suppress(ValueError, DecodeError):
        proto = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        if proto.message_type:
            return _file(proto)
    tokens = _tokens(text)
    package, messages = _block(tokens, 0)
    if not messages:
        raise ValueError("no messages")
    return File(package, messages)


def _tokens(text: str) -> Iterator[str]:
    for found in _TOKEN.finditer(text):
        if found["token"] is not None:
            yield found["token"]
        elif found["text"] is not None:
            yield '"'


def _block(tokens: Iterator[str], depth: int) -> tuple[str, tuple[Node, ...]]:
    """What is declared until the brace that ends it; at depth 0 until the end."""
    if depth > 100:  # as deep as messages may be
        raise ValueError("too deep")
    package, messages = "", list[Node]()
    statement: list[str] = []
    for token in tokens:
        if token == "{":
            messages += _declared(statement, tokens, depth)
            statement = []
        elif token == "}":
            if depth == 0:
                raise ValueError("a brace too many")
            return package, tuple(messages)
        elif token == ";":
            if statement[:1] == ["package"] and depth == 0:
                package = "".join(statement[1:])
            statement = []
        else:
            statement.append(token)
            if statement == ["map", "<"]:
                messages.append(Node(None))
    if depth > 0:
        raise ValueError("a brace is missing")
    return package, tuple(messages)


def _declared(statement: list[str], tokens: Iterator[str], depth: int) -> list[Node]:
    """Messages that a statement declares whose brace was just read."""
    _, inner = _block(tokens, depth + 1)
    if statement[:1] == ["message"] and len(statement) == 2:
        return [Node(statement[1], inner)]
    if "group" in statement[:2] and len(statement) > 2:  # of proto2: a field and its message in one
        return [Node(statement[statement.index("group") + 1], inner)]
    if statement[:1] in (["oneof"], ["extend"]):
        return list(inner)  # groups there
    return []

"""What reading a raw record costs: `python -m benchmarks.decode [--json] [--rounds N]`. CPU µs of the thread per record, from
bytes to a checked record, as govern does it.

All formats are measured in turn, round by round, so that what else the machine does meets all of them; each has the median of
the rounds, and the quartiles. "noise" is the median difference of two measurements of the same in one round, as a share.

A shop event is an order with an id, a customer, an amount and a time; a rich one has a day, a state, a place and two lines
beside, of which one is also read by itself. The goals are of the issue: Avro and Protobuf 12, JSON 6 per shop event.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from time import thread_time
from typing import Any

import fastavro
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type import date_pb2, decimal_pb2  # type: ignore[import-untyped]

from c360 import Record, cloudevents, field, segment
from c360.codecs.avro import AvroDecoder, JsonOfAvro, NoRegistry, RegistryDecoder, SchemaRef, WriterSchema
from c360.codecs.cloudevents import CloudEventsDecoder
from c360.codecs.debezium import DebeziumDecoder
from c360.codecs.json import Choice, JsonDecoder
from c360.codecs.protobuf import MessageChoice, ProtobufDecoder
from c360.codecs.segment import SegmentDecoder
from c360.errors import Misfit

GOAL_AVRO_US, GOAL_PROTOBUF_US, GOAL_JSON_US = 12.0, 12.0, 6.0
RECORDS, ROUNDS = 1000, 21
START = datetime(2026, 11, 2, 9, tzinfo=UTC)

Read = Callable[[], Sequence[object]]


# ----------------------------------------------------------------------------------------------------------- records
class Event(Record):
    id: str
    customer: str
    amount: Decimal
    placed: datetime


class Line(Record):
    sku: str
    price: Decimal = field("cents", scale=2)


class Rich(Record):
    id: str
    customer: str
    amount: Decimal
    placed: datetime
    state: str
    day: date | None
    city: str | None = field("where.city")
    lines: list[Line]
    first: str | None = field("lines.0.sku")


class Called(segment.Track):
    id: str = field("properties.order_id")
    amount: Decimal = field("properties.total")


class Clouded(cloudevents.Event):
    id: str
    customer: str
    amount: Decimal
    placed: datetime


def schema(*, rich: bool) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "placed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ]
    line = [{"name": "sku", "type": "string"}, {"name": "cents", "type": "int"}]
    place = [{"name": "city", "type": ["null", "string"]}]
    if rich:
        fields += [
            {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
            {"name": "where", "type": {"type": "record", "name": "Place", "fields": place}},
            {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": line}}},
        ]
    return {"type": "record", "name": "Order", "namespace": "shop", "fields": fields}


def order(n: int, *, rich: bool) -> dict[str, Any]:
    """As Python has it."""
    said: dict[str, Any] = {
        "id": f"1b4e28ba-2fa1-11d2-883f-{n:012}",
        "customer": str(n % 400),
        "amount": Decimal(n * 7 + 1250).scaleb(-2),
        "placed": START + timedelta(milliseconds=137 * n),
    }
    if rich:
        lines = [{"sku": f"sku-{n % 90}", "cents": 1250}, {"sku": f"sku-{n % 7}", "cents": 99}]
        said |= {"day": START.date(), "state": "PAID", "where": {"city": "Lund"}, "lines": lines}
    return said


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else str(value)


class Schemas:
    """A registry that knows these."""

    def __init__(self, *schemas: Any) -> None:
        self.known = {n: WriterSchema("AVRO", json.dumps(schema)) for n, schema in enumerate(schemas, 1)}

    def schema(self, ref: SchemaRef) -> WriterSchema:
        return self.known[int(ref)]

    def write(self, number: int, value: Any) -> bytes:
        out = io.BytesIO(b"\0" + number.to_bytes(4, "big"))
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(self.known[number].text)), value)
        return out.getvalue()


def message_class(*, rich: bool) -> type[Message]:
    """As protoc makes it of the same order."""
    file = FileDescriptorProto(name=f"order{rich}.proto", package="shop", syntax="proto3")
    made = file.message_type.add(name="Order")
    fields: list[tuple[str, int, str]] = [
        ("id", FieldDescriptorProto.TYPE_STRING, ""), ("customer", FieldDescriptorProto.TYPE_STRING, ""),
        ("amount", FieldDescriptorProto.TYPE_MESSAGE, ".google.type.Decimal"),
        ("placed", FieldDescriptorProto.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
    ]  # fmt: skip
    if rich:
        made.nested_type.add(name="Place").field.add(name="city", number=1, type=FieldDescriptorProto.TYPE_STRING)
        line = made.nested_type.add(name="Line")
        line.field.add(name="sku", number=1, type=FieldDescriptorProto.TYPE_STRING)
        line.field.add(name="cents", number=2, type=FieldDescriptorProto.TYPE_INT32)
        state = file.enum_type.add(name="State")
        for number, name in enumerate(("UNKNOWN", "NEW", "PAID")):
            state.value.add(name=name, number=number)
        fields += [
            ("day", FieldDescriptorProto.TYPE_MESSAGE, ".google.type.Date"),
            ("state", FieldDescriptorProto.TYPE_ENUM, ".shop.State"),
            ("where", FieldDescriptorProto.TYPE_MESSAGE, ".shop.Order.Place"),
            ("lines", FieldDescriptorProto.TYPE_MESSAGE, ".shop.Order.Line"),
        ]
    for number, (name, kind, of) in enumerate(fields, 1):
        many = FieldDescriptorProto.LABEL_REPEATED if name == "lines" else FieldDescriptorProto.LABEL_OPTIONAL
        made.field.add(name=name, number=number, type=kind, type_name=of or None, label=many)
    pool = DescriptorPool()
    for other in (timestamp_pb2, date_pb2, decimal_pb2):
        pool.AddSerializedFile(other.DESCRIPTOR.serialized_pb)
        file.dependency.append(other.DESCRIPTOR.name)
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def _message(made: type[Message], said: Mapping[str, Any]) -> bytes:
    plain = {"id", "customer", "where", "lines"}
    message: Any = made(**{name: value for name, value in said.items() if name in plain})
    message.amount.value = str(said["amount"])
    message.placed.FromDatetime(said["placed"])
    if "day" in said:
        message.state = {"NEW": 1, "PAID": 2}[said["state"]]
        message.day.year, message.day.month, message.day.day = said["day"].timetuple()[:3]
    return b"\0\0\0\0\1\0" + bytes(message.SerializeToString())


def readers(records: int = RECORDS) -> dict[str, Read]:
    """By the name of a format, what reads so many records of it once."""
    everyone = range(records)
    made: dict[str, Read] = {}
    for rich in (False, True):
        kind, name = (Rich, "_rich") if rich else (Event, "")
        text = [json.dumps(order(n, rich=rich), default=_plain).encode() for n in everyone]
        made[f"json{name}"] = _decoding(JsonDecoder([Choice(kind, None)], "dlq"), text)
        registry = Schemas(schema(rich=rich))
        values = [registry.write(1, order(n, rich=rich)) for n in everyone]
        avro = AvroDecoder([Choice(kind, None)], "dlq", registry)
        made[f"avro{name}"] = _ready(avro, values)
        message = message_class(rich=rich)
        protobuf = ProtobufDecoder([MessageChoice(kind, None, message)], "dlq", NoRegistry())
        made[f"protobuf{name}"] = _ready(protobuf, [_message(message, order(n, rich=rich)) for n in everyone])
        resolved = AvroDecoder([Choice(kind, None)], "dlq", registry, schema(rich=rich))
        made[f"avro{name}_by_schema"] = _ready(resolved, values)
    calls = [json.dumps(_call(n)).encode() for n in everyone]
    made["segment"] = _decoding(SegmentDecoder([Choice(Called, None)], "dlq"), calls)
    events = [json.dumps(_cloud_event(n), default=_plain).encode() for n in everyone]
    made["cloudevents"] = _decoding(CloudEventsDecoder([Choice(Clouded, None)], "dlq"), events)
    rows = [json.dumps(_change(n), default=_plain).encode() for n in everyone]
    changes = DebeziumDecoder(Event, ["id"], JsonOfAvro(registry))
    keys = [json.dumps({"id": order(n, rich=False)["id"]}).encode() for n in everyone]
    made["debezium"] = lambda: changes.decode(rows, keys, _no_headers)
    return made


def _no_headers(at: int) -> list[tuple[str, bytes]]:
    return []


def _decoding(decoder: JsonDecoder, values: Sequence[bytes]) -> Read:
    return lambda: decoder.decode(values, _no_headers)


def _ready(decoder: RegistryDecoder, values: Sequence[bytes]) -> Read:
    def read() -> Sequence[object]:
        decoder.ready(values, _no_headers)
        return decoder.decode(values, _no_headers)

    return read


def _call(n: int) -> dict[str, Any]:
    at = (START + timedelta(milliseconds=137 * n)).isoformat()
    said = order(n, rich=False)
    return {
        "type": "track", "event": "Order Completed", "messageId": f"m-{n}", "userId": said["customer"], "anonymousId": f"a-{n}",
        "timestamp": at, "sentAt": at, "receivedAt": at, "originalTimestamp": at,
        "properties": {"order_id": said["id"], "total": float(said["amount"]), "currency": "EUR"},
        "context": {"ip": "10.0.0.1", "library": {"name": "analytics.js", "version": "2.1"}, "page": {"path": "/"}},
    }  # fmt: skip


def _cloud_event(n: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"e-{n}", "source": "/shop", "type": "com.example.order", "time": START.isoformat(),
        "datacontenttype": "application/json", "data": order(n, rich=False),
    }  # fmt: skip


def _change(n: int) -> dict[str, Any]:
    after = order(n, rich=False)
    source = {
        "connector": "postgresql",
        "db": "shop",
        "table": "orders",
        "ts_ms": 1_762_074_000_000 + n,
        "lsn": n,
        "txId": n,
    }
    return {"before": None, "after": after, "op": "c", "ts_ms": 1_762_074_000_000 + n, "source": source}


# ------------------------------------------------------------------------------------------------------- measurement
def measured(rounds: int = ROUNDS, records: int = RECORDS) -> dict[str, Any]:
    """µs per record by format, and the noise. Raises AssertionError where a record is a misfit."""
    made = readers(records)
    for name, read in made.items():  # warm, and right
        found = read()
        assert len(found) == records, name
        misfits = [one for one in found if one is None or isinstance(one, Misfit)]
        assert not misfits, f"{name}: {misfits[0]}"
    costs: dict[str, list[float]] = {name: [] for name in made}
    noise = []
    names = list(made)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            costs[name].append(_cost(made[name], records))
        noise.append(abs(_cost(made["json"], records) / costs["json"][-1] - 1))
    return {
        "records": records,
        "rounds": rounds,
        "us": {name: _spread(found) for name, found in costs.items()},
        "noise": round(statistics.median(noise), 3),
        "goals_us": {"avro": GOAL_AVRO_US, "protobuf": GOAL_PROTOBUF_US, "json": GOAL_JSON_US},
    }


def _cost(read: Read, records: int) -> float:
    began = thread_time()
    read()
    return (thread_time() - began) / records * 1e6


def _spread(costs: Sequence[float]) -> Mapping[str, float]:
    low, median, high = statistics.quantiles(costs, n=4) if len(costs) > 1 else [costs[0]] * 3
    return {"median": round(median, 2), "low": round(low, 2), "high": round(high, 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description="What reading a raw record costs.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of all formats in turn (%(default)s)")
    parser.add_argument("--records", type=int, default=RECORDS, help="of each format in a round (%(default)s)")
    said = parser.parse_args(arguments)
    found = measured(said.rounds, said.records)
    if said.json:
        json.dump(found, sys.stdout, indent=2)
        print()
        return
    print(f"{'format':<20} {'µs':>7} {'quartiles':>15}   ({found['records']} records, {found['rounds']} rounds)")
    for name, us in found["us"].items():
        print(f"{name:<20} {us['median']:>7.2f} {us['low']:>7.2f} {us['high']:>7.2f}")
    print(f"noise {found['noise']:.1%}")


if __name__ == "__main__":
    main()

"""CloudEvents 1.0 on Kafka, in both modes: fields of a record are places in the event's data.

    @app.source("raw.orders", format="cloudevents", when={"type": "com.example.order.placed"}, subject="customer_id")
    class Placed(Record):                            # or cloudevents.Event, which brings the attributes as fields
        customer_id: ShopId
        total: Decimal = field("total_minor", scale=2)
        trace: str | None = cloudevents.attribute("traceparent")

`when=` looks at attributes. An event is known by its `source` and `id`, and happened at its `time`, unless the source says
`event_id=` and `at=`. Source: CloudEvents 1.0.2, "Kafka Protocol Binding", sections 3.1 to 3.3, and "JSON Event Format".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from c360.codecs.json import Choice, HeadersOf, JsonDecoder
from c360.codecs.layout import UNREADABLE, misfit_of, readable
from c360.codecs.quick import EPOCH
from c360.codecs.record import ATTRIBUTE, Record, field
from c360.errors import Misfit

CONTENT_TYPE, PREFIX = "content-type", "ce_"
STRUCTURED, BATCH = "application/cloudevents", "application/cloudevents-batch"
DATA = "data"
_MS = timedelta(milliseconds=1)
_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_text = msgspec.json.Decoder(str).decode
_time = msgspec.json.Decoder(datetime).decode


KINDS = frozenset({
    "application/avro", "application/octet-stream", "application/protobuf", "application/x-protobuf", "application/xml",
    "application/cloudevents+avro", "application/cloudevents+protobuf", "application/cloudevents+xml", "text/csv", "text/plain",
    "text/xml",
})  # fmt: skip
"""Formats of data that messages may name."""


def attribute(name: str, *, default: Any = ...) -> Any:
    """An attribute of the event, also one of an extension, as a field of the record."""
    return field(ATTRIBUTE + name) if default is ... else field(ATTRIBUTE + name, default=default)


class Event(Record):
    """A record that has the attributes of its event."""

    ce_id: str = attribute("id")
    ce_source: str = attribute("source")
    ce_type: str = attribute("type")
    ce_time: datetime | None = attribute("time")
    ce_subject: str | None = attribute("subject")


class CloudEventsDecoder(JsonDecoder):
    """Events of one topic, structured or binary, also mixed."""

    def __init__(self, choices: Sequence[Choice], unmatched: Literal["dlq", "ignore"]) -> None:
        super().__init__(choices, unmatched, root=DATA)

    def decode(self, values: Sequence[bytes | None], headers: HeadersOf | None = None) -> list[Record | Misfit | None]:
        found = [_enveloped(value, headers(i) if headers is not None else ()) for i, value in enumerate(values)]
        records = super().decode([event.text for event in found])
        self.ids, self.times = [event.name for event in found], [event.at_ms for event in found]
        return [
            event.wrong if event.wrong is not None and (event.text is None or isinstance(record, Misfit)) else record
            for record, event in zip(records, found, strict=True)
        ]


class _Enveloped(NamedTuple):
    """An event in its JSON format, its name among all, and its time in epoch ms.

    `wrong`: why it cannot be read; with a text, why its data cannot, which matters where a field is in there.
    """

    text: bytes | None
    name: str | None = None
    at_ms: int | None = None
    wrong: Misfit | None = None


def _enveloped(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> _Enveloped:
    try:
        event, wrong = _binary(value, headers) if _is_binary(headers) else _structured(value, headers)
        _check(event)
        name = f"{_text(event['source'])} {_text(event['id'])}"
        return _Enveloped(_encode(event), name, _ms(event.get("time")), wrong)
    except Misfit as misfit:
        return _Enveloped(None, wrong=misfit)
    except UNREADABLE as error:
        return _Enveloped(None, wrong=misfit_of(error, "the CloudEvent"))


_Parts = tuple[dict[str, msgspec.Raw], Misfit | None]  # of an event; and why its data was left out


def _is_binary(headers: Sequence[tuple[str, bytes]]) -> bool:
    return any(name.lower() == f"{PREFIX}specversion" for name, _ in headers)


def _content_type(headers: Sequence[tuple[str, bytes]]) -> str:
    return next((said.decode().lower() for name, said in headers if name.lower() == CONTENT_TYPE), "")


def _binary(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> _Parts:
    """Attributes are headers, and the value is the data."""
    event = {
        name.lower().removeprefix(PREFIX): msgspec.Raw(_encode(said.decode()))
        for name, said in headers
        if name.lower().startswith(PREFIX)
    }
    kind = _content_type(headers)
    if kind:
        event["datacontenttype"] = msgspec.Raw(_encode(kind))
    wrong = _is_not_json(kind) if value else None
    if value and wrong is None:
        event[DATA] = msgspec.Raw(readable(value))
    return event, wrong


def _structured(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> _Parts:
    """The value is the event. Producers forget to say so in a header."""
    kind = _content_type(headers)
    if kind.startswith(BATCH):
        raise Misfit("batch", "a batch of CloudEvents; the Kafka binding has none: send one event in a record")
    if kind.startswith(STRUCTURED) and "json" not in kind:
        raise Misfit("data-format", f"a CloudEvent in {_named(kind)}; only JSON is read")
    if not value:
        raise Misfit("empty", "the record has no value; a CloudEvent was expected")
    event = _envelope(readable(value))
    if (encoded := event.pop("data_base64", None)) is None:
        return event, None
    if (wrong := _is_not_json(_text(event["datacontenttype"]) if "datacontenttype" in event else "")) is not None:
        return event, wrong
    try:
        data = base64.b64decode(_text(encoded), validate=True)
    except (binascii.Error, ValueError):
        raise Misfit("not-base64", "the CloudEvent's data_base64 is no base64") from None
    event[DATA] = msgspec.Raw(readable(data))
    return event, None


def _is_not_json(kind: str) -> Misfit | None:
    """What is said of data that says it is something else."""
    what = kind.partition(";")[0].strip()
    if not what or what.endswith(("/json", "+json")):
        return None
    return Misfit(
        "data-format", f"the CloudEvent's data is {_named(what)}, and fields of the record are in it; only JSON is read"
    )


def _named(kind: str) -> str:
    """A content type, for people. A producer can write there whatever it likes: of others nothing is said."""
    what = kind.partition(";")[0].strip()
    return what if what in KINDS else "another format"


def _check(event: Mapping[str, msgspec.Raw]) -> None:
    for name in ("specversion", "id", "source", "type"):
        said = event.get(name)
        if said is None or not isinstance(text := msgspec.json.decode(said), str) or not text:
            raise Misfit("missing-attribute", f"the CloudEvent has no {name}, which every one must have")
    if (version := _text(event["specversion"])) != "1.0":
        known = "0.3" if version == "0.3" else "another version"
        raise Misfit("specversion", f"the CloudEvent is of {known}; 1.0 is read")


def _ms(said: msgspec.Raw | None) -> int | None:
    """Raises Misfit for a time that is none."""
    if said is None or said == b"null":
        return None
    try:
        at = _time(said)
        return None if at.tzinfo is None else (at - EPOCH) // _MS
    except (msgspec.DecodeError, OverflowError):
        raise Misfit("out-of-range", "the CloudEvent's time is no valid time") from None

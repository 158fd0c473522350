"""What a raw record of an event says, by the format of its source: read slowly, and by other means than the agents do.

Segment: of a call's four times, which one counts. CloudEvents: where attributes and data are in both modes.
"""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from math import isfinite
from typing import Any, NamedTuple

from fastavro import _read_py, parse_schema

from c360.codecs.avro import NoRegistry, Registry
from c360.codecs.record import fields_of
from c360.declare import Source
from c360.testing.oracle.plain import Written, decimal_text, parse_payload, written
from c360.testing.oracle.values import NoFit, moment

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Headers = Sequence[tuple[str, bytes]]


class Understood(NamedTuple):
    """`payload`: what `when=` looks at; `fields`: where the fields of a record are; `id` and `at_ms`: of the envelope."""

    payload: Mapping[str, Any]
    fields: Mapping[str, Any]
    id: str | None = None
    at_ms: int | None = None
    message: str | None = None  # of Protobuf: its name, "" of one that nothing is read from


def understand(
    source: Source, value: bytes | None, headers: Headers = (), schemas: Schemas | None = None
) -> Understood:
    """Raises NoFit, ValueError or KeyError for a misfit."""
    if source.format == "avro":
        assert schemas is not None
        said = schemas.value(value, headers, reader=None if source.schema is None else json.loads(source.schema))
        if not isinstance(said, dict):
            raise NoFit
        return Understood(said, said)
    if source.format == "protobuf":
        return _message(source, value, headers, NoRegistry() if schemas is None else schemas.registry)
    if source.format == "cloudevents":
        return _cloud_event(value, [(name.lower(), said.decode()) for name, said in headers])
    payload = None if not value else parse_payload(value)
    if not isinstance(payload, dict):
        raise NoFit
    if source.format == "segment":
        payload = _with_time(payload)
    return Understood(payload, payload)


# ----------------------------------------------------------------------------------------------------------- segment
def _with_time(call: Mapping[str, Any]) -> dict[str, Any]:
    if _is_time(call.get("timestamp"), UTC):
        return dict(call)
    names = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
    stamp, original, sent, received = (_instant(call.get(name)) for name in names)
    if stamp is None and original is not None:
        late = timedelta(0) if sent is None or received is None else received - sent
        try:
            stamp = original + late
        except OverflowError:
            stamp = original
    elif stamp is None:
        stamp = received
    rest = {name: said for name, said in call.items() if name != "timestamp"}
    return rest if stamp is None else {**rest, "timestamp": stamp.isoformat()}


def _is_time(said: Any, zone: tzinfo | None = None) -> bool:
    """Whether it is one as it is, rounded like any other; those in other forms are cut to microseconds."""
    try:
        moment(said, zone)
    except NoFit:
        return False
    return True


def _instant(said: Any) -> datetime | None:
    if isinstance(said, Written):
        said = float(said.text)
    try:
        if isinstance(said, str):
            at = datetime.fromisoformat(said.strip())
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        if isinstance(said, int | float) and not isinstance(said, bool):
            return EPOCH + timedelta(milliseconds=said if abs(said) >= 1e11 else said * 1000)
    except (ValueError, OverflowError):
        return None
    return None


# ------------------------------------------------------------------------------------------------------- cloudevents
def _cloud_event(value: bytes | None, headers: Sequence[tuple[str, str]]) -> Understood:
    said = dict(reversed(headers))
    kind = said.get("content-type", "").lower()
    if "ce_specversion" in said:
        event: dict[str, Any] = {name[3:]: text for name, text in said.items() if name.startswith("ce_")}
        event |= {"datacontenttype": kind} if kind else {}
        if value and _is_json(kind):
            event["data"] = parse_payload(value)
    else:
        if kind.startswith("application/cloudevents") and (
            kind.startswith("application/cloudevents-") or "json" not in kind
        ):
            raise NoFit
        event = parse_payload(value or b"")
        if not isinstance(event, dict):
            raise NoFit
        encoded = event.pop("data_base64", None)
        if encoded is not None and _is_json(event.get("datacontenttype", "")):
            event["data"] = parse_payload(base64.b64decode(encoded, validate=True))
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise NoFit
    if event["specversion"] != "1.0":
        raise NoFit
    at = event.get("time")
    at_ms = None if at is None else _ms(at)
    data = event.get("data")
    fields = {**(data if isinstance(data, dict) else {}), **{f"ce:{n}": v for n, v in event.items() if n != "data"}}
    return Understood(event, fields, f"{event['source']} {event['id']}", at_ms)


def _ms(said: Any) -> int | None:
    """None of a time that says no zone."""
    at = moment(said, UTC)
    return (at - EPOCH) // timedelta(milliseconds=1) if _is_time(said) else None


def _is_json(kind: str) -> bool:
    what = kind.split(";")[0].strip()
    return not what or what.endswith(("/json", "+json"))


# -------------------------------------------------------------------------------------------------------------- avro
class Schemas:
    """Values by schemas of a registry, as JSON would have them."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def value(
        self,
        value: bytes | None,
        headers: Headers = (),
        header: str = "__value_schema_id",
        *,
        reader: Any = None,
        times: bool = True,
    ) -> Any:
        """Raises NoFit, or what the reader raises."""
        found, kind = self.read(value, headers, header, reader=reader)
        return found if kind == "JSON" else _plain(found, times=times)

    def read(
        self, value: bytes | None, headers: Headers = (), header: str = "__value_schema_id", *, reader: Any = None
    ) -> tuple[Any, str]:
        """The same as Python has it, and of which kind its schema is."""
        ref: int | str
        said = dict(headers).get(header)
        if said is not None and said[:1] == b"\x01":
            ref, data = str(uuid.UUID(bytes=bytes(said[1:]))), value or b""
        elif said is not None:
            ref, data = int.from_bytes(said[1:5], "big"), value or b""
        else:
            ref, data = _framed(value)
        schema = self.registry.schema(ref)
        if schema.kind == "JSON":
            return parse_payload(data), schema.kind
        named: dict[str, Any] = {}
        for text in schema.references:
            parse_schema(json.loads(text), named_schemas=named)
        writer = parse_schema(json.loads(schema.text), named_schemas=named)
        if '"items": "null"' in json.dumps(writer):  # such a list could be endless
            raise NoFit
        stream = io.BytesIO(data)
        found = _read_py.schemaless_reader(stream, writer, None if reader is None else parse_schema(reader))
        if stream.read(1):
            raise NoFit
        return found, schema.kind


def _framed(value: bytes | None) -> tuple[int | str, bytes]:
    if value is not None and len(value) >= 17 and value[0] == 1:
        return str(uuid.UUID(bytes=value[1:17])), value[17:]
    if value is not None and len(value) >= 5 and value[0] == 0:
        return int.from_bytes(value[1:5], "big"), value[5:]
    raise NoFit


# ---------------------------------------------------------------------------------------------------------- protobuf
def _message(source: Source, value: bytes | None, headers: Headers, registry: Registry) -> Understood:
    from c360.testing.oracle.messages import message_in  # needs c360[protobuf]

    if not value:
        raise NoFit
    said = dict(headers).get("__value_schema_id")
    ref, data = _framed(value if said is None else said)
    if said is not None:
        data += value
    wanted: dict[Any, set[str]] = {}
    for declared in source.types:
        paths = [*(info.path for info in fields_of(declared.record)), *(declared.when or ())]
        wanted.setdefault(declared.message, set()).update(path.split(".")[0] for path in paths)
    found = message_in(data, ref, registry, list(wanted.items()))
    if found is None:
        return Understood({}, {}, message="")
    return Understood(found[1], found[1], message=found[0])


def in_json(
    key: bytes | None, value: bytes | None, headers: Headers, schemas: Schemas | None
) -> tuple[bytes | None, bytes | None]:
    """An event of a database in Avro as JSON; one that names no schema as it is."""

    def text(said: bytes | None, header: str) -> bytes | None:
        if schemas is None or not said or (said[0] != 0 and header not in dict(headers)):
            return said
        return written(schemas.value(said, headers, header, times=False)).encode()

    if value and value[:1] == b"{":
        return key, value
    return text(key, "__key_schema_id"), text(value, "__value_schema_id")


def _plain(found: Any, *, times: bool) -> Any:
    """What is in it, in JSON. Without `times` numbers are as they were written. Raises NoFit for numbers that JSON has not."""
    if isinstance(found, dict):
        return {name: _plain(said, times=times) for name, said in found.items()}
    if isinstance(found, list):
        return [_plain(said, times=times) for said in found]
    if isinstance(found, float):
        if not isfinite(found):
            raise NoFit
        return found if not times else Written(repr(found))
    if isinstance(found, Decimal):
        return decimal_text(found)
    if isinstance(found, datetime):
        at = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return found.isoformat() if times else (at - EPOCH) // timedelta(milliseconds=1)
    if isinstance(found, date):
        return found.isoformat() if times else (found - EPOCH.date()).days
    if isinstance(found, bytes):
        return base64.b64encode(found).decode()
    return found if found is None or isinstance(found, str | int) else str(found)

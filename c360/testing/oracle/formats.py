"""What a raw record of an event says, by the format of its source: read slowly, and by other means than the agents do.

Segment: of a call's four times, which one counts. CloudEvents: where attributes and data are in both modes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from c360.declare import Source
from c360.testing.oracle.plain import Written, parse_payload
from c360.testing.oracle.values import NoFit

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Headers = Sequence[tuple[str, bytes]]


class Understood(NamedTuple):
    """`payload`: what `when=` looks at; `fields`: where the fields of a record are; `id` and `at_ms`: of the envelope."""

    payload: Mapping[str, Any]
    fields: Mapping[str, Any]
    id: str | None = None
    at_ms: int | None = None


def understand(source: Source, value: bytes | None, headers: Headers = ()) -> Understood:
    """Raises NoFit, ValueError or KeyError for a misfit."""
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
    at = datetime.fromisoformat(json.loads(json.dumps(said)))
    return None if at.tzinfo is None else (at - EPOCH) // timedelta(milliseconds=1)


def _is_json(kind: str) -> bool:
    what = kind.split(";")[0].strip()
    return not what or what.endswith(("/json", "+json"))

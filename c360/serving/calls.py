"""What is posted to `c360 collect`, and the raw record that becomes of it. Pure: time and ids are arguments.

A call is checked against the app's own record types, given what Segment's servers would give it (`messageId`, `receivedAt`, its
`timestamp` by the rule for wrong clocks), and keyed by whom it is about. Sizes are those of Segment's HTTP API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from c360.codecs.json import Choice
from c360.codecs.layout import UNREADABLE, misfit_of, readable
from c360.codecs.segment import SegmentDecoder, instant, time_of
from c360.errors import Misfit, UsageError
from c360.plan import Plan

KINDS = ("track", "identify", "page", "screen", "group", "alias")
CALL_BYTES, BATCH_BYTES, BATCH_CALLS = 32_768, 512_000, 2_500
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class RawCall:
    """A call as it is to be written."""

    key: bytes
    value: bytes


@dataclass(frozen=True)
class Refused:
    """What is wrong with a call of a batch, by its number; the sentence names fields and no values."""

    index: int
    reason: str
    message: str


def checker_of(plan: Plan, topic: str) -> Callable[[bytes], Misfit | None]:
    """What checks calls for a topic against the record types that are read from it. Raises UsageError for another topic."""
    calls = {source.topic: source for source in plan.sources if source.format == "segment"}
    if topic not in calls:
        known = ", ".join(sorted(calls)) or 'none: say @app.source(…, format="segment")'
        raise UsageError(f"{plan.app!r} reads no calls from {topic!r}; it reads them from {known}")
    source = calls[topic]
    decoder = SegmentDecoder([Choice(t.record, t.when) for t in source.types], source.unmatched)
    subjects = {t.record: t.subject for t in source.types}

    def check(value: bytes) -> Misfit | None:
        (found,) = decoder.decode([value])
        if found is None or isinstance(found, Misfit):
            return found
        names = subjects[type(found)]
        if source.key is None and all(getattr(found, name) is None for name in names):
            said = " and ".join(f"{type(found).__name__}.{name}" for name in names)
            return Misfit("no-subject", f"{said} has no value, so the call is about nobody")
        return None

    return check


def read_body(kind: str, body: bytes) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """The calls in a request, and what it says beside them (`writeKey`, `sentAt`). Raises Misfit."""
    if len(body) > (BATCH_BYTES if kind == "batch" else CALL_BYTES):
        raise Misfit("too-large", f"at most {CALL_BYTES} bytes a call and {BATCH_BYTES} a batch")
    try:
        said = _decode(readable(body))
    except UNREADABLE as error:
        raise misfit_of(error, "the request") from None
    if kind != "batch":
        return [{**said, "type": kind}], said
    calls = said.get("batch")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Misfit("missing-field", "a batch has a list of calls at batch")
    if len(calls) > BATCH_CALLS:
        raise Misfit("too-large", f"at most {BATCH_CALLS} calls a batch")
    common = {name: said[name] for name in ("context", "integrations", "sentAt") if name in said}
    return [{**common, **call} for call in calls], said


def take(
    calls: list[dict[str, Any]], check: Callable[[bytes], Misfit | None], now: datetime, new_id: Callable[[], str]
) -> tuple[list[RawCall], list[Refused]]:
    """The calls as they are to be written, and those that are not to be."""
    taken, refused = [], []
    for index, call in enumerate(calls):
        try:
            taken.append(_taken(call, check, now, new_id))
        except Misfit as misfit:
            refused.append(Refused(index, misfit.reason, str(misfit)))
    return taken, refused


def _taken(
    call: Mapping[str, Any], check: Callable[[bytes], Misfit | None], now: datetime, new_id: Callable[[], str]
) -> RawCall:
    if call.get("type") not in KINDS:
        raise Misfit("unmatched", f"type is one of {', '.join(KINDS)}")
    whom = next((str(said) for name in ("userId", "anonymousId") if _is_id(said := call.get(name))), None)
    if whom is None:
        raise Misfit("no-subject", "a call has a userId or an anonymousId: a text that is not empty, or a number")
    value = _encode(_completed(call, now, new_id))
    if len(value) > CALL_BYTES:
        raise Misfit("too-large", f"at most {CALL_BYTES} bytes a call")
    if (misfit := check(value)) is not None:
        raise misfit
    return RawCall(whom.encode(), value)


def _is_id(said: Any) -> bool:
    return (isinstance(said, str) and said.strip() != "") or (isinstance(said, int) and not isinstance(said, bool))


def _completed(call: Mapping[str, Any], now: datetime, new_id: Callable[[], str]) -> dict[str, Any]:
    """With an id, and with its four times as a server leaves them. A write key is nobody's business."""
    made = {name: said for name, said in call.items() if name != "writeKey"}
    if not isinstance(made.get("messageId"), str) or not made["messageId"]:
        made["messageId"] = new_id()
    original = made.get("originalTimestamp", made.get("timestamp"))
    sent = made.get("sentAt")
    times = {"originalTimestamp": instant(original), "sentAt": instant(sent), "receivedAt": now.astimezone(UTC)}
    made["receivedAt"] = now.astimezone(UTC)
    if original is not None:
        made["originalTimestamp"] = original
    made["timestamp"] = time_of(times)
    return made

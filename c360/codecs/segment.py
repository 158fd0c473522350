"""Segment's calls as records: subclass `Track`, `Identify`, `Page`, `Screen`, `Group` or `Alias`, and say whose ids these are.

    class Viewed(segment.Track):
        user_id: CrmId | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id
        sku: str = field("properties.product_id")

    @app.source("raw.web", format="segment", event="Product Viewed", subject=["user_id", "anonymous_id"])

One Kafka record is one call. `timestamp` is when it happened, by Segment's rule for clocks that are wrong: when the server
received it, less the time it lay on the device between happening and being sent, both told by the device's clock. Of a call
that no server has touched it is the device's time. Source: Segment's "Spec: Common fields", section on timestamps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec

from c360.codecs.json import HeadersOf, JsonDecoder
from c360.codecs.layout import UNREADABLE, readable
from c360.codecs.quick import EPOCH
from c360.codecs.record import Record, field
from c360.errors import Misfit

message_id = field("messageId")
user_id = field("userId")
anonymous_id = field("anonymousId")
previous_id = field("previousId")
group_id = field("groupId")
properties = field("properties")
"""All of them as they are: `properties: dict[str, Any] | None = segment.properties`; one of them is `field("properties.x")`."""
traits = field("traits")
"""Likewise: who somebody is, of `Identify` and `Group`."""
context = field("context")
"""Likewise: device, page, campaign, address in the network: much of it is personal."""
preferences = field("context.consent.categoryPreferences")
"""What somebody agreed to, by category, for `@app.consent(…, categories=…)`."""

_TIMES = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")
_MILLIS = 100_000_000_000  # numbers from here on are milliseconds: as seconds, the year 5138
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Call(Record):
    """What all calls have. Type the ids with identifier classes of the app: without, they join nobody."""

    of: ClassVar[str] = ""  # the value of `type`

    message_id: str | None = field("messageId")
    user_id: str | None = field("userId")
    anonymous_id: str | None = field("anonymousId")
    timestamp: datetime | None = field("timestamp", zone="UTC")


class Track(Call):
    """Somebody did something."""

    of: ClassVar[str] = "track"

    event: str


class Identify(Call):
    """Who somebody is; see `traits`."""

    of: ClassVar[str] = "identify"


class Page(Call):
    """Somebody looked at a page."""

    of: ClassVar[str] = "page"

    name: str | None
    category: str | None


class Screen(Call):
    """The same in an app."""

    of: ClassVar[str] = "screen"

    name: str | None
    category: str | None


class Group(Call):
    """Somebody belongs to an account."""

    of: ClassVar[str] = "group"

    group_id: str | None = field("groupId")


class Alias(Call):
    """Two ids are one person's: type `previous_id`, too, and they are joined."""

    of: ClassVar[str] = "alias"

    previous_id: str | None = field("previousId")


class SegmentDecoder(JsonDecoder):
    """Calls of one topic. Times that are missing, or in none of the forms that a time has, are made of the others."""

    def decode(self, values: Sequence[bytes | None], headers: HeadersOf | None = None) -> list[Record | Misfit | None]:
        found = super().decode(values, headers)
        for i, record in enumerate(found):
            value = values[i]
            if record is None or not value or not (type(record) is Misfit or record.timestamp is None):  # type: ignore[union-attr]
                continue
            fixed = with_time(value)
            if fixed is not None:
                (found[i],) = super().decode([fixed])
            elif (
                type(record) is Misfit
                and b'"batch"' in value[:4096]
                and record.reason in ("unmatched", "missing-field")
            ):
                found[i] = Misfit(
                    record.reason, f"{record}; a batch is to be split into its calls, as `c360 collect` does"
                )
        return found


def with_time(value: bytes) -> bytes | None:
    """The call with its `timestamp` as the rule has it, left out where nothing says when; None: it is right as it is."""
    try:
        call = _fields(readable(value))
        said = {name: msgspec.json.decode(call[name]) for name in _TIMES if name in call}
    except UNREADABLE:
        return None
    at = time_of({name: instant(time) for name, time in said.items()})
    if at is None:
        if "timestamp" not in call or said["timestamp"] is None:
            return None
        del call["timestamp"]
    else:
        now = msgspec.Raw(_encode(at))
        if now == call.get("timestamp"):
            return None
        call["timestamp"] = now
    return _encode(call)


def time_of(said: Mapping[str, datetime | None]) -> datetime | None:
    """When a call happened, of its four times."""
    stamp, original, sent, received = (said.get(name) for name in _TIMES)
    if stamp is not None:
        return stamp
    if original is not None and sent is not None and received is not None:
        with suppress(OverflowError):  # a clock that is out by millennia tells nothing
            return received - (sent - original)
    return original or received


def instant(said: Any) -> datetime | None:
    """A time as libraries write it: ISO 8601, in UTC where no zone is said, or a number of seconds or milliseconds."""
    try:
        if isinstance(said, str):
            at = datetime.fromisoformat(said.strip())
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
        if isinstance(said, int | float) and not isinstance(said, bool):
            return EPOCH + timedelta(seconds=said / 1000 if abs(said) >= _MILLIS else said)
    except (ValueError, OverflowError):
        pass
    return None


def when_of(record: type[Record], event: str | None) -> dict[str, str]:
    """What a call of this class has: its type, and the name of the event."""
    assert issubclass(record, Call)
    return {"type": record.of} | ({} if event is None else {"event": event})

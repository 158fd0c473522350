"""Segment's calls, as its documentation and its integrations' tests have them, and as an app reads them."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from c360 import App, Projection, Record, count, field, newest, segment, total
from c360.codecs.json import Choice
from c360.codecs.segment import SegmentDecoder, time_of, with_time
from c360.errors import DeclarationError, Misfit
from c360.testing import TestDriver

CALLS = (segment.Track, segment.Identify, segment.Page, segment.Screen, segment.Group, segment.Alias)
NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)


def shop() -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.identifier("cookie", priority=9)
    class Cookie(str): ...

    class Tracked(segment.Track):
        user_id: Crm | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id

    whom = ["user_id", "anonymous_id"]

    @app.source("raw.web", format="segment", event="Product Viewed", subject=whom, unmatched="ignore")
    class Viewed(Tracked):
        sku: str = field("properties.product_id")

    @app.source("raw.web", format="segment", event="Order Completed", subject=whom, unmatched="ignore")
    class Completed(Tracked):
        paid: float = field("properties.total")

    @app.source("raw.web", format="segment", subject="user_id", unmatched="ignore")
    class Known(segment.Identify):
        user_id: Crm | None = segment.user_id
        anonymous_id: Cookie | None = segment.anonymous_id
        plan: str | None = field("traits.plan")

    @app.projection("customer")
    class Customer(Projection):
        views: int = count(Viewed)
        spend: Decimal = total(Completed.paid)
        plan: str | None = newest(Known.plan)
        last: datetime | None = newest(Viewed.timestamp)

    return app


def call(number: int, **said: Any) -> dict[str, Any]:
    return {
        "type": "track", "event": "Product Viewed", "messageId": f"m{number}", "anonymousId": "c1",
        "properties": {"product_id": "p1"}, "context": {"ip": "10.0.0.1"}, "timestamp": "2026-11-02T09:00:00Z", **said,
    }  # fmt: skip


def test_calls_become_one_profile_once() -> None:
    with TestDriver(shop(), now=NINE) as t:
        for number in (1, 2, 2):
            t.send("raw.web", "c1", call(number))
        t.send("raw.web", "c1", call(3, event="Order Completed", properties={"total": 12.5}, userId=7))
        t.send("raw.web", "c1", call(4, type="identify", userId="7", traits={"plan": "pro"}, event=None))
        t.send("raw.web", "c1", call(5, event="Something Else"))
        t.send("raw.web", "c1", call(6, type="page"))
        found = t.profile("crm:7")
        assert (found.views, str(found.spend), found.plan, found.last) == (2, "12.50", "pro", NINE)
        assert t.topic("shop.dlq") == []
        t.verify()


def test_when_a_call_happened_does_not_depend_on_the_clock_of_a_device() -> None:
    """The device is a day ahead and sent the call ten minutes after it happened; a server received it at nine."""
    device = {
        "originalTimestamp": "2026-11-03T08:50:00Z",
        "sentAt": "2026-11-03T09:00:00Z",
        "receivedAt": "2026-11-02T09:00:00Z",
    }
    with TestDriver(shop(), now=NINE) as t:
        t.send("raw.web", "c1", {**call(1, **device), "timestamp": None})
        assert t.profile("cookie:c1").last == datetime(2026, 11, 2, 8, 50, tzinfo=UTC)
        t.verify()


@pytest.mark.parametrize(
    ("times", "is_at"),
    [
        ({"timestamp": "2026-11-02T09:00:00"}, "2026-11-02T09:00:00Z"),
        ({"timestamp": "2014"}, None),
        ({"timestamp": "2026-11-02T08:59:59.999999612Z"}, "2026-11-02T09:00:00Z"),  # nine digits, as Go writes them
        ({"timestamp": "2026-11-02T08:59:59.999999499Z"}, "2026-11-02T08:59:59.999999Z"),
        ({"timestamp": "2026-11-02T08:59:59.999999612"}, "2026-11-02T09:00:00Z"),
        ({"timestamp": "soon", "receivedAt": "2026-11-02T09:00:00Z"}, "2026-11-02T09:00:00Z"),
        ({"timestamp": 1_793_610_000}, "2026-11-02T09:00:00Z"),
        ({"timestamp": 1_793_610_000_000}, "2026-11-02T09:00:00Z"),
        ({"originalTimestamp": "2026-11-02T10:00:00+01:00"}, "2026-11-02T09:00:00Z"),
        ({"originalTimestamp": "2026-11-02T09:00:00Z", "sentAt": "x"}, "2026-11-02T09:00:00Z"),
        ({}, None),
    ],
)  # fmt: skip
def test_times_in_whatever_form_libraries_write_them(times: dict[str, Any], is_at: str | None) -> None:
    class Clicked(segment.Track): ...

    decoder = SegmentDecoder([Choice(Clicked, {"type": "track"})], "dlq")
    (found,) = decoder.decode([json.dumps({"type": "track", "event": "Clicked", **times}).encode()])
    assert isinstance(found, Clicked)
    assert found.timestamp == (None if is_at is None else datetime.fromisoformat(is_at))
    with TestDriver(shop(), now=NINE) as t:
        t.send("raw.web", "c1", {**{k: v for k, v in call(1).items() if k != "timestamp"}, **times})
        assert t.profile("cookie:c1").views == 1
        t.verify()


def test_a_call_that_has_its_time_is_read_as_it_is() -> None:
    assert with_time(json.dumps(call(1)).encode()) is None
    assert time_of({}) is None


def test_a_batch_is_told_how_it_can_be_read() -> None:
    class Clicked(segment.Track): ...

    (found,) = SegmentDecoder([Choice(Clicked, {"type": "track"})], "dlq").decode([b'{"batch": [{"type": "track"}]}'])
    assert isinstance(found, Misfit)
    assert "a batch is to be split into its calls" in str(found)


def test_what_is_no_call_is_refused_where_it_is_declared() -> None:
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    class Plain(Record):
        crm: Crm

    class Known(segment.Identify):
        user_id: Crm | None = segment.user_id

    with pytest.raises(DeclarationError, match=r"derives from segment\.Track, Identify"):
        app.source("raw.web", format="segment", subject="crm")(Plain)
    with pytest.raises(DeclarationError, match="event='Signed Up' is the name of a track call"):
        app.source("raw.web", format="segment", event="Signed Up", subject="user_id")(Known)


@pytest.mark.parametrize(
    "path", ["segment-spec-docs/payloads.jsonl", "segment-integration-fixtures/inputs.jsonl"]
)  # fmt: skip
def test_what_segment_shows_is_read_without_a_misfit(shared: Path, path: str) -> None:
    decoder = SegmentDecoder([Choice(kind, {"type": kind.of}) for kind in CALLS], "dlq")
    calls = []
    for line in (shared / "data" / "events" / path).read_text().splitlines():
        said = json.loads(line)
        shown = said.get("event", said.get("payload"))
        if said.get("kind", "segment-event") == "segment-event" and isinstance(shown, dict) and "type" in shown:
            calls.append(shown)
    found = decoder.decode([json.dumps(said).encode() for said in calls])
    misfits = Counter(str(record) for record in found if isinstance(record, Misfit))
    print(path, Counter(type(record).__name__ for record in found), misfits)
    assert len(calls) > 30
    # What is left out in the documentation of a call is left out here, too: the name of what was done.
    assert set(misfits) <= {"Track.event is missing: there is nothing at event", "Track.event is missing"}
    assert sum(misfits.values()) <= len(calls) // 10

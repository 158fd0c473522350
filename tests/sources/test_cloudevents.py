"""CloudEvents on Kafka, as the specification's own conformance tests and examples have them."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from c360 import App, Projection, Record, cloudevents, count, field, newest, total
from c360.codecs.cloudevents import CloudEventsDecoder
from c360.codecs.json import Choice
from c360.errors import DeclarationError, Misfit
from c360.testing import TestDriver

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
HEADERS = [("content-type", b"application/cloudevents+json; charset=utf-8")]


class Hello(cloudevents.Event):
    message: str


def shop() -> App:
    app = App("shop", partitions=2)

    @app.identifier("shop_id", priority=1, unique=True)
    class ShopId(str): ...

    @app.source(
        "raw.orders",
        format="cloudevents",
        when={"type": "com.example.order.placed"},
        subject="customer_id",
        unmatched="ignore",
    )
    class Placed(Record):
        order_id: str
        customer_id: ShopId
        total: Decimal = field("total_minor", scale=2)
        trace: str | None = cloudevents.attribute("traceparent")

    @app.projection("customer")
    class Customer(Projection):
        orders: int = count(Placed)
        spend: Decimal = total(Placed.total)
        trace: str | None = newest(Placed.trace)

    return app


def order(number: int, **said: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"e{number}", "source": "/orders", "type": "com.example.order.placed",
        "time": "2026-11-02T08:00:00Z", "traceparent": f"00-{number}",
        "data": {"order_id": str(number), "customer_id": "7", "total_minor": 1250}, **said,
    }  # fmt: skip


def binary(event: dict[str, Any]) -> tuple[bytes, list[tuple[str, bytes]]]:
    headers = [(f"ce_{name}", str(said).encode()) for name, said in event.items() if name != "data"]
    return json.dumps(event["data"]).encode(), [*headers, ("content-type", b"application/json")]


NO_DATA = {name: said for name, said in order(1).items() if name != "data"}


def test_events_of_both_modes_become_one_profile_once() -> None:
    with TestDriver(shop(), now=NINE) as t:
        t.send("raw.orders", "7", order(1), headers=HEADERS)
        t.send("raw.orders", "7", order(2))  # a producer that forgot the header
        for _ in range(2):
            value, headers = binary(order(3))
            t.send("raw.orders", "7", value, headers=headers)
        t.send("raw.orders", "7", order(3))  # the same event in the other mode
        t.send("raw.orders", "7", order(3, source="/elsewhere"))  # another event: ids are of their source
        t.send("raw.orders", "7", order(9, type="com.example.order.lost"))
        encoded = {**NO_DATA, "id": "e4"}
        t.send(
            "raw.orders",
            "7",
            {**encoded, "data_base64": base64.b64encode(json.dumps(order(4)["data"]).encode()).decode()},
        )
        found = t.profile("shop_id:7")
        assert (found.orders, found.spend) == (5, Decimal("62.50"))
        assert found.trace is not None
        assert [r["at"] for r in t.topic("shop.governed.raw.orders.v1")] == [1_793_606_400_000] * 5
        assert t.topic("shop.dlq") == []
        t.verify()


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (order(1, specversion="0.3"), HEADERS, "specversion"),
        ({k: v for k, v in order(1).items() if k != "id"}, HEADERS, "missing-attribute"),
        (order(1, source=""), HEADERS, "missing-attribute"),
        (order(1, time="soon"), HEADERS, "out-of-range"),
        (order(1, data="<xml/>"), HEADERS, "missing-field"),
        (order(1), [("content-type", b"application/cloudevents+avro")], "data-format"),
        ([order(1)], [("content-type", b"application/cloudevents-batch+json")], "batch"),
        ({**order(1), "data_base64": "%%"}, HEADERS, "not-base64"),
        ({**NO_DATA, "data_base64": "PHhtbC8+", "datacontenttype": "text/xml"}, HEADERS, "data-format"),
        (b"<xml/>", [*binary(order(1))[1][:-1], ("content-type", b"text/xml")], "data-format"),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"\xff")], "not-utf8"),
        (b"[1]", HEADERS, "not-an-object"),
        (b"", HEADERS, "empty"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_put_aside_with_its_reason(
    value: Any, headers: list[tuple[str, bytes]], reason: str
) -> None:
    with TestDriver(shop(), now=NINE) as t:
        t.send("raw.orders", "7", value, headers=headers)
        t.settle()
        (letter,) = t.topic("shop.dlq")
        assert letter["reason"] == reason
        t.verify()


def test_an_attribute_needs_an_event() -> None:
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    class Plain(Record):
        crm: Crm
        trace: str | None = cloudevents.attribute("traceparent")

    with pytest.raises(DeclarationError, match=r"Plain\.trace is an attribute of a CloudEvent; say format="):
        app.source("raw.web", subject="crm")(Plain)


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"]
)
def test_the_scenarios_of_the_conformance_suite(content_type: str) -> None:
    attributes = {
        "specversion": "1.0", "type": "com.example.someevent", "time": "2018-04-05T03:56:24Z", "id": "1234-1234-1234",
        "source": "/mycontext/subcontext", "datacontenttype": "application/json",
    }  # fmt: skip
    decoder = CloudEventsDecoder([Choice(Hello, None)], "dlq")
    structured = json.dumps({**attributes, "data": {"message": "Hello World!"}}).encode()
    headers = [[("content-type", content_type.encode())], binary({**attributes, "data": {}})[1]]
    found = decoder.decode([structured, b'{"message": "Hello World!"}'], lambda i: headers[i])
    wanted = Hello(
        ce_id="1234-1234-1234", ce_source="/mycontext/subcontext", ce_type="com.example.someevent",
        ce_time=datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC), ce_subject=None, message="Hello World!",
    )  # fmt: skip
    assert found == [wanted, wanted]
    assert decoder.ids == ["/mycontext/subcontext 1234-1234-1234"] * 2


def test_the_examples_of_the_specification(shared: Path) -> None:
    lines = (shared / "data" / "events" / "cloudevents" / "spec-examples.jsonl").read_text().splitlines()
    events = [e for line in lines if isinstance(e := json.loads(line)["payload"], dict) and "specversion" in e]
    decoder = CloudEventsDecoder([Choice(cloudevents.Event, None)], "dlq")
    found = decoder.decode([json.dumps(event).encode() for event in events])
    wrong = Counter(
        (r.reason, e.get("specversion"), e.get("datacontenttype"))
        for r, e in zip(found, events, strict=True)
        if isinstance(r, Misfit)
    )
    print(len(events), wrong)
    assert len(events) > 20
    assert not wrong


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("2026-11-02T08:00:00.000999612Z", 1),  # nine digits, as Go writes them, rounded to microseconds
        ("2026-11-02T08:00:00.000999499Z", 0),
        ("2026-11-02t10:00:00.5+02:00", 500),
        ("2026-11-02T08:00:00", 3_600_000),  # of no zone: the record's own
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_an_event_happened_at_its_time_in_milliseconds(time: str, at: int, binary: bool) -> None:
    event = order(1, time=time)
    with TestDriver(shop(), now=NINE) as t:
        if binary:
            data = event.pop("data")
            headers = [(f"ce_{name}", said.encode()) for name, said in event.items()]
            t.send("raw.orders", "7", data, headers=[*headers, ("content-type", b"application/json")])
        else:
            t.send("raw.orders", "7", event, headers=HEADERS)
        (found,) = t.topic("shop.governed.raw.orders.v1")
        assert found["at"] - int(NINE.timestamp() * 1000) + 3_600_000 == at
        t.verify()

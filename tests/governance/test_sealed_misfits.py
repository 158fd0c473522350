"""Dead letters of records that nobody could read, in every format, of sources that declare nothing personal: sealed whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from c360 import App, Projection, Record, count, field, normalize, segment
from c360.engine.transport import Headers
from c360.testing import TestDriver
from tests.sources.registry import FakeRegistry

SAID = b"somebody@mail.se, Secret Street 1"
CE = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/"), ("ce_type", b"t")]


def town() -> App:
    app = App("town", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.identifier("email", normalize=normalize.email, personal=True)
    class Email(str): ...

    @app.source("mails", event_id="id", subject="crm")
    class Mail(Record):
        id: str
        crm: Crm
        email: Email

    @app.source("plain", event_id="id", subject="crm")
    class Plain(Record):
        id: str
        crm: Crm

    @app.source("orders", format="avro", event_id="id", subject="crm")
    class Order(Record):
        id: str
        crm: Crm

    @app.source("events", format="cloudevents", subject="crm")
    class Happened(Record):
        crm: Crm

    @app.source("web", format="segment", subject="user_id")
    class Viewed(segment.Track):
        user_id: Crm | None = segment.user_id
        sku: str = field("properties.sku")

    @app.cdc("rows", key="id")
    class Row(Record):
        id: Crm

    @app.projection("customer")
    class Customer(Projection):
        mails: int = count(Mail)

    return app


def _structured(**said: Any) -> bytes:
    event = {"specversion": "1.0", "id": "1", "source": "/", "type": "t", **said}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


CLOUD: Headers = [("content-type", b"application/cloudevents+json")]
UNREAD: list[tuple[str, bytes, Headers | None, str]] = [
    ("plain", SAID, None, "not-json"),
    ("plain", b'"' + SAID + b'"', None, "not-an-object"),
    ("orders", SAID, None, "no-schema-id"),
    ("orders", b"\0\0\0\0\1" + SAID, None, "not-avro"),
    ("orders", b"\0\0\0\0\7" + SAID, None, "unknown-schema"),
    ("orders", b"\0\0\0\0\2" + SAID, None, "schema"),
    ("events", SAID, CLOUD, "not-json"),
    ("events", SAID, [("content-type", b"application/cloudevents+" + SAID)], "data-format"),
    ("events", SAID, [*CE, ("content-type", SAID)], "data-format"),
    ("events", _structured(datacontenttype=SAID.decode(), data_base64="aGVq"), CLOUD, "data-format"),
    ("events", SAID, [*CE, ("content-type", b"text/plain")], "data-format"),
    ("events", SAID, [("ce_specversion", b"0.3"), *CE[1:]], "specversion"),
    ("events", SAID, [("content-type", b"application/cloudevents-batch+json")], "batch"),
    ("events", _structured(data=SAID.decode(), source=None), CLOUD, "missing-attribute"),
    ("events", _structured(data_base64=SAID.decode()), CLOUD, "not-base64"),
    (
        "web",
        json.dumps({"type": "identify", "userId": "1", "traits": {"email": SAID.decode()}}).encode(),
        None,
        "unmatched",
    ),
    ("web", SAID, None, "not-json"),
    ("rows", json.dumps({"id": "1", "email": SAID.decode()}).encode(), None, "not-a-change"),
]
ROW = {"op": "c", "before": None, "after": {"id": "1"}, "ts_ms": 1}
SAYS_SO = {"type": "struct", "fields": [{"field": "after", "fields": [
    {"field": SAID.decode(), "name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "x"}}]}]}  # fmt: skip


@pytest.mark.parametrize(("topic", "value", "headers", "reason"), UNREAD, ids=[f"{t}-{r}" for t, _, _, r in UNREAD])
def test_what_nobody_could_read_is_sealed_whole(topic: str, value: bytes, headers: Headers | None, reason: str) -> None:
    registry = FakeRegistry()
    registry.publish("orders-value", {"type": "record", "name": "O", "fields": [{"name": "id", "type": "string"}]})
    registry.publish("other", "syntax = 'proto3';", "PROTOBUF")
    with TestDriver(town(), registry=registry) as driver:
        driver.send(topic, SAID, value, headers=[*(headers or []), ("said", SAID)])
        driver.settle()
        ((key, letter),) = [(key, letter) for key, letter in driver.read("town.dlq") if letter is not None]
        said = json.loads(letter)
        assert (said["reason"], key) == (reason, None)
        for part in (SAID, b"mail.se", b"Secret"):
            assert part not in letter
        assert {name for name in ("key", "value", "headers", "traceback") if said.get(name)} == set()
        assert said["sealed"]["~sealed"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**ROW, "source": {"connector": SAID.decode(), "ts_ms": 1}}, "no-position"),
        ({"schema": SAYS_SO, "payload": {**ROW, "source": {"connector": "postgresql", "lsn": 1}}}, "out-of-range"),
    ],
    ids=lambda said: said if isinstance(said, str) else "",
)
def test_the_reason_has_no_word_of_the_record(value: Any, reason: str) -> None:
    with TestDriver(town()) as driver:
        driver.send("rows", "{}", value)
        (letter,) = driver.topic("town.dlq")
        assert (letter["reason"], SAID.decode() in letter["error"]) == (reason, False)


def test_of_what_could_be_read_and_has_nothing_personal_the_reason_and_the_record_stay_in_clear() -> None:
    with TestDriver(town()) as driver:
        driver.send("plain", "k", b'{"id": "1", "crm": [7]}')
        (letter,) = driver.topic("town.dlq")
        assert (letter["reason"], letter.get("sealed")) == ("wrong-type", None)

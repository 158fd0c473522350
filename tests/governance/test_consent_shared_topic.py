"""One raw topic that govern and consent both read, as Segment sends everything in one."""

from __future__ import annotations

from typing import Any

from c360 import App, Projection, Record, count, field
from c360.ops import dlq
from c360.testing import TestDriver
from tests.governance.decided import NOW, statuses


def app() -> App:
    app = App("shop", partitions=3)

    @app.identifier("cookie")
    class Cookie(str): ...

    marketing = app.purpose("marketing")

    @app.source(
        "calls", subject="cookie", event_id="id", when={"type": "track"}, unmatched="ignore", purposes=[marketing]
    )
    class Track(Record):
        id: str = field("messageId")
        cookie: Cookie = field("anonymousId")

    @app.consent("calls", categories={"Advertising": "marketing"})
    class Call(Record):
        cookie: Cookie | None = field("anonymousId")
        preferences: dict[str, Any] | None = field("context.consent.categoryPreferences")

    @app.projection("customer")
    class Customer(Projection):
        calls: int = count(Track)

    return app


def call(n: int, preferences: Any = None, **more: Any) -> dict[str, Any]:
    context = {} if preferences is None else {"consent": {"categoryPreferences": preferences}}
    return {"type": "track", "messageId": f"m{n}", "anonymousId": "c-1", "context": context, **more}


def test_both_read_it_each_with_its_own_misfits() -> None:
    with TestDriver(app(), now=NOW) as t:
        t.send("calls", None, call(1))
        t.send("calls", None, call(2, {"Advertising": True}))
        t.send("calls", None, call(3, {"Parties": True}))  # consent's
        t.send("calls", None, {"type": "track", "context": {}})  # govern's
        t.send(
            "calls",
            None,
            {"type": "identify", "anonymousId": "c-2", "context": call(0, {"Advertising": False})["context"]},
        )
        assert t.profile("cookie:c-1").calls == 3
        assert statuses(t) == {"cookie:c-1": {"marketing": "granted"}, "cookie:c-2": {"marketing": "denied"}}
        assert sorted((letter["stage"], letter["offset"]) for letter in t.topic("shop.dlq")) == [
            ("consent", offset_of(t, b"m3")), ("govern", offset_of(t, b'{"type": "track", "context": {}}')),
        ]  # fmt: skip
        assert dlq.replay(t.plan, t.cluster, topic=None, reason=None) == {"replayed": 2, "cut": 0, "other": 0}
        t.verify()


def offset_of(t: TestDriver, text: bytes) -> int:
    """Of the raw record that has this in it."""
    for log in t.cluster.topics["calls"].partitions:
        for offset, value in zip(log.offsets, log.values, strict=True):
            if value is not None and text in value:
                return offset
    raise AssertionError("there is no such record")

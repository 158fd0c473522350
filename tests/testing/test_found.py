"""Stories that the oracle found. Each fails until what it names is mended; then its mark goes (xfail is strict)."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import c360
from c360 import App, Projection, Record
from tests.testing.shop import change
from tests.testing.world import World


class Uid(str): ...


class Color(Enum):
    red = "red"


class Inner(Record):
    price: Decimal
    at: datetime | None


class Event(Record):
    who: Uid
    enum: Color | None = None
    raw: bytes | None = None
    inner: Inner | None = None
    decimals: list[Decimal] | None = None
    pair: tuple[str, int] | None = None
    uuid: UUID | None = None
    big: int | None = None


class Row(Record):
    key: int
    who: Uid
    text: str | None = None


def world_of(attribute: Any, annotation: Any = Any) -> World:
    app = App("found", partitions=2)
    app.identifier("uid")(Uid)
    app.source("events", subject="who")(Event)
    app.cdc("rows", key="key", subject="who")(Row)
    body = {"a": attribute, "n": c360.count(Event, Row), "__annotations__": {"a": annotation, "n": int}}
    app.projection("p")(type("P", (Projection,), body))
    return World(app)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("enum", "red"),
        ("raw", "aGk="),
        ("inner", {"price": "1.50", "at": "2026-01-01T00:00:00Z"}),
        ("decimals", ["1.50", "2"]),
        ("uuid", "00000000-0000-4000-8000-00000000000b"),
    ],
)
def test_a_field_of_any_declarable_type_can_be_an_attribute(name: str, said: Any) -> None:
    world = world_of(c360.newest(getattr(Event, name)))
    world.send("events", "k", {"who": "1", name: said})
    world.settle()
    assert world.latest("found.p.v1")["uid:1"]["attributes"]["a"] == said
    assert world.report().examples == []


def test_a_value_that_an_attribute_cannot_take_is_put_aside_and_the_worker_lives() -> None:
    world = world_of(c360.newest(Event.big))
    world.send("events", "k", {"who": "1", "big": 10**450})
    world.send("events", "k", {"who": "1", "big": 7})
    world.settle()
    assert world.latest("found.p.v1")["uid:1"]["attributes"] == {"a": 7, "n": 1}
    assert [m["stage"] for m in world.values("found.dlq")] == ["p@1"]
    assert world.report().examples == []


def test_a_pair_of_text_and_number_stays_a_pair() -> None:
    world = world_of(c360.count(Event.pair), int)
    world.send("events", "k", {"who": "1", "pair": ["a", 1]})
    world.settle()
    assert [g["record"]["pair"] for g in world.values("found.governed.events.v1")] == [["a", 1]]
    assert world.report().examples == []


def test_an_unsent_column_that_nobody_declared_does_not_matter() -> None:
    world = world_of(c360.newest(Row.text))
    row = {"key": 1, "who": "1", "text": "a", "blob": "__debezium_unavailable_value"}
    world.send("rows", json.dumps({"key": 1}), change("u", 5, row))
    world.settle()
    assert world.values("found.dlq") == []
    assert world.report().examples == []


def test_a_change_streamed_from_the_very_place_of_a_snapshot_is_newer() -> None:
    """A snapshot's lsn is the end of the log, which is where the next change begins."""
    world = world_of(c360.newest(Row.text))
    world.send("rows", json.dumps({"key": 1}), change("r", 5, {"key": 1, "who": "1", "text": "old"}, snapshot="true"))
    world.send("rows", json.dumps({"key": 1}), change("u", 5, {"key": 1, "who": "1", "text": "new"}))
    world.settle()
    assert world.latest("found.p.v1")["uid:1"]["attributes"]["a"] == "new"
    assert world.report().examples == []

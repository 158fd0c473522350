"""One contract of registries, which the fake of the tests and a real one keep; and a run in which the real one goes away."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Protocol

import pytest
from fastavro import parse_schema

from c360.codecs.avro import Registry, Values
from c360.engine.registry import SchemaRegistry
from c360.errors import Misfit, RegistryAway, Shut, UsageError
from c360.ops.contracts import Subjects
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.registry import Apicurio, Reference
from tests.sources.registry import FakeRegistry, written
from tests.sources.test_avro import NINE, ORDER, order, shop


class Told(Protocol):
    """Who keeps schemas, as producers see it."""

    def publish(self, subject: str, schema: Any, kind: str = "AVRO", references: Sequence[Reference] = ()) -> int: ...
    def compatibility(self, subject: str, level: str) -> None: ...


class Keeper(Registry, Subjects, Protocol):
    """Who keeps schemas, as we see it."""


class Pair:
    """A registry, as producers see it and as we do; `tag` keeps the tests' subjects apart."""

    def __init__(self, told: Told, asked: Keeper, tag: str) -> None:
        self.told, self.asked, self.tag = told, asked, tag

    def register(self, name: str, schema: Any, kind: str = "AVRO", references: Sequence[Reference] = ()) -> int:
        return self.told.publish(f"{self.tag}-{name}", schema, kind, references)

    def write(self, number: int, value: Any, schema: Any) -> bytes:
        return b"\0" + number.to_bytes(4, "big") + written(parse_schema(schema), value)


@pytest.fixture(params=["fake", "real"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    tag = f"t{uuid.uuid4().hex[:8]}"
    if request.param == "fake":
        fake = FakeRegistry()
        yield Pair(fake, fake, tag)
    else:
        real: Apicurio = request.getfixturevalue("real_registry")
        with closing(SchemaRegistry(real.url)) as asked:
            yield Pair(real, asked, tag)


def test_a_schema_is_found_by_its_id_and_equal_ones_have_one(pair: Pair) -> None:
    one, two = pair.register("a-value", ORDER), pair.register("b-value", {**ORDER, "doc": "another"})
    assert pair.register("a-value", ORDER) == one != two
    found = pair.asked.schema(one)
    assert (found.kind, json.loads(found.text), found.references) == ("AVRO", ORDER, ())


def test_an_id_that_there_is_not_is_a_misfit(pair: Pair) -> None:
    with pytest.raises(Misfit) as refused:
        pair.asked.schema(987_654)
    assert refused.value.reason == "unknown-schema"


def test_what_a_schema_refers_to_comes_with_it(pair: Pair) -> None:
    place = {
        "type": "record",
        "name": "Place",
        "namespace": "x",
        "fields": [{"name": "city", "type": ["null", "string"]}],
    }
    who = {"type": "record", "name": "Who", "namespace": "x", "fields": [{"name": "at", "type": "x.Place"}]}
    pair.register("place", place)
    number = pair.register("who", who, references=[("x.Place", f"{pair.tag}-place", 1)])
    assert [json.loads(text) for text in pair.asked.schema(number).references] == [place]
    value = b"\0" + number.to_bytes(4, "big") + b"\2\x08Lund"
    assert Values(pair.asked).read(value) == {"at": {"city": "Lund"}}


def test_a_schema_of_kind_json_and_one_of_protobuf_are_told_as_such(pair: Pair) -> None:
    number = pair.register("j", {"type": "object", "properties": {"a": {"type": "string"}}}, "JSON")
    assert pair.asked.schema(number).kind == "JSON"
    number = pair.register("p", 'syntax = "proto3"; package crm; message A { string id = 1; }', "PROTOBUF")
    assert pair.asked.schema(number).kind == "PROTOBUF"
    with pytest.raises(Misfit, match="Protobuf"):
        Values(pair.asked).read(b"\0" + number.to_bytes(4, "big") + b"\0\x0a\1a")


def test_writers_of_three_generations_are_read_by_one_reader(pair: Pair) -> None:
    """An alias, a default, a wider number, a union that was none; logical types as what they mean."""

    def generation(*fields: dict[str, Any]) -> dict[str, Any]:
        return {"type": "record", "name": "Visit", "namespace": pair.tag, "fields": list(fields)}

    at = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
    first = generation({"name": "buyer", "type": "int"}, {"name": "city", "type": "string"}, at)
    second = generation(
        {"name": "who", "type": "long", "aliases": ["buyer"]}, {"name": "city", "type": ["null", "string"]}, at
    )
    third = generation(*second["fields"], {"name": "pages", "type": "double", "default": 1.5})
    values = Values(pair.asked, third)
    said: list[tuple[Any, dict[str, Any]]] = [
        (first, {"buyer": 7, "city": "Lund"}),
        (second, {"who": 8, "city": None}),
        (third, {"who": 9, "city": "x", "pages": 2}),
    ]
    found = [
        values.read(pair.write(pair.register(f"v{n}", schema), {**value, "at": NINE}, schema))
        for n, (schema, value) in enumerate(said)
    ]
    assert found == [
        {"who": 7, "city": "Lund", "at": NINE, "pages": 1.5},
        {"who": 8, "city": None, "at": NINE, "pages": 1.5},
        {"who": 9, "city": "x", "at": NINE, "pages": 2.0},
    ]


def fields(*names: str, **more: Any) -> str:
    said: list[dict[str, Any]] = [{"name": name, "type": ["null", "string"], "default": None} for name in names]
    said += [{"name": name, "type": kind} for name, kind in more.items()]
    return json.dumps({"type": "record", "name": "R", "fields": said})


def test_a_schema_that_we_write_is_registered_once_and_its_subject_asks_what_it_must(pair: Pair) -> None:
    subject, asked = f"{pair.tag}-ours-value", pair.asked
    assert (asked.find(subject, fields("a")), asked.level(subject)) == (None, None)
    number = asked.put(subject, fields("a"), "BACKWARD_TRANSITIVE")
    assert (asked.find(subject, fields("a")), asked.level(subject)) == (number, "BACKWARD_TRANSITIVE")
    assert asked.put(subject, fields("a"), "BACKWARD_TRANSITIVE") == number
    newer = asked.put(subject, fields("b"), "BACKWARD_TRANSITIVE")
    assert asked.find(subject, fields("a")) == number != newer == asked.find(subject, fields("b"))
    assert asked.schema(newer).text == fields("b")


def test_what_readers_of_the_newest_could_not_read_is_refused(pair: Pair) -> None:
    """Also what was registered while nothing was asked of the subject."""
    subject, asked = f"{pair.tag}-strict-value", pair.asked
    pair.told.publish(subject, fields("a"))
    pair.told.compatibility(subject, "NONE")
    assert asked.level(subject) == "NONE"
    with pytest.raises(UsageError, match="compatible"):
        asked.put(subject, fields("a", must="string"), "BACKWARD_TRANSITIVE")
    assert asked.find(subject, fields("a", must="string")) is None


# ------------------------------------------------------------------------------------------------------- a real one
def test_it_stops_and_comes_back_in_the_middle_of_a_run(real_registry: Apicurio) -> None:
    """Known ids go on, unknown ones wait, nothing is put aside, and each id is asked for once."""
    tag = f"t{uuid.uuid4().hex[:8]}"
    schemas = [{**ORDER, "doc": f"{tag} {n}"} for n in range(2)]
    one, two = (real_registry.publish(f"{tag}-value", schema) for schema in schemas)
    values = {n: b"\0" + n.to_bytes(4, "big") for n in (one, two)}

    def value(number: int, event: int) -> bytes:
        return values[number] + written(parse_schema(ORDER), order(event))

    registry = SchemaRegistry(real_registry.url)
    with closing(registry), TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", value(one, 1), partition=0)
        header = ("__value_schema_id", b"\0" + one.to_bytes(4, "big"))
        t.send("orders", "7", value(one, 2)[5:], partition=1, headers=[header])
        assert t.profile("crm:7").orders == 2
        assert registry.questions == 1
        real_registry.pause()
        try:
            t.send("orders", "7", value(two, 3), partition=0)
            t.send("orders", "7", value(one, 4), partition=1)
            assert t.profile("crm:7").orders == 3
            assert registry.unanswered > 0
            page = page_of(t.loops, {}, 0)
            assert 'c360_held_inputs{agent="govern"} 1' in page
            assert f'c360_registry_unanswered_total{{agent="govern"}} {registry.unanswered}' in page
            with pytest.raises(Shut, match="C360_REGISTRY"):
                registry.schema(two)
        finally:
            real_registry.resume()
        time.sleep(0.6)  # until it is asked again
        assert t.profile("crm:7").orders == 4
        asked = registry.questions
        t.send("orders", "7", value(two, 5), partition=1)
        assert t.profile("crm:7").orders == 5
        assert registry.questions == asked
        assert t.topic("shop.dlq") == []
        t.verify()


def test_a_url_where_nobody_is_does_not_answer() -> None:
    with closing(SchemaRegistry("http://127.0.0.1:9")) as registry:
        with pytest.raises(Shut):
            registry.schema(1)
        with pytest.raises(RegistryAway):
            registry.find("x-value", fields("a"))

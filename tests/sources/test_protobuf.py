"""Values in Protobuf, read by a generated class: what they become, what is wrong with them, and what an app may say of them."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.common.serde import SchemaId
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from c360 import App, Personal, Projection, Record, count, field, newest, total
from c360.codecs.avro import NoRegistry
from c360.codecs.messages import descriptor_of, file_in, file_of
from c360.codecs.protobuf import IDS_MOST, OTHER, MessageChoice, ProtobufDecoder, indexes_of
from c360.engine.registry import SchemaRegistry
from c360.errors import DeclarationError, Misfit
from c360.serving.metrics import page_of
from c360.testing import TestDriver
from tests.docs.pages import fences
from tests.registry import Apicurio
from tests.sources.protobuf import legacy_pb2, shop_pb2
from tests.sources.protobuf.made import KINDS, everything, framed, order, whole_record
from tests.sources.registry import FakeRegistry

NINE = datetime(2026, 11, 2, 9, tzinfo=UTC)
HERE = Path(__file__).parent / "protobuf"
SHOP, LEGACY = (HERE / name for name in ("shop.proto", "legacy.proto"))
FIRST = b"\0\0\0\0\1"


class Line(Record):
    sku: str
    price: Decimal = field("cents", scale=2)


def shop(message: Any = shop_pb2.Order, **source: Any) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.source("orders", format="protobuf", schema=message, event_id="id", at="placed", subject="customer", **source)
    class Order(Record):
        id: str
        customer: Crm
        amount: Decimal
        placed: datetime
        state: str
        day: date | None
        city: str | None = field("where.city")
        lines: list[Line]
        first: str | None = field("lines.0.sku")

    @app.projection("customer")
    class Customer(Projection):
        orders: int = count(Order)
        spend: Decimal = total(Order.amount)
        city: str | None = newest(Order.city)
        first: str | None = newest(Order.first)
        day: date | None = newest(Order.day)
        state: str | None = newest(Order.state)

    return app


# --------------------------------------------------------------------------------------------------------- profiles
def test_values_become_a_profile_and_no_registry_is_needed() -> None:
    with TestDriver(shop(), now=NINE) as t:
        for n in (1, 2, 2):
            t.send("orders", "7", framed(order(n)))
        t.send("orders", "7", framed(order(3), 42))
        guid = uuid.uuid4().bytes
        t.send("orders", "7", b"\1" + guid + b"\0" + order(4).SerializeToString())
        t.send("orders", "7", order(5).SerializeToString(), headers=[("__value_schema_id", b"\1" + guid + b"\0")])
        t.send("orders", "7", order(6).SerializeToString(), headers=[("__value_schema_id", b"\0\0\0\0\x2a\0")])
        found = t.profile("crm:7")
        assert (found.orders, found.spend, found.city, found.first) == (6, Decimal("75.00"), "Lund", "a")
        assert (found.day, found.state) == (date(2026, 11, 2), "PAID")
        assert t.topic("shop.dlq") == []
        t.verify()


def test_a_registry_is_asked_once_for_each_id_and_values_are_counted_by_it() -> None:
    registry = FakeRegistry()
    number = registry.publish("orders-value", SHOP.read_text(), "PROTOBUF")
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        for n in range(20):
            t.send("orders", str(n), framed(order(n), number))
        t.send("orders", "7", FIRST + b"\0\xff")
        t.settle()
        assert registry.asked == {number: 1}
        page = [line for line in page_of(t.loops, {}, 0).splitlines() if line.startswith("c360_schema_")]
        said = f'{{source="orders",schema="{number}"}}'
        assert page == [f"c360_schema_records_total{said} 21", f"c360_schema_misfits_total{said} 1"]
        t.verify()


def test_while_it_is_away_known_schemas_go_on_unknown_ones_wait_and_nothing_is_put_aside() -> None:
    registry = FakeRegistry()
    one, two = (registry.publish("orders-value", SHOP.read_text() + "\n" * n, "PROTOBUF") for n in range(2))
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", framed(order(1), one), partition=0)
        assert t.profile("crm:7").orders == 1
        registry.away = True
        t.send("orders", "7", framed(order(2), two), partition=0)
        t.send("orders", "7", framed(order(3), one), partition=1)
        assert t.profile("crm:7").orders == 2
        registry.away = False
        time.sleep(0.6)  # until it is asked again
        assert t.profile("crm:7").orders == 3
        assert t.topic("shop.dlq") == []
        t.verify()


def test_without_a_registry_only_so_many_ids_are_told_apart() -> None:
    decoder = decoder_of(shop_pb2.Order, NoRegistry(), id=str)
    values = [framed(order(), n) for n in range(IDS_MOST + 50)]
    assert not [one for one in decoder.decode(values) if isinstance(one, Misfit)]
    assert len(decoder.values.records) == IDS_MOST + 1
    assert decoder.values.records[OTHER] == 50


# -------------------------------------------------------------------------------------------------------- evolution
def older_class() -> tuple[type[Message], str]:
    """Order as a writer of another day has it: second in its file, with a field more and a state more."""
    proto = FileDescriptorProto()
    shop_pb2.DESCRIPTOR.CopyToProto(proto)
    order_, *_ = proto.message_type
    order_.field.add(name="later", number=99, type=FieldDescriptorProto.TYPE_STRING)
    proto.enum_type[0].value.add(name="LOST", number=7)
    del proto.message_type[1:]
    before = type(order_)(name="Before")
    proto.message_type.insert(0, before)
    pool = DescriptorPool()
    for other in shop_pb2.DESCRIPTOR.dependencies:
        _add(pool, other)
    pool.Add(proto)
    text = 'syntax = "proto3"; package c360.tests.shop; message Before {} message Order { string later = 99; }'
    return GetMessageClass(pool.FindMessageTypeByName("c360.tests.shop.Order")), text


def _add(pool: DescriptorPool, file: Any) -> None:
    for other in file.dependencies:
        _add(pool, other)
    pool.AddSerializedFile(file.serialized_pb)


def test_what_a_newer_writer_has_is_not_seen_and_its_file_says_which_message_an_index_is() -> None:
    newer, text = older_class()
    registry = FakeRegistry()
    ours = registry.publish("orders-value", SHOP.read_text(), "PROTOBUF")
    theirs = registry.publish("orders-value", text, "PROTOBUF")
    theirs_order = newer.FromString(order(2).SerializeToString())
    theirs_order.later = "x"  # type: ignore[attr-defined]
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", framed(order(1), ours))
        t.send("orders", "7", framed(theirs_order, theirs, b"\2\2"))  # [1]
        assert t.profile("crm:7").orders == 2
        t.send("orders", "7", framed(theirs_order, theirs, b"\0"))
        t.send("orders", "7", framed(shop_pb2.Refund(id="r", customer=7), ours, b"\2\2"))
        t.settle()
        assert [letter["reason"] for letter in t.topic("shop.dlq")] == ["other-message"] * 2
        assert t.profile("crm:7").orders == 2
        t.verify()
    with TestDriver(shop(unmatched="ignore"), now=NINE, registry=registry) as t:
        t.send("orders", "7", framed(theirs_order, theirs, b"\0"))
        t.send("orders", "7", framed(order(1), ours))
        assert t.profile("crm:7").orders == 1
        assert t.topic("shop.dlq") == []
        t.verify()


def test_a_number_that_the_enum_has_not_is_a_misfit_where_a_name_is_read_and_none_where_it_is_not() -> None:
    (found,) = decoder_of(shop_pb2.Order, state=str).decode([framed(order(state=9))])
    assert isinstance(found, Misfit)
    assert (found.reason, str(found)) == ("wrong-type", "Order.state: expected `str`, got `int`")
    (found,) = decoder_of(shop_pb2.Order, id=str).decode([framed(order(state=9))])
    assert isinstance(found, Record)


def test_the_indexes_of_messages_inside_of_others_are_read_as_each_client_writes_them() -> None:
    """Everything.Tree stands behind the entry of a map, which Python counts and Java does not."""
    tree = shop_pb2.Everything.Tree(name="t")
    decoder = decoder_of(shop_pb2.Everything.Tree, name=str)
    for indexes in (b"\4\4\2", b"\4\4\0"):  # [2, 1] and [2, 0]
        (found,) = decoder.decode([framed(tree, 1, indexes)])
        assert isinstance(found, Record), found
    for indexes in (b"\0", b"\2\4", b"\4\4\4", b"\4\x0e\0", b"\2\1"):
        (found,) = decoder.decode([framed(tree, 1, indexes)])
        assert isinstance(found, Misfit)
        assert found.reason == "other-message"


@pytest.mark.parametrize(("path", "made"), [(SHOP, shop_pb2.Order), (LEGACY, legacy_pb2.Call)])
def test_the_messages_in_the_text_of_a_schema_are_those_that_protoc_finds(path: Path, made: type[Message]) -> None:
    assert file_in(path.read_text()) == file_of(descriptor_of(made))
    proto = FileDescriptorProto()
    descriptor_of(made).file.CopyToProto(proto)
    assert file_in(b64encode(proto.SerializeToString()).decode()) == file_of(descriptor_of(made))


def test_texts_of_schemas_may_have_anything_in_them() -> None:
    text = """
    // message A {
    /* message B { */ syntax = 'proto3'; package a . b;
    option (opt) = { text: "}" more { number: 1 } };
    enum E { NONE = 0; }
    message C { oneof o { string x = 2 [(opt) = {a: 1}]; int32 message = 9; } extensions 5 to 9; message D { reserved "m{"; } }
    service S { rpc F(C) returns (E) { option (opt) = { get: "/x" }; } }
    extend C { optional group G = 5 { optional int32 i = 1; } }
    message H {}
    """
    file = file_in(text)
    assert [file.names(indexes) for indexes in ((0,), (0, 0), (1,), (2,), (3,), ())] == [
        ["a.b.C"], ["a.b.C.D"], ["a.b.G"], ["a.b.H"], [], [],
    ]  # fmt: skip
    for broken in ("message A {", "}", "message A { " * 200 + "}" * 200):
        with pytest.raises(ValueError, match=r"brace|deep"):
            file_in(broken)


# ------------------------------------------------------------------------------------------------------------ values
def decoder_of(message: type[Message], registry: Any = None, /, **fields: Any) -> ProtobufDecoder:
    record = type("Order", (Record,), {"__annotations__": fields, "__module__": __name__})
    return ProtobufDecoder([MessageChoice(record, None, message)], "dlq", registry or NoRegistry())


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_field_is_what_it_means(name: str) -> None:
    annotation, expected = KINDS[name]
    (found,) = decoder_of(shop_pb2.Everything, **{name: annotation}).decode([framed(everything(), 1, b"\2\4")])
    assert not isinstance(found, Misfit), found
    assert getattr(found, name) == expected
    assert type(getattr(found, name)) is type(expected)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"payment"}))
def test_a_field_without_presence_is_there_at_its_default_and_one_with_presence_is_not(name: str) -> None:
    annotation, _ = KINDS[name]
    (found,) = decoder_of(shop_pb2.Everything, **{name: annotation}).decode([framed(shop_pb2.Everything(), 1, b"\2\4")])
    if not shop_pb2.Everything.DESCRIPTOR.fields_by_name[name].has_presence:
        assert not getattr(found, name)
        assert getattr(found, name) is not None
    elif type(None) in get_args(annotation) or annotation is Any:
        assert getattr(found, name) is None
    else:
        assert isinstance(found, Misfit)
        assert found.reason == "missing-field"


def test_places_units_and_fields_that_are_words_of_python_are_read() -> None:
    class Told(Record):
        at: datetime = field("placed_ms", unit="ms")
        where: str = field("from")
        leaf: str = field("tree.children.0.name")
        deep: str | None = field("tree.children.0.children.5.name")
        first: str = field("states.0")
        a: int = field("counted.a")
        flag: bool = field("extra.b.0")

    said = everything()
    said.placed_ms = int(NINE.timestamp() * 1000)
    decoder = ProtobufDecoder([MessageChoice(Told, None, shop_pb2.Everything)], "dlq", NoRegistry())
    (found,) = decoder.decode([framed(said, 1, b"\2\4")])
    assert found == Told(at=NINE, where="here", leaf="leaf", deep=None, first="NEW", a=1, flag=True)


def test_times_are_cut_to_microseconds() -> None:
    made = order()
    made.placed.nanos = 123_456_999
    (found,) = decoder_of(shop_pb2.Order, placed=datetime).decode([framed(made)])
    assert found.placed == NINE + timedelta(microseconds=123_456)  # type: ignore[union-attr]


def test_proto2_has_presence_everywhere_closed_enums_and_groups() -> None:
    decoder = decoder_of(legacy_pb2.Call, id=str, kind=str | None, seconds=int | None, leg=list[Any])
    said = legacy_pb2.Call(id="a")
    said.leg.add(to="b")
    for data in (b"", b"\x18\x09"):  # a number that the enum has not is an unknown field
        (found,) = decoder.decode([framed(said) + data])
        assert (found.id, found.kind, found.seconds, found.leg) == ("a", None, None, [{"to": "b"}])  # type: ignore[union-attr]
    (found,) = decoder.decode([FIRST + b"\0\x0a\2\xff\xfe"])
    assert isinstance(found, Misfit)
    assert found.reason == "not-utf8"


def _changed(**said: Any) -> Callable[[shop_pb2.Everything], None]:
    def change(made: shop_pb2.Everything) -> None:
        for path, value in said.items():
            *above, last = path.split("__")
            here: Any = made
            for name in above:
                here = getattr(here, name)
            setattr(here, last, value)

    return change


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("rate", _changed(rate=float("nan")), "out-of-range"),
        ("any", _changed(any__number_value=float("inf")), "out-of-range"),
        ("cash", _changed(cash__value="1_0"), "wrong-type"),
        ("cash", _changed(cash__value="NaN"), "wrong-type"),
        ("cash", _changed(cash__value="1e999999999"), "out-of-range"),
        ("cash", _changed(cash__value="1" * 1_000_000), "out-of-range"),
        ("exact", _changed(exact__value=b"\x7f" * 1_000_000), "out-of-range"),
        ("exact", _changed(exact__scale=2_000_000_000), "out-of-range"),
        ("took", _changed(took__nanos=1_000_000_000), "out-of-range"),
    ],
)
def test_a_value_that_is_none_is_a_misfit_where_it_is_read(name: str, change: Any, reason: str) -> None:
    said = everything()
    change(said)
    (found,) = decoder_of(shop_pb2.Everything, **{name: KINDS[name][0]}).decode([framed(said, 1, b"\2\4")])
    assert isinstance(found, Misfit)
    assert found.reason == reason
    (found,) = decoder_of(shop_pb2.Everything, customer=int).decode([framed(said, 1, b"\2\4")])
    assert isinstance(found, Record), found


@pytest.mark.parametrize("deep", [False, True])
def test_a_value_whose_messages_take_two_bytes_each_is_no_gigabyte(deep: bool) -> None:
    said = shop_pb2.Everything(customer=7)
    data = b"\x12\0" * 450_000  # children
    said.tree.MergeFromString(data if not deep else (b"\x12" + bytes([100]) + b"\x12\0" * 50) * 9_000)
    value = framed(said, 1, b"\2\4")
    (found,) = decoder_of(shop_pb2.Everything, tree=Any).decode([value])
    assert isinstance(found, Misfit)
    assert found.reason == "too-large"
    (found,) = decoder_of(shop_pb2.Everything, customer=int).decode([value])
    assert isinstance(found, Record)


@pytest.mark.parametrize("seconds", [-(10**13), 10**13, 2**63 - 1])
def test_a_time_in_no_year_is_a_misfit(seconds: int) -> None:
    made = order()
    made.placed.seconds = seconds
    (found,) = decoder_of(shop_pb2.Order, placed=datetime).decode([framed(made)])
    assert isinstance(found, Misfit)
    assert found.reason == "out-of-range"


# ------------------------------------------------------------------------------------------------- what cannot be read
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value[:-1], "not-protobuf"),
        (lambda value: value[:5], "not-protobuf"),
        (lambda value: value[:3], "no-schema-id"),
        (lambda value: b'{"id": 1}', "no-schema-id"),
        (lambda value: b"", "empty"),
        (lambda value: value[:5] + b"\x80" * 20, "not-protobuf"),
        (lambda value: value[:5] + b"\xff\xff\xff\xff\x0f" + value[6:], "not-protobuf"),
        (lambda value: value[:5] + b"\2\xfe\xff\xff\xff\x0f" + value[6:], "other-message"),
        (lambda value: value[:5] + b"\2\2" + value[6:], "other-message"),
        (lambda value: b"\0\0\0\0\x63" + value[5:], "unknown-schema"),
        (lambda value: b"\0\0\0\0\2" + value[5:], "schema"),
        (lambda value: b"\0\0\0\0\3" + value[5:], "schema"),
        (lambda value: b"\0\0\0\0\4" + value[5:], "schema"),
        (lambda value: value[:6] + b"\x1a\x02\x0a\x00", "missing-field"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_put_aside_with_its_reason(change: Any, reason: str) -> None:
    registry = FakeRegistry()
    number = registry.publish("orders-value", SHOP.read_text(), "PROTOBUF")
    registry.register({"type": "string"})
    registry.register({}, "JSON")
    registry.publish("orders-value", "message A {", "PROTOBUF")
    with TestDriver(shop(), now=NINE, registry=registry) as t:
        t.send("orders", "7", change(framed(order(1), number)), partition=0)
        t.send("orders", "7", framed(order(2), number), partition=0)
        assert t.profile("crm:7").orders == 1
        (letter,) = t.topic("shop.dlq")
        assert letter["reason"] == reason
        t.verify()


def test_avro_says_how_protobuf_is_read() -> None:
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    @app.source("raw", format="avro", subject="crm")
    class Told(Record):
        crm: Crm

    registry = FakeRegistry()
    registry.publish("raw-value", SHOP.read_text(), "PROTOBUF")
    with TestDriver(app, now=NINE, registry=registry) as t:
        t.send("raw", "7", framed(order(1)))
        t.settle()
        (letter,) = t.topic("shop.dlq")
        assert letter["reason"] == "schema"
        assert 'format="protobuf" reads' in letter["error"]


@given(st.binary(max_size=12))
def test_indexes_are_read_or_refused(data: bytes) -> None:
    try:
        found, at = indexes_of(data)
    except Misfit:
        return
    assert 1 <= len(found) <= 100
    assert 1 <= at <= len(data)


# ----------------------------------------------------------------------------------------------------- several, sealed
def two(**source: Any) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    @app.source("money", format="protobuf", schema=shop_pb2.Order, event_id="id", subject="customer", **source)
    class Order(Record):
        id: str
        customer: Crm
        amount: Decimal

    @app.source("money", format="protobuf", schema=shop_pb2.Refund, event_id="id", subject="customer", **source)
    class Refund(Record):
        id: str
        customer: Crm
        amount: Personal[Decimal]

    @app.projection("customer")
    class Customer(Projection):
        spend: Decimal = total(Order.amount)
        refunds: int = count(Refund)
        back: Decimal | None = newest(Refund.amount)

    return app


def refund(number: int) -> shop_pb2.Refund:
    made = shop_pb2.Refund(id=f"r{number}", customer=7)
    made.amount.value, made.amount.scale = b"\x04\xe2", 2
    return made


def test_messages_of_several_kinds_in_one_topic_need_no_when_and_what_is_personal_is_sealed() -> None:
    with TestDriver(two(), now=NINE) as t:
        t.send("money", "7", framed(order(1)))
        t.send("money", "7", framed(refund(1), 1, b"\2\2"))
        t.send("money", "7", framed(shop_pb2.Everything(customer=7), 1, b"\2\4"))
        found = t.profile("crm:7")
        assert (found.spend, found.refunds, found.back) == (Decimal("12.50"), 1, Decimal("12.50"))
        (letter,) = t.topic("shop.dlq")
        assert (letter["reason"], letter["error"]) == (
            "other-message",
            "the value is c360.tests.shop.Everything, and this topic is read as c360.tests.shop.Order or"
            " c360.tests.shop.Refund",
        )
        governed = {said["type"]: said["record"]["amount"] for said in t.topic("shop.governed.money.v1")}
        assert governed["Order"] == "12.50"
        assert governed["Refund"] != "12.50"
        t.verify()


def test_messages_of_two_files_at_the_same_place_need_a_registry() -> None:
    class Order(Record):
        id: str

    class Call(Record):
        id: str

    choices = [MessageChoice(Order, None, shop_pb2.Order), MessageChoice(Call, None, legacy_pb2.Call)]
    (found,) = ProtobufDecoder(choices, "dlq", NoRegistry()).decode([framed(order())])
    assert isinstance(found, Misfit)
    assert found.reason == "no-registry"
    assert "set C360_REGISTRY" in str(found)
    registry = FakeRegistry()
    one, two = (registry.publish("x", path.read_text(), "PROTOBUF") for path in (SHOP, LEGACY))
    decoder = ProtobufDecoder(choices, "dlq", registry)
    assert decoder.decode([framed(order(), one), framed(legacy_pb2.Call(id="c"), two)]) == [
        Order(id=order().id), Call(id="c"),
    ]  # fmt: skip


def test_types_of_one_message_are_told_apart_by_its_values_and_by_its_oneofs() -> None:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    said: dict[str, Any] = {"format": "protobuf", "schema": shop_pb2.Everything, "subject": "customer"}

    @app.source("all", when={"payment": "card"}, **said)
    class Card(Record):
        customer: Crm
        card: str

    @app.source("all", when={"payment": "cash", "ok": True}, **said)
    class Cash(Record):
        customer: Crm
        cash: Decimal

    @app.projection("customer")
    class Customer(Projection):
        cards: int = count(Card)
        cash: Decimal = total(Cash.cash)

    with TestDriver(app, now=NINE) as t:
        t.send("all", "7", framed(everything(), 1, b"\2\4"))
        t.send("all", "7", framed(shop_pb2.Everything(customer=7, card="x"), 1, b"\2\4"))
        t.send("all", "7", framed(shop_pb2.Everything(customer=7), 1, b"\2\4"))
        found = t.profile("crm:7")
        assert (found.cards, found.cash) == (1, Decimal("12.5"))
        assert [letter["reason"] for letter in t.topic("shop.dlq")] == ["unmatched"]
        t.verify()


# -------------------------------------------------------------------------------------------------- against the oracle
def _mixed(dice: Random, *, bad: bool) -> bytes:
    """Everything, with some of its fields cleared, and now and then some byte another."""
    said = everything()
    said.placed_ms = dice.randrange(10**6)
    for name in KINDS.keys() - {"payment", "customer"}:
        if dice.random() < 0.3:
            said.ClearField(name)
    if dice.random() < 0.3:
        said.card = dice.choice(("", "c"))
    data = bytearray(said.SerializeToString())
    if bad:
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
    return b"\0\0\0\0\1\2\4" + bytes(data)


def whole_app() -> App:
    app = App("whole", partitions=1)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    record = whole_record(Crm)
    app.source("all", format="protobuf", schema=shop_pb2.Everything, subject="customer")(record)

    class Whole(Projection):
        seen: int = count(record)
        exact: Decimal | None = newest(record.exact)
        took: Decimal | None = newest(record.took)
        payment: str | None = newest(record.payment)

    app.projection("whole")(Whole)
    return app


@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_reads_the_same_of_any_messages(seed: int) -> None:
    dice = Random(seed)
    with TestDriver(whole_app(), partitions=1, now=NINE) as t:
        for n in range(200):
            t.send("all", "7", _mixed(dice, bad=n % 3 > 0))
        assert 60 < t.profile("crm:7").seen < 200
        assert t.topic("whole.dlq")
        t.verify()


# -------------------------------------------------------------------------------------------------------- declarations
def declared(annotations: dict[str, Any], message: Any = shop_pb2.Everything, **said: Any) -> None:
    app = App("shop")

    @app.identifier("crm")
    class Crm(str): ...

    places = {name: annotations.pop(name) for name in list(annotations) if not isinstance(annotations[name], tuple)}
    namespace: dict[str, Any] = {"__annotations__": {"customer": Crm}, "__module__": __name__}
    for name, (kind, place) in annotations.items():
        namespace["__annotations__"][name] = kind
        namespace[name] = place
    namespace["__annotations__"] |= places
    record = type("Told", (Record,), namespace)
    app.source("raw", format="protobuf", schema=message, subject="customer", **said)(record)


class Sku(Record):
    sku: int


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gone": str}, "Told.gone: c360.tests.shop.Everything has no field 'gone'; it has counted, customer, rate"),
        ({"rate": str}, "Told.rate cannot be made of c360.tests.shop.Everything.rate, which is float: write float"),
        ({"states": str}, "which is repeated: write list[…] of str, its name"),
        ({"counted": dict[str, str]}, "Told.counted cannot be made of c360.tests.shop.Everything.counted, which is a map"),
        ({"named": dict[str, str]}, "which is a map: write dict[…] of str"),
        ({"cash": int}, "which is google.type.Decimal: write Decimal"),
        ({"took": datetime}, "which is google.protobuf.Duration: write Decimal"),
        ({"maybe": datetime}, "which is int: write int"),
        ({"states": list[int]}, "which is repeated: write list[…] of str, its name"),
        ({"states": list[Literal["GONE"]]}, "which is repeated"),
        ({"tree": str}, "which is c360.tests.shop.Everything.Tree: write a Record"),
        ({"lines": dict[str, Sku]}, "Told.lines: Sku.sku cannot be made of c360.tests.shop.Order.Line.sku, which is text"),
        ({"leaf": (str, field("tree.leaf"))}, "Told.leaf: c360.tests.shop.Everything.Tree has no field 'leaf'; it has name,"),
        ({"leaf": (str, field("tree.children.name"))}, "children is repeated: say which, as in children.0, or take it as a"),
        ({"leaf": (str, field("rate.x"))}, "nothing lies below c360.tests.shop.Everything.rate, which is float"),
        ({"at": (datetime, field("took", unit="ms"))}, ""),
        ({"at": (datetime, field("times.0", unit="ms"))}, "unit= is for numbers, and c360.tests.shop.Everything.times is"),
        ({"ok": Literal["yes"]}, "which is bool"),
    ],
)  # fmt: skip
def test_a_field_that_the_message_cannot_be_is_refused_with_the_names_of_both(fields: Any, words: str) -> None:
    if not words:
        declared(fields)
        return
    with pytest.raises(DeclarationError) as raised:
        declared(fields)
    assert str(raised.value).startswith("@app.source('raw') Told: Told.")
    assert words in str(raised.value)


def test_all_kinds_of_fields_may_be_declared_as_they_are_read() -> None:
    whole_app().plan()


def test_the_app_of_the_page_is_one() -> None:
    page = (HERE.parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
    ((snippet,), (proto,)) = fences(page, "py"), fences(page, "proto")
    names: dict[str, Any] = {"__name__": __name__}
    exec(snippet.replace("import order_pb2", "from tests.sources.protobuf import shop_pb2 as order_pb2"), names)
    with TestDriver(names["app"], now=NINE) as t:
        t.send("shop.orders", "7", framed(order(1)))
        assert t.profile("crm:7").spend == Decimal("12.50")
    assert {line.strip() for line in proto.splitlines() if "=" in line} <= set(
        map(str.strip, SHOP.read_text().splitlines())
    )


def test_when_is_checked_too() -> None:
    with pytest.raises(DeclarationError, match=r"when=\{'gone': …\}: c360.tests.shop.Everything has no field 'gone'"):
        declared({}, when={"gone": 1})
    with pytest.raises(DeclarationError, match=r"when=\{'ok': 'yes'\}: there is bool, write bool"):
        declared({}, when={"ok": "yes"})
    declared({}, when={"ok": True, "payment": "card", "extra.a": 1, "tree.name": "x"})


def test_schema_must_be_a_class_that_protoc_made() -> None:
    for wrong in (None, {"type": "record"}, Message, order(), int):
        with pytest.raises(DeclarationError, match=r"schema=order_pb2\.Order"):
            declared({}, wrong)
    with pytest.raises(DeclarationError, match='to read Protobuf by it say format="protobuf"'):
        App("shop").source("raw", format="avro", schema=shop_pb2.Order)


def test_without_the_package_the_declaration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("google.protobuf")] + ["c360.codecs.fitting"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(DeclarationError, match=r"needs the package protobuf .*; install c360\[protobuf\]"):
        App("shop").source("raw", format="protobuf", schema=int)


def test_everything_else_runs_without_the_package() -> None:
    rooms = "c360, c360.assembly, c360.cli.main, c360.ops.verify, c360.testing"
    program = f"import sys; sys.modules['google.protobuf'] = None; import {rooms}"
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE.parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------- what Confluent writes
@pytest.mark.parametrize("said", [{"schema_id": 1}, {"guid": str(uuid.UUID(int=1))}])
def test_confluents_id_in_a_header_has_the_indexes_with_it(said: dict[str, Any]) -> None:
    """As header_schema_id_serializer writes it; Apicurio gives no GUIDs, so this is with the fake."""
    registry = FakeRegistry()
    registry.publish("money-value", SHOP.read_text(), "PROTOBUF")
    registry.schemas[str(uuid.UUID(int=1))] = registry.schemas[1]
    with TestDriver(two(), now=NINE, registry=registry) as t:
        for message, indexes in ((order(1), [0]), (refund(1), [1])):
            confluent = SchemaId("PROTOBUF", message_indexes=indexes, **said)
            header = confluent.guid_to_bytes() if "guid" in said else confluent.id_to_bytes()
            t.send("money", "7", message.SerializeToString(), headers=[("__value_schema_id", header)])
        found = t.profile("crm:7")
        assert (found.spend, found.back) == (Decimal("12.50"), Decimal("12.50"))
        t.verify()


def test_what_confluents_serializer_writes_is_read_with_each_way_of_saying_the_id(real_registry: Apicurio) -> None:
    """Also by its own deserializer."""
    topic = f"t{uuid.uuid4().hex[:8]}"
    client = SchemaRegistryClient({"url": real_registry.url})
    with closing(SchemaRegistry(real_registry.url)) as registry, client:
        _read_what_confluent_writes(topic, client, registry)


def _read_what_confluent_writes(topic: str, client: SchemaRegistryClient, registry: SchemaRegistry) -> None:
    said = SerializationContext(topic, MessageField.VALUE, [])
    write = ProtobufSerializer(shop_pb2.Order, client, {"use.deprecated.format": False})
    value = write(order(1), said)
    assert value is not None
    assert value[5:] == b"\0" + order(1).SerializeToString()
    read = ProtobufDeserializer(shop_pb2.Order, {"use.deprecated.format": False})
    assert read(value, said) == order(1)
    nested = ProtobufSerializer(shop_pb2.Everything.Tree, client, {"use.deprecated.format": False})
    tree = nested(shop_pb2.Everything.Tree(name="t"), SerializationContext(f"{topic}n", MessageField.VALUE, []))
    refunds = ProtobufSerializer(shop_pb2.Refund, client, {"use.deprecated.format": False})
    (found,) = decoder_of(shop_pb2.Everything.Tree, registry, name=str).decode([tree])
    assert found.name == "t"  # type: ignore[union-attr]
    with TestDriver(two(), now=NINE, registry=registry) as t:
        t.send("money", "7", value)
        t.send("money", "7", refunds(refund(1), said))
        found_ = t.profile("crm:7")
        assert (found_.spend, found_.back) == (Decimal("12.50"), Decimal("12.50"))
        assert t.topic("shop.dlq") == []
        t.verify()

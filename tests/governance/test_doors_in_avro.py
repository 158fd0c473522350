"""What leaves in Avro: by whose schema, when a worker does not start, what changes when the schema does; and CloudEvents."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import fastavro
import pytest

from c360 import App, Personal, Projection, Record, collect, count, derived, newest, total
from c360.agents.contracts import Reading, contract_of
from c360.engine.memory import MemoryCluster
from c360.engine.transport import TP, Headers
from c360.errors import BrokerAway, Misfit, NeedsOperator, Shut, UsageError
from c360.ops import contracts
from c360.ops.doctor import examine
from c360.ops.doors import Preview
from c360.ops.records import records
from c360.testing import TestDriver
from tests.sources.registry import FakeRegistry

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


class Line(TypedDict, total=False):
    sku: str
    price: Decimal


@dataclass
class Row:
    """What a sink gives."""

    orders: int
    spend: Decimal
    since: datetime | None
    lines: list[Line]


class Wider(TypedDict):
    """What a later version of it gives."""

    orders: int
    spend: Decimal
    since: datetime | None
    lines: list[Line]
    level: str | None


def shop(*, wider: bool = False) -> App:
    app = App("shop", partitions=2)

    @app.identifier("crm", priority=1, unique=True)
    class Crm(str): ...

    service = app.purpose("service", basis="contract")

    @app.source("orders", event_id="id", at="placed", subject="customer", purposes=[service])
    class Order(Record):
        id: str
        customer: Crm
        amount: Decimal
        placed: datetime
        points: int = 0
        sku: str | None = None
        name: Personal[str] | None = None

    @app.projection("customer", version=3, purposes=[service])
    class Customer(Projection):
        orders: int = count(Order)
        spend: Decimal = total(Order.amount)
        last: datetime | None = newest(Order.placed)
        points: int | None = newest(Order.points)
        skus: list[str] = collect(Order.sku)
        name: str | None = newest(Order.name)

        @derived
        def loud(self) -> str | None:
            return None if self.name is None else self.name.upper()

    if wider:

        @app.sink("rows", projection=Customer, purpose=service)
        def wide(profile: Customer) -> Wider | None:
            said: Any = {**given(profile), "level": "gold"}
            return said if profile.orders < 3 else None
    else:

        @app.sink("rows", projection=Customer, purpose=service)
        def rows(profile: Customer) -> Row | None:
            return Row(**given(profile)) if profile.orders < 3 else None

    @app.sink("loose", projection=Customer, purpose=service)
    def loose(profile: Customer) -> dict[str, int]:
        return {"orders": profile.orders}

    return app


def given(profile: Any) -> dict[str, Any]:
    lines: list[Line] = [{"sku": sku, "price": Decimal("9.50")} for sku in profile.skus]
    return {"orders": profile.orders, "spend": profile.spend, "since": profile.last, "lines": lines}


def driver(app: App | None = None, registry: FakeRegistry | None = None, **more: Any) -> TestDriver:
    there = registry or FakeRegistry()
    return TestDriver(app or shop(), now=NOW, registry=there, subjects=there, **more)


def order(t: TestDriver, number: int, customer: str = "7", **said: Any) -> None:
    t.send("orders", customer, {"id": str(number), "customer": customer, "amount": "12.50", "placed": "2026-11-02T09:00:00Z",
                                "sku": "a", "name": "Ann", **said})  # fmt: skip


def raw(t: TestDriver, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    t.settle()
    return list(t.read(topic))


def decoded(registry: FakeRegistry, value: bytes | None) -> Any:
    assert value is not None
    assert value[0] == 0
    schema = fastavro.parse_schema(json.loads(registry.schemas[int.from_bytes(value[1:5], "big")].text))
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)


def test_views_and_sinks_write_what_any_avro_reader_reads() -> None:
    registry = FakeRegistry()
    with driver(registry=registry) as t:
        order(t, 1)
        ((_, view),) = raw(t, "shop.customer.v3.service")
        found = decoded(registry, view)
        assert found["attributes"] == {
            "orders": 1, "spend": Decimal("12.50"), "last": NOW, "points": 0, "skus": ["a"], "name": "Ann", "loud": "ANN",
        }  # fmt: skip
        assert (found["profile_id"], found["purpose"], found["as_of"]) == ("crm:7", "service", NOW)
        ((_, row),) = raw(t, "shop.activation.rows")
        assert decoded(registry, row) == {
            "orders": 1, "spend": "12.50", "since": NOW, "lines": [{"sku": "a", "price": "9.50"}],
        }  # fmt: skip
        ((_, loose),) = raw(t, "shop.activation.loose")
        assert loose == b'{"orders":1}'
        t.verify()


def test_whoever_reads_those_topics_still_does() -> None:
    with driver() as t:
        order(t, 1)
        assert t.view("service")["crm:7"]["attributes"]["spend"] == "12.50"
        assert t.sink("rows")["crm:7"]["since"] == "2026-11-02T09:00:00Z"
        assert t.profile("crm:7", purpose="service").spend == Decimal("12.50")
        assert t.preview("rows", 3) == Preview(unchanged=1)
        t.reset("customer@3:service")
        t.reset("sink:rows")
        t.settle()
        assert (len(raw(t, "shop.customer.v3.service")), len(raw(t, "shop.activation.rows"))) == (1, 1)
        t.verify()


def test_values_are_read_by_the_schemas_that_they_name_and_others_are_told() -> None:
    registry = FakeRegistry()
    with driver(registry=registry) as t:
        order(t, 1)
        ((_, row),) = raw(t, "shop.activation.rows")
        assert row is not None
        reading = Reading(registry)
        assert reading.read(row)["spend"] == "12.50"
        assert reading.read(b'{"orders":1}') == {"orders": 1}
        with pytest.raises(Misfit):
            reading.read(b"\0\0\0\0\x63" + row[5:])
        registry.away = True
        assert reading.read(row)["orders"] == 1
        with pytest.raises(Shut):
            Reading(registry).read(row)


def test_what_is_removed_is_a_tombstone_and_what_is_the_same_is_not_sent() -> None:
    with driver() as t:
        for number in (1, 2, 3):
            order(t, number)
            t.settle()
        values = [value for _, value in raw(t, "shop.activation.rows")]
        assert [value is None for value in values] == [False, False, True]
        t.lose_disk()
        assert len(raw(t, "shop.activation.rows")) == 3
        t.verify()


def test_what_the_schema_cannot_hold_does_not_leave_and_the_dead_letter_names_the_field() -> None:
    with driver() as t:
        order(t, 1, points=1 << 63)
        assert t.view("service") == {}
        (letter,) = t.topic("shop.dlq")
        assert letter["reason"] == "not-in-schema"
        assert "points is not a whole number of 64 bits" in letter["error"]
        assert str(1 << 63) not in json.dumps(letter)
        assert t.profile("crm:7", purpose="service") is None
        order(t, 2, points=5, placed="2026-11-02T09:00:01Z")
        assert t.view("service")["crm:7"]["attributes"]["points"] == 5
        t.verify("sink:rows")


@pytest.mark.parametrize("amount", [b"\x04\x04\xe3", b"\x04\x04\xe1"])
def test_what_is_not_what_should_be_there_is_found_by_verify(amount: bytes) -> None:
    with driver() as t:
        order(t, 1)
        partition, value = next(
            (n, value) for n in range(2) for _, value in in_partition(t, "shop.customer.v3.service", n)
        )
        assert value is not None
        assert b"\x04\x04\xe2" in value, "1250 hundredths"
        t.producer.produce("shop.customer.v3.service", b"crm:7", value.replace(b"\x04\x04\xe2", amount), partition)
        t.producer.flush()
        with pytest.raises(AssertionError, match="altered"):
            t.verify()


def in_partition(t: TestDriver, topic: str, partition: int) -> Iterator[tuple[bytes | None, bytes | None]]:
    t.settle()
    reader = t.cluster.reader()
    for found in records(reader, reader.starts([TP(topic, partition)])):
        yield found.key, found.value


def test_the_registry_may_go_away_when_a_worker_runs() -> None:
    registry = FakeRegistry()
    with driver(registry=registry) as t:
        order(t, 1)
        assert t.sink("rows")["crm:7"]["orders"] == 1
        registry.away = True
        order(t, 2)
        assert t.sink("rows")["crm:7"]["orders"] == 2


def test_who_goes_over_to_avro_writes_all_anew_and_back() -> None:
    registry = FakeRegistry()
    with TestDriver(shop(), now=NOW, registry=registry) as t:
        for customer in ("7", "8"):
            order(t, 1, customer)
        ends: dict[bytes | None, bytes | None] = dict(raw(t, "shop.activation.rows"))
        assert {value[:1] for value in ends.values() if value} == {b"{"}
        t.stop()
        t.subjects = registry
        contracts.apply(t.plan, registry)
        t.start()
        ends = dict(raw(t, "shop.activation.rows"))
        assert {value[:1] for value in ends.values() if value} == {b"\0"}
        t.verify()
        t.stop()
        t.subjects = None
        t.start()
        ends = dict(raw(t, "shop.activation.rows"))
        assert {value[:1] for value in ends.values() if value} == {b"{"}
        t.verify()


def test_a_sink_whose_type_grows_has_a_new_schema_of_the_same_subject() -> None:
    registry = FakeRegistry()
    with driver(registry=registry) as t:
        order(t, 1)
        t.settle()
        t.stop()
        t.plan = shop(wider=True).plan()
        with pytest.raises(NeedsOperator, match="c360 topics apply"):
            t.start()
        contracts.apply(t.plan, registry)
        t.start()
        assert t.sink("rows")["crm:7"]["level"] == "gold"
        assert len(registry.subjects["shop.activation.rows-value"]) == 2
        t.verify()


# ------------------------------------------------------------------------------------------------------- when it starts
def test_a_worker_does_not_start_until_schemas_are_registered_and_their_subjects_ask_enough(tmp_path: Path) -> None:
    registry, plan = FakeRegistry(), shop().plan()
    with pytest.raises(NeedsOperator, match=r"customer\.v3\.service-value.*c360 topics apply"):
        contracts.wires(plan, registry)
    (view, rows) = (finding for finding in contracts.check(plan, registry))
    assert (view.problem, rows.subject) == ("schema", "shop.activation.rows-value")
    assert [done.subject for done in contracts.apply(plan, registry)] == [view.subject, rows.subject]
    assert not contracts.apply(plan, registry)
    assert not contracts.check(plan, registry)
    registry.compatibility(rows.subject, "BACKWARD")
    (weaker,) = contracts.check(plan, registry)
    assert weaker.problem == "compatibility"
    with pytest.raises(NeedsOperator, match="compatibility is BACKWARD"):
        contracts.wires(plan, registry)
    assert contracts.wires(plan, registry, ["customer@3:service"]).keys() == {"customer@3:service"}
    looked = [check for check in examine(plan, MemoryCluster(), tmp_path, subjects=registry) if check.name == "schemas"]
    assert [(check.ok, check.do) for check in looked] == [(False, "run c360 topics apply, or set C360_WIRE=json")]
    registry.compatibility(rows.subject, "FULL_TRANSITIVE")
    assert contracts.wires(plan, registry).keys() == {"customer@3:service", "sink:rows"}
    registry.away = True
    with pytest.raises(BrokerAway):
        contracts.wires(plan, registry)
    assert contracts.wires(plan, None) == {}


def test_a_sink_that_says_no_fields_stays_json_and_it_is_said() -> None:
    (said,) = contracts.untyped(shop().plan())
    assert said.startswith("sink:loose stays JSON")


def test_a_schema_that_the_old_values_do_not_fit_is_refused() -> None:
    registry = FakeRegistry()
    plan = shop().plan()
    (view, *_) = contracts.contracts(plan)
    other = {"type": "record", "name": "Profile", "fields": []}
    registry.publish(view.subject, other)
    with pytest.raises(UsageError, match="compatible"):
        contracts.apply(plan, registry)


def test_schemas_say_which_fields_are_personal() -> None:
    plan = shop().plan()
    view = next(contract_of(plan, door) for door in plan.doors if door.sink is None)
    assert view is not None
    fields = view.schema["fields"][7]["type"]["fields"]
    assert {field["name"]: field.get("c360.class") for field in fields}["name"] == "personal"


# ----------------------------------------------------------------------------------------------------------- CloudEvents
def headers_of(t: TestDriver, topic: str) -> list[dict[str, str]]:
    return [{name: said.decode() for name, said in headers} for headers in _headers(t, topic)]


def _headers(t: TestDriver, topic: str) -> Iterator[Headers]:
    t.settle()
    reader = t.cluster.reader()
    for batches in reader.read(reader.starts([TP(topic, p) for p in range(t.plan.partitions)])):
        for batch in batches:
            yield from (batch.headers(i) for i in range(len(batch)))


@pytest.mark.parametrize("avro", [False, True])
def test_what_leaves_is_told_as_events_of_the_cloud(avro: bool) -> None:
    made = driver(cloudevents=True) if avro else TestDriver(shop(), now=NOW, cloudevents=True)
    with made as t:
        for number in (1, 2, 3):
            order(t, number)
            t.settle()
        changed, again, removed = headers_of(t, "shop.activation.rows")
        assert {name: said for name, said in changed.items() if name not in ("ce_id", "c360-cause")} == {
            "ce_specversion": "1.0", "ce_source": "/c360/shop/sink:rows", "ce_type": "c360.profile.changed",
            "ce_subject": "crm:7", "ce_time": "2026-11-02T09:00:00Z",
            "content-type": "application/avro" if avro else "application/json",
        }  # fmt: skip
        assert (removed["ce_type"], removed.get("content-type"), removed.get("ce_time")) == (
            "c360.profile.removed",
            None,
            None,
        )
        ids = [changed["ce_id"], again["ce_id"], removed["ce_id"]]
        assert len({*ids}) == 3
        t.verify()


def test_an_event_has_the_same_id_when_a_crash_makes_it_again() -> None:
    def run(crash: bool) -> list[str]:
        with driver(cloudevents=True) as t:
            order(t, 1)
            t.settle()
            order(t, 2)
            if crash:
                t.crash()
            return [said["ce_id"] for said in headers_of(t, "shop.customer.v3.service")]

    assert run(crash=False) == run(crash=True)


def test_the_same_value_twice_is_two_events() -> None:
    """A sink that gives, takes back and gives the same again, as somebody goes to and fro."""
    with driver(cloudevents=True) as t:
        for number, points in enumerate((5, 1 << 63, 5, 1 << 63, 5), 1):
            order(t, number, points=points, amount="0", placed=f"2026-11-02T09:00:0{number}Z", sku=None)
            t.settle()
        ids = [said["ce_id"] for said in headers_of(t, "shop.customer.v3.service")]
        assert len(ids) == len({*ids}) == 5


def test_without_the_setting_there_are_none() -> None:
    with driver() as t:
        order(t, 1)
        assert not any(name.startswith("ce_") for said in headers_of(t, "shop.activation.rows") for name in said)

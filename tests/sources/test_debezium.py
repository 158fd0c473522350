"""The traps of change data capture, each over what a real connector wrote, or over one such event made worse."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from c360 import App, Projection, Record, collect, count, field, newest, total
from c360.codecs.debezium import UNCHANGED, Change, DebeziumDecoder
from c360.errors import Misfit
from c360.testing import TestDriver

HERE = Path(__file__).parent / "debezium"
NOW = datetime.fromtimestamp(1_795_423_700, UTC)
Event = dict[str, Any]


class CustomerNo(str): ...


class Customer(Record):
    customer_id: CustomerNo
    email: str | None
    status: str
    marketing_opt_in: bool
    lifetime_value: Decimal
    notes: str | None = None
    tags: list[str] | None = None
    birth_date: date | None = field(unit="days")
    phone: str | None = None  # a name that the column got later


class Alias(Record):
    alias: str
    customer_id: CustomerNo


class Account(Record):
    loyalty_no: str
    customer_id: CustomerNo
    points: int


class Address(Record):
    address_id: int
    customer_id: CustomerNo
    city: str


class Item(Record):
    order_id: CustomerNo  # an identifier for the test's sake
    line_no: int
    qty: int


class Consent(Record):
    customer_id: CustomerNo
    purpose: str
    channel: str
    granted: bool


class ShopCustomer(Record):
    id: CustomerNo
    name: str | None


class ShopOrder(Record):
    order_no: str
    customer_id: CustomerNo
    total: Decimal


def crm(prefix: str) -> App:
    app = App("crm", partitions=2)
    app.identifier("crm")(CustomerNo)
    app.cdc(f"{prefix}.customers", key="customer_id")(Customer)
    app.cdc(f"{prefix}.email_aliases", key="alias", subject="customer_id")(Alias)
    app.cdc(f"{prefix}.loyalty_accounts", key="loyalty_no", subject="customer_id")(Account)
    app.cdc(f"{prefix}.addresses", key="address_id", subject="customer_id")(Address)
    app.cdc(f"{prefix}.order_items", key=["order_id", "line_no"], subject="order_id")(Item)
    app.cdc(f"{prefix}.consents", key=["customer_id", "purpose", "channel"], subject="customer_id")(Consent)

    @app.projection("customer")
    class Profile(Projection):
        rows: int = count(Customer)
        email: str | None = newest(Customer.email)
        status: str | None = newest(Customer.status)
        opted_in: bool | None = newest(Customer.marketing_opt_in)
        born: date | None = newest(Customer.birth_date)
        value: Decimal = total(Customer.lifetime_value)
        notes: str | None = newest(Customer.notes)
        tags: list[str] | None = newest(Customer.tags)
        phone: str | None = newest(Customer.phone)
        aliases: list[str] = collect(Alias.alias)
        points: Decimal = total(Account.points)
        accounts: int = count(Account)
        cities: list[str] = collect(Address.city)
        items: int = count(Item)
        granted: int = count(Consent, where=Consent.granted == True)  # noqa: E712 - a condition on a field

    return app


def shop() -> App:
    app = App("crm", partitions=2)
    app.identifier("crm")(CustomerNo)
    app.cdc("comp.shop.shop.customers", key="id")(ShopCustomer)
    app.cdc("comp.shop.shop.orders", key="order_no", subject="customer_id")(ShopOrder)

    @app.projection("customer")
    class Profile(Projection):
        name: str | None = newest(ShopCustomer.name)
        orders: int = count(ShopOrder)
        spend: Decimal = total(ShopOrder.total)

    return app


def lines(name: str) -> list[Event]:
    found = [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted(found, key=lambda e: (e["offset"], e["partition"]))


def payload(event: Event) -> Any:
    value = event["value"]
    return value["payload"] if isinstance(value, dict) and "payload" in value else value


def of(events: Iterable[Event], table: str, *ops: str) -> list[Event]:
    """Those of a table; with `ops` of these kinds, a tombstone being "-"."""
    wanted = [e for e in events if e["topic"].endswith(f".{table}")]
    return [e for e in wanted if not ops or (payload(e) or {"op": "-"})["op"] in ops]


def dumped(value: Any) -> bytes | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def send(t: TestDriver, events: Iterable[Event], *, topic: str = "") -> None:
    known = {s.topic for s in t.plan.sources}
    for event in events:
        if (to := topic or event["topic"]) in known:
            headers = [(name, text.encode()) for name, text in event["headers"]]
            at: Any = {"timestamp": event["timestamp"], "partition": event["partition"], "headers": headers}
            t.send(to, dumped(event["key"]), dumped(event["value"]), **at)


def driver(prefix: str = "comp.crm.crm") -> TestDriver:
    return TestDriver(crm(prefix), partitions=2, now=NOW)


def known(t: TestDriver) -> dict[str, Any]:
    """All profiles, by name of attribute."""
    found = {}
    for n in range(8):
        if (profile := t.profile(f"crm:{n}")) is not None:
            found[f"crm:{n}"] = {name: getattr(profile, name) for name in type(profile).__annotations__}
    return found


def good(t: TestDriver) -> None:
    """Nothing was put aside, and a slow recomputation agrees."""
    assert t.topic("crm.dlq") == []
    t.verify()


POSTGRES = lines("postgres")
ROW = next(e for e in of(POSTGRES, "customers", "r") if e["key"] == {"customer_id": 1})


def changed(event: Event, op: str, lsn: int, commit: int | None, **columns: Any) -> Event:
    """A streamed change like this one, at `lsn`, streamed after the commit that ended at `commit`."""
    made = copy.deepcopy(event)
    value = made["value"]
    value["op"] = op
    value["source"] |= {"lsn": lsn, "snapshot": "false", "sequence": json.dumps([commit and str(commit), str(lsn)])}
    value["after"] = None if op == "d" else value["after"] | columns
    return made


def read_again(event: Event, lsn: int, commit: int | None, incremental: bool, **columns: Any) -> Event:
    """The row as a snapshot reads it."""
    made = changed(event, "r", lsn, commit, **columns)
    made["value"]["source"] |= {"snapshot": "incremental" if incremental else "true"}
    if incremental:
        made["value"]["source"]["lsn"] = None
    return made


# -------------------------------------------------------------------------------------------------------- the ten traps
def test_1_of_a_delete_only_its_key_is_read_as_the_rest_of_before_is_made_up() -> None:
    (delete,) = of(POSTGRES, "customers", "d")
    before = delete["value"]["before"]
    made_up = (before["email"], before["status"], before["marketing_opt_in"], before["lifetime_value"])
    assert made_up == (None, "", False, "0.00"), "the columns that the database did not send"
    (address,) = of(POSTGRES, "addresses", "d")
    assert address["value"]["before"]["customer_id"] == 0
    with driver() as t:
        send(t, of(POSTGRES, "customers", "r") + of(POSTGRES, "addresses", "r"))
        assert (t.profile("crm:2").rows, t.profile("crm:2").cities) == (1, ["London"])
        send(t, [delete, address])
        assert t.profile("crm:2") is None
        assert t.profile("crm:0") is None, "it is linked to nobody"
        send(t, [changed(delete, "d", 10**9, None)])  # of a row that is gone
        good(t)


def test_2_a_changed_primary_key_moves_the_row_whatever_order_its_partitions_are_read_in() -> None:
    moves = of(POSTGRES, "email_aliases") + of(POSTGRES, "loyalty_accounts", "d", "-", "c")
    assert [n for e in moves for n, _ in e["headers"] if n == "__debezium.newkey"], "deletes and tombstones say so"
    rows, ends = of(moves, "email_aliases", "r"), of(POSTGRES, "loyalty_accounts", "r")
    news = [e for e in moves if payload(e) and e["value"]["op"] == "c"]
    olds = [e for e in moves if not payload(e) or e["value"]["op"] == "d"]
    for first, then in ((olds, news), (news, olds)):
        with driver() as t:
            send(t, rows + ends)
            for event in news:  # to another partition than the old key
                event["partition"] = 0
            send(t, first)
            send(t, then)
            found = t.profile("crm:1")
            assert (found.aliases, found.accounts, found.points) == (["ana.maria@old.example.com"], 1, 500)
            good(t)


@pytest.mark.parametrize(
    ("column", "sent", "kept"),
    [
        ("notes", UNCHANGED.decode(), "as it was"),
        ("notes", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", "as it was"),  # bytea, as base64
        ("tags", [UNCHANGED.decode()], ["vip", "newsletter"]),  # text[]
        ("tags", list(UNCHANGED), ["vip", "newsletter"]),  # integer[]
        ("tags", {UNCHANGED.decode(): UNCHANGED.decode()}, ["vip", "newsletter"]),  # hstore
    ],
)
def test_3_a_column_that_was_not_sent_stays_as_it_was(column: str, sent: Any, kept: Any) -> None:
    start = changed(ROW, "c", 10, None, notes="as it was", tags=["vip", "newsletter"])
    with driver() as t:
        send(t, [start, changed(start, "u", 20, 15, status="churned", **{column: sent})])
        found = t.profile("crm:1")
        assert (found.status, getattr(found, column)) == ("churned", kept)
        good(t)


def test_3_and_what_the_real_one_left_out_was_what_it_had_sent_before() -> None:
    (left_out,) = [e for e in of(POSTGRES, "customers", "u") if e["value"]["after"].get("notes") == UNCHANGED.decode()]
    (before,) = [e for e in of(POSTGRES, "customers", "u") if e["key"] == left_out["key"] and e is not left_out]
    with driver() as t:
        send(t, [before, left_out])
        assert t.profile("crm:4").notes == before["value"]["after"]["notes"]
        assert t.profile("crm:4").opted_in is False
        good(t)


def test_3_nor_is_a_column_taken_from_before_a_state_that_was_put_aside_and_had_sent_it() -> None:
    """It would be the value of a time before: silently wrong. A state that has all of them ends it."""
    start = changed(ROW, "c", 10, None, notes="first", status="a")
    bad = changed(start, "u", 20, 15, notes="second", status={"no": "text"})
    left_out = changed(start, "u", 30, 25, status="b", notes=UNCHANGED.decode())
    with driver() as t:
        send(t, [start, bad, left_out])
        assert (t.profile("crm:1").status, t.profile("crm:1").notes) == ("a", "first")
        assert [letter["reason"] for letter in t.topic("crm.dlq")] == ["wrong-type", "unknown-row"]
        send(t, [changed(start, "u", 40, 35, status="c", notes="third")])
        send(t, [changed(start, "u", 50, 45, status="d", notes=UNCHANGED.decode())])
        assert (t.profile("crm:1").status, t.profile("crm:1").notes) == ("d", "third")
        t.verify()
    with driver() as t:  # the one that was put aside had left it out as well
        bad = changed(start, "u", 20, 15, notes=UNCHANGED.decode(), opt_in=1, status={"no": "text"})
        send(t, [start, bad, left_out])
        assert (t.profile("crm:1").status, t.profile("crm:1").notes) == ("b", "first")
        t.verify()


@pytest.mark.parametrize("first", [0, 1])
def test_4_a_truncate_comes_on_one_partition_and_empties_all(first: int) -> None:
    (truncate,) = of(POSTGRES, "order_items", "t")
    assert truncate["key"] is None
    rows = of(POSTGRES, "order_items", "r", "c")
    assert {e["partition"] for e in rows} == {0, 1}
    after = changed(rows[0], "c", truncate["value"]["source"]["lsn"] + 8, truncate["value"]["source"]["lsn"] - 8)
    truncate = {**truncate, "partition": first}
    with driver() as t:
        send(t, rows)
        one = rows[0]["key"]["order_id"]
        assert t.profile(f"crm:{one}").items == 2
        send(t, [truncate, after])  # as it overtakes the rows of other partitions
        t.settle()
        send(t, rows)  # again, and late
        assert t.profile(f"crm:{one}").items == 1
        (other,) = of(rows, "order_items", "c")
        gone = t.profile(f"crm:{other['key']['order_id']}")
        assert gone is None or gone.items == 0
        good(t)


def test_5_dates_before_1970_are_dates_and_infinity_is_put_aside_where_a_time_is_wanted() -> None:
    class Dated(Record):
        customer_id: CustomerNo
        created_at: datetime

    class Told(Record):
        customer_id: CustomerNo
        created_at: str
        birth_date: date = field(unit="days")

    (edge,) = [e for e in of(POSTGRES, "customers", "c") if e["value"]["after"]["created_at"] == "infinity"]
    assert edge["value"]["after"]["birth_date"] == -719162
    (misfit,) = DebeziumDecoder(Dated, ["customer_id"]).decode([dumped(edge["value"])], [dumped(edge["key"])])
    assert isinstance(misfit, Misfit)
    assert misfit.reason in ("wrong-type", "out-of-range")
    (told,) = DebeziumDecoder(Told, ["customer_id"]).decode([dumped(edge["value"])], [dumped(edge["key"])])
    assert isinstance(told, Change)
    assert isinstance(told.record, Told)
    assert (told.record.created_at, told.record.birth_date) == ("infinity", date(1, 1, 1))
    with driver() as t:
        send(t, [edge])
        assert (t.profile("crm:7").born, t.profile("crm:7").value) == (date(1, 1, 1), Decimal("99999999999.99"))
        good(t)


def test_6_a_renamed_and_a_dropped_column_are_other_fields_and_nothing_says_so() -> None:
    with driver() as t:
        send(t, of(POSTGRES, "customers"))
        renamed = [e for e in of(POSTGRES, "customers") if payload(e) and "phone" in (e["value"]["after"] or {})]
        assert renamed
        assert all("phone_e164" not in e["value"]["after"] and "notes" not in e["value"]["after"] for e in renamed)
        assert t.profile("crm:6").phone == "+15005550006"
        assert t.profile("crm:4").phone is None, "it was not written since"
        good(t)


def test_7_and_9_messages_and_transactions_are_nothing_for_us_and_nobody_waits_for_an_end() -> None:
    said = [e for e in POSTGRES + lines("mariadb") if e["topic"].endswith((".message", ".transaction"))]
    statuses = [e["value"].get("status") for e in said]
    assert statuses.count("BEGIN") > statuses.count("END") > 0, "MariaDB ended fewer than it began"
    schemas = [e for e in lines("postgres_with_schemas") if e["topic"].endswith(".message")]
    assert schemas
    with driver() as t:
        send(t, said + schemas, topic="comp.crm.crm.customers")
        send(t, of(POSTGRES, "consents"))
        t.settle()
        assert t.profile("crm:1").granted == 0
        good(t)
    with TestDriver(shop(), partitions=2, now=NOW) as t:
        send(t, lines("mariadb"))
        assert (t.profile("crm:1").name, t.profile("crm:1").orders) == (
            newest_name(of(lines("mariadb"), "shop.customers"), 1), 0,
        )  # fmt: skip
        good(t)


def newest_name(events: list[Event], customer: int) -> str | None:
    names = [
        e["value"]["after"]["name"] for e in events if payload(e) and e["value"]["after"] and e["key"]["id"] == customer
    ]
    return names[-1] if names else None


def test_8_headers_of_the_connector_change_nothing() -> None:
    bare = [{**e, "headers": []} for e in POSTGRES]
    assert any(n.startswith("__debezium.context.") for e in POSTGRES for n, _ in e["headers"])
    found = []
    for events in (POSTGRES, bare):
        with driver() as t:
            send(t, events)
            t.settle()
            found.append(known(t))
            good(t)
    assert found[0]
    assert found[0] == found[1]


def test_10_what_was_rolled_back_is_not_there() -> None:
    with driver() as t:
        send(t, POSTGRES)
        assert t.profile("crm:1").email == "ana.lopez@example.com", "a transaction that was rolled back had another"
        good(t)


# ----------------------------------------------------------------------------------- snapshots, restarts, orders
def test_a_snapshot_that_reads_the_same_row_again_writes_no_profile() -> None:
    with driver() as t:
        send(t, of(POSTGRES, "addresses"))
        t.settle()
        assert [e["value"]["source"]["snapshot"] for e in of(POSTGRES, "addresses", "r")].count("incremental") == 2
        governed = t.topic("crm.governed.comp.crm.crm.addresses.v1")
        assert sorted(g.get("sign", 1) for g in governed) == [-1, 1, 1, 1], "three rows, of which one was deleted"
        good(t)


@pytest.mark.parametrize("incremental", [True, False])
def test_a_transaction_that_wrote_before_a_row_was_read_and_commits_after_it_wins(incremental: bool) -> None:
    """The read did not see it. Its lsn is the smaller, and so it was dropped once."""
    start = read_again(ROW, 10, None, False, status="lead")
    again = read_again(ROW, 110, 111, incremental, status="lead")
    late = changed(ROW, "u", 100, 120, status="active")  # streamed after the commit at 120
    newer = changed(ROW, "u", 130, 125, status="churned")
    with driver() as t:
        send(t, [start, again, late])
        assert t.profile("crm:1").status == "active"
        send(t, [newer, late, again, start])
        assert t.profile("crm:1").status == "churned"
        good(t)


def test_so_does_one_that_commits_first_of_all_after_the_first_snapshot() -> None:
    start = read_again(ROW, 110, None, False, status="lead")
    first = changed(ROW, "u", 100, None, status="active")  # no commit was streamed before it
    second = changed(ROW, "u", 104, None, status="dormant")
    with driver() as t:
        send(t, [start, first, second])
        assert t.profile("crm:1").status == "dormant"
        send(t, [first, second])  # the connector was killed before it had written down how far it was
        assert t.profile("crm:1").status == "dormant"
        send(t, [changed(ROW, "d", 90, None)])
        assert t.profile("crm:1").rows == 1, "only what is read is older than it"
        good(t)


def test_rows_that_went_while_a_connector_had_lost_its_place_go_by_a_truncate_in_front_of_the_new_snapshot() -> None:
    """As docs/sources.md says to do. No event says that they are gone."""
    other = next(e for e in of(POSTGRES, "customers", "r") if e["key"] == {"customer_id": 3})
    (truncate,) = of(POSTGRES, "order_items", "t")
    here = copy.deepcopy(truncate) | {"topic": ROW["topic"]}
    here["value"]["source"] |= {"table": "customers", "lsn": 499, "sequence": None}
    again = read_again(ROW, 500, None, False, status="read again")
    late = [changed(ROW, "u", 480, None, status="late"), changed(ROW, "u", 481, None, status="latest")]
    for order in ([again, *late, here], [again, here, *late], [here, again, *late]):
        with driver() as t:
            send(t, [changed(ROW, "u", 10, 5), changed(other, "u", 20, 15)])
            assert t.profile("crm:3").rows == 1
            send(t, order)
            assert t.profile("crm:3") is None
            assert (t.profile("crm:1").rows, t.profile("crm:1").status) == (1, "latest")
            good(t)


def test_a_read_that_is_older_than_a_change_changes_nothing() -> None:
    with driver() as t:
        send(t, [changed(ROW, "u", 100, 90, status="active"), read_again(ROW, 80, None, False, status="lead")])
        assert t.profile("crm:1").status == "active"
        good(t)


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_what_a_restarted_connector_sends_again_changes_nothing(name: str) -> None:
    """Killed anywhere, it begins again at any earlier place."""
    events = lines(name)
    random_ = random.Random(name)
    app: Callable[[], App] = (lambda: crm("comp.crm.crm")) if name == "postgres" else shop
    found = []
    for cuts in (0, 6):
        with TestDriver(app(), partitions=2, now=NOW) as t:
            sent = 0
            for cut in sorted(random_.sample(range(1, len(events)), cuts)):
                send(t, events[sent:cut])
                sent = random_.randrange(cut)
                if cut % 2:
                    t.crash()
            send(t, events[sent:])
            t.settle()
            found.append(known(t))
            good(t)
    assert found[0]
    assert found[0] == found[1]


def test_partitions_may_be_read_in_any_order() -> None:
    found = []
    for order in (lambda e: (e["partition"], e["offset"]), lambda e: (-e["partition"], e["offset"])):
        with driver() as t:
            for event in sorted(POSTGRES, key=order):
                send(t, [event])
                if payload(event) is None:
                    t.settle()
            t.settle()
            found.append(known(t))
            good(t)
    assert found[0]
    assert found[0] == found[1]


def test_with_schemas_inside_keys_and_tombstones_are_the_same() -> None:
    with driver("comp.crms.crm") as t:
        send(t, lines("postgres_with_schemas"))
        found = t.profile("crm:1")
        assert found.aliases == ["ana.maria@old.example.com"]
        good(t)


# ------------------------------------------------------------------------------------------------------- refused
def test_an_unwrapped_event_is_refused_and_the_reason_names_the_transformation() -> None:
    events = of(lines("postgres_unwrapped"), "addresses")
    (delete,) = [e for e in events if e["value"] and e["value"]["__deleted"] == "true"]
    assert delete["value"]["customer_id"] == 0, "made up here as well"
    decoder = DebeziumDecoder(Address, ["address_id"])
    for event in events:
        (found,) = decoder.decode([dumped(event["value"])], [dumped(event["key"])])
        if event["value"] is None:
            assert found is None
            continue
        assert isinstance(found, Misfit)
        assert found.reason == "not-a-change"
        assert "ExtractNewRecordState" in str(found)


@pytest.mark.parametrize(
    "value", [{"ts_ms": 1795423700000}, {"ddl": "ALTER TABLE t", "source": {"connector": "mariadb"}}]
)
def test_heartbeats_and_ddl_in_a_table_s_topic_are_put_aside(value: Any) -> None:
    (found,) = DebeziumDecoder(Address, ["address_id"]).decode([dumped(value)], [None])
    assert isinstance(found, Misfit)
    assert found.reason == "not-a-change"
    assert "CDC topic" in str(found)


# ------------------------------------------------------------------------------------------------------ other databases
SHOWN = {"address_id": 1, "customer_id": 7, "city": "Lund"}


def elsewhere(connector: str, **position: Any) -> Event:
    source = {"connector": connector, "ts_ms": 1795423700000, "snapshot": False, **position}
    return {"op": "u", "before": None, "after": SHOWN, "source": source, "ts_ms": 1795423700000}


@pytest.mark.parametrize("later", [{"event_serial_no": "10"}, {"event_serial_no": 10}])
def test_positions_of_sql_server_compare_also_where_a_number_is_text(later: Any) -> None:
    lsn = {"commit_lsn": "00000027:00000758:0005", "change_lsn": "00000027:00000758:0003"}
    events = [elsewhere("sqlserver", **lsn, **number) for number in ({"event_serial_no": "9"}, later)]
    decoder = DebeziumDecoder(Address, ["address_id"])
    first, second = decoder.decode([dumped(event) for event in events], [None, None])
    assert isinstance(first, Change)
    assert isinstance(second, Change)
    assert first.position < second.position
    with driver() as t:
        for event in reversed(events):
            t.send("comp.crm.crm.addresses", b'{"address_id": 1}', event)
        good(t)


@pytest.mark.parametrize(
    "event",
    [
        elsewhere("informix", commit_lsn="627404540760620", change_lsn="627404540485812"),  # "9" is not before "10"
        elsewhere("informix", commit_lsn="0", change_lsn="0"),
        elsewhere("oracle", scn="12345"),
        elsewhere("sqlserver", commit_lsn="00000027:00000758:0005", event_serial_no="x"),
    ],
)
def test_what_does_not_compare_in_its_database_s_order_is_put_aside(event: Event) -> None:
    (found,) = DebeziumDecoder(Address, ["address_id"]).decode([dumped(event)], [None])
    assert isinstance(found, Misfit)
    with driver() as t:
        t.send("comp.crm.crm.addresses", b'{"address_id": 1}', event)
        t.settle()
        t.verify("govern")


def test_events_that_debezium_s_pages_show_are_read_or_have_no_position(shared: Path) -> None:
    class Shown(Record):
        id: int

    decoder = DebeziumDecoder(Shown, ["id"])
    read, refused = set(), set()
    for line in (shared / "data/cdc/debezium-doc-events/events.jsonl").read_text().splitlines():
        shown = json.loads(line)
        if shown["kind"] != "change-event":
            continue
        event = shown["record"].get("payload", shown["record"])
        connector = event.get("source", {}).get("connector", "?")
        (found,) = decoder.decode([dumped(shown["record"])], [None if shown["op"] == "t" else b'{"id": 1004}'])
        if not isinstance(found, Misfit):
            read.add(connector)
        elif found.reason == "no-position":
            refused.add(connector)
        else:  # columns that are no id, or have another name
            assert connector in ("cassandra", "db2", "informix"), (connector, str(found))
    assert {"postgresql", "sqlserver"} <= read
    assert refused.isdisjoint(read), "a connector is read or it is not"

"""`since=` and `before=`: old logic for records of before a moment, new logic for those after it, in one profile."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from c360 import App, Projection, Record, count, newest, prefer, top, total
from c360.agents.folding import source_fold, stored
from c360.declare import AttributeDeclaration
from c360.errors import DeclarationError
from c360.ops.why import explain
from c360.profile.fold import Folding
from c360.testing import TestDriver
from tests.testing.shop import change
from tests.testing.world import NOW, World

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
MAY = datetime(2026, 5, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, 12, tzinfo=UTC)

app = App("shop", partitions=2)


@app.identifier("crm", priority=1)
class CrmId(str): ...


@app.source("web.clicks", event_id="id", at="ts", subject="customer")
class Click(Record):
    id: str
    customer: CrmId
    path: str
    ts: datetime


@app.cdc("crm.orders", key="id", subject="customer", at="placed", name="orders")
class Order(Record):
    id: int
    customer: CrmId
    amount: Decimal
    net: Decimal
    placed: datetime


def first_of_path(click: Click) -> str:
    return click.path.split("/")[0]


@app.enrich(Click, since=MARCH, before=first_of_path)
def section(click: Click) -> str:
    return click.path.split("/")[-1]


@app.enrich(Click, since=MAY)
def depth(click: Click) -> int:
    return click.path.count("/")


@app.projection("customer")
class Profile(Projection):
    spend: Decimal = total(Order.net, since=MARCH, before=total(Order.amount))
    large: int = count(
        Order, where=Order.net > 5,
        since=MAY, before=count(Order, since=MARCH, before=count(Order, Click)),
    )  # fmt: skip
    recent: Decimal = total(Order.net, within=timedelta(days=30), since=NOW - timedelta(days=10))
    last: datetime | None = newest(Order.placed, since=MARCH, before=newest(Order.placed, Click.ts))
    interests: list[str] = top(section)
    depths: list[int] = top(depth)
    trusted: datetime | None = prefer(Order.placed, Click.ts, since=MARCH, before=prefer(Click.ts, Order.placed))


def order(lsn: int, id: int, amount: str, placed: str, net: str = "1.00") -> dict[str, Any]:
    value = {"id": id, "customer": "7", "amount": amount, "net": net, "placed": f"{placed}T12:00:00Z"}
    return change("u", lsn, value)


def click(id: str, path: str, ts: str) -> dict[str, Any]:
    return {"id": id, "customer": "7", "path": path, "ts": ts}


SENT: list[tuple[str, Any, Any]] = [
    ("crm.orders", json.dumps({"id": 1}), order(1, 1, "10.00", "2026-02-01")),
    ("crm.orders", json.dumps({"id": 2}), order(2, 2, "20.00", "2026-04-01")),
    ("crm.orders", json.dumps({"id": 3}), order(3, 3, "40.00", "2026-06-01", net="30.00")),
    ("web.clicks", "7", click("a", "shoes/red", "2026-02-28T23:59:59.999Z")),
    ("web.clicks", "7", click("b", "shoes/red", "2026-03-01T00:00:00Z")),
    ("web.clicks", "7", click("c", "hats/blue/small", "2026-05-01T00:00:00Z")),
]


def send(t: TestDriver, sent: list[tuple[str, Any, Any]]) -> dict[str, Any]:
    for topic, key, value in sent:
        t.send(topic, key, value)
    t.settle()
    found: Profile = t.profile("crm:7")
    return {name: getattr(found, name) for name in Profile.__annotations__}


def test_a_record_counts_as_was_declared_for_its_time() -> None:
    with TestDriver(app, now=NOW) as t:
        found = send(t, SENT)
        assert found["spend"] == Decimal(41)  # 10 as amount; 1 and 30 as net
        assert found["large"] == 2 + 1 + 1  # order and click before March; order 2; order 3, which is large
        assert found["interests"] == ["red", "shoes", "small"]
        assert found["depths"] == [2]
        assert found["last"] == JUNE
        assert found["trusted"] == JUNE
        t.verify()


def test_order_does_not_matter_nor_does_a_crash() -> None:
    with TestDriver(app, now=NOW) as one, TestDriver(app, now=NOW) as other:
        found = send(one, SENT)
        send(other, SENT[:1:-1])
        other.crash()
        assert send(other, SENT[:2]) == found
        other.verify()


def test_an_update_takes_back_by_the_time_of_the_row_that_was() -> None:
    """Also where the row moves from one side of the moment to the other."""
    with TestDriver(app, now=NOW) as t:
        for lsn, amount, placed, spend in [
            (1, "10", "2026-02-01", 10),
            (2, "10", "2026-03-01", 1),
            (3, "12", "2026-02-01", 12),
        ]:
            assert send(t, [("crm.orders", '{"id": 1}', order(lsn, 1, amount, placed))])["spend"] == Decimal(spend)
        gone = ("crm.orders", '{"id": 1}', change("d", 4, None))
        assert send(t, [gone, ("crm.orders", '{"id": 2}', order(5, 2, "7", "2026-02-03"))])["spend"] == Decimal(7)
        t.verify()


def test_what_has_no_before_counts_from_the_moment_on_and_leaves_its_window() -> None:
    at = (NOW - timedelta(days=10)).date()
    with TestDriver(app, now=NOW) as t:
        rows = [
            (
                "crm.orders",
                json.dumps({"id": n}),
                order(n, n, "9.00", str(at + timedelta(days=n - 1)), net=f"{n + 1}.00"),
            )
            for n in range(4)
        ]
        assert send(t, rows)["recent"] == Decimal(2 + 3 + 4)  # not row 0, which is of the day before the moment
        t.verify()
        t.advance(timedelta(days=20))
        assert t.profile("crm:7").recent == Decimal(3 + 4)
        t.verify()


def test_why_names_the_records_that_count() -> None:
    world = World(app)
    send(world, SENT)
    (projection,) = world.plan.projections
    said = explain(world.plan, world.cluster, projection, "crm:7", "trusted")
    assert said is not None
    (explained,) = said["explained"]
    assert [record["id"] for record in explained["records"]] == ["3"]
    assert explained["inputs"] == ["Order.placed", "Click.ts"]


def test_the_moment_and_what_was_before_are_part_of_the_fingerprint() -> None:
    def fingerprint(spend: Any) -> str:
        other = App("shop")
        other.identifier("crm", priority=1)(CrmId)
        other.cdc("crm.orders", key="id", subject="customer")(Order)
        other.projection("customer")(type("P", (Projection,), {"spend": spend, "__annotations__": {"spend": Decimal}}))
        return other.plan().agent("customer@1").fingerprint

    said = [
        total(Order.net),
        total(Order.net, since=MARCH),
        total(Order.net, since=MAY),
        total(Order.net, since=MARCH, before=total(Order.amount)),
        total(Order.amount, since=MARCH, before=total(Order.net)),
        total(Order.net, since=MARCH, before=total(Order.amount, where=Order.net > 5)),
    ]
    assert len({fingerprint(spend) for spend in said}) == len(said)
    assert fingerprint(said[1]) == fingerprint(total(Order.net, since=MARCH.astimezone()))


def test_what_does_not_use_it_is_folded_by_the_same_code_as_ever() -> None:
    """Nothing is compared where nothing was said; the moment is a number in the line of what it is said of."""
    plan = app.plan()
    (projection,) = plan.projections
    folding = Folding(stored(plan, projection))
    (orders,) = (s for s in plan.sources if s.name == "orders")
    (fold,) = source_fold(plan, orders, projection, folding).folds.values()
    march = int(MARCH.timestamp() * 1000)
    constants = {c for c in fold.__code__.co_consts if isinstance(c, int)}
    assert march in constants
    (clicks,) = (s for s in plan.sources if s.name == "web.clicks")
    (fold,) = source_fold(plan, clicks, projection, folding).folds.values()
    assert fold.__code__.co_names.count("at_ms") == 0


# ------------------------------------------------------------------------------------------------------ refusals
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no zone": (lambda: total(Order.net, since=datetime(2026, 3, 1)), r"total\(…\): since=2026-03-01 .* no time zone"),
    "a date": (lambda: total(Order.net, since=MARCH.date()), "is an event time"),  # type: ignore[arg-type]
    "finer": (lambda: count(Order, since=MARCH + timedelta(microseconds=1)), "no whole millisecond"),
    "before alone": (lambda: count(Order, before=count(Click)), r"count\(…\) has before= and no since="),
    "a value": (lambda: count(Order, since=MARCH, before=0), r"such as count\(Order\); not 0"),
    "a field": (lambda: total(Order.net, since=MARCH, before=Order.amount), r"such as total\(Order\.net\)"),
    "kind": (lambda: count(Order, since=MARCH, before=top(Click.path)), r"before=top\(…\)\): both must be of one kind"),  # type: ignore[arg-type]
    "window": (lambda: count(Order, since=MARCH, before=count(Order, within=timedelta(days=1))), "the same within"),
    "scale": (lambda: total(Order.net, since=MARCH, before=total(Order.net, scale=3)), "the same within, n, limit and"),
    "later": (lambda: count(Order, since=MARCH, before=count(Order, since=MAY)), "must begin earlier"),
    "same": (lambda: count(Order, since=MARCH, before=count(Order, since=MARCH)), "must begin earlier"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused_where_it_is_made(name: str) -> None:
    declare, said = WRONG[name]
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_values_before_and_after_are_of_one_type() -> None:
    class Mixed(Projection):
        first: Any = newest(Order.placed, since=MARCH, before=newest(Click.path))

    with pytest.raises(DeclarationError, match=r"Mixed\.first: newest\(…\) takes values of one type.* Click\.path"):
        app.projection("mixed")(Mixed)


def other_type(click: Click) -> int:
    return len(click.path)


def says_nothing(click: Click):  # type: ignore[no-untyped-def]
    return None


@pytest.mark.parametrize(
    ("before", "since", "said"),
    [
        (other_type, MARCH, "before= returns int, and this str"),
        (says_nothing, MARCH, "before=: annotate what it returns"),
        (section, MARCH, "before= is an enrichment itself"),
        ("section", MARCH, "before= is no plain function"),
        (first_of_path, None, "has before= and no since="),
        (None, MARCH.replace(tzinfo=None), "says no time zone"),
    ],
)
def test_a_mistake_in_an_enrichment_is_refused(before: Any, since: Any, said: str) -> None:
    def named(click: Click) -> str:
        return click.path

    with pytest.raises(DeclarationError, match=rf"@app.enrich\(Click\) named.*{said}"):
        app.enrich(Click, since=since, before=before)(named)


def test_every_attribute_function_takes_them() -> None:
    import c360.declare as declare

    functions = [
        f for f in vars(declare).values() if inspect.isfunction(f) and "within" in inspect.signature(f).parameters
    ]
    public = [f for f in functions if not f.__name__.startswith("_")]
    assert len(public) == 12
    for function in public:
        old = function(Order.net)
        new: AttributeDeclaration = function(Order.amount, since=MARCH, before=old)
        assert [era.since for era in new.eras] == [MARCH, None]

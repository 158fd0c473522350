"""How long governed records are kept: as long as a rebuild of some version needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from c360 import App, Projection, Record, count, newest, total
from c360.agents.erasure import promise
from c360.engine.transport import TP, TopicSpec
from c360.errors import DeclarationError
from c360.governance.certificate import Promise
from c360.ops.doctor import examine
from c360.ops.reset import plan_reset
from c360.ops.topics import check, raw_notes
from c360.plan import Plan
from tests.testing.shop import change
from tests.testing.world import At, World

DAYS = timedelta(days=1)
DAY_MS = 86_400_000


class CrmId(str): ...


class Email(str): ...


class Click(Record):
    id: str
    customer: CrmId
    page: str
    ts: datetime


class View(Record):
    id: str
    customer: CrmId


class Order(Record):
    id: int
    customer: CrmId
    amount: Decimal


class Seen(Projection):
    clicks: int = count(Click)
    week: int = count(Click, within=7 * DAYS)


class Viewed(Projection):
    clicks: int = count(Click)
    views: int = count(View)


class Bought(Projection):
    spend: Decimal = total(Order.amount)
    last: str | None = newest(Click.page)


def shop(versions: Mapping[type[Projection], timedelta | None], *, personal: bool = False, emails: bool = False) -> App:
    """`versions`: 1, 2, … of one projection, with how far back each is to be rebuilt from."""
    app = App("shop", partitions=2)
    app.identifier("crm", priority=1, unique=True)(CrmId)
    if emails:
        app.identifier("email", personal=personal)(Email)
    app.source("web.clicks", event_id="id", at="ts", subject="customer", name="clicks")(Click)
    app.source("web.views", event_id="id", subject="customer", name="views")(View)
    app.cdc("crm.orders", key="id", subject="customer", name="orders")(Order)
    for version, (record, replay) in enumerate(versions.items(), 1):
        app.projection("customer", version=version, replay=replay)(record)
    return app


def keeps(plan: Plan) -> dict[str, str]:
    """By name without the app's, of topics that are not compacted."""
    return {t.name.removeprefix("shop."): t.config["retention.ms"] for t in plan.topics if "retention.ms" in t.config}


def test_a_governed_topic_is_kept_as_long_as_the_most_demanding_version_needs() -> None:
    plan = shop({Seen: 30 * DAYS, Viewed: 400 * DAYS}).plan()
    said = keeps(plan)
    assert said["governed.clicks.v1"] == said["governed.views.v1"] == str(400 * DAY_MS)
    assert keeps(shop({Seen: 30 * DAYS}).plan())["governed.clicks.v1"] == str(30 * DAY_MS)


def test_for_ever_where_one_version_says_nothing_or_none_reads_it() -> None:
    said = keeps(shop({Seen: 30 * DAYS, Viewed: None}).plan())
    assert said["governed.clicks.v1"] == said["governed.views.v1"] == "-1"
    assert keeps(shop({Seen: 30 * DAYS}).plan())["governed.views.v1"] == "-1"


def test_rows_are_kept_for_ever_for_what_is_taken_back_was_added_once() -> None:
    said = keeps(shop({Bought: 30 * DAYS}).plan())
    assert (said["governed.orders.v1"], said["governed.clicks.v1"]) == ("-1", str(30 * DAY_MS))


OPEN = ("dlq", "replay.clicks", "replay.orders")


def erasing(versions: Mapping[type[Projection], timedelta | None]) -> Plan:
    return shop(versions, personal=True, emails=True).plan()


def test_where_customers_are_forgotten_what_names_them_in_clear_is_kept_no_longer() -> None:
    said = keeps(erasing({Seen: 30 * DAYS, Viewed: 400 * DAYS}))
    assert {said[name] for name in OPEN} == {str(400 * DAY_MS)}
    assert said["audit"] == said["erasures"] == "-1", "what proves that it was done stays"


@pytest.mark.parametrize("plan", [erasing({Seen: 30 * DAYS, Viewed: None}), shop({Seen: 30 * DAYS}).plan()])
def test_it_is_kept_for_ever_where_a_version_needs_all_or_nobody_is_forgotten(plan: Plan) -> None:
    assert {keeps(plan)[name] for name in OPEN} == {"-1"}


def test_the_certificate_s_day_counts_what_a_segment_may_span() -> None:
    (letters,) = (t for t in erasing({Seen: 30 * DAYS}).topics if t.role == "dlq")
    assert promise(letters, {}) == Promise("delete", 37 * DAY_MS)
    assert promise(letters, {"segment.ms": str(DAY_MS)}) == Promise("delete", 31 * DAY_MS)
    assert promise(letters, {"retention.ms": "-1", "segment.ms": str(DAY_MS)}) == Promise("delete", -1)


WRONG: dict[str, tuple[Any, str]] = {
    "days": (400, r"Seen: replay= .* such as timedelta\(days=400\); not 400"),
    "hours": (timedelta(hours=3), "a day or more"),
    "window": (6 * DAYS, "replay=6 days is less than week looks back: within=7 days"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_refused(name: str) -> None:
    replay, said = WRONG[name]
    with pytest.raises(DeclarationError, match=said):
        shop({Seen: replay})


# ------------------------------------------------------------------------------------------------ against the broker
def broker(app: App, configs: Mapping[str, Mapping[str, str]]) -> World:
    """The cluster with topics as planned but for these settings."""
    world = World(app)
    world.stop()
    for topic, config in configs.items():
        world.cluster.admin().delete([topic])
        world.cluster.admin().create([TopicSpec(topic, 2, config)])
    return world


def test_topics_check_says_what_a_rebuild_would_miss_and_who_needs_it() -> None:
    clicks = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
    orders = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}
    topics = {"shop.governed.clicks.v1": clicks, "shop.governed.orders.v1": orders}
    world = broker(shop({Seen: 30 * DAYS, Viewed: 400 * DAYS, Bought: 30 * DAYS}), topics)
    found = {f.topic: f for f in check(world.plan, world.cluster.admin())}
    assert {f.problem for f in found.values()} == {"retention"}
    assert found["shop.governed.clicks.v1"].message == (
        "shop.governed.clicks.v1 keeps 7 days (retention.ms), and customer@2 needs 400 days: what is older is lost to a rebuild"
    )
    assert "1000 bytes of each partition" in found["shop.governed.orders.v1"].message
    assert "customer@3 needs all of it" in found["shop.governed.orders.v1"].message


def test_a_topic_that_keeps_more_than_is_needed_only_differs() -> None:
    config = {"cleanup.policy": "delete", "retention.ms": "-1"}
    world = broker(shop({Seen: 30 * DAYS}), {"shop.governed.clicks.v1": config})
    (found,) = check(world.plan, world.cluster.admin())
    assert (found.problem, found.topic) == ("config", "shop.governed.clicks.v1")


def test_a_raw_topic_that_keeps_less_is_a_note_and_no_fault() -> None:
    world = broker(shop({Seen: 30 * DAYS, Bought: 30 * DAYS}), {})
    admin = world.cluster.admin()
    assert raw_notes(world.plan, admin) == []
    raw = {"web.clicks": 7, "web.views": 7, "crm.orders": 400}
    admin.delete(list(raw))
    admin.create([TopicSpec(name, 2, {"retention.ms": str(days * DAY_MS)}) for name, days in raw.items()])
    clicks, views, orders = raw_notes(world.plan, admin)
    assert clicks.startswith("web.clicks keeps 7 days: ")
    assert views.startswith("web.views keeps 7 days: "), "nobody says how much of it is needed"
    assert orders.startswith("crm.orders keeps 400 days: "), "rows are needed for ever"
    assert check(world.plan, admin) == []


def test_doctor_says_what_to_do(tmp_path: Any) -> None:
    config = {"cleanup.policy": "delete", "retention.ms": str(DAY_MS)}
    world = broker(shop({Seen: None}), {"shop.governed.clicks.v1": config})
    (found,) = (c for c in examine(world.plan, world.cluster, tmp_path) if c.name == "topics")
    assert "customer@1 needs all of it" in found.message
    assert "before more is cut" in found.do


# -------------------------------------------------------------------------------------------- when it has cut something
GOVERNED = "shop.governed.clicks.v1"


@pytest.fixture
def cut() -> World:
    """Clicks of two customers, and two letters; the first half of what govern wrote is gone by now."""
    world = World(shop({Bought: 30 * DAYS}))
    for n in range(48):
        clicked = {"id": f"c{n}", "customer": str(n % 3), "page": f"p{n}", "ts": f"2026-11-01T00:00:{n:02}Z"}
        world.send("web.clicks", f"k{n % 4}", clicked)
        world.send("crm.orders", json.dumps({"id": n}), change("u", n, {"id": n, "customer": "1", "amount": "1.00"}))
    for n in (1, 2):
        world.send("web.clicks", f"k{n}", {"id": "bad"})
    world.settle()
    reader = world.cluster.reader()
    places = [TP(topic, p) for topic in (GOVERNED, "shop.dlq") for p in (0, 1)]
    world.cluster.admin().delete_records({tp: (end + 1) // 2 for tp, end in reader.ends(places).items()})
    reader.close()
    return world


def test_verify_compares_what_is_left_and_says_that_it_is_not_all(cut: World) -> None:
    report = cut.report("govern")
    assert report.examples == []
    assert not report.complete
    assert "retention has cut offsets below" in report.to_text()
    assert cut.report("govern", edit=At(cut.cluster, GOVERNED, -1).lost).differences == 1
    assert cut.report("govern", edit=At(cut.cluster, GOVERNED, -1).doubled).differences == 1
    report = cut.report("customer@1")
    assert (report.differences, report.complete) == (0, False)
    assert "what profiles have of them cannot be recomputed" in report.to_text()


def test_a_reset_says_from_where_on_its_data_is_complete_and_counts_from_there(cut: World) -> None:
    before = cut.profile("crm:1")
    cut.stop()
    said = plan_reset(cut.plan, cut.cluster, "customer@1")
    cut_of = f"{GOVERNED}: retention has cut its beginning; data is complete only from there (2026-11-02"
    assert any(note.startswith(cut_of) for note in said.notes)
    cut.reset("customer@1")
    after = cut.profile("crm:1")
    assert after.spend == before.spend == Decimal(48), "rows are all there"
    assert after.last == before.last == "p46"


def test_misfits_that_were_brought_back_and_are_cut_are_no_difference() -> None:
    world = World(shop({Seen: 30 * DAYS}))
    world.send("web.clicks", "k", {"id": "bad"}, partition=0)
    world.settle()
    (letter,) = world.values("shop.dlq")
    fixed = {"id": "bad", "customer": "1", "page": "p", "ts": "2026-11-01T00:00:00Z"}
    headers = [("c360-origin", str(letter["offset"]).encode()), ("c360-time", str(letter["timestamp"]).encode())]
    world.send("shop.replay.clicks", "k", fixed, partition=0, headers=headers)
    world.settle()
    assert world.profile("crm:1").clicks == 1
    assert world.report("govern").complete
    world.cluster.admin().delete_records({TP("shop.replay.clicks", 0): 1})
    report = world.report("govern")
    assert (report.examples, report.complete) == ([], False)
    assert "misfits that were brought back" in report.to_text()
